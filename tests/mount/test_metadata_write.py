"""Metadata written through a mount (DESIGN 3.1, 3.2): where it is stored, what it follows, what is refused and why."""

import errno
import json
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mount.conftest import SourceMaker
from mount.trees import DATASET, MIB, File, LocalSource, id_of, run, some_bytes
from mount.writing import (
    Place,
    Workplace,
    drop,
    eventually,
    fails_with,
    get,
    log_of,
    opened,
    put,
    workplace_of,
)

from support.mounting import run_octuefs
from support.sdk import run_sdk
from support.strict_gcs import Request

XATTR_CREATE, XATTR_REPLACE = 1, 2
OTHER_ID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="module", params=["local", "cloud"])
def workplace(request: pytest.FixtureRequest, new_source: SourceMaker) -> Iterator[Workplace]:
    with workplace_of(request.param, new_source, lambda: request.getfixturevalue("gcs_server")) as it:
        yield it


@pytest.fixture
def here(workplace: Workplace) -> Iterator[Place]:
    with workplace.place() as it:
        yield it


@pytest.fixture
def disk(here: Place) -> Place:
    if here.in_cloud:
        pytest.skip("about local datasets")
    return here


@pytest.fixture
def cloud(here: Place) -> Place:
    if not here.in_cloud:
        pytest.skip("about buckets")
    return here


@pytest.fixture
def file(here: Place) -> Path:
    """A file without metadata."""
    (here / "file").write_bytes(b"content")
    return here / "file"


def moment(text: str) -> dict[str, str]:
    return {"_type": "datetime", "value": text}


def labels(*items: str) -> dict[str, Any]:
    return {"_type": "set", "items": sorted(items)}


def changing(request: Request) -> bool:
    return request.method != "GET"


def describe(path: Path, mark: str = "kept") -> dict[str, str | None]:
    """Give a file a value in every field."""
    put(path, "labels", f"{mark} b")
    put(path, "tags", '{"z": 1, "a": {"x": [null]}}')
    put(path, "timestamp", "2024-01-02T03:04:05+01:00")
    return fields(path)


def fields(path: Path) -> dict[str, str | None]:
    return {name: get(path, name) for name in ("labels", "tags", "timestamp")}


NOTHING: dict[str, str | None] = {"labels": None, "tags": None, "timestamp": None}


# --- setting attributes of files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "shown", "stored"),
    [
        ("labels", "b a", "a b", labels("a", "b")),
        ("labels", '["b", "a", "a"]', "a b", labels("a", "b")),
        ("labels", "  2024\n\tc-1 ", "2024 c-1", labels("2024", "c-1")),
        ("labels", '[" stripped "]', "stripped", labels("stripped")),
        ("tags", '{"z": 1, "a": [null, 0.5]}', '{"a": [null, 0.5], "z": 1}', {"z": 1, "a": [None, 0.5]}),
        ("tags.key", "5", "5", {"key": 5}),
        ("tags.key", '"5"', "5", {"key": "5"}),
        ("tags.key", "some words", "some words", {"key": "some words"}),
        ("tags.key", '{"a": [1]}', '{"a": [1]}', {"key": {"a": [1]}}),
        ("tags.key", "null", "null", {"key": None}),
        ("tags.key", "true", "true", {"key": True}),
        ("tags.key", "", "", {"key": ""}),
        ("tags.key", "größer", "größer", {"key": "größer"}),
        ("timestamp", "2024-01-02T03:04:05", "2024-01-02T03:04:05", moment("2024-01-02T03:04:05")),
        ("timestamp", "2024-01-02T03:04:05.6+02:00", "2024-01-02T03:04:05.600000+02:00", None),
        ("timestamp", "1704164645", "2024-01-02T03:04:05+00:00", moment("2024-01-02T03:04:05+00:00")),
        ("timestamp", "1704164645.25", "2024-01-02T03:04:05.250000+00:00", None),
        ("timestamp", "0", "1970-01-01T00:00:00+00:00", moment("1970-01-01T00:00:00+00:00")),
    ],
)
def test_a_value_is_taken_in_every_form_and_stored_as_the_sdk_stores_it(
    here: Place, file: Path, name: str, value: str, shown: str, stored: object
) -> None:
    derived = get(file, "id")
    put(file, name, value)
    assert get(file, name) == shown
    record = here.record("file")
    field = name.partition(".")[0]
    assert record is not None
    assert record[field] == (moment(shown) if stored is None else stored)
    # The ID that it answered with before is stored with the first metadata.
    assert (record["id"], record["sdk_version"]) == (derived, "0.69.1")
    assert get(file, "id") == derived


def test_a_first_record_is_whole_as_the_sdk_would_write_it(here: Place, file: Path) -> None:
    put(file, "labels", "a")
    record = here.record("file")
    assert record == {
        "id": get(file, "id"),
        "timestamp": None,
        "tags": {},
        "labels": labels("a"),
        "sdk_version": "0.69.1",
    }


def test_setting_one_tag_keeps_the_others_and_their_order(here: Place, file: Path) -> None:
    put(file, "tags", '{"z": 1, "m": 2, "a": 3}')
    put(file, "tags.b", "new")
    put(file, "tags.m", "changed")
    drop(file, "tags.z")
    record = here.record("file")
    assert record is not None
    assert list(record["tags"].items()) == [("m", "changed"), ("a", 3), ("b", "new")]
    assert get(file, "tags.z") is None
    put(file, "tags", '{"only": 1}')
    assert get(file, "tags") == '{"only": 1}'


