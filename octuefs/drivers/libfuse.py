"""The portable driver: fusepy on libfuse 2, which speaks in paths.

libfuse's threads call `LibfuseAdapter` with paths; it resolves each to a node (remembered while the index
stands still) and calls the operation of the same name. It translates and decides nothing.
"""

import codecs
import errno
import logging
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from cachetools import LRUCache

from octuefs.drivers.binding import Fuse, calling_thread, calling_user
from octuefs.drivers.pages import PageCaches
from octuefs.drivers.second_tries import Once, SecondTries
from octuefs.errors import Conflict, NotFound, OctuefsError, to_errno
from octuefs.operations import IO_BYTES, Opened, Operations
from octuefs.tree.node import Attributes, Node
from octuefs.writing.base import Caller

logger = logging.getLogger(__name__)

CACHED_NODES = 65_536
CACHED_MISSES = 16_384
MISS_SECONDS = 0.25
_NAME_MAX = 255
_BEYOND_THE_END_SECONDS = 0.2
_BY_PATH = frozenset(
    (
        *("open", "create", "truncate", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename"),
        *("chmod", "chown", "utimens", "setxattr", "removexattr"),
    )
)
"""What the kernel tries twice (retry_estale in linux/namei.h)."""
_UNKNOWN_INODE = 0xFFFFFFFF
"""What libfuse itself says where it knows no number; glibc's readdir would leave out an entry with 0."""
_PATH_CODEC = "octuefs-path"


def _path_codec(name: str) -> codecs.CodecInfo | None:
    """Offer UTF-8 with surrogateescape under a name of its own: fusepy takes a codec, but no error handler."""
    if name.replace("_", "-") != _PATH_CODEC:
        return None
    return codecs.CodecInfo(
        encode=lambda text, _="strict": (text.encode("utf-8", "surrogateescape"), len(text)),
        decode=lambda data, _="strict": (bytes(data).decode("utf-8", "surrogateescape"), len(data)),
        name=_PATH_CODEC,
    )


codecs.register(_path_codec)


class LibfuseAdapter:
    """The object whose methods fusepy calls, through `__call__` with the operation's name."""

    use_ns = True
    flag_nullpath_ok = True
    flag_utime_omit_ok = True

    def __init__(self, operations: Operations, mounted: Callable[[], None]) -> None:
        """`mounted` is called once the kernel's first request is answered."""
        self._operations = operations
        self._mounted = mounted
        self._lock = threading.Lock()
        self._nodes: LRUCache[str, tuple[int, Node]] = LRUCache(CACHED_NODES)
        self._misses: dict[str, tuple[int, float]] = {}
        """Of names that are not there: at which version, and until when that counts."""
        self._overtaken = SecondTries()
        """Calls that have just failed because another was first, by operation, path and thread."""
        self._vanished = Once()
        """Paths that were gone when they were to be opened, by path and thread."""
        self._pages = PageCaches(CACHED_NODES, operations.version_of, operations.identity_of)

    def __call__(self, operation: str, *arguments: Any) -> Any:
        """Run one operation and turn whatever it raises into an OSError with an errno."""
        if self._overtaken and operation in _BY_PATH:
            self._overtaken.refuse((operation, arguments[0], calling_thread()))
        try:
            return getattr(self, operation)(*arguments)
        except OctuefsError as error:
            if isinstance(error, Conflict) and operation in _BY_PATH:
                self._overtaken.note((operation, arguments[0], calling_thread()), error)
            self._operations.note_failure(operation, lambda: arguments[0] or "an open file", error)
            raise OSError(to_errno(error), str(error)) from error
        except OSError as error:
            raise OSError(to_errno(error), str(error)) from error
        except Exception as error:
            logger.exception("%s %r failed unexpectedly", operation, arguments[0] if arguments else "")
            raise OSError(errno.EIO, str(error)) from error

    # --- paths to nodes

    def _resolve(self, path: str) -> Node:
        return self._resolve_at(self._operations.version(path), path)

    def _resolve_at(self, version: int, path: str) -> Node:
        unknown = []
        above = path
        with self._lock:
            while True:
                known = self._nodes.get(above)
                if known is not None and known[0] == version:
                    node = known[1]
                    break
                if (missing := self._misses.get(above)) is not None and missing[0] == version:
                    if missing[1] > time.monotonic():
                        raise NotFound(above)
                    del self._misses[above]
                if above == "/":
                    node = self._operations.root
                    break
                unknown.append(above)
                above = above.rpartition("/")[0] or "/"
        for below in reversed(unknown):
            try:
                node = self._operations.lookup(node, below.rpartition("/")[2])
            except NotFound:
                with self._lock:
                    self._misses.pop(below, None)  # so that the first is the oldest
                    self._misses[below] = (version, time.monotonic() + MISS_SECONDS)
                    if len(self._misses) > CACHED_MISSES:
                        del self._misses[next(iter(self._misses))]
                raise
            with self._lock:
                self._nodes[below] = (version, node)
        return node

    # --- life

    def init(self, _path: str) -> None:
        """The kernel has accepted the mount; who waits for it must hear of it, or there is none."""
        try:
            self._mounted()
        except Exception:
            logger.exception("nobody could be told of the mount, so it ends")
            os.kill(os.getpid(), signal.SIGTERM)

    def destroy(self, _path: str) -> None:
        """The mount has ended."""
        self._operations.close()

    # --- names and attributes

    def getattr(self, path: str | None, info: Any = None) -> Attributes:
        """stat(2); without a path, of an open file."""
        if info is not None:
            return self._operations.fgetattr(info.fh)
        assert path is not None, "libfuse names what is not open"
        try:
            return self._operations.getattr(self._resolve(path))
        except NotFound:
            if self._vanished:  # the kernel has looked again, and will not try to open it
                self._vanished.forget((path, calling_thread()))
            raise

    def readlink(self, path: str) -> str:
        """readlink(2)."""
        return self._operations.readlink(self._resolve(path))

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """getxattr(2)."""
        self._operations.check_xattr(name)
        return self._operations.getxattr(self._resolve(path), name)

    def listxattr(self, path: str) -> list[str]:
        """listxattr(2)."""
        return self._operations.listxattr(self._resolve(path))

    def statfs(self, path: str) -> dict[str, int]:
        """statvfs(3)."""
        space = self._operations.statfs(path)
        return {
            "f_bsize": IO_BYTES,
            "f_frsize": 4096,
            "f_blocks": space.total_bytes // 4096,
            "f_bfree": space.free_bytes // 4096,
            "f_bavail": space.free_bytes // 4096,
            "f_files": space.total_files,
            "f_ffree": space.free_files,
            "f_favail": space.free_files,
            "f_namemax": _NAME_MAX,
        }

    # --- directories

    def opendir(self, path: str) -> int:
        """opendir(3)."""
        return self._operations.opendir(self._resolve(path))

    def readdir(self, path: str | None, handle: int) -> list[tuple[str, int, int]]:
        """readdir(3): (name, inode, mode) of each entry; libfuse keeps the one snapshot and its positions."""
        above = path and (path.rpartition("/")[0] or "/")
        return [
            (".", self._inode(path), stat.S_IFDIR),
            ("..", self._inode(above), stat.S_IFDIR),
            *((entry.name, entry.inode, entry.mode) for entry in self._operations.readdir(handle)),
        ]

    def _inode(self, path: str | None) -> int:
        try:
            return self._operations.getattr(self._resolve(path)).inode if path else _UNKNOWN_INODE
        except OctuefsError:
            return _UNKNOWN_INODE

    def releasedir(self, _path: str | None, handle: int) -> None:
        """closedir(3)."""
        self._operations.releasedir(handle)

    # --- files

    def open(self, path: str, info: Any) -> int:
        """open(2)."""
        try:
            node = self._resolve(path)
            told = self._operations.getattr(node)
            opened = self._operations.open(node, info.flags)
        except NotFound as error:
            # The kernel took the name for there: as on every ESTALE it looks again, and O_CREAT then makes the file.
            # What is still found at the second try and cannot be opened is not there, as its error says.
            if self._vanished.is_first((path, calling_thread())):
                raise OSError(errno.ESTALE, str(error)) from error
            raise
        # An object may turn out longer only as it is opened, and the kernel would read no more than it was told of.
        grown = not opened.direct and self._operations.fgetattr(opened.handle).size > told.size
        self._opened(path, info, opened, grown=grown)
        return 0

    def create(self, path: str, mode: int, info: Any) -> int:
        """open(2) with O_CREAT, of what is not there."""
        parent, name = self._place(path)
        opened = self._operations.create(parent, name, info.flags, stat.S_IMODE(mode), _caller())
        self._opened(path, info, opened)
        return 0

    def _opened(self, path: str, info: Any, opened: Opened, *, grown: bool = False) -> None:
        info.fh = opened.handle
        info.direct_io = opened.direct
        if not opened.direct:
            caching = self._pages.opened(path, opened.handle, inode=opened.inode, names=opened.links, apart=grown)
            info.keep_cache, info.direct_io = caching.keep, caching.direct

    def read(self, _path: str | None, size: int, offset: int, info: Any) -> bytes:
        """pread(2)."""
        data = self._operations.read(info.fh, offset, size)
        if not data and self._pages.has(info.fh) and offset > self._operations.fgetattr(info.fh).size:
            # The kernel takes the file for longer than this handle's is: another stands at its path by now. It cuts the
            # size back with the first answer that ends early, which must be that of the read that meets the end.
            time.sleep(_BEYOND_THE_END_SECONDS)
        return data

    def write(self, _path: str | None, data: bytes, offset: int, info: Any) -> int:
        """pwrite(2)."""
        written = self._operations.write(info.fh, offset, data)
        self._pages.written(info.fh)
        return written

    def truncate(self, path: str | None, length: int, info: Any = None) -> None:
        """truncate(2); with `info` ftruncate(2)."""
        if info is not None:
            self._operations.ftruncate(info.fh, length)
            self._pages.written(info.fh)
        elif path is not None:
            self._operations.truncate(self._resolve(path), length)

    def fallocate(self, _path: str | None, mode: int, offset: int, length: int, info: Any) -> None:
        """fallocate(2)."""
        self._operations.fallocate(info.fh, mode, offset, length)

    def flush(self, _path: str | None, info: Any) -> None:
        """close(2)."""
        self._operations.flush(info.fh)

    def fsync(self, _path: str | None, data_only: int, info: Any) -> None:
        """fsync(2)."""
        self._operations.fsync(info.fh, data_only=bool(data_only))

    def fsyncdir(self, _path: str | None, _data_only: int, handle: int) -> None:
        """fsync(2) of a directory."""
        self._operations.fsyncdir(handle)

    def release(self, _path: str | None, info: Any) -> None:
        """The last close(2)."""
        self._pages.released(info.fh)
        self._operations.release(info.fh)

    # --- changes

    def _place(self, path: str) -> tuple[Node, str]:
        """Return the directory that a path lies in, and its name there."""
        above, _, name = path.rpartition("/")
        return self._resolve(above or "/"), name

    def mknod(self, path: str, mode: int, device: int) -> None:
        """mknod(2)."""
        parent, name = self._place(path)
        self._operations.mknod(parent, name, mode, device, _caller())

    def mkdir(self, path: str, mode: int) -> None:
        """mkdir(2)."""
        parent, name = self._place(path)
        self._operations.mkdir(parent, name, stat.S_IMODE(mode), _caller())

    def symlink(self, path: str, target: str) -> None:
        """symlink(2)."""
        parent, name = self._place(path)
        self._operations.symlink(parent, name, target, _caller())

    def link(self, path: str, old: str) -> None:
        """link(2)."""
        self._operations.link(*self._place(old), *self._place(path))

    def unlink(self, path: str) -> None:
        """unlink(2)."""
        self._operations.unlink(*self._place(path))
        self._pages.moved(path, None)

    def rmdir(self, path: str) -> None:
        """rmdir(2)."""
        self._operations.rmdir(*self._place(path))

    def rename(self, old: str, new: str) -> None:
        """rename(2)."""
        self._operations.rename(*self._place(old), *self._place(new))
        self._pages.moved(new, None)
        self._pages.moved(old, new)

    def chmod(self, path: str, mode: int) -> None:
        """chmod(2)."""
        self._operations.chmod(self._resolve(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """chown(2)."""
        self._operations.chown(self._resolve(path), uid, gid)

    def utimens(self, path: str, times: tuple[int | None, int | None]) -> None:
        """utimensat(2)."""
        self._operations.utimens(self._resolve(path), times)

    def setxattr(self, path: str, name: str, value: bytes, flags: int, _position: int = 0) -> None:
        """setxattr(2)."""
        self._operations.setxattr(self._resolve(path), name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """removexattr(2)."""
        self._operations.removexattr(self._resolve(path), name)


def _caller() -> Caller:
    return Caller(*calling_user())


def serve(
    operations: Operations,
    mount_point: str,
    *,
    source_name: str,
    read_only: bool,
    allow_other: bool,
    kernel_seconds: float,
    mounted: Callable[[], None],
) -> None:
    """Mount and answer until unmounted or told to end by SIGINT, SIGTERM or SIGHUP; then unmount.

    For `kernel_seconds` the kernel may keep names and attributes: libfuse 2 cannot tell it of a change.

    :raise OctuefsError: where libfuse refuses to mount (its own words are on stderr)
    """
    options: dict[str, Any] = {
        # Backslashes first, or a path such as `a\,suid` would add an option of its own.
        "fsname": source_name.replace("\\", "\\\\").replace(",", "\\,"),
        "subtype": "octuefs",
        "default_permissions": True,
        "nosuid": True,
        "nodev": True,
        "use_ino": True,
        "big_writes": True,
        "hard_remove": True,
        "atomic_o_trunc": True,
        "entry_timeout": kernel_seconds,
        "attr_timeout": kernel_seconds,
        "max_readahead": IO_BYTES,
        "ro": read_only,
        "allow_other": allow_other,
    }
    try:
        Fuse(
            LibfuseAdapter(operations, mounted),
            mount_point,
            raw_fi=True,
            encoding=_PATH_CODEC,
            foreground=True,
            **options,
        )
    except RuntimeError as error:
        raise OctuefsError(f"libfuse could not mount on {mount_point} (exit code {error})") from error
