"""The store of a dataset in a local folder.

The index calls for facts, the content layer for bytes, on any thread. A descriptor of the root is held
from the first use on, and every path is opened beneath it without following symbolic links
(`beneath.open_beneath`), so nothing outside the dataset is read, whatever is swapped meanwhile. The one
exception is asked for by name: `follow_link` and the opening of a link, which resolve inside the root
only. OSErrors leave as `octuefs.errors` with the absolute path.
"""

import errno
import os
import stat
import sys
import threading
from collections.abc import Hashable, Iterator
from hashlib import blake2b

from octuefs.errors import (
    BadValue,
    IsADirectory,
    NotADirectory,
    NotALink,
    NotFound,
    NotPermitted,
    OctuefsError,
    PermissionRefused,
    Unsupported,
    from_os_error,
)
from octuefs.model.paths import LocalLocation, Location, join, path_bytes
from octuefs.stores.base import Kind, LinkTarget, ObjectInfo, Skipped, Space
from octuefs.stores.beneath import O_PATH, open_beneath
from octuefs.stores.links import real_path

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OPEN_PLACE = O_PATH | os.O_NOFOLLOW
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK
"""O_NONBLOCK: a FIFO that was swapped in must not hang us."""

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
"""What a folder answers that vanished, or was swapped for something else, during a scan."""


