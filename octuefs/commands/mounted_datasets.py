"""Datasets named by paths in mounts of ours: the daemons say where their files really are.

`manifest.py` asks; see `tree.located` for the other side.
"""

import os
from dataclasses import dataclass
from typing import Any

from octuefs.errors import OctuefsError
from octuefs.launch import ask_daemon, sync
from octuefs.model.paths import LocalLocation, parse_source
from octuefs.model.sizes import counted
from octuefs.mounts import check_alive, mount_above


@dataclass(frozen=True, slots=True)
class MountedPath:
    """A path in a mount of ours: the mount point, and the path below it ("" is the mount's root)."""

    mount_point: str
    path: str


def find_in_mount(source: str) -> MountedPath | None:
    """Return where in a mount of ours a local path leads, links on the way followed; None where it is in none.

    :raise BadValue: for what is no source, and where the mount's daemon is gone
    """
    location = parse_source(source)
    if not isinstance(location, LocalLocation):
        return None
    path = os.path.realpath(location.path)
    mount = mount_above(path)
    if mount is None or not mount.is_ours:
        return None
    check_alive(mount)
    below = os.path.relpath(path, mount.mount_point)
    return MountedPath(mount.mount_point, "" if below == os.curdir else below)


def ask_for_dataset(place: MountedPath) -> dict[str, Any]:
    """Return what `tree.located.dataset_at` says of a path, once everything that was written in its mount is stored.

    :raise OctuefsError: where something could not be stored, or no dataset is there
    """
    if failed := sync(place.mount_point, lambda left: None)["failed"]:
        raise OctuefsError(
            f"{counted(len(failed), 'file')} of this mount could not be stored, so they would be missing;"
            f" octuefs recover {place.mount_point} lists what is kept"
        )
    return ask_daemon(place.mount_point, "dataset_at", path=place.path)
