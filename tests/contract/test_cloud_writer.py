"""The writer of a cloud dataset on a real server, as it is and as strict as Google's: what the strict store in memory
(`unit/test_cloud_writer.py`) says must be true of it too."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.places import Prefix

from octuefs.datafile import Datafile
from octuefs.entries import Folder
from octuefs.errors import Conflict, NotEmpty, TooBig
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.writing.base import Caller
from octuefs.writing.cloud import CloudWriter
from octuefs.writing.cloudfiles import CloudFiles
from octuefs.writing.recent import RecentNames
from octuefs.writing.sessions import open_session
from support.gcs import Bucket
from support.strict_gcs import StrictGcs

ME = Caller(os.getuid(), os.getgid())


class World:
    """A dataset, loaded, with its writer."""

    def __init__(self, place: Prefix, folder: Path) -> None:
        self.store = place.store
        folder.mkdir()
        self.session = open_session(folder)
        self.report = Report()
        self.keeper = Keeper(self.store, self.report, Index(), recursive=True, metadata_ttl=60)
        self.keeper.load()
        files = CloudFiles(
            self.store,
            self.keeper.index,
            self.session,
            self.report,
            self.keeper.changed,
            location=self.store.location,
            classify=self._seen,
            inode_of=self.store.inode_of,
        )
        self.writer = CloudWriter(self.store, self.keeper, files, self.session.journal, self.report, RecentNames())

    def _seen(self, info: ObjectInfo) -> Any:
        """A file that is not stored has no hash yet, which is no problem."""
        return self.keeper.classify(info if info.crc32c is not None else info._replace(crc32c=0), None)

    def datafile(self, path: str) -> Datafile:
        entry = self.keeper.index.entry(path)
        assert isinstance(entry, Datafile), entry
        return entry

    def labels(self, path: str) -> set[str]:
        return set(self.datafile(path).labels)

    def write(self, path: str, data: bytes) -> None:
        file = self.writer.create(path, os.O_WRONLY, 0o644, ME)
        file.write(0, data)
        file.flush()
        file.close()

    def stored(self) -> dict[str, bytes]:
        """What is in the bucket."""
        found = {}
        for info in self.store.scan():
            assert isinstance(info, ObjectInfo)
            is_file = info.kind is Kind.FILE
            found[info.path if is_file else f"{info.path}/"] = self.store.read_small(info.path, 100) if is_file else b""
        return found

    def truth(self) -> None:
        """Assert that the index shows what a fresh reading shows."""
        fresh = Keeper(self.store, Report(), Index(), recursive=True, metadata_ttl=60)
        fresh.load()
        assert _shown(self.keeper.index) == _shown(fresh.index)
        fresh.close()

    def end(self) -> None:
        self.writer.close()
        self.keeper.close()
        self.session.close()


def _shown(index: Index) -> dict[str, Any]:
    found: dict[str, Any] = {}
    pending = [index.root]
    while pending:
        for entry in pending.pop().children.values():
            if isinstance(entry, Folder):
                pending.append(entry)
                found[entry.path] = None
            elif isinstance(entry, Datafile):
                found[entry.path] = (entry.info.version, entry.metadata, entry.crc32c)
            else:
                found[entry.info.path] = entry.info.version
    return found


@pytest.fixture(params=["plain", "strict"])
def world(request: pytest.FixtureRequest, bucket: Bucket, tmp_path: Path) -> Iterator[World]:
    if request.param == "plain":
        place, strict = Prefix(bucket), None
    else:
        strict = StrictGcs(bucket.environment)
        strict.__enter__()
        place = Prefix(strict.bucket(bucket.name))
    for path, data in (("a.csv", b"alpha"), ("b.csv", b"beta"), ("dir/one", b"1"), ("dir/sub/two", b"2")):
        place.put(path, data)
    world = World(place, tmp_path / "writing")
    yield world
    world.end()
    place.store.close()
    if strict is not None:
        strict.__exit__(None, None, None)


def labelled(*labels: str) -> MetadataChange:
    return MetadataChange(labels_added=frozenset(labels))


def test_metadata_are_stored_changed_and_removed(world: World) -> None:
    world.writer.describe("a.csv", labelled("x", "y"))
    world.writer.describe("a.csv", MetadataChange(labels_removed=frozenset({"x"}), tags_set={"k": {"n": 1}}))
    world.writer.set_mode("a.csv", 0o600)
    world.writer.set_times("a.csv", (None, 1_000_000_000))
    datafile = world.datafile("a.csv")
    assert (set(datafile.labels), datafile.tags, datafile.info.mtime_ns) == ({"y"}, {"k": {"n": 1}}, 1_000_000_000)
    world.truth()
    with pytest.raises(TooBig):
        world.writer.describe("a.csv", MetadataChange(tags_set={"k": "x" * 9000}))
    world.writer.remove_document("")
    custom = world.store.stat("a.csv").custom_metadata or {}
    assert set(custom) == {"goog-reserved-posix-mode", "goog-reserved-file-mtime"}
    world.truth()


def test_the_dataset_s_record_and_documents(world: World) -> None:
    world.writer.describe_dataset(MetadataChange(fields={"name": "trial"}, labels_added=frozenset({"a"})))
    world.writer.describe_dataset(MetadataChange(tags_set={"k": 1}))
    record = json.loads(world.store.read_small(".octue", 1000))["dataset"]
    assert (record["name"], record["labels"], record["tags"]) == ("trial", ["a"], {"k": 1})
    world.writer.store_document(
        "dir", json.dumps({"datafiles": {"one": {"labels": ["o"]}, "new": {"labels": ["n"]}}}).encode()
    )
    world.write("dir/new", b"new")
    assert (world.labels("dir/one"), world.labels("dir/new")) == ({"o"}, {"n"})
    world.truth()


def test_folders_and_names(world: World) -> None:
    world.writer.make_folder("new", 0o700, ME)
    world.writer.set_times("new", (None, 5_000_000_000))
    folder = world.keeper.index.folder("new")
    assert folder is not None
    assert folder.info is not None
    present = world.store.stat("new")
    assert (folder.info.version, folder.info.mode, folder.info.mtime_ns) == (
        present.version,
        present.mode,
        5_000_000_000,
    )
    assert folder.info.inode == present.inode
    world.truth()
    world.write("new/x", b"x")
    with pytest.raises(NotEmpty):
        world.writer.remove_folder("new")
    world.writer.remove("new/x")
    world.writer.remove_folder("new")
    world.writer.remove("dir/sub/two")
    assert world.keeper.index.folder("dir/sub") is not None
    world.truth()


def test_files_are_renamed(world: World) -> None:
    world.writer.describe("a.csv", labelled("x"))
    world.writer.rename("a.csv", "dir/c.csv", change=labelled("y"))
    world.writer.rename("b.csv", "dir/c.csv")
    assert world.labels("dir/c.csv") == {"x", "y"}
    assert world.stored() == {"dir/c.csv": b"beta", "dir/one": b"1", "dir/sub/two": b"2"}
    world.truth()


def test_folders_are_renamed(world: World) -> None:
    world.writer.describe("dir/one", labelled("x"))
    world.writer.set_mode("dir/sub", 0o700)
    world.writer.rename("dir", "to")
    assert world.stored() == {"a.csv": b"alpha", "b.csv": b"beta", "to/one": b"1", "to/sub/": b"", "to/sub/two": b"2"}
    assert world.labels("to/one") == {"x"}
    folder = world.keeper.index.folder("to/sub")
    assert folder is not None
    assert folder.info is not None
    assert folder.info.mode & 0o777 == 0o700
    world.truth()


@pytest.mark.parametrize("world", ["strict"], indirect=True)  # the plain server forgets preconditions
def test_what_another_stored_is_never_removed_nor_replaced(world: World, bucket: Bucket) -> None:
    other = Prefix(bucket)
    other.put("a.csv", b"newer")
    other.put("unseen", b"theirs")
    with pytest.raises(Conflict):
        world.writer.remove("a.csv")
    with pytest.raises(Conflict):
        world.writer.rename("b.csv", "unseen")
    other.put("b.csv", b"newer too")
    with pytest.raises(Conflict):
        world.writer.describe("b.csv", labelled("x"))
    other.store.close()
    assert world.stored().items() >= {("a.csv", b"newer"), ("b.csv", b"newer too"), ("unseen", b"theirs")}
    world.truth()