class LocalFile:
    """A ByteSource over a descriptor, which it owns.

    `_lock` guards `_users` and `_closed`: the descriptor is closed by the last of close() and the reads
    under way, so its number is never reused under a read.
    """

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        with self._lock:
            if self._closed:
                raise from_os_error(OSError(errno.EBADF, ""), self._path)
            self._users += 1
        try:
            data = os.pread(self._fd, size, offset)
            while data and len(data) < size:  # one call returns 2 GiB at most
                more = os.pread(self._fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data
        except OSError as error:
            raise from_os_error(error, self._path) from error
        finally:
            with self._lock:
                self._users -= 1
                if self._closed and not self._users:
                    os.close(self._fd)

    def version(self) -> Hashable:
        """Return the version of the open file as it stands now."""
        try:
            return _version(os.fstat(self._fd))
        except OSError as error:
            raise from_os_error(error, self._path) from error

    def close(self) -> None:
        """Give back the descriptor, once the reads under way have ended."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._users:
                os.close(self._fd)


class LocalStore:
    """A Store over a local folder."""

    def __init__(self, location: LocalLocation, avoid: str | None = None) -> None:
        """`avoid` is the mount point: what leads there is never followed."""
        self.location: Location = location
        self._avoid = os.path.realpath(avoid) if avoid is not None else None
        self._place = location
        self._lock = threading.Lock()  # guards the opening, replacing and closing of _root_fd
        self._root_fd = -1
        self._root_device = 0

    @property
    def in_cloud(self) -> bool:
        """False: metadata stands in `.octue` files."""
        return False

    def check(self) -> None:
        """Raise where the folder is missing, is no folder, or may not be read."""
        path = self._place.path
        try:
            os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root()))
            os.stat("..", dir_fd=self._root())  # needs the right to pass through the folder
        except NotFound as error:
            raise NotFound(f"{path}: there is no such folder; check the path, or create it first") from error
        except NotADirectory as error:
            raise NotADirectory(f"{path} is not a folder; a dataset is a folder: give the one it stands in") from error
        except PermissionError as error:
            text = f"{path}: you may not read this folder; its owner can allow it with `chmod u+rx` or an ACL"
            raise PermissionRefused(text) from error
        except OSError as error:
            raise self._failure(error, "") from error

    def scan(self, folder: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo | Skipped]:
        """Yield what stands in `folder`, by name as bytes, then likewise what stands in each of its folders.

        Links are described and never followed. What vanishes meanwhile is left out; a folder that cannot be
        read is yielded, and then a Skipped with the reason.

        :raise NotFound: with the first item, where the folder is not there
        """
        pending = [folder]
        first = True
        while pending:
            current = pending.pop()
            try:
                found = self._list(current)
            except OSError as error:
                if first:
                    raise self._failure(error, current) from error
                if error.errno not in _GONE:
                    yield Skipped(current, os.strerror(error.errno or errno.EIO))
                continue
            first = False
            yield from found
            if recursive:
                folders = [item.path for item in found if isinstance(item, ObjectInfo) and item.kind is Kind.FOLDER]
                pending.extend(reversed(folders))

    def _list(self, folder: str) -> list[ObjectInfo | Skipped]:
        """Return what stands directly in `folder`, sorted by the names' bytes."""
        fd = open_beneath(self._root(), folder, _OPEN_FOLDER)
        found: list[ObjectInfo | Skipped] = []
        try:
            with os.scandir(fd) as entries:
                for entry in sorted(entries, key=lambda entry: path_bytes(entry.name)):
                    path = join(folder, entry.name)
                    try:
                        found.append(self._info(path, entry.stat(follow_symlinks=False)))
                    except OSError as error:
                        if error.errno not in _GONE:
                            found.append(Skipped(path, os.strerror(error.errno or errno.EIO)))
        finally:
            os.close(fd)
        return found

    def stat(self, path: str) -> ObjectInfo:
        """Return what stands at `path` now; a link is described, not followed."""
        try:
            fd = open_beneath(self._root(), path, _OPEN_PLACE)
            try:
                return self._info(path, os.fstat(fd))
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failure(error, path) from error

    def follow_link(self, path: str) -> LinkTarget:
        """Find out where the symbolic link at `path` leads.

        A file's `info` stands under the target's own path. A link to a folder, FIFO, socket or device
        outside the dataset is "other" too: it is no datafile either way.

        :raise NotFound: where there is nothing at `path` itself
        """
        self.stat(path)
        try:
            target, facts = self._follow(path)
        except OSError as error:
            return LinkTarget("broken", reason=_why_broken(error))
        if target is None:
            if stat.S_ISREG(facts.st_mode):
                return LinkTarget("broken", reason="it leads out of the dataset")
            return LinkTarget("other", reason=f"it leads to {_what(facts.st_mode)} outside the dataset")
        if stat.S_ISREG(facts.st_mode):
            return LinkTarget("file", self._info(target, facts))
        return LinkTarget("other", reason=f"it leads to {_what(facts.st_mode)}")

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

    def open(self, info: ObjectInfo) -> LocalFile:
        """Open the file that stands at `info.path` now; a link is followed inside the dataset.

        :raise NotFound: where it is gone, or no regular file any more
        """
        if info.kind is Kind.FOLDER:
            raise IsADirectory(f"{self._place.of(info.path)}: Is a directory")
        if info.kind is Kind.SPECIAL:
            raise NotPermitted(f"{self._place.of(info.path)}: a FIFO, socket or device is no datafile")
        return self._open_file(info.path, follow=info.kind is Kind.SYMLINK)

    def _open_file(self, path: str, *, follow: bool) -> LocalFile:
        full_path = self._place.of(path)
        try:
            if follow:
                fd = self._open_followed(path, _OPEN_FILE)
            else:
                fd = open_beneath(self._root(), path, _OPEN_FILE | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise NotFound(f"{full_path}: a socket or device stands there, no file") from error
            raise self._failure(error, path) from error
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            os.set_blocking(fd, True)
            return LocalFile(fd, full_path)
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise IsADirectory(f"{full_path}: Is a directory")
        raise NotFound(f"{full_path}: {_what(mode)} stands there, no file")

    def read_small(self, path: str, limit: int) -> bytes:
        """Return the whole content of a file of at most `limit` bytes; a link is followed inside the dataset.

        :raise BadValue: for a longer one
        """
        source = self._open_file(path, follow=True)
        try:
            data = source.read(0, limit + 1)
        finally:
            source.close()
        if len(data) > limit:
            raise BadValue(f"{self._place.of(path)}: it is longer than the {limit} bytes that are read")
        return data

    def read_link(self, path: str) -> str:
        """Return the target of a symbolic link, as it is stored."""
        folder, _, name = path.rpartition("/")
        try:
            fd = open_beneath(self._root(), folder, O_PATH | os.O_DIRECTORY)
            try:
                return os.readlink(name or ".", dir_fd=fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotALink(f"{self._place.of(path)}: not a symbolic link") from error
            raise self._failure(error, path) from error

    def get_xattr(self, path: str, name: str) -> bytes:
        """Return an extended attribute of a file or folder; a link at the end is not followed.

        :raise NoAttribute: where it is not set
        """
        if sys.platform != "linux":
            raise Unsupported(f"{self._place.of(path)}: extended attributes are read on Linux only")
        try:
            fd = open_beneath(self._root(), path, _OPEN_PLACE)
            try:
                return os.getxattr(f"/proc/self/fd/{fd}", name)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failure(error, path) from error

    def list_xattrs(self, path: str) -> list[str]:
        """Return the names of the extended attributes in the user's namespace, with their `user.`."""
        if sys.platform != "linux":
            return []
        try:
            fd = open_beneath(self._root(), path, _OPEN_PLACE)
            try:
                return [name for name in os.listxattr(f"/proc/self/fd/{fd}") if name.startswith("user.")]
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise self._failure(error, path) from error

    def space(self) -> Space:
        """Return how much room the folder's file system has, for users that are not root."""
        try:
            facts = os.fstatvfs(self._root())
        except OSError as error:
            raise self._failure(error, "") from error
        return Space(
            total_bytes=facts.f_blocks * facts.f_frsize,
            free_bytes=facts.f_bavail * facts.f_frsize,
            total_files=facts.f_files,
            free_files=facts.f_favail,
        )

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
            version=_version(facts),
            device=facts.st_rdev,
            blocks=facts.st_blocks,
        )

    def _failure(self, error: OSError, path: str) -> OctuefsError:
        """Return our exception for an OSError at `path`; a way that has become a link is no way any more."""
        full_path = self._place.of(path)
        if error.errno == errno.ELOOP:
            return NotFound(f"{full_path}: a symbolic link stands on the way")
        if error.errno == errno.EXDEV:
            return PermissionRefused(f"{full_path}: it leads out of the dataset")
        return from_os_error(error, full_path)


_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.SYMLINK}

_WORDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _version(facts: os.stat_result) -> Hashable:
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _what(mode: int) -> str:
    return _WORDS.get(stat.S_IFMT(mode), "something that is no file")


def _why_broken(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "it leads to nothing"
    if error.errno == errno.ELOOP:
        return "it leads in circles"
    if error.errno == errno.EDEADLK:
        return "it leads into this mount"
    return f"its target cannot be reached: {os.strerror(error.errno or errno.EIO)}"


def _inode_elsewhere(device: int, inode: int) -> int:
    """Return a stable number for a file on another device than the root, where `inode` alone may collide."""
    return int.from_bytes(blake2b(f"{device}:{inode}".encode(), digest_size=8).digest(), "big")
