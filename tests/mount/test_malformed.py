"""Datasets with something wrong in them: the mount comes up, the rest is right, and what was passed over is told."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from octuefs.model.hashes import encode_crc32c, extend_crc32c, hash_of_set
from support import mounting
from support.gcs import Bucket, GcsServer
from support.mounting import mounted, run_octuefs

GOOD = {"labels": {"_type": "set", "items": ["good"]}, "tags": {"n": 1}, "timestamp": None}


def attribute(path: Path, name: str) -> str | None:
    """Return an attribute of a file or folder, None where it is not set."""
    try:
        return os.getxattr(path, f"user.octue.{name}").decode()
    except OSError:
        return None


def hash_of(data: bytes) -> str:
    return encode_crc32c(extend_crc32c(0, data))


def status_of(point: Path) -> dict[str, Any]:
    return json.loads((point / ".octuefs" / "status").read_text())


def errors_of(point: Path) -> str:
    return (point / ".octuefs" / "errors").read_text()


@contextmanager
def without_special_rights(tmp_path: Path) -> Iterator[None]:
    """Run octuefs without root's right to pass over permissions, where we are root."""
    if os.getuid() != 0:
        yield
        return
    rights = "-dac_override,-dac_read_search"
    script = tmp_path / "octuefs"
    script.write_text(f'#!/bin/sh\nexec setpriv --bounding-set={rights} --inh-caps={rights} {mounting.OCTUEFS} "$@"\n')
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mounting, "OCTUEFS", script)
        yield


# --- `.octue` files that cannot be used at all. Each stands in a folder of its own, all in one mount.

UNUSABLE: dict[str, bytes] = {
    "empty": b"",
    "no-json": b"this is no JSON",
    "cut-off": json.dumps({"datafiles": {"f.csv": GOOD}}).encode()[:-5],
    "a-list": b"[1, 2, 3]",
    "a-number": b"5",
    "null": b"null",
    "no-utf-8": b'{"datafiles": {"f.csv": "\xff\xfe"}}',
    "utf-16": json.dumps({"datafiles": {"f.csv": GOOD}}).encode("utf-16"),
    "binary": bytes(range(256)) * 20,
    "nested-100000-deep": b"[" * 100_000 + b"]" * 100_000,
    "objects-100000-deep": b'{"datafiles":' * 100_000 + b"1" + b"}" * 100_000,
    "large-number": b'{"datafiles": {"f.csv": ' + b"9" * 10_000 + b"}}",
    "two-documents": b"{}{}",
}

# --- `.octue` files with something wrong in the records, and what must be told of it.

WRONG_PARTS: dict[str, tuple[Any, str]] = {
    "datafiles-is-a-list": ({"datafiles": [1]}, "datafiles: it is no object"),
    "datafiles-is-a-text": ({"datafiles": "x"}, "datafiles: it is no object"),
    "record-is-a-list": ({"datafiles": {"f.csv": ["x"]}}, "datafile 'f.csv': its record is no object"),
    "record-is-a-number": ({"datafiles": {"f.csv": 3}}, "datafile 'f.csv': its record is no object"),
}

# One bad field each, beside good ones.
BAD_FIELDS: dict[str, Any] = {
    "id-a-number": {"id": 5},
    "id-no-uuid": {"id": "x"},
    "timestamp-a-text": {"timestamp": "yesterday"},
    "timestamp-a-list": {"timestamp": [2020]},
    "timestamp-no-date": {"timestamp": {"_type": "datetime", "value": "2020-13-45"}},
    "timestamp-too-large": {"timestamp": 1e300},
    "labels-a-number": {"labels": 7},
    "labels-an-object": {"labels": {"Bad Key": 1}},
    "labels-with-a-number": {"labels": ["a", 1]},
    "labels-upper-case": {"labels": ["Bad"]},
    "labels-with-a-space": {"labels": {"_type": "set", "items": ["a b"]}},
    "labels-ending-in-a-dash": {"labels": ["a-"]},
    "labels-empty-text-in-list": {"labels": [""]},
    "tags-a-list": {"tags": [1]},
    "tags-a-number": {"tags": 1},
    "tags-a-bad-key": {"tags": {"Bad Key": 1}},
    "tags-an-empty-key": {"tags": {"": 1}},
    "sdk-version-a-list": {"sdk_version": [1]},
}


