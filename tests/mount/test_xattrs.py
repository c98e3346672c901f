"""Extended attributes (DESIGN 3.1), as they are read: each row of the table, and what is no row of it."""

import errno
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from mount.datasets import (
    KINDS,
    File,
    Folder,
    Mounted,
    Plan,
    Prefix,
    crc32c,
    empty_source,
    fails_with,
    mounted_plan,
    mounted_source,
    set_hash,
    wait_until,
)

from support.drivers import over_each_driver
from support.gcs import GcsServer

pytestmark = over_each_driver

DATASET_ID = "0d5b8e0e-7a3c-4d0e-9c3e-0b7a4f2f9a01"
FILE_ID = "3c8f7a56-1d7e-4b1a-8a51-2f6f9d3c0e11"
TAGS: dict[str, Any] = {
    "z": 1,
    "text": "some words",
    "half": 0.5,
    "yes": True,
    "nothing": None,
    "items": [1, "x"],
    "nested": {"b": 1, "a": "ö"},
    "empty": "",
}

PLAN = Plan(
    files=(
        File(
            "full.csv",
            b"full\n",
            id=FILE_ID,
            labels=("b", "a", "c-1"),
            tags=TAGS,
            timestamp=datetime(2024, 1, 2, 3, 4, 5, 600000, tzinfo=timezone(timedelta(hours=2))),
        ),
        File("bare", b"bare\n"),
        File("sub/naive.csv", b"1,2\n", labels=("a",), timestamp=datetime(2024, 1, 2, 3, 4, 5)),
        File("sub/deep/empty.csv", b"", tags={"k": "v"}),
    ),
    dataset={"id": DATASET_ID, "name": "a name", "tags": {"site": "sea", "n": {"k": 1}}, "labels": ["y", "x"]},
    empty_folders=("hollow",),
)

SETTABLE_OF_FILE = {"labels", "tags", "timestamp"}
SETTABLE_OF_DATASET = {"name", "labels", "tags"}
OF_FILE = {
    *SETTABLE_OF_FILE,
    "id",
    "hash",
    "metadata_hash",
    "cloud_path",
    "local_path",
    "exists_in_cloud",
    "exists_locally",
}
OF_DATASET = {*OF_FILE - {"timestamp"}, "name", "count", "size_bytes"}
OF_DIRECTORY = {"hash", "count", "size_bytes"}
EVERYTHING = OF_FILE | OF_DATASET


@pytest.fixture(scope="module", params=KINDS)
def dataset(request: pytest.FixtureRequest, gcs_server: GcsServer, driver: str) -> Iterator[Mounted]:
    with mounted_plan(request.param, gcs_server, PLAN) as it:
        yield it


def attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.octue.{name}", follow_symlinks=False).decode()


def assert_absent(path: Path, *absent: str) -> None:
    for name in absent:
        with fails_with(errno.ENODATA):
            attribute(path, name)


def listed(path: Path) -> set[str]:
    return set(os.listxattr(path, follow_symlinks=False))


def own(*names: str) -> set[str]:
    return {f"user.octue.{name}" for name in names}


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["full.csv", "by-label/a,b/full.csv", f"by-id/{FILE_ID}", "order-by/name/000003_full.csv"]
)
def test_a_file_has_its_metadata_as_attributes_wherever_it_is_shown(dataset: Mounted, path: str) -> None:
    file = dataset / path
    assert attribute(file, "id") == FILE_ID
    assert attribute(file, "labels") == "a b c-1"
    assert attribute(file, "tags") == json.dumps(TAGS, sort_keys=True)
    assert attribute(file, "timestamp") == "2024-01-02T03:04:05.600000+02:00"
    assert attribute(file, "hash") == crc32c(b"full\n")
    assert_lives_at(file, dataset, "full.csv")


