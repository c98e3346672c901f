"""What the kernel holds of the tree: node ids, how often each was looked up, and by which names.

The kernel names what it has looked up by a number, and forgets it with a count of look-ups. A directory has one node
for its path; a file has one in all its directories, so that it has one page cache. Numbers are never used again while
the daemon lives. All calls take the table's lock, for memory work alone.
"""

import itertools
import math
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from octuefs.drivers.kernel.requests import ROOT_ID
from octuefs.errors import StaleNode
from octuefs.tree.node import Attributes, Node


class DirectoryRecord:
    """A directory that the kernel knows."""

    __slots__ = (
        "_known",
        "changes",
        "children",
        "derived",
        "found",
        "id",
        "lasting",
        "listed",
        "listed_at",
        "lookups",
        "place",
    )

    def __init__(self, id: int, parent: "DirectoryRecord | None", name: str, *, derived: bool) -> None:
        self.id = id
        self.place: tuple[DirectoryRecord, str] | None = None if parent is None else (parent, name)
        """Where it lies; None for the root, and for one that was removed or replaced."""
        self.derived = derived
        """Whether it shows what is made of the facts of the index; see `Node.derived`."""
        self.lookups = 0
        self.children: dict[str, DirectoryRecord | FileRecord] = {}
        """What the kernel knows in it, by name, as far as it is still there."""
        self.found: tuple[int, Node] | None = None
        """Its node in the tree, and the version of the tree that this counts for."""
        self.changes = 0
        """How often the kernel was told that something in it has changed just after it was listed."""
        self.listed_at = -math.inf
        """When it was listed last (monotonic)."""
        self.listed: Hashable = None
        """Of which version the listing is that the kernel keeps; None for none."""
        self.lasting: tuple[float, tuple[int, int]] = (0.0, (0, 0))
        """Until when it is known how long what is told of it counts, and how long."""
        self._known = (-1, "")
        """After how many moves it was asked for its path, and the path; one value, as several threads may ask."""

    def path_at(self, moves: int) -> str:
        """Return its path in the mount: "/" for the root. `moves` grows whenever a directory has moved.

        :raise StaleNode: where it has none any more
        """
        known, path = self._known
        if known != moves:
            names = []
            record = self
            while (place := record.place) is not None:
                record, name = place
                names.append(name)
            if record.id != ROOT_ID:
                raise StaleNode(f"{'/'.join(reversed(names)) or 'this directory'} was removed or replaced")
            path = "/" + "/".join(reversed(names))
            self._known = (moves, path)
        return path


Place = tuple[DirectoryRecord, str]
"""A directory, and a name in it."""


class FileRecord:
    """Anything that is no directory and that the kernel knows."""

    __slots__ = ("backing", "handles", "id", "key", "lookups", "places", "text", "told", "version")

    def __init__(self, id: int, key: Hashable) -> None:
        self.id = id
        self.key = key
        """Which file it is, whatever it is called."""
        self.lookups = 0
        self.places: tuple[Place, ...] = ()
        """Where it was found, the latest first; what of that is out of date is found out when it is used."""
        self.handles: tuple[int, ...] = ()
        """Its open handles."""
        self.version: Hashable = None
        """Of which version its pages are; None where nothing is known of them."""
        self.backing = 0
        """The number of the file that its handles pass reads and writes through to; 0 for none."""
        self.text: bytes | None = None
        """What it reads as, for a text of our making that the kernel opens itself."""
        self.told: Attributes | None = None
        """The attributes of that text."""


Record = DirectoryRecord | FileRecord


