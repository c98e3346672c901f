"""The command's side of a mount's life: start the daemon, wait until it answers, end it.

The daemon is a new Python process, so it carries none of the command's memory. The config goes to it over a
pipe, never in its arguments, which everybody may read.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from octuefs import places
from octuefs.config import MountConfig
from octuefs.control import ask
from octuefs.errors import BadValue, NotFound, OctuefsError
from octuefs.model.sizes import counted
from octuefs.mounts import check_alive, mount_above, mount_at

_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_DAEMON_ENDS_SECONDS = 30.0
_ASK_SECONDS = 0.2
"""How often a daemon is asked what it still has to store."""


def launch(config: MountConfig, progress: Callable[[int], None]) -> dict[str, Any]:
    """Start the daemon of a mount and return its summary once the mount answers.

    :raise OctuefsError: where it could not mount, in its own words
    """
    with tempfile.TemporaryFile() as complaints:
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "octuefs.daemon"],  # never a module from the folder we are in
            cwd="/",
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        try:
            with suppress(BrokenPipeError):
                daemon.stdin.write(json.dumps(config.to_json()).encode())
                daemon.stdin.close()
            for line in daemon.stdout:
                message = json.loads(line)
                if "seen" in message:
                    progress(message["seen"])
                elif "mounted" in message:
                    _wait_for_mount(config.mount_point)
                    summary: dict[str, Any] = message["mounted"]
                    return summary
                else:
                    daemon.wait()
                    raise OctuefsError(message["error"] + _last_words(complaints))
            daemon.wait()
            raise OctuefsError(f"the daemon ended before it mounted{_last_words(complaints)}")
        except KeyboardInterrupt:
            daemon.terminate()
            daemon.wait()
            if (left := mount_at(config.mount_point)) is not None and left.is_ours:
                _detach(left.mount_point, lazy=True)  # the signal came before libfuse had a handler for it
            raise


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _environment() -> dict[str, str]:
    """Return the daemon's environment: the present one, with the file of credentials named as it is from anywhere."""
    environment = dict(os.environ)
    if credentials := environment.get(_CREDENTIALS):
        environment[_CREDENTIALS] = os.path.abspath(credentials)
    return environment


def _wait_for_mount(mount_point: str) -> None:
    """See the mount answer a first request: then it will answer the user's.

    :raise OctuefsError: where it does not
    """
    try:
        os.stat(mount_point)
    except OSError as error:
        raise OctuefsError(f"{mount_point} was mounted, but does not answer: {error.strerror}") from error


def _last_words(complaints: Any) -> str:
    """Return what the daemon, or libfuse in it, wrote to stderr."""
    complaints.seek(0)
    lines = [line for line in complaints.read().decode(errors="replace").splitlines() if line.strip()]
    if any("nonempty" in line for line in lines):
        return "; something was mounted or put there meanwhile"
    return f" ({'; '.join(lines[-3:])})" if lines else ""


@dataclass(frozen=True, slots=True)
class Left:
    """What a daemon still has to store."""

    files: int
    bytes: int


def unmount(
    mount_point: str,
    *,
    lazy: bool = False,
    force: bool = False,
    progress: Callable[[Left], None] = lambda _: None,
) -> None:
    """Unmount and wait for the daemon's end, telling `progress` what it still has to store.

    With `force` nothing is waited for: what is left stays in the journal, and the next mount stores it.

    :raise OctuefsError: where it is no mount of ours, or in use, or the daemon could not store all
    """
    mount = mount_at(mount_point)
    if mount is None or not mount.is_ours:
        raise BadValue(f"{mount_point} is not an octuefs mount point")
    status: dict[str, Any] = {}
    socket = None
    with suppress(OctuefsError):
        socket = places.control_socket(mount_point)
        status = ask(socket, "status", timeout=10)
    process = None
    if status and hasattr(os, "pidfd_open"):
        with suppress(OSError):
            process = os.pidfd_open(status["pid"])
    try:
        _detach(mount.mount_point, lazy=lazy)
        if force and socket is not None:
            with suppress(OctuefsError):
                ask(socket, "give_up", timeout=10)
        if process is not None and socket is not None and not lazy:
            _wait_for_end(process, socket, mount_point, status["pid"], progress)
    finally:
        if process is not None:
            os.close(process)
    if process is not None and not lazy and not force:
        _check_nothing_is_left(status, mount.source)


