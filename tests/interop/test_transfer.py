"""`octuefs upload` and `download` make what `cp -r` through a mount makes, and what the SDK's own methods make."""

import filecmp
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from interop.world import Sdk, Sources

from support.gcs import Bucket
from support.mounting import mounted, run_octuefs

DATASETS = ["written", "case2", "case8", "case14", "case17", "case21"]
MOUNTED = ["written", "case2"]

Object = tuple[bytes, str, dict[str, str]]
"""Content, content type, custom metadata."""
Objects = dict[str, Object]


def objects(bucket: Bucket, prefix: str) -> Objects:
    """What is stored below a prefix, by the rest of the names, but for links that share it."""
    return {
        it["name"].removeprefix(prefix): (bucket.get(it["name"]), it["contentType"], dict(it.get("metadata") or {}))
        for it in bucket.list(prefix)
        if ".signed_metadata_files/" not in it["name"]
    }


def without_implied_folders(stored: Objects) -> Objects:
    """Leave out the markers of folders that hold something: a mount makes them with mkdir, others do without."""
    return {
        name: it
        for name, it in stored.items()
        if not name.endswith("/") or not any(other.startswith(name) and other != name for other in stored)
    }


def dataset_record(stored: Objects) -> Any:
    """What the dataset's own record says, but for where the dataset lies, which differs from place to place."""
    if ".octue" not in stored:
        return None
    content, content_type, custom = stored[".octue"]
    record = json.loads(content)["dataset"]
    record.pop("path", None)
    return list(record.items()), content_type, custom


def files(stored: Objects) -> Objects:
    return {name: it for name, it in stored.items() if name != ".octue"}


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, and its folders (with a slash)."""
    return {
        f"{path.relative_to(folder)}{'/' if path.is_dir() else ''}": b"" if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def without_paths(found: dict[str, bytes], *, ordered: bool = True) -> dict[str, Any]:
    """The same, but for where the dataset lies, which `.octue` files say (they are parsed), and maybe their order."""

    def parsed(text: bytes) -> Any:
        content = json.loads(text)
        content.get("dataset", {}).pop("path", None)
        return json.dumps(content) if ordered else content

    return {name: parsed(it) if name.endswith(".octue") else it for name, it in found.items()}


# --- uploading


@pytest.fixture(scope="module")
def uploads(places: tuple[Path, Bucket], sources: Sources) -> Mapping[str, Objects]:
    """What `octuefs upload` makes of the local datasets."""
    bucket = places[1]
    found = {}
    for name in DATASETS:
        done = run_octuefs(
            "upload", sources[f"local {name}"].location, f"{bucket.url}/ours/{name}", environment=bucket.environment
        )
        assert done.returncode == 0, done.stderr
        found[name] = objects(bucket, f"ours/{name}/")
    return found


@pytest.mark.parametrize("name", DATASETS)
def test_an_upload_makes_what_the_sdk_s_upload_makes(
    name: str, uploads: Mapping[str, Objects], places: tuple[Path, Bucket]
) -> None:
    ours, theirs = uploads[name], objects(places[1], f"deep/down/{name}/")
    for path, (content, content_type, custom) in files(theirs).items():
        # A file without a record: the SDK makes up an ID, and stores that nothing else is known.
        expected = custom if ours[path][2] else {}
        assert ours[path] == (content, content_type, expected), path
        if not ours[path][2]:
            assert json.loads(custom["octue__labels"])["items"] == []
            assert custom["octue__tags"] == "{}"
            assert custom["octue__timestamp"] == "null"
    assert files(ours).keys() == files(theirs).keys()
    if dataset_record(ours) is not None:
        assert dataset_record(ours) == dataset_record(theirs)


@pytest.mark.parametrize("name", MOUNTED)
def test_an_upload_makes_what_cp_into_a_mount_makes(
    name: str, uploads: Mapping[str, Objects], places: tuple[Path, Bucket], sources: Sources
) -> None:
    bucket = places[1]
    with mounted(f"{bucket.url}/copied/{name}", environment=bucket.environment) as mount:
        subprocess.run(["cp", "-r", f"{sources[f'local {name}'].location}/.", mount], check=True, timeout=120)
    copied = without_implied_folders(objects(bucket, f"copied/{name}/"))
    assert files(uploads[name]) == files(copied)
    assert dataset_record(uploads[name]) == dataset_record(copied)


@pytest.mark.parametrize("name", DATASETS)
def test_an_upload_is_to_the_sdk_the_dataset_that_was_uploaded(
    name: str,
    uploads: Mapping[str, Objects],
    places: tuple[Path, Bucket],
    sdk: Sdk,
    said_of_sources: Mapping[str, Any],
) -> None:
    assert uploads.keys() == {*DATASETS}
    (said,) = sdk.describe([f"{places[1].url}/ours/{name}"])
    assert said["files"] == said_of_sources[f"local {name}"]["files"]
    assert said["hash"] == said_of_sources[f"local {name}"]["hash"]


# --- downloading


@pytest.fixture(scope="module")
def downloads(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Where `octuefs download` has written the cloud datasets."""
    folder = tmp_path_factory.mktemp("downloaded")
    for name in DATASETS:
        source = sources[f"cloud {name}"]
        done = run_octuefs("download", source.location, folder / name, environment=source.environment)
        assert done.returncode == 0, done.stderr
    return {name: folder / name for name in DATASETS}


