"""What holds for every store: on a local folder, with and without openat2(2), on a bucket of a real server, and on
lists of the files of both."""

import os
import stat

import pytest
from contract.places import Place

from octuefs.errors import BadValue, IsADirectory, NameTooLong, NotALink, NotFound
from octuefs.stores.base import Kind, ObjectInfo, Skipped

NAMES = [
    "plain.csv",
    "with space",
    "new\nline",
    "naïve Ωμέγα 風.dat",
    "percent%2Fhash#question?.txt",
    "-rf *",
    ".hidden",
    "a" * 255,
    "é" * 127,
    "back\\slash",
    "quote'\"",
    "tab\tbell\x07",
]


def scanned(place: Place, folder: str = "", *, recursive: bool = True) -> list[ObjectInfo]:
    items = list(place.store.scan(folder, recursive=recursive))
    assert not [item for item in items if isinstance(item, Skipped)]
    return [item for item in items if isinstance(item, ObjectInfo)]


def paths(infos: list[ObjectInfo], kind: Kind = Kind.FILE) -> list[str]:
    return sorted(info.path for info in infos if info.kind is kind)


def content(place: Place, path: str) -> bytes:
    info = place.store.stat(path)
    source = place.store.open(info)
    try:
        return source.read(0, info.size)
    finally:
        source.close()


# --- scanning


def test_a_scan_yields_each_file_once_with_its_size(place: Place) -> None:
    place.put("b.csv", b"12345")
    place.put("a/c.csv", b"")
    place.put("a/b/d.csv", b"1")
    infos = scanned(place)
    assert {info.path: info.size for info in infos if info.kind is Kind.FILE} == {
        "b.csv": 5,
        "a/c.csv": 0,
        "a/b/d.csv": 1,
    }
    assert len({info.path for info in infos}) == len(infos)


def test_a_scan_of_an_empty_dataset_yields_nothing(place: Place) -> None:
    assert scanned(place) == []


def test_a_scan_yields_a_stored_folder_before_its_content(place_with_folders: Place) -> None:
    place_with_folders.put_folder("z")
    place_with_folders.put("z/a", b"1")
    place_with_folders.put_folder("z/y")
    place_with_folders.put("z/y/b", b"1")
    order = [info.path for info in scanned(place_with_folders)]
    assert order.index("z") < order.index("z/a")
    assert order.index("z") < order.index("z/y") < order.index("z/y/b")


def test_a_scan_yields_empty_folders(place_with_folders: Place) -> None:
    place_with_folders.put_folder("empty")
    place_with_folders.put("full/f", b"1")
    folders = paths(scanned(place_with_folders), Kind.FOLDER)
    assert "empty" in folders


def test_a_scan_is_in_the_order_of_the_names_bytes(place: Place) -> None:
    names = ["Z", "a", "B", "é", "z", "風", "10", "9"]
    for name in names:
        place.put(name, b"1")
    assert [info.path for info in scanned(place)] == sorted(names, key=os.fsencode)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_scanned_described_and_read(place: Place, name: str) -> None:
    place.put(f"folder/{name}", name.encode())
    assert paths(scanned(place)) == [f"folder/{name}"]
    assert place.store.stat(f"folder/{name}").size == len(name.encode())
    assert content(place, f"folder/{name}") == name.encode()


def test_files_at_any_depth_are_found(place: Place) -> None:
    deep = "/".join(str(level) for level in range(60)) + "/file"
    place.put(deep, b"deep")
    assert paths(scanned(place)) == [deep]
    assert content(place, deep) == b"deep"


def test_a_scan_of_one_folder_has_paths_from_the_dataset_s_root(place: Place) -> None:
    place.put("a/b/c", b"1")
    place.put("a/d", b"1")
    place.put("ab", b"1")
    assert paths(scanned(place, "a")) == ["a/b/c", "a/d"]


def test_a_scan_that_is_not_recursive_stays_in_its_folder(place: Place) -> None:
    place.put("a/b/c", b"1")
    place.put("a/d", b"1")
    place.put("e", b"1")
    top = scanned(place, recursive=False)
    assert (paths(top), paths(top, Kind.FOLDER)) == (["e"], ["a"])
    below = scanned(place, "a", recursive=False)
    assert (paths(below), paths(below, Kind.FOLDER)) == (["a/d"], ["a/b"])


def test_a_scan_of_a_missing_folder_is_not_found(place: Place) -> None:
    place.put("here", b"1")
    for folder in ("missing", "missing/below", "missing\udce9"):
        with pytest.raises(NotFound, match="missing"):
            list(place.store.scan(folder))


def test_what_was_removed_is_not_scanned_again(place: Place) -> None:
    place.put("a", b"1")
    place.put("b", b"1")
    assert paths(scanned(place)) == ["a", "b"]
    place.remove("a")
    assert paths(scanned(place)) == ["b"]


# --- describing


def test_stat_says_the_same_as_the_scan(place: Place) -> None:
    place.put_folder("d")
    place.put("d/f", b"123")
    for info in scanned(place):
        assert place.store.stat(info.path) == info


