"""What stands for a dataset's own record: what is stored, what a manifest gives, and which files it names."""

import json
from pathlib import Path

import pytest
from unit.memory_store import MemoryStore

from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.metadata import DatasetMetadata
from octuefs.model.paths import LocalLocation
from octuefs.report import Report
from octuefs.stores.base import Store
from octuefs.stores.local import LocalStore

GIVEN = DatasetMetadata(
    id="7cbf7b6a-4b6c-4a86-b5e5-6f3d3fbd7a6d", name="given", tags={"given": 1}, labels=frozenset({"given"})
)


def loaded(store: Store, **options: DatasetMetadata) -> Keeper:
    keeper = Keeper(store, Report(), Index(), recursive=True, metadata_ttl=60, **options)  # type: ignore[arg-type]
    keeper.load()
    keeper.close()
    return keeper


def folder(path: Path, record: object = None) -> LocalStore:
    for name in ("a", "sub/b"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    if record is not None:
        (path / ".octue").write_text(json.dumps({"dataset": record}))
    return LocalStore(LocalLocation(str(path)))


def members(keeper: Keeper) -> list[str]:
    return sorted(it.path for it in keeper.index.members("", ()))


def test_given_metadata_count_where_nothing_is_stored(tmp_path: Path) -> None:
    assert loaded(folder(tmp_path), given=GIVEN).stored.dataset == GIVEN


def test_of_a_stored_record_only_what_it_lacks_is_given(tmp_path: Path) -> None:
    stored = loaded(folder(tmp_path, {"name": "stored", "tags": {}, "labels": ["x"]}), given=GIVEN).stored.dataset
    assert stored is not None
    assert (stored.id, stored.name, dict(stored.tags), stored.labels) == (GIVEN.id, "stored", {}, {"x"})


def test_a_fixed_record_stands_whatever_is_stored_and_its_files_are_all_that_there_are(tmp_path: Path) -> None:
    store = folder(tmp_path, {"name": "stored", "files": ["a"]})
    keeper = loaded(store, fixed=DatasetMetadata(name="fixed", files=(f"{tmp_path}/sub/b",)))
    assert keeper.stored.dataset == DatasetMetadata(name="fixed")
    assert members(keeper) == ["sub/b"]
    assert keeper.stored.outside == ()


def test_files_outside_are_told_by_their_whole_paths_for_who_opens_them(tmp_path: Path) -> None:
    files = ["a", f"{tmp_path}/d/sub/b", "../beside", "/elsewhere/c", "gs://bucket/d"]
    stored = loaded(folder(tmp_path / "d", {"files": files})).stored
    assert stored.outside == (f"{tmp_path}/beside", "/elsewhere/c", "gs://bucket/d")
    assert stored.named_paths == (f"{tmp_path}/d/a", f"{tmp_path}/d/sub/b", *stored.outside)


def test_a_bucket_s_record_names_files_by_their_gs_paths() -> None:
    store = MemoryStore()
    store.put("a", b"1")
    store.put("b", b"1")
    store.put(".octue", json.dumps({"dataset": {"files": ["gs://bucket/data/a", "gs://other/x"]}}).encode())
    keeper = loaded(store)
    assert members(keeper) == ["a"]
    assert keeper.stored.outside == ("gs://other/x",)
    assert keeper.stored.named_paths == ("gs://bucket/data/a", "gs://other/x")


@pytest.mark.expected_logs("names a file outside")
def test_files_outside_that_come_up_later_are_reported_without_what_authorises(tmp_path: Path) -> None:
    store = folder(tmp_path, {"files": ["a"]})
    keeper = Keeper(store, Report(), Index(), recursive=True, metadata_ttl=60)
    keeper.load()
    folder(tmp_path, {"files": ["a", "https://host/x?Signature=secret"]})
    keeper.refresh().result()
    assert "https://host/x" in keeper.report.text()
    assert "secret" not in keeper.report.text()
    folder(tmp_path, {"files": ["a"]})
    keeper.refresh().result()
    assert keeper.report.text() == ""
    keeper.close()
