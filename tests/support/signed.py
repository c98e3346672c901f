"""A server that answers signed URLs as Google's XML API does, in memory, and fails on demand.

It knows what fake-gcs-server does not: links that have expired or were revoked, links for GET alone, objects that are
replaced between two requests, and busy moments. Every URL that it gives out holds `SECRET`, which no output of ours
may show. A request header that no signature covers (x-goog-*) is refused, as Google does.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import google_crc32c

SECRET = "5ecre7f00d"
"""Part of the query of every URL."""

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Stored:
    """An object as the server holds it."""

    data: bytes
    generation: int
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """Answered besides those that are made, or in their place; "" leaves one out."""
    stored_ns: int = field(default_factory=time.time_ns)


@dataclass
class Asked:
    """A request that arrived."""

    method: str
    name: str
    headers: dict[str, str]


class SignedServer:
    """Objects by name, `<bucket>/<object>`; `fault` may answer in the server's place, and `before` is called first."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.asked: list[Asked] = []
        self.connections = 0
        self.refuses_head = False
        self.ignores_ranges = False
        self.expired = False
        self.revoked: set[str] = set()
        self.fault: Callable[[Asked], Answer | None] = lambda asked: None
        self.before: Callable[[Asked], object] = lambda asked: None
        self._generation = 1_700_000_000_000_000
        self._http = _Http(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def put(self, name: str, data: bytes, metadata: dict[str, str] | None = None, **headers: str) -> Stored:
        self._generation += 1
        stored = Stored(
            data, self._generation, metadata or {}, {key.replace("_", "-"): it for key, it in headers.items()}
        )
        self.objects[name] = stored
        return stored

    def url(self, name: str, *, signed: datetime | None = None, valid: timedelta = timedelta(days=7)) -> str:
        """A signed URL of an object."""
        signed = signed or datetime.now(UTC) - timedelta(minutes=1)
        return (
            f"{self.endpoint}/{quote(name)}?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=x%40y{SECRET}"
            f"&X-Goog-Date={signed:%Y%m%dT%H%M%SZ}&X-Goog-Expires={int(valid.total_seconds())}"
            f"&X-Goog-SignedHeaders=host&X-Goog-Signature={SECRET}"
        )

    def share(self, folder: str, names: Sequence[str], **fields: Any) -> str:
        """Store the document that shares objects of a folder, as the SDK makes it; returns its signed URL."""
        document = {
            "id": "7cbf7b6a-4b6c-4a86-b5e5-6f3d3fbd7a6d",
            "name": "shared",
            "tags": {},
            "labels": [],
            "path": f"gs://{folder}",
            "files": [self.url(f"{folder}/{name}") for name in names],
            **fields,
        }
        return self.share_text(folder, json.dumps(document).encode())

    def share_text(self, folder: str, text: bytes) -> str:
        name = f"{folder}/.signed_metadata_files/blue-slug-of-hope"
        self.put(name, text)
        return self.url(name)

    # --- answers

    def _answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        self.before(asked)
        if (answer := self.fault(asked)) is not None:
            return answer
        if any(name.startswith("x-goog-") for name in asked.headers):
            return _refusal(403, "SignatureDoesNotMatch")
        if self.expired:
            details = "The provided token has expired. Request signature expired at: 2026-01-02T03:04:05+00:00"
            return _refusal(400, "ExpiredToken", details)
        if asked.name in self.revoked or (asked.method == "HEAD" and self.refuses_head):
            return _refusal(403, "SignatureDoesNotMatch")
        stored = self.objects.get(asked.name)
        if stored is None:
            return _refusal(404, "NoSuchKey")
        return self._content(asked, stored)

    def _content(self, asked: Asked, stored: Stored) -> Answer:
        headers = _headers(stored)
        wanted = asked.headers.get("range")
        if asked.method == "HEAD" or wanted is None or self.ignores_ranges:
            return 200, headers, stored.data
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if int(first) >= len(stored.data):
            return 416, {"Content-Range": f"bytes */{len(stored.data)}"}, b"<Error><Code>InvalidRange</Code></Error>"
        stop = min(int(last) + 1, len(stored.data))
        headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(stored.data)}"
        return 206, headers, stored.data[int(first) : stop]

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_GET(self) -> None:
                name = unquote(urlsplit(self.path).path, errors="surrogateescape")[1:]
                headers = {key.lower(): value for key, value in self.headers.items()}
                status, answered, body = server._answer(Asked(self.command, name, headers))
                self.send_response_only(status)
                for key, value in answered.items():
                    self.send_header(key, value.encode("utf-8", "surrogateescape").decode("latin-1"))
                if "content-length" not in {key.lower() for key in answered}:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are tested may hang up at any time."""


def _refusal(status: int, code: str, details: str = "") -> Answer:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Details>{details}</Details></Error>"
    return status, {"Content-Type": "application/xml; charset=UTF-8"}, text.encode()


def _headers(stored: Stored) -> dict[str, str]:
    crc32c = base64.b64encode(google_crc32c.value(stored.data).to_bytes(4, "big")).decode()
    made = {
        "Content-Type": "application/octet-stream",
        "Last-Modified": formatdate(stored.stored_ns / 1e9, usegmt=True),
        "ETag": f'"{stored.generation}"',
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": "1",
        "x-goog-hash": f"crc32c={crc32c},md5=1B2M2Y8AsgTpgAmY7PhCfg==",
        "x-goog-stored-content-encoding": "identity",
        "x-goog-stored-content-length": str(len(stored.data)),
        **{f"X-Goog-Meta-{key}": value for key, value in stored.metadata.items()},
    }
    changed = {key.lower() for key in stored.headers}
    kept = {key: value for key, value in made.items() if key.lower() not in changed}
    return {**kept, **{key: value for key, value in stored.headers.items() if value}}
