"""What is remembered of a bucket over mounts: an index begins with it, and its changes are written behind.

What a mount has stored in the bucket shows in the next one, whatever happens. So who begins to write says so first
(`about_to_write`); where all such were killed meanwhile, what is remembered may be older than what they stored, and
does not count.

The keeper calls: `begin` where it loads, `keep` with the facts of a bucket that was listed for the first time. Every
change of the index is noted by its path, under the index's lock, and one thread writes what stands there by then,
a moment later. Nobody waits for it but `close`. Where the file cannot be used, nothing is remembered.
"""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from octuefs.datafile import Datafile
from octuefs.entries import Change, FolderGone, FolderSeen, Other, Removed
from octuefs.errors import OctuefsError
from octuefs.facts.file import Besides, FactsFile, Known, is_damage, remove_unused
from octuefs.facts.pack import Bucket, is_packable
from octuefs.facts.snapshot import Builder, Snapshot
from octuefs.facts.templates import Templates
from octuefs.index import Index
from octuefs.stores.base import Kind, ObjectInfo

logger = logging.getLogger(__name__)

_BATCH_SECONDS = 1.0
"""How long changes are gathered before they are written."""
_RETRY_SECONDS = 30.0
"""How soon writing is tried again after it failed."""
_MOST_CHANGES = 2000
_FILES_PER_CHANGE = 20
"""So many changes, or one for so many files, are noted one by one before all facts are written anew."""

_KindOf = Literal["file", "folder"]
_KINDS: tuple[_KindOf, ...] = ("file", "folder")


