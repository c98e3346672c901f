"""The objects of a server as Google would keep them: preconditions, checksums and metagenerations that hold.

fake-gcs-server keeps bytes and metadata; what it leaves out is done here, with one lock per object, so that a check
and what it allows are one step among all that comes through here.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote

import aiohttp
import google_crc32c
from yarl import URL

PIECE = 1 << 20
METADATA_LIMIT = 8 << 10
_IN_MEMORY = 8 << 20

Key = tuple[str, str]
"""Bucket and name."""
Resource = dict[str, Any]


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status, self.reason, self.message = status, reason, message

    @property
    def body(self) -> bytes:
        problem = {"domain": "global", "reason": self.reason, "message": self.message}
        return json.dumps({"error": {"code": self.status, "message": self.message, "errors": [problem]}}).encode()


def invalid(message: str) -> Refused:
    return Refused(400, "invalid", message)


def missing(what: str) -> Refused:
    return Refused(404, "notFound", f"Not Found: {what}")


class Blob:
    """Bytes on their way, in memory while they are few."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self.size = 0

    def append(self, data: bytes | memoryview) -> None:
        self._file.seek(self.size)
        self._file.write(data)
        self.size += len(data)

    def take(self, other: "Blob", start: int) -> None:
        """Append what another has from `start` on; it may be left empty."""
        if self.size or start:
            for piece in other.pieces(start):
                self.append(piece)
        else:
            self._file, other._file = other._file, self._file
            self.size, other.size = other.size, 0

    def cut(self, size: int) -> None:
        self.size = min(self.size, size)

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        while start < self.size:
            self._file.seek(start)
            data = self._file.read(min(PIECE, self.size - start))
            start += len(data)
            yield data

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def close(self) -> None:
        self._file.close()


# --- what a request asks for


_CONDITION = re.compile(r"if(Source)?(Generation|Metageneration)(Not)?Match")


def check(query: Mapping[str, str], resource: Resource | None, *, source: bool = False, reading: bool = False) -> None:
    """Compare all preconditions of a request (on its source or its target) with what stands there, if anything."""
    for key, value in query.items():
        match = _CONDITION.fullmatch(key)
        if match is None or bool(match[1]) != source:
            continue
        if not re.fullmatch(r"-?\d+", value):
            raise invalid(f"Invalid value for {key}: {value}")
        actual = int(resource[match[2].lower()]) if resource else 0
        if (actual == int(value)) == bool(match[3]):
            if reading and match[3]:
                raise Refused(304, "notModified", "Not Modified")
            raise Refused(412, "conditionNotMet", f"At least one of the pre-conditions did not hold: {key}={value}")


def has_conditions(query: Mapping[str, str]) -> bool:
    return any(_CONDITION.fullmatch(key) for key in query)


def check_name(name: str) -> None:
    if not name:
        raise Refused(400, "required", "Required parameter: name")
    if len(name.encode("utf-8", "surrogateescape")) > 1024 or "\r" in name or "\n" in name or name in (".", ".."):
        raise invalid(f"Invalid object name: {name!r}")


def check_resource(resource: Resource) -> None:
    """Refuse custom metadata that are no texts, or more than 8 KiB."""
    metadata = resource.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise invalid("Invalid value for: metadata")
    if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > METADATA_LIMIT:
        raise invalid("The metadata is too large (metadata too large)")


def check_sums(blob: Blob, *sources: Mapping[str, Any]) -> None:
    """Compare what was announced (`crc32c`, `md5Hash`, `md5`) with the bytes."""
    expected = [(key, value) for given in sources for key, value in given.items() if value and key in _SUMS]
    for key in {key for key, _ in expected}:
        actual = _SUMS[key](blob)
        for other, value in expected:
            if other == key and value != actual:
                raise invalid(f"Provided {key} {value!r} doesn't match calculated {actual!r}")


def _crc32c(blob: Blob) -> str:
    value = 0
    for piece in blob.pieces():
        value = google_crc32c.extend(value, piece)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def _md5(blob: Blob) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in blob.pieces():
        digest.update(piece)
    return base64.b64encode(digest.digest()).decode()


_SUMS = {"crc32c": _crc32c, "md5Hash": _md5, "md5": _md5}


