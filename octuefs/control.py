"""The private socket between the commands and a mount's daemon: one JSON line each way.

`{"command": "refresh"}`, with what the command takes beside its name, is answered with `{"ok": true, ...}` or
`{"ok": false, "error": "..."}`. The socket lies in a folder of the user's own (0700).
"""

import json
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from octuefs.errors import NotFound, OctuefsError, from_os_error

logger = logging.getLogger(__name__)

_LONGEST_REQUEST = 1 << 20
_LONGEST_ANSWER = 1 << 28
"""Bytes; the files of a view of a million are named in less."""
Command = Callable[..., dict[str, Any]]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    commands: Mapping[str, Command]


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Answer one request."""
        with suppress(ConnectionError):  # who asked may have gone
            self.wfile.write(json.dumps(self._answer()).encode() + b"\n")

    def _answer(self) -> dict[str, Any]:
        assert isinstance(self.server, _Server)
        try:
            request = json.loads(self.rfile.readline(_LONGEST_REQUEST))
            name = request.pop("command")
            command = self.server.commands[name]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"ok": False, "error": "not a command of this daemon"}
        try:
            return {"ok": True, **command(**request)}
        except OctuefsError as error:
            logger.info("the command %s failed: %s", name, error)
            return {"ok": False, "error": str(error)}
        except Exception as error:
            logger.exception("the command %s failed", name)
            return {"ok": False, "error": f"{name} failed unexpectedly: {error!r}"}


class ControlServer:
    """Listens while a mount lives."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        """Listen at `path`; a socket left by a daemon that died is replaced.

        :raise OctuefsError: where no socket can be made there
        """
        self._path = path
        try:
            path.unlink(missing_ok=True)
            self._server = _Server(str(path), _Handler)
            self._socket = _identity(path)
        except OSError as error:
            raise from_os_error(error, f"the control socket {path}") from error
        self._server.commands = commands
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket, unless another daemon's stands there since."""
        self._server.shutdown()
        with suppress(OSError):
            # Before ours is closed: until then nobody else's can have its inode number.
            if _identity(self._path) == self._socket:
                self._path.unlink()
        self._server.server_close()


def _identity(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def ask(path: Path, command: str, /, timeout: float | None = None, **arguments: Any) -> dict[str, Any]:
    """Send one command with what it takes to the daemon that listens at `path`, and return its answer.

    :raise NotFound: where nobody listens
    :raise OctuefsError: where the daemon says that it failed, with its words
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            line = connection.makefile("rb").readline(_LONGEST_ANSWER)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotFound("no octuefs daemon of this user listens for this mount point") from None
    except OSError as error:
        raise OctuefsError(f"the daemon does not answer: {error}") from error
    if len(line) == _LONGEST_ANSWER:
        raise OctuefsError(f"the daemon's answer is longer than {_LONGEST_ANSWER >> 20} MiB")
    if not line.endswith(b"\n"):
        raise OctuefsError("the daemon ended before it answered")
    answer: dict[str, Any] = json.loads(line)
    if not answer.pop("ok"):
        raise OctuefsError(answer["error"])
    return answer
