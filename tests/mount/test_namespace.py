"""The namespace (DESIGN 3): which names a directory lists, which only answer, and what they say."""

import errno
import json
import os
import shutil
import stat
import subprocess
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime
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
    document,
    empty_source,
    fails_with,
    files_in,
    mounted_plan,
    mounted_source,
    names,
    set_hash,
    wait_until,
    walk,
)

from support.gcs import GcsServer
from support.mounting import DRIVERS, environment_for, run_octuefs

DATASET_ID = "0d5b8e0e-7a3c-4d0e-9c3e-0b7a4f2f9a01"
FILE_ID = "3c8f7a56-1d7e-4b1a-8a51-2f6f9d3c0e11"

PLAN = Plan(
    files=(
        File("plain", b"no metadata\n"),
        File("top.csv", b"1,2\n", id=FILE_ID, labels=("a", "b"), tags={"z": 1, "a": None}),
        File("copy.csv", b"1,2\n", labels=("b",)),
        File("sub/jan.csv", b"jan\n", labels=("a",), timestamp=datetime(2024, 1, 31, tzinfo=UTC)),
        File("sub/feb.txt", b"feb\n", labels=("only",)),
        File("sub/deep/er/mar.csv", b"mar\n", labels=("a",), tags={"n": {"k": [1, "x"]}}),
        File("sub/deep/bare", b""),
        File("with space/ä 漢.csv", b"names\n"),
    ),
    dataset={"id": DATASET_ID, "name": "set of tests", "tags": {"site": "sea"}, "labels": ["first", "second"]},
    empty_folders=("hollow", "sub/hollow"),
)

TEXTS = (".hash", ".hashes", ".metadata_hash")
VIEWS = ("by-date", "by-ext", "by-hash", "by-id", "by-label", "by-tag", "filter", "not", "order-by")
CONTROL = ("errors", "refresh", "status", "views")

REAL = ("", "sub", "sub/deep", "sub/deep/er")
IN_VIEWS = (
    "by-label/a",
    "by-label/a/sub",
    "by-label/a/sub/deep/er",
    "sub/by-label/a",
    "sub/deep/not/by-label/a",
    "by-ext/csv/not/by-label/b",
    "filter/size_bytes__gt=1/sub/deep/by-label/a/er",
    "order-by/name",
    "by-label/a/order-by/-size_bytes",
)
EVERY_DIRECTORY = (*REAL, *IN_VIEWS)
INDEX_FOLDERS = (
    "by-label",
    "by-ext",
    "by-tag",
    "by-tag/n.k",
    "by-tag/z",
    "by-date",
    "by-date/2024",
    "by-date/2024/01",
    "by-id",
    "by-hash",
    "filter",
    "not",
    "not/by-label",
    "order-by",
    "sub/by-label",
    "by-label/a/by-ext",
)


@pytest.fixture(scope="module", params=KINDS)
def dataset(request: pytest.FixtureRequest, gcs_server: GcsServer) -> Iterator[Mounted]:
    with mounted_plan(request.param, gcs_server, PLAN) as it:
        yield it


def below(folder: str, files: tuple[File, ...] = PLAN.files) -> dict[str, File]:
    """The files in and below a folder, by path relative to it."""
    skip = len(folder) + 1 if folder else 0
    return {file.path[skip:]: file for file in files if not folder or file.path.startswith(folder + "/")}


def shown_in(directory: str) -> dict[str, File]:
    """What PLAN shows in one of EVERY_DIRECTORY, by relative path, written down by hand."""
    return {
        "by-label/a": {path: PLAN[path] for path in ("top.csv", "sub/jan.csv", "sub/deep/er/mar.csv")},
        "by-label/a/sub": {"jan.csv": PLAN["sub/jan.csv"], "deep/er/mar.csv": PLAN["sub/deep/er/mar.csv"]},
        "by-label/a/sub/deep/er": {"mar.csv": PLAN["sub/deep/er/mar.csv"]},
        "sub/by-label/a": {"jan.csv": PLAN["sub/jan.csv"], "deep/er/mar.csv": PLAN["sub/deep/er/mar.csv"]},
        "sub/deep/not/by-label/a": {"bare": PLAN["sub/deep/bare"]},
        "by-ext/csv/not/by-label/b": {
            path: PLAN[path] for path in ("sub/jan.csv", "sub/deep/er/mar.csv", "with space/ä 漢.csv")
        },
        "filter/size_bytes__gt=1/sub/deep/by-label/a/er": {"mar.csv": PLAN["sub/deep/er/mar.csv"]},
        "order-by/name": {
            f"{number:06}_{file.name}": file
            for number, file in enumerate(sorted(PLAN.files, key=lambda file: file.name), 1)
        },
        "by-label/a/order-by/-size_bytes": {
            "000001_mar.csv": PLAN["sub/deep/er/mar.csv"],
            "000002_jan.csv": PLAN["sub/jan.csv"],
            "000003_top.csv": PLAN["top.csv"],
        },
    }.get(directory) or below(directory)


