"""A cloud dataset over a strict store in memory, and its writer, for tests of it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unit.memory_store import MemoryStore

from octuefs.datafile import Datafile
from octuefs.entries import Change, DatafileSeen, Folder
from octuefs.errors import StoreUnavailable
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata, decode_custom_metadata
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.gcs_resource import describe
from octuefs.stores.writing import ObjectProperties
from octuefs.writing.base import Caller
from octuefs.writing.cloud import CloudWriter
from octuefs.writing.cloudfiles import CloudFiles
from octuefs.writing.journal import Journal
from octuefs.writing.recent import RecentNames
from octuefs.writing.sessions import Session

ME = Caller(os.getuid(), os.getgid())
DOWN = StoreUnavailable("the server fails")


class StillFiles:
    """Files of which none is open: what `CloudFiles` says then. It notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    @contextmanager
    def at_rest(self, *paths: str) -> Iterator[Mapping[str, ObjectInfo | None]]:
        """Nothing is open."""
        yield {}

    def below(self, folder: str) -> list[str]:
        """Nothing is."""
        return []

    def current(self, info: ObjectInfo) -> ObjectInfo:
        """What the index knows."""
        return info

    def metadata(self, path: str) -> None:
        """Nothing that is not stored."""

    def change_metadata(self, path: str, change: MetadataChange) -> bool:
        """All is stored."""
        return False

    def set_attributes(self, path: str, *, mode: int | None = None, mtime_ns: int | None = None) -> bool:
        """All is stored."""
        return False

    def settle(self, path: str) -> None:
        """Nothing was stored a moment ago."""

    def keep_open(self, path: str) -> None:
        """Note."""
        self.told.append(("keep_open", path))

    def replaced(self, path: str, info: ObjectInfo) -> None:
        """Note."""
        self.told.append(("replaced", path))

    def removed(self, path: str) -> None:
        """Note."""
        self.told.append(("removed", path))

    def moved(self, old: str, new: str, info: ObjectInfo | None) -> None:
        """Note."""
        self.told.append(("moved", old, new))

    def moved_folder(self, old: str, new: str, infos: Mapping[str, ObjectInfo]) -> None:
        """Note."""
        self.told.append(("moved_folder", old, new))

    def create(
        self, path: str, flags: int, properties: ObjectProperties, *, mode: int, metadata: DatafileMetadata | None
    ) -> Any:
        """Note."""
        self.told.append(("create", path, dict(properties.custom_metadata), mode, metadata))
        return object()

    @property
    def failed(self) -> "StillFiles":
        """Nothing failed."""
        return self

    def recovered(self) -> list[Any]:
        """Nothing failed."""
        return []

    def pending(self) -> list[tuple[str, int, int]]:
        """Nothing is on its way."""
        return []

    def restore(self) -> None:
        """Nothing was left."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class World:
    """A cloud dataset, loaded, and its writer."""

    store: MemoryStore
    keeper: Keeper
    journal: Journal
    files: Any
    writer: CloudWriter
    report: Report

    @property
    def index(self) -> Index:
        """Its index."""
        return self.keeper.index

    def datafile(self, path: str) -> Datafile:
        """What the index has at a path."""
        entry = self.index.entry(path)
        assert isinstance(entry, Datafile), f"{path}: {entry}"
        return entry

    def labels(self, path: str) -> set[str]:
        """The labels that the index has of a file."""
        return set(self.datafile(path).labels)

    def paths(self) -> set[str]:
        """All files and folders that the index has, folders with a slash."""
        found = set()
        pending = [self.index.root]
        while pending:
            folder = pending.pop()
            for name, entry in folder.children.items():
                path = f"{folder.path}/{name}" if folder.path else name
                if isinstance(entry, Folder):
                    pending.append(entry)
                    path += "/"
                found.add(path)
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """The renames that the journal has."""
        return self.journal.items("rename")

    def end(self) -> None:
        """Close the writer and the keeper; the journal stays open."""
        self.writer.close()
        self.keeper.close()

    def truth(self) -> None:
        """Assert that the index shows what a fresh reading of the store shows."""
        shown = {path: _facts(self.index, path) for path in self.paths()}
        fresh = Keeper(self.store, Report(), Index(), recursive=True, metadata_ttl=60)
        fresh.load()
        other = World(self.store, fresh, self.journal, self.files, self.writer, self.report)
        assert shown == {path: _facts(fresh.index, path) for path in other.paths()}
        fresh.close()


def _facts(index: Index, path: str) -> Any:
    entry = index.entry(path.removesuffix("/"))
    if isinstance(entry, Datafile):
        return entry.info.version, entry.metadata, entry.crc32c
    return None if isinstance(entry, Folder) or entry is None else entry.info.version


def labelled(*labels: str) -> MetadataChange:
    """The change that adds labels."""
    return MetadataChange(labels_added=frozenset(labels))


def tagged(**tags: Any) -> MetadataChange:
    """The change that sets tags."""
    return MetadataChange(tags_set=tags)


def _seen(keeper: Keeper, info: ObjectInfo) -> Change:
    """What the index is told of a file that is not stored: its hash is not known yet, which is no problem."""
    if info.crc32c is not None:
        return keeper.classify(info, None)
    metadata, _ = decode_custom_metadata(info.custom_metadata or {})
    return DatafileSeen(Datafile(info, keeper.location, metadata or DatafileMetadata(), info))


def begin(store: MemoryStore, journal: Journal, session: Session | None = None, *, write_back: bool = False) -> World:
    """Load the dataset that is in a store; without a session none of its files is ever open."""
    report = Report()
    keeper = Keeper(store, report, Index(), recursive=True, metadata_ttl=60)
    keeper.load()
    files: Any = StillFiles()
    if session is not None:
        files = CloudFiles(
            store,
            keeper.index,
            session,
            report,
            keeper.changed,
            location=store.location,
            classify=lambda info: _seen(keeper, info),
            inode_of=lambda path: describe(store.place, path, Kind.FILE, {}).inode,
            write_back=write_back,
        )
    writer = CloudWriter(store, keeper, files, journal, report, RecentNames())
    store.requests.clear()
    return World(store, keeper, journal, files, writer, report)
