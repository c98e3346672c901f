"""The private socket between the commands and a mount's daemon: one JSON line each way.

`{"command": "refresh"}` is answered with `{"ok": true, ...}` or `{"ok": false, "error": "..."}`. The socket
lies in a folder of the user's own (0700).
"""

import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from octuefs.errors import NotFound, OctuefsError

logger = logging.getLogger(__name__)

_LONGEST_LINE = 1 << 20
Command = Callable[[], dict[str, Any]]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    commands: Mapping[str, Command]


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Answer one request."""
        assert isinstance(self.server, _Server)
        try:
            name = json.loads(self.rfile.readline(_LONGEST_LINE))["command"]
            answer = {"ok": True, **self.server.commands[name]()}
        except OctuefsError as error:
            answer = {"ok": False, "error": str(error)}
        except (ValueError, KeyError, TypeError):
            answer = {"ok": False, "error": "not a command of this daemon"}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class ControlServer:
    """Listens while a mount lives."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        """Listen at `path`; a socket left by a daemon that died is replaced."""
        self._path = path
        path.unlink(missing_ok=True)
        self._server = _Server(str(path), _Handler)
        self._server.commands = commands
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


def ask(path: Path, command: str, timeout: float | None = None) -> dict[str, Any]:
    """Send one command to the daemon that listens at `path` and return its answer.

    :raise NotFound: where nobody listens
    :raise OctuefsError: where the daemon says that it failed, with its words
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            line = connection.makefile("rb").readline(_LONGEST_LINE)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotFound("no octuefs daemon of this user listens for this mount point") from None
    except OSError as error:
        raise OctuefsError(f"the daemon does not answer: {error}") from error
    answer: dict[str, Any] = json.loads(line or b'{"ok": false, "error": "the daemon ended"}')
    if not answer.pop("ok"):
        raise OctuefsError(answer["error"])
    return answer
