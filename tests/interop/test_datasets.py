"""A mount is to the SDK the dataset that its source is; and our own attributes and files say what the SDK says."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from interop.datasets import FLAT_MOUNTS, MOUNTS, WHOLE_MOUNTS, WRITTEN_MOUNTS
from interop.world import Sdk, Sources

from support import golden
from support.drivers import over_each_driver

pytestmark = over_each_driver

PREFIX = "user.octue."
every_mount = pytest.mark.parametrize("mount", WHOLE_MOUNTS)


def same(through_mount: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """The two descriptions agree, but for the name, where none is stored, and what is made of it."""
    assert set(through_mount["files"]) == set(source["files"])
    for path, file in source["files"].items():
        assert through_mount["files"][path] == file, path
    assert through_mount["hash"] == source["hash"]
    for key in ("id", "stored_name", "labels", "tags"):
        assert through_mount[key] == source[key]
    if source["stored_name"]:
        assert through_mount["metadata_hash"] == source["metadata_hash"]


def text(path: Path, name: str) -> str | None:
    """An attribute's text; None where there is none."""
    try:
        return os.getxattr(path, PREFIX + name, follow_symlinks=True).decode("utf-8", "surrogateescape")
    except OSError:
        return None


def json_of(value: str | None) -> Any:
    return json.dumps(json.loads(value or "{}"), sort_keys=True)


# --- the SDK through the mount


@every_mount
def test_the_sdk_loads_from_a_mount_what_it_loads_from_the_source(
    mount: str, said_through_mounts: Callable[..., Any], said_of_sources: Mapping[str, Any]
) -> None:
    same(said_through_mounts(mount), said_of_sources[MOUNTS[mount][0]])


@pytest.mark.parametrize("case", golden.cases(), ids=str)
def test_every_golden_dataset_is_the_same_as_a_folder_of_a_mount(
    case: golden.Case, said_through_mounts: Callable[..., Any], said_of_sources: Mapping[str, Any]
) -> None:
    said = said_through_mounts("golden", str(case))
    same(said, said_of_sources[f"local {case}"])
    assert said["hash"] == case.dataset["hash_value"]
    assert set(said["files"]) == set(case.files)


def test_the_written_datasets_say_something_to_compare(said_of_sources: Mapping[str, Any]) -> None:
    for store in ("local", "cloud"):
        written = said_of_sources[f"{store} written"]
        assert len(written["files"]) == 15
        assert written["stored_name"]
        assert sum(file["id"] is not None for file in written["files"].values()) == 13 if store == "local" else 15
    assert said_of_sources["local nameless"]["stored_name"] is None
    assert len(said_of_sources["local nameless"]["files"]) == 7
    assert said_of_sources["cloud nameless"]["stored_name"] is None


# --- ours against the SDK


@every_mount
def test_attributes_of_datafiles_are_what_the_sdk_says(
    mount: str, mounts: Mapping[str, Path], said_of_sources: Mapping[str, Any]
) -> None:
    for path, file in said_of_sources[MOUNTS[mount][0]]["files"].items():
        here = mounts[mount] / path
        if here.is_symlink():
            continue  # the kernel gives the attributes of what it leads to
        assert text(here, "hash") == file["hash"], path
        assert text(here, "metadata_hash") == file["metadata_hash"], path
        assert text(here, "labels") == (" ".join(file["labels"]) or None), path
        assert json_of(text(here, "tags")) == json_of(file["tags"]), path
        assert text(here, "timestamp") == file["timestamp"], path
        assert text(here, "id") == (file["id"] or text(here, "id")), path
        assert here.stat().st_size == file["size_bytes"], path
        for key, value in json.loads(file["tags"]).items():
            expected = value if isinstance(value, str) else json.dumps(value)
            assert text(here, f"tags.{key}") == expected, (path, key)


