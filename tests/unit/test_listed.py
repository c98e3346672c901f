"""Datasets that list their files: on this disk, in buckets, behind links, with the metadata that each has."""

import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from unit.memory_store import MemoryStore

from octuefs.content.hashing import HashCache, Hasher
from octuefs.dataset import Dataset
from octuefs.errors import Conflict, IsADirectory, NotFound, OctuefsError, StoreUnavailable
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.hashes import encode_crc32c, extend_crc32c
from octuefs.model.listed_files import FileEntry, place_files
from octuefs.model.metadata import DatasetMetadata
from octuefs.model.paths import CloudLocation, LocalLocation, Location, derived_id
from octuefs.report import Report
from octuefs.stores.base import ObjectInfo, Skipped, Store
from octuefs.stores.listed import ListedStore
from octuefs.stores.local import LocalStore
from octuefs.stores.signed_http import SignedLinks
from support.signed import SignedServer

DATA = b"123456789"
OTHER = bytes(range(256))


class World:
    """A folder, a bucket and a server, with a dataset that lists files of all three."""

    def __init__(self, tmp_path: Path, server: SignedServer) -> None:
        self.folder = tmp_path / "here"
        self.elsewhere = tmp_path / "elsewhere"
        self.folder.mkdir()
        self.elsewhere.mkdir()
        self.location: Location = LocalLocation(str(self.folder))
        self.bucket = MemoryStore(prefix="")
        self.server = server
        self.avoid: str | None = None
        self.opened: list[Location] = []

    def store(self, *files: str | FileEntry) -> ListedStore:
        entries = [FileEntry(file) if isinstance(file, str) else file for file in files]
        return ListedStore(
            self.location,
            place_files(str(self.location), entries),
            open_folder=self._open_folder,
            open_bucket=self._open_bucket,
            open_links=SignedLinks,
            avoid=self.avoid,
        )

    def _open_folder(self, location: LocalLocation) -> Store:
        self.opened.append(location)
        return LocalStore(location, self.avoid)

    def _open_bucket(self, location: CloudLocation) -> Store:
        self.opened.append(location)
        return self.bucket

    def file(self, name: str, data: bytes = DATA) -> str:
        path = self.folder.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    def records(self, folder: Path, **records: object) -> None:
        (folder / ".octue").write_text(json.dumps({"datafiles": records}))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    server = SignedServer()
    yield World(tmp_path, server)
    server.close()


def scanned(store: Store) -> dict[str, ObjectInfo]:
    return {item.path: item for item in store.scan() if isinstance(item, ObjectInfo)}


def skipped(store: Store) -> dict[str, str]:
    return {item.name: item.reason for item in store.scan() if isinstance(item, Skipped)}


def content(store: Store, path: str) -> bytes:
    source = store.open(store.stat(path))
    try:
        return source.read(0, 9999)
    finally:
        source.close()


# --- where files are


def test_files_of_a_disk_a_bucket_and_links_make_one_dataset(world: World) -> None:
    world.bucket.put("deep/b.csv", OTHER)
    world.server.put("bucket/x/c.csv", b"linked")
    url = world.server.url("bucket/x/c.csv")
    store = world.store(world.file("here/sub/a.csv"), world.file("elsewhere/a.csv"), "gs://bucket/deep/b.csv", url)
    found = scanned(store)
    assert {path: info.origin for path, info in found.items()} == {
        "sub/a.csv": f"{world.folder}/sub/a.csv",
        "a.csv": f"{world.elsewhere}/a.csv",
        "b.csv": "gs://bucket/deep/b.csv",
        "c.csv": "gs://bucket/x/c.csv",
    }
    assert [content(store, path) for path in ("sub/a.csv", "a.csv", "b.csv", "c.csv")] == [DATA, DATA, OTHER, b"linked"]
    assert len({info.inode for info in found.values()}) == 4
    store.close()
    assert content(store, "b.csv") == OTHER


def test_only_what_is_listed_is_opened(world: World) -> None:
    store = world.store(world.file("here/a"))
    assert list(scanned(store)) == ["a"]
    assert world.opened == [LocalLocation("/")]


def test_a_link_is_followed_to_the_file_that_whoever_listed_it_named(world: World) -> None:
    target = world.file("elsewhere/real/target.csv")
    link = world.folder / "link.csv"
    link.symlink_to(target)
    (world.folder / "way").symlink_to(world.elsewhere)
    store = world.store(str(link), str(world.folder / "way/real/target.csv"))
    found = scanned(store)
    assert sorted(found) == ["link.csv", "way/real/target.csv"]
    assert content(store, "link.csv") == DATA
    assert found["link.csv"].origin == str(link)