def assert_lives_at(file: Path, dataset: Mounted, path: str) -> None:
    here, there = ("cloud_path", "local_path") if dataset.in_cloud else ("local_path", "cloud_path")
    assert attribute(file, here) == dataset.source.location(path)
    assert_absent(file, there)
    assert attribute(file, "exists_in_cloud") == ("true" if dataset.in_cloud else "false")
    assert attribute(file, "exists_locally") == ("false" if dataset.in_cloud else "true")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("z", "1"),
        ("text", "some words"),
        ("half", "0.5"),
        ("yes", "true"),
        ("nothing", "null"),
        ("items", '[1, "x"]'),
        ("nested", '{"b": 1, "a": "\\u00f6"}'),
        ("empty", ""),
    ],
)
def test_a_tag_is_read_by_its_key_scalars_as_text_and_the_rest_as_json(dataset: Mounted, key: str, text: str) -> None:
    assert attribute(dataset / "full.csv", f"tags.{key}") == text
    assert attribute(dataset / "by-label/b/full.csv", f"tags.{key}") == text


def test_the_metadata_hash_of_a_file_is_octues(dataset: Mounted) -> None:
    text = "[('labels', LabelSet()), ('tags', {'k': 'v'}), ('timestamp', None)]"
    assert attribute(dataset / "sub/deep/empty.csv", "metadata_hash") == crc32c(text.encode())
    text = "[('labels', LabelSet({'a'})), ('tags', {}), ('timestamp', datetime.datetime(2024, 1, 2, 3, 4, 5))]"
    assert attribute(dataset / "sub/naive.csv", "metadata_hash") == crc32c(text.encode())
    text = "[('labels', LabelSet()), ('tags', {}), ('timestamp', None)]"
    assert attribute(dataset / "bare", "metadata_hash") == crc32c(text.encode())


def test_what_is_not_set_on_a_file_is_no_data(dataset: Mounted) -> None:
    assert_absent(dataset / "bare", "labels", "tags", "timestamp", "tags.z", "tags.", "name", "count", "size_bytes")
    assert_absent(dataset / "full.csv", "tags.unknown", "tags.nested.b", "nothing", "", "ID")
    assert_absent(dataset / "sub/naive.csv", "tags")
    assert_absent(dataset / "sub/deep/empty.csv", "labels", "timestamp")
    assert attribute(dataset / "sub/naive.csv", "timestamp") == "2024-01-02T03:04:05"


def test_a_file_with_no_stored_id_has_a_stable_one_of_its_own(dataset: Mounted) -> None:
    ids = {path: attribute(dataset / path, "id") for path in ("bare", "sub/naive.csv", "sub/deep/empty.csv")}
    assert len(set(ids.values())) == len(ids)
    assert {uuid.UUID(value).version for value in ids.values()} == {5}
    assert attribute(dataset / "by-label/a/sub/naive.csv", "id") == ids["sub/naive.csv"]


def test_an_empty_file_has_the_hash_of_no_bytes(dataset: Mounted) -> None:
    assert attribute(dataset / "sub/deep/empty.csv", "hash") == "AAAAAA=="


# --- the dataset's root, directories, views ---------------------------------------------------------------------------


def test_the_root_has_the_datasets_own_metadata_as_attributes(dataset: Mounted) -> None:
    root = dataset.root
    assert attribute(root, "id") == DATASET_ID
    assert attribute(root, "name") == "a name"
    assert attribute(root, "labels") == "x y"
    assert attribute(root, "tags") == '{"n": {"k": 1}, "site": "sea"}'
    assert attribute(root, "tags.site") == "sea"
    assert attribute(root, "tags.n") == '{"k": 1}'
    assert attribute(root, "metadata_hash") == (root / ".metadata_hash").read_text().strip()
    assert_lives_at(root, dataset, "")
    assert_absent(root, "timestamp", "tags.unknown")


