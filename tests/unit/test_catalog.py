"""The catalog of a cache folder."""

import os
import sqlite3
from pathlib import Path

import pytest
from unit.object_world import in_thread

from octuefs.content import catalog
from octuefs.content.catalog import Catalog, Row, boot_id, is_unusable, remove

A, B, C = "a" * 64, "b" * 64, "c" * 64


def some(count: int, *, pinned: bool = False) -> Row:
    return Row(count, pinned, False, None, None, None, None)


def test_what_is_put_is_there_for_whoever_opens_it_next(tmp_path: Path) -> None:
    first = Catalog(tmp_path / "catalog")
    row = Row(5, False, True, 0xFFFFFFFF, boot_id(), 2**62, 2**62)
    assert first.put({A: row, B: some(7)}) == (2, 12)
    first.close()
    second = Catalog(tmp_path / "catalog")
    assert second.row(A) == row
    assert second.row(C) is None
    assert second.totals() == (12, 2, 0)
    assert second.keys() == {A, B}
    assert os.stat(tmp_path / "catalog").st_mode & 0o077 == 0
    second.close()


def test_what_takes_the_place_of_a_row_does_not_count_twice(tmp_path: Path) -> None:
    it = Catalog(tmp_path / "catalog")
    it.put({A: some(5)})
    assert it.put({A: some(9), B: some(1)}) == (1, 5)
    assert it.totals() == (10, 2, 0)
    assert it.forget([A, C]) == (1, 9)
    it.close()


def test_a_pinned_row_stays_pinned_whatever_is_put(tmp_path: Path) -> None:
    it = Catalog(tmp_path / "catalog")
    it.put({A: some(5), B: some(6)})
    it.pin([A, C], pinned=True)
    it.put({A: some(8)})
    assert it.totals() == (14, 2, 8)
    assert it.oldest(100, 10) == [(B, 6)]
    it.pin([A], pinned=False)
    assert {key for key, _ in it.oldest(100, 10)} == {A, B}
    it.close()


def test_the_oldest_come_in_order_of_use_and_no_more_than_needed(tmp_path: Path) -> None:
    it = Catalog(tmp_path / "catalog")
    it.put({A: some(5), B: some(5), C: some(5)})
    it.touch({A: 3.0, B: 1.0, C: 2.0, "d" * 64: 4.0})
    assert it.oldest(100, 10) == [(B, 5), (C, 5), (A, 5)]
    assert it.oldest(6, 10) == [(B, 5), (C, 5)]
    assert it.oldest(100, 1) == [(B, 5)]
    it.close()


def test_two_catalogs_of_one_file_see_each_others_rows(tmp_path: Path) -> None:
    one, other = Catalog(tmp_path / "catalog"), Catalog(tmp_path / "catalog")
    one.put({A: some(5)})
    assert other.row(A) == some(5)
    assert other.put({A: some(4)}) == (0, -1)
    assert one.forget([A]) == (1, 4)
    one.close()
    other.close()


def test_who_asks_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    it = Catalog(tmp_path / "catalog")
    it.put({A: some(5)})
    other = sqlite3.connect(tmp_path / "catalog", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writes = in_thread(lambda: it.put({B: some(6)}))
    while not it._lock.locked():
        assert not writes.is_done
    assert it.row(A) == some(5)
    assert not writes.is_done
    other.execute("COMMIT")
    assert writes.result() == (1, 6)
    assert it.row(B) == some(6)
    other.close()
    it.close()


def test_a_file_is_as_it_was_proven_only_if_nothing_of_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    facts = os.stat(file)
    row = Row(5, False, True, 1, boot_id(), facts.st_ino, facts.st_mtime_ns)
    assert row.proves(facts)
    assert not Row(5, False, False, 1, boot_id(), facts.st_ino, facts.st_mtime_ns).proves(facts)
    os.utime(file, ns=(0, facts.st_mtime_ns + 1))
    assert not row.proves(os.stat(file))
    os.utime(file, ns=(0, facts.st_mtime_ns))
    assert row.proves(os.stat(file))
    monkeypatch.setattr(catalog, "boot_id", lambda: "another one")
    assert not row.proves(facts)


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"\0" * 5000])
def test_a_damaged_file_is_told_from_one_that_cannot_be_used_now(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog"
    path.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        Catalog(path)
    assert is_unusable(caught.value)
    remove(path)
    assert os.listdir(tmp_path) == []
    Catalog(path).close()


def test_rows_that_are_damaged_show_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    it = Catalog(path)
    it.put({f"{number:064x}": some(number) for number in range(500)})
    it.close()
    assert not Path(f"{path}-wal").exists()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * (size - 3 * 4096))
    with pytest.raises(sqlite3.DatabaseError) as caught:
        Catalog(path)
    assert is_unusable(caught.value)


def test_a_catalog_with_other_columns_is_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE objects (key TEXT PRIMARY KEY, pinned, used)")
    connection.close()
    with pytest.raises(sqlite3.Error) as caught:
        Catalog(path)
    assert is_unusable(caught.value)