@every_mount
def test_attributes_of_the_root_are_what_the_sdk_says(
    mount: str, mounts: Mapping[str, Path], said_of_sources: Mapping[str, Any]
) -> None:
    root, said = mounts[mount], said_of_sources[MOUNTS[mount][0]]
    assert text(root, "hash") == said["hash"]
    assert text(root, "metadata_hash") == said["metadata_hash"]
    assert text(root, "name") == said["name"]
    assert text(root, "id") == (said["id"] or text(root, "id"))
    assert text(root, "labels") == (" ".join(said["labels"]) or None)
    assert json_of(text(root, "tags")) == json_of(said["tags"])
    assert text(root, "count") == str(len(said["files"]))
    assert text(root, "size_bytes") == str(sum(file["size_bytes"] or 0 for file in said["files"].values()))


@every_mount
def test_hash_files_are_what_the_sdk_says(
    mount: str, mounts: Mapping[str, Path], said_of_sources: Mapping[str, Any]
) -> None:
    root, said = mounts[mount], said_of_sources[MOUNTS[mount][0]]
    assert (root / ".hash").read_text() == said["hash"] + "\n"
    assert (root / ".metadata_hash").read_text() == said["metadata_hash"] + "\n"
    expected = []
    for path, file in sorted(said["files"].items(), key=lambda item: os.fsencode(item[0])):
        escaped = path.replace("\\", "\\\\").replace("\n", "\\n")
        mark = "\\" if escaped != path else ""
        expected.append(f"{mark}{file['hash']}  {escaped}\n")
    assert (root / ".hashes").read_bytes() == os.fsencode("".join(expected))


@pytest.mark.parametrize("case", golden.cases(), ids=str)
def test_the_hash_of_a_folder_is_that_of_the_dataset_in_it(case: golden.Case, mounts: Mapping[str, Path]) -> None:
    folder = mounts["golden"] / str(case)
    assert (folder / ".hash").read_text() == case.dataset["hash_value"] + "\n"
    assert text(folder, "hash") == case.dataset["hash_value"]


@pytest.mark.parametrize("store", ["local", "cloud"])
def test_every_zone_shows_the_same(store: str, mounts: Mapping[str, Path]) -> None:
    def shown(root: Path) -> dict[str, Any]:
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != ".octue"]
        names = ("labels", "tags", "timestamp", "metadata_hash", "hash")
        found: dict[str, Any] = {str(path.relative_to(root)): [text(path, name) for name in names] for path in files}
        years = root / "by-date"
        found["by-date"] = sorted(str(day.relative_to(years)) for day in years.glob("*/*/*"))
        found[".octue"] = [path.read_text() for path in sorted(root.rglob(".octue"))]
        return found

    first, *others = [shown(mounts[name]) for name in WRITTEN_MOUNTS if name.startswith(store)]
    assert len(first["by-date"]) == 7
    assert others == [first, first]


# --- without sub-folders


@pytest.fixture(scope="module")
def said_without_subfolders(sources: Sources, mounts: Mapping[str, Path], sdk: Sdk) -> Mapping[str, Any]:
    keys = [*FLAT_MOUNTS, *(MOUNTS[name][0] for name in FLAT_MOUNTS)]
    paths = [*(str(mounts[name]) for name in FLAT_MOUNTS), *(sources[MOUNTS[name][0]].location for name in FLAT_MOUNTS)]
    plain = sdk.ask(
        [("describe", {"path": path, "recursive": key in FLAT_MOUNTS}) for key, path in zip(keys, paths, strict=True)]
    )
    return dict(zip(keys, plain, strict=True))


@pytest.mark.parametrize("mount", FLAT_MOUNTS)
def test_no_recursive_is_the_sdk_s_recursive_false(
    mount: str, mounts: Mapping[str, Path], said_without_subfolders: Mapping[str, Any]
) -> None:
    said = said_without_subfolders[MOUNTS[mount][0]]
    assert len(said["files"]) == 8
    same(said_without_subfolders[mount], said)
    assert (mounts[mount] / ".hash").read_text() == said["hash"] + "\n"
    assert text(mounts[mount], "hash") == said["hash"]
    assert text(mounts[mount], "count") == "8"
