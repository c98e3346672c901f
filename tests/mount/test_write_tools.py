"""Ordinary tools write through a mount what they write on a disk, and the metadata that they carry arrives.

At each test's end the store holds exactly what the mount shows (`writing.Place.check`).
"""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mount.conftest import SourceMaker
from mount.trees import DATASET, MIB, File, LocalSource, contents, digest, id_of, run, some_bytes, walk
from mount.writing import Place, Workplace, get, put, workplace_of

from support.mounting import mounted

FILES = {
    "readme.txt": File(b"power of turbines\n", ["text"]),
    "a/2024/jan.csv": File(b"time,power\n1,10\n2,20\n", ["a"], {"cluster": 1}, "2024-01-02T03:04:05"),
    "a/2024/feb.csv": File(b"time,power\n3,30\n", ["a", "b"], {"z": 1, "nested": {"x": [1, None]}, "b": 2}),
    "a/2025/jan.csv": File(b"time,power\n4,40\n", ["a"], {}, "2025-01-02T03:04:05+01:00"),
    "b/notes and power.txt": File("power: größer\n".encode()),
    "b/-rf": File(b"a name like an option\n"),
    "b/風力 'x' \"y\".txt": File(b"power of the wind\n", ["text"]),
    "b/.hidden": File(b"hidden power\n"),
    "binary/empty": File(),
    "binary/blob": File(some_bytes(MIB + 12_345)),
    **{f"many/part-{n:02}.csv": File(b"time,power\n%d,%d\n" % (n, n), ["part"]) for n in range(12)},
}


@pytest.fixture(scope="module", params=["local", "cloud"])
def workplace(request: pytest.FixtureRequest, new_source: SourceMaker) -> Iterator[Workplace]:
    with workplace_of(request.param, new_source, lambda: request.getfixturevalue("gcs_server")) as it:
        yield it


