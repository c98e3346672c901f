"""Whether a folder can take a cache: on a disk of this machine, writable, and apart from what is mounted."""

import os
from collections.abc import Iterable

from octuefs.errors import BadValue
from octuefs.mounts import Mount, mount_above

_OVER_THE_NETWORK = frozenset(
    (
        *("9p", "afpfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "virtiofs", "webdav"),
    )
)
_LOCAL_IN_USER_SPACE = frozenset(
    (
        *("fuseblk", "fuse.bindfs", "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.mergerfs"),
        *("fuse.ntfs-3g", "fuse.unionfs", "fuse.veracrypt"),
    )
)


def is_local(mount: Mount) -> bool:
    """Say whether a file system is on this machine; one in user space that is not known mostly is not."""
    kind = mount.file_system
    if kind.startswith(("fuse", "macfuse", "osxfuse")):
        return kind in _LOCAL_IN_USER_SPACE
    return kind not in _OVER_THE_NETWORK


def check_cache_folder(path: str) -> None:
    """Refuse a folder that cannot take a cache; it need not be there yet.

    :raise BadValue: with the reason and the remedy
    """
    real = os.path.realpath(path)
    mount = mount_above(real)
    if mount is not None and not is_local(mount):
        raise BadValue(
            f"the cache {path} lies on {mount.mount_point}, a network file system ({mount.file_system}), which may be"
            " slower than the bucket and keeps no order of writes; give a folder of a local disk with --cache-dir, or"
            " --cache-size 0 for no disk cache"
        )
    there = real
    while not os.path.lexists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise BadValue(f"the cache {path} cannot be made: {there} is no folder; give another with --cache-dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadValue(f"no permission to write in {there}, where the cache {path} is to be; give another --cache-dir")


def check_cache_apart(path: str, mount_point: str, sources: Iterable[str]) -> None:
    """Refuse a cache in the mount point or in a folder that is mounted, and a mount in the cache.

    :raise BadValue: naming both
    """
    cache, target = os.path.realpath(path), os.path.realpath(mount_point)
    if _is_within(cache, target) or _is_within(target, cache):
        raise BadValue(f"the cache {path} and the mount point {mount_point} lie in one another")
    for source in sources:
        if _is_within(cache, os.path.realpath(source)):
            raise BadValue(f"the cache {path} lies in the source {source}; choose one outside of it")


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
