"""The files of a cloud dataset that are open, dirty or on their way to the bucket, by path.

`CloudWriter` calls, from any thread. Every open of an object goes through here, reading ones too, so that all handles
of a file see each other's writes. Below are a file (`filestate.py`, `filebytes.py`, `cloudfile.py`), when it is stored
(`storing.py`) and how (`uploads.py`, `streams.py`, `appends.py`), what a crash leaves (`restoring.py`), and what
could not be stored (`failed_contents.py`).
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress

from octuefs.content.reading import Reading
from octuefs.datafile import Datafile
from octuefs.entries import Change, Other, Removed
from octuefs.errors import LocalFailure, NotFound, OctuefsError
from octuefs.index import Index
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata, encode_custom_metadata
from octuefs.model.paths import Location
from octuefs.report import Report
from octuefs.stores.base import ByteSource, ObjectInfo, Ownership
from octuefs.stores.writing import ObjectProperties, ObjectStore
from octuefs.writing.appends import Appends
from octuefs.writing.background import Background
from octuefs.writing.cloud_facts import generation_of
from octuefs.writing.cloudfile import CloudFile
from octuefs.writing.cloudhandle import CloudHandle
from octuefs.writing.contents import Content
from octuefs.writing.failed_contents import FailedContents
from octuefs.writing.filerows import Row
from octuefs.writing.filestate import Surroundings
from octuefs.writing.filetable import FileTable
from octuefs.writing.leftovers import Leftovers
from octuefs.writing.properties import checked, is_to_be_stored, metadata_in, with_attributes
from octuefs.writing.restoring import Restorer
from octuefs.writing.sessions import Session
from octuefs.writing.storing import Storing
from octuefs.writing.streams import cancel_in_background
from octuefs.writing.unsettled import Unsettled
from octuefs.writing.uploads import Uploader

_STREAMS = 4
"""Files that are sent at a time while they are written."""
_CLOSE_SECONDS = 5.0


class CloudFiles:
    """The table of these files, and who stores them."""

    def __init__(
        self,
        store: ObjectStore,
        index: Index,
        session: Session,
        report: Report,
        look_again: Callable[[Iterable[str]], "Future[None]"],
        *,
        location: Location,
        classify: Callable[[ObjectInfo], Change],
        inode_of: Callable[[str], int],
        write_back: bool = False,
        compose: bool = True,
        reading: Reading | None = None,
    ) -> None:
        """Begin with no file; `restore` takes up those of earlier processes.

        :param look_again: has paths looked at in the store and published, and says when that is done
        :param classify: says what an object is to the index
        :param inode_of: the inode number that the store gives to an object at a path
        :param write_back: close returns once content is durable in the journal, and it is stored behind
        :param compose: large objects may be appended to on the server
        :param reading: reads with caches and ahead what the bucket has; without it each read asks the store
        """
        self._reading = reading
        self._store = store
        self._index = index
        self._journal = session.journal
        self._folder = session.staged_folder
        self._report = report
        self._location = location
        self._stopping = threading.Event()
        self._streams = Background("stream", _STREAMS)
        self._table = FileTable()
        uploader = Uploader(store, self._stopping)
        self._appends = Appends(store, self._journal, uploader, wanted=compose, failure=report.failure)
        uploader.appender = self._appends
        self._leftovers = Leftovers(self._journal, self._folder)
        self._unsettled = Unsettled(self._journal, report)
        self._storing = Storing(
            self._table,
            uploader,
            self._leftovers,
            self._journal,
            report,
            look_again,
            unsettled=self._unsettled,
            write_back=write_back,
            stopping=self._stopping,
        )
        self._around = Surroundings(
            store=store,
            location=location,
            index=index,
            journal=self._journal,
            staged_folder=self._folder,
            appends=self._appends,
            streams=self._streams,
            classify=classify,
            inode_of=inode_of,
            look_again=look_again,
            unsettled=self._unsettled,
            stands=self._table.has,
        )
        forget = self._storing.forget_unreported
        self.failed = FailedContents(self, self._leftovers, self._journal, index, forget)
        """What could not be stored."""

    # --- opening

    def open(self, info: ObjectInfo, flags: int) -> CloudHandle:
        """Open the object that `info` describes; of `flags` access mode, O_TRUNC and O_APPEND count.

        Nothing is asked of the store: content is fetched where it is read, and for writing by the first write.

        :raise OctuefsError: once, where what was closed here before could not be stored
        :raise NotFound: where the file was never stored, and has gone meanwhile
        """
        path = info.path
        self._storing.raise_unreported(path)
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        info = self._known(info)

        def suits(file: CloudFile) -> bool:
            return not file.is_stored or file.is_held or generation_of(info) <= generation_of(_base_of(file))

        def make() -> CloudFile:
            if generation_of(info) == 0:
                raise NotFound(f"{path}: it was never stored, and has gone meanwhile")
            custom = info.custom_metadata or {}
            return CloudFile(self._around, path, info, custom=custom, fixed=info.properties)

        try:
            file = self._table.open(path, suits, make, writable=writable)
        except NotFound:
            if not (flags & os.O_TRUNC and writable):
                raise
            return self.create(path, flags, ObjectProperties(info.custom_metadata or {}, info.properties))
        if file.is_stored and file.base is not info and _is_later(info, _base_of(file)):
            file.follow(info)
        handle = self._handle(file, flags, writable=writable)
        if flags & os.O_TRUNC and writable:
            try:
                handle.truncate(0)
            except BaseException as error:
                handle.close()
                if file.failure is None or not isinstance(error, OctuefsError):
                    raise
                self._storing.withdraw(file)  # given up just now: nothing of what it had is needed
                return self.open(file.base or info, flags)
        return handle

    def create(
        self,
        path: str,
        flags: int,
        properties: ObjectProperties,
        *,
        mode: int | None = None,
        metadata: DatafileMetadata | None = None,
    ) -> CloudHandle:
        """Make a file where nothing stands, and publish it; it is stored by the first close or sync.

        :param mode: permission bits, stored along where they are not the usual ones; None for what `properties` say
        :param metadata: is stored along too, besides the custom metadata in `properties`
        :raise TooBig: where it is more metadata than an object can have
        """
        custom = dict(properties.custom_metadata)
        if metadata is not None:
            custom.update(encode_custom_metadata(metadata))
        if mode is not None and is_to_be_stored(mode, self._store.ownership.file_mode, Ownership().file_mode):
            custom = with_attributes(custom, mode=mode)
        checked(custom, self._location.of(path))
        content = Content(self._folder)
        file = CloudFile(self._around, path, None, custom=custom, fixed=properties.fixed)
        before = self._table.enter(file, handles=1)
        self._storing.forget_unreported(path)
        if before is not None:
            before.remove()
        file.begin(content)
        file.tell()
        return self._handle(file, flags, writable=True)  # whatever the flags: the file itself is to be stored

    def _handle(self, file: CloudFile, flags: int, *, writable: bool) -> CloudHandle:
        appends = bool(flags & os.O_APPEND)
        return CloudHandle(
            self._open_object, file, self._storing, self._storing.look, writable=writable, appends=appends
        )

    def _open_object(self, info: ObjectInfo, gone: Callable[[], object]) -> ByteSource:
        source = self._store.open(info)
        return self._reading.open(source, gone) if self._reading is not None else source

    def _known(self, info: ObjectInfo) -> ObjectInfo:
        """Return what the index knows of the object by now, where that is later: it may have been stored just now."""
        entry = self._index.shadowed.get(info.path) or self._index.entry(info.path)
        if isinstance(entry, Datafile | Other) and generation_of(entry.info) > generation_of(info):
            return entry.info
        return info

    # --- what stands at a path

    def find(self, path: str) -> CloudFile | None:
        """Return the file that is open, dirty or pending at a path now."""
        return self._table.get(path)

    def below(self, folder: str) -> list[str]:
        """Return the paths in and below a folder ("" for all) of files that are open, dirty or pending."""
        return self._table.below(folder)

    def current(self, info: ObjectInfo) -> ObjectInfo:
        """Return what the file at `info.path` is like now: `info` itself where it is stored as it is."""
        file = self._table.get(info.path)
        if file is not None and not file.is_stored:
            return file.info()
        if file is not None and generation_of(_base_of(file)) > generation_of(info):
            return _base_of(file)
        return self._known(info)

    def metadata(self, path: str) -> DatafileMetadata | None:
        """Return the metadata of a file that is not stored as it is, None for every other."""
        file = self._table.get(path)
        return None if file is None or file.is_stored else metadata_in(file.custom)

    # --- changes

    def change_metadata(self, path: str, change: MetadataChange) -> bool:
        """Let a change go with the upload of a file that is not stored as it is; False where the caller patches.

        :raise TooBig: where it is more than an object can have
        """
        file = self._table.get(path)
        return file is not None and file.change_metadata(change) and self._followed_up(file)

    def set_attributes(self, path: str, *, mode: int | None = None, mtime_ns: int | None = None) -> bool:
        """Let permission bits and mtime go with the upload of such a file; False where the caller patches."""
        file = self._table.get(path)
        return file is not None and file.set_attributes(mode=mode, mtime_ns=mtime_ns) and self._followed_up(file)

    def _followed_up(self, file: CloudFile) -> bool:
        self._storing.follow_up(file)
        return True

    def store_now(self, path: str) -> ObjectInfo | None:
        """Store what is dirty or pending of a file, and return the object; None where nothing is open or pending.

        :raise OctuefsError: where it cannot be stored
        """
        file = self._table.get(path)
        if file is None:
            return None
        self._storing.store(file)
        return file.base

    @contextmanager
    def at_rest(self, *paths: str) -> Iterator[Mapping[str, ObjectInfo | None]]:
        """Within, nothing is being stored, or given up, at these paths; those who write go on writing.

        Yields what the bucket has of each file that is open, dirty or pending, None where it was never stored. Call
        `moved`, `removed` and `replaced` within.
        """
        with ExitStack() as stack:
            while True:
                files = {path: file for path in paths if (file := self._table.get(path)) is not None}
                for file in sorted(files.values(), key=lambda file: file.number):
                    stack.enter_context(file.uploading)
                if all(self._table.get(path) is files.get(path) for path in paths):
                    break
                stack.close()
            yield {path: file.base for path, file in files.items()}

    def settle(self, path: str) -> None:
        """Return once a crash would bring back nothing that was stored at a path before; call it before changing that.

        :raise LocalFailure: where the journal cannot be written
        """
        self._unsettled.settle(path)

    def keep_open(self, path: str) -> None:
        """Fetch the content of a file that somebody has open, so that its object may go.

        :raise OctuefsError: where it cannot be fetched
        """
        file = self._table.get(path)
        if file is not None and file.handles:
            file.fetch()

    def replaced(self, path: str, info: ObjectInfo) -> None:
        """Take note that the object was patched or rewritten by us, with the bytes it has."""
        file = self._table.get(path)
        if file is not None:
            file.follow(info)

    def removed(self, path: str) -> None:
        """Take note that the name goes, or that another file takes it: who has it open goes on, nothing is stored.

        To be called before the object is deleted: its content is fetched first where somebody has it open.
        """
        try:
            self.keep_open(path)
        except OctuefsError as error:
            self._report.failure(f"{path} is removed while it is open, and cannot be read any more: {error}")
        file = self._table.take(path)
        self._storing.forget_unreported(path)
        if file is not None:
            file.remove()
            self._table.forget(file)
            self._unsettled.settle_all([path])

    def moved(self, old: str, new: str, info: ObjectInfo | None) -> None:
        """Take note that the name changed; `info` is the object at `new`, None for a file that is not stored yet."""
        if self._move(old, new, info):
            self._unsettled.settle_all([new])

    def _move(self, old: str, new: str, info: ObjectInfo | None) -> bool:
        """Let a file have another name; say whether the journal has something new of it."""
        file, target = self._table.move(old, new)
        if target is not None:
            target.remove()
            self._table.forget(target)
        if file is None:
            return False
        file.move(new, info)
        if file.is_stored:
            self._table.forget(file)  # it may have been closed while it had no path here
            return False
        self._unsettled.note(new)
        self._index.publish([Removed(old), self._around.classify(file.info())])
        if file.is_pending:
            self._storing.enqueue(file)
        return True

    def moved_folder(self, old: str, new: str, infos: Mapping[str, ObjectInfo]) -> None:
        """Take note that all below a folder has another name; `infos`, by new path, are objects with new versions.

        Objects that are not among them have the versions they had.
        """
        moved = []
        for path in self.below(old):
            to = new + path[len(old) :]
            with self.at_rest(path) as at_rest:  # it may have been opened, and written, since the others rest
                info, base = infos.get(to), at_rest.get(path)
                if info is None and base is not None:
                    info = base._replace(path=to, inode=self._around.inode_of(to))
                if self._move(path, to, info):
                    moved.append(to)
        self._unsettled.settle_all(moved)

    # --- what earlier processes left

    def restore(self) -> None:
        """Take up what earlier processes left: what was closed is stored, the rest kept under `recovered/`."""

        def make(path: str, base: ObjectInfo | None, row: Row) -> CloudFile:
            return CloudFile(self._around, path, base, custom=row["custom"], fixed=row["fixed"])

        Restorer(
            self._journal,
            self._folder,
            self._table,
            self._leftovers,
            self._report,
            make,
            self._storing.enqueue,
            lambda session: cancel_in_background(self._store, self._streams, session),
        ).restore()
        self._streams.add(self._appends, self._appends.clear)

    def sweep(self, parts: Iterable[ObjectInfo]) -> None:
        """Delete those of `parts` (objects with temporary names) that are older than a day; nobody waits for it."""
        parts = list(parts)
        self._streams.add((self._appends, "sweep"), lambda: self._appends.sweep(parts))

    # --- how it goes on

    def sync_state(self, path: str) -> str:
        """Return `clean`, `pending`, or `failed: why`."""
        file = self._table.get(path)
        if file is not None and not file.is_stored:
            return "pending"
        reason = self._leftovers.reason(path)
        return "clean" if reason is None else f"failed: {reason}"

    def pending(self) -> list[tuple[str, int, int]]:
        """Return (path, bytes, bytes sent) of all that is being stored or waits to be."""
        return [(path, *file.progress()) for path, file in self._table.files() if file.is_pending]

    def drain(self, seconds: float | None = None) -> int:
        """Wait until all that is pending is stored, at most `seconds`; return how many files are left."""
        self._storing.drain(seconds)
        return len(self.pending())

    def close(self) -> None:
        """Begin no more uploads, and wait a little for those under way; what is left is in the journal."""
        self._storing.close()
        self._streams.close(_CLOSE_SECONDS)
        with suppress(LocalFailure):  # the journal says so when it is closed
            self._journal.settle()


def _base_of(file: CloudFile) -> ObjectInfo:
    assert file.base is not None, "a stored file has an object"
    return file.base


def _is_later(info: ObjectInfo, base: ObjectInfo) -> bool:
    """Say whether `info` tells of later metadata of the same bytes."""
    same = generation_of(info) == generation_of(base) != 0
    return same and info.version != base.version and info.version[:2] >= base.version[:2]  # type: ignore[index]