@pytest.fixture
def here(workplace: Workplace) -> Iterator[Place]:
    with workplace.place() as it:
        yield it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local dataset, written as the SDK writes it, for tools to copy from."""
    folder = tmp_path_factory.mktemp("model") / "dataset"
    LocalSource(folder).fill(FILES)
    (folder / "readme.txt").chmod(0o640)
    os.utime(folder / "a" / "2024" / "jan.csv", ns=(10**18, 987_654_321_123_456_789))
    return folder


def data_of(top: Path) -> dict[bytes, Any]:
    """What stands below a folder but for the metadata files."""
    return {path: data for path, data in contents(top).items() if os.path.basename(path) != b".octue"}


def assert_described(top: Path, *, ids: bool = True) -> None:
    """Each of `FILES` below a folder of a mount has its metadata."""
    for path, file in FILES.items():
        assert get(top / path, "labels") == (" ".join(sorted(file.labels)) or None), path
        assert json.loads(get(top / path, "tags") or "{}") == file.tags, path
        assert get(top / path, "timestamp") == file.timestamp, path
        if ids and file.has_record:
            assert get(top / path, "id") == id_of(path), path


def shell(script: str, *arguments: str | Path, cwd: Path | None = None) -> bytes:
    return run("sh", "-ec", script, "sh", *arguments, cwd=cwd)


# --- copying ---------------------------------------------------------------------------------------------------------


def test_cp_r_of_a_dataset_brings_its_metadata(here: Place, model: Path) -> None:
    run("cp", "-r", model, here / "out")
    assert data_of(here / "out") == data_of(model)
    assert_described(here / "out")
    # A dataset of its own within this one.
    assert json.loads((here / "out" / ".octue").read_bytes())["dataset"] == DATASET


def test_cp_a_keeps_modes_and_times_too(here: Place, model: Path) -> None:
    run("cp", "-a", model, here / "out")
    assert data_of(here / "out") == data_of(model)
    assert_described(here / "out")
    here.sync("out/a/2024")
    for path in (*FILES, "a/2024", "a", "many"):
        there, copied = (model / path).stat(), (here / "out" / path).stat()
        assert (copied.st_mode, copied.st_mtime_ns) == (there.st_mode, there.st_mtime_ns), path


def test_a_folder_keeps_the_time_that_it_was_given_though_metadata_are_stored_after_it(here: Place) -> None:
    (here / "folder").mkdir()
    (here / "folder" / "file").write_bytes(b"x")
    put(here / "folder" / "file", "labels", "a")
    os.utime(here / "folder", ns=(10**18, 10**18))
    here.sync("folder")
    assert (here / "folder").stat().st_mtime_ns == 10**18
    if not here.in_cloud:
        assert (here.source_folder / "folder").stat().st_mtime_ns == 10**18


def test_cp_with_xattrs_carries_the_metadata_of_single_files(here: Place) -> None:
    (here / "a").write_bytes(b"content")
    put(here / "a", "labels", "one two")
    put(here / "a", "tags", '{"z": 1, "a": {"x": null}}')
    put(here / "a", "timestamp", "2024-01-02T03:04:05+01:00")
    for options in (["--preserve=xattr"], ["-a"]):
        run("cp", *options, here / "a", here / "b")
        assert get(here / "b", "labels") == "one two"
        assert json.loads(get(here / "b", "tags") or "") == {"z": 1, "a": {"x": None}}
        assert get(here / "b", "timestamp") == "2024-01-02T03:04:05+01:00"
        assert get(here / "b", "id") != get(here / "a", "id")
        os.unlink(here / "b")
        (here / "c").write_bytes(b"between, so that nothing of b is remembered")
    run("cp", here / "a", here / "plain")
    assert get(here / "plain", "labels") is None


def test_cp_over_a_file_keeps_the_metadata_of_the_file(here: Place) -> None:
    (here / "a").write_bytes(b"new content")
    (here / "b").write_bytes(b"old")
    put(here / "b", "labels", "kept")
    before = get(here / "b", "id")
    run("cp", here / "a", here / "b")
    assert here.stored_data("b") == b"new content"
    assert (get(here / "b", "labels"), get(here / "b", "id")) == ("kept", before)


def test_mv_within_the_mount_takes_the_metadata_along(here: Place) -> None:
    (here / "folder").mkdir()
    (here / "a").write_bytes(b"content")
    put(here / "a", "labels", "one")
    identity = get(here / "a", "id")
    run("mv", here / "a", here / "folder" / "b")
    assert here.stored() == {b"folder/b": b"content"}
    assert (get(here / "folder" / "b", "labels"), get(here / "folder" / "b", "id")) == ("one", identity)
    record = here.record("folder/b")
    assert record is not None
    assert record["id"] == identity


def test_mv_from_another_disk_and_back_out(here: Place, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub" / "empty").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "tree" / "sub" / f"{number}").write_bytes(some_bytes(1000, number))
    before = contents(tmp_path / "tree")
    run("mv", tmp_path / "tree", here / "tree")
    assert contents(here / "tree") == before
    run("mv", here / "tree", tmp_path / "back")
    assert contents(tmp_path / "back") == before
    assert os.listdir(here.folder) == []


def test_rsync_copies_a_plain_folder_and_then_finds_nothing_to_do(here: Place, model: Path) -> None:
    assert run("rsync", "-a", f"{model}/", here / "out") == b""
    assert data_of(here / "out") == data_of(model)
    assert_described(here / "out")
    assert run("rsync", "-ai", "--exclude=.octue", f"{model}/", here / "out") == b""
    assert run("rsync", "-aci", "--exclude=.octue", f"{model}/", here / "out") == b""
    assert_described(here / "out")


@pytest.fixture(scope="module")
def mounted_model(model: Path) -> Iterator[Path]:
    with mounted(model, "--read-only") as root:
        yield root


def test_rsync_copies_a_mount_with_attributes_and_then_finds_nothing_to_do(here: Place, mounted_model: Path) -> None:
    # What the root itself has belongs to no folder, so the root is not named.
    names = [mounted_model / name for name in os.listdir(mounted_model)]
    assert run("rsync", "-aX", *names, here / "out") == b""
    assert data_of(here / "out") == data_of(mounted_model)
    assert_described(here / "out")
    for folder in ("out", "out/a/2024", "out/a/2025", "out/b", "out/many"):
        here.sync(folder)
    assert run("rsync", "-aXi", "--exclude=.octue", *names, here / "out") == b""
    assert_described(here / "out")


def test_rsync_without_octue_brings_the_metadata_by_attributes(here: Place, mounted_model: Path) -> None:
    # But for the IDs, which are each file's own.
    assert run("rsync", "-aX", "--exclude=.octue", f"{mounted_model}/a/", here / "out") == b""
    for path, file in FILES.items():
        if path.startswith("a/"):
            copy = here / "out" / path[2:]
            assert get(copy, "labels") == " ".join(sorted(file.labels)), path
            assert get(copy, "timestamp") == file.timestamp, path
    for folder in ("out/2024", "out/2025"):
        here.sync(folder)
    assert run("rsync", "-aXi", "--exclude=.octue", f"{mounted_model}/a/", here / "out") == b""


@pytest.mark.parametrize("copy", [("cp", "-a"), ("rsync", "-aX"), ("rsync", "-a"), ("cp", "-r")])
def test_copies_of_a_mount_have_the_metadata_hashes_of_what_was_copied(
    here: Place, mounted_model: Path, copy: tuple[str, ...]
) -> None:
    """The order of tags counts in it, and an attribute tells tags in another order than `.octue`."""
    run(*copy, mounted_model / "a", here.folder)
    for path in FILES:
        if path.startswith("a/"):
            assert get(here / path, "metadata_hash") == get(mounted_model / path, "metadata_hash"), path
            # With attributes a file may be described, and so have an ID stored, before its `.octue` comes.
            if copy in (("cp", "-r"), ("rsync", "-a")):
                assert get(here / path, "id") == id_of(path), path


def test_rsync_between_two_places_of_a_mount_carries_the_metadata_by_attributes(here: Place) -> None:
    (here / "one").mkdir()
    for name in ("a", "b"):
        (here / "one" / name).write_bytes(name.encode())
        put(here / "one" / name, "labels", f"label-{name}")
    run("rsync", "-aX", "--exclude=.octue", f"{here / 'one'}/", here / "two")
    assert [get(here / "two" / name, "labels") for name in ("a", "b")] == ["label-a", "label-b"]
    assert run("rsync", "-aXi", "--exclude=.octue", f"{here / 'one'}/", here / "two") == b""
    put(here / "one" / "a", "labels", "changed")
    assert b"a" in run("rsync", "-aXi", "--exclude=.octue", f"{here / 'one'}/", here / "two")
    assert get(here / "two" / "a", "labels") == "changed"
    (here / "one" / "b").unlink()
    run("rsync", "-aX", "--delete", "--exclude=.octue", f"{here / 'one'}/", here / "two")
    assert here.stored() == {b"one/a": b"a", b"two/a": b"a"}


def test_rsync_in_place_and_with_appending_changes_only_what_is_new(here: Place, tmp_path: Path) -> None:
    data = some_bytes(600_000)
    (tmp_path / "file").write_bytes(data)
    run("rsync", "-a", tmp_path / "file", here / "file")
    changed = data[:300_000] + b"changed" + data[300_007:] + b"longer"
    (tmp_path / "file").write_bytes(changed)
    run("rsync", "-a", "--inplace", "--no-whole-file", tmp_path / "file", here / "file")
    assert here.stored_data("file") == changed
    with (tmp_path / "file").open("ab") as file:
        file.write(b"and more")
    run("rsync", "-a", "--append", tmp_path / "file", here / "file")
    assert here.stored_data("file") == changed + b"and more"


def test_tar_unpacks_into_a_mount_and_packs_from_it(here: Place, model: Path) -> None:
    archive = run("tar", "--create", "--sort=name", ".", cwd=model)
    (here / "out").mkdir()
    run("tar", "--extract", cwd=here / "out", stdin=archive)
    assert data_of(here / "out") == data_of(model)
    assert_described(here / "out")
    (here / "again").mkdir()
    run("tar", "--extract", cwd=here / "again", stdin=run("tar", "--create", ".", cwd=here / "out"))
    assert data_of(here / "again") == data_of(model)
    assert_described(here / "again")
    for path in FILES:
        # An archive of this format keeps whole seconds.
        assert int((here / "out" / path).stat().st_mtime) == int((model / path).stat().st_mtime), path


def test_tar_writes_an_archive_on_the_mount_and_adds_to_it(here: Place, model: Path) -> None:
    run("tar", "--create", "--file", here / "it.tar", "-C", model, "a")
    run("tar", "--append", "--file", here / "it.tar", "-C", model, "b")
    listed = run("tar", "--list", "--file", here / "it.tar")
    assert b"a/2024/jan.csv" in listed
    assert b"b/-rf" in listed
    run("tar", "--create", "--gzip", "--file", here / "it.tgz", "-C", model, ".")
    run("gzip", "--test", here / "it.tgz")


def test_install_makes_a_file_with_its_mode(here: Place, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"#!/bin/sh\necho installed\n")
    run("install", "-m", "0750", tmp_path / "tool", here / "tool")
    run("install", "-D", "-m", "0640", tmp_path / "tool", here / "some" / "where" / "tool")
    assert stat.S_IMODE((here / "tool").stat().st_mode) == 0o750
    assert stat.S_IMODE((here / "some" / "where" / "tool").stat().st_mode) == 0o640
    assert run(here / "tool") == b"installed\n"


def test_mktemp_makes_private_files_and_folders(here: Place) -> None:
    file = Path(os.fsdecode(run("mktemp", f"--tmpdir={here.folder}").strip()))
    folder = Path(os.fsdecode(run("mktemp", "-d", f"--tmpdir={here.folder}").strip()))
    assert file.read_bytes() == b""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert folder.is_dir()
    assert here.stored() == {os.fsencode(file.name): b""}


# --- editing ---------------------------------------------------------------------------------------------------------


def labelled(here: Place, name: str, data: bytes) -> Path:
    """A file with a record of its own."""
    (here / name).write_bytes(data)
    put(here / name, "labels", "kept")
    put(here / name, "tags", '{"n": 1}')
    put(here / name, "timestamp", "2024-01-02T03:04:05")
    return here / name


def described(path: Path) -> tuple[str | None, ...]:
    return tuple(get(path, name) for name in ("labels", "tags", "timestamp"))


AS_BEFORE = ("kept", '{"n": 1}', "2024-01-02T03:04:05")


def test_sed_i_edits_in_place_and_keeps_the_metadata(here: Place) -> None:
    path = labelled(here, "file.csv", b"one\ntwo\n")
    identity = get(path, "id")
    run("sed", "-i", "s/two/2/", path)
    assert here.stored() == {b"file.csv": b"one\n2\n"}
    assert described(path) == AS_BEFORE
    assert get(path, "id") == identity
    run("sed", "-i.bak", "s/one/1/", path)
    assert here.stored() == {b"file.csv": b"1\n2\n", b"file.csv.bak": b"one\n2\n"}
    assert described(path) == AS_BEFORE


def test_an_editor_that_writes_a_temporary_file_and_renames_keeps_the_metadata(here: Place) -> None:
    path = labelled(here, "file", b"old")
    identity = get(path, "id")
    shell('printf new > "$1.tmp"; sync "$1.tmp"; chmod 600 "$1.tmp"; mv -f "$1.tmp" "$1"', path)
    assert here.stored() == {b"file": b"new"}
    assert described(path) == AS_BEFORE
    assert get(path, "id") == identity


def test_an_editor_that_renames_to_a_backup_and_writes_anew_keeps_the_metadata(here: Place) -> None:
    path = labelled(here, "file", b"old")
    shell('mv "$1" "$1~"; printf new > "$1"; rm "$1~"', path)
    assert here.stored() == {b"file": b"new"}
    assert described(path) == AS_BEFORE


@pytest.mark.parametrize("option", ["backupcopy=no", "backupcopy=yes", "backupcopy=no backup"])
def test_vim_saves_and_keeps_the_metadata(here: Place, option: str) -> None:
    path = labelled(here, "file.txt", b"one\ntwo\n")
    subprocess.run(
        [
            "vim",
            "-u",
            "NONE",
            "-i",
            "NONE",
            "-es",
            "-c",
            f"set backupskip= backupdir=. {option}",
            "-c",
            "%s/two/2/",
            "-c",
            "wq",
            path,
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    assert here.stored_data("file.txt") == b"one\n2\n"
    assert described(path) == AS_BEFORE
    assert set(os.listdir(here.folder)) - {".octue"} == (
        {"file.txt", "file.txt~"} if " backup" in option else {"file.txt"}
    )


def test_shells_redirect_append_and_tee(here: Place) -> None:
    shell('echo one > "$1"; echo two >> "$1"; echo three | tee -a "$1" > "$2"; : > "$3"', *(here / n for n in "abc"))
    assert here.stored() == {b"a": b"one\ntwo\nthree\n", b"b": b"three\n", b"c": b""}


def test_dd_appends_seeks_and_converts_nothing(here: Place) -> None:
    data = some_bytes(700_001)
    run("dd", f"of={here / 'file'}", "bs=64k", "status=none", stdin=data)
    run("dd", f"of={here / 'file'}", "oflag=append", "conv=notrunc", "status=none", stdin=b"the end")
    run("dd", f"of={here / 'file'}", "bs=1", "seek=131070", "conv=notrunc", "status=none", stdin=b"patch")
    expected = data[:131_070] + b"patch" + data[131_075:] + b"the end"
    assert here.stored_data("file") == expected
    run("dd", f"if={here / 'file'}", f"of={here / 'copy'}", "bs=100k", "conv=fsync", "status=none")
    run(
        "dd", f"of={here / 'direct'}", "bs=128k", "oflag=direct", "iflag=fullblock", "status=none", stdin=bytes(262_144)
    )
    assert here.stored_data("copy") == expected
    assert here.stored_data("direct") == bytes(262_144)


def test_truncate_and_fallocate_the_commands(here: Place) -> None:
    run("truncate", "-s", "1000", here / "file")
    run("truncate", "-s", "+24", here / "file")
    run("fallocate", "-l", "5000", here / "other")
    assert here.stored() == {b"file": bytes(1024), b"other": bytes(5000)}


def test_patch_changes_files(here: Place) -> None:
    (here / "file").write_bytes(b"one\ntwo\nthree\n")
    change = b"--- file\n+++ file\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
    run("patch", "--quiet", "-p0", cwd=here.folder, stdin=change)
    assert here.stored() == {b"file": b"one\n2\nthree\n"}


# --- programs with files of their own kinds --------------------------------------------------------------------------


def test_git_keeps_a_repository(here: Place) -> None:
    git = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "gc.auto=0",
        "-c",
        "init.defaultBranch=m",
    ]
    run(*git, "init", "--quiet", "--template=", ".", cwd=here.folder)
    for number in range(3):
        (here / f"file {number}.csv").write_text(f"content {number}\n")
    run(*git, "add", ".", cwd=here.folder)
    run(*git, "commit", "--quiet", "-m", "first", cwd=here.folder)
    (here / "file 1.csv").write_text("changed\n")
    run(*git, "commit", "--quiet", "-a", "-m", "second", cwd=here.folder)
    run(*git, "mv", "file 2.csv", "moved.csv", cwd=here.folder)
    run(*git, "commit", "--quiet", "-m", "third", cwd=here.folder)
    run(*git, "repack", "-a", "-d", "-q", cwd=here.folder)
    subprocess.run([*git, "fsck", "--full", "--strict"], cwd=here.folder, check=True, capture_output=True, timeout=60)
    assert run(*git, "status", "--porcelain", cwd=here.folder) == b""
    assert run(*git, "log", "--format=%s", cwd=here.folder) == b"third\nsecond\nfirst\n"
    run(*git, "checkout", "--quiet", "HEAD~2", cwd=here.folder)
    assert (here / "file 1.csv").read_text() == "content 1\n"


SQLITE = """
import sqlite3, sys
path = sys.argv[1]
with sqlite3.connect(path) as base:
    base.execute("create table power (time integer primary key, kw real)")
    base.executemany("insert into power values (?, ?)", ((n, n * 0.5) for n in range(5000)))