def test_removing_clears_and_what_is_not_there_is_no_data(here: Place, file: Path) -> None:
    for name in ("labels", "tags", "timestamp", "tags.a"):
        with fails_with(errno.ENODATA):
            drop(file, name)
    describe(file)
    here.sync()
    for name in ("labels", "tags.a", "tags", "timestamp"):
        drop(file, name)
        assert get(file, name) is None
    assert fields(file) == NOTHING
    assert not {name for name in os.listxattr(file) if name.startswith("user.octue.")}
    record = here.record("file")
    assert record is not None
    assert (record["labels"], record["tags"], record["timestamp"]) == (labels(), {}, None)


def test_an_empty_value_clears_labels_and_tags(here: Place, file: Path) -> None:
    describe(file)
    put(file, "labels", "")
    put(file, "tags", "{}")
    assert (get(file, "labels"), get(file, "tags")) == (None, None)


def test_create_and_replace_are_told_apart(here: Place, file: Path) -> None:
    with fails_with(errno.ENODATA):
        put(file, "labels", "a", XATTR_REPLACE)
    put(file, "labels", "a", XATTR_CREATE)
    with fails_with(errno.EEXIST):
        put(file, "labels", "b", XATTR_CREATE)
    put(file, "labels", "c", XATTR_REPLACE)
    with fails_with(errno.ENODATA):
        put(file, "tags.x", "1", XATTR_REPLACE)
    put(file, "tags.x", "1", XATTR_CREATE)
    with fails_with(errno.EEXIST):
        put(file, "tags.x", "2", XATTR_CREATE)
    assert (get(file, "labels"), get(file, "tags")) == ("c", '{"x": 1}')


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("labels", "Upper", "Upper"),
        ("labels", "fine under_score", "under_score"),
        ("labels", "-a", "-a"),
        ("labels", "a-", "a-"),
        ("labels", '["with space in it"]', "with space"),
        ("labels", "[1]", "1"),
        ("labels", "größe", "gr"),
        ("labels", b"\xff\xfe", "UTF-8"),
        ("tags", "no json", "JSON"),
        ("tags", "[1]", "object"),
        ("tags", '"text"', "object"),
        ("tags", '{"Upper": 1}', "Upper"),
        ("tags", '{"end_": 1}', "end_"),
        ("tags", b'{"a": "\xff"}', "UTF-8"),
        ("tags.Upper", "1", "Upper"),
        ("tags.a-b", "1", "a-b"),
        ("tags.", "1", "key"),
        ("timestamp", "yesterday", "yesterday"),
        ("timestamp", "2024-13-01T00:00:00", "2024-13-01"),
        ("timestamp", "", ""),
        ("timestamp", "inf", "inf"),
        ("timestamp", "1e400", "1e400"),
        ("timestamp", "99999999999999999999", "99999999999999999999"),
    ],
)
def test_a_bad_value_is_einval_says_why_and_changes_nothing(
    here: Place, file: Path, name: str, value: str | bytes, reason: str
) -> None:
    before = describe(file)
    record = here.record("file")
    if here.in_cloud:
        here.requests.forget_requests()
    with fails_with(errno.EINVAL):
        put(file, name, value)
    assert fields(file) == before
    assert here.record("file") == record
    if here.in_cloud:
        assert not list(filter(changing, here.requests.requests))
    (line, *_) = [line for line in here.workplace.errors.splitlines() if f"{here.name}/file" in line]
    assert f"user.octue.{name}" in line or name == "tags."
    assert reason in line


READ_ONLY = ("id", "hash", "metadata_hash", "cloud_path", "local_path", "exists_in_cloud", "exists_locally")


@pytest.mark.parametrize("name", READ_ONLY)
def test_what_tells_and_cannot_be_told_is_eperm_says_why_and_changes_nothing(
    here: Place, file: Path, name: str
) -> None:
    describe(file)
    record = here.record("file")
    with fails_with(errno.EPERM):
        put(file, name, OTHER_ID)
    with fails_with(errno.EPERM):
        drop(file, name)
    assert here.record("file") == record
    assert [line for line in here.workplace.errors.splitlines() if f"{here.name}/file" in line and name in line]


def test_unknown_names_of_ours_and_other_namespaces_are_refused(here: Place, file: Path) -> None:
    for name in ("user.octue.unknown", "user.octue.Labels", "system.posix_acl_access", "system.octue"):
        with fails_with(errno.ENOTSUP, errno.EPERM, errno.EINVAL):
            os.setxattr(file, name, b"x")
    assert fields(file) == NOTHING
    assert here.record("file") is None


def test_a_value_beyond_the_kernels_limit_is_e2big(file: Path) -> None:
    with fails_with(errno.E2BIG):
        put(file, "tags.a", "x" * 65_537)
    assert get(file, "tags") is None


def test_large_metadata_are_kept_on_a_disk(disk: Place, file: Path) -> None:
    put(file, "tags.a", "x" * 60_000)
    assert get(file, "tags.a") == "x" * 60_000
    record = disk.record("file")
    assert record is not None
    assert record["tags"] == {"a": "x" * 60_000}


def test_more_than_8_kib_of_metadata_are_e2big_in_the_cloud_and_nothing_changes(cloud: Place, file: Path) -> None:
    before = describe(file)
    put(file, "tags.big", "x" * 7_000)
    stored = cloud.object("file")
    cloud.requests.forget_requests()
    with fails_with(errno.E2BIG):
        put(file, "tags.more", "y" * 2_000)
    with fails_with(errno.E2BIG):
        put(file, "labels", " ".join(f"label-{n}" for n in range(500)))
    assert not list(filter(changing, cloud.requests.requests))
    assert (get(file, "labels"), get(file, "tags.more")) == (before["labels"], None)
    assert cloud.object("file")["metadata"] == stored["metadata"]
    assert f"{cloud.name}/file" in cloud.workplace.errors
    drop(file, "tags.big")
    put(file, "tags.more", "y" * 2_000)


