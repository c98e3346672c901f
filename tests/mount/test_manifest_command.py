"""`octuefs manifest`: what it takes, what it writes and where."""

import json
import os
import re
import stat
import uuid
from pathlib import Path

import pytest

from support.mounting import mounted, run_octuefs

LINK = "https://storage.googleapis.com/bucket/wind/.signed_metadata_files/slug?X-Goog-Signature=5ec2e7"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "wind data"
    (folder / "2024").mkdir(parents=True)
    (folder / "jan.csv").write_bytes(b"1")
    (folder / "2024" / "feb ü.csv").write_bytes(b"2")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.dat").write_bytes(b"3")
    return folder


def test_places_are_written_absolute_and_the_manifest_gets_an_id(dataset: Path) -> None:
    relative = os.path.relpath(dataset)
    result = run_octuefs("manifest", f"wind={relative}", f"too={dataset}/2024/", "mast=gs://bucket/mast")
    assert (result.returncode, result.stderr) == (0, "")
    written = json.loads(result.stdout)
    assert written["datasets"] == {"wind": str(dataset), "too": f"{dataset}/2024", "mast": "gs://bucket/mast"}
    assert uuid.UUID(written["id"]).version == 4
    assert written["name"] is None
    assert result.stdout == json.dumps(written, indent=4, sort_keys=True) + "\n"


def test_a_file_is_written_all_at_once_and_read_as_others_are(dataset: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "m.json"
    target.parent.mkdir()
    target.write_text("old")
    (tmp_path / "link.json").symlink_to(target)
    result = run_octuefs("manifest", f"wind={dataset}", "-o", tmp_path / "link.json")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == f"1 dataset written to {tmp_path}/link.json\n"
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads(target.read_text())["datasets"] == {"wind": str(dataset)}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    assert os.listdir(target.parent) == ["m.json"]


def test_a_manifest_with_a_link_is_for_its_owner_alone(tmp_path: Path) -> None:
    result = run_octuefs("manifest", f"wind={LINK}", "-o", tmp_path / "m.json")
    assert result.returncode == 0
    assert "5ec2e7" not in result.stderr
    assert json.loads((tmp_path / "m.json").read_text())["datasets"] == {"wind": LINK}
    assert stat.S_IMODE((tmp_path / "m.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["wind={dataset}", "wind={dataset}/2024"], "two sources of one name: wind"),
        (["{dataset}"], "has no name"),
        (["wind={dataset}/nothing"], "wind: no such folder"),
        (["wind={dataset}/jan.csv"], "wind: .*is a file"),
        (["a/b={dataset}"], "has no name"),
        (["..={dataset}"], "cannot be the name"),
        (["wind=gs://"], "wind: .*names no bucket"),
        ([LINK], "has no name"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line_and_leaves_the_file(
    sources: list[str], words: str, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.json").write_text("old")
    named = [source.replace("{dataset}", str(dataset)) for source in sources]
    result = run_octuefs("manifest", *named, "-o", tmp_path / "m.json")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("octuefs: ")
    assert result.stderr.count("\n") == 1
    assert re.search(words, result.stderr)
    assert "5ec2e7" not in result.stderr
    assert (tmp_path / "m.json").read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(dataset: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "missing" / "m.json", dataset):
        result = run_octuefs("manifest", f"wind={dataset}", "-o", target)
        assert result.returncode == 1
        assert str(target) in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["wind data"]


def test_paths_in_a_mount_are_what_they_stand_for(dataset: Path, tmp_path: Path) -> None:
    with mounted(dataset) as mount:
        (tmp_path / "shortcut").symlink_to(mount / "by-ext" / "csv")
        named = {
            "all": mount,
            "hidden": mount / ".hidden",
            "view": mount / "by-ext" / "csv" / "2024",
            "shortcut": tmp_path / "shortcut",
        }
        result = run_octuefs("manifest", *(f"{name}={source}" for name, source in named.items()))
        again = run_octuefs("manifest", *(f"{name}={source}" for name, source in named.items()))
    assert result.returncode == 0, result.stderr
    written = json.loads(result.stdout)["datasets"]
    assert written["all"] == str(dataset)
    assert written["hidden"] == f"{dataset}/.hidden"
    assert (written["view"]["path"], written["view"]["files"]) == (f"{dataset}/2024", [f"{dataset}/2024/feb ü.csv"])
    assert written["shortcut"]["files"] == [f"{dataset}/2024/feb ü.csv", f"{dataset}/jan.csv"]
    assert written == json.loads(again.stdout)["datasets"]


def test_a_mount_without_sub_folders_is_its_files(dataset: Path) -> None:
    with mounted(dataset, "--no-recursive") as mount:
        result = run_octuefs("manifest", f"wind={mount}")
    assert json.loads(result.stdout)["datasets"]["wind"]["files"] == [f"{dataset}/jan.csv"]


def test_what_was_just_written_is_in_it(dataset: Path) -> None:
    with mounted(dataset) as mount:
        (mount / "new.csv").write_bytes(b"new")
        os.setxattr(mount / "new.csv", "user.octue.labels", b"fresh")
        result = run_octuefs("manifest", f"fresh={mount / 'by-label' / 'fresh'}")
        assert json.loads(result.stdout)["datasets"]["fresh"]["files"] == [f"{dataset}/new.csv"]
        # Whoever loads it finds what was set in the mount.
        assert json.loads((dataset / ".octue").read_text())["datafiles"]["new.csv"]["labels"]["items"] == ["fresh"]


def test_regression_a_folder_whose_own_record_names_files_is_written_with_these(dataset: Path) -> None:
    record = {"name": "inner", "labels": [], "tags": {}, "files": [str(dataset / "2024" / "feb ü.csv")]}
    (dataset / "2024" / ".octue").write_text(json.dumps({"dataset": record}))
    (dataset / "2024" / "mar.csv").write_bytes(b"4")
    with mounted(dataset) as point:
        result = run_octuefs("manifest", f"inner={point}/2024", f"whole={point}")
    written = json.loads(result.stdout)["datasets"]
    assert written["whole"] == str(dataset)
    # As the mount shows it: all that is in the folder, while the SDK would take the record's word for the place alone.
    assert written["inner"]["files"] == [f"{dataset}/2024/{name}" for name in ("feb ü.csv", "mar.csv")]
