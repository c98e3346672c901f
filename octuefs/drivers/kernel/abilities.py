"""What this kernel lets this process do besides plain requests, and why not, in words with the remedy.

`doctor`, the driver and a mount's status ask `find_abilities`. The functions that judge are pure: they take what the
system says of itself, and return "" where nothing is in the way.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PARAMETER = Path("/sys/module/fuse/parameters/enable_uring")
_DISABLED = Path("/proc/sys/kernel/io_uring_disabled")
_STATUS = Path("/proc/self/status")
_USERS = Path("/proc/self/uid_map")

ENABLE_COMMAND: Final = f"echo Y | sudo tee {_PARAMETER}"
"""Switches FUSE over io_uring on, for all mounts that are made from then on."""

_SYS_ADMIN: Final = 1 << 21
_ALL_USERS: Final = (0, 0, (1 << 32) - 1)

Version = tuple[int, int]

_PASSTHROUGH_SINCE: Final[Version] = (6, 9)
_URING_SINCE: Final[Version] = (6, 14)


@dataclass(frozen=True, slots=True)
class Abilities:
    """For each, why it cannot be had; "" where it can."""

    passthrough: str
    """The kernel reads and writes files on a disk by itself."""
    io_uring: str
    """Requests come over io_uring."""


def find_abilities() -> Abilities:
    """Look at the system; nothing is changed or tried."""
    release, status, users = os.uname().release, _read(_STATUS) or "", _read(_USERS) or ""
    parameter, disabled = _read(_PARAMETER), _read(_DISABLED) or "0"
    return Abilities(
        passthrough=why_no_passthrough(release, admin=is_admin(status, users)),
        io_uring=why_no_io_uring(release, parameter, disabled, admin=is_admin(status, "")),
    )


def switch_uring_on() -> None:
    """Switch FUSE over io_uring on for the whole system, where this process may; `find_abilities` tells if not."""
    with suppress(OSError):
        _PARAMETER.write_text("Y")


# --- judging


def why_no_passthrough(release: str, *, admin: bool) -> str:
    """Say what is in the way of passthrough on a kernel of this release.

    :param admin: whether the mount is made with CAP_SYS_ADMIN in the system's own user namespace
    """
    if (version := version_of(release)) < _PASSTHROUGH_SINCE:
        return f"it takes Linux {_dotted(_PASSTHROUGH_SINCE)}, and this is {_dotted(version)}"
    if not admin:
        return "it takes root (CAP_SYS_ADMIN outside of a user namespace)"
    return ""


def why_no_io_uring(release: str, parameter: str | None, disabled: str, *, admin: bool) -> str:
    """Say what is in the way of FUSE over io_uring.

    :param parameter: what the module's enable_uring holds, None where it is not there
    :param disabled: what the system's io_uring_disabled holds
    :param admin: whether this process has CAP_SYS_ADMIN, in whatever user namespace
    """
    if (version := version_of(release)) < _URING_SINCE:
        return f"it takes Linux {_dotted(_URING_SINCE)}, and this is {_dotted(version)}"
    if parameter is None:
        return "this kernel was built without it, or its module is not loaded (sudo modprobe fuse)"
    if disabled.strip() == "2" or (disabled.strip() == "1" and not admin):
        return "this system forbids io_uring; allow it with: sudo sysctl kernel.io_uring_disabled=0"
    if parameter.strip() not in ("Y", "1"):
        return f"it is switched off; switch it on with: {ENABLE_COMMAND}"
    return ""


def version_of(release: str) -> Version:
    """Return the first two numbers of a kernel's release, such as "6.8.0-31-generic"; zeros where there are none."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def is_admin(status: str, users: str) -> bool:
    """Say whether a process has CAP_SYS_ADMIN.

    :param status: its /proc/PID/status
    :param users: its /proc/PID/uid_map, which tells a user namespace by what it leaves out; "" where any will do
    """
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if found is None or not int(found[1], 16) & _SYS_ADMIN:
        return False
    return not users or tuple(map(int, users.split())) == _ALL_USERS


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _read(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text()
    return None