other = sqlite3.connect(path, timeout=0.1, isolation_level=None)
base.execute("begin immediate")
try:
    other.execute("begin immediate")
    print("both")
except sqlite3.OperationalError as error:
    print(error)
base.execute("update power set kw = -1 where time = 7")
base.rollback()
print(other.execute("select count(*), sum(kw) from power").fetchone())
other.execute("delete from power where time >= 4000")
other.execute("vacuum")
print(other.execute("pragma integrity_check").fetchone())
other.close()
base.close()
"""


def test_sqlite_keeps_a_database_on_a_local_dataset(here: Place) -> None:
    if here.in_cloud:
        pytest.skip("an object store is no place for a database; the README says so")
    said = run(sys.executable, "-c", SQLITE, here / "base.sqlite")
    assert said.decode().splitlines() == ["database is locked", "(5000, 6248750.0)", "('ok',)"]
    assert set(os.listdir(here.folder)) == {"base.sqlite"}
    check = "import sqlite3, sys\nprint(sqlite3.connect(sys.argv[1]).execute('select count(*) from power').fetchone())"
    assert run(sys.executable, "-c", check, here.source_folder / "base.sqlite") == b"(4000,)\n"


WAL = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute("pragma locking_mode=exclusive")
print(base.execute("pragma journal_mode=wal").fetchone()[0])
with base:
    base.execute("create table t (n)")
    base.executemany("insert into t values (?)", ((n,) for n in range(1000)))
base.close()
"""