class Remembered:
    """The facts of one source on disk, and what writes them."""

    def __init__(
        self,
        path: Callable[[], Path],
        index: Index,
        bucket_of: Callable[[Templates], Bucket],
    ) -> None:
        """`path` returns the file; `bucket_of` describes the bucket, with the templates of its packs."""
        self._path = path
        self._index = index
        self._bucket_of = bucket_of
        self._besides: Callable[[], Besides | None] = lambda: None
        self._file: FactsFile | None = None
        self._writers: Writers | None = None
        self._writing = threading.Lock()  # held while the first write is noted; taken before no other
        self._writes = False
        self._lock = threading.Lock()  # guards all below, for memory work alone; taken under the index's lock
        self._due: dict[str, None] = {}
        """The paths of what is to be written."""
        self._gone: dict[tuple[str, _KindOf], tuple[int, int]] = {}
        """The generation and metageneration of what went from its place."""
        self._snapshot: Snapshot | None = None
        """All facts, to be written before those."""
        self._anew = True
        """Whether all facts are to be gathered and written anew, as there are none in the file."""
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="facts", daemon=True)

    def builder(self) -> Builder:
        """Return what makes packed facts of this bucket out of what is listed."""
        return Builder(self._bucket_of(Templates()))

    def begin(self, classify: Callable[[ObjectInfo], Change], besides: Callable[[], Besides | None]) -> Besides | None:
        """Fill the index, which is empty, with what is remembered; return what is besides, None where nothing is.

        `classify` says what an object is. From `start` on, which comes by itself where anything was remembered, the
        changes of the index are noted, with what `besides` returns: None where nothing is to be remembered.
        """
        self._besides = besides
        found = None
        try:
            path = self._path()
            self._file = FactsFile(path)
            remove_unused(path.parent)
            self._writers = Writers(path.with_suffix(".lock"))
            found = self._fill(self._file, classify)
        except (OSError, OctuefsError, sqlite3.Error) as error:
            self._complain(error)
        if found is not None:
            self.start()
        return found

    def start(self) -> None:
        """Begin to note changes, now that the index has all that is known; where nothing was remembered, that too."""
        if self._file is None or self._thread.ident is not None:
            return
        self._index.observe(self._note)
        self._index.observe_removals(self._note_removal)
        self._thread.start()

    def about_to_write(self) -> None:
        """Take note that the bucket is about to be changed through this mount."""
        if self._writes:
            return
        with self._writing:
            if self._file is not None and self._writers is not None and not self._writes:
                try:
                    self._writers.join()
                    self._file.set_behind(behind=True)
                except (OSError, sqlite3.Error) as error:
                    self._complain(error)
            self._writes = True

    def _fill(self, file: FactsFile, classify: Callable[[ObjectInfo], Change]) -> Besides | None:
        try:
            if file.is_behind() and self._writers is not None:
                with self._writers.left_alone() as alone:
                    if alone:
                        file.forget()
                        return None
            found = file.read(self._bucket_of)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            if not is_damage(error):
                raise
            logger.info("the facts that were remembered are damaged, and gathered anew: %s", error)
            file.make_anew()
            return None
        if found is None:
            return None
        self._anew = False
        self._index.load(found.snapshot)
        self._index.publish([change for known in found.changes for change in self._change_of(known, classify)])
        return found.besides

    def _change_of(self, known: Known, classify: Callable[[ObjectInfo], Change]) -> Iterator[Change]:
        """Yield the change that was noted, unless what is known already is newer."""
        present = known_at(self._index, known.path, known.kind)
        if known.info is not None:
            if present is None or (present.generation, present.metageneration) <= known[2:4]:
                yield FolderSeen(known.info) if known.kind == "folder" else classify(known.info)
        elif present is not None and present.generation <= known.generation:
            yield FolderGone(known.path) if known.kind == "folder" else Removed(known.path)

    def keep(self, snapshot: Snapshot) -> None:
        """Write all facts, behind: those that the index was just filled with."""
        with self._lock:
            self._snapshot, self._anew = snapshot, False
        self._wake.set()
        self.start()

    def write_anew(self) -> None:
        """Write all facts anew, behind."""
        with self._lock:
            self._anew = True
        self._wake.set()

    def close(self) -> None:
        """Write what is to be written, and stop."""
        self._ending.set()
        self._wake.set()
        file, self._file = self._file, None
        if file is None:
            return
        written = True
        if self._thread.ident is not None:
            self._thread.join()
            written = self._write(file)
        if self._writers is not None:
            with suppress(OSError, sqlite3.Error), self._writers.left_alone() as alone:
                if written and self._writes and alone:
                    file.set_behind(behind=False)
            self._writers.close()
        file.close()

    # --- what has changed

    def _note(self, path: str) -> None:
        with self._lock:
            self._due[path] = None
        self._wake.set()

    def _note_removal(self, info: ObjectInfo) -> None:
        version = info.version
        if is_packable(info) and isinstance(version, tuple):
            with self._lock:
                self._due[info.path] = None
                self._gone[info.path, "folder" if info.kind is Kind.FOLDER else "file"] = version[:2]

    def _run(self) -> None:
        file = self._file
        if file is None:
            return  # closed meanwhile
        while not self._ending.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._ending.wait(_BATCH_SECONDS) and not self._write(file):
                self._ending.wait(_RETRY_SECONDS)
                self._wake.set()

    def _write(self, file: FactsFile) -> bool:
        """Write what is to be written; return False where that failed, and is to be tried again."""
        with self._lock:
            snapshot, self._snapshot = self._snapshot, None
            anew, self._anew = self._anew, False
            due, self._due = self._due, {}
            gone, self._gone = self._gone, {}
        try:
            self._write_now(file, snapshot, due, gone, anew=anew)
        except (OSError, sqlite3.Error) as error:
            self._complain(error)
            with self._lock:
                self._snapshot = self._snapshot or snapshot
                self._anew |= anew
                self._due = {**due, **self._due}
                self._gone = {**gone, **self._gone}
            if is_damage(error):
                with suppress(OSError, sqlite3.Error):
                    file.make_anew()
                    self._anew = True
            return False
        self._complained = False
        return True

    def _write_now(
        self,
        file: FactsFile,
        snapshot: Snapshot | None,
        due: dict[str, None],
        gone: dict[tuple[str, _KindOf], tuple[int, int]],
        *,
        anew: bool,
    ) -> None:
        besides = self._besides()
        if besides is None:
            file.forget()
            with self._lock:
                self._anew = True
            return
        if anew:
            snapshot = self._gathered()
        if snapshot is not None:
            file.replace(snapshot, besides, lambda path, kind: known_at(self._index, path, kind))
        if not due:
            return
        noted = file.note([it for path in due for it in self._known(path, gone)], besides)
        if noted > max(_MOST_CHANGES, len(self._index.datafiles) // _FILES_PER_CHANGE):
            self.write_anew()

    def _known(self, path: str, gone: dict[tuple[str, _KindOf], tuple[int, int]]) -> Iterator[Known]:
        """Yield what is known of a path by now, and what went from there; nothing of what is not stored yet."""
        for kind in _KINDS:
            known = known_at(self._index, path, kind)
            if known is not None:
                yield known
            elif (path, kind) in gone and _is_gone(self._index, path, kind):
                yield Known(path, kind, *gone[path, kind], None)

    def _gathered(self) -> Snapshot:
        """Return all facts as they are now, packed anew."""
        builder = self.builder()
        for info, is_datafile in self._index.objects():
            if not is_packable(info):
                continue
            if info.kind is Kind.FOLDER:
                builder.add_folder(info)
            elif not is_datafile:
                builder.add_other(info)
            elif info.path in self._index.shadowed:
                builder.add_shadowed(info)
            else:
                builder.add(info)
        return builder.finish()[0]

    def _complain(self, error: Exception) -> None:
        """Say once that nothing is remembered because the file cannot be used: the disk is full, or it is locked."""
        if not self._complained:
            self._complained = True
            logger.warning("what is known of the bucket is not remembered for now: %s", error)


class Writers:
    """Who of several mounts writes into one bucket: each holds a lock of one file, that its end lets go."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at `path`.

        :raise OSError: where it cannot be
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def join(self) -> None:
        """Be one of them from now on.

        :raise OSError: where the file cannot be locked
        """
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    @contextmanager
    def left_alone(self) -> Iterator[bool]:
        """Be none of them any more, and say whether there is no other; while the context lasts none joins then."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Be none of them any more."""
        os.close(self._fd)


def known_at(index: Index, path: str, kind: str) -> Known | None:
    """Return what the index knows of the object at a path, None where it knows none, or none that is stored."""
    info: ObjectInfo | None
    if kind == "folder":
        folder = index.folder(path)
        info = folder.info if folder is not None else None
    else:
        entry = index.shadowed.get(path) or index.entry(path)
        info = entry.info if isinstance(entry, Datafile | Other) else None
    if info is None or not is_packable(info):
        return None
    version = info.version
    assert isinstance(version, tuple), "it is packable"
    return Known(path, "folder" if kind == "folder" else "file", version[0], version[1], info)


def _is_gone(index: Index, path: str, kind: str) -> bool:
    """Say whether nothing of a kind stands at a path, be it stored or not."""
    if kind == "folder":
        folder = index.folder(path)
        return folder is None or folder.info is None
    return path not in index.shadowed and not isinstance(index.entry(path), Datafile | Other)
