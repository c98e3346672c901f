"""File systems that live in memory alone: reading them waits for no disk, though they know no RWF_NOWAIT (tmpfs)."""

import os
from functools import cache
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_TYPES = frozenset({b"tmpfs", b"ramfs", b"rootfs"})


@cache
def lies_in_memory(device: int) -> bool:
    """Say whether a device number (st_dev) is that of a file system in memory (proc_pid_mountinfo(5))."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        lines = _MOUNTINFO.read_bytes().splitlines()
    except OSError:
        return False
    for line in lines:
        left, _, right = line.partition(b" - ")
        if left.split(b" ")[2] == number:
            return right.split(b" ")[0] in _TYPES
    return False