class NodeTable:
    """The nodes that the kernel knows, by number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(ROOT_ID + 1)
        self.root = DirectoryRecord(ROOT_ID, None, "", derived=False)
        self._records: dict[int, Record] = {ROOT_ID: self.root}
        self._files: dict[Hashable, FileRecord] = {}
        self.moves = 0
        """How often a directory has got another path, or none."""
        self.derived = 0
        """How many directories of views the kernel knows."""
        self.forgotten: Callable[[int], object] = lambda _: None
        """Told of each file that the kernel does not know any more, outside of the lock."""

    def __len__(self) -> int:
        return len(self._records)

    def get(self, id: int) -> Record:
        """Return the record of a node.

        :raise StaleNode: where there is none, which the kernel then forgets
        """
        try:
            return self._records[id]
        except KeyError:
            raise StaleNode(f"node {id} is not known") from None

    def directory(self, id: int) -> DirectoryRecord:
        """Return the record of a directory.

        :raise StaleNode: where that node is none
        """
        record = self._records.get(id)
        if isinstance(record, DirectoryRecord):
            return record
        raise StaleNode(f"node {id} is not known, or no directory")

    def file(self, id: int) -> FileRecord:
        """Return the record of what is no directory.

        :raise StaleNode: where that node is none
        """
        record = self._records.get(id)
        if isinstance(record, FileRecord):
            return record
        raise StaleNode(f"node {id} is not known, or a directory")

    def path_of(self, record: DirectoryRecord) -> str:
        """Return the path in the mount of a directory.

        :raise StaleNode: where it has none any more
        """
        return record.path_at(self.moves)

    def describe(self, record: Record) -> str:
        """Return a path of something in the mount, for people: one that it had, where it has none any more."""
        place = next(iter(record.places), None) if isinstance(record, FileRecord) else record.place
        names = []
        while place is not None:
            directory, name = place
            names.append(name)
            place = directory.place
        return "/" + "/".join(reversed(names))

    # --- looking up

    def directory_found(self, parent: DirectoryRecord, name: str, *, derived: bool) -> DirectoryRecord:
        """Count a look-up of a directory and return its record."""
        with self._lock:
            record = parent.children.get(name)
            if not isinstance(record, DirectoryRecord) or record.derived != derived:
                self._leave(parent, name)
                record = parent.children[name] = DirectoryRecord(next(self._ids), parent, name, derived=derived)
                self._records[record.id] = record
                self.derived += derived
            record.lookups += 1
            return record

    def file_found(self, parent: DirectoryRecord, name: str, key: Hashable) -> FileRecord:
        """Count a look-up of a file and return its record, one with which others know it under its key."""
        with self._lock:
            record = self._files.get(key)
            if record is None:
                record = self._files[key] = FileRecord(next(self._ids), key)
                self._records[record.id] = record
            record.lookups += 1
            if parent.children.get(name) is not record:
                self._put(record, parent, name)
            return record

    def _put(self, record: FileRecord, parent: DirectoryRecord, name: str) -> None:
        if name in parent.children:
            self._leave(parent, name)
        parent.children[name] = record
        record.places = ((parent, name), *record.places)

    def _leave(self, parent: DirectoryRecord, name: str) -> None:
        """Let nothing be known at a place any more.

        A file that is at none is not joined by what is found later: its inode number may be another file's by then, and
        what the kernel still asks of its node is not meant for that one.
        """
        record = parent.children.pop(name, None)
        if isinstance(record, DirectoryRecord):
            record.place = None
            self.moves += 1
        elif record is not None:
            record.places = tuple(it for it in record.places if it[0] is not parent or it[1] != name)
            if not record.places and self._files.get(record.key) is record:
                del self._files[record.key]

    def detach(self, record: FileRecord) -> None:
        """Let the next look-up of a file lead to another record; this one serves those who have it open."""
        with self._lock:
            if self._files.get(record.key) is record:
                del self._files[record.key]
            for parent, name in record.places:
                if parent.children.get(name) is record:
                    del parent.children[name]
            record.places = ()

    def rekey(self, record: FileRecord, key: Hashable) -> None:
        """Take note that a file is known under another key now: it was renamed where the name is the key."""
        with self._lock:
            if self._files.get(record.key) is record:
                del self._files[record.key]
                self._files[key] = record
            record.key = key

    def forget(self, id: int, lookups: int) -> None:
        """Take note that the kernel has forgotten so many look-ups of a node."""
        with self._lock:
            record = self._records.get(id)
            if record is None or record is self.root:
                return
            record.lookups -= lookups
            if record.lookups > 0:
                return
            if isinstance(record, FileRecord):
                self._drop_file(record)
            else:
                self._drop_directories(record)
        if isinstance(record, FileRecord):
            self.forgotten(id)

    def _drop_file(self, record: FileRecord) -> None:
        """Forget a file that the kernel does not know any more: one that is open is known until the last release."""
        del self._records[record.id]
        if self._files.get(record.key) is record:
            del self._files[record.key]
        for parent, name in record.places:
            if parent.children.get(name) is record:
                del parent.children[name]

    def _drop_directories(self, record: DirectoryRecord | None) -> None:
        """Forget a directory that the kernel does not know any more, after those in it, and those above.

        A file that it knows by another name is not known by its name here any more.
        """
        while record is not None and record.lookups <= 0 and record is not self.root:
            if any(isinstance(child, DirectoryRecord) for child in record.children.values()):
                return
            for name in list(record.children):
                self._leave(record, name)
            if self._records.pop(record.id, None) is not None:
                self.derived -= record.derived
            above, name = record.place or (None, "")
            if above is not None and above.children.get(name) is record:
                del above.children[name]
            record = above

    # --- names that change

    @contextmanager
    def leaving(self, parent: DirectoryRecord, name: str) -> Iterator[None]:
        """Let a file that is removed in this context be joined by none that is found from now on, unless that fails.

        Its inode number may be another file's before the removal is answered. A file with another name stays.
        """
        with self._lock:
            record = self._leaves(parent, name)
            if record is not None:
                del self._files[record.key]
        try:
            yield
        except BaseException:
            if record is not None:
                with self._lock:
                    self._files.setdefault(record.key, record)
            raise

    def _leaves(self, parent: DirectoryRecord, name: str) -> FileRecord | None:
        """Return the file at a place, if look-ups lead to it and it has no other name outside of views."""
        record = parent.children.get(name)
        if not isinstance(record, FileRecord) or self._files.get(record.key) is not record:
            return None
        others = (it for it in record.places if not it[0].derived and it != (parent, name))
        return record if next(others, None) is None else None

    def removed(self, parent: DirectoryRecord, name: str) -> Record | None:
        """Take note that what stood at a place is gone from it, and return what that was, as far as it was known."""
        with self._lock:
            record = parent.children.get(name)
            self._leave(parent, name)
            return record

    def renamed(self, old: Place, new: Place) -> Record | None:
        """Take note that the kernel has moved what it knew at one place to another, and return that."""
        with self._lock:
            moved = old[0].children.get(old[1])
            if moved is None or old == new:
                return moved
            if isinstance(moved, FileRecord):
                if new[0].children.get(new[1]) is not moved:
                    self._put(moved, *new)
                self._leave(*old)
                return moved
            self._leave(*new)
            del old[0].children[old[1]]
            moved.place = new
            new[0].children[new[1]] = moved
            self.moves += 1
            return moved

    def not_at(self, record: FileRecord, place: Place) -> None:
        """Take note that a file is not at a place any more."""
        with self._lock:
            if place[0].children.get(place[1]) is record:
                self._leave(*place)

    # --- open files

    def opened(self, record: FileRecord, handle: int) -> None:
        """Take note of an open handle."""
        with self._lock:
            record.handles = (*record.handles, handle)

    def released(self, record: FileRecord, handle: int) -> None:
        """Forget a handle."""
        with self._lock:
            record.handles = tuple(it for it in record.handles if it != handle)

    # --- finding

    def derived_directories(self) -> list[DirectoryRecord]:
        """Return the records of the directories of views that the kernel knows."""
        if not self.derived:
            return []
        with self._lock:
            return [it for it in self._records.values() if isinstance(it, DirectoryRecord) and it.derived]

    def find(self, path: str) -> tuple[DirectoryRecord | None, str, Record | None]:
        """Return what the kernel knows of a path of the mount: its directory, its name there, and what stands there."""
        parent: DirectoryRecord | None = None
        record: Record | None = self.root
        name = ""
        for name in filter(None, path.split("/")):
            if not isinstance(record, DirectoryRecord):
                return None, name, None
            parent, record = record, record.children.get(name)
        return parent, name, record