def _wait_for_end(process: int, socket: Path, mount_point: str, pid: int, progress: Callable[[Left], None]) -> None:
    """Wait until the daemon has ended; as long as it says that it has files to store it is given time."""
    deadline = time.monotonic() + _DAEMON_ENDS_SECONDS
    while not select.select([process], [], [], _ASK_SECONDS)[0]:
        with suppress(OctuefsError):
            left = Left(**ask(socket, "pending", timeout=10))
            if left.files:
                progress(left)
                deadline = time.monotonic() + _DAEMON_ENDS_SECONDS
        if time.monotonic() >= deadline:
            raise OctuefsError(f"{mount_point} is unmounted, but its daemon (process {pid}) has not ended yet")


def _check_nothing_is_left(status: dict[str, Any], source: str) -> None:
    """Raise where a daemon that has ended could not store all that was written."""
    from octuefs.writing.sessions import dead_sessions

    datasets = status.get("datasets", {"": status}).values()
    recovered: Counter[str] = Counter()  # by journal: two datasets may have one source
    for dataset in datasets:
        if "journal" in dataset:
            recovered[dataset["journal"]] += dataset["recovered"]
    left = sum(dead_sessions(Path(journal)).get("file", 0) - kept for journal, kept in recovered.items())
    if left > 0:
        raise OctuefsError(
            f"unmounted, but {counted(left, 'file')} could not be stored yet; nothing is lost: mount {source} again,"
            " and what was closed is stored, the rest is in .octuefs/recovered/"
        )


def sync(mount_point: str, progress: Callable[[Left], None]) -> dict[str, Any]:
    """Wait until all that was written into a mount is stored; return what the daemon says of what is left.

    :raise OctuefsError: where this is no mount of ours, or the daemon failed
    """
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(ask_daemon, mount_point, "sync")
        while not wait([done], _ASK_SECONDS).done:
            with suppress(OctuefsError):
                progress(Left(**ask_daemon(mount_point, "pending")))
        return done.result()


def _detach(mount_point: str, *, lazy: bool) -> None:
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    if tool is not None:
        command = [tool, "-u", *(["-z"] if lazy else []), "--", mount_point]
    else:
        command = ["umount", *(["-l"] if lazy else []), mount_point]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    reason = done.stderr.strip()
    if "busy" in reason.lower():
        raise OctuefsError(
            f"{mount_point} is in use; close what uses it (lsof {mount_point} tells what),"
            f" or: octuefs unmount --lazy {mount_point}"
        )
    raise OctuefsError(f"{mount_point} could not be unmounted: {reason}")


def ask_daemon(mount_point: str, command: str, /, **arguments: Any) -> dict[str, Any]:
    """Send a command, with what it takes, to the daemon of a mount.

    :raise BadValue: where this is no mount of ours
    :raise OctuefsError: where the daemon failed
    """
    mount = mount_above(mount_point)
    if mount is None or not mount.is_ours:
        raise BadValue(f"{mount_point} is not an octuefs mount point")
    try:
        return ask(places.control_socket(mount.mount_point), command, **arguments)
    except NotFound as error:
        check_alive(mount)
        raise OctuefsError(f"{mount.mount_point}: {error}; only the user who mounted can do this") from None


def paths_to_try(summary: dict[str, Any]) -> list[str]:
    """Return a few commands that show what the mount can do."""
    place = quote(summary["mount_point"])
    if not summary["views"]:
        return [f"ls {place}", f"getfattr -d {place}", f"cat {place}/.octuefs/status"]
    commands = [f"ls {place}"]
    commands += [f"ls {place}/{quote(name)}" for name in list(summary.get("in_reach", ()))[:1]]
    if summary["labels"]:
        commands.append(f"ls {place}/by-label/{quote(summary['labels'][0])}")
    elif summary["extensions"]:
        commands.append(f"ls {place}/by-ext/{quote(summary['extensions'][0] or '_')}")
    else:
        commands.append(f"cat {place}/.octuefs/views")
    return [*commands, f"cat {place}/.hash"]
