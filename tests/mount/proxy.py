"""An HTTP proxy in front of a GCS server that counts requests and can make them fail, for tests."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# Headers that belong to one connection, not to what is passed on.
_OF_THE_CONNECTION = {"connection", "transfer-encoding", "keep-alive", "host", "content-length"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in two writes: without this, each answer waits 40 ms for an ACK.
    disable_nagle_algorithm = True
    server: "_Server"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.failure is not None:
            self._answer(self.server.failure, {}, b'{"error": {"message": "made to fail"}}')
            return
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in _OF_THE_CONNECTION}
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            self._answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for key, value in headers.items():
            if key.lower() not in _OF_THE_CONNECTION:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    requests: list[str]
    failure: int | None
    target: str

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that hang up."""


class Proxy:
    """A context manager: `environment` leads a client through the proxy, `requests` is what has come by so far."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.requests = []
        self._server.failure = None
        self._server.target = urlsplit(environment["STORAGE_EMULATOR_HOST"]).netloc
        self._listening = True
        port = self._server.server_address[1]
        self.environment = {**environment, "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}

    @property
    def requests(self) -> list[str]:
        """The requests so far, as "GET /path?query"."""
        return list(self._server.requests)

    def fail_with(self, status: int | None) -> None:
        """Answer every request with this status from now on; None: pass them on again."""
        self._server.failure = status

    def stop_listening(self) -> None:
        """Refuse new connections, and end those that are kept alive with their next request."""
        if self._listening:
            self._listening = False
            self._server.failure = 503
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()
