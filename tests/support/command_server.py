"""A process that has imported octuefs and forks one more for each command: `python -P command_server.py DESCRIPTOR`.

A command costs a third of a second of importing, a daemon up to a whole one, and the tests run a thousand of them.
Each still is a process of its own, with its own arguments, environment, folder, umask and files. The descriptor is a
socket of packets: a JSON text with the descriptors of stdin, stdout, stderr, the folder, and a socket for the answer,
which is the exit code as `subprocess` tells it; who closes that socket before has the command killed. When nobody can
ask any more, this ends.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

import octuefs.daemon
import octuefs.launch
from octuefs.cli import app

IMPORTED_LATER = (
    *("octuefs.mount", "octuefs.mounts", "octuefs.transfer", "octuefs.drivers.libfuse", "octuefs.writing.sessions"),
    *("octuefs.stores.local", "octuefs.stores.gcs", "octuefs.stores.gcs_connect", "gcsfs", "watchdog.observers"),
    *("pydantic.fields", "pydantic.type_adapter", "zoneinfo"),  # by Typer, where pydantic is there
)
"""What commands and daemons import when they run."""


def main(requests: socket.socket) -> None:
    """Fork for each request until there can be no more."""
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # as gcs_connect does before gcsfs is imported
    for name in IMPORTED_LATER:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    octuefs.launch.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": _popen})  # type: ignore[attr-defined]
    assert threading.active_count() == 1, "a process with threads must not fork"
    gc.freeze()
    while True:
        text, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 5)
        if not text:
            return
        if os.fork() == 0:
            requests.close()
            _attend(json.loads(text), descriptors)
        _close(descriptors)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _attend(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Start the command that is asked for, wait for it, tell its exit code."""
    *its_own, answer = descriptors
    command = os.fork()
    if command == 0:
        _become(request, its_own)
    _close(its_own)
    process = os.pidfd_open(command)
    if process not in select.select([process, answer], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    with suppress(BrokenPipeError):
        os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the command."""
    *standard, folder = descriptors
    os.fchdir(folder)
    os.umask(request["umask"])
    _take(standard, request["environment"])
    sys.argv = request["arguments"]
    try:
        sys.exit(app())
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        # What the interpreter does at its end, except that nothing is taken apart: by that, all memory would be copied.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def _take(standard: list[int], environment: dict[str, str]) -> None:
    """Have these as stdin, stdout and stderr, no other file, and this environment."""
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


def _popen(command: list[str], **how: Any) -> Any:
    """What `octuefs.launch` has for subprocess.Popen."""
    return _Daemon(**how) if command[-2:] == ["-m", "octuefs.daemon"] else subprocess.Popen(command, **how)


class _Daemon:
    """The daemon as a fork of the command, in the shape of a Popen; it goes by the name of its mount point."""

    def __init__(self, *, cwd: str, env: dict[str, str], stderr: IO[bytes], **_: object) -> None:
        its_stdin, stdin = os.pipe()
        stdout, its_stdout = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.setsid()
            os.chdir(cwd)
            _take([its_stdin, its_stdout, stderr.fileno()], env)
            # What it was forked from has another environment in /proc.
            Path("/proc/self/comm").write_text(Path(env.get("OCTUEFS_TESTS_MOUNT", "octuefs")).name)
            octuefs.daemon.run()
        _close([its_stdin, its_stdout])
        self.stdin = open(stdin, "wb")  # noqa: SIM115
        self.stdout = open(stdout, "rb")  # noqa: SIM115

    def wait(self) -> int:
        """See `subprocess.Popen`."""
        with suppress(ChildProcessError):  # it was waited for
            os.waitpid(self._pid, 0)
        return 0

    def terminate(self) -> None:
        """See `subprocess.Popen`."""
        os.kill(self._pid, signal.SIGTERM)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