def listed_by(files: dict[str, File]) -> set[str]:
    """All paths that lead to these files, folders included."""
    return {"/".join(path.split("/")[:count]) for path in files for count in range(1, path.count("/") + 2)}


# --- listed, and not ------------------------------------------------------------------------------------------------


def test_the_mount_lists_the_dataset_and_its_metadata_and_nothing_else(dataset: Mounted) -> None:
    folders_with_records = {"", "sub", "sub/deep/er"}
    expected = listed_by(below("")) | set(PLAN.empty_folders)
    expected |= {f"{folder}/.octue".lstrip("/") for folder in folders_with_records}
    assert set(walk(dataset.root)) == expected


@pytest.mark.parametrize("directory", IN_VIEWS)
def test_a_view_lists_its_files_with_their_folders_and_records_and_nothing_else(
    dataset: Mounted, directory: str
) -> None:
    listed = walk(dataset / directory)
    expected = listed_by(shown_in(directory))
    assert {path for path in listed if path.rpartition("/")[2] != ".octue"} == expected
    for folder in ("", *(path for path, is_folder in listed.items() if is_folder)):
        in_folder = [file for path, file in shown_in(directory).items() if path.rpartition("/")[0] == folder]
        there = any(file.has_record for file in in_folder) or (folder == "" and is_top(directory))
        assert (f"{folder}/.octue".lstrip("/") in listed) == there


def is_top(directory: str) -> bool:
    """Say whether a directory is where a view begins."""
    return directory not in (
        "by-label/a/sub",
        "by-label/a/sub/deep/er",
        "filter/size_bytes__gt=1/sub/deep/by-label/a/er",
    )


@pytest.mark.parametrize("directory", EVERY_DIRECTORY)
def test_the_virtual_names_answer_in_every_directory_and_are_not_listed(dataset: Mounted, directory: str) -> None:
    for name in TEXTS:
        assert stat.S_ISREG((dataset / directory / name).lstat().st_mode)
    for name in VIEWS:
        assert stat.S_ISDIR((dataset / directory / name).lstat().st_mode)
    assert not {*TEXTS, *VIEWS, ".one", ".octuefs"} & set(names(dataset / directory))


@pytest.mark.parametrize("folder", INDEX_FOLDERS)
def test_no_virtual_name_answers_in_an_index_folder(dataset: Mounted, folder: str) -> None:
    # `not` is followed by a view; one that leads to a file or leaves nothing out is none for it.
    answering = set(VIEWS) - {"by-id", "order-by"} if folder == "not" else set()
    if folder == "by-tag/n.k":  # a list is no value, so nothing is here at all
        assert not (dataset / folder).exists()
        return
    for name in (*TEXTS, *VIEWS, ".one", ".octue", ".octuefs"):
        assert os.path.lexists(dataset / folder / name) == (name in answering), name
    assert not {*TEXTS, *VIEWS, ".octue"} & set(names(dataset / folder))


@pytest.mark.parametrize("folder", ["filter", "not", "sub/filter", "by-label/a/not"])
def test_filter_and_not_list_nothing(dataset: Mounted, folder: str) -> None:
    assert names(dataset / folder) == []


def test_an_unknown_name_is_not_there(dataset: Mounted) -> None:
    for directory in EVERY_DIRECTORY:
        for name in ("nothing", "by-nothing", ".hash2", ".octue.lock", "BY-LABEL", "by-label "):
            with fails_with(errno.ENOENT):
                (dataset / directory / name).lstat()


def test_nothing_is_below_a_file(dataset: Mounted) -> None:
    for file in ("plain", "by-label/a/top.csv", ".hash", f"by-id/{FILE_ID}", ".octuefs/status"):
        for name in ("x", ".hash", "by-label"):
            with fails_with(errno.ENOTDIR):
                (dataset / file / name).lstat()


def test_empty_folders_are_listed_and_left_out_of_views(dataset: Mounted) -> None:
    assert {"hollow", "sub"} <= set(names(dataset.root))
    assert names(dataset / "hollow") == []
    assert (dataset / "hollow/.hash").read_text() == f"{set_hash([])}\n"
    for view in ("filter/size_bytes__gte=0", "not/by-label/only"):
        assert "hollow" not in names(dataset / view)
        assert "hollow" not in names(dataset / view / "sub")
        with fails_with(errno.ENOENT):
            (dataset / view / "hollow").lstat()


def test_a_file_has_one_inode_number_in_every_view(dataset: Mounted) -> None:
    paths = (
        "top.csv",
        "by-label/a/top.csv",
        "by-label/b/by-ext/csv/top.csv",
        f"by-id/{FILE_ID}",
        "not/by-ext/_/top.csv",
    )
    assert len({(dataset / path).stat().st_ino for path in paths}) == 1
    listed = {entry.inode() for entry in os.scandir(dataset / "by-label/a") if entry.name == "top.csv"}
    assert listed == {(dataset / "top.csv").stat().st_ino}


