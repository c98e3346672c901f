"""The places that the contract of stores is tested on: a folder, and a bucket of a real server."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from octuefs.model.paths import CloudLocation, LocalLocation
from octuefs.stores.base import Store
from octuefs.stores.gcs import GcsStore
from octuefs.stores.local import LocalStore
from support.gcs import Bucket


class Place(Protocol):
    """A dataset that a test fills as other programs would, and the store that is tested on it."""

    store: Store

    def put(self, path: str, data: bytes = b"") -> None: ...
    def put_folder(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def missing(self) -> Store: ...


class Folder:
    """A dataset in a local folder."""

    def __init__(self, path: Path) -> None:
        self.path = path / "dataset"
        self.path.mkdir()
        self.store = LocalStore(LocalLocation(str(self.path)))

    def put(self, path: str, data: bytes = b"") -> None:
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_bytes(data)

    def put_folder(self, path: str) -> None:
        (self.path / path).mkdir(parents=True)

    def remove(self, path: str) -> None:
        (self.path / path).unlink()

    def missing(self) -> LocalStore:
        return LocalStore(LocalLocation(f"{self.path}-missing"))


class Prefix:
    """A dataset in a bucket, under `data/`."""

    prefix = "data"

    def __init__(self, bucket: Bucket, endpoint: str | None = None) -> None:
        self.bucket = bucket
        self.endpoint = endpoint or bucket.server.endpoint
        self.store = GcsStore(CloudLocation(bucket.name, self.prefix), endpoint=self.endpoint)

    def put(self, path: str, data: bytes = b"", metadata: dict[str, str] | None = None) -> None:
        self.bucket.put(f"{self.prefix}/{path}", data, metadata)

    def put_folder(self, path: str) -> None:
        self.put(f"{path}/")

    def remove(self, path: str) -> None:
        self.bucket.delete(f"{self.prefix}/{path}")

    def missing(self) -> GcsStore:
        return GcsStore(CloudLocation(f"{self.bucket.name}-missing", ""), endpoint=self.endpoint)


class Proxy:
    """Stands before a server: counts requests, and may answer in its place (`answer`, given the request's path)."""

    Answer = Callable[[str], tuple[int, dict[str, str], bytes] | None]

    def __init__(self, target: str) -> None:
        self.requests: list[str] = []
        self.answer: Proxy.Answer = lambda path: None
        self.target = target
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forward(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(self.target + path, headers=headers or {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as reply:
                return reply.status, dict(reply.headers), reply.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.requests.append(self.path)
                kept = {name: value for name, value in self.headers.items() if name in ("Range", "Accept-Encoding")}
                status, headers, body = proxy.answer(self.path) or proxy.forward(self.path, kept)
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