def test_sqlite_works_with_a_log_ahead_on_a_local_dataset(here: Place) -> None:
    if here.in_cloud:
        pytest.skip("an object store is no place for a database; the README says so")
    assert run(sys.executable, "-c", WAL, here / "base.sqlite") == b"wal\n"
    check = "import sqlite3, sys\nprint(sqlite3.connect(sys.argv[1]).execute('select count(*) from t').fetchone())"
    assert run(sys.executable, "-c", check, here / "base.sqlite") == b"(1000,)\n"


PANDAS = """
import pandas, sys
frame = pandas.DataFrame({"time": range(1000), "power": [n * 0.5 for n in range(1000)]})
frame.to_csv(sys.argv[1] + ".csv", index=False)
frame.to_csv(sys.argv[1] + ".csv", index=False, mode="a", header=False)
frame.to_csv(sys.argv[1] + ".csv.gz", index=False)
frame.to_pickle(sys.argv[1] + ".pickle")
frame.to_json(sys.argv[1] + ".json")
print(len(pandas.read_csv(sys.argv[1] + ".csv")), len(pandas.read_csv(sys.argv[1] + ".csv.gz")))
print(pandas.read_pickle(sys.argv[1] + ".pickle")["power"].sum(), len(pandas.read_json(sys.argv[1] + ".json")))
"""