def test_what_cannot_be_a_datafile_is_skipped_with_the_reason(world: World) -> None:
    world.bucket.put("folder/x", b"1")
    os.mkfifo(world.folder / "fifo")
    (world.folder / "circle").symlink_to("circle")
    good = world.file("here/good")
    names = ("gone", "fifo", "circle", "good/below")
    store = world.store(good, *(f"{world.folder}/{name}" for name in names), str(world.elsewhere), "gs://bucket/folder")
    assert list(scanned(store)) == ["good"]
    reasons = skipped(store)
    assert sorted(reasons) == sorted([*names, "elsewhere", "folder"])
    assert "no regular file" in reasons["fifo"]
    assert "a folder" in reasons["elsewhere"]
    assert all(str(world.folder.parent) in reason or "gs://bucket" in reason for reason in reasons.values())


def test_our_own_mount_is_never_looked_into(world: World) -> None:
    world.file("here/mount/inside")
    world.avoid = str(world.folder / "mount")
    (world.folder / "link").symlink_to(world.folder / "mount" / "inside")
    store = world.store(world.file("here/good"), f"{world.folder}/mount/inside", f"{world.folder}/link")
    assert list(scanned(store)) == ["good"]
    assert all("in this very mount" in reason for reason in skipped(store).values())


def test_check_is_content_where_one_of_the_files_is_there(world: World) -> None:
    world.store(f"{world.folder}/gone", world.file("here/a")).check()
    world.store().check()
    with pytest.raises(NotFound, match=r"gone.*none of the files that the dataset lists is there"):
        world.store(f"{world.folder}/gone").check()


