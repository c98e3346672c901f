"""The places that the contract of stores is tested on: a folder, a bucket of a real server, and lists of files."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from octuefs.model.listed_files import FileEntry, place_files
from octuefs.model.paths import SIGNED_METADATA_NAME, CloudLocation, LocalLocation, Location, UrlLocation
from octuefs.stores.base import Store
from octuefs.stores.gcs import GcsStore
from octuefs.stores.listed import ListedStore
from octuefs.stores.local import LocalStore
from octuefs.stores.signed_http import SignedLinks
from octuefs.stores.signed_url import SignedUrlStore
from support.gcs import Bucket


class Place(Protocol):
    """A dataset that a test fills as other programs would, and the store that is tested on it."""

    keeps_folders: bool
    """Whether folders stand by themselves; else files imply them."""
    keeps_hashes: bool
    """Whether the store knows what its files' bytes hash to."""

    @property
    def store(self) -> Store: ...
    def put(self, path: str, data: bytes = b"") -> None: ...
    def put_folder(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def missing(self) -> Store: ...


class Folder:
    """A dataset in a local folder."""

    keeps_folders, keeps_hashes = True, False

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

    keeps_folders, keeps_hashes = True, True

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


class Listed:
    """A dataset that lists all files of another place, each by where it is; the store is of the list as it is now."""

    keeps_folders = False

    def __init__(self, files: Folder | Prefix) -> None:
        self.files = files
        self.keeps_hashes = files.keeps_hashes
        self._store: Store | None = None

    @property
    def location(self) -> Location:
        return self.files.store.location

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = self.opened(self.paths())
        return self._store

    def paths(self) -> list[str]:
        if isinstance(self.files, Folder):
            return [str(path) for path in self.files.path.rglob("*") if path.is_file()]
        return [f"{self.files.bucket.url}/{item['name']}" for item in self.files.bucket.list()]

    def opened(self, paths: list[str]) -> Store:
        return ListedStore(
            self.location,
            place_files(str(self.location), [FileEntry(path) for path in paths]),
            open_folder=LocalStore,
            open_bucket=lambda location: GcsStore(location, endpoint=getattr(self.files, "endpoint", None)),
            open_links=SignedLinks,
        )

    def put(self, path: str, data: bytes = b"") -> None:
        self.files.put(path, data)
        self.close()

    def put_folder(self, path: str) -> None:
        """Nothing stands for a folder in a list."""

    def remove(self, path: str) -> None:
        self.files.remove(path)
        self.close()

    def missing(self) -> Store:
        return self.opened([f"{self.location}/missing"])

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None


class Linked(Listed):
    """The same with the signed URLs of a bucket's objects."""

    def __init__(self, files: Prefix) -> None:
        super().__init__(files)
        self._bucket = files.bucket
        self._endpoint = files.endpoint

    def url(self, name: str) -> str:
        return f"{self._endpoint}/{self._bucket.name}/{quote(name)}?X-Goog-Signature=secret"

    def paths(self) -> list[str]:
        return [self.url(item["name"]) for item in self._bucket.list() if SIGNED_METADATA_NAME not in item["name"]]


class Shared(Linked):
    """A dataset that is shared by a signed URL."""

    slug = f"{Prefix.prefix}/{SIGNED_METADATA_NAME}/slug"

    def opened(self, paths: list[str]) -> Store:
        document = {"id": None, "name": "shared", "path": str(self.location), "files": paths}
        self._bucket.put(self.slug, json.dumps(document).encode())
        return SignedUrlStore(UrlLocation(self.url(self.slug)))

    def missing(self) -> Store:
        return SignedUrlStore(UrlLocation(self.url(f"{self.slug}-missing")))


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