def test_pandas_writes_tables(here: Place) -> None:
    assert run(sys.executable, "-c", PANDAS, here / "table") == b"2000 1000\n249750.0 1000\n"


TO_PARQUET = """
import pandas, sys
frame = pandas.DataFrame({"time": range(1000), "power": [n * 0.5 for n in range(1000)]})
for _ in range(2):
    frame.to_parquet(sys.argv[1])
print(pandas.read_parquet(sys.argv[1])["power"].sum())
"""


def test_pandas_writes_parquet(here: Place) -> None:
    pytest.importorskip("pyarrow")
    assert run(sys.executable, "-c", TO_PARQUET, here / "table.parquet") == b"249750.0\n"


H5PY = """
import h5py, numpy, sys
with h5py.File(sys.argv[1], "w") as file:
    file.create_dataset("power", data=numpy.arange(100_000), chunks=(1000,), compression="gzip")
    file.create_group("farm").attrs["name"] = "haute-borne"
with h5py.File(sys.argv[1], "r+") as file:
    file["power"][500:600] = 0
    file.create_dataset("more", shape=(50_000,), dtype="f8")[::7] = 1.0
with h5py.File(sys.argv[1], "r") as file:
    print(int(file["power"][:].sum()), file["more"][:].sum(), file["farm"].attrs["name"])
"""


