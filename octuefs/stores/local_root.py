"""A dataset's folder on a disk: the descriptor of its root, how things in it are described, and where links lead.

What `local_writing.py` and `local.py` stand on. The descriptor is held from the first use on, and every path is
resolved beneath it.
"""

import errno
import os
import stat
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

from octuefs.errors import NotFound, OctuefsError, PermissionRefused, from_os_error
from octuefs.model.paths import LocalLocation, Location
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.beneath import O_PATH, bytes_beneath, open_beneath
from octuefs.stores.links import real_path

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.SYMLINK}

_WORDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class LocalRoot:
    """The folder that a dataset stands in."""

    def __init__(self, location: LocalLocation, avoid: str | None = None) -> None:
        """`avoid` is the mount point: what leads there is never followed."""
        self.location: Location = location
        self._avoid = os.path.realpath(avoid) if avoid is not None else None
        self._place = location
        self._lock = threading.Lock()  # guards the opening, replacing and closing of _root_fd
        self._root_fd = -1
        self._root_device = 0

    def reopen_if_replaced(self) -> bool:
        """Turn to the folder that stands at the dataset's path now, and say whether it is another one.

        The new folder takes the number of the old descriptor, which others may be using, so that the number
        is never closed nor stands for anything else. Where there is no folder now the old one stays.
        """
        with self._lock:
            if self._root_fd < 0:
                return False
            try:
                path, _ = real_path(self._place.path, self._avoid)
                fd = os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                return False
            try:
                facts = os.fstat(fd)
                if os.path.samestat(facts, os.fstat(self._root_fd)):
                    return False
                os.dup2(fd, self._root_fd, inheritable=False)
                self._root_device = facts.st_dev
                return True
            finally:
                os.close(fd)

    def close(self) -> None:
        """Give back the root's descriptor; a later use opens it again."""
        with self._lock:
            if self._root_fd >= 0:
                os.close(self._root_fd)
            self._root_fd = -1

    def _root(self) -> int:
        """Return the root's descriptor, opened at the first use.

        :raise OctuefsError: where it cannot be opened
        """
        if self._root_fd >= 0:
            return self._root_fd
        with self._lock:
            if self._root_fd < 0:
                try:
                    fd = os.open(self._place.path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                except OSError as error:
                    raise self._failure(error, "") from error
                self._root_device = os.fstat(fd).st_dev
                self._root_fd = fd
            return self._root_fd

    @contextmanager
    def _in_folder(self, path: str) -> Iterator[tuple[int, bytes]]:
        """Give the folder of `path`, opened beneath the root, and its last name, for one call of the *at family.

        The root itself is "." in itself. An OSError that leaves the block leaves as ours.
        """
        folder, _, name = path.rpartition("/")
        try:
            last = bytes_beneath(name) or b"."
            fd = open_beneath(self._root(), folder, O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise self._failure(error, path) from error
        try:
            yield fd, last
        except OSError as error:
            raise from_os_error(error, self._place.of(path)) from error
        finally:
            os.close(fd)

    def _follow(self, path: str) -> tuple[str | None, os.stat_result]:
        """Return the path in the dataset that `path` leads to, None outside of it, and what stands there.

        A link that leaves the dataset and comes back, an absolute one mostly, leads to inside.

        :raise OSError: where it leads nowhere, or into our own mount
        """
        place, facts = real_path(self._place.of(path), self._avoid)
        root = os.path.realpath(self._place.path).rstrip("/") + "/"
        return (place.removeprefix(root) if place.startswith(root) else None), facts

    def _open_followed(self, path: str, flags: int) -> int:
        """Open what `path` leads to inside the dataset; what is swapped meanwhile is refused, not followed.

        :raise OSError: EXDEV where it leads out
        """
        target, _ = self._follow(path)
        if target is None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        return open_beneath(self._root(), target, flags | os.O_NOFOLLOW)

    def _info(self, path: str, facts: os.stat_result) -> ObjectInfo:
        mode, device, inode = facts.st_mode, facts.st_dev, facts.st_ino
        return ObjectInfo(
            path=path,
            kind=_KINDS.get(stat.S_IFMT(mode), Kind.SPECIAL),
            size=facts.st_size,
            mtime_ns=facts.st_mtime_ns,
            ctime_ns=facts.st_ctime_ns,
            mode=mode,
            uid=facts.st_uid,
            gid=facts.st_gid,
            inode=inode if device == self._root_device else _inode_elsewhere(device, inode),
            links=facts.st_nlink,
            version=version_of(facts),
            device=facts.st_rdev,
            blocks=facts.st_blocks,
        )

    def _failure(self, error: OSError, path: str) -> OctuefsError:
        """Return our exception for an OSError on the way to `path`; one that has become a link is no way any more."""
        full_path = self._place.of(path)
        if error.errno == errno.ELOOP:
            return NotFound(f"{full_path}: a symbolic link stands on the way")
        if error.errno == errno.EXDEV:
            return PermissionRefused(f"{full_path}: it leads out of the dataset")
        return from_os_error(error, full_path)


def version_of(facts: os.stat_result) -> Hashable:
    """Return what `ObjectInfo.version` is on a disk."""
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def what_stands(mode: int) -> str:
    """Name in words what is no regular file."""
    return _WORDS.get(stat.S_IFMT(mode), "something that is no file")


def _inode_elsewhere(device: int, inode: int) -> int:
    """Return a stable number for a file on another device than the root, where `inode` alone may collide."""
    return int.from_bytes(blake2b(f"{device}:{inode}".encode(), digest_size=8).digest(), "big")
