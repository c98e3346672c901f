"""What a strict server answers to each kind of request; the bytes of downloads pass through from the one behind it."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import aiohttp
from yarl import URL

from support.strict_gcs_faults import Faults, Request
from support.strict_gcs_folders import Folders
from support.strict_gcs_objects import (
    Blob,
    Objects,
    Refused,
    check,
    has_conditions,
    invalid,
    missing,
)
from support.strict_gcs_uploads import Uploads, parse_object

# Headers that belong to one connection, not to what is passed on.
OF_THE_CONNECTION = {"connection", "transfer-encoding", "keep-alive", "host", "content-length", "expect"}
_NOT_FOR_BODIES = ("Content-Type", "Accept-Encoding", "User-Agent")


@dataclass
class Answer:
    """What a client gets: a body, or one that streams from the server behind."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: aiohttp.ClientResponse | None = None

    def discard(self) -> None:
        if self.stream is not None:
            self.stream.close()


@dataclass
class Peculiarities:
    """How a test wants the buckets of this server to be."""

    bucket: dict[str, Any] = field(default_factory=dict)
    has_folders: bool = False
    rewrite_calls: int = 1
    payer: str | None = None
    """The project that has to be named as the one that pays; None: the owner pays."""
    encrypted: set[tuple[str, str]] = field(default_factory=set)
    """Buckets and names of the objects under a customer's key."""

    def shown(self, resource: dict[str, Any], bucket: str) -> dict[str, Any]:
        """Return what is told of an object to who has not its key."""
        if (bucket, resource.get("name")) not in self.encrypted:
            return resource
        known = {key: value for key, value in resource.items() if key not in ("crc32c", "md5Hash")}
        return {**known, "customerEncryption": {"encryptionAlgorithm": "AES256", "keySha256": "c2VjcmV0"}}


def describe(method: str, target: str, headers: Mapping[str, str]) -> Request:
    """Say what a request is about."""
    raw, _, text = target.partition("?")
    query = dict(parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))
    size = int(headers.get("Content-Length") or 0)
    kind, bucket, name, source = _kind(method, raw, query, headers)
    return Request(method, unquote(raw), query, kind, bucket, name, source, headers, target, size)


_PREFIX = re.compile(r"/(upload/|download/)?storage/v1/b/([^/]+)(?:/(.*))?")
_REWRITE = re.compile(r"o/(.+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/(.+)")