def test_stat_of_a_file_gives_its_facts(place: Place) -> None:
    place.put("f", b"123")
    info = place.store.stat("f")
    assert (info.path, info.kind, info.size, info.links) == ("f", Kind.FILE, 3, 1)
    assert stat.S_ISREG(info.mode)
    assert info.mode & 0o400
    assert (info.uid, info.gid) == (os.getuid(), os.getgid())
    assert info.mtime_ns > 1_500_000_000_000_000_000


def test_stat_of_a_folder_gives_a_folder(place: Place) -> None:
    place.put("d/e/f", b"123")
    for path in ("d", "d/e", ""):
        info = place.store.stat(path)
        assert (info.path, info.kind) == (path, Kind.FOLDER)
        assert stat.S_ISDIR(info.mode)


@pytest.mark.parametrize("path", ["missing", "d/missing", "missing/f", "d/" + "x" * 300, "caf\udce9"])
def test_stat_of_what_is_not_there_is_not_found(place: Place, path: str) -> None:
    place.put("d/f", b"123")
    with pytest.raises((NotFound, NameTooLong)):
        place.store.stat(path)


def test_a_name_that_begins_like_another_is_not_that_other(place: Place) -> None:
    place.put("data10/f", b"1")
    with pytest.raises(NotFound):
        place.store.stat("data1")


def test_each_file_has_an_inode_number_of_its_own_that_stays(place: Place) -> None:
    for name in ("a", "b", "c/d"):
        place.put(name, b"1")
    first = {info.path: info.inode for info in scanned(place)}
    assert len(set(first.values())) == len(first)
    assert {info.path: info.inode for info in scanned(place)} == first
    assert all(0 < inode < 1 << 64 for inode in first.values())


def test_a_version_stays_while_nothing_changes_and_changes_with_the_content(place: Place) -> None:
    place.put("f", b"123")
    before = place.store.stat("f").version
    assert place.store.stat("f").version == before
    place.put("f", b"1234")
    assert place.store.stat("f").version != before


def test_an_open_source_knows_its_version(place: Place) -> None:
    place.put("f", b"123")
    info = place.store.stat("f")
    source = place.store.open(info)
    assert source.version() == info.version
    source.close()


# --- reading


def test_reads_at_any_offset_give_what_stands_there(place: Place) -> None:
    data = bytes(range(256)) * 40
    place.put("f", data)
    source = place.store.open(place.store.stat("f"))
    for offset, size in [(0, 1), (1, 3), (255, 257), (0, len(data)), (4095, 4097), (len(data) - 1, 1)]:
        assert source.read(offset, size) == data[offset : offset + size]
    source.close()


def test_reads_over_the_end_are_short_and_beyond_it_empty(place: Place) -> None:
    place.put("f", b"0123456789")
    source = place.store.open(place.store.stat("f"))
    assert source.read(8, 100) == b"89"
    assert source.read(10, 1) == b""
    assert source.read(1 << 40, 10) == b""
    assert source.read(0, 0) == b""
    source.close()


def test_an_empty_file_reads_as_nothing(place: Place) -> None:
    place.put("f")
    source = place.store.open(place.store.stat("f"))
    assert source.read(0, 4096) == b""
    source.close()


def test_a_source_can_be_closed_twice(place: Place) -> None:
    place.put("f", b"1")
    source = place.store.open(place.store.stat("f"))
    source.close()
    source.close()


def test_a_folder_cannot_be_opened(place: Place) -> None:
    place.put("d/f", b"1")
    with pytest.raises(IsADirectory):
        place.store.open(place.store.stat("d"))


def test_a_small_file_is_read_whole_and_a_large_one_refused(place: Place) -> None:
    place.put("f", b"0123456789")
    place.put("empty")
    assert place.store.read_small("f", 10) == b"0123456789"
    assert place.store.read_small("empty", 10) == b""
    with pytest.raises(BadValue, match="9"):
        place.store.read_small("f", 9)
    with pytest.raises(NotFound):
        place.store.read_small("missing", 9)


def test_a_file_is_no_link(place: Place) -> None:
    place.put("f", b"1")
    with pytest.raises(NotALink):
        place.store.read_link("f")


# --- the place itself


def test_check_is_content_with_a_place_that_is_there(place: Place) -> None:
    place.store.check()
    place.put("f", b"1")
    place.store.check()


def test_check_says_in_words_that_a_place_is_missing(place: Place) -> None:
    store = place.missing()
    with pytest.raises(
        NotFound, match=r"there is no such (folder|bucket).*missing|missing.*(there is no|no such|No such)"
    ):
        store.check()
    store.close()


def test_space_is_counted(place: Place) -> None:
    space = place.store.space()
    assert 0 < space.free_bytes <= space.total_bytes
    assert space.free_files <= space.total_files


def test_a_store_works_again_after_it_was_closed(place: Place) -> None:
    place.put("f", b"1")
    assert paths(scanned(place)) == ["f"]
    place.store.close()
    assert paths(scanned(place)) == ["f"]


def test_metadata_of_objects_is_told_in_the_cloud_only(place: Place) -> None:
    place.put("f", b"123456789")
    info = place.store.stat("f")
    assert info.crc32c == (0xE3069283 if place.keeps_hashes else None)
    assert info.custom_metadata == ({} if place.store.in_cloud else None)