def test_h5py_writes_and_changes_a_file(here: Place) -> None:
    pytest.importorskip("h5py")
    total = sum(range(100_000)) - sum(range(500, 600))
    assert run(sys.executable, "-c", H5PY, here / "file.h5").decode() == f"{total} 7143.0 haute-borne\n"


DUCKDB = """
import duckdb, sys
top = sys.argv[1]
duckdb.sql(f"copy (select range as n, hash(range) as h from range(20000)) to '{top}/table.parquet' (format parquet)")
duckdb.sql(f"copy (select range as n, range % 3 as part from range(300)) to '{top}/parts' "
           "(format parquet, partition_by (part))")
duckdb.sql(f"copy (select range as n from range(100)) to '{top}/table.csv'")
print(duckdb.sql(f"select count(*), sum(n) from '{top}/table.parquet'").fetchall())
print(duckdb.sql(f"select count(*), sum(n) from '{top}/parts/*/*.parquet'").fetchall())
print(duckdb.sql(f"select count(*) from '{top}/table.csv'").fetchall())
"""


def test_duckdb_writes_parquet_and_partitions(here: Place) -> None:
    said = run(sys.executable, "-c", DUCKDB, here.folder)
    assert said == b"[(20000, 199990000)]\n[(300, 44850)]\n[(100,)]\n"


