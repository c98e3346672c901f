"""The files of a cache folder: their names, and what makes and removes them. How much may be there, others know.

    objects/ab/<key>    whole objects, synced to the disk and proven before they get this name
    parts/<key>         objects of which some is here; whoever has one open holds a lock on it (flock(2))
    parts/<key>.map     which of their bytes, with checksums; only while nobody has the part open

Several processes use one folder at the same time. `blockcache.py` calls, on any thread; an OSError leaves as it is.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from octuefs.content.parts import Pieces
from octuefs.stores.descriptor import Descriptor

_KEY = re.compile(r"[0-9a-f]{64}")
_KEY_DIGITS = 64
_MAP = ".map"
_UNKNOWN_SECONDS = 3600.0
"""How old a file must be that nobody knows, before it is removed: somebody may be about to name it."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
"""syncfs(2): one wait for many files; absent elsewhere than on Linux."""


class CacheFolder:
    """A cache folder. Any thread may call."""

    def __init__(self, path: Path) -> None:
        """Use `path`, of mode 0700."""
        self.path = path
        self._objects = os.path.join(path, "objects")
        self._parts = path / "parts"
        self._owner = f"{os.getpid()}-{id(self)}"
        self._removing = threading.Lock()  # held while a part is opened, or looked at and removed
        for name in ("objects", "parts"):
            (path / name).mkdir(mode=0o700, exist_ok=True)

    # --- whole objects

    def whole_path(self, key: str) -> str:
        """Return the name of an object that is here whole."""
        return f"{self._objects}/{key[:2]}/{key}"

    def has_whole(self, key: str) -> bool:
        """Say whether an object is here whole, proven or not."""
        return os.path.exists(self.whole_path(key))

    def open_whole(self, key: str) -> Descriptor | None:
        """Open an object that is here whole, None where it is not."""
        path = self.whole_path(key)
        try:
            return Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), path)
        except OSError:
            return None

    def store_small(self, objects: Mapping[str, bytes]) -> dict[str, os.stat_result]:
        """Write small objects whole, and return the facts of those files; they are on the disk for good."""
        written: dict[str, os.stat_result] = {}
        try:
            for key, data in objects.items():
                fd = os.open(self._new(key), _NEW, 0o600)
                try:
                    written[key] = os.fstat(fd)  # it is to be removed, whatever comes
                    if os.write(fd, data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    written[key] = os.fstat(fd)
                    sync(fd, last=len(written) == len(objects))
                finally:
                    os.close(fd)
            for key in objects:
                self._name(self._new(key), key)
        except BaseException:
            for key in written:
                with contextlib.suppress(OSError):
                    os.unlink(self._new(key))
            raise
        return written

    def _new(self, key: str) -> str:
        return f"{self._parts}/{key}.{self._owner}"

    def _name(self, path: str, key: str) -> None:
        target = self.whole_path(key)
        try:
            os.rename(path, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            os.rename(path, target)

    def remove_whole(self, key: str) -> None:
        """Remove an object that is here whole; who has it open reads on."""
        with contextlib.suppress(OSError):
            os.unlink(self.whole_path(key))

    # --- parts

    def open_part(self, key: str) -> tuple[Descriptor, Path | None]:
        """Open the part of an object, and lock it; one without a name, where somebody else has it open."""
        path = self._parts / key
        with self._removing:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            is_mine = _lock(fd, path)
        if is_mine:
            return Descriptor(fd, str(path)), path
        os.close(fd)
        nameless = self._parts / f"nameless.{os.getpid()}.{threading.get_ident()}"
        fd = os.open(nameless, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(nameless)
        return Descriptor(fd, str(path)), None

    def take_map(self, path: Path, size: int) -> Pieces:
        """Return the pieces that an open part of an object of this `size` keeps, as of now without a map.

        None where the map is damaged, or that of another size; then the part is emptied.
        """
        pieces = _read_map(path, size)
        with contextlib.suppress(OSError):
            Path(f"{path}{_MAP}").unlink(missing_ok=True)  # from now on it tells less than the truth
            if not pieces:
                os.truncate(path, 0)
        return pieces

    def write_map(self, path: Path, size: int, pieces: Pieces) -> None:
        """Say which pieces a part keeps, whose bytes are on the disk for good."""
        new = Path(f"{path}{_MAP}.new")
        new.write_text(json.dumps({"size": size, "pieces": [[it, *pieces[it]] for it in sorted(pieces)]}))
        new.rename(f"{path}{_MAP}")

    def make_whole(self, path: Path, key: str) -> None:
        """Give a part that is complete, and on the disk for good, its name as a whole object."""
        self._name(str(path), key)

    def remove(self, key: str) -> None:
        """Remove what is here of an object, but for a part that somebody has open."""
        self.remove_whole(key)
        self._remove_part(self._parts / key, lambda: True)

    def _remove_part(self, path: Path, is_unwanted: Callable[[], bool]) -> None:
        """Remove a part, and its map, that nobody has open; asked once that is sure, `is_unwanted` may still say no."""
        with self._removing, contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _lock(fd, path) and is_unwanted():
                    path.unlink()
                    Path(f"{path}{_MAP}").unlink(missing_ok=True)
            finally:
                os.close(fd)

    # --- what others left

    def sweep(self, known: Collection[str], is_unknown: Callable[[str], bool]) -> None:
        """Remove what nobody knows: of processes that were killed. `is_unknown` is asked again before parts go."""
        before = time.time() - _UNKNOWN_SECONDS
        for folder in (*Path(self._objects).iterdir(), self._parts):
            for entry in os.scandir(folder):
                key = entry.name[:_KEY_DIGITS]
                if key in known or not _KEY.fullmatch(key):
                    continue
                if folder == self._parts and entry.name == key:
                    self._remove_part(Path(entry.path), lambda key=key: is_unknown(key))  # type: ignore[misc]
                elif entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(entry.path)


def sync(fd: int, *, last: bool) -> None:
    """Return once a file that was written is on the disk for good; of several that may be when the `last` one is."""
    if _syncfs is None:
        os.fsync(fd)
    elif last and _syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _lock(fd: int, path: Path) -> bool:
    """Take the lock of a part; False where another has it, or the file has gone since it was opened."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(fd).st_ino == os.stat(path).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _read_map(path: Path, size: int) -> Pieces:
    """Return the pieces that a part keeps; none where its map is damaged, or that of another size."""
    try:
        found = json.loads(Path(f"{path}{_MAP}").read_text())
        pieces = {int(start): (int(end), int(crc32c)) for start, end, crc32c in found["pieces"]}
        if found["size"] != size or os.stat(path).st_size > size:
            return {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    at = 0
    for start in sorted(pieces):
        if start < at or not start < pieces[start][0] <= size:
            return {}
        at = pieces[start][0]
    return pieces