def test_a_bucket_that_is_unavailable_makes_no_file_vanish(world: World) -> None:
    world.bucket.put("a", DATA)
    store = world.store(world.file("here/b"), "gs://bucket/a")
    assert sorted(scanned(store)) == ["a", "b"]
    world.bucket.fail("stat", StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        list(store.scan())


def test_many_objects_of_one_folder_are_listed_at_once(world: World) -> None:
    for number in range(100):
        world.bucket.put(f"many/{number}", DATA, {"octue__id": json.dumps(f"{number:032x}")})
    paths = [f"gs://bucket/many/{number}" for number in range(100)]
    store = world.store(*paths, "gs://bucket/many/gone")
    single = {path: world.store(f"gs://bucket/many/{path}").stat(path) for path in ("7", "99")}
    world.bucket.requests.clear()
    found = scanned(store)
    assert len(found) == 100
    assert len(world.bucket.requests) < 10
    assert {path: found[path] for path in single} == single
    assert list(skipped(store)) == ["gone"]


# --- metadata


def test_stored_metadata_count_and_the_list_s_only_for_fields_that_are_not_stored(world: World) -> None:
    given = {"id": "7cbf7b6a-4b6c-4a86-b5e5-6f3d3fbd7a6d", "labels": ["given"], "tags": {"given": 1}, "timestamp": 5}
    path = world.file("here/a")
    world.records(world.folder, a={"labels": [], "tags": {"stored": {"_type": "set", "items": [1]}}, "odd": [1]})
    world.bucket.put("b", DATA, {"octue__tags": '{"stored": 2}', "labels": '["bare"]', "foreign": "x"})
    files = [FileEntry(path, given), FileEntry("gs://bucket/b", given), FileEntry(world.file("elsewhere/c"), given)]
    keeper = loaded(world.store(*files))
    found = {it.path: it for it in keeper.index.members("", ())}
    assert found["a"].tags == {"stored": {1}}
    assert found["b"].tags == {"stored": 2}
    assert found["c"].tags == {"given": 1}
    assert [sorted(found[path].labels) for path in "abc"] == [[], ["bare"], ["given"]]
    assert {found[path].metadata.id for path in "abc"} == {given["id"]}
    assert all(isinstance(found[path].timestamp, datetime) for path in "abc")
    keeper.close()


def test_metadata_that_change_underneath_are_seen_and_the_hash_is_kept(world: World) -> None:
    keeper = loaded(world.store(world.file("here/a"), world.file("here/b")))
    hasher = Hasher(keeper.store, keeper.index.publish_hash)
    dataset = Dataset(keeper, hasher)
    assert dataset.set_hash("", ()) != ""
    assert hasher.computed == 2
    world.records(world.folder, a={"labels": ["one"]})
    keeper.refresh().result()
    (found,) = [it for it in keeper.index.members("", ()) if it.path == "a"]
    assert found.labels == {"one"}
    dataset.set_hash("", ())
    assert hasher.computed == 2
    world.file("here/a", OTHER)
    keeper.refresh().result()
    assert dataset.hash_of(keeper.index.entry("a")) == encode_crc32c(extend_crc32c(0, OTHER))  # type: ignore[arg-type]
    assert hasher.computed == 3
    hasher.close()
    keeper.close()


def test_hashes_of_listed_files_are_remembered_over_mounts_whoever_lists_them(world: World, tmp_path: Path) -> None:
    path = world.file("here/a")
    os.utime(path, ns=(1_000_000_001, 1_000_000_001))
    for expected in (0, 1):
        keeper = loaded(world.store(FileEntry(path, {"labels": [f"l{expected}"]})))
        cache = HashCache(tmp_path / "hashes")
        hasher = Hasher(keeper.store, keeper.index.publish_hash, cache)
        time.sleep(0.15)  # until the file's change is old enough to be told from a later one
        hasher.ensure(keeper.index.members("", ()))
        assert hasher.remembered == expected
        hasher.close()
        cache.close()
        keeper.close()


@pytest.mark.expected_logs("counts as no metadata")
@pytest.mark.parametrize("text", ["[]", "no json", '{"datafiles": 5}', "[" * 9999, '{"datafiles": {"a": 5}}'])
def test_a_malformed_metadata_file_counts_as_none(world: World, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = world.file("here/a")
    (world.folder / ".octue").write_text(text)
    with caplog.at_level(logging.WARNING):
        info = world.store(FileEntry(path, {"labels": ["given"]})).stat("a")
    assert info.custom_metadata == {"octue__labels": '["given"]'}


def test_a_datafile_says_where_it_really_is(world: World) -> None:
    world.bucket.put("b", DATA)
    local = world.file("elsewhere/a")
    keeper = loaded(world.store(local, "gs://bucket/b"))
    found = {it.path: it for it in keeper.index.members("", ())}
    a, b = found["a"], found["b"]
    assert (a.local_path, a.cloud_path, a.exists_in_cloud, a.exists_locally) == (local, None, None, True)
    assert (b.local_path, b.cloud_path, b.exists_in_cloud, b.exists_locally) == (None, "gs://bucket/b", True, False)
    assert (keeper.index.id_of(a), keeper.index.id_of(b)) == (derived_id(local), derived_id("gs://bucket/b"))
    assert (a.crc32c, b.crc32c) == (None, extend_crc32c(0, DATA))
    keeper.close()


def test_the_record_of_the_list_is_the_dataset_s_own(world: World) -> None:
    world.records(world.folder)
    record = DatasetMetadata(name="listed", labels=frozenset({"x"}))
    keeper = loaded(world.store(world.file("here/a")), fixed=record)
    dataset = Dataset(keeper, Hasher(keeper.store, keeper.index.publish_hash))
    assert (dataset.name, dataset.metadata and dataset.metadata.labels) == ("listed", {"x"})
    assert dataset.stores_metadata_in("")
    dataset.hasher.close()
    keeper.close()


# --- changes underneath


@pytest.mark.expected_logs("is skipped")
def test_a_file_that_goes_away_and_comes_back_does_so_in_the_dataset(world: World) -> None:
    path = world.file("here/a")
    keeper = loaded(world.store(path, world.file("here/b")))
    os.remove(path)
    keeper.refresh().result()
    assert [it.path for it in keeper.index.members("", ())] == ["b"]
    assert "a" in keeper.report.skipped
    world.file("here/a", OTHER)
    keeper.refresh().result()
    assert {it.path: it.size for it in keeper.index.members("", ())} == {"a": 256, "b": 9}
    assert keeper.report.skipped == {}
    keeper.close()


def test_an_open_file_tells_its_version_as_it_stands(world: World) -> None:
    path = world.file("here/a")
    store = world.store(path)
    info = store.stat("a")
    source = store.open(info)
    assert source.version() == info.version
    assert source.info() == info
    with open(path, "ab") as file:
        file.write(b"more")
    assert source.version() != info.version
    assert source.version() == store.stat("a").version
    source.close()


def test_an_object_that_is_replaced_is_a_conflict(world: World) -> None:
    world.bucket.put("a", DATA)
    store = world.store("gs://bucket/a")
    source = store.open(store.stat("a"))
    world.bucket.put("a", OTHER)
    with pytest.raises(Conflict):
        source.read(0, 5)


def test_a_folder_cannot_be_opened(world: World) -> None:
    store = world.store(world.file("here/d/a"))
    with pytest.raises(IsADirectory):
        store.open(store.stat("d"))


def test_a_file_of_the_dataset_s_metadata_is_no_datafile_but_others_that_end_so_are(world: World) -> None:
    world.bucket.put("x.octue", DATA)
    world.bucket.put("y/.octue", b"{}")
    keeper = loaded(world.store("gs://bucket/x.octue", "gs://bucket/y/.octue"))
    assert [it.path for it in keeper.index.members("", ())] == ["x.octue"]
    keeper.close()


def loaded(store: ListedStore, fixed: DatasetMetadata | None = None) -> Keeper:
    keeper = Keeper(store, Report(), Index(), recursive=True, metadata_ttl=60, fixed=fixed)
    keeper.load()
    return keeper


def test_no_failure_of_a_listed_link_shows_what_authorises(world: World) -> None:
    url = world.server.url("bucket/gone")
    store = world.store(world.file("here/a"), url)
    said = [repr(item) for item in store.scan()] + [repr(store._known(anew=False))]
    for attempt in (lambda: store.stat("gone"), lambda: world.store(url).check()):
        with pytest.raises(OctuefsError) as raised:
            attempt()
        said.append(repr(raised.value))
    assert not [text for text in said if "X-Goog" in text]
