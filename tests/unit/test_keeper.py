"""The keeper against stores that fail or change at the worst moment: what is known is never lost for that."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.memory_store import MemoryStore

from octuefs.content.hashing import Hasher
from octuefs.dataset import Dataset
from octuefs.entries import Other
from octuefs.errors import OctuefsError, StoreUnavailable
from octuefs.index import Index
from octuefs.keeper import Keeper, expire_all
from octuefs.model.listed_files import FileEntry, place_files
from octuefs.model.paths import CloudLocation, LocalLocation
from octuefs.report import Report
from octuefs.stores.base import LinkTarget
from octuefs.stores.listed import ListedStore
from octuefs.stores.local import LocalStore
from octuefs.stores.signed_http import SignedLinks

RECORD = '{"datafiles": {"a": {"labels": ["kept"]}}, "dataset": {"name": "The farm"}}'


class Fragile(LocalStore):
    """A folder that can be told to fail."""

    fails_to_read = False
    loses: str | None = None

    def read_small(self, path: str, limit: int) -> bytes:
        if self.fails_to_read:
            raise StoreUnavailable(f"{path}: not now")
        return super().read_small(path, limit)

    def follow_link(self, path: str) -> LinkTarget:
        if path == self.loses:
            (Path(str(self.location)) / path).unlink()
        return super().follow_link(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / ".octue").write_text(RECORD)
    return folder


@pytest.fixture
def dataset(folder: Path) -> Iterator[Dataset]:
    store = Fragile(LocalLocation(str(folder)))
    index = Index()
    keeper = Keeper(store, Report(), index, recursive=True, metadata_ttl=60)
    hasher = Hasher(store, index.publish_hash)
    dataset = Dataset(keeper, hasher)
    keeper.load()
    yield dataset
    keeper.close()
    hasher.close()
    store.close()


def labels(dataset: Dataset) -> dict[str, list[str]]:
    return {it.path: sorted(it.labels) for it in dataset.index.members("", ())}


@pytest.mark.expected_logs("not now")
def test_metadata_that_cannot_be_read_for_a_moment_is_kept_and_read_again(folder: Path, dataset: Dataset) -> None:
    store = dataset.store
    assert isinstance(store, Fragile)
    (folder / ".octue").write_text(RECORD.replace("kept", "new").replace("farm", "mast"))
    store.fails_to_read = True
    dataset.keeper.refresh().result()
    assert (labels(dataset), dataset.name) == ({"a": ["kept"]}, "The farm")
    assert isinstance(dataset.index.entry(".octue"), Other)
    store.fails_to_read = False
    dataset.keeper.refresh().result()
    assert (labels(dataset), dataset.name) == ({"a": ["new"]}, "The mast")


def test_a_link_that_vanishes_while_the_folder_is_read_does_not_stop_the_reading(
    folder: Path, dataset: Dataset
) -> None:
    store = dataset.store
    assert isinstance(store, Fragile)
    (folder / "link").symlink_to("a")
    (folder / "z").write_text("2")
    store.loses = "link"
    dataset.keeper.refresh().result()
    assert sorted(labels(dataset)) == ["a", "z"]


def test_a_hash_is_kept_when_only_the_metadata_change(folder: Path, dataset: Dataset) -> None:
    before = dataset.set_hash("", ())
    (folder / ".octue").write_text(RECORD.replace("kept", "other"))
    dataset.keeper.changed([".octue"]).result()
    assert labels(dataset) == {"a": ["other"]}
    assert dataset.set_hash("", ()) == before
    assert dataset.hasher.computed == 1


def test_what_changes_while_a_hash_is_computed_is_never_remembered(folder: Path, dataset: Dataset) -> None:
    (folder / "b").write_text("2")
    dataset.keeper.refresh().result()
    ensure = dataset.hasher.ensure
    removed = False

    def ensure_and_change(*arguments: object) -> list[OctuefsError]:
        nonlocal removed
        failures = ensure(*arguments)  # type: ignore[arg-type]
        if not removed:
            removed = True
            (folder / "b").unlink()
            dataset.keeper.changed(["b"]).result()
        return failures

    dataset.hasher.ensure = ensure_and_change  # type: ignore[method-assign,assignment]
    first = dataset.set_hash("", ())
    assert dataset.set_hash("", ()) == first
    dataset.hasher.ensure = ensure  # type: ignore[method-assign]
    fresh = Index()
    keeper = Keeper(LocalStore(LocalLocation(str(folder))), Report(), fresh, recursive=True, metadata_ttl=60)
    keeper.load()
    assert Dataset(keeper, Hasher(keeper.store, fresh.publish_hash)).set_hash("", ()) == first
    keeper.close()


@pytest.mark.expected_logs("was replaced by another folder")
def test_a_folder_that_takes_the_place_of_the_source_is_shown_after_a_refresh(folder: Path, dataset: Dataset) -> None:
    told = []
    dataset.keeper.replaced = lambda: told.append(True)
    other = folder.parent / "other"
    other.mkdir()
    (other / "new").write_text("3")
    os.rename(folder, folder.parent / "old")
    os.rename(other, folder)
    dataset.keeper.refresh().result()
    assert list(labels(dataset)) == ["new"]
    assert told == [True]


@pytest.mark.expected_logs("malformed")
def test_the_problems_of_a_folder_go_with_it(folder: Path, dataset: Dataset) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/.octue").write_text("not JSON")
    (folder / "sub/b").write_text("2")
    dataset.keeper.refresh().result()
    assert "sub/.octue" in dataset.keeper.report.text()
    os.rename(folder / "sub", folder.parent / "away")
    dataset.keeper.refresh().result()
    assert dataset.keeper.report.text() == ""


def test_a_folder_that_comes_back_empty_under_its_name_is_read_again(folder: Path, dataset: Dataset) -> None:
    (folder / "d/sub").mkdir(parents=True)
    (folder / "d/a").write_text("1")
    (folder / "d/sub/b").write_text("2")
    dataset.keeper.refresh().result()
    os.rename(folder / "d", folder.parent / "away")
    (folder.parent / "away/a").unlink()
    (folder.parent / "away/sub/b").unlink()
    os.rename(folder.parent / "away", folder / "d")
    dataset.keeper.changed(["d"]).result()
    assert sorted(labels(dataset)) == ["a"]


def test_a_file_that_sorts_before_its_metadata_gets_them_when_both_change(folder: Path, dataset: Dataset) -> None:
    (folder / "#x").write_text("1")
    dataset.keeper.refresh().result()
    (folder / "#x").write_text("12")
    (folder / ".octue").write_text(RECORD.replace('"a"', '"#x"'))
    dataset.keeper.changed(["#x", ".octue"]).result()
    assert labels(dataset) == {"#x": ["kept"], "a": []}


def test_a_file_that_went_away_unnoticed_does_not_spoil_the_hash_of_the_others(folder: Path, dataset: Dataset) -> None:
    alone = dataset.set_hash("", ())
    (folder / "b").write_text("2")
    dataset.keeper.refresh().result()
    (folder / "b").unlink()
    assert dataset.set_hash("", ()) == alone


def test_a_hash_that_becomes_known_does_not_forget_the_views(folder: Path, dataset: Dataset) -> None:
    children = dataset.index.subset_children("", (), "")
    dataset.hash_of(dataset.index.members("", ())[0])
    assert dataset.index.subset_children("", (), "") is children


# --- how long facts count ---------------------------------------------------------------------------------------------


def test_what_is_known_of_a_folder_counts_longer_where_its_changes_are_heard_of(dataset: Dataset) -> None:
    assert dataset.keeper.lasting() == 1.0
    dataset.keeper.heard = lambda: True
    assert dataset.keeper.lasting() == 120.0


@pytest.fixture
def cloud() -> Iterator[Callable[..., Keeper]]:
    made: list[Keeper] = []

    def make(ttl: float) -> Keeper:
        store = MemoryStore()
        store.put("a.csv", b"1")
        made.append(Keeper(store, Report(), Index(), recursive=True, metadata_ttl=ttl))
        made[-1].load()
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()


def test_what_is_known_of_a_bucket_counts_for_what_is_left_of_its_ttl(
    cloud: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = cloud(60.0)
    now = time.monotonic()
    assert 55 < keeper.lasting() <= 60
    monkeypatch.setattr("octuefs.keeper.time", SimpleNamespace(monotonic=lambda: now + 50))
    assert 5 < keeper.lasting() <= 10
    monkeypatch.setattr("octuefs.keeper.time", SimpleNamespace(monotonic=lambda: now + 90))
    assert keeper.lasting() == 0
    assert cloud(0.0).lasting() == 0


@pytest.mark.expected_logs("not now")
def test_old_facts_of_a_store_that_fails_count_for_a_moment(cloud: Callable[..., Keeper]) -> None:
    keeper = cloud(60.0)
    store: Any = keeper.store
    store.fail("scan", StoreUnavailable("not now"))
    assert keeper.refresh().exception() is not None
    assert keeper.lasting() == 1.0
    keeper.refresh().result()
    assert keeper.lasting() > 1.0


def test_files_of_a_disk_that_a_dataset_lists_count_for_a_moment(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1")
    store = ListedStore(
        LocalLocation(str(tmp_path)),
        place_files(str(tmp_path), [FileEntry(str(tmp_path / "f"))]),
        open_folder=LocalStore,
        open_bucket=lambda location: MemoryStore(),
        open_links=SignedLinks,
    )
    keeper = Keeper(store, Report(), Index(), recursive=True, metadata_ttl=60)
    keeper.load()
    assert keeper.lasting() == 1.0
    keeper.close()
    store.close()


def test_it_is_said_whether_what_is_not_known_is_found_at_once(
    folder: Path, dataset: Dataset, cloud: Callable[..., Keeper]
) -> None:
    assert dataset.keeper.finds_at_once("nothing")
    (folder / "new").write_text("1")
    assert not dataset.keeper.finds_at_once("new")  # the keeper is to take it in
    assert cloud(60.0).finds_at_once("nothing")  # for nothing is asked
    assert not cloud(0.0).finds_at_once("nothing")


# --- several datasets -------------------------------------------------------------------------------------------------


class Remote:
    """A store in the cloud that does something when it is read, and then fails."""

    in_cloud = True

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        self.location = CloudLocation("bucket", name)
        self._act = act

    def reopen_if_replaced(self) -> bool:
        self._act()
        raise StoreUnavailable("not now")


@pytest.fixture
def keepers_of() -> Iterator[Callable[[Callable[[], object]], list[Keeper]]]:
    made: list[Keeper] = []

    def make(act: Callable[[], object]) -> list[Keeper]:
        for name in ("a", "b", "c"):
            store: Any = Remote(name, act)
            made.append(Keeper(store, Report(), Index(), recursive=True, metadata_ttl=60))
        return made

    yield make
    for keeper in made:
        keeper.close()


@pytest.mark.expected_logs("not now")
def test_datasets_whose_time_has_come_are_read_at_the_same_time(keepers_of: Any) -> None:
    all_of_them = threading.Barrier(3)
    keepers = keepers_of(lambda: all_of_them.wait(20))
    expire_all(keepers)
    assert [keeper.report.failure_count for keeper in keepers] == [1, 1, 1]
    expire_all(keepers)  # a reading that failed is not tried again at once
    assert [keeper.report.failure_count for keeper in keepers] == [1, 1, 1]


@pytest.mark.expected_logs("not now|does not answer")
def test_nobody_waits_for_each_of_several_slow_datasets_in_turn(
    keepers_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octuefs.keeper._LONGEST_WAIT_SECONDS", 0.5)
    answers = threading.Event()
    keepers = keepers_of(lambda: answers.wait(20))
    started = time.monotonic()
    expire_all(keepers)
    assert time.monotonic() - started < 1.2
    assert all("does not answer" in keeper.report.text() for keeper in keepers)
    started = time.monotonic()
    expire_all(keepers)
    assert time.monotonic() - started < 0.3
    answers.set()
    for keeper in keepers:
        keeper.refresh(join=True).exception()
