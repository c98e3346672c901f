"""The facts of one dataset: which files there are, and what views need to find them without scanning.

The keeper publishes what the store says, writers what they did, hash workers what they computed, and `tree/` asks.
Datafiles have row numbers; each label, extension, date, tag and known hash has the bitmap of its rows, so a view is
a few set operations. All changes enter through `publish`, `publish_read` and `publish_hash`; `version` grows with each
of the former two.

What a store said may be older than what a writer did meanwhile. So the keeper reads within `reading()`, and
`publish_read` leaves out whatever a writer published since that began, or holds.

Lock order: `lock` is the only lock here, is held for memory work alone (never for a file, a request or a
callback, but those of observers, which do memory work alone), and may be taken while holding no other lock of the
package.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from cachetools import LRUCache
from pyroaring import BitMap

from octuefs.datafile import Datafile, PackedDatafile
from octuefs.entries import (
    Change,
    DatafileSeen,
    Entry,
    Folder,
    FolderGone,
    FolderSeen,
    Other,
    OtherSeen,
    Reading,
    Removed,
    path_of,
)
from octuefs.facts.pack import Pack
from octuefs.facts.snapshot import Snapshot
from octuefs.hash_rows import HashRows, StoredIds
from octuefs.model.paths import Location, derived_id, join, name_of, parent_of
from octuefs.model.viewnames import tag_entries
from octuefs.stores.base import ObjectInfo

T = TypeVar("T")

_CACHED_SELECTIONS = 64
"""Selections, folders of subsets and orderings kept per version; each holds a reference per member."""


class Query(Protocol):
    """A hashable condition on datafiles, as `tree/queries.py` has them."""

    def select(self, index: "Index", among: BitMap) -> BitMap:
        """Return the rows of `among` that satisfy the condition."""
        ...

    @property
    def needs_hashes(self) -> bool:
        """True where the condition asks for the hashes of content."""
        ...

    def __hash__(self) -> int: ...


SubsetChildren = dict[str, Datafile | None]
"""What is in one folder of a subset, by name; None stands for a folder that leads to a member."""


class Index:
    """Entries by path and datafiles by everything that views ask for."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version = 0
        self.written = 0
        """How often a writer has published something."""
        self.changed_ns = time.time_ns()
        """When the latest change was published: the mtime of all that is derived from the index."""
        self.root = Folder("")
        self.shadowed: dict[str, Datafile] = {}
        """Objects hidden by a folder of the same name (cloud): reached by ID alone."""
        self.datafiles = BitMap()
        self.by_label: dict[str, BitMap] = {}
        self.by_extension: dict[str, BitMap] = {}
        self.by_date: dict[date, BitMap] = {}
        self.by_tag: dict[str, dict[str, BitMap]] = {}
        self.by_hash = HashRows()
        self.unhashed = BitMap()
        """Datafiles whose content has not been hashed yet."""
        self.total_bytes = 0
        self._stored_ids = StoredIds()
        self._rows: list[Datafile | None] = []
        """By row; None for a free one, and for one in a folder that is packed still."""
        self._snapshot: Snapshot | None = None
        """What the index began with."""
        self._packed_rows = BitMap()
        """The rows of datafiles in folders that are packed still."""
        self._free_rows: list[int] = []
        self._cache: LRUCache[object, object] = LRUCache(_CACHED_SELECTIONS)
        self._cache_version = 0
        self._hashes_published = 0
        self._readings: set[Reading] = set()
        self._held: set[str] = set()
        self._observers: list[Callable[[str], object]] = []
        self._told_of_removals: list[Callable[[ObjectInfo], object]] = []
        self._touched: dict[str, None] = {}
        """The paths of what a publication has changed so far."""

    # --- the beginning

    def load(self, snapshot: Snapshot) -> None:
        """Begin with these facts, in an index that has none yet; folders stay packed until they are looked into."""
        with self.lock:
            assert self.may_load, "it begins but once"
            self._snapshot = snapshot
            rows = snapshot.rows
            self.by_label, self.by_extension = dict(rows.labels), dict(rows.extensions)
            self.by_date, self.by_tag = dict(rows.dates), {key: dict(table) for key, table in rows.tags.items()}
            self.datafiles = BitMap(range(snapshot.count))
            self._packed_rows = self.datafiles.copy()
            self._rows = [None] * snapshot.count
            self.total_bytes = snapshot.total_bytes
            self.by_hash.load(snapshot.count, snapshot.checksums)
            self._stored_ids.load(snapshot.ids)
            if (shadowed := snapshot.shadowed) is not None:
                self.shadowed = {
                    path: PackedDatafile(shadowed, path, at, has_row=False) for at, path in shadowed.named()
                }
            self.root = self._packed_folder(0, self.root.info)
            self.version += 1

    def _packed_folder(self, number: int, info: ObjectInfo | None) -> Folder:
        assert self._snapshot is not None, "it was loaded"
        path = self._snapshot.packs[number].folder
        return Folder(path, info, partial(self._unpack, number), self._snapshot.rows_of(number))

    def _unpack(self, number: int, folder: Folder) -> None:
        """Let the entries of a folder stand for themselves."""
        with self.lock:
            snapshot = self._snapshot
            if not folder.is_packed or snapshot is None:
                return
            packed = snapshot.packs[number]
            children: dict[str, Entry] = {}
            for below in snapshot.below[number]:
                path = snapshot.packs[below].folder
                children[name_of(path)] = self._packed_folder(below, snapshot.markers.get(path))
            row, table = packed.first_row, self._rows
            for at, name in packed.named():
                if at < packed.datafiles:
                    children[name] = table[row] = PackedDatafile(packed, name, row)
                    row += 1
                else:
                    children[name] = Other(packed.info(at, name))
            self._packed_rows.remove_range(packed.first_row, row)
            folder.fill(children)

    def _unpack_rows(self, rows: BitMap) -> None:
        """Let datafiles stand for themselves, with all that is in their folders."""
        assert self._snapshot is not None, "there are packed ones"
        for row in self._packed_rows & rows:
            if row in self._packed_rows:
                folder = self.folder(self._snapshot.pack_of_row(row).folder)
                assert folder is not None, "what has gone was unpacked before"
                _ = folder.children

    # --- changes

    def observe(self, callback: Callable[[str], object]) -> None:
        """Have `callback` told the path of each change that is published from now on, once it stands.

        Those of folders that come or go with it are told too; of what goes with a folder the folder alone is told. It
        is called under `lock`, for memory work alone. A hash that becomes known is no change.
        """
        with self.lock:
            self._observers.append(callback)

    def observe_removals(self, callback: Callable[[ObjectInfo], object]) -> None:
        """Have `callback` told, under `lock`, what the store said last of each object that goes from its place."""
        with self.lock:
            self._told_of_removals.append(callback)

    def _tell_removed(self, info: ObjectInfo) -> None:
        for tell in self._told_of_removals:
            tell(info)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Begin to read a store: give what `publish_read` needs in order to know what has become old meanwhile."""
        reading = Reading()
        with self.lock:
            self._readings.add(reading)
        try:
            yield reading
        finally:
            with self.lock:
                self._readings.discard(reading)

    def publish_read(self, changes: Iterable[Change], reading: Reading) -> list[str]:
        """Take in what a reading of the store found, and return the paths that were left out.

        Left out is what a writer changed since the reading began, or another thread has read since, which is to be read
        again, and, without being returned, what a writer holds.
        """
        overtaken = []
        with self.lock:
            fresh = []
            for change in changes:
                path = path_of(change)
                if path in self._held or (isinstance(change, Removed) and self._holds_below(path)):
                    continue
                if reading.touched and reading.overtakes(path):
                    overtaken.append(path)
                else:
                    fresh.append(change)
            for other in self._readings:
                if other.thread != reading.thread:
                    for change in fresh:
                        other.touch(path_of(change))
            if fresh:
                self._publish(fresh)
        return overtaken

    def publish(self, changes: Iterable[Change]) -> None:
        """Take in what a writer did, in order, and let `version` grow."""
        with self.lock:
            changes = list(changes)
            self.written += 1
            for reading in self._readings:
                for change in changes:
                    reading.touch(path_of(change))
            self._publish(changes)

    def hold(self, path: str) -> None:
        """Let nobody but writers say what stands at a path (an open file that is not stored yet)."""
        with self.lock:
            self._held.add(path)

    def let_go(self, path: str) -> None:
        """End that: what stands in the store counts again, from the readings that begin now."""
        with self.lock:
            self._held.discard(path)
            for reading in self._readings:
                reading.touch(path)

    def _holds_below(self, path: str) -> bool:
        return bool(self._held) and any(held.startswith(path + "/") for held in self._held)

    def _publish(self, changes: Iterable[Change]) -> None:
        with self.lock:
            for change in changes:
                match change:
                    case Removed(path):
                        self._remove(path)
                    case FolderGone(path):
                        self._fold(path)
                    case FolderSeen(info):
                        self._folder_for(info.path).info = info
                    case DatafileSeen(datafile):
                        self._put_datafile(datafile)
                    case OtherSeen(info):
                        self._put_other(info)
                self.version += 1
                self._touched[path_of(change)] = None
            self.changed_ns = max(time.time_ns(), self.changed_ns + 1)
            touched, self._touched = self._touched, {}
            for observer in self._observers:
                for path in touched:
                    observer(path)

    def publish_hash(self, datafile: Datafile, crc32c: int) -> None:
        """Remember the hash of a datafile's content, if that datafile still stands."""
        with self.lock:
            if datafile.row < 0 or self._rows[datafile.row] is not datafile:
                datafile.crc32c = crc32c
                return
            self._hashes_published += 1
            self.unhashed.discard(datafile.row)
            if datafile.crc32c is not None:
                self.by_hash.discard(datafile.hash_value, datafile.row)
            datafile.crc32c = crc32c
            self.by_hash.add(datafile.hash_value, datafile.row)

    def _folder_for(self, path: str) -> Folder:
        folder = self.root
        if path:
            for name in path.split("/"):
                child = folder.children.get(name)
                if not isinstance(child, Folder):
                    if child is not None:
                        self._drop(child)
                    if isinstance(child, Datafile) and child.may_share_its_path:
                        self.shadowed[child.path] = child
                    child = folder.children[name] = Folder(join(folder.path, name))
                    self._touched[child.path] = None
                folder = child
        return folder

    def _put_datafile(self, datafile: Datafile) -> None:
        parent, _, name = datafile.info.path.rpartition("/")
        folder = self._folder_for(parent)
        present = folder.children.get(name)
        if isinstance(present, Datafile):
            folder.children[name] = datafile
            if present.metadata is datafile.metadata and present.row >= 0:
                self._exchange(present, datafile)
                return
            self._forget(present)
            self._remember(datafile)
            return
        if isinstance(present, Folder) and datafile.may_share_its_path:
            self.shadowed[datafile.path] = datafile
            return
        if present is not None:
            self._drop(present)
        folder.children[name] = datafile
        self._remember(datafile)

    def _exchange(self, present: Datafile, datafile: Datafile) -> None:
        """Let a datafile have the row of one with the same name and metadata: a file that was written."""
        row, present.row = present.row, -1
        datafile.row = row  # last: a datafile may be published again
        self._rows[row] = datafile
        self.total_bytes += datafile.size - present.size
        if present.crc32c == datafile.crc32c:
            return
        if present.crc32c is None:
            self.unhashed.discard(row)
        else:
            self.by_hash.discard(present.hash_value, row)
        if datafile.crc32c is None:
            self.unhashed.add(row)
        else:
            self.by_hash.add(datafile.hash_value, row)

    def _put_other(self, info: ObjectInfo) -> None:
        folder = self._folder_for(parent_of(info.path))
        name = name_of(info.path)
        present = folder.children.get(name)
        if present is not None:
            self._drop(present)
        folder.children[name] = Other(info)

    def _remove(self, path: str) -> None:
        if (hidden := self.shadowed.pop(path, None)) is not None:
            self._tell_removed(hidden.info)
            return
        parent = self.folder(parent_of(path))
        if parent is None:
            return
        entry = parent.children.pop(name_of(path), None)
        if entry is not None:
            self._drop(entry)
            self._prune(parent)

    def _fold(self, path: str) -> None:
        folder = self.folder(path)
        if folder is not None and path:
            if folder.info is not None:
                self._tell_removed(folder.info)
            folder.info = None
            self._prune(folder)

    def _prune(self, folder: Folder) -> None:
        """Let folders go that only their content implied, and show what they shadowed."""
        while folder.path and not folder.children and folder.info is None:
            parent = self.folder(parent_of(folder.path))
            assert parent is not None, "a folder in the tree has a parent"
            del parent.children[name_of(folder.path)]
            self._touched[folder.path] = None
            if (datafile := self.shadowed.pop(folder.path, None)) is not None:
                self._put_datafile(datafile)
            folder = parent

    def _drop(self, entry: Entry) -> None:
        if self._told_of_removals and entry.info is not None:
            self._tell_removed(entry.info)
        if isinstance(entry, Datafile):
            self._forget(entry)
        elif isinstance(entry, Folder):
            for child in list(entry.children.values()):
                self._drop(child)
            entry.children.clear()

    def _remember(self, datafile: Datafile) -> None:
        if self._free_rows:
            row = self._free_rows.pop()
            self._rows[row] = datafile
        else:
            row = len(self._rows)
            self._rows.append(datafile)
        datafile.row = row
        self.datafiles.add(row)
        self.total_bytes += datafile.size
        for table, key in self._places(datafile):
            bitmap = table.get(key)
            if bitmap is None:
                bitmap = table[key] = BitMap()
            bitmap.add(row)
        if datafile.crc32c is None:
            self.unhashed.add(row)
        else:
            self.by_hash.add(datafile.hash_value, row)
        if (stored_id := datafile.metadata.id) is not None:
            self._stored_ids.add(stored_id)

    def _forget(self, datafile: Datafile) -> None:
        row = datafile.row
        if row < 0:
            return
        self.datafiles.discard(row)
        self.total_bytes -= datafile.size
        for table, key in self._places(datafile):
            if (bitmap := table.get(key)) is not None:
                bitmap.discard(row)
                if not bitmap:
                    del table[key]
        for key in {key for key, _ in tag_entries(datafile.metadata.tags)}:
            if not self.by_tag.get(key, True):
                del self.by_tag[key]
        if datafile.crc32c is None:
            self.unhashed.discard(row)
        else:
            self.by_hash.discard(datafile.hash_value, row)
        if (stored_id := datafile.metadata.id) is not None:
            self._stored_ids.discard(stored_id)
        self._rows[row] = None
        self._free_rows.append(row)
        datafile.row = -1

    def _places(self, datafile: Datafile) -> Iterator[tuple[dict[Any, BitMap], object]]:
        """Yield (table, key) of each bitmap that the datafile's row belongs to."""
        metadata = datafile.metadata
        for label in metadata.labels:
            yield self.by_label, label
        yield self.by_extension, datafile.extension
        if metadata.timestamp is not None:
            yield self.by_date, metadata.timestamp.date()
        if metadata.tags:
            for key, text in tag_entries(metadata.tags):
                table = self.by_tag.get(key)
                if table is None:
                    table = self.by_tag[key] = {}
                yield table, text

    # --- questions

    def entry(self, path: str) -> Entry | None:
        """Return what stands at a path of the dataset, the root folder for ""."""
        if not path:
            return self.root
        parent, _, name = path.rpartition("/")
        folder = self.folder(parent) if parent else self.root
        return folder.children.get(name) if folder is not None else None

    def folder(self, path: str) -> Folder | None:
        """Return the folder at a path, or None."""
        folder = self.root
        if path:
            for name in path.split("/"):
                child = folder.children.get(name)
                if not isinstance(child, Folder):
                    return None
                folder = child
        return folder

    def id_of(self, datafile: Datafile) -> str:
        """Return the ID of a datafile: the stored one, else the one that its first record would get."""
        return datafile.metadata.id or self._free_id(datafile.full_path, datafile.path, ())

    def new_id(self, path: str, location: Location, besides: Collection[str] = ()) -> str:
        """Return the ID for a datafile without a stored one: from its location, but no other datafile's.

        Another may have stored it while it stood there. `besides` are IDs that are taken too.
        """
        return self._free_id(location.of(path), path, besides)

    def _free_id(self, full_path: str, path: str, besides: Collection[str]) -> str:
        number = 0
        with self.lock:
            while (wanted := derived_id(full_path, number)) in besides or self.is_anothers(wanted, path):
                number += 1
        return wanted

    @property
    def is_empty(self) -> bool:
        """True where nothing is known yet."""
        return not self._rows and not self.root.children

    @property
    def may_load(self) -> bool:
        """True where nothing was ever known, so that it may begin with packed facts."""
        return self._snapshot is None and self.is_empty

    def packed_at(self, path: str) -> Pack | None:
        """Return the files of a folder as they are packed, None where they stand for themselves."""
        with self.lock:
            folder = self.folder(path)
            if folder is None or self._snapshot is None or not folder.is_packed:
                return None
            return self._snapshot.packs[self._snapshot.numbers[path]]

    def objects(self, *, datafiles: bool = True) -> Iterator[tuple[ObjectInfo, bool]]:
        """Yield the description of each object known, and whether it is a datafile; or only of those that are none.

        Nothing is unpacked for it. What changes meanwhile may be missed, or told as it was.
        """
        for pending in self._walk():
            if isinstance(pending, int):
                assert self._snapshot is not None, "it was loaded"
                yield from self._snapshot.objects(pending, datafiles=datafiles)
                continue
            for entry in pending:
                is_datafile = isinstance(entry, Datafile)
                if entry.info is not None and (datafiles or not is_datafile):
                    yield entry.info, is_datafile
        if datafiles:
            for hidden in list(self.shadowed.values()):
                yield hidden.info, True

    def named(self, names: Collection[str]) -> Iterator[str]:
        """Yield the paths of the files and folders that have one of some names; nothing is unpacked for it."""
        for pending in self._walk():
            if isinstance(pending, int):
                assert self._snapshot is not None, "it was loaded"
                yield from self._snapshot.named(pending, names)
                continue
            for entry in pending:
                if name_of(entry.path if isinstance(entry, Folder | Datafile) else entry.info.path) in names:
                    yield entry.path if isinstance(entry, Folder | Datafile) else entry.info.path

    def sizes(self) -> Iterator[int]:
        """Yield the size of each datafile in bytes; nothing is unpacked for it."""
        for pending in self._walk():
            if isinstance(pending, int):
                assert self._snapshot is not None, "it was loaded"
                yield from self._snapshot.sizes(pending)
                continue
            for entry in pending:
                if isinstance(entry, Datafile):
                    yield entry.size

    def _walk(self) -> Iterator[list[Entry] | int]:
        """Yield what is in each folder, and of those that are packed still their numbers, for all below them too."""
        pending = [self.root]
        while pending:
            folder = pending.pop()
            with self.lock:
                if folder.is_packed and self._snapshot is not None:
                    number: int | None = self._snapshot.numbers[folder.path]
                else:
                    number, entries = None, list(folder.children.values())
            if number is not None:
                yield number
                continue
            yield entries
            pending.extend(entry for entry in entries if isinstance(entry, Folder))

    def is_anothers(self, datafile_id: str, path: str) -> bool:
        """Say whether a datafile at another path than this has an ID stored."""
        with self.lock:
            count = self._stored_ids.count(datafile_id)
            if count:
                entry = self.entry(path)
                count -= isinstance(entry, Datafile) and entry.metadata.id == datafile_id
            return count > 0 or any(it.metadata.id == datafile_id for it in self.shadowed.values() if it.path != path)

    def resolve(self, rows: BitMap) -> list[Datafile]:
        """Return the datafiles of rows that are there (under `lock`, or for rows selected under it)."""
        table = self._rows
        if self._packed_rows and self._packed_rows.intersect(rows):
            self._unpack_rows(rows)
        return [datafile for row in rows if (datafile := table[row]) is not None]

    def select(self, folder: str, queries: tuple[Query, ...]) -> BitMap:
        """Return the rows of the datafiles in and below `folder` that satisfy all `queries`."""

        def compute() -> BitMap:
            rows = self._beneath(folder)
            for query in queries:
                rows = query.select(self, rows)
            return rows

        return self.cached(_selection(folder, queries), compute, hashed=_need_hashes(queries))

    def is_selected(self, folder: str, queries: tuple[Query, ...]) -> bool:
        """Say whether `select` has its answer ready."""
        return self.is_cached(_selection(folder, queries), hashed=_need_hashes(queries))

    def members(self, folder: str, queries: tuple[Query, ...]) -> list[Datafile]:
        """Return the datafiles in and below `folder` that satisfy all `queries`."""
        with self.lock:
            return self.resolve(self.select(folder, queries))

    def subset_children(self, origin: str, queries: tuple[Query, ...], folder: str) -> SubsetChildren:
        """Return what is in one folder, in or below `origin`, of the filtered tree that `select` makes of that."""

        def compute() -> SubsetChildren:
            children: SubsetChildren = {}
            here, rows = self.folder(folder), self.select(origin, queries)
            for name, entry in here.children.items() if here is not None else ():
                if isinstance(entry, Datafile):
                    if entry.row in rows:
                        children[name] = entry
                elif isinstance(entry, Folder) and has_rows_beneath(entry, rows):
                    children[name] = None
            return children

        return self.cached(("children", origin, queries, folder), compute, hashed=_need_hashes(queries))

    def cached(self, key: object, compute: Callable[[], T], *, hashed: bool = False) -> T:
        """Return `compute()` under `lock`, remembered for `key` until the next change.

        What is `hashed` depends on hashes too, and is forgotten with each one that becomes known.
        """
        with self.lock:
            if self._cache_version != self.version:
                self._cache.clear()
                self._cache_version = self.version
            if hashed:
                key = (key, self._hashes_published)
            if key in self._cache:
                return cast(T, self._cache[key])
            result = self._cache[key] = compute()
            return result

    def is_cached(self, key: object, *, hashed: bool = False) -> bool:
        """Say whether `cached` has its answer ready."""
        with self.lock:
            known = (key, self._hashes_published) if hashed else key
            return self._cache_version == self.version and known in self._cache

    def _beneath(self, path: str) -> BitMap:
        if not path:
            return self.datafiles.copy()

        def compute() -> BitMap:
            folder = self.folder(path)
            return rows_beneath(folder) if folder is not None else BitMap()

        return self.cached(("beneath", path), compute)


def rows_beneath(folder: Folder) -> BitMap:
    """Return the rows of the datafiles in and below a folder (under the index's lock)."""
    rows = BitMap()
    pending = [folder]
    while pending:
        folder = pending.pop()
        if folder.is_packed:
            rows.add_range(folder.rows.start, folder.rows.stop)
            continue
        for child in folder.children.values():
            if isinstance(child, Datafile):
                rows.add(child.row)
            elif isinstance(child, Folder):
                pending.append(child)
    return rows


def has_rows_beneath(folder: Folder, rows: BitMap) -> bool:
    """Say whether one of some datafiles is in or below a folder (under the index's lock)."""
    pending = [folder] if rows else []
    while pending:
        folder = pending.pop()
        if folder.is_packed:
            if rows.intersect(BitMap(folder.rows)):
                return True
            continue
        for child in folder.children.values():
            if isinstance(child, Datafile):
                if child.row in rows:
                    return True
            elif isinstance(child, Folder):
                pending.append(child)
    return False


def _selection(folder: str, queries: tuple[Query, ...]) -> object:
    return ("select", folder, queries)


def _need_hashes(queries: tuple[Query, ...]) -> bool:
    return any(query.needs_hashes for query in queries)
