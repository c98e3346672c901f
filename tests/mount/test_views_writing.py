"""Views that write (DESIGN 3.2), as programs do it: cp, mv, mkdir, rm, rmdir, ln, rsync and tar in `by-label` and
`by-tag`, and `.octue` in every directory.

All tests of a kind share a mount: each has a folder of its own in it, where all views answer too.
"""

import errno
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mount.datasets import (
    KINDS,
    File,
    Folder,
    Mounted,
    Plan,
    document,
    fails_with,
    files_in,
    mounted_plan,
    names,
    wait_until,
    walk,
)

from support.drivers import over_each_driver
from support.gcs import GcsServer

pytestmark = over_each_driver

ID = "3c8f7a56-1d7e-4b1a-8a51-2f6f9d3c0e11"

FILES = (
    File("one", b"1", labels=("a",), id=ID, tags={"k": 1}),
    File("two.csv", b"22", labels=("a", "b")),
    File("three", b"333"),
    File("sub/four", b"4444", labels=("a",), tags={"k": 2}),
    File("sub/deep/five", b"55555", labels=("a", "c")),
    File("sub/six", b"666666"),
)
DATA = {file.path: file.data for file in FILES}
RECORD = {"id": "0d5b8e0e-7a3c-4d0e-9c3e-0b7a4f2f9a01", "name": "mine", "tags": {}, "labels": ["x"]}
PLAN = Plan(files=(File("first", b"first", labels=("old",)),), dataset=RECORD)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Part:
    """A folder of a mounted dataset that holds `FILES`: a test's own."""

    mount: Mounted
    name: str

    @property
    def root(self) -> Path:
        return self.mount / self.name

    def __truediv__(self, path: str) -> Path:
        return self.root / path


@pytest.fixture(scope="module", params=KINDS)
def mount(request: pytest.FixtureRequest, gcs_server: GcsServer, driver: str) -> Iterator[Mounted]:
    with mounted_plan(request.param, gcs_server, PLAN) as it:
        yield it


@pytest.fixture
def dataset(mount: Mounted) -> Part:
    name = f"t{next(_numbers)}"
    mount.source.store(Plan(tuple(replace(file, path=f"{name}/{file.path}") for file in FILES)))
    (mount / ".octuefs/refresh").write_bytes(b"now")
    return Part(mount, name)


