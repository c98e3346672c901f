"""File systems that live in memory alone: reading them waits for no disk, though they know no RWF_NOWAIT (tmpfs)."""

import os
from functools import cache

from octuefs.mounts import mounts

_TYPES = frozenset({"tmpfs", "ramfs", "rootfs"})


@cache
def lies_in_memory(device: int) -> bool:
    """Say whether a device number (st_dev) is that of a file system in memory."""
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(mount.device == number and mount.file_system in _TYPES for mount in mounts())
