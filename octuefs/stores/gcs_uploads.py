"""Uploads: an object in one request, or in a resumable session that outlives the connection and this process.

The cloud writer calls with a `Body` to read from and a `Precondition`; an `ObjectInfo` of what now stands there
leaves. A session's URI is a secret: it is never logged and only ever sent to the store's own server.
"""

import json
import secrets
import urllib.parse
from typing import Any

from octuefs.errors import ChecksumMismatch, NotFound, StoreUnavailable
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.gcs_connect import is_google
from octuefs.stores.gcs_pieces import PIECE, Pieces, read_all
from octuefs.stores.gcs_requests import SILENCE_SECONDS, WORK_SECONDS, Answer, GcsRequests, Request, parsed
from octuefs.stores.gcs_resource import FIELDS, encode_crc32c
from octuefs.stores.writing import Body, ObjectProperties, Precondition, UploadState

_CREATES = "storage.objects.create (and storage.objects.delete to replace an object)"
_SMALL = 1 << 16
"""Bytes that are under way at once on any network, so that silence after them is the server's."""
_DEFAULT_TYPE = "application/octet-stream"
_JSON = {"Content-Type": "application/json; charset=UTF-8"}


class GcsUploads(GcsRequests):
    """The part of an ObjectStore that takes in bytes."""

    def upload(
        self, path: str, body: Body, size: int, crc32c: int, properties: ObjectProperties, condition: Precondition
    ) -> ObjectInfo:
        """Store an object in one request, its checksum sent along and compared with the server's.

        A short content is read here, by the thread that calls; a long one while it is sent.

        :raise Conflict: where the precondition does not hold
        :raise ChecksumMismatch: where other bytes arrived
        """
        resource = self._upload(self._name(path), self._place.of(path), body, size, crc32c, properties, condition)
        return self._describe(path, Kind.FILE, resource)

    def _upload(
        self,
        name: str,
        subject: str,
        body: Body,
        size: int,
        crc32c: int,
        properties: ObjectProperties,
        condition: Precondition,
    ) -> Any:
        boundary = secrets.token_hex(16)
        resource = {**resource_of(name, properties), "crc32c": encode_crc32c(crc32c)}
        before = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(resource)}\r\n"
            f"--{boundary}\r\nContent-Type: {resource['contentType']}\r\n\r\n"
        ).encode()
        after = f"\r\n--{boundary}--\r\n".encode()
        data: bytes | Pieces
        if size <= PIECE:
            data = before + read_all(body, 0, size, subject) + after
        else:
            data = Pieces(subject, body, 0, size, before, after)
        stored = self._ask_json(
            Request(
                "POST",
                self._upload_url(),
                subject,
                _CREATES,
                names=(self._place.bucket,),
                params={"uploadType": "multipart", "fields": FIELDS, **conditions(condition)},
                headers={"Content-Type": f"multipart/related; boundary={boundary}"},
                data=data,
                silence=SILENCE_SECONDS if size <= _SMALL else WORK_SECONDS,
                kind="upload",
            )
        )
        if stored.get("crc32c") not in (None, resource["crc32c"]):
            raise ChecksumMismatch(f"{subject}: other bytes were stored than were sent (their CRC32C differ)")
        return stored

    def begin_upload(self, path: str, properties: ObjectProperties, condition: Precondition) -> str:
        """Open a resumable session and return its URI, a secret that lasts a week."""
        subject = self._place.of(path)
        resource = resource_of(self._name(path), properties)
        answer = self._ask(
            Request(
                "POST",
                self._upload_url(),
                subject,
                _CREATES,
                names=(self._place.bucket,),
                params={"uploadType": "resumable", "fields": FIELDS, **conditions(condition)},
                headers={**_JSON, "X-Upload-Content-Type": resource["contentType"]},
                data=json.dumps(resource).encode(),
            )
        )
        return self._session_url(answer.headers.get("Location", ""), subject)

    def send(self, path: str, session: str, body: Body, start: int, end: int, *, total: int | None) -> UploadState:
        """Send bytes `start` to `end` of a session; with `total` the object is complete at its end.

        Without `total` the number of bytes is a multiple of 256 KiB. The state may tell of fewer bytes than were
        sent. Nothing is tried again: after a failure `upload_state` says where to go on.

        :raise Conflict: where the precondition given at the beginning no longer holds
        :raise NotFound: where the session is gone
        """
        subject = self._place.of(path)
        data: bytes | Pieces
        data = read_all(body, start, end, subject) if end - start <= PIECE else Pieces(subject, body, start, end)
        return self._put(path, session, start, end, total, data, tries=1)

    def upload_state(self, path: str, session: str) -> UploadState:
        """Ask how far a session is.

        Some emulators (fake-gcs-server 1.54) take the question for the end of the content, and tell of an object.

        :raise NotFound: where it is gone
        """
        return self._put(path, session, 0, 0, None, b"")

    def _put(
        self,
        path: str,
        session: str,
        start: int,
        end: int,
        total: int | None,
        data: "bytes | Pieces",
        *,
        tries: int | None = None,
    ) -> UploadState:
        subject = self._place.of(path)
        span = f"{start}-{end - 1}" if end > start else "*"
        request = Request(
            "PUT",
            self._session_url(session, subject),
            subject,
            _CREATES,
            headers={"Content-Range": f"bytes {span}/{'*' if total is None else total}"},
            data=data,
            accepted=frozenset((200, 201, 308)),
            silence=WORK_SECONDS,
            kind="upload",
        )
        try:
            answer = self._ask(request) if tries is None else self._ask(request, tries=tries)
        except NotFound as error:
            raise NotFound(f"{subject}: the session of its upload is gone") from error
        if answer.status == 308:
            return UploadState(_kept(answer))
        done = self._describe(path, Kind.FILE, parsed(answer, subject))
        return UploadState(done.size, done)

    def cancel_upload(self, session: str) -> None:
        """End a session; one that is gone is no failure."""
        subject = f"an upload to gs://{self._place.bucket}"
        url = self._session_url(session, subject)
        self._ask(Request("DELETE", url, subject, _CREATES, accepted=frozenset((200, 204, 404, 410, 499))))

    def _upload_url(self) -> str:
        base: str = self._connected().base
        return base.removesuffix("/storage/v1/") + "/upload/storage/v1/b/{}/o"

    def _session_url(self, session: str, subject: str) -> str:
        """Return a session's URI if it leads to Google, or on to the endpoint where that is another server.

        :raise StoreUnavailable: where it would lead our credentials elsewhere
        """
        parts = urllib.parse.urlsplit(session)
        if not is_google(self.endpoint) and parts.path:
            own = urllib.parse.urlsplit(self.endpoint)
            return parts._replace(scheme=own.scheme, netloc=own.netloc).geturl()
        if not session or not is_google(session):
            raise StoreUnavailable(f"{subject}: the server names no place of its own to upload to")
        return session


def resource_of(name: str, properties: ObjectProperties) -> dict[str, Any]:
    """Return the JSON resource of an object that is to be stored."""
    resource: dict[str, Any] = {"name": name, "contentType": _DEFAULT_TYPE, **properties.fixed}
    if properties.custom_metadata:
        resource["metadata"] = dict(properties.custom_metadata)
    return resource


def conditions(condition: Precondition) -> dict[str, str]:
    """Return the parameters of a request that ask for the precondition."""
    wanted = {"ifGenerationMatch": condition.generation, "ifMetagenerationMatch": condition.metageneration}
    return {name: str(value) for name, value in wanted.items() if value is not None}


def _kept(answer: Answer) -> int:
    """Return how many bytes the server has kept, from "Range: bytes=0-42"; without that header it is none."""
    last = answer.headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last.isdigit() else 0