def test_view_folders_have_inode_numbers_of_their_own(dataset: Mounted) -> None:
    folders = ("", "sub", "by-label", "by-label/a", "by-label/a/sub", "by-ext", "by-ext/csv", "sub/by-label/a", "not")
    assert len({(dataset / folder).stat().st_ino for folder in folders}) == len(folders)
    for folder in ("by-label", "by-label/a", "by-ext", "order-by/name", "by-id", ""):
        for entry in os.scandir(dataset / folder):
            assert entry.inode() == entry.stat(follow_symlinks=False).st_ino, entry.path


# --- .octue -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["", "sub", "sub/deep/er"])
def test_octue_is_the_metadata_of_the_folder_in_the_sdks_format(dataset: Mounted, folder: str) -> None:
    text = (dataset / folder / ".octue").read_text()
    assert_says(json.loads(text), PLAN.octue(folder))
    assert text == json.dumps(json.loads(text), indent=4) + "\n"
    assert text.isascii()


@pytest.mark.parametrize("folder", ["sub/deep", "with space", "hollow", "by-ext/_", "not/by-ext/csv/sub/deep"])
def test_octue_is_absent_where_there_is_no_metadata(dataset: Mounted, folder: str) -> None:
    if folder == "by-ext/_":  # the view's top has the dataset's record at least
        assert "datafiles" not in document(dataset / folder / ".octue")
        folder += "/sub/deep"
    assert ".octue" not in names(dataset / folder)
    with fails_with(errno.ENOENT):
        (dataset / folder / ".octue").lstat()


@pytest.mark.parametrize("directory", IN_VIEWS)
def test_octue_of_a_view_has_the_records_of_its_files_and_at_its_top_the_datasets(
    dataset: Mounted, directory: str
) -> None:
    files = shown_in(directory)
    for folder in {"", *(path.rpartition("/")[0] for path in files)}:
        records = {
            path.rpartition("/")[2]: file.record
            for path, file in files.items()
            if path.rpartition("/")[0] == folder and file.has_record
        }
        expected: dict[str, Any] = {"datafiles": records} if records else {}
        if folder == "" and is_top(directory):
            expected["dataset"] = dict(PLAN.dataset or {})
        if expected:
            assert_says(document(dataset / directory / folder / ".octue"), expected)
        else:
            assert not (dataset / directory / folder / ".octue").exists()