NUMPY = """
import numpy, sys
array = numpy.lib.format.open_memmap(sys.argv[1], mode="w+", dtype="f8", shape=(50_000,))
array[:] = numpy.arange(50_000)
array.flush()
del array
print(numpy.load(sys.argv[1]).sum())
numpy.savez(sys.argv[2], a=numpy.arange(10), b=numpy.zeros(1000))
print(numpy.load(sys.argv[2])["a"].sum())
"""


def test_numpy_writes_through_a_mapping_and_zips(here: Place) -> None:
    assert run(sys.executable, "-c", NUMPY, here / "mapped.npy", here / "two.npz") == b"1249975000.0\n45\n"


def test_zip_archives_are_written_and_updated(here: Place) -> None:
    program = """
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as archive:
    archive.writestr("a", "x" * 1000)
with zipfile.ZipFile(sys.argv[1], "a") as archive:
    archive.writestr("b", "y" * 1000)
print(zipfile.ZipFile(sys.argv[1]).testzip(), zipfile.ZipFile(sys.argv[1]).namelist())
"""
    assert run(sys.executable, "-c", program, here / "it.zip") == b"None ['a', 'b']\n"


# --- whole datasets --------------------------------------------------------------------------------------------------


def test_a_dataset_goes_from_a_local_mount_to_a_cloud_mount_and_back(
    new_source: SourceMaker, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with (
        new_source("local") as there,
        workplace_of("local", new_source, lambda: request.getfixturevalue("gcs_server")) as disk,
        workplace_of("cloud", new_source, lambda: request.getfixturevalue("gcs_server")) as cloud,
    ):
        assert isinstance(there, LocalSource)
        there.fill(FILES)
        os.unlink(cloud.root / "kept")
        run("cp", "-r", f"{there.folder}/.", disk.root)
        run("cp", "-r", f"{disk.root}/.", cloud.root)
        run("cp", "-r", cloud.root, tmp_path / "back")

        assert data_of(cloud.root) == data_of(there.folder)
        assert {os.fsdecode(path): data for path, data in cloud.stored().items()} == {
            path: file.data for path, file in FILES.items()
        }
        for top in (disk.root, cloud.root):
            assert_described(top)
            assert (get(top, "name"), get(top, "labels")) == ("turbines", "published wind")
            assert get(top, "id") == id_of("the dataset itself")
            assert (top / ".hash").read_bytes() == (disk.root / ".hash").read_bytes()
            assert (top / ".hashes").read_bytes() == (disk.root / ".hashes").read_bytes()
            assert (top / ".metadata_hash").read_bytes() == (disk.root / ".metadata_hash").read_bytes()
        for path, file in FILES.items():
            if file.has_record:
                assert cloud.record(path) == file.record(path), path

        assert data_of(tmp_path / "back") == data_of(there.folder)
        for path in walk(there.folder):
            if os.path.basename(path) == b".octue":
                place = os.fsdecode(os.path.relpath(path, os.fsencode(there.folder)))
                documents = [json.loads((top / place).read_bytes()) for top in (there.folder, tmp_path / "back")]
                for document in documents:
                    document.get("dataset", {}).pop("path", None)
                assert documents[0] == documents[1], place


def test_a_large_dataset_file_is_the_same_after_a_round_trip(here: Place, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(some_bytes(20 * MIB + 5))
    run("cp", tmp_path / "blob", here / "blob")
    run("cp", here / "blob", tmp_path / "back")
    assert digest(tmp_path / "back") == digest(tmp_path / "blob")
