"""Which file of a cloud dataset stands at which path, of those that are open, dirty or pending."""

import threading
from collections.abc import Callable

from octuefs.writing.cloudfile import CloudFile
from octuefs.writing.filestate import FileState


class FileTable:
    """Files by path. Looking one up takes no lock; changes take one, for memory work alone and with no other within."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, CloudFile] = {}

    def get(self, path: str) -> CloudFile | None:
        """Return the file at a path."""
        return self._files.get(path)

    def has(self, file: FileState) -> bool:
        """Say whether a file is the one of its path."""
        return self._files.get(file.path) is file

    def below(self, folder: str) -> list[str]:
        """Return the paths in and below a folder ("" for all)."""
        prefix = f"{folder}/" if folder else ""
        with self._lock:
            return [path for path in self._files if path.startswith(prefix)]

    def files(self) -> list[tuple[str, CloudFile]]:
        """Return all with their paths."""
        with self._lock:
            return list(self._files.items())

    def open(
        self, path: str, suits: Callable[[CloudFile], bool], make: Callable[[], CloudFile], *, writable: bool
    ) -> CloudFile:
        """Count a handle of the file at a path, and return that; a new one where there is none that `suits`."""
        with self._lock:
            file = self._files.get(path)
            if file is None or not suits(file):
                file = self._files[path] = make()
            _count(file, 1, writable=writable)
            return file

    def enter(self, file: CloudFile, *, handles: int) -> CloudFile | None:
        """Let a new file, with so many handles to write, stand at its path, and return the one that stood there."""
        with self._lock:
            before = self._files.get(file.path)
            self._files[file.path] = file
            _count(file, handles, writable=True)
            return before

    def close(self, file: CloudFile, *, writable: bool) -> bool:
        """Count a handle as closed; say whether it was the last to write."""
        with self._lock:
            _count(file, -1, writable=writable)
            return writable and file.writers == 0

    def take(self, path: str) -> CloudFile | None:
        """Let nothing stand at a path, and return what did."""
        with self._lock:
            return self._files.pop(path, None)

    def move(self, old: str, new: str) -> tuple[CloudFile | None, CloudFile | None]:
        """Let the file of one path stand at another; return it, and the one that stood there."""
        with self._lock:
            file, target = self._files.pop(old, None), self._files.pop(new, None)
            if file is not None:
                self._files[new] = file
            return file, target

    def forget_failed(self, file: CloudFile) -> bool:
        """Say whether a file is the one of its path; if it has failed it no longer is."""
        with self._lock:
            stands = self._files.get(file.path) is file
            if stands and file.failure is not None:
                del self._files[file.path]
            return stands

    def forget(self, file: CloudFile) -> None:
        """Forget a file that nobody has open and of which nothing is to be stored.

        Not while it is held: who has just stored it, or gives it up, tells the index first, and forgets it then.
        """
        with self._lock:
            if file.handles or file.is_held or not (file.is_stored or file.is_removed or file.failure is not None):
                return
            if self._files.get(file.path) is file:
                del self._files[file.path]
        file.forget_content()


def _count(file: CloudFile, number: int, *, writable: bool) -> None:
    file.handles += number
    file.writers += number if writable else 0
