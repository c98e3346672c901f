"""`cp -r` out of a mount makes a complete local dataset: the SDK loads it as what it was copied from."""

import filecmp
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from interop.datasets import MOUNTS
from interop.world import Sdk, Sources

COPIED = ["cloud written in Asia/Kolkata", "cloud nameless", "cloud case2", "cloud case14", "local written in UTC"]
DOWNLOADED = [name for name in COPIED if name.startswith("cloud")]


@pytest.fixture(scope="module")
def copies(mounts: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Copies of whole mounts, and of one view."""
    folder = tmp_path_factory.mktemp("copies")
    found = {name: folder / f"copy{number}" for number, name in enumerate(COPIED)}
    for name, copy in found.items():
        subprocess.run(["cp", "-r", f"{mounts[name]}", copy], check=True, timeout=60)
    found["view"] = folder / "view"
    subprocess.run(["cp", "-r", mounts[COPIED[0]] / "by-label" / "a", found["view"]], check=True, timeout=60)
    return found


@pytest.fixture(scope="module")
def said_of_copies(
    copies: Mapping[str, Path], sources: Sources, sdk: Sdk, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """What the SDK says of the copies; and, under "downloads", the folders that it downloaded the same datasets to."""
    folder = tmp_path_factory.mktemp("downloads")
    downloads = {name: folder / f"download{number}" for number, name in enumerate(DOWNLOADED)}
    answers = sdk.ask(
        [
            *(("describe", {"path": str(copy)}) for copy in copies.values()),
            *(
                ("download", {"path": sources[MOUNTS[name][0]].location, "to": str(to)})
                for name, to in downloads.items()
            ),
        ]
    )
    return {**dict(zip(copies, answers[: len(copies)], strict=True)), "downloads": downloads}


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_is_to_the_sdk_the_dataset_that_was_copied(
    name: str, said_of_copies: Mapping[str, Any], said_of_sources: Mapping[str, Any]
) -> None:
    copy, source = said_of_copies[name], said_of_sources[MOUNTS[name][0]]
    assert copy["files"] == source["files"]
    assert copy["hash"] == source["hash"]
    for key in ("id", "stored_name", "labels", "tags"):
        assert copy[key] == source[key]
    if source["stored_name"]:
        assert copy["metadata_hash"] == source["metadata_hash"]


def test_a_copy_of_a_view_is_the_subset_with_its_metadata(
    said_of_copies: Mapping[str, Any], said_of_sources: Mapping[str, Any]
) -> None:
    source, copy = said_of_sources["cloud written"], said_of_copies["view"]
    assert copy["files"] == {path: file for path, file in source["files"].items() if "a" in file["labels"]}
    assert {key: copy[key] for key in ("id", "name", "labels", "tags")} == {
        key: source[key] for key in ("id", "name", "labels", "tags")
    }


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_copy_has_the_bytes_that_the_sdk_downloads(
    name: str, copies: Mapping[str, Path], said_of_copies: Mapping[str, Any]
) -> None:
    download = said_of_copies["downloads"][name]
    files = {path.relative_to(download) for path in download.rglob("*") if path.is_file()}
    copied = {path.relative_to(copies[name]) for path in copies[name].rglob("*") if path.is_file()}
    assert files == {path for path in copied if path.name != ".octue"}
    assert files
    for path in files:
        assert filecmp.cmp(download / path, copies[name] / path, shallow=False), path