def test_foreign_attributes_pass_through_to_a_disk(disk: Place, file: Path) -> None:
    os.setxattr(file, "user.foreign", b"\0any bytes\xff")
    assert os.getxattr(disk.source_folder / "file", "user.foreign") == b"\0any bytes\xff"
    with fails_with(errno.EEXIST):
        os.setxattr(file, "user.foreign", b"x", XATTR_CREATE)
    with fails_with(errno.ENODATA):
        os.setxattr(file, "user.other", b"x", XATTR_REPLACE)
    os.removexattr(file, "user.foreign")
    assert os.listxattr(disk.source_folder / "file") == []
    os.setxattr(disk.folder, "user.foreign", b"on a folder")
    assert os.getxattr(disk.source_folder, "user.foreign") == b"on a folder"
    # What is ours is kept in `.octue`, never as an attribute of the source.
    put(file, "labels", "a")
    assert os.listxattr(disk.source_folder / "file") == []


def test_foreign_attributes_are_not_supported_in_the_cloud(cloud: Place, file: Path) -> None:
    cloud.requests.forget_requests()
    for path in (file, cloud.folder, cloud.workplace.root):
        with fails_with(errno.ENOTSUP):
            os.setxattr(path, "user.foreign", b"x")
    assert cloud.requests.requests == []


def test_a_setting_shows_at_once_in_views_listings_and_octue(here: Place, file: Path) -> None:
    put(file, "labels", f"only-{here.name}")
    assert (here.workplace.root / "by-label" / f"only-{here.name}" / here.name / "file").read_bytes() == b"content"
    assert f"only-{here.name}" in os.listdir(here.workplace.root / "by-label")
    assert "user.octue.labels" in os.listxattr(file)
    here.sync()
    shown = json.loads((here / ".octue").read_bytes())["datafiles"]["file"]
    assert shown["labels"] == labels(f"only-{here.name}")
    drop(file, "labels")
    assert f"only-{here.name}" not in os.listdir(here.workplace.root / "by-label")
    # libfuse 2 cannot tell the kernel, which keeps names for a moment.
    assert eventually(lambda: not (here.workplace.root / "by-label" / f"only-{here.name}").exists())


def test_a_setting_through_a_view_is_one_of_the_file(here: Place, file: Path) -> None:
    put(file, "labels", here.name)
    put(here.workplace.root / "by-label" / here.name / here.name / "file", "tags.seen", "1")
    assert get(file, "tags.seen") == "1"
    record = here.record("file")
    assert record is not None
    assert record["tags"] == {"seen": 1}


def test_setting_what_is_already_so_costs_nothing(cloud: Place, file: Path) -> None:
    put(file, "labels", "a b")
    cloud.requests.forget_requests()
    put(file, "labels", "b a")
    assert not list(filter(changing, cloud.requests.requests))


# --- the dataset's own -----------------------------------------------------------------------------------------------


@pytest.fixture
def own(new_source: SourceMaker, request: pytest.FixtureRequest, workplace: Workplace) -> Iterator[Workplace]:
    """A dataset of this test's own, with one file."""
    kind = workplace.source.kind
    with workplace_of(kind, new_source, lambda: request.getfixturevalue("gcs_server")) as it:
        (it.root / "file").write_bytes(b"content")
        yield it


