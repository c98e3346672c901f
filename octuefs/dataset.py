"""One dataset as the tree sees it: its own facts, the hashes of its files, and their bytes.

`mount.py` puts it together; the tree asks. Facts come from the index, which `keeper.py` keeps true to the store.
"""

import os
import stat
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path

from octuefs.content.hashing import Hasher
from octuefs.content.prefetch import Place
from octuefs.content.reading import Reading
from octuefs.datafile import Datafile
from octuefs.entries import Other
from octuefs.errors import Conflict, NotFound, OctuefsError, ReadOnly, from_os_error
from octuefs.index import Query
from octuefs.keeper import Keeper
from octuefs.model.hashes import hash_of_set
from octuefs.model.metadata import DatasetMetadata, dataset_metadata_hash
from octuefs.model.paths import METADATA_NAME, derived_id, join, name_of, parent_of
from octuefs.stores.base import ByteSource, ObjectInfo, Space
from octuefs.writing.base import OpenFile, Writer

_LOOK_SECONDS = 10.0
_ATTEMPTS = 5
"""How often files that change while they are read are read again."""

Queries = tuple[Query, ...]


class Dataset:
    """A dataset in a store, with its index, its hashes and its own metadata."""

    def __init__(self, keeper: Keeper, hasher: Hasher) -> None:
        """`keeper` brings store and index along."""
        self.keeper = keeper
        self.store = keeper.store
        self.index = keeper.index
        self.location = keeper.location
        self.in_cloud = keeper.in_cloud
        self.hasher = hasher
        self.writer: Writer | None = None
        """What makes changes; None where the dataset is only read."""
        self.read_only_reason = "the mount is read-only; mount without --read-only to change the dataset"
        """Why it is only read, where it is."""
        self.reading: Reading | None = None
        """What reads objects of the cloud with caches and ahead; without it each read asks the store."""
        self.staging: Path | None = None
        """Where content waits for the store that is written to the cloud."""
        self._first_root_info = self.store.stat("")

    # --- facts of the dataset itself

    @property
    def root_info(self) -> ObjectInfo:
        """What the store said of the root folder last: its owner and permissions."""
        return self.index.root.info or self._first_root_info

    @property
    def owner(self) -> tuple[int, int, int]:
        """The uid, gid and permission bits of the root folder, which all has that is made of the dataset."""
        info = self.root_info
        return info.uid, info.gid, stat.S_IMODE(info.mode)

    @property
    def changed_ns(self) -> int:
        """When the latest change was seen, in nanoseconds since the epoch."""
        return self.index.changed_ns

    @property
    def metadata(self) -> DatasetMetadata | None:
        """What is stored of the dataset itself, None where nothing is."""
        return self.keeper.stored.dataset

    def record_in(self, folder: str) -> DatasetMetadata | None:
        """Return the dataset record of a folder's `.octue`: the dataset's own in its root, that of one within it below.

        Below the root in the cloud only; on a disk the file itself is shown.
        """
        if not folder:
            return self.metadata
        if not self.in_cloud:
            return None
        entry = self.index.entry(join(folder, METADATA_NAME))
        if not isinstance(entry, Other):
            return None
        try:
            return self.keeper.stored.record_within(folder, entry.info.version)
        except OctuefsError:
            return None  # reported; the next to ask tries again

    @property
    def makes_documents(self) -> bool:
        """True where `.octue` files are of our making: in the cloud, and where a manifest lists a folder's files.

        The folder's own `.octue` describe it whole.
        """
        return self.in_cloud or self.keeper.stored.is_fixed

    def stores_metadata_in(self, folder: str) -> bool:
        """Say whether the store has a `.octue` of its own in a folder, whatever it holds."""
        if not folder and self.metadata is not None:
            return True  # be it only given: by a manifest, or by the link of a shared dataset
        return isinstance(self.index.entry(join(folder, METADATA_NAME)), Other)

    def stored_text_in(self, folder: str) -> bytes:
        """Return that `.octue` as it is stored.

        :raise OctuefsError: where it cannot be read
        """
        entry = self.index.entry(join(folder, METADATA_NAME))
        if not isinstance(entry, Other):
            raise NotFound(f"{join(folder, METADATA_NAME)}: no such file")
        return self.keeper.stored.text_within(folder, entry.info.version)

    @property
    def name(self) -> str:
        """The stored name, else the folder's."""
        stored = self.metadata.name if self.metadata else None
        return stored or self.location.name

    @property
    def id(self) -> str:
        """The stored ID, else a stable one made from the location."""
        stored = self.metadata.id if self.metadata else None
        return stored or derived_id(str(self.location))

    @property
    def metadata_hash(self) -> str:
        """The hash of the dataset's own metadata."""
        return dataset_metadata_hash(self.metadata or DatasetMetadata(), self.name)

    # --- hashes

    def hash_of(self, datafile: Datafile) -> str:
        """Return the hash of a datafile's content as it is now.

        :raise OctuefsError: where the file cannot be read, or keeps changing while it is
        """
        for _ in range(_ATTEMPTS):
            if failures := self.hasher.ensure([datafile]):
                raise failures[0]
            if datafile.crc32c is not None:
                return datafile.hash_value
            self.keeper.changed([datafile.path]).result()
            entry = self.index.entry(datafile.path)
            if not isinstance(entry, Datafile):
                raise NotFound(f"{datafile.path}: removed while it was read")
            datafile = entry
        raise Conflict(f"{datafile.path}: it keeps changing while it is read")

    def hashed_members(
        self, folder: str, queries: Queries, progress: Callable[[int], None] | None = None
    ) -> list[Datafile]:
        """Return the members of a subset, each with its hash known.

        :raise OctuefsError: where one cannot be read, or they keep changing
        """
        for _ in range(_ATTEMPTS):
            members = self.index.members(folder, queries)
            failures = self.hasher.ensure(members, progress)
            if serious := [error for error in failures if not isinstance(error, NotFound)]:
                raise serious[0]
            unknown = [datafile.path for datafile in members if datafile.crc32c is None]
            if not unknown:
                return members
            self.keeper.changed(unknown).result()
        raise Conflict(f"{self.location}: files keep changing while they are read")

    def set_hash(self, folder: str, queries: Queries, progress: Callable[[int], None] | None = None) -> str:
        """Return the hash of the set of datafiles in and below `folder` that satisfy `queries`."""

        def compute() -> str | None:
            members = self.index.members(folder, queries)
            if any(datafile.crc32c is None for datafile in members):
                return None  # to be hashed first
            return hash_of_set(datafile.hash_value for datafile in members)

        for _ in range(_ATTEMPTS):
            value = self.index.cached(("hash", folder, queries), compute, hashed=True)
            if value is not None:
                return value
            self.hashed_members(folder, queries, progress)
        raise Conflict(f"{self.location}: files keep changing while they are read")

    def show_document(self, folder: str) -> None:
        """See to it that a folder on a disk has its `.octue`, or none, as it has once all that was set is written.

        What it says is not seen to: whoever opens it or asks for its attributes gets all of it anyhow.
        """
        stored = self.keeper.stored
        if self.makes_documents or self.writer is None or not stored.has_pending(folder):
            return
        entry = self.index.entry(join(folder, METADATA_NAME))
        if isinstance(entry, Other):
            try:
                document = stored.document(folder, entry.info.version)
            except OctuefsError:
                return  # reported
            if document.datafiles or document.unread or document.dataset is not None:
                return
        self.writer.write_document(folder)

    # --- bytes

    def open(self, info: ObjectInfo) -> ByteSource:
        """Open a file for reading; in the cloud its present generation.

        :raise OctuefsError: where it cannot be opened
        """
        if not self.in_cloud:
            if self.writer is not None and name_of(info.path) == METADATA_NAME:
                self.writer.write_document(parent_of(info.path))
            return self.store.open(info)
        if info.is_listed_on_disk:
            return self.store.open(info)
        info = self._asked_again(info)
        if self.writer is not None:
            return self.writer.open(info, os.O_RDONLY)
        source = self.store.open(info)
        return self.reading.open(source, lambda: self._look_again(info.path)) if self.reading is not None else source

    def note_opened(self, info: ObjectInfo, key: Hashable, after: Callable[[ObjectInfo], Iterator[ObjectInfo]]) -> None:
        """Take note that a program opened a file in the folder or view that `key` stands for, as it may open others.

        `after` returns the files after one there, in listing order.
        """
        if self.reading is not None and not info.is_listed_on_disk:
            self.reading.prefetch.opened(Place((id(self), key), after, self._fetch), info)

    def _fetch(self, info: ObjectInfo) -> bool:
        return (
            self.reading is not None and not info.is_listed_on_disk and self.reading.fetch_ahead(self.store.open(info))
        )

    def open_writable(self, info: ObjectInfo, flags: int) -> OpenFile:
        """Open a file for writing, or both, as `flags` say.

        :raise OctuefsError: where it cannot be opened
        """
        return self.writing.open(self._asked_again(info) if self.in_cloud else info, flags)

    @property
    def writing(self) -> Writer:
        """The writer.

        :raise ReadOnly: where there is none
        """
        self.check_writable()
        assert self.writer is not None, "just checked"
        self.keeper.about_to_write()
        return self.writer

    def check_writable(self) -> None:
        """Refuse changes where the dataset is only read.

        :raise ReadOnly: with the reason
        """
        if self.writer is None:
            raise ReadOnly(self.read_only_reason)

    def current(self, info: ObjectInfo) -> ObjectInfo:
        """Return what stands at a path now: asked of a disk each time (microseconds), known in the cloud.

        :raise NotFound: where it has gone from the disk
        """
        if self.writer is not None:
            return self.writer.current(info)
        if self.in_cloud and not info.is_listed_on_disk:
            return info
        try:
            now = self.store.stat(info.path)
        except OctuefsError:
            self.keeper.notice(info.path, None)
            raise
        if now.version != info.version:
            self.keeper.notice(info.path, now.version)
        return now

    def space(self) -> Space:
        """Return how much room there is for what is written: the store's, or the disk's where it is staged."""
        if self.staging is None:
            return self.store.space()
        try:
            facts = os.statvfs(self.staging)
        except OSError as error:
            raise from_os_error(error, str(self.staging)) from error
        return Space(
            total_bytes=facts.f_blocks * facts.f_frsize,
            free_bytes=facts.f_bavail * facts.f_frsize,
            total_files=facts.f_files,
            free_files=facts.f_favail,
        )

    def _asked_again(self, info: ObjectInfo) -> ObjectInfo:
        """Return what stands at an object's path, asked of the store where an open is to ask."""
        if not self.keeper.asks_at_open(info.path):
            return info
        if self.writer is not None and self.writer.current(info) is not info:
            return info
        return self.keeper.ask(info)

    def _look_again(self, path: str) -> None:
        """See what stands at a path now, so that who opens it next gets that."""
        with suppress(OctuefsError, TimeoutError, CancelledError, RuntimeError):
            self.keeper.changed([path]).result(_LOOK_SECONDS)
