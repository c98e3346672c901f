"""A view is a dataset to the SDK, and it is the subset that the SDK's own filters make of the source."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from interop.datasets import ORDERED_VIEWS, VIEWS, WRITTEN_MOUNTS, ViewCase
from interop.world import Sdk, Sources

every_store = pytest.mark.parametrize("store", ["local", "cloud"])
every_view = pytest.mark.parametrize("view", VIEWS, ids=str)
every_ordered_view = pytest.mark.parametrize("view", ORDERED_VIEWS, ids=str)


@pytest.fixture(scope="module")
def said_of_subsets(sources: Sources, sdk: Sdk) -> Mapping[tuple[str, str], Any]:
    """By store and view: the SDK's subset of the source."""
    keys = [(store, view) for store in ("local", "cloud") for view in (*VIEWS, *ORDERED_VIEWS)]
    answers = sdk.ask(
        [
            ("select", {"path": sources[f"{store} written"].location, "steps": view.steps, "below": view.below})
            for store, view in keys
        ]
    )
    return {(store, view.path): answer for (store, view), answer in zip(keys, answers, strict=True)}


def mounts_of(store: str) -> list[str]:
    return [name for name in WRITTEN_MOUNTS if name.startswith(store)]


def files_below(folder: Path) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
        if name != ".octue"
    )


@every_store
@every_view
def test_a_view_holds_the_files_that_the_sdk_s_filter_finds(
    store: str, view: ViewCase, mounts: Mapping[str, Path], said_of_subsets: Mapping[tuple[str, str], Any]
) -> None:
    expected = said_of_subsets[store, view.path]
    assert expected["files"] or "99999" in view.path
    for name in mounts_of(store):
        folder = mounts[name] / view.path
        assert files_below(folder) == expected["files"]
        assert (folder / ".hash").read_text() == expected["hash"] + "\n"
        assert os.getxattr(folder, "user.octue.hash").decode() == expected["hash"]
        assert os.getxattr(folder, "user.octue.count").decode() == str(len(expected["files"]))


@every_store
@every_view
def test_the_sdk_loads_a_view_as_a_dataset(
    store: str,
    view: ViewCase,
    said_through_mounts: Callable[..., Any],
    said_of_sources: Mapping[str, Any],
    said_of_subsets: Mapping[tuple[str, str], Any],
) -> None:
    source = said_of_sources[f"{store} written"]
    expected = said_of_subsets[store, view.path]
    for zone in ("UTC", "Asia/Kolkata"):
        said = said_through_mounts(f"{store} written in {zone}", view.path)
        assert sorted(said["files"]) == expected["files"]
        for path, file in said["files"].items():
            assert file == source["files"][view.below + path], path
        assert said["hash"] == expected["hash"]
        if view.is_top:
            assert {key: said[key] for key in ("id", "name", "labels", "tags", "metadata_hash")} == {
                key: source[key] for key in ("id", "name", "labels", "tags", "metadata_hash")
            }


@every_store
@every_ordered_view
def test_an_ordered_view_has_the_set_s_hash_and_the_files_metadata(
    store: str,
    view: ViewCase,
    mounts: Mapping[str, Path],
    said_through_mounts: Callable[..., Any],
    said_of_sources: Mapping[str, Any],
    said_of_subsets: Mapping[tuple[str, str], Any],
) -> None:
    expected = said_of_subsets[store, view.path]
    files = said_of_sources[f"{store} written"]["files"].values()
    by_content = {(file["hash"], file["metadata_hash"]) for file in files}
    for name in mounts_of(store):
        folder = mounts[name] / view.path
        assert (folder / ".hash").read_text() == expected["hash"] + "\n"
        assert len(files_below(folder)) == len(expected["files"])
    said = said_through_mounts(f"{store} written in UTC", view.path)
    assert said["hash"] == expected["hash"]
    assert len(said["files"]) == len(expected["files"])
    assert {(file["hash"], file["metadata_hash"]) for file in said["files"].values()} <= by_content


@every_store
def test_every_label_has_a_view_and_it_is_the_sdk_s_filter(
    store: str, mounts: Mapping[str, Path], sources: Sources, sdk: Sdk
) -> None:
    labels = sorted(os.listdir(mounts[f"{store} written in UTC"] / "by-label"))
    assert labels == ["2024", "a", "b", "late", "met-mast", "one", "trailing"]
    conditions = [{"labels__contains": label} for label in labels]
    (found,) = sdk.ask([("filter_sets", {"path": sources[f"{store} written"].location, "conditions": conditions})])
    for label, files in zip(labels, found, strict=True):
        assert files_below(mounts[f"{store} written in UTC"] / "by-label" / label) == files


@every_store
def test_a_view_of_a_nameless_dataset_loads_too(store: str, mounts: Mapping[str, Path], sdk: Sdk) -> None:
    view = mounts[f"{store} nameless"] / "by-label" / "a"
    (said,) = sdk.describe([str(view)])
    assert sorted(said["files"]) == ["one.csv", "two.csv"]
    assert said["stored_name"] is None
    assert said["name"] == "a"
    assert said["hash"] + "\n" == (view / ".hash").read_text()