@pytest.mark.parametrize(
    ("directory", "files"),
    [
        ("", ("full.csv", "bare", "sub/naive.csv", "sub/deep/empty.csv")),
        ("sub", ("sub/naive.csv", "sub/deep/empty.csv")),
        ("sub/deep", ("sub/deep/empty.csv",)),
        ("hollow", ()),
        ("by-label/a", ("full.csv", "sub/naive.csv")),
        ("by-label/a/sub", ("sub/naive.csv",)),
        ("not/by-label/a", ("bare", "sub/deep/empty.csv")),
        ("by-ext/csv/order-by/name", ("full.csv", "sub/naive.csv", "sub/deep/empty.csv")),
        ("filter/size_bytes__gt=1000", ()),
        ("sub/by-tag/k/v/deep", ("sub/deep/empty.csv",)),
    ],
)
def test_every_directory_counts_what_is_in_and_below(dataset: Mounted, directory: str, files: tuple[str, ...]) -> None:
    folder = dataset / directory
    assert attribute(folder, "count") == str(len(files))
    assert attribute(folder, "size_bytes") == str(sum(len(PLAN[path].data) for path in files))
    assert attribute(folder, "hash") == set_hash(PLAN[path] for path in files)


@pytest.mark.parametrize(
    "directory", ["sub", "hollow", "by-label/a", "by-label/a/sub", "order-by/name", "sub/by-label/a"]
)
def test_a_directory_that_is_no_datasets_root_has_nothing_of_the_datasets(dataset: Mounted, directory: str) -> None:
    assert_absent(dataset / directory, *(EVERYTHING - OF_DIRECTORY), "tags.site")


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_without_metadata_has_a_stable_id_and_its_folders_name(gcs_server: GcsServer, kind: str) -> None:
    with empty_source(kind, gcs_server) as source:
        source.put("f", b"f")
        if isinstance(source, Prefix):
            source.put("x.octue", b"x", {"octue__labels": '["a"]'})
        with mounted_source(source, Plan(())) as it:
            assert attribute(it.root, "name") == "set"
            assert uuid.UUID(attribute(it.root, "id")).version == 5
            assert attribute(it.root, "id") != attribute(it / "f", "id")
            assert_absent(it.root, "labels", "tags")
            assert listed(it.root) == set()
            assert listed(it / "f") == set()
            if isinstance(source, Prefix):  # no datafile, whatever its custom metadata says
                assert_absent(it / "x.octue", *EVERYTHING)
                assert listed(it / "x.octue") == set()


def test_what_is_made_by_the_mount_has_no_attributes(dataset: Mounted) -> None:
    for path in (".hash", ".hashes", ".octuefs", ".octuefs/status", "by-label/a/.hash"):
        assert_absent(dataset / path, *EVERYTHING)
        assert listed(dataset / path) == set()


def test_metadata_files_have_none_of_octues_attributes(dataset: Mounted) -> None:
    for path in (".octue", "sub/.octue", "by-label/a/.octue"):
        assert_absent(dataset / path, *EVERYTHING)
        assert listed(dataset / path) == set()


# --- listing ----------------------------------------------------------------------------------------------------------


def test_listing_has_what_is_set_and_can_be_set(dataset: Mounted) -> None:
    assert listed(dataset / "full.csv") == own(*SETTABLE_OF_FILE)
    assert listed(dataset / "by-label/a/full.csv") == own(*SETTABLE_OF_FILE)
    assert listed(dataset / "sub/naive.csv") == own("labels", "timestamp")
    assert listed(dataset / "sub/deep/empty.csv") == own("tags")
    assert listed(dataset / "bare") == set()
    assert listed(dataset.root) == own(*SETTABLE_OF_DATASET)
    for directory in ("sub", "hollow", "by-label", "by-label/a", "by-label/a/sub", "filter", "not/by-ext/csv"):
        assert listed(dataset / directory) == set()


def test_whatever_is_listed_can_be_read(dataset: Mounted) -> None:
    for path in ("", "full.csv", "sub/naive.csv", "by-label/a/full.csv"):
        for name in os.listxattr(dataset / path):
            assert os.getxattr(dataset / path, name)


