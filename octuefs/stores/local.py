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
from collections.abc import Iterator

from octuefs.errors import (
    BadValue,
    IsADirectory,
    NotADirectory,
    NotALink,
    NotFound,
    NotPermitted,
    PermissionRefused,
    Unsupported,
)
from octuefs.model.paths import join, path_bytes
from octuefs.stores.base import Kind, LinkTarget, ObjectInfo, Skipped, Space
from octuefs.stores.beneath import O_PATH, open_beneath
from octuefs.stores.local_file import LocalFile
from octuefs.stores.local_root import what_stands
from octuefs.stores.local_writing import LocalWriting

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OPEN_PLACE = O_PATH | os.O_NOFOLLOW

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
"""What a folder answers that vanished, or was swapped for something else, during a scan."""


class LocalStore(LocalWriting):
    """A `DiskStore` over a local folder; this half reads."""

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
            return LinkTarget("other", reason=f"it leads to {what_stands(facts.st_mode)} outside the dataset")
        if stat.S_ISREG(facts.st_mode):
            return LinkTarget("file", self._info(target, facts))
        return LinkTarget("other", reason=f"it leads to {what_stands(facts.st_mode)}")

    def open(self, info: ObjectInfo) -> LocalFile:
        """Open the file that stands at `info.path` now; a link is followed inside the dataset.

        :raise NotFound: where it is gone, or no regular file any more
        """
        if info.kind is Kind.FOLDER:
            raise IsADirectory(f"{self._place.of(info.path)}: Is a directory")
        if info.kind is Kind.SPECIAL:
            raise NotPermitted(f"{self._place.of(info.path)}: a FIFO, socket or device is no datafile")
        return self.open_file(info.path, os.O_RDONLY | (0 if info.kind is Kind.SYMLINK else os.O_NOFOLLOW))

    def read_small(self, path: str, limit: int) -> bytes:
        """Return the whole content of a file of at most `limit` bytes; a link is followed inside the dataset.

        :raise BadValue: for a longer one
        """
        source = self.open_file(path, os.O_RDONLY)
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


def _why_broken(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "it leads to nothing"
    if error.errno == errno.ELOOP:
        return "it leads in circles"
    if error.errno == errno.EDEADLK:
        return "it leads into this mount"
    return f"its target cannot be reached: {os.strerror(error.errno or errno.EIO)}"
