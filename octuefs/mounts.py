"""What the system says is mounted where (proc(5), /proc/self/mountinfo); no mounted path is touched."""

import errno
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from octuefs.errors import BadValue

FILE_SYSTEM_TYPES = ("fuse.octuefs", "octuefs", "macfuse_octuefs")
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Mount:
    """One mount: where, of what type, and the source as its daemon named it."""

    mount_point: str
    file_system: str
    source: str
    options: str
    device: str = ""
    """The number of its device, `major:minor`, where the system says it."""

    @property
    def is_ours(self) -> bool:
        """True for a mount of octuefs."""
        return self.file_system in FILE_SYSTEM_TYPES


def device_number(mount_point: str) -> str | None:
    """Return the number, `major:minor`, of what is mounted topmost at a place; None where nothing is.

    :param mount_point: its path as os.path.realpath has it; nothing is looked at there
    """
    return next((mount.device for mount in reversed(mounts()) if mount.mount_point == mount_point), None)


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def mounts() -> list[Mount]:
    """Return all mounts of this process's namespace, in the order they were made."""
    try:
        lines = _MOUNTINFO.read_bytes().splitlines()
    except FileNotFoundError:
        return _mounts_of_mount_command()
    found = []
    for line in lines:
        left, _, right = line.partition(b" - ")
        fields, rest = left.split(b" "), right.split(b" ")
        point, device = _unescape(fields[4]), fields[2].decode()
        found.append(Mount(point, rest[0].decode(), _unescape(rest[1]), fields[5].decode(), device))
    return found


def _mounts_of_mount_command() -> list[Mount]:
    """Return the same from mount(8), where there is no /proc (macOS)."""
    output = subprocess.run(["mount"], capture_output=True, text=True, check=False).stdout
    pattern = re.compile(r"^(?P<source>.*) on (?P<point>.*) \((?P<type>[^,)]+)(?P<options>.*)\)$", re.MULTILINE)
    return [
        Mount(match["point"], match["type"], match["source"], match["options"]) for match in pattern.finditer(output)
    ]


def check_alive(mount: Mount) -> None:
    """Refuse a mount whose daemon is gone, naming the command that frees its place.

    :raise BadValue: where it is dead
    """
    try:
        os.statvfs(mount.mount_point)  # which the kernel never answers by itself, as it may stat(2) for a dead mount
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            place = mount.mount_point
            raise BadValue(
                f"{place} holds a dead mount (its daemon is gone); free it with: fusermount3 -uz {place}"
            ) from None


def mount_at(path: str) -> Mount | None:
    """Return the topmost mount whose mount point is `path` (absolute), or None."""
    path = _canonical(path)
    return next((mount for mount in reversed(mounts()) if mount.mount_point == path), None)


def mount_above(path: str) -> Mount | None:
    """Return the mount that a path (absolute) lies in, or None."""
    path = _canonical(path)
    best: Mount | None = None
    for mount in mounts():
        point = mount.mount_point.rstrip("/")
        if (path == mount.mount_point or path.startswith(point + "/")) and (
            best is None or len(mount.mount_point) >= len(best.mount_point)
        ):
            best = mount
    return best


def _canonical(path: str) -> str:
    """Resolve links above the last component only: what stands there may be a dead mount."""
    path = os.path.abspath(path)
    above, name = os.path.split(path)
    resolved = os.path.join(os.path.realpath(above), name)
    return os.path.realpath(resolved) if os.path.islink(resolved) else resolved