def run(*command: str | Path, code: int = 0) -> str:
    """Run a command to its end; what it says of failures."""
    done = subprocess.run([*command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def labels(path: Path) -> set[str]:
    return set(xattr(path, "labels").split())


def tags(path: Path) -> Any:
    return json.loads(xattr(path, "tags") or "{}")


def xattr(path: Path, name: str) -> str:
    try:
        return os.getxattr(path, f"user.octue.{name}").decode()
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return ""


def stored(it: Part) -> dict[str, bytes]:
    """The files in the store, as it has them itself."""
    source = it.mount.source
    if isinstance(source, Folder):
        top = source.path / it.name
        return {
            str(path.relative_to(top)): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file() and path.name != ".octue"
        }
    bucket, prefix = source.bucket, f"{source.prefix}/{it.name}/"
    found = [item["name"] for item in bucket.list(prefix)]
    return {name.removeprefix(prefix): bucket.get(name) for name in found if not name.endswith(("/", ".octue"))}


def errors(it: Mounted) -> str:
    return (it / ".octuefs/errors").read_text()


# --- creating and removing --------------------------------------------------------------------------------------------


def test_cp_into_a_label_adds_the_file_with_it(dataset: Part, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    run("cp", tmp_path / "new", dataset / "by-label/a/")
    run("cp", tmp_path / "new", dataset / "by-label/a/sub/by-tag/k/2/")
    assert (labels(dataset / "new"), tags(dataset / "new")) == ({"a"}, {})
    assert (labels(dataset / "sub/new"), tags(dataset / "sub/new")) == ({"a"}, {"k": 2})
    assert stored(dataset) == {**DATA, "new": b"new", "sub/new": b"new"}
    assert "new" in names(dataset / "by-label/a")


def test_mkdir_and_mv_relabel(dataset: Part) -> None:
    run("mkdir", dataset / "by-label/new")
    assert "new" in names(dataset / "by-label")
    run("mv", dataset / "by-label/a/one", dataset / "by-label/new/")
    assert labels(dataset / "one") == {"new"}
    assert xattr(dataset / "one", "id") == ID
    assert names(dataset / "by-label/new") == [".octue", "one"]
    assert stored(dataset) == DATA


def test_tags_are_made_and_set(dataset: Part) -> None:
    run("mkdir", "-p", dataset / "by-tag/site/north sea")
    run("mv", dataset / "three", dataset / "by-tag/site/north sea/three")
    assert tags(dataset / "three") == {"site": "north sea"}
    run("mkdir", dataset / "by-tag/k/3")
    run("mv", dataset / "by-tag/k/1/one", dataset / "by-tag/k/3/one")
    assert tags(dataset / "one") == {"k": 3}
    run("rm", dataset / "by-tag/k/3/one")
    assert tags(dataset / "one") == {}
    run("rmdir", dataset / "by-tag/k/3", dataset / "by-tag/k/1")
    assert stored(dataset) == DATA


def test_rm_takes_the_label_away_and_never_the_data(dataset: Part) -> None:
    run("rm", dataset / "by-label/a/by-label/b/two.csv")
    assert labels(dataset / "two.csv") == {"a"}
    run("rm", dataset / "by-label/a/two.csv")
    assert labels(dataset / "two.csv") == set()
    assert stored(dataset) == DATA


@pytest.mark.parametrize("view", ["by-label/a", "by-tag/k"])
def test_rm_r_of_a_view_ends_well_and_touches_no_byte(dataset: Part, view: str) -> None:
    before = {path: (dataset / path).stat() for path in DATA}
    run("rm", "-r", dataset / view)
    assert not (dataset / view).exists()
    assert stored(dataset) == DATA
    for path, status in before.items():
        after = (dataset / path).stat()
        assert (after.st_ino, after.st_size, after.st_mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)
    assert labels(dataset / "sub/deep/five") == ({"c"} if view == "by-label/a" else {"a", "c"})
    assert tags(dataset / "one") == ({"k": 1} if view == "by-label/a" else {})


def test_rmdir_of_a_label_that_files_have_is_refused(dataset: Part) -> None:
    for folder in ("by-label/a", "by-label/a/sub", "by-tag/k", "by-tag/k/1"):
        with fails_with(errno.ENOTEMPTY):
            (dataset / folder).rmdir()


def test_folders_in_views(dataset: Part) -> None:
    run("mkdir", dataset / "by-label/b/sub", dataset / "by-label/b/new")
    assert names(dataset / "by-label/b") == [".octue", "new", "sub", "two.csv"]
    assert names(dataset / "by-label/b/sub") == []
    assert (dataset / "new").is_dir()
    (dataset / "by-label/b/sub/more").write_bytes(b"more")
    assert labels(dataset / "sub/more") == {"b"}
    run("rm", "-r", dataset / "by-label/b/sub")
    run("rmdir", dataset / "by-label/b/new")
    wait_until(lambda: not (dataset / "new").exists())  # the kernel may remember it for a moment
    assert names(dataset / "by-label/b") == [".octue", "two.csv"]
    assert stored(dataset) == {**DATA, "sub/more": b"more"}


def test_what_stands_unseen_is_not_overwritten(dataset: Part, tmp_path: Path) -> None:
    (tmp_path / "three").write_bytes(b"other")
    run("cp", tmp_path / "three", dataset / "by-label/a/", code=1)
    with fails_with(errno.EEXIST):
        (dataset / "by-label/a/three").write_bytes(b"other")
    reasons = [line for line in errors(dataset.mount).splitlines() if f"/{dataset.name}/by-label/a/three: " in line]
    assert "does not show here" in reasons[0]
    run("mv", dataset / "three", dataset / "by-label/a/three")
    assert labels(dataset / "three") == {"a"}
    assert stored(dataset) == DATA


def test_ln_labels_the_very_file(dataset: Part) -> None:
    os.link(dataset / "three", dataset / "by-label/a/three")
    os.link(dataset / "by-ext/csv/two.csv", dataset / "by-label/c/two.csv")
    assert labels(dataset / "three") == {"a"}
    assert labels(dataset / "two.csv") == {"a", "b", "c"}
    assert stored(dataset) == DATA


@pytest.mark.parametrize("view", ["by-ext/_", "filter/size_bytes__lt=100", "by-label/a,b", "not/by-label/c", "by-date"])
def test_what_is_not_ours_to_set_is_refused_with_a_reason(dataset: Part, view: str) -> None:
    with fails_with(errno.EPERM):
        (dataset / view / "new").write_bytes(b"x")
    with fails_with(errno.EPERM):
        (dataset / view / "new").mkdir()
    if view != "by-date":
        with fails_with(errno.EPERM):
            (dataset / view / "one").unlink()
        with fails_with(errno.EPERM):
            (dataset / view / "one").rename(dataset / view / "other")
    reasons = [line for line in errors(dataset.mount).splitlines() if f"create /{dataset.name}/" in line]
    assert view.partition("/")[0] in reasons[0].partition("create ")[2].partition(": ")[2]
    assert stored(dataset) == DATA


def test_files_are_edited_in_place_in_every_view(dataset: Part) -> None:
    for number, view in enumerate(("by-ext/_", "filter/name=one", f"by-id/{ID}", "order-by/-name", "by-label/a")):
        path = dataset / view
        if view.startswith("by-id"):
            path = dataset / view
        elif view.startswith("order-by"):
            path = next(path / it for it in names(path) if it.endswith("_one"))
        else:
            path = path / "one"
        with open(path, "r+b") as file:
            file.write(b"%d" % number)
        assert (dataset / "one").read_bytes() == b"%d" % number
        os.setxattr(path, "user.octue.labels", b"a v%d" % number)
        assert labels(dataset / "one") == {"a", f"v{number}"}


# --- renaming values --------------------------------------------------------------------------------------------------


def test_renaming_a_labels_folder_renames_the_label(dataset: Part) -> None:
    (dataset / "by-label/a").rename(dataset / "by-label/z")
    assert names(dataset / "by-label") == ["b", "c", "z"]
    assert files_in(dataset / "by-label/z") == {"one", "two.csv", "sub/four", "sub/deep/five"}
    with fails_with(errno.ENOTEMPTY):
        (dataset / "by-label/z").rename(dataset / "by-label/b")
    with fails_with(errno.EINVAL):
        (dataset / "by-label/z").rename(dataset / "by-label/Z")
    assert stored(dataset) == DATA


def test_renaming_folders_of_tags_renames_values_and_keys(dataset: Part) -> None:
    run("mv", dataset / "by-tag/k/1", dataset / "by-tag/k/7")
    run("mv", dataset / "by-tag/k", dataset / "by-tag/l")
    assert (tags(dataset / "one"), tags(dataset / "sub/four")) == ({"l": 7}, {"l": 2})


# --- trees ------------------------------------------------------------------------------------------------------------


def a_tree(folder: Path) -> Path:
    """A small local dataset with metadata, as `cp -r` out of a mount makes one."""
    (folder / "tree/in").mkdir(parents=True)
    for path in ("tree/x", "tree/in/y"):
        (folder / path).write_bytes(path.encode())
        record = {"id": None, "timestamp": None, "tags": {"t": 1}, "labels": {"_type": "set", "items": ["own"]}}
        record = {key: value for key, value in record.items() if key != "id"}
        text = json.dumps({"datafiles": {Path(path).name: record}}, indent=4)
        (folder / path).with_name(".octue").write_text(text)
    return folder / "tree"


@pytest.mark.parametrize("how", ["cp -r", "cp -a", "rsync -a", "tar"])
def test_trees_are_copied_into_views_with_their_metadata_and_the_views(dataset: Part, tmp_path: Path, how: str) -> None:
    tree = a_tree(tmp_path)
    if how == "tar":
        run("tar", "-C", tmp_path, "-cf", tmp_path / "t.tar", "tree")
        run("tar", "-C", dataset / "by-label/a", "-xf", tmp_path / "t.tar")
    else:
        run(*how.split(), tree, dataset / "by-label/a/")
    assert stored(dataset) == {**DATA, "tree/x": b"tree/x", "tree/in/y": b"tree/in/y"}
    for path in ("tree/x", "tree/in/y"):
        assert labels(dataset / path) == {"a", "own"}
        assert tags(dataset / path) == {"t": 1}


@pytest.mark.parametrize("how", ["cp -r", "cp -a", "rsync -a", "tar"])
def test_trees_are_copied_into_the_dataset_with_their_metadata(dataset: Part, tmp_path: Path, how: str) -> None:
    tree = a_tree(tmp_path)
    if how == "tar":
        run("tar", "-C", tmp_path, "-cf", tmp_path / "t.tar", "tree")
        run("tar", "-C", dataset.root, "-xf", tmp_path / "t.tar")
    else:
        run(*how.split(), tree, dataset.root)
    assert stored(dataset) == {**DATA, "tree/x": b"tree/x", "tree/in/y": b"tree/in/y"}
    for path in ("tree/x", "tree/in/y"):
        assert labels(dataset / path) == {"own"}
        assert tags(dataset / path) == {"t": 1}


def test_tar_makes_octue_anew_where_a_view_shows_one(dataset: Part, tmp_path: Path) -> None:
    tree = a_tree(tmp_path)
    run("tar", "-C", tree, "-cf", tmp_path / "t.tar", "in", "x", ".octue")
    assert ".octue" in names(dataset / "by-label/a")
    run("tar", "-C", dataset / "by-label/a", "-xf", tmp_path / "t.tar")
    assert ".octue" in names(dataset / "by-label/a")
    assert labels(dataset / "x") == labels(dataset / "in/y") == {"a", "own"}
    assert labels(dataset / "one") == {"a"}


def test_a_whole_view_is_copied_out_and_in_again(dataset: Part, tmp_path: Path) -> None:
    run("cp", "-r", dataset / "by-label/a", tmp_path / "out")
    run("rm", "-r", *(dataset / name for name in ("one", "two.csv", "sub")))
    run("mkdir", dataset / "by-label/back")
    run("cp", "-r", f"{tmp_path}/out/.", dataset / "by-label/back")
    assert files_in(dataset / "by-label/back") == {"one", "two.csv", "sub/four", "sub/deep/five"}
    assert labels(dataset / "two.csv") == {"a", "b", "back"}
    assert tags(dataset / "sub/four") == {"k": 2}
    assert document(dataset.mount / ".octue")["dataset"]["name"] == "mine"
    assert "dataset" not in document(dataset / ".octue")


def test_folders_are_moved_into_views_and_between_them(dataset: Part) -> None:
    run("mkdir", dataset / "by-label/z")
    run("mv", dataset / "by-label/a/sub", dataset / "by-label/z/")
    assert labels(dataset / "sub/four") == {"z"}
    assert labels(dataset / "sub/deep/five") == {"c", "z"}
    assert labels(dataset / "sub/six") == set()
    assert stored(dataset) == DATA
    os.rename(dataset / "sub", dataset / "by-label/z/moved")
    assert labels(dataset / "moved/six") == {"z"}
    assert not (dataset / "sub").exists()


# --- `.octue` ---------------------------------------------------------------------------------------------------------


def test_octue_of_the_dataset_is_written_as_a_file(mount: Mounted) -> None:
    content = document(mount / ".octue")
    content["datafiles"]["first"]["labels"]["items"] = ["new"]
    content["dataset"]["name"] = "renamed"
    (mount / ".octue").write_text(json.dumps(content, indent=4))
    assert labels(mount / "first") == {"new"}
    assert xattr(mount.root, "name") == "renamed"
    assert document(mount / ".octue")["datafiles"]["first"]["labels"]["items"] == ["new"]
    content["dataset"]["name"] = "mine"
    (mount / ".octue").write_text(json.dumps(content, indent=4))
    assert xattr(mount.root, "name") == "mine"


def test_octue_reads_whole_right_after_it_was_written(dataset: Part, tmp_path: Path) -> None:
    """What is stored may be longer than what was written, and a copy has told the kernel the length of that."""
    tree = a_tree(tmp_path)
    for name in ("copy", "by-label/a/copy2"):
        run("cp", "-a", tree, dataset / name)
        assert labels(dataset / name / "x") >= {"own"}
        assert set(document(dataset / name / ".octue")["datafiles"]) == {"x"}


def test_malformed_metadata_is_refused_and_kept(dataset: Part) -> None:
    before = (dataset / ".octue").read_bytes()
    file = os.open(dataset / ".octue", os.O_WRONLY | os.O_TRUNC)
    os.write(file, b'{"datafiles": ')
    with fails_with(errno.EINVAL):
        os.close(file)
    assert (dataset / ".octue").read_bytes() == before
    recovered = dataset.mount / ".octuefs/recovered"
    (kept,) = names(recovered)
    assert (recovered / kept).read_bytes() == b'{"datafiles": '
    run("rm", recovered / kept)
    assert names(recovered) == []
    assert f"{dataset.name}/.octue" in errors(dataset.mount)


def test_an_editor_saves_octue_by_renaming(dataset: Part) -> None:
    content = document(dataset / ".octue")
    content["datafiles"]["one"]["labels"]["items"] = ["new"]
    (dataset / ".octue.swp").write_text(json.dumps(content))
    os.rename(dataset / ".octue.swp", dataset / ".octue")
    assert labels(dataset / "one") == {"new"}
    assert ".octue.swp" not in names(dataset.root)
    assert stored(dataset) == DATA


def test_octue_of_a_view_merges_what_it_names(dataset: Part) -> None:
    content = document(dataset / "by-label/a/.octue")
    content["datafiles"] = {"one": content["datafiles"]["one"]}
    content["datafiles"]["one"]["labels"]["items"] = ["new"]
    (dataset / "by-label/a/.octue").write_text(json.dumps(content))
    assert labels(dataset / "one") == {"a", "new"}
    assert labels(dataset / "two.csv") == {"a", "b"}
    (dataset / "by-label/a/.octue").unlink()
    assert labels(dataset / "one") == {"a", "new"}


def test_removing_octue_removes_the_metadata_of_a_folder(dataset: Part) -> None:
    (dataset / "sub/.octue").unlink()
    assert labels(dataset / "sub/four") == set()
    assert labels(dataset / "sub/deep/five") == {"a", "c"}
    assert names(dataset / "sub") == ["deep", "four", "six"]
    assert stored(dataset) == DATA


def test_octue_is_there_as_soon_as_a_file_has_metadata(dataset: Part) -> None:
    (dataset / "new").mkdir()
    (dataset / "new/file").write_bytes(b"")
    os.setxattr(dataset / "new/file", "user.octue.labels", b"a")
    assert names(dataset / "new") == [".octue", "file"]
    (dataset / "new/file").rename(dataset / "new/other")
    assert list(document(dataset / "new/.octue")["datafiles"]) == ["other"]


def test_octue_is_not_listed_any_more_once_no_file_has_metadata(dataset: Part) -> None:
    (dataset / "new").mkdir()
    for name in ("a", "b"):
        (dataset / "new" / name).write_bytes(b"")
    os.setxattr(dataset / "new/a", "user.octue.labels", b"a")
    os.fsync(folder := os.open(dataset / "new", os.O_RDONLY))
    os.close(folder)
    assert names(dataset / "new") == [".octue", "a", "b"]
    (dataset / "new/a").unlink()
    assert names(dataset / "new") == ["b"]
    assert not (dataset / "new/.octue").exists()


def test_rm_r_of_a_real_folder_ends_well_though_octue_comes_after_the_files(dataset: Part) -> None:
    (dataset / "new").mkdir()
    for name in ("!first", "z"):
        (dataset / "new" / name).write_bytes(b"")
    os.setxattr(dataset / "new/!first", "user.octue.labels", b"a")
    assert os.listdir(dataset / "new") == ["!first", ".octue", "z"]
    run("rm", "-r", dataset / "new")
    assert stored(dataset) == DATA


def test_metadata_waits_for_files_that_come_later(dataset: Part) -> None:
    record = {"labels": {"_type": "set", "items": ["late"]}, "tags": {}, "timestamp": None}
    (dataset / "late").mkdir()
    (dataset / "late/.octue").write_text(json.dumps({"datafiles": {"file": record}}))
    assert names(dataset / "late") == [".octue"]
    assert "file" in document(dataset / "late/.octue")["datafiles"]
    (dataset / "late/file").write_bytes(b"")
    assert labels(dataset / "late/file") == {"late"}


def test_virtual_names_cannot_be_made_or_removed(dataset: Part, mount: Mounted) -> None:
    with fails_with(errno.EPERM):
        os.rename(dataset / "three", dataset / ".hash")
    with fails_with(errno.EPERM):
        os.rename(dataset / "sub", dataset / "by-label")
    for path in (dataset / "by-label", dataset / "by-tag", mount / "by-label", mount / ".octuefs"):
        with fails_with(errno.EPERM):
            path.rmdir()
    with fails_with(errno.EPERM):
        (dataset / ".hash").unlink()
    assert set(walk(dataset.root)) >= set(DATA)


def test_a_refresh_forgets_folders_that_nothing_is_in(dataset: Part) -> None:
    (dataset / "by-label/empty").mkdir()
    (dataset.mount / ".octuefs/refresh").write_bytes(b"now")
    assert "empty" not in names(dataset / "by-label")


def test_the_sync_state_is_told_by_name(dataset: Part) -> None:
    assert xattr(dataset / "three", "sync") == "clean"
    assert "user.octue.sync" not in os.listxattr(dataset / "three")
