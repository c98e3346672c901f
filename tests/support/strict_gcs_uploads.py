"""Uploads as Google takes them: in one request, or in a session that remembers how far it is."""

import asyncio
import json
import re
import uuid
from collections.abc import Mapping
from email.message import Message
from typing import Any

from support.strict_gcs_faults import Request
from support.strict_gcs_objects import (
    Blob,
    Key,
    Objects,
    Refused,
    Resource,
    check,
    check_name,
    check_resource,
    check_sums,
    invalid,
    missing,
    sums_in_header,
)

UNIT = 256 << 10
"""Chunks that are not the last, and what a broken connection leaves, are multiples of this."""

Answer = tuple[int, dict[str, str], bytes]


class _Session:
    def __init__(self, key: Key, resource: Resource, query: dict[str, str], total: int | None) -> None:
        self.key = key
        self.resource = resource
        self.query = query
        self.total = total
        self.sums: dict[str, str] = {}
        self.kept = Blob()
        self.lock = asyncio.Lock()
        self.done: Resource | None = None
        self.refusal: Refused | None = None
        """What every further request gets."""

    def end(self, refusal: Refused | None) -> None:
        self.refusal = refusal
        self.kept.close()


class Uploads:
    """All uploads. A session lives here alone until it is complete, so the server sees whole objects only."""

    def __init__(self, objects: Objects, endpoint: str) -> None:
        self._objects = objects
        self._endpoint = endpoint
        self._sessions: dict[str, _Session] = {}

    def close(self) -> None:
        for session in self._sessions.values():
            session.kept.close()
        self._sessions.clear()

    def forget_sessions(self) -> None:
        """End all sessions as a week does."""
        for session in self._sessions.values():
            if session.done is None:
                session.end(Refused(410, "gone", "The upload session is gone"))

    # --- in one request

    async def upload(self, request: Request, blob: Blob) -> Answer:
        resource: Resource = {}
        if request.query.get("uploadType") == "multipart":
            resource, content_type, content = _parts(request.headers.get("Content-Type", ""), blob.read())
            blob.cut(0)
            blob.append(content)
        else:
            content_type = request.headers.get("Content-Type", "")
            resource = {key: request.query[key] for key in ("contentEncoding",) if key in request.query}
            resource["cacheControl"] = request.headers.get("Cache-Control")
        resource["contentType"] = resource.get("contentType") or content_type
        key = (request.bucket, request.query.get("name") or resource.get("name") or "")
        check_name(key[1])
        check_resource(resource)
        check_sums(blob, resource, sums_in_header(request.headers))
        async with self._objects.lock(key):
            check(request.query, await self._objects.stat(key))
            return 200, {}, json.dumps(await self._objects.store(key, resource, blob)).encode()

    # --- in a session

    async def start(self, request: Request, blob: Blob) -> Answer:
        resource = parse_object(blob.read())
        key = (request.bucket, request.query.get("name") or resource.get("name") or "")
        check_name(key[1])
        check_resource(resource)
        resource["contentType"] = resource.get("contentType") or request.headers.get("X-Upload-Content-Type")
        await self._objects.check_bucket(key[0])
        async with self._objects.lock(key):
            check(request.query, await self._objects.stat(key))
        length = request.headers.get("X-Upload-Content-Length")
        number = uuid.uuid4().hex
        session = _Session(key, resource, dict(request.query), int(length) if length else None)
        session.sums = sums_in_header(request.headers)
        self._sessions[number] = session
        location = f"{self._endpoint}{request.target.partition('?')[0]}?uploadType=resumable&upload_id={number}"
        return 200, {"Location": location, "X-GUploader-UploadID": number}, b""

    async def send(self, request: Request, blob: Blob, *, keep: int | None) -> Answer:
        """Take bytes of a session, or tell how far it is; of a chunk that is not the last, `keep` bytes at most."""
        session = self._session(request)
        async with session.lock:
            if session.refusal is not None:
                raise session.refusal
            if session.done is not None:
                return 200, {}, json.dumps(session.done).encode()
            start, end, total = _range(request.headers.get("Content-Range"), blob.size)
            if total is not None:
                if total < (session.kept.size if end is None else end + 1) or session.total not in (None, total):
                    raise invalid(f"Invalid request: {total} bytes in all does not fit what was said before")
                session.total = total
            if end is None:
                if blob.size:
                    raise invalid("Invalid request: a body where none is announced")
                if total != session.kept.size:
                    return self._so_far(session, request)
            else:
                self._check_chunk(session, start, end, total, blob.size)
                last = end + 1 == total
                self._append(session, start, blob, None if last else keep)
                if not last:
                    return self._so_far(session, request)
            return await self._complete(session, request)

    async def take_rest(self, request: Request, blob: Blob) -> None:
        """Keep what arrived of a body before its connection broke."""
        session = self._sessions.get(request.query["upload_id"])
        if session is None or session.done is not None or session.refusal is not None:
            return
        async with session.lock:
            start, end, _ = _range(request.headers.get("Content-Range"), request.size)
            if end is not None and start <= session.kept.size:
                blob.cut(blob.size // UNIT * UNIT)
                self._append(session, start, blob, None)

    async def cancel(self, request: Request) -> Answer:
        session = self._session(request)
        async with session.lock:
            if session.done is None:
                session.end(Refused(410, "gone", "The upload was cancelled"))
        return 499, {}, b""

    def _session(self, request: Request) -> _Session:
        session = self._sessions.get(request.query.get("upload_id", ""))
        if session is None:
            raise missing("no such upload session")
        return session

    def _check_chunk(self, session: _Session, start: int, end: int, total: int | None, size: int) -> None:
        if end + 1 - start != size:
            raise invalid(f"Invalid request: {size} bytes in the body, {end + 1 - start} in the Content-Range header")
        if start > session.kept.size:
            raise invalid(
                f"Invalid request. According to the Content-Range header, the upload offset is {start} byte(s), "
                f"which exceeds already uploaded size of {session.kept.size} byte(s)."
            )
        if end + 1 != total and size % UNIT:
            raise invalid(f"Invalid request: a chunk that is not the last has a multiple of 256 KiB, not {size} bytes")

    def _append(self, session: _Session, start: int, blob: Blob, keep: int | None) -> None:
        """Append what is new to the session; bytes that it has already are not taken again."""
        if keep is not None:
            blob.cut(keep // UNIT * UNIT)
        session.kept.take(blob, session.kept.size - start)

    def _so_far(self, session: _Session, request: Request) -> Answer:
        headers = {"Range": f"bytes=0-{session.kept.size - 1}"} if session.kept.size else {}
        if "X-GUploader-No-308" in request.headers:
            return 200, {**headers, "X-Http-Status-Code-Override": "308"}, b""
        return 308, headers, b""

    async def _complete(self, session: _Session, request: Request) -> Answer:
        objects, key = self._objects, session.key
        try:
            check_sums(session.kept, session.resource, session.sums, sums_in_header(request.headers))
            async with objects.lock(key):
                check(session.query, await objects.stat(key))
                session.done = await objects.store(key, session.resource, session.kept)
        except Refused as refusal:
            session.end(refusal)
            raise
        session.end(None)
        return 200, {}, json.dumps(session.done).encode()


def _range(text: str | None, size: int) -> tuple[int, int | None, int | None]:
    """(first byte, last byte or None in a question, total or None) of a Content-Range header."""
    if text is None:
        return 0, size - 1, size
    match = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(?:\*|(\d+))", text)
    if match is None:
        raise invalid(f"Invalid Content-Range: {text}")
    total = None if match[3] is None else int(match[3])
    if match[1] is None:
        return 0, None, total
    return int(match[1]), int(match[2]), total


def parse_object(text: bytes) -> dict[str, Any]:
    """A JSON object in a body; {} where it is empty."""
    try:
        value = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise Refused(400, "parseError", "Parse Error") from error
    if not isinstance(value, dict):
        raise Refused(400, "parseError", "Parse Error")
    return value


def _parts(content_type: str, data: bytes) -> tuple[Resource, str, memoryview]:
    """The resource, the content type and the content in a multipart/related body."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if boundary is None:
        raise invalid("Invalid multipart request: no boundary")
    delimiter = b"--" + boundary.strip("'").encode()
    second = data.find(b"\n" + delimiter, len(delimiter))
    end = data.rfind(b"\n" + delimiter + b"--")
    if not data.startswith(delimiter) or second < 0 or end <= second:
        raise invalid("Invalid multipart request with 0 mime parts")
    _, first, last = _part(data, len(delimiter), second)
    resource = parse_object(data[first:last])
    headers, first, last = _part(data, second + 1 + len(delimiter), end)
    return resource, headers.get("content-type", ""), memoryview(data)[first:last]


def _part(data: bytes, start: int, end: int) -> tuple[Mapping[str, str], int, int]:
    """The headers of a part between two delimiters, and where its content stands."""
    newline = b"\r\n" if data[start : start + 2] == b"\r\n" else b"\n"
    blank = data.find(newline * 2, start, end + 1)
    if blank < 0:
        raise invalid("Invalid multipart request: a part without headers' end")
    lines = data[start:blank].decode("latin-1").splitlines()
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines if line)}
    # The newline before the next delimiter is not content.
    last = end - 1 if data[end - 1 : end] == b"\r" and newline == b"\r\n" else end
    first = blank + 2 * len(newline)
    return headers, first, max(first, last)