@pytest.mark.parametrize("name", MOUNTED)
def test_a_download_makes_what_cp_out_of_a_mount_makes(
    name: str, downloads: Mapping[str, Path], sources: Sources, tmp_path: Path
) -> None:
    source = sources[f"cloud {name}"]
    with mounted(source.location, environment=source.environment) as mount:
        subprocess.run(["cp", "-r", mount, tmp_path / "copy"], check=True, timeout=120)
    assert without_paths(tree(downloads[name])) == without_paths(tree(tmp_path / "copy"))


def test_a_download_has_the_bytes_that_the_sdk_downloads(
    downloads: Mapping[str, Path], sources: Sources, sdk: Sdk, tmp_path: Path
) -> None:
    questions = [
        ("download", {"path": sources[f"cloud {name}"].location, "to": str(tmp_path / name)}) for name in DATASETS
    ]
    sdk.ask(questions)
    for name in DATASETS:
        expected = {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if path.is_file()}
        for path in expected:
            assert filecmp.cmp(tmp_path / name / path, downloads[name] / path, shallow=False), path
        found = {path.relative_to(downloads[name]) for path in downloads[name].rglob("*") if path.is_file()}
        assert {path for path in found if path.name != ".octue"} == expected
    assert len(list(tmp_path.rglob("*"))) > 50


def test_a_download_is_to_the_sdk_the_dataset_that_was_downloaded(
    downloads: Mapping[str, Path], sdk: Sdk, said_of_sources: Mapping[str, Any]
) -> None:
    for name, said in zip(downloads, sdk.describe([str(path) for path in downloads.values()]), strict=True):
        source = said_of_sources[f"cloud {name}"]
        assert {key: said[key] for key in ("files", "hash", "id", "labels", "tags", "stored_name")} == {
            key: source[key] for key in ("files", "hash", "id", "labels", "tags", "stored_name")
        }


# --- there and back


@pytest.mark.timeout(600)  # four commands for each of the datasets
def test_what_comes_back_is_what_was_sent(
    uploads: Mapping[str, Objects], places: tuple[Path, Bucket], sources: Sources, tmp_path: Path
) -> None:
    bucket = places[1]
    for name in uploads:
        location = f"{bucket.url}/ours/{name}"
        done = run_octuefs("download", location, tmp_path / name, environment=bucket.environment)
        assert done.returncode == 0, done.stderr
        sent, back = Path(sources[f"local {name}"].location), tmp_path / name
        if name == "written":  # by the SDK of today, in the form that it writes
            assert without_paths(tree(back), ordered=False) == without_paths(tree(sent), ordered=False)
        for pair in ((back, sent), (location, sent), (back, location)):
            done = run_octuefs("verify", *pair, environment=bucket.environment)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout
