"""A second FUSE file system: what it shows is another folder, by libfuse.

`python -m support.loopback FOLDER MOUNTPOINT` serves it until it is unmounted.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from fuse import FUSE, FuseOSError, Operations

_ATTRIBUTES = ("atime", "ctime", "mtime", "gid", "uid", "mode", "nlink", "size")


class Loopback(Operations):  # type: ignore[misc]
    """Each call is made on the folder below."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, op: str, path: str, *args: Any) -> Any:
        try:
            return super().__call__(op, path, *args)
        except OSError as error:
            raise FuseOSError(error.errno or errno.EIO) from error

    def _at(self, path: str) -> str:
        return self._folder + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(self._at(path))
        return {f"st_{name}": getattr(found, f"st_{name}") for name in _ATTRIBUTES}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at(path), length)

    def flush(self, path: str, fh: int) -> None:
        os.close(os.dup(fh))

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        return os.getxattr(self._at(path), name, follow_symlinks=False)


def main(arguments: list[str], serve: Callable[..., Any] = FUSE) -> None:
    folder, mount_point = arguments
    serve(Loopback(os.path.realpath(folder)), mount_point, foreground=True)


if __name__ == "__main__":
    main(sys.argv[1:])