@pytest.fixture(scope="module")
def malformed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All of these in one mounted dataset; in its root good metadata and one file."""
    source = tmp_path_factory.mktemp("malformed") / "source"

    def folder(name: str) -> Path:
        (source / name).mkdir(parents=True)
        (source / name / "f.csv").write_text(name)
        (source / name / "g.csv").write_text("g")
        return source / name

    for name, data in UNUSABLE.items():
        (folder(name) / ".octue").write_bytes(data)
    for name, (content, _) in WRONG_PARTS.items():
        (folder(name) / ".octue").write_text(json.dumps(content))
    for name, field in BAD_FIELDS.items():
        records = {"f.csv": {**GOOD, "tags": {"n": 1}, **field}, "g.csv": GOOD}
        (folder(name) / ".octue").write_text(json.dumps({"datafiles": records}))
    (folder("octue-is-a-folder") / ".octue").mkdir()
    (folder("octue-is-a-folder-with-files") / ".octue").mkdir()
    (source / "octue-is-a-folder-with-files" / ".octue" / "inner.csv").write_text("inner")
    os.mkfifo(folder("octue-is-a-fifo") / ".octue")
    with socket.socket(socket.AF_UNIX) as listener:
        folder("octue-is-a-socket")
        here = os.getcwd()
        os.chdir(source / "octue-is-a-socket")  # a socket's path is short
        listener.bind(".octue")
        os.chdir(here)
    (folder("octue-dangles") / ".octue").symlink_to("nothing")
    (folder("octue-loops") / ".octue").symlink_to(".octue")
    (folder("octue-leaves") / ".octue").symlink_to("/etc/hostname")
    (folder("octue-is-a-link") / "real.json").write_text(json.dumps({"datafiles": {"f.csv": GOOD}}))
    (source / "octue-is-a-link" / ".octue").symlink_to("real.json")
    (source / ".octue").write_text(
        json.dumps(
            {
                "datafiles": {"root.csv": GOOD, "not-there.csv": GOOD, "../etc/passwd": GOOD, "": GOOD, "a/b": GOOD},
                "dataset": {"name": 5, "id": "no", "labels": ["Bad"], "tags": {"kept": "yes"}, "more": 1},
                "else": {"x": 1},
            }
        )
    )
    (source / "root.csv").write_text("root")
    with mounted(source) as point:
        yield point


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_metadata_file_that_cannot_be_read_counts_as_none_and_is_told(malformed: Path, name: str) -> None:
    assert (malformed / name / "f.csv").read_text() == name
    assert attribute(malformed / name / "f.csv", "labels") is None
    assert attribute(malformed / name / "f.csv", "id") is not None
    lines = [line for line in errors_of(malformed).splitlines() if line.startswith(f"{name}/.octue: ")]
    assert len(lines) == 1
    if name != "large-number":  # of which Python's own limit makes one bad record
        assert "counts as no metadata" in lines[0]
    # The file itself is still there to be mended.
    assert (malformed / name / ".octue").read_bytes() == UNUSABLE[name]


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_a_part_of_a_metadata_file_that_is_wrong_is_told(malformed: Path, name: str) -> None:
    assert (malformed / name / "f.csv").read_text() == name
    assert attribute(malformed / name / "f.csv", "labels") is None
    assert f"{name}/.octue: {WRONG_PARTS[name][1]}" in errors_of(malformed)


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_the_neighbours_of_a_bad_field_stand_and_the_field_is_named(malformed: Path, name: str) -> None:
    (field,) = BAD_FIELDS[name]
    file = malformed / name / "f.csv"
    assert attribute(file, "labels") == (None if field == "labels" else "good")
    assert attribute(file, "tags") == (None if field == "tags" else '{"n": 1}')
    assert attribute(file, "timestamp") is None
    assert attribute(malformed / name / "g.csv", "labels") == "good"
    (line,) = [line for line in errors_of(malformed).splitlines() if line.startswith(f"{name}/.octue: ")]
    assert line.startswith(f"{name}/.octue: datafile 'f.csv': {field}: ")


@pytest.mark.parametrize(
    "name",
    ["octue-is-a-folder", "octue-is-a-fifo", "octue-is-a-socket", "octue-dangles", "octue-loops", "octue-leaves"],
)
def test_a_metadata_file_that_is_none_harms_nobody(malformed: Path, name: str) -> None:
    assert (malformed / name / "f.csv").read_text() == name
    assert attribute(malformed / name / "f.csv", "labels") is None
    if name != "octue-is-a-folder":
        assert f"{name}/.octue: " in errors_of(malformed)
    assert ".octue" in os.listdir(malformed / name)


def test_a_metadata_file_outside_of_the_dataset_is_not_followed(malformed: Path) -> None:
    secret = Path("/etc/hostname").read_text().strip()
    assert not secret or not re.search(rf"\b{re.escape(secret)}\b", errors_of(malformed))


def test_a_metadata_file_that_is_a_link_inside_the_dataset_is_read(malformed: Path) -> None:
    assert attribute(malformed / "octue-is-a-link" / "f.csv", "labels") == "good"


def test_records_of_files_that_are_not_there_reach_nothing(malformed: Path) -> None:
    assert attribute(malformed / "root.csv", "labels") == "good"
    assert "not-there.csv" not in os.listdir(malformed)
    assert sorted(path.name for path in (malformed / "by-label" / "good").glob("*.csv")) == ["root.csv"]


def test_bad_fields_of_the_dataset_are_named_and_the_good_ones_stand(malformed: Path) -> None:
    assert attribute(malformed, "name") == "source"
    assert attribute(malformed, "labels") is None
    assert attribute(malformed, "tags") == '{"kept": "yes"}'
    for field in ("name", "id", "labels"):
        assert f".octue: dataset: {field}: " in errors_of(malformed)


def test_the_counts_and_the_hash_are_those_of_all_files(malformed: Path) -> None:
    source = Path(status_of(malformed)["source"])
    files = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink() and path.name != ".octue"]
    assert attribute(malformed, "count") == str(len(files))
    assert attribute(malformed, "hash") == hash_of_set(hash_of(path.read_bytes()) for path in files)


def test_status_counts_the_problems_and_each_is_a_line(malformed: Path) -> None:
    problems = status_of(malformed)["problems"]
    assert problems == len(errors_of(malformed).splitlines())
    assert problems >= len(UNUSABLE) + len(WRONG_PARTS) + len(BAD_FIELDS)


def test_reading_everything_of_such_a_dataset_ends_well(malformed: Path) -> None:
    for command in (["find", malformed, "-ls"], ["du", "-s", malformed], ["cat", malformed / ".hashes"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=30)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[]", "no JSON object"),
        (b"{", "malformed"),
        (b'{"dataset": []}', None),
        (b'{"dataset": [1]}', "dataset: its record is no object"),
        (b'{"dataset": {"files": 5}}', "dataset: files: "),
    ],
)
def test_a_root_whose_metadata_is_wrong_is_told_by_every_command(
    content: bytes, words: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / ".octue").write_bytes(content)
    result = run_octuefs("info", tmp_path, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["files"] == 1
    if words is None:
        assert result.stderr == ""
    else:
        (line,) = result.stderr.splitlines()
        assert line.startswith(".octue: ")
        assert words in line


def test_a_metadata_file_of_50_megabytes_is_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.csv").write_text("1")
    note = "x" * 1000
    datafiles = {f"{number}.csv": {"labels": ["many"], "tags": {"note": note}} for number in range(50_000)}
    (source / ".octue").write_text(json.dumps({"datafiles": {**datafiles, "a.csv": GOOD}}))
    assert (source / ".octue").stat().st_size > 50 << 20
    with mounted(source) as point:
        assert attribute(point / "a.csv", "labels") == "good"
        assert os.listdir(point / "by-label") == ["good"]
        assert errors_of(point) == ""
        with (point / ".octue").open("rb") as file:
            assert file.read(1) == b"{"


# --- permissions, links


def test_what_may_not_be_read_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("open", "closed-folder", "closed-metadata"):
        (source / name).mkdir(parents=True)
        (source / name / "f.csv").write_text(name)
    write_good = json.dumps({"datafiles": {"f.csv": GOOD}})
    (source / "closed-metadata" / ".octue").write_text(write_good)
    (source / "closed-file.csv").write_text("secret")
    closed = [source / "closed-metadata" / ".octue", source / "closed-file.csv", source / "closed-folder"]
    for path in closed:
        path.chmod(0)
    try:
        with without_special_rights(tmp_path), mounted(source) as point:
            assert sorted(os.listdir(point)) == ["closed-file.csv", "closed-folder", "closed-metadata", "open"]
            assert (point / "open" / "f.csv").read_text() == "open"
            assert (point / "closed-metadata" / "f.csv").read_text() == "closed-metadata"
            assert attribute(point / "closed-metadata" / "f.csv", "labels") is None
            assert attribute(point / "open", "hash") == hash_of_set([hash_of(b"open")])
            errors = errors_of(point)
            assert "closed-metadata/.octue: its metadata cannot be read: " in errors
            assert "closed-folder is skipped: Permission denied" in errors
            status = status_of(point)
            assert status["skipped"] == [{"name": "closed-folder", "reason": "Permission denied"}]
            assert (status["skipped_count"], status["counts"]["files"]) == (1, 3)
            # The hash of all cannot be told without the closed file, and that is told.
            for path in (point / "closed-file.csv", point / ".hash"):
                with pytest.raises(PermissionError):
                    path.read_bytes()
            assert "closed-file.csv: Permission denied" in errors_of(point)
            # Once they may be read, all is well.
            for path in closed:
                path.chmod(0o700)
            assert run_octuefs("refresh", point).returncode == 0
            assert (point / "closed-folder" / "f.csv").read_text() == "closed-folder"
            assert (point / "closed-file.csv").read_text() == "secret"
            assert attribute(point / "closed-metadata" / "f.csv", "labels") == "good"
            assert status_of(point)["skipped"] == []
    finally:
        for path in closed:
            path.chmod(0o700)


def test_links_that_lead_nowhere_or_out_count_as_nothing_and_are_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "real.csv").write_text("real")
    (tmp_path / "outside.csv").write_text("outside")
    links = {
        "dangling": "nothing",
        "loop-a": "loop-b",
        "loop-b": "loop-a",
        "self": "self",
        "out": "../outside.csv",
        "out-absolute": str(tmp_path / "outside.csv"),
        "sub/out-deeper": "../../outside.csv",
    }
    for name, target in links.items():
        (source / name).symlink_to(target)
    (source / "to-file").symlink_to("real.csv")
    (source / "to-folder").symlink_to("sub")
    (source / "to-folder-outside").symlink_to(tmp_path)
    (source / "to-itself").symlink_to(".")
    with mounted(source) as point:
        errors = errors_of(point).splitlines()
        for name, target in links.items():
            assert os.readlink(point / name) == target
            assert [line for line in errors if line.startswith(f"{name}: it leads ")], name
        hashes = {**dict.fromkeys(links, "AAAAAA=="), **dict.fromkeys(("real.csv", "to-file"), hash_of(b"real"))}
        assert (point / ".hashes").read_text() == "".join(
            f"{value}  {name}\n" for name, value in sorted(hashes.items())
        )
        assert attribute(point, "count") == str(len(links) + 2)
        assert len(errors) == len(links)
        # Programs that do not follow links end, and see each once.
        found = subprocess.run(["find", point, "-type", "l"], capture_output=True, text=True, check=True, timeout=30)
        assert len(found.stdout.splitlines()) == len(links) + 4


def test_fifos_and_sockets_are_listed_and_no_datafiles(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.csv").write_text("1")
    os.mkfifo(source / "fifo")
    with mounted(source) as point:
        assert sorted(os.listdir(point)) == ["a.csv", "fifo"]
        assert (point / "fifo").is_fifo()
        assert attribute(point, "count") == "1"
        assert (point / ".hash").read_text() == hash_of_set([hash_of(b"1")]) + "\n"


# --- a bucket

IMPOSSIBLE = {
    "d/../up.csv": "..",
    "d/./here.csv": ".",
    "d/x//double.csv": "x//double.csv",
    "d//leading.csv": "/leading.csv",
    "d/" + "n" * 300: "n" * 300,
    "d/deep/" + "ü" * 130 + ".csv": "ü" * 130,
}

BAD_CUSTOM: dict[str, dict[str, str]] = {
    "id": {"octue__id": "no-uuid"},
    "timestamp": {"octue__timestamp": '"yesterday"'},
    "labels": {"octue__labels": '["Bad Label"]'},
    "tags": {"octue__tags": "[1, 2]"},
    "sdk_version": {"octue__sdk_version": "[1]"},
    "tags-no-json": {"octue__tags": "{cut off"},
    "tags-deep": {"octue__tags": '{"a": ' * 500 + "1" + "}" * 500},
}


@pytest.fixture(scope="module")
def cloud(gcs_server: GcsServer) -> Iterator[Path]:
    bucket = Bucket(gcs_server, "octuefs-malformed")
    gcs_server.create_bucket(bucket.name)
    bucket.put("d/good.csv", b"good", {"octue__labels": '["good"]', "octue__tags": '{"n": 1}'})
    for name in IMPOSSIBLE:
        bucket.put(name, b"unseen")
    for name, custom in BAD_CUSTOM.items():
        good = {"octue__labels": '["good"]', "octue__tags": '{"n": 1}'}
        bucket.put(f"d/bad/{name}", name.encode(), {**good, **custom})
    bucket.put("d/.octue", b'{"dataset": {"name": 5, "labels": ["published"]}}')
    bucket.put("d/a", b"hidden by the folder of the same name")
    bucket.put("d/a/b.csv", b"b")
    with mounted(f"{bucket.url}/d", environment=bucket.environment) as point:
        yield point
    gcs_server.delete_bucket(bucket.name)


def test_objects_whose_names_are_no_paths_are_skipped_and_told(cloud: Path) -> None:
    assert sorted(os.listdir(cloud)) == [".octue", "a", "bad", "good.csv"]
    skipped = {item["name"]: item["reason"] for item in status_of(cloud)["skipped"]}
    for name in IMPOSSIBLE:
        assert skipped[name.removeprefix("d/")]
        assert f"{name.removeprefix('d/')} is skipped: " in errors_of(cloud)
    assert status_of(cloud)["skipped_count"] == len(skipped)


def test_status_says_that_the_sdks_hash_differs_where_objects_are_skipped(cloud: Path) -> None:
    assert status_of(cloud)["sdk_hash_differs"] is True
    assert status_of(cloud)["counts"]["shadowed"] == 1


def test_the_hash_covers_what_the_mount_lists(cloud: Path) -> None:
    contents = [b"good", b"b", *(name.encode() for name in BAD_CUSTOM)]
    assert attribute(cloud, "hash") == hash_of_set(map(hash_of, contents))
    assert len((cloud / ".hashes").read_text().splitlines()) == len(contents)


@pytest.mark.parametrize("name", BAD_CUSTOM)
def test_a_bad_field_of_an_object_is_named_and_its_neighbours_stand(cloud: Path, name: str) -> None:
    file = cloud / "bad" / name
    field = name.partition("-")[0]
    assert file.read_text() == name
    (line,) = [line for line in errors_of(cloud).splitlines() if line.startswith(f"bad/{name}: ")]
    assert f"custom metadata: {field}: " in line
    assert attribute(file, "labels") == (None if field == "labels" else "good")
    assert attribute(file, "tags") == (None if field == "tags" else '{"n": 1}')


def test_a_bad_field_of_a_cloud_dataset_is_named_and_the_others_stand(cloud: Path) -> None:
    assert attribute(cloud, "name") == "d"
    assert attribute(cloud, "labels") == "published"
    assert ".octue: dataset: name: " in errors_of(cloud)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"dataset": 7}', b"[" * 100_000])
def test_a_cloud_dataset_whose_metadata_is_no_record_has_none(content: bytes, bucket: Bucket) -> None:
    bucket.put("d/a.csv", b"1")
    bucket.put("d/.octue", content)
    result = run_octuefs("info", f"{bucket.url}/d", "--json", environment=bucket.environment)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["name"], facts["files"], facts["labels"]) == ("d", 1, [])
    (line,) = result.stderr.splitlines()
    assert line.startswith(".octue: ")