def assert_says(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare two documents, their order included."""
    assert found == expected
    assert list(found) == list(expected)
    for name, record in expected.get("datafiles", {}).items():
        assert list(found["datafiles"][name]["tags"]) == list(record["tags"]), "the stored order of tags is kept"


def test_a_copy_of_the_mount_is_a_complete_local_dataset(dataset: Mounted, tmp_path: Path) -> None:
    shutil.copytree(dataset.root, tmp_path / "copy")
    assert_is_local(tmp_path / "copy", PLAN)


def assert_is_local(folder: Path, plan: Plan) -> None:
    assert files_in(folder) == {file.path for file in plan.files}
    for file in plan.files:
        assert (folder / file.path).read_bytes() == file.data
        octue = folder / file.folder / ".octue"
        record = document(octue)["datafiles"].get(file.name) if octue.exists() else None
        assert record == (file.record if file.has_record else None)
    assert document(folder / ".octue").get("dataset") == plan.dataset


def test_a_dataset_without_metadata_lists_none(gcs_server: GcsServer, bare: Mounted) -> None:
    assert set(walk(bare.root)) == {"a", "sub", "sub/b"}
    for folder in ("", "sub", "by-ext/_", "by-ext/_/sub"):
        with fails_with(errno.ENOENT):
            (bare / folder / ".octue").lstat()


@pytest.fixture(scope="module", params=KINDS)
def bare(request: pytest.FixtureRequest, gcs_server: GcsServer) -> Iterator[Mounted]:
    """Two files without any metadata."""
    with mounted_plan(request.param, gcs_server, Plan((File("a", b"a"), File("sub/b", b"b")))) as it:
        yield it


# --- .hash, .hashes, .metadata_hash, .one ----------------------------------------------------------------------------


@pytest.mark.parametrize("directory", EVERY_DIRECTORY)
def test_hash_is_that_of_the_datafiles_in_and_below(dataset: Mounted, directory: str) -> None:
    assert (dataset / directory / ".hash").read_text() == set_hash(shown_in(directory).values()) + "\n"


@pytest.mark.parametrize("directory", EVERY_DIRECTORY)
def test_hashes_has_a_line_for_each_datafile_sorted_by_path(dataset: Mounted, directory: str) -> None:
    expected = [(path.encode(), file.hash) for path, file in shown_in(directory).items()]
    text = b"".join(value.encode() + b"  " + path + b"\n" for path, value in sorted(expected))
    assert (dataset / directory / ".hashes").read_bytes() == text


def test_the_hash_of_nothing_is_that_of_an_empty_set(dataset: Mounted) -> None:
    empty = dataset / "filter/size_bytes__gt=1000000"
    assert (empty / ".hash").read_text() == crc32c(b"[]") + "\n"
    assert (empty / ".hashes").read_bytes() == b""
    assert (empty / ".hashes").stat().st_size == 0


@pytest.mark.parametrize("directory", EVERY_DIRECTORY)
def test_the_metadata_hash_is_the_datasets(dataset: Mounted, directory: str) -> None:
    text = "[('labels', LabelSet({'first', 'second'})), ('name', 'set of tests'), ('tags', {'site': 'sea'})]"
    assert (dataset / directory / ".metadata_hash").read_text() == crc32c(text.encode()) + "\n"


def test_the_metadata_hash_of_a_dataset_without_metadata_has_its_folders_name(bare: Mounted) -> None:
    text = "[('labels', LabelSet()), ('name', 'set'), ('tags', {})]"
    assert (bare / ".metadata_hash").read_text() == crc32c(text.encode()) + "\n"


@pytest.mark.parametrize("directory", ["", "by-label/a", "sub"])
def test_one_is_ambiguous_where_there_are_several(dataset: Mounted, directory: str) -> None:
    with fails_with(errno.ENOTUNIQ):
        (dataset / directory / ".one").readlink()
    with fails_with(errno.ENOTUNIQ):
        (dataset / directory / ".one").lstat()


@pytest.mark.parametrize("directory", ["hollow", "filter/size_bytes__gt=1000000"])
def test_one_is_not_there_where_there_is_none(dataset: Mounted, directory: str) -> None:
    with fails_with(errno.ENOENT):
        (dataset / directory / ".one").readlink()


@pytest.mark.parametrize(
    ("directory", "target"),
    [
        ("by-label/only", "sub/feb.txt"),
        ("by-label/only/sub", "feb.txt"),
        ("sub/by-label/only", "feb.txt"),
        ("sub/deep/er", "mar.csv"),
        ("sub/by-label/a/deep", "er/mar.csv"),
        ("by-label/only/order-by/name", "000001_feb.txt"),
        ("with space", "ä 漢.csv"),
    ],
)
def test_one_is_a_relative_link_to_the_only_datafile(dataset: Mounted, directory: str, target: str) -> None:
    link = dataset / directory / ".one"
    assert stat.S_ISLNK(link.lstat().st_mode)
    assert os.readlink(link) == target
    assert link.lstat().st_size == len(target.encode())
    assert link.read_bytes() == (dataset / directory / target).read_bytes()
    assert link.stat().st_ino == (dataset / directory / target).stat().st_ino


@pytest.mark.parametrize("directory", EVERY_DIRECTORY)
def test_the_size_of_a_virtual_file_is_what_is_read(dataset: Mounted, directory: str) -> None:
    for name in (*TEXTS, ".octue"):
        path = dataset / directory / name
        if name in TEXTS or path.exists():
            # By the shell, which asks for the size first, and by read calls until there is no more.
            size = path.stat().st_size
            assert len(path.read_bytes()) == size
            assert len(subprocess.run(["cat", path], capture_output=True, check=True).stdout) == size


def test_virtual_texts_are_read_from_any_offset(dataset: Mounted) -> None:
    for name in (".hashes", ".octue", "by-label/a/.octue", ".octuefs/views"):
        whole = (dataset / name).read_bytes()
        with (dataset / name).open("rb", buffering=0) as file:
            for offset in (0, 1, len(whole) // 2, len(whole) - 1, len(whole), len(whole) + 10):
                assert os.pread(file.fileno(), 7, offset) == whole[offset : offset + 7]


# --- .octuefs/ --------------------------------------------------------------------------------------------------------


def test_the_control_panel_is_reached_in_the_root_alone(dataset: Mounted) -> None:
    assert set(CONTROL) <= set(names(dataset / ".octuefs"))
    for directory in ("sub", "by-label/a", "by-label"):
        assert not (dataset / directory / ".octuefs").exists()
    with fails_with(errno.ENOENT):
        (dataset / ".octuefs/nothing").lstat()


def test_status_says_what_is_mounted(dataset: Mounted) -> None:
    status = dataset.status()
    assert status["source"] == dataset.source.location()
    assert status["driver"] == DRIVERS[0]
    assert status["dataset"] == {"id": DATASET_ID, "name": "set of tests"}
    assert status["counts"]["files"] == len(PLAN.files)
    assert status["counts"]["bytes"] == sum(len(file.data) for file in PLAN.files)
    assert status["counts"]["labels"] == 3
    assert status["failures"] == 0
    assert status["skipped"] == []
    assert status["problems"] == 0
    assert status["sdk_hash_differs"] is False
    assert str(dataset.root) == status["mount_point"]


def test_errors_is_empty_where_all_is_well(dataset: Mounted) -> None:
    assert (dataset / ".octuefs/errors").read_bytes() == b""


def test_views_is_the_table_of_names(dataset: Mounted) -> None:
    text = (dataset / ".octuefs/views").read_text()
    for name in (*TEXTS, *VIEWS, ".octue", ".one", ".octuefs"):
        assert name in text


def test_control_files_have_the_size_that_is_read(dataset: Mounted) -> None:
    for name in ("errors", "views", "refresh"):
        path = dataset / ".octuefs" / name
        assert path.stat().st_size == len(path.read_bytes())
    assert json.loads(subprocess.check_output(["cat", dataset / ".octuefs/status"]))


def test_writing_to_refresh_reads_the_store_again(gcs_server: GcsServer) -> None:
    plan = Plan((File("a", b"a"),))
    with empty_source("cloud", gcs_server) as source:
        source.store(plan)
        with mounted_source(source, plan, "--metadata-ttl", "3600") as it:
            assert names(it.root) == ["a"]
            source.put("b", b"b")
            subprocess.run(["sh", "-c", f"echo now > {it.root}/.octuefs/refresh"], check=True)
            assert names(it.root) == ["a", "b"]
            assert (it / ".hash").read_text() == set_hash([File("a", b"a"), File("b", b"b")]) + "\n"
            source.put("sub/c", b"c")
            (it / ".octuefs/refresh").write_bytes(b"x")
            assert files_in(it.root) == {"a", "b", "sub/c"}
            assert not {"a", "b"} - set(names(it / "by-ext/_"))


def test_the_refresh_command_works_on_a_read_only_mount_where_writing_does_not(gcs_server: GcsServer) -> None:
    plan = Plan((File("a", b"a"),))
    with empty_source("cloud", gcs_server) as source:
        source.store(plan)
        with mounted_source(source, plan, "--read-only", "--metadata-ttl", "3600") as it:
            source.put("b", b"b")
            with fails_with(errno.EROFS):
                (it / ".octuefs/refresh").write_bytes(b"x")
            result = run_octuefs("refresh", it.root, environment=source.environment)
            assert result.returncode == 0, result.stderr
            assert names(it.root) == ["a", "b"]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_list_views_lists_the_views_in_the_datasets_root_and_nowhere_else(gcs_server: GcsServer, kind: str) -> None:
    plan = Plan((File("a.csv", b"a", labels=("l",)), File("sub/b", b"b")))
    with mounted_plan(kind, gcs_server, plan, "--list-views") as it:
        assert set(names(it.root)) == {".octue", "a.csv", "sub", *VIEWS}
        assert names(it / "sub") == ["b"]
        assert names(it / "by-label/l") == [".octue", "a.csv"]
        assert names(it / "by-label") == ["l"]
        assert (it / ".hash").read_text() == set_hash(plan.files) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_no_views_leaves_the_dataset_and_its_metadata(gcs_server: GcsServer, kind: str) -> None:
    plan = Plan(
        (File("a.csv", b"a", labels=("l",)), File("sub/b", b"b")), dataset={"name": "n", "tags": {}, "labels": []}
    )
    with mounted_plan(kind, gcs_server, plan, "--no-views") as it:
        assert set(walk(it.root)) == {".octue", "a.csv", "sub", "sub/b"}
        assert_says(document(it / ".octue"), plan.octue(""))
        for folder in ("", "sub"):
            for name in (*TEXTS, *VIEWS, ".one"):
                with fails_with(errno.ENOENT):
                    (it / folder / name).lstat()


@pytest.mark.parametrize("kind", KINDS)
def test_no_recursive_shows_the_files_directly_in_the_folder(gcs_server: GcsServer, kind: str) -> None:
    plan = Plan((File("a.csv", b"a", labels=("l",)), File("sub/b", b"b"), File("sub/deep/c", b"c", labels=("l",))))
    with mounted_plan(kind, gcs_server, plan, "--no-recursive") as it:
        assert set(walk(it.root)) == {".octue", "a.csv"}
        assert (it / ".hash").read_text() == set_hash([plan["a.csv"]]) + "\n"
        assert names(it / "by-ext") == ["csv"]
        assert files_in(it / "by-label/l") == {"a.csv"}
        assert it.status()["counts"]["files"] == 1


# --- names that stand in each other's way -----------------------------------------------------------------------------

OWN = Plan(
    files=(
        File("by-label/mine", b"mine", labels=("l",)),
        File("by-ext", b"a file", labels=("l",)),
        File(".hash", b"not a hash"),
        File(".one", b"one"),
        File("sub/.hashes", b"not hashes"),
        File("sub/by-tag/x", b"x", tags={"k": 1}),
        File(".octuefs/own", b"own"),
    )
)


@pytest.fixture(scope="module", params=KINDS)
def own(request: pytest.FixtureRequest, gcs_server: GcsServer) -> Iterator[Mounted]:
    """A dataset whose own names are those of views."""
    with mounted_plan(request.param, gcs_server, OWN) as it:
        yield it


def test_the_datasets_own_names_win_over_virtual_ones(own: Mounted) -> None:
    assert files_in(own.root) == {file.path for file in OWN.files}
    for file in OWN.files:
        assert (own / file.path).read_bytes() == file.data
        assert (own / file.path).stat().st_size == len(file.data)
    assert names(own / "by-label") == [".octue", "mine"]
    assert names(own / ".octuefs") == ["own"]
    assert (own / "sub/.hash").read_text() == set_hash(below("sub", OWN.files).values()) + "\n"


def test_each_virtual_name_that_is_hidden_is_logged_once(own: Mounted) -> None:
    folder = Path(environment_for()["XDG_STATE_HOME"])
    name_of_log = own.root.name.replace("_", "-")
    (log,) = folder.rglob(f"{name_of_log}-*.log")
    text = log.read_text()
    said = [line for line in text.splitlines() if "hides the virtual name" in line]
    hidden = ("by-label", "by-ext", ".hash", ".one", ".octuefs", "sub/.hashes", "sub/by-tag")
    for name in hidden:
        assert len([line for line in said if f" {name} " in line]) == 1, name
    assert len(said) == len(hidden)


def test_names_that_are_hidden_in_one_folder_answer_in_others(own: Mounted) -> None:
    assert names(own / "sub/by-ext") == ["_"]
    assert names(own / "by-tag") == ["k"]
    assert (own / "by-label/.hash").read_text() == set_hash([OWN["by-label/mine"]]) + "\n"
    assert names(own / "by-label/by-label") == ["l"]


def test_in_a_view_too_the_datasets_own_names_win(own: Mounted) -> None:
    view = own / "filter/labels__contains=l"
    assert files_in(view) == {"by-label/mine", "by-ext"}
    assert (view / "by-ext").read_bytes() == b"a file"
    assert (view / "by-label/mine").read_bytes() == b"mine"
    assert (view / ".hash").read_text() == set_hash([OWN["by-label/mine"], OWN["by-ext"]]) + "\n"


ODD = Plan(
    files=(
        File("back\\slash.csv", b"1", labels=("l",)),
        File("quote'\"", b"2"),
        File("Zoë", b"3"),
        File("a-b", b"4"),
        File("a/b", b"5"),
        File("a.b", b"6"),
        File("B", b"7"),
        File(" leading", b"8"),
        File("\U0001f30a", b"9"),
        File("\uffee", b"10"),
    )
)
ON_A_DISK = (
    File("new\nline", b"11", labels=("l",)),
    File("re\rturn", b"12"),
    File("all\\\n\r", b"13"),
    File(os.fsdecode(b"\xff\xfe raw"), b"14"),
)
"""Names that objects cannot have: with line feeds and carriage returns, and in no encoding."""


@pytest.mark.parametrize("kind", KINDS)
def test_hashes_sorts_by_bytes_and_escapes_names_as_sha256sum_does(gcs_server: GcsServer, kind: str) -> None:
    plan = Plan(ODD.files if kind == "cloud" else (*ODD.files, *ON_A_DISK))
    with mounted_plan(kind, gcs_server, plan) as it:
        paths = sorted((file.path for file in plan.files), key=os.fsencode)
        lines = os.fsdecode((it / ".hashes").read_bytes()).split("\n")
        assert lines.pop() == ""
        assert len(lines) == len(paths)
        # What the tool itself writes of these names, in this order, without its own hash.
        said = os.fsdecode(subprocess.check_output(["sha256sum", "--", *paths], cwd=it.root)).split("\n")[:-1]
        marks_and_names = [(line.startswith("\\"), line.split("  ", 1)[1]) for line in said]
        assert [(line.startswith("\\"), line.split("  ", 1)[1]) for line in lines] == marks_and_names
        assert [line.lstrip("\\")[:8] for line in lines] == [plan[path].hash for path in paths]
        assert (it / ".hashes").stat().st_size == len((it / ".hashes").read_bytes())
        # Names of any bytes go through links and listings as they are.
        for file in plan.files:
            only = f"filter/hash_value={urllib.parse.quote(file.hash, safe='')}"
            assert os.readlink(it / only / ".one") == file.path
            assert files_in(it / only) == {file.path}


# --- what only a bucket can hold --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_bucket(gcs_server: GcsServer) -> Iterator[Mounted]:
    """Objects that hide each other, that cannot be paths, and that are no datafiles."""
    plan = Plan((File("good.csv", b"good", labels=("l",)), File("a/b", b"below a", labels=("l",))))
    with empty_source("cloud", gcs_server) as source:
        assert isinstance(source, Prefix)
        source.store(plan)
        source.put("a", b"hidden", {"octue__id": json.dumps(FILE_ID), "octue__labels": '["hidden"]'})
        source.put("a//b", b"two slashes", {"octue__labels": '["impossible"]'})
        source.put("../up", b"up")
        source.put("x.octue", b"listed, no datafile", {"octue__labels": '["octue"]'})
        source.put("sub/.octue", b"{}")
        source.put(".signed_metadata_files/signed", b"signed", {"octue__labels": '["signed"]'})
        source.put("more.signed_metadata_files", b"contains", {"octue__labels": '["signed"]'})
        with mounted_source(source, plan) as it:
            yield it


def test_of_an_object_and_a_folder_of_one_name_the_folder_shows_and_the_object_is_reached_by_its_id(
    odd_bucket: Mounted,
) -> None:
    assert names(odd_bucket / "a") == [".octue", "b"]
    assert (odd_bucket / f"by-id/{FILE_ID}").read_bytes() == b"hidden"
    assert "hidden" not in names(odd_bucket / "by-label")


def test_what_cannot_be_a_path_or_is_hidden_is_in_no_hash_and_status_says_so(odd_bucket: Mounted) -> None:
    assert (odd_bucket / ".hash").read_text() == set_hash(odd_bucket.plan.files) + "\n"
    listed = [line.split("  ", 1)[1] for line in (odd_bucket / ".hashes").read_text().splitlines()]
    assert listed == ["a/b", "good.csv"]
    status = odd_bucket.status()
    assert status["sdk_hash_differs"] is True
    assert status["counts"]["files"] == 2
    skipped = {entry["name"]: entry["reason"] for entry in status["skipped"]}
    assert any("a//b" in name for name in skipped)
    assert any("up" in name for name in skipped)
    assert all(skipped.values())
    errors = (odd_bucket / ".octuefs/errors").read_text()
    assert "a//b" in errors


def test_names_that_end_in_octue_are_listed_and_readable_and_no_datafiles(odd_bucket: Mounted) -> None:
    assert "x.octue" in names(odd_bucket.root)
    assert (odd_bucket / "x.octue").read_bytes() == b"listed, no datafile"
    assert "octue" not in names(odd_bucket / "by-label")
    assert "octue" not in names(odd_bucket / "by-ext")
    assert files_in(odd_bucket / "filter/size_bytes__gte=0") == {"a/b", "good.csv"}


def test_signed_metadata_is_reachable_and_not_listed(odd_bucket: Mounted) -> None:
    assert ".signed_metadata_files" not in names(odd_bucket.root)
    assert names(odd_bucket / ".signed_metadata_files") == ["signed"]
    assert (odd_bucket / ".signed_metadata_files/signed").read_bytes() == b"signed"
    assert "signed" not in names(odd_bucket / "by-label")


# --- symbolic links, and what is no file ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linked(gcs_server: GcsServer) -> Iterator[Mounted]:
    """A local dataset with links of every kind."""
    plan = Plan(
        (
            File("sub/target.csv", b"target", labels=("t",)),
            File("plain", b"plain"),
            File("sub/x.octue", b"x", labels=("l",)),
            File(".signed_metadata_files/.octue.bak", b"y"),
        )
    )
    with empty_source("local", gcs_server) as source:
        assert isinstance(source, Folder)
        source.store(plan)
        outside = source.path.parent / "outside"
        outside.write_bytes(b"secret")
        (source.path / "inside.csv").symlink_to("sub/target.csv")
        (source.path / "dangling").symlink_to("nowhere")
        (source.path / "leaving").symlink_to("../outside")
        (source.path / "absolute").symlink_to(outside)
        (source.path / "to-folder").symlink_to("sub")
        os.mkfifo(source.path / "fifo")
        content = {"mine": [1], "datafiles": {"inside.csv": File("inside.csv", labels=("linked",)).record}}
        (source.path / ".octue").write_text(json.dumps(content))
        with mounted_source(source, plan) as it:
            yield it


def test_links_count_as_datafiles_with_their_targets_bytes_or_as_nothing(linked: Mounted) -> None:
    empty = "AAAAAA=="
    expected = {
        "absolute": empty,
        "dangling": empty,
        "inside.csv": crc32c(b"target"),
        "leaving": empty,
        "plain": crc32c(b"plain"),
        "sub/target.csv": crc32c(b"target"),
        "sub/x.octue": crc32c(b"x"),
        ".signed_metadata_files/.octue.bak": crc32c(b"y"),
    }
    lines = (linked / ".hashes").read_text().splitlines()
    assert dict(reversed(line.split("  ", 1)) for line in lines) == expected
    assert (linked / ".hash").read_text() == crc32c(str(sorted(expected.values())).encode()) + "\n"


def test_broken_links_are_named_in_errors(linked: Mounted) -> None:
    errors = (linked / ".octuefs/errors").read_text()
    for name in ("dangling", "leaving", "absolute"):
        assert f"{name}: " in errors
    assert "inside.csv" not in errors
    assert linked.status()["problems"] == 3


def test_links_are_served_as_links_and_links_to_folders_and_fifos_are_no_datafiles(linked: Mounted) -> None:
    assert os.readlink(linked / "inside.csv") == "sub/target.csv"
    assert os.readlink(linked / "leaving") == "../outside"
    assert os.readlink(linked / "to-folder") == "sub"
    assert stat.S_ISFIFO((linked / "fifo").lstat().st_mode)
    everything = files_in(linked / "filter/name__not_equals=x") - {file.path for file in linked.plan.files}
    assert everything == {"absolute", "dangling", "inside.csv", "leaving"}


def test_in_a_view_a_link_to_a_file_is_that_file(linked: Mounted) -> None:
    assert files_in(linked / "by-label/linked") == {"inside.csv"}
    assert (linked / "by-label/linked/inside.csv").read_bytes() == b"target"
    assert names(linked / "by-ext/csv") == [".octue", "inside.csv", "sub"]


def test_on_a_disk_only_the_exact_name_octue_is_special(linked: Mounted) -> None:
    assert {file.path for file in linked.plan.files} <= files_in(linked.root)
    assert names(linked / "by-label/l/sub") == [".octue", "x.octue"]
    assert {"octue", "bak"} <= set(names(linked / "by-ext"))
    assert (linked / "by-label/l/.hash").read_text() == set_hash([linked.plan["sub/x.octue"]]) + "\n"


def test_octue_of_a_local_folder_is_the_file_itself(linked: Mounted) -> None:
    for path in (".octue", "sub/.octue"):
        original = Path(linked.source.url) / path
        assert (linked / path).read_bytes() == original.read_bytes()
        assert (linked / path).stat().st_ino == original.stat().st_ino
        assert (linked / path).stat().st_mtime_ns == original.stat().st_mtime_ns


# --- a dataset that names its files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_whose_record_holds_files_is_those_files(gcs_server: GcsServer, kind: str) -> None:
    plan = Plan((File("a", b"a", labels=("l",)), File("sub/b", b"b"), File("c", b"c", labels=("m",))))
    with empty_source(kind, gcs_server) as source:
        source.store(plan)
        paths = [source.location("a"), source.location("sub/b")]
        put_record(source, plan, {"name": "n", "files": paths})
        with mounted_source(source, plan) as it:
            assert (it / ".hash").read_text() == set_hash([plan["a"], plan["sub/b"]]) + "\n"
            assert files_in(it / "by-ext/_") == {"a", "sub/b"}
            assert names(it / "by-label") == ["l"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_list_of_files_is_none_on_a_disk_and_the_folder_in_the_cloud(gcs_server: GcsServer, kind: str) -> None:
    plan = Plan((File("a", b"a"), File("sub/b", b"b")))
    with empty_source(kind, gcs_server) as source:
        source.store(plan)
        put_record(source, plan, {"name": "n", "files": []})
        with mounted_source(source, plan) as it:
            expected = plan.files if kind == "cloud" else ()
            assert (it / ".hash").read_text() == set_hash(expected) + "\n"


def put_record(source: Folder | Prefix, plan: Plan, record: dict[str, Any]) -> None:
    """Store a dataset's own record beside those of its files."""
    content = {"dataset": record} if source.in_cloud else {**plan.octue(""), "dataset": record}
    source.put(".octue", json.dumps(content).encode())


# --- changes underneath -----------------------------------------------------------------------------------------------


def test_what_changes_in_the_folder_shows_in_every_name(gcs_server: GcsServer) -> None:
    plan = Plan((File("a.csv", b"1", labels=("l",)), File("sub/b.txt", b"2", labels=("m",))))
    with mounted_plan("local", gcs_server, plan) as it:
        source = it.source
        assert isinstance(source, Folder)
        assert (it / ".hash").read_text() == set_hash(plan.files) + "\n"

        source.put("new/c.json", b"3")
        assert (it / "new/c.json").read_bytes() == b"3"
        wait_until(lambda: "json" in names(it / "by-ext"))
        wait_until(lambda: len((it / ".hashes").read_text().splitlines()) == 3)

        source.put("a.csv", b"changed")
        changed = (File("a.csv", b"changed"), plan.files[1], File("new/c.json", b"3"))
        wait_until(lambda: (it / ".hash").read_text() == set_hash(changed) + "\n")
        assert names(it / "by-label") == ["l", "m"], "the labels of a changed file stay"

        (source.path / "sub/.octue").write_text(json.dumps({"datafiles": {"b.txt": {"labels": ["relabelled"]}}}))
        wait_until(lambda: names(it / "by-label") == ["l", "relabelled"])
        assert files_in(it / "by-label/relabelled") == {"sub/b.txt"}

        (source.path / "sub/b.txt").unlink()
        wait_until(lambda: names(it / "by-label") == ["l"])
        wait_until(lambda: not (it / "by-label/relabelled").exists())
        assert it.status()["counts"]["files"] == 2

        (it / ".octuefs/refresh").write_text("now")
        assert it.status()["counts"]["files"] == 2
        shutil.rmtree(source.path / "new")
        wait_until(lambda: names(it / "by-ext") == ["csv"])


def test_a_dataset_within_a_mounted_cloud_prefix_keeps_its_own_record(gcs_server: GcsServer) -> None:
    plan = Plan((File("farm/a.csv", b"1", labels=("l",)), File("farm/sub/b.csv", b"2")))
    record = {"name": "The farm", "labels": ["wind"], "tags": {"height": 80}}
    with empty_source("cloud", gcs_server) as source:
        source.store(plan)
        source.put("farm/.octue", json.dumps({"dataset": record}).encode())
        source.put("other/.octue", b"not JSON at all")
        with mounted_source(source, plan) as it:
            content = json.loads((it / "farm/.octue").read_text())
            assert {key: content["dataset"][key] for key in record} == record
            assert list(content["datafiles"]) == ["a.csv"]
            assert ".octue" in names(it / "farm")
            assert ".octue" not in names(it / "farm/sub")
            assert (it / "other/.octue").read_bytes() == b"not JSON at all"
            assert names(it / "other") == [".octue"]