def _kind(
    method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> tuple[str, str, str, tuple[str, str]]:
    nowhere = ("", "")
    match = _PREFIX.fullmatch(path)
    if match is None:
        return "other", "", "", nowhere
    service, bucket, rest = match[1] or "", _plain(match[2]), match[3] or ""
    if service == "upload/":
        name = query.get("name", "")
        if "upload_id" in query:
            return ("cancel" if method == "DELETE" else "send"), bucket, name, nowhere
        return ("start" if query.get("uploadType") == "resumable" else "upload"), bucket, name, nowhere
    if re.match(r"(folders|operations)(/|$)", rest):
        return "folder", bucket, "", nowhere
    if rest in ("o", "o/") and method == "GET":
        return "list", bucket, "", nowhere
    if found := _REWRITE.fullmatch(rest):
        return "rewrite", _plain(found[2]), _plain(found[3]), (bucket, _plain(found[1]))
    if method == "POST" and (found := re.fullmatch(r"o/(.+)/compose", rest)):
        return "compose", bucket, _plain(found[1]), nowhere
    if (found := re.fullmatch(r"o/(.+)", rest)) is None:
        return "bucket", bucket, "", nowhere
    name = _plain(found[1])
    if method in ("GET", "HEAD"):
        is_media = service or method == "HEAD" or query.get("alt") == "media"
        return ("media" if is_media else "get"), bucket, name, nowhere
    if method == "POST" and headers.get("X-HTTP-Method-Override") == "PATCH":
        return "patch", bucket, name, nowhere
    kinds = {"PATCH": "patch", "PUT": "update", "DELETE": "delete"}
    return kinds.get(method, "other"), bucket, name, nowhere


def _plain(text: str) -> str:
    return unquote(text, errors="surrogateescape")


class Front:
    """Answers requests."""

    def __init__(self, session: aiohttp.ClientSession, server: str, endpoint: str, faults: Faults) -> None:
        self._session = session
        self._server = server
        self._faults = faults
        self.peculiarities = Peculiarities()
        self._objects = Objects(session, server, endpoint)
        self._folders = Folders(self._objects, self._names)
        self.uploads = Uploads(self._objects, endpoint)
        self._rewrites: dict[str, int] = {}
        """Calls that are still wanted, by token."""

    def close(self) -> None:
        self.uploads.close()

    async def answer(self, request: Request, blob: Blob) -> Answer:
        """Do what a request says; raises Refused."""
        self._check_payer(request)
        async with self._folders.standing(moving=request.kind == "folder"):
            kind = request.kind
            if kind in ("media", "other", "bucket"):
                return await getattr(self, f"_{kind}")(request, blob)
            if kind == "folder":
                if not self.peculiarities.has_folders:
                    raise invalid("The bucket does not support hierarchical namespace")
                return Answer(*await self._folders.answer(request, blob.read()))
            if kind == "upload":
                return Answer(*await self.uploads.upload(request, blob))
            if kind == "start":
                return Answer(*await self.uploads.start(request, blob))
            if kind == "send":
                keep = self._faults.limit("keeping", request) if blob.size else None
                return Answer(*await self.uploads.send(request, blob, keep=keep))
            if kind == "cancel":
                return Answer(*await self.uploads.cancel(request))
            result = await getattr(self, f"_{kind}")(request, blob)
            return Answer(204) if result is None else Answer(200, {}, json.dumps(result).encode())

    def _check_payer(self, request: Request) -> None:
        payer, named = self.peculiarities.payer, request.query.get("userProject")
        if payer is None or request.kind == "other":
            return
        if named is None:
            raise Refused(400, "required", "Bucket is a requester pays bucket but no user project provided.")
        if named != payer:
            words = f"someone does not have serviceusage.services.use access to the Google Cloud project {named}."
            raise Refused(403, "forbidden", words)

    # --- objects

    async def _get(self, request: Request, blob: Blob) -> dict[str, Any]:
        key = (request.bucket, request.name)
        async with self._objects.lock(key):
            resource = await self._objects.must_stat(key, request.query.get("generation"))
            check(request.query, resource, reading=True)
        return self.peculiarities.shown(resource, request.bucket)

    async def _media(self, request: Request, blob: Blob) -> Answer:
        key = (request.bucket, request.name)
        if key in self.peculiarities.encrypted:
            words = "The target object is encrypted by a customer-supplied encryption key."
            raise Refused(400, "resourceIsEncryptedWithCustomerEncryptionKey", words)
        async with self._objects.lock(key):
            if has_conditions(request.query):
                check(request.query, await self._objects.must_stat(key), reading=True)
            # Its server has all of one generation in hand before it answers: the lock may go then.
            answer = await self._pass_on(request, blob)
            generation = answer.headers.get("X-Goog-Generation")
            if generation is not None:
                metageneration = str(self._objects.metageneration(key, generation))
                answer.headers = {**answer.headers, "X-Goog-Metageneration": metageneration}
        return answer

    async def _list(self, request: Request, blob: Blob) -> dict[str, Any]:
        before = self._objects.snapshot()
        status, listing = await self._ask_json(request.target)
        if status != 200:
            raise missing(request.bucket)
        items = await self._objects.complete_listing(request.bucket, listing.get("items", []), before)
        items = [self.peculiarities.shown(item, request.bucket) for item in items]
        return {key: value for key, value in {**listing, "items": items}.items() if value}

    async def _delete(self, request: Request, blob: Blob) -> None:
        key = (request.bucket, request.name)
        async with self._objects.lock(key):
            check(request.query, await self._objects.must_stat(key, request.query.get("generation")))
            await self._objects.delete(key)

    async def _patch(self, request: Request, blob: Blob) -> dict[str, Any]:
        return await self._change(request, blob, whole=False)

    async def _update(self, request: Request, blob: Blob) -> dict[str, Any]:
        return await self._change(request, blob, whole=True)

    async def _change(self, request: Request, blob: Blob, *, whole: bool) -> dict[str, Any]:
        key = (request.bucket, request.name)
        changes = parse_object(blob.read())
        async with self._objects.lock(key):
            check(request.query, await self._objects.must_stat(key, request.query.get("generation")))
            return await self._objects.patch(key, changes, whole=whole)

    async def _rewrite(self, request: Request, blob: Blob) -> dict[str, Any]:
        source, target = request.source, (request.bucket, request.name)
        changes = parse_object(blob.read())
        async with self._objects.lock(source, target):
            found = await self._objects.must_stat(source, request.query.get("sourceGeneration"))
            check(request.query, found, source=True)
            check(request.query, await self._objects.stat(target))
            is_copy = "/copyTo/b/" in request.target
            if not is_copy and (more := self._more_calls(request.query.get("rewriteToken"), int(found["size"]))):
                return more
            resource = await self._objects.rewrite(source, target, changes)
        if is_copy:
            return resource
        size = resource["size"]
        sizes = {"totalBytesRewritten": size, "objectSize": size}
        return {"kind": "storage#rewriteResponse", **sizes, "done": True, "resource": resource}

    def _more_calls(self, token: str | None, size: int) -> dict[str, Any] | None:
        if token is not None and token not in self._rewrites:
            raise invalid("Invalid rewrite token")
        left = self.peculiarities.rewrite_calls - 1 if token is None else self._rewrites[token] - 1
        if left <= 0:
            return None
        token = token or uuid.uuid4().hex
        self._rewrites[token] = left
        sizes = {"totalBytesRewritten": str(size // (left + 1)), "objectSize": str(size)}
        return {"kind": "storage#rewriteResponse", **sizes, "done": False, "rewriteToken": token}

    async def _compose(self, request: Request, blob: Blob) -> dict[str, Any]:
        body = parse_object(blob.read())
        bucket, target = request.bucket, (request.bucket, request.name)
        parts: list[dict[str, Any]] = body.get("sourceObjects") or []
        if not 1 <= len(parts) <= 32:
            raise invalid(f"The number of source components provided ({len(parts)}) is not between 1 and 32")
        joined = Blob()
        try:
            async with self._objects.lock(target, *((bucket, part["name"]) for part in parts)):
                components = 0
                for part in parts:
                    key, generation = (bucket, part["name"]), part.get("generation")
                    found = await self._objects.must_stat(key, None if generation is None else str(generation))
                    conditions = part.get("objectPreconditions") or {}
                    check({name: str(value) for name, value in conditions.items()}, found)
                    components += int(found.get("componentCount", 1))
                check(request.query, await self._objects.stat(target))
                for part in parts:
                    await self._objects.download((bucket, part["name"]), joined)
                resource = body.get("destination") or {}
                return await self._objects.store(target, resource, joined, components=components)
        finally:
            joined.close()

    # --- the rest

    async def _bucket(self, request: Request, blob: Blob) -> Answer:
        if request.method != "GET":
            return await self._pass_on(request, blob)
        rest = request.path.partition("/b/")[2].partition("/")[2]
        status, resource = await self._ask_json(request.target)
        if status == 200:
            if not rest:
                resource.update(self.peculiarities.bucket)
            if rest in ("", "storageLayout") and self.peculiarities.has_folders:
                resource["hierarchicalNamespace"] = {"enabled": True}
        return Answer(status, {}, json.dumps(resource).encode())

    async def _other(self, request: Request, blob: Blob) -> Answer:
        if request.method not in ("GET", "HEAD") and not re.fullmatch(r"/storage/v1/b/?", request.path):
            raise Refused(501, "notImplemented", f"StrictGcs does not know {request.method} {request.path}")
        return await self._pass_on(request, blob)

    async def _pass_on(self, request: Request, blob: Blob) -> Answer:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in OF_THE_CONNECTION}
        response = await self._session.request(
            request.method,
            URL(self._server + request.target, encoded=True),
            data=blob.read() if blob.size else None,
            headers=headers,
            skip_auto_headers=_NOT_FOR_BODIES,
        )
        kept = {key: value for key, value in response.headers.items() if key.lower() not in OF_THE_CONNECTION}
        return Answer(response.status, kept, stream=response)

    async def _ask_json(self, target: str) -> tuple[int, dict[str, Any]]:
        async with self._session.get(URL(self._server + target, encoded=True)) as response:
            text = await response.read()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, {"error": {"code": response.status, "message": text.decode(errors="replace")}}

    async def _names(self, bucket: str, prefix: str) -> list[str]:
        query = urlencode({"prefix": prefix}, errors="surrogateescape")
        status, listing = await self._ask_json(f"/storage/v1/b/{bucket}/o?{query}")
        if status != 200:
            raise missing(bucket)
        return [item["name"] for item in listing.get("items", [])]
