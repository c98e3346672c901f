"""`octuefs` commands as processes: of their own from the beginning, or forked from one that has imported octuefs."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

SERVER = Path(__file__).with_name("command_server.py")

READ_WHEN_IT_RUNS = re.compile(r"(OCTUEFS|GOOGLE|XDG)_\w+|STORAGE_EMULATOR_HOST|TZ|PYTEST_CURRENT_TEST")
"""The variables that no module reads while it is imported; where others differ a command must begin by itself."""


def run_command(
    command: list[str], environment: Mapping[str, str], timeout: float, *, fresh: bool
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `fresh`: in a process that begins with it.

    :raise subprocess.TimeoutExpired: where it took longer, and was killed
    """
    with open(os.devnull) as nothing, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, not pipes: a daemon that wrongly keeps its starter's output open must not make us wait for ever.
        if fresh or not _server.fits(environment):
            code = subprocess.run(
                command, env=environment, stdin=nothing, stdout=out, stderr=err, timeout=timeout, check=False
            ).returncode
        else:
            code = _server.run(command, environment, [it.fileno() for it in (nothing, out, err)], timeout)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def end_server() -> None:
    """End the process that others are forked from, if there is one; the next command starts it again."""
    _server.end()


class _Server:
    """The process of `command_server.py`, which the first command starts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._environment: Mapping[str, str] = {}

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a forked command finds all in this environment as one that begins there."""
        self._start(environment)
        changed = dict(set(environment.items()) ^ set(self._environment.items()))
        return all(READ_WHEN_IT_RUNS.fullmatch(name) for name in changed)

    def run(self, command: list[str], environment: Mapping[str, str], files: list[int], timeout: float) -> int:
        """Run a command with these as stdin, stdout and stderr; return its exit code."""
        assert self._requests is not None
        request = {"arguments": command, "environment": environment, "umask": _umask()}
        answer, its_end = socket.socketpair()
        with answer:  # where it is closed before there is an answer, the command is killed
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
            with its_end:
                try:
                    packet = json.dumps(request).encode()
                    socket.send_fds(self._requests, [packet], [*files, folder, its_end.fileno()])
                finally:
                    os.close(folder)
            answer.settimeout(timeout)
            try:
                return int(answer.recv(64))
            except TimeoutError:
                raise subprocess.TimeoutExpired(command, timeout) from None

    def end(self) -> None:
        """Let it end, and wait for that."""
        with self._lock:
            if self._process is not None and self._requests is not None:
                self._requests.close()
                self._process.wait(20)
                self._process = self._requests = None

    def _start(self, environment: Mapping[str, str]) -> None:
        with self._lock:
            if self._process is not None:
                return
            # What is this run's own, not what is this command's: by that its daemon would be known.
            self._environment = dict(environment.items() & os.environ.items())
            self._requests, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its_end:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", SERVER, str(its_end.fileno())],
                    cwd="/",
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[its_end.fileno()],
                )


_server = _Server()


def _umask() -> int:
    """This process's umask; os.umask could only tell it by changing it."""
    lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Umask:")), 8)