def sums_in_header(headers: Mapping[str, str]) -> dict[str, str]:
    """What `x-goog-hash: crc32c=...,md5=...` says."""
    parts = (part.strip().partition("=") for part in headers.get("x-goog-hash", "").split(",") if "=" in part)
    return {key: value for key, _, value in parts}


# --- what stands there


_FIXED = ("contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl", "customTime")
_KEPT_BY_STORE = (*_FIXED, "metadata", "storageClass")


@dataclass(frozen=True)
class _Version:
    """What the server does not keep of one generation."""

    generation: str
    metageneration: int
    described: str
    """The metadata when last seen: where they differ, somebody patched them behind our back."""
    updated: str | None = None
    components: int = 0


class Objects:
    """All objects of a server; every method but `lock` wants the locks of its objects to be held."""

    def __init__(self, session: aiohttp.ClientSession, server: str, endpoint: str) -> None:
        self._session = session
        self._server = server
        self._endpoint = endpoint
        self._versions: dict[Key, _Version] = {}
        self._locks: dict[Key, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def lock(self, *keys: Key) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._locks.setdefault(key, asyncio.Lock()))
            yield

    def metageneration(self, key: Key, generation: str) -> int:
        """The present one of a generation, as far as it is known."""
        version = self._versions.get(key)
        return version.metageneration if version is not None and version.generation == generation else 1

    async def stat(self, key: Key, generation: str | None = None) -> Resource | None:
        """The resource as Google would tell it; None where there is no such object, or not in this generation."""
        status, text = await self._ask("GET", _path(key))
        if status == 404:
            return None
        resource = self._completed(key, _json(status, text))
        return resource if generation in (None, resource["generation"]) else None

    async def must_stat(self, key: Key, generation: str | None = None) -> Resource:
        resource = await self.stat(key, generation)
        if resource is None:
            raise missing(f"{key[0]}/{key[1]}" + (f"#{generation}" if generation else ""))
        return resource

    async def check_bucket(self, bucket: str) -> None:
        status, _ = await self._ask("GET", f"/storage/v1/b/{quote(bucket, safe='')}")
        if status != 200:
            raise missing(bucket)

    async def store(self, key: Key, resource: Resource, blob: Blob, *, components: int = 0) -> Resource:
        """Put a new generation in place."""
        check_name(key[1])
        check_resource(resource)
        content_type = resource.get("contentType") or "application/octet-stream"
        given = {name: resource[name] for name in _KEPT_BY_STORE if resource.get(name)}
        boundary = f"strict-{uuid.uuid4().hex}"
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps({**given, 'name': key[1], 'contentType': content_type})}"
            f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()

        async def body() -> AsyncIterator[bytes]:
            yield head
            for piece in blob.pieces():
                yield piece
            yield tail

        headers = {
            "Content-Type": f"multipart/related; boundary={boundary}",
            "Content-Length": str(len(head) + blob.size + len(tail)),
        }
        path = f"/upload/storage/v1/b/{quote(key[0], safe='')}/o?uploadType=multipart"
        status, text = await self._ask("POST", path, body(), headers)
        self._versions.pop(key, None)
        return self._completed(key, _json(status, text), components)

    async def download(self, key: Key, blob: Blob) -> None:
        """Append an object's content as it is stored."""
        url = URL(f"{self._server}/download{_path(key)}?alt=media", encoded=True)
        async with self._session.get(url, headers={"Accept-Encoding": "gzip"}) as response:
            if response.status != 200:
                raise missing("/".join(key))
            async for piece in response.content.iter_chunked(PIECE):
                blob.append(piece)

    async def patch(self, key: Key, changes: Resource, *, whole: bool = False) -> Resource:
        """Change metadata (`whole`: all custom metadata are given), which is a new metageneration in any case."""
        before = await self.must_stat(key)
        metadata = {} if whole else dict(before.get("metadata") or {})
        if "metadata" in changes and changes["metadata"] is None:
            metadata = {}
        for name, value in (changes.get("metadata") or {}).items():
            metadata[name] = value
        metadata = {name: value for name, value in metadata.items() if value is not None}
        check_resource({"metadata": metadata})
        fixed = {name: changes[name] for name in _FIXED if name in changes}
        if any(not value and before.get(name) for name, value in fixed.items()):
            raise Refused(501, "notImplemented", "this server cannot clear a field")
        # Its PATCH keeps keys, its PUT replaces them all, and does not know every field.
        answers = [await self._ask("PUT", _path(key), json.dumps({"metadata": metadata}).encode(), _JSON)]
        if any(fixed.values()):
            answers.append(await self._ask("PATCH", _path(key), json.dumps(fixed).encode(), _JSON))
        for status, text in answers:
            _json(status, text)
        version = self._versions[key]
        status, text = await self._ask("GET", _path(key))
        resource = _json(status, text)
        self._versions[key] = replace(
            version,
            metageneration=version.metageneration + 1,
            described=_described(resource),
            updated=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        )
        return self._completed(key, resource)

    async def rewrite(self, source: Key, target: Key, changes: Resource) -> Resource:
        """Copy an object; a resource that is given takes the place of all its metadata."""
        check_name(target[1])
        components = self._versions[source].components
        if changes:
            blob = Blob()
            try:
                await self.download(source, blob)
                return await self.store(target, changes, blob, components=components)
            finally:
                blob.close()
        await self.check_bucket(target[0])
        path = f"{_path(source)}/copyTo{_path(target).removeprefix('/storage/v1')}"
        status, text = await self._ask("POST", path, b"", _JSON)
        self._versions.pop(target, None)
        return self._completed(target, _json(status, text), components)

    async def delete(self, key: Key) -> None:
        status, _ = await self._ask("DELETE", _path(key))
        self._versions.pop(key, None)
        if status == 404:
            raise missing("/".join(key))

    async def complete_listing(
        self, bucket: str, items: list[Resource], before: Mapping[Key, object]
    ) -> list[Resource]:
        """Complete a listing that began when `snapshot()` returned `before`; what changed since is asked for again."""
        result = []
        for item in items:
            key = (bucket, item["name"])
            lock = self._locks.get(key)
            if (lock is not None and lock.locked()) or before.get(key) is not self._versions.get(key):
                async with self.lock(key):
                    again = await self.stat(key)
                if again is not None:
                    result.append(again)
            else:
                result.append(self._completed(key, item))
        return result

    def snapshot(self) -> Mapping[Key, object]:
        """What `complete_listing` compares with; objects that are being changed just now count as changed."""
        busy = {key: object() for key, lock in self._locks.items() if lock.locked()}
        return {**self._versions, **busy}

    def _completed(self, key: Key, resource: Resource, components: int = 0) -> Resource:
        """Add what the server does not know, and remember what it says."""
        generation, described = str(resource["generation"]), _described(resource)
        version = self._versions.get(key)
        if version is None or version.generation != generation:
            version = self._versions[key] = _Version(generation, 1, described, components=components)
        elif version.described != described:
            version = self._versions[key] = replace(
                version, metageneration=version.metageneration + 1, described=described
            )
        resource = {**resource, "metageneration": str(version.metageneration)}
        resource.pop("acl", None)  # its listings have it, Google's do not unless asked to
        if version.updated is not None:
            resource["updated"] = version.updated
        if version.components:
            resource.pop("md5Hash", None)
            resource["componentCount"] = version.components
        for link in ("selfLink", "mediaLink"):
            if link in resource:
                resource[link] = resource[link].replace(self._server, self._endpoint, 1)
        return resource

    async def _ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        url = URL(self._server + path, encoded=True)
        async with self._session.request(method, url, data=body, headers=headers) as response:
            return response.status, await response.read()


_JSON = {"Content-Type": "application/json"}


def _path(key: Key) -> str:
    bucket, name = (quote(part, safe="", errors="surrogateescape") for part in key)
    return f"/storage/v1/b/{bucket}/o/{name}"


def _json(status: int, text: bytes) -> Resource:
    if status != 200:
        raise Refused(status, "backendError", text.decode(errors="replace") or "the server refused")
    resource: Resource = json.loads(text)
    return resource


def _described(resource: Resource) -> str:
    return json.dumps({key: resource[key] for key in _KEPT_BY_STORE if resource.get(key)}, sort_keys=True)
