"""Open files of a local dataset: the disk's own, known by the path they have now."""

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager

from octuefs.stores.base import DiskSource, ObjectInfo
from octuefs.stores.writing import DiskFile, Times


class LocalOpenFile:
    """A file open through the writer: what is written is in the source at once, and in the index with the flush."""

    def __init__(
        self,
        file: DiskFile,
        path: str,
        written: "Callable[[LocalOpenFile], object]",
        synced: Callable[[str], object],
        closed: "Callable[[LocalOpenFile], object]",
    ) -> None:
        """`written` is told of each flush after writes, `synced` of the path at each sync, `closed` once."""
        self._file = file
        self._opened_path = path
        self._written = written
        self._synced = synced
        self._closed = closed
        self._when_closed: list[Callable[[], object]] = []
        self.path = path
        """The path in the dataset that it has now, or had last."""
        self.dirty = False
        """Whether something was written since the last flush."""

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        return self._file.read(offset, size)

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """See `DiskSource`."""
        return self._file.read_now(offset, room)

    def lend(self) -> AbstractContextManager[int]:
        """See `DiskSource`."""
        return self._file.lend()

    def version(self) -> Hashable:
        """See `ByteSource`."""
        return self._file.version()

    def identity(self) -> Hashable:
        """See `ByteSource`."""
        return self._file.identity()

    def info(self) -> ObjectInfo:
        """See `OpenFile`."""
        info = self._file.info()
        return info if self.path == self._opened_path else info._replace(path=self.path)

    def write(self, offset: int, data: bytes) -> int:
        """See `OpenFile`."""
        self.dirty = True
        return self._file.write(offset, data)

    def truncate(self, length: int) -> None:
        """See `OpenFile`."""
        self.dirty = True
        self._file.truncate(length)

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """See `OpenFile`."""
        self.dirty = True
        self._file.allocate(mode, offset, length)

    def copy_from(self, source: DiskSource, offset: int, to_offset: int, length: int) -> int:
        """See `DiskOpenFile`."""
        self.dirty = True
        return self._file.copy_from(source, offset, to_offset, length)

    def mark_written(self) -> None:
        """See `DiskOpenFile`."""
        self.dirty = True
        self._file.drop_privileges()

    def set_mode(self, mode: int) -> None:
        """See `Unnamed`."""
        self.dirty = True
        self._file.set_mode(mode)

    def set_owner(self, uid: int, gid: int) -> None:
        """See `Unnamed`."""
        self.dirty = True
        self._file.set_owner(uid, gid)

    def set_times(self, times: Times) -> None:
        """See `Unnamed`."""
        self.dirty = True
        self._file.set_times(times)

    def flush(self) -> None:
        """See `OpenFile`: everything is in the source already, and now in the index too."""
        if self.dirty:
            self.dirty = False
            self._written(self)

    def sync(self, *, data_only: bool = False) -> None:
        """See `OpenFile`."""
        self._file.sync(data_only=data_only)
        self.flush()
        self._synced(self.path)

    def when_closed(self, callback: Callable[[], object]) -> None:
        """See `OpenFile`."""
        self._when_closed.append(callback)

    def close(self) -> None:
        """Give the descriptor back; what a shared mapping wrote after the last flush is published."""
        try:
            self.flush()
        finally:
            self._closed(self)
            self._file.close()
            for callback in self._when_closed:
                callback()


class OpenFiles:
    """The open files by the path they have; paths change under them. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, set[LocalOpenFile]] = {}

    def add(self, file: LocalOpenFile) -> None:
        """Take a file that was opened."""
        with self._lock:
            self._files.setdefault(file.path, set()).add(file)

    def discard(self, file: LocalOpenFile) -> None:
        """Let go of a file that is closed, or whose name was removed."""
        with self._lock:
            self._discard(file)

    def _discard(self, file: LocalOpenFile) -> None:
        files = self._files.get(file.path)
        if files is not None:
            files.discard(file)
            if not files:
                del self._files[file.path]

    def at(self, path: str) -> list[LocalOpenFile]:
        """Return the files that are open at a path."""
        with self._lock:
            return list(self._files.get(path, ()))

    def removed(self, path: str) -> None:
        """Let those open at a path go on without a name."""
        with self._lock:
            self._files.pop(path, None)

    def renamed(self, old: str, new: str) -> None:
        """Let the files that are open at `old`, and below it, have their new paths; those at `new` have none."""
        with self._lock:
            self._files.pop(new, None)
            for path in [it for it in self._files if it == old or it.startswith(f"{old}/")]:
                for file in self._files.pop(path):
                    file.path = new + path[len(old) :]
                    self._files.setdefault(file.path, set()).add(file)