def sync(it: Workplace) -> None:
    with opened(it.root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def test_the_datasets_name_labels_and_tags_are_set_and_removed(own: Workplace) -> None:
    derived = get(own.root, "id")
    put(own.root, "name", "Wind Farm ö")
    put(own.root, "labels", '["b", "a"]')
    put(own.root, "tags", '{"z": 1, "a": [null]}')
    put(own.root, "tags.site", "sea")
    assert get(own.root, "name") == "Wind Farm ö"
    assert get(own.root, "labels") == "a b"
    sync(own)
    record = own.dataset_record()
    # A plain sorted list, and no `_type`, which the SDK reads without a decoder.
    assert (record["id"], record["name"], record["labels"]) == (derived, "Wind Farm ö", ["a", "b"])
    assert list(record["tags"].items()) == [("z", 1), ("a", [None]), ("site", "sea")]
    assert get(own.root, "id") == derived
    for name in ("labels", "tags.a", "name"):
        drop(own.root, name)
    assert get(own.root, "labels") is None
    assert json.loads(get(own.root, "tags") or "") == {"z": 1, "site": "sea"}
    # The folder's name stands where none is stored.
    assert get(own.root, "name") != "Wind Farm ö"
    sync(own)
    assert own.dataset_record().get("labels", []) == []


def test_the_datasets_attributes_are_refused_like_those_of_files(own: Workplace) -> None:
    put(own.root, "name", "before")
    put(own.root, "labels", "before")
    for name in (*READ_ONLY, "count", "size_bytes"):
        with fails_with(errno.EPERM):
            put(own.root, name, "1")
    for name, value in (("labels", "Upper"), ("tags", "[1]"), ("name", b"\xff")):
        with fails_with(errno.EINVAL):
            put(own.root, name, value)
    with fails_with(errno.EEXIST):
        put(own.root, "name", "x", XATTR_CREATE)
    assert (get(own.root, "name"), get(own.root, "labels")) == ("before", "before")
    assert "Upper" in own.errors


def test_folders_below_the_root_have_no_metadata_to_set(here: Place) -> None:
    for name in ("labels", "tags", "name", "tags.a", "timestamp"):
        with fails_with(errno.EPERM, errno.ENOTSUP):
            put(here.folder, name, "a")


def test_the_datasets_metadata_are_there_after_a_remount(own: Workplace) -> None:
    put(own.root, "name", "kept")
    put(own.root, "tags.a", "1")
    describe(own.root / "file")
    identity = get(own.root / "file", "id")
    sync(own)
    with own.mounted_again("--read-only") as again:
        assert (get(again.root, "name"), get(again.root, "tags.a")) == ("kept", "1")
        assert fields(again.root / "file") == fields(own.root / "file")
        assert get(again.root / "file", "id") == identity


# --- what metadata follow --------------------------------------------------------------------------------------------


def test_metadata_stay_when_a_file_is_written_again(here: Place, file: Path) -> None:
    before = describe(file)
    identity = get(file, "id")
    file.write_bytes(b"overwritten")
    with file.open("ab") as end:
        end.write(b" and appended to")
    os.truncate(file, 5)
    with opened(file, os.O_RDWR) as fd:
        os.pwrite(fd, b"X", 2)
    assert (fields(file), get(file, "id")) == (before, identity)
    record = here.record("file")
    assert record is not None
    assert (record["id"], record["labels"]) == (identity, labels("b", "kept"))
    assert here.stored() == {b"file": b"ovXrw"}


def test_metadata_set_while_a_file_is_being_written_are_stored(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"some")
        put(here / "file", "labels", "early")
        os.setxattr(fd, "user.octue.tags.by", b"descriptor")
        os.write(fd, b" more")
        assert get(here / "file", "labels") == "early"
    record = here.record("file")
    assert record is not None
    assert (record["labels"], record["tags"]) == (labels("early"), {"by": "descriptor"})
    assert here.stored() == {b"file": b"some more"}


def test_metadata_move_with_a_file_and_a_folder(here: Place, file: Path) -> None:
    before = describe(file)
    identity = get(file, "id")
    (here / "sub" / "deep").mkdir(parents=True)
    os.rename(file, here / "sub" / "deep" / "moved")
    os.rename(here / "sub", here / "renamed")
    moved = here / "renamed" / "deep" / "moved"
    assert (fields(moved), get(moved, "id")) == (before, identity)
    record = here.record("renamed/deep/moved")
    assert record is not None
    assert (record["id"], record["timestamp"]) == (identity, moment("2024-01-02T03:04:05+01:00"))
    assert "file" not in here.document().get("datafiles", {})


def test_a_rename_over_another_file_keeps_its_id_and_the_fields_that_the_new_one_lacks(here: Place) -> None:
    (here / "target").write_bytes(b"old")
    describe(here / "target", "target")
    identity = get(here / "target", "id")
    (here / "source").write_bytes(b"new")
    put(here / "source", "labels", "source")
    os.rename(here / "source", here / "target")
    assert here.stored() == {b"target": b"new"}
    assert get(here / "target", "id") == identity
    assert fields(here / "target") == {
        "labels": "source",
        "tags": '{"a": {"x": [null]}, "z": 1}',
        "timestamp": "2024-01-02T03:04:05+01:00",
    }
    record = here.record("target")
    assert record is not None
    assert (record["id"], record["labels"]) == (identity, labels("source"))
    assert list(record["tags"]) == ["z", "a"]


def test_a_rename_over_another_file_brings_all_where_that_has_none(here: Place) -> None:
    (here / "target").write_bytes(b"old")
    (here / "source").write_bytes(b"new")
    before = describe(here / "source")
    identity = get(here / "source", "id")
    os.rename(here / "source", here / "target")
    # Only an ID that is stored is the target's.
    assert (fields(here / "target"), get(here / "target", "id")) == (before, identity)


def test_a_file_that_is_made_again_takes_what_the_removed_one_had(here: Place, file: Path) -> None:
    before = describe(file)
    file.unlink()
    assert here.record_of_nothing("file")
    file.write_bytes(b"again")
    assert fields(file) == before
    record = here.record("file")
    assert record is not None
    assert record["labels"] == labels("b", "kept")


def test_a_file_that_is_made_where_one_was_renamed_away_takes_what_it_had_but_the_id(here: Place, file: Path) -> None:
    before = describe(file)
    identity = get(file, "id")
    os.rename(file, here / "file~")
    file.write_bytes(b"again")
    assert fields(file) == fields(here / "file~") == before
    assert get(here / "file~", "id") == identity
    assert get(file, "id") != identity


def test_removing_a_file_removes_its_record_and_no_other(here: Place, file: Path) -> None:
    describe(file)
    (here / "other").write_bytes(b"x")
    put(here / "other", "labels", "stays")
    here.sync()
    file.unlink()
    assert here.record_of_nothing("file")
    record = here.record("other")
    assert record is not None
    assert record["labels"] == labels("stays")
    if not here.in_cloud:
        assert set(here.document()["datafiles"]) == {"other"}


def test_a_folder_without_records_has_no_octue(here: Place, file: Path) -> None:
    assert ".octue" not in os.listdir(here.folder)
    describe(file)
    here.sync()
    assert ".octue" in os.listdir(here.folder)
    file.unlink()
    here.sync()
    assert ".octue" not in os.listdir(here.folder)
    assert here.document() == {}
    os.rmdir(here.folder)
    here.folder.mkdir()


def test_a_tree_with_metadata_is_removed_with_rm_r(here: Place) -> None:
    (here / "tree" / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (here / "tree" / name).write_bytes(b"x")
        put(here / "tree" / name, "labels", "x")
    here.sync("tree")
    here.sync("tree/sub")
    run("rm", "-r", here / "tree")
    assert os.listdir(here.folder) == []
    assert not here.workplace.stored_folders(here.name)


# --- writing `.octue` ------------------------------------------------------------------------------------------------


def text_of(document: object) -> bytes:
    return (json.dumps(document, indent=4) + "\n").encode()


def record_with(
    *, id: str | None = OTHER_ID, labels_: tuple[str, ...] = ("written",), **tags: object
) -> dict[str, Any]:
    found: dict[str, Any] = {"timestamp": moment("2024-05-06T07:08:09"), "tags": tags, "labels": labels(*labels_)}
    return {"id": id, **found, "sdk_version": "0.69.1"} if id else {**found, "sdk_version": "0.69.1"}


def test_octue_is_written_and_its_metadata_are_the_files(here: Place, file: Path) -> None:
    (here / "other").write_bytes(b"x")
    record = record_with(z=1, a=[None, {"b": 2}])
    (here / ".octue").write_bytes(text_of({"datafiles": {"file": record}}))
    assert fields(file) == {
        "labels": "written",
        "tags": '{"a": [null, {"b": 2}], "z": 1}',
        "timestamp": "2024-05-06T07:08:09",
    }
    assert get(file, "id") == OTHER_ID
    assert here.record("file") == record
    assert json.loads((here / ".octue").read_bytes())["datafiles"] == {"file": record}


def test_octue_as_written_replaces_the_records_of_the_folder(here: Place, file: Path) -> None:
    (here / "other").write_bytes(b"x")
    describe(file)
    describe(here / "other")
    identity = get(file, "id")
    (here / ".octue").write_bytes(text_of({"datafiles": {"file": record_with(id=identity)}}))
    assert get(file, "labels") == "written"
    assert fields(here / "other") == NOTHING


def test_a_stored_id_wins_over_a_written_one_and_that_is_logged(here: Place, file: Path) -> None:
    put(file, "labels", "a")
    identity = get(file, "id")
    here.sync()
    (here / ".octue").write_bytes(text_of({"datafiles": {"file": record_with(id=OTHER_ID)}}))
    assert (get(file, "id"), get(file, "labels")) == (identity, "written")
    record = here.record("file")
    assert record is not None
    assert record["id"] == identity
    assert OTHER_ID in log_of(here.workplace.root)


@pytest.mark.parametrize(
    "text",
    [b'{"datafiles": {"file": ', b"[]", b"no json", b"\xff\xfe", b'{"datafiles": {"file": {"labels": ["Upper"]}}}'],
)
def test_a_malformed_octue_is_einval_on_close_and_recovered_and_changes_nothing(
    here: Place, file: Path, text: bytes
) -> None:
    before = describe(file)
    record = here.record("file")
    with pytest.raises(OSError, match="Invalid argument") as failure, (here / ".octue").open("wb") as octue:
        octue.write(text)
    assert failure.value.errno == errno.EINVAL
    assert eventually(lambda: text in here.workplace.recovered().values())
    assert f"{here.name}/.octue" in here.workplace.errors
    assert (fields(file), here.record("file")) == (before, record)
    assert json.loads((here / ".octue").read_bytes())["datafiles"]["file"] == record


def test_octue_written_first_waits_for_its_files(here: Place) -> None:
    (here / "sub").mkdir()
    document = {"datafiles": {"later": record_with(n=1), "never": record_with(id=str(uuid.uuid4()))}}
    (here / "sub" / ".octue").write_bytes(text_of(document))
    # It shows what it was told, for `cp -r` and the like to be believed.
    assert json.loads((here / "sub" / ".octue").read_bytes()) == document
    assert os.listdir(here / "sub") == [".octue"]
    (here / "sub" / "later").write_bytes(b"here it is")
    assert (get(here / "sub" / "later", "id"), get(here / "sub" / "later", "labels")) == (OTHER_ID, "written")
    assert here.record("sub/later") == record_with(n=1)


def test_octue_that_waits_is_there_after_a_remount(own: Workplace) -> None:
    (own.root / "sub").mkdir()
    (own.root / "sub" / ".octue").write_bytes(text_of({"datafiles": {"later": record_with(n=1)}}))
    run_unmount(own)
    with own.mounted_again() as again:
        assert json.loads((again.root / "sub" / ".octue").read_bytes())["datafiles"] == {"later": record_with(n=1)}
        (again.root / "sub" / "later").write_bytes(b"x")
        assert get(again.root / "sub" / "later", "id") == OTHER_ID
        with opened(again.root / "sub", os.O_RDONLY | os.O_DIRECTORY) as fd:
            os.fsync(fd)
        assert own.record("sub/later") == record_with(n=1)


def run_unmount(it: Workplace) -> None:
    done = run_octuefs("unmount", it.root, environment=it.environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", [".octue", "file"])
def test_an_archive_may_hold_octue_before_or_after_the_files(here: Place, tmp_path: Path, first: str) -> None:
    (tmp_path / "file").write_bytes(b"packed")
    (tmp_path / ".octue").write_bytes(text_of({"datafiles": {"file": record_with(n=1)}}))
    names = [first, "file" if first == ".octue" else ".octue"]
    archive = run("tar", "--create", *names, cwd=tmp_path)
    run("tar", "--extract", cwd=here.folder, stdin=archive)
    assert here.stored() == {b"file": b"packed"}
    assert here.record("file") == record_with(n=1)
    # Once more over itself, which removes and makes the files again.
    run("tar", "--extract", cwd=here.folder, stdin=archive)
    assert fields(here / "file") == {"labels": "written", "tags": '{"n": 1}', "timestamp": "2024-05-06T07:08:09"}
    assert here.stored() == {b"file": b"packed"}


def test_a_file_renamed_to_octue_is_taken_as_if_written(here: Place, file: Path) -> None:
    (here / "new").write_bytes(text_of({"datafiles": {"file": record_with(n=1)}}))
    os.rename(here / "new", here / ".octue")
    assert get(file, "labels") == "written"
    assert here.record("file") == record_with(n=1)
    assert sorted(os.listdir(here.folder)) == [".octue", "file"]
    # As rsync does it.
    (here / ".octue.x").write_bytes(text_of({"datafiles": {"file": record_with(n=2)}}))
    os.replace(here / ".octue.x", here / ".octue")
    assert get(file, "tags.n") == "2"
    assert here.stored() == {b"file": b"content"}


def test_octue_is_edited_in_place(here: Place, file: Path) -> None:
    describe(file)
    here.sync()
    run("sed", "-i", "s/kept/edited/", here / ".octue")
    assert get(file, "labels") == "b edited"
    with (here / ".octue").open("r+b") as octue:
        text = octue.read().replace(b"edited", b"again")
        octue.seek(0)
        octue.truncate()
        octue.write(text)
    assert get(file, "labels") == "again b"
    record = here.record("file")
    assert record is not None
    assert set(record["labels"]["items"]) == {"again", "b"}


def test_removing_octue_removes_the_metadata_of_its_files_and_of_no_others(here: Place, file: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "below").write_bytes(b"x")
    describe(file)
    describe(here / "sub" / "below")
    here.sync()
    os.unlink(here / ".octue")
    assert fields(file) == NOTHING
    assert get(here / "sub" / "below", "labels") == "b kept"
    assert ".octue" not in os.listdir(here.folder)
    assert here.record_of_nothing("file")
    assert here.stored() == {b"file": b"content", b"sub/below": b"x"}


def test_unknown_keys_of_octue_are_kept_on_a_disk(disk: Place, file: Path) -> None:
    document = {"own": {"x": 1}, "datafiles": {"file": {**record_with(), "more": [1]}}}
    (disk / ".octue").write_bytes(text_of(document))
    put(file, "tags.n", "1")
    stored = disk.document()
    assert (stored["own"], stored["datafiles"]["file"]["more"]) == ({"x": 1}, [1])
    assert stored["datafiles"]["file"]["tags"] == {"n": 1}


def test_the_roots_octue_describes_the_dataset(own: Workplace) -> None:
    (own.root / ".octue").write_bytes(text_of({"dataset": DATASET, "datafiles": {"file": record_with(n=1)}}))
    assert get(own.root, "name") == "turbines"
    assert get(own.root, "labels") == "published wind"
    assert get(own.root / "file", "labels") == "written"
    sync(own)
    record = own.dataset_record()
    assert {key: record[key] for key in DATASET} == DATASET
    os.unlink(own.root / ".octue")
    assert get(own.root, "labels") is None
    assert fields(own.root / "file") == NOTHING
    sync(own)
    assert own.dataset_record() == {}


def test_a_local_octue_is_written_as_the_sdk_writes_it(disk: Place, file: Path) -> None:
    put(file, "labels", "b a")
    put(file, "tags", '{"text": "größer"}')
    disk.sync()
    text = (disk.source_folder / ".octue").read_bytes()
    assert text == (disk / ".octue").read_bytes()
    assert text == text_of(json.loads(text))  # indent 4, ASCII, a newline at the end
    assert list(json.loads(text)) == ["datafiles"]


# --- how much it costs -----------------------------------------------------------------------------------------------


def test_a_burst_of_labels_costs_few_rewrites_of_a_local_octue(disk: Place) -> None:
    count = 2000
    disk.unchecked.update(map(str, range(count)))
    for number in range(count):
        (disk.source_folder / f"{number}").touch()
    assert eventually(lambda: len(os.listdir(disk.folder)) == count)
    seen: set[tuple[int, int]] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            try:
                at = os.stat(disk.source_folder / ".octue")
            except FileNotFoundError:
                continue
            seen.add((at.st_ino, at.st_mtime_ns))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(count):
            put(disk / f"{number}", "labels", "burst")
        assert eventually(lambda: len(disk.workplace.document(disk.name).get("datafiles", {})) == count)
    finally:
        stop.set()
        watcher.join()
    assert len(seen) <= 5
    assert len(os.listdir(disk.workplace.root / "by-label" / "burst" / disk.name)) >= count


def test_a_local_setting_is_stored_soon_without_anybody_asking(disk: Place, file: Path) -> None:
    put(file, "labels", "soon")
    assert eventually(lambda: disk.workplace.record(disk.path("file")) is not None)


def test_fsync_of_the_file_stores_its_metadata(here: Place, file: Path) -> None:
    put(file, "labels", "durable")
    with opened(file, os.O_RDWR) as fd:
        os.fsync(fd)
    record = here.workplace.record(here.path("file"))
    assert record is not None
    assert record["labels"] == labels("durable")


def test_each_setting_in_the_cloud_is_one_patch_and_stored_when_it_returns(cloud: Place, file: Path) -> None:
    generation = cloud.object("file")["generation"]
    for name, value in (("labels", "a"), ("tags.n", "1"), ("timestamp", "0"), ("labels", "b")):
        cloud.requests.forget_requests()
        put(file, name, value)
        assert [request.kind for request in cloud.requests.requests] == ["patch"]
        (request,) = cloud.requests.requests
        assert {"ifGenerationMatch", "ifMetagenerationMatch"} <= set(request.query)
    record = cloud.workplace.record(cloud.path("file"))
    assert record is not None
    assert (record["labels"], record["tags"]) == (labels("b"), {"n": 1})
    assert cloud.object("file")["generation"] == generation


def test_labelling_in_parallel_is_one_patch_each_and_each_reports_its_own_failure(cloud: Place) -> None:
    for number in range(12):
        (cloud / f"{number}").write_bytes(b"x")
    cloud.requests.forget_requests()
    refusal = cloud.requests.fail(403, when=lambda it: it.kind == "patch" and it.name.endswith("/7"), times=None)

    def label(number: int) -> int:
        try:
            put(cloud / f"{number}", "labels", "a")
        except OSError as error:
            return error.errno or 0
        return 0

    try:
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(label, range(12)))
    finally:
        refusal.remove()
    assert found == [errno.EACCES if number == 7 else 0 for number in range(12)]
    assert cloud.requests.count(kind="patch") == 12
    assert get(cloud / "7", "labels") is None
    assert [get(cloud / f"{number}", "labels") for number in range(7)] == ["a"] * 7


def test_a_new_file_with_metadata_costs_one_upload(cloud: Place) -> None:
    cloud.requests.forget_requests()
    with opened(cloud / "file", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"content")
        os.setxattr(fd, "user.octue.labels", b"a")
        os.fchmod(fd, 0o640)
        os.utime(fd, ns=(10**18, 10**18))
    assert [request.kind for request in cloud.requests.requests if changing(request)] == ["upload"]
    custom = cloud.object("file")["metadata"]
    assert json.loads(custom["octue__labels"]) == labels("a")
    assert (custom["goog-reserved-posix-mode"], custom["goog-reserved-file-mtime"]) == ("640", "1000000000")


def test_only_what_changed_is_sent(cloud: Place) -> None:
    foreign = {"foreign": "kept", "octue__labels": '["plain", "list"]', "octue__id": json.dumps(OTHER_ID)}
    cloud.workplace.put(cloud.path("file"), b"x", foreign)
    put(cloud / "file", "tags.n", "1")
    custom = cloud.object("file")["metadata"]
    assert {key: custom[key] for key in foreign} == foreign
    assert json.loads(custom["octue__tags"]) == {"n": 1}


def test_custom_metadata_of_others_and_the_content_type_survive_everything(cloud: Place) -> None:
    data = some_bytes(9 * MIB)
    foreign = {"foreign": "kept", "octue__unknown": '"too"', "octue__labels": '["a"]'}
    cloud.workplace.put(cloud.path("file.csv"), data, foreign, "text/x-own")

    def kept(name: str) -> bool:
        resource = cloud.object(name)
        return (
            resource["contentType"] == "text/x-own"
            and {key: resource["metadata"].get(key) for key in foreign} == foreign
        )

    path = cloud / "file.csv"
    with path.open("ab") as end:
        end.write(b"appended")
    assert kept("file.csv")
    assert cloud.stored_data("file.csv") == data + b"appended"
    path.write_bytes(b"overwritten")
    assert kept("file.csv")
    os.rename(path, cloud / "moved.txt")
    assert kept("moved.txt")
    with (cloud / "moved.txt").open("ab") as end:
        end.write(b" once more")
    assert kept("moved.txt")
    os.chmod(cloud / "moved.txt", 0o640)
    os.truncate(cloud / "moved.txt", 3)
    assert kept("moved.txt")
    (cloud / "folder").mkdir()
    os.rename(cloud / "moved.txt", cloud / "folder" / "deep.txt")
    os.rename(cloud / "folder", cloud / "renamed")
    assert kept("renamed/deep.txt")
    assert cloud.stored_data("renamed/deep.txt") == b"ove"


# --- the SDK ---------------------------------------------------------------------------------------------------------

ASK_SDK = """
import json, sys
from octue.resources import Datafile, Dataset

dataset = Dataset(path=sys.argv[1])
print(json.dumps({
    "id": dataset.id,
    "name": dataset.name,
    "labels": sorted(map(str, dataset.labels)),
    "tags": dict(dataset.tags),
    "with label": sorted(f.name for f in dataset.files.filter(labels__contains="wind-farm")),
    "with tag": sorted(f.name for f in dataset.files if "cluster" in f.tags and f.satisfies(tags__cluster__gt=1)),
    "since": sorted(
        f.name for f in dataset.files if f.timestamp is not None and f.timestamp.year >= 2024
    ),
    "files": {
        f.name: {
            "id": f.id,
            "labels": sorted(map(str, f.labels)),
            "tags": json.dumps(dict(f.tags)),
            "timestamp": f.timestamp and f.timestamp.isoformat(),
            "hash": f.hash_value,
        }
        for f in dataset.files
    },
}))
"""

WRITE_BY_SDK = """
import json, sys
from datetime import datetime, timedelta, timezone
from octue.resources import Datafile, Dataset

where = sys.argv[1]
in_cloud = where.startswith("gs://")
for name, metadata in {
    "full.csv": {
        "labels": ["wind-farm", "b"],
        "tags": {"z": 1, "cluster": 2, "nested": {"b": [None, "gr\\u00f6\\u00dfer"]}},
        "timestamp": datetime(2024, 1, 2, 3, 4, 5, 600000, tzinfo=timezone(timedelta(hours=1))),
    },
    "labels.csv": {"labels": ["wind-farm"]},
    "tags.csv": {"tags": {"cluster": 1}},
    "naive.csv": {"timestamp": datetime(2023, 1, 2, 3, 4, 5)},
}.items():
    file = Datafile(path=where + "/" + name, **metadata)
    file.update_cloud_metadata() if in_cloud else file.update_local_metadata()
dataset = Dataset(path=where, name="wind", labels=["y", "x"], tags={"site": "sea", "n": {"k": 1}})
dataset.update_cloud_metadata() if in_cloud else dataset.update_local_metadata()
print("null")
"""

SDK_FILES = ("full.csv", "labels.csv", "tags.csv", "naive.csv")


def test_what_the_sdk_and_setfattr_write_is_the_same_and_the_sdk_reads_it_back(
    workplace: Workplace, new_source: SourceMaker, request: pytest.FixtureRequest
) -> None:
    kind = workplace.source.kind

    def server() -> Any:
        return request.getfixturevalue("gcs_server")

    with workplace_of(kind, new_source, server) as ours, workplace_of(kind, new_source, server) as theirs:
        for name in SDK_FILES:
            (ours.root / name).write_bytes(name.encode())
            (theirs.root / name).write_bytes(name.encode())
        ids = {name: get(ours.root / name, "id") for name in SDK_FILES}
        put(ours.root / "full.csv", "labels", "wind-farm b")
        put(ours.root / "full.csv", "tags", '{"z": 1, "cluster": 2, "nested": {"b": [null, "größer"]}}')
        put(ours.root / "full.csv", "timestamp", "2024-01-02T03:04:05.6+01:00")
        put(ours.root / "labels.csv", "labels", "wind-farm")
        put(ours.root / "tags.csv", "tags.cluster", "1")
        put(ours.root / "naive.csv", "timestamp", "2023-01-02T03:04:05")
        put(ours.root, "name", "wind")
        put(ours.root, "labels", "y x")
        put(ours.root, "tags", '{"site": "sea", "n": {"k": 1}}')
        sync(ours)

        run_sdk(WRITE_BY_SDK, environment=server().environment, arguments=[theirs.source.url])
        for name in SDK_FILES:
            our, their = ours.record(name), theirs.record(name)
            assert our is not None
            assert their is not None
            assert our["id"] == ids[name]
            assert {**our, "id": None} == {**their, "id": None}, name
            assert list(our["tags"]) == list(their["tags"])
            if ours.in_cloud:  # texts, not only values
                customs = [it.bucket.stat(it.object_name(name))["metadata"] for it in (ours, theirs)]
                keys = {key for key in customs[1] if key.startswith("octue__") and key != "octue__id"}
                assert {key: customs[0][key] for key in keys} == {key: customs[1][key] for key in keys}
        our_dataset, their_dataset = ours.dataset_record(), theirs.dataset_record()
        for record in (our_dataset, their_dataset):
            for key in ("id", "path", "files"):
                record.pop(key, None)
        assert our_dataset == their_dataset

        said = run_sdk(ASK_SDK, environment=server().environment, arguments=[ours.source.url])
        assert said["files"].keys() - {"kept"} == set(SDK_FILES)
        assert said["id"] == get(ours.root, "id")
        assert (said["name"], said["labels"], said["tags"]) == ("wind", ["x", "y"], {"site": "sea", "n": {"k": 1}})
        assert said["with label"] == ["full.csv", "labels.csv"]
        assert said["with tag"] == ["full.csv"]
        assert said["since"] == ["full.csv"]
        for name in SDK_FILES:
            found = said["files"][name]
            assert found["id"] == ids[name]
            assert found["labels"] == (get(ours.root / name, "labels") or "").split()
            assert json.loads(found["tags"]) == json.loads(get(ours.root / name, "tags") or "{}")
            assert found["timestamp"] == get(ours.root / name, "timestamp")
            assert found["hash"] == get(ours.root / name, "hash")

        # And what the SDK wrote underneath, the mount shows.
        theirs.refresh()
        assert eventually(lambda: get(theirs.root / "full.csv", "labels") == "b wind-farm")
        assert eventually(lambda: get(theirs.root, "name") == "wind")
        assert get(theirs.root / "full.csv", "timestamp") == "2024-01-02T03:04:05.600000+01:00"


def test_what_is_copied_into_a_mount_the_sdk_reads_as_the_original(
    workplace: Workplace, new_source: SourceMaker, request: pytest.FixtureRequest
) -> None:
    files = {
        "a.csv": File(b"1\n", ["wind-farm"], {"cluster": 2, "z": [1, None]}, "2024-01-02T03:04:05"),
        "sub/b.csv": File(b"22\n", ["b"], {}, "2025-01-02T03:04:05+01:00"),
        "sub/c.csv": File(b"333\n"),
    }

    def server() -> Any:
        return request.getfixturevalue("gcs_server")

    with new_source("local") as model, workplace_of(workplace.source.kind, new_source, server) as it:
        assert isinstance(model, LocalSource)
        model.fill(files)
        if it.in_cloud:
            os.unlink(it.root / "kept")
        run("cp", "-r", f"{model.folder}/.", it.root)
        sync(it)
        with opened(it.root / "sub", os.O_RDONLY | os.O_DIRECTORY) as fd:
            os.fsync(fd)
        both = [
            run_sdk(ASK_SDK, environment=server().environment, arguments=[url]) for url in (model.url, it.source.url)
        ]
        # The SDK invents an ID where none is stored.
        for said in both:
            said["files"]["c.csv"].pop("id")
        assert both[0] == both[1]
        assert both[1]["files"]["a.csv"]["id"] == id_of("a.csv")