def test_getfattr_prints_what_is_set_and_whatever_is_asked_for_by_name(dataset: Mounted) -> None:
    file = dataset / "sub/naive.csv"
    dump = subprocess.check_output(["getfattr", "-d", "--absolute-names", file], text=True).splitlines()
    assert [line.partition("=")[0] for line in dump[1:] if line] == ["user.octue.labels", "user.octue.timestamp"]
    said = subprocess.check_output(
        ["getfattr", "--only-values", "--absolute-names", "-n", "user.octue.hash", file], text=True
    )
    assert said == crc32c(b"1,2\n")


def test_a_copy_with_attributes_carries_what_is_set(dataset: Mounted, tmp_path: Path) -> None:
    if not _keeps_attributes(tmp_path):
        pytest.fail(f"{tmp_path} keeps no extended attributes; these tests need a file system that does")
    subprocess.run(["cp", "-a", dataset / "full.csv", tmp_path / "copy"], check=True)
    assert listed(tmp_path / "copy") == own(*SETTABLE_OF_FILE)
    assert attribute(tmp_path / "copy", "labels") == "a b c-1"
    subprocess.run(["rsync", "-aX", dataset / "full.csv", tmp_path / "synced"], check=True)
    assert listed(tmp_path / "synced") == own(*SETTABLE_OF_FILE)


def _keeps_attributes(folder: Path) -> bool:
    try:
        os.setxattr(folder, "user.octuefs-tests", b"1")
        os.removexattr(folder, "user.octuefs-tests")
    except OSError:
        return False
    return True


# --- foreign names ----------------------------------------------------------------------------------------------------


def test_foreign_names_of_a_local_dataset_pass_through(gcs_server: GcsServer) -> None:
    plan = Plan((File("f", b"f", labels=("a",)), File("sub/g", b"g")), dataset={"name": "n"})
    with empty_source("local", gcs_server) as source:
        assert isinstance(source, Folder)
        source.store(plan)
        foreign = {"f": b"\0\xffbinary", "sub": b"of a folder", "": b"of the root", ".octue": b"of metadata"}
        for path, value in foreign.items():
            os.setxattr(source.path / path, "user.foreign", value)
        os.setxattr(source.path / "f", "user.empty", b"")
        # Names of ours that a copy left on the disk are not what we answer with.
        os.setxattr(source.path / "f", "user.octue.labels", b"stale")
        os.setxattr(source.path / "sub/g", "user.octue.labels", b"stale")
        os.setxattr(source.path / ".octue", "user.octue.labels", b"stale")
        with mounted_source(source, plan) as it:
            for path, value in foreign.items():
                assert os.getxattr(it / path, "user.foreign") == value
                assert "user.foreign" in listed(it / path)
            assert os.getxattr(it / "f", "user.empty") == b""
            assert listed(it / "f") == {"user.foreign", "user.empty", "user.octue.labels"}
            assert listed(it / "by-label/a/f") == listed(it / "f")
            assert os.getxattr(it / "by-label/a/f", "user.foreign") == foreign["f"]
            assert attribute(it / "f", "labels") == "a"
            assert_absent(it / "sub/g", "labels")
            assert_absent(it / ".octue", "labels")
            assert listed(it / "sub/g") == set()
            assert listed(it / ".octue") == {"user.foreign"}
            for path in ("f", "sub", ""):
                with fails_with(errno.ENODATA):
                    os.getxattr(it / path, "user.unknown")


def test_foreign_names_are_not_supported_in_the_cloud(dataset: Mounted) -> None:
    if dataset.in_cloud:
        for path in ("full.csv", "by-label/a/full.csv", "", "sub"):
            with fails_with(errno.ENOTSUP):
                os.getxattr(dataset / path, "user.foreign")
    else:
        for path in ("full.csv", "by-label/a/full.csv", "", "sub"):
            with fails_with(errno.ENODATA):
                os.getxattr(dataset / path, "user.foreign")


def test_system_names_are_not_supported(dataset: Mounted) -> None:
    paths = (
        "",
        "full.csv",
        "sub",
        "by-label",
        "by-label/a",
        "by-label/a/full.csv",
        ".hash",
        ".octue",
        ".octuefs/status",
    )
    for path in paths:
        for name in ("system.octue", "system.posix_acl_access"):
            with fails_with(errno.ENOTSUP):
                os.getxattr(dataset / path, name)


# --- hashes of local files --------------------------------------------------------------------------------------------


def settled(folder: Path) -> None:
    """Wait until the files of a folder are old enough for their hashes to be remembered."""
    newest = max(path.lstat().st_ctime_ns for path in folder.rglob("*"))
    wait_until(lambda: time.time_ns() - newest > 300_000_000)


def test_a_hash_is_computed_once_per_content_over_mounts(gcs_server: GcsServer) -> None:
    plan = Plan(tuple(File(f"f{number}", b"%d" % number) for number in range(5)))
    with empty_source("local", gcs_server) as source:
        assert isinstance(source, Folder)
        source.store(plan)
        settled(source.path)
        with mounted_source(source, plan) as it:
            assert it.status()["files_hashed"] == 0, "nothing is read before it is asked for"
            assert attribute(it / "f0", "hash") == crc32c(b"0")
            assert it.status()["files_hashed"] == 1
            assert it.status()["counts"]["not_hashed"] == 4
            assert attribute(it.root, "hash") == set_hash(plan.files)
            assert attribute(it / "by-ext/_", "hash") == set_hash(plan.files)
            assert attribute(it / "f0", "hash") == crc32c(b"0")
            assert it.status()["files_hashed"] == 5
            assert it.status()["counts"]["not_hashed"] == 0

        source.put("f1", b"changed")
        os.rename(source.path / "f2", source.path / "renamed")
        settled(source.path)
        now = (*(file for file in plan.files if file.path not in ("f1", "f2")), File("f1", b"changed"), plan["f2"])
        with mounted_source(source, plan) as it:
            assert attribute(it.root, "hash") == set_hash(now)
            # A rename sets the ctime, so by what is remembered it may be another content.
            assert it.status()["files_hashed"] in (1, 2)
            before = it.status()["files_hashed"]

            for text in (b"changed while mounted", b"of the same size once", b"of the same size more"):
                source.put("f3", text)
                wait_until(lambda text=text: attribute(it / "f3", "hash") == crc32c(text))
                others = [file for file in now if file.path != "f3"]
                assert attribute(it.root, "hash") == set_hash([*others, File("f3", text)])
            assert it.status()["files_hashed"] - before >= 3
            assert it.status()["counts"]["not_hashed"] == 0


def test_hashes_of_objects_are_the_stores_and_nothing_is_read_for_them(dataset: Mounted) -> None:
    assert attribute(dataset.root, "hash") == set_hash(PLAN.files)
    status = dataset.status()
    assert status["counts"]["not_hashed"] == 0
    assert (status["files_hashed"] == 0) == dataset.in_cloud


# --- timestamps -------------------------------------------------------------------------------------------------------


def test_a_timestamp_that_is_stored_as_a_number_is_local_time_of_the_daemon(gcs_server: GcsServer) -> None:
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    record = {"timestamp": moment.timestamp(), "labels": [], "tags": {}}
    with empty_source("local", gcs_server) as source:
        source.put("f", b"f")
        source.put("text", b"t")
        records = {"f": record, "text": {**record, "timestamp": "2024-07-01T12:00:00"}}
        source.put(".octue", json.dumps({"datafiles": records}).encode())
        with mounted_source(source, Plan(()), zone="Asia/Tokyo") as it:
            assert attribute(it / "f", "timestamp") == "2024-07-01T21:00:00"
            assert_absent(it / "text", "timestamp")
            assert "text" in (it / ".octuefs/errors").read_text()
