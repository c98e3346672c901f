"""Where the files of a path in a mount really are."""

from collections.abc import Iterator
from typing import Any

import pytest
from unit.tree_world import World

from octuefs.errors import BadValue, NotADirectory, NotFound, OctuefsError, PermissionRefused
from octuefs.model.metadata import DatasetMetadata
from octuefs.tree.control import ControlFiles
from octuefs.tree.located import dataset_at
from octuefs.tree.manifest import ManifestFacts, ManifestNamespace
from octuefs.tree.namespace import Namespace

ID = "11111111-2222-4333-8444-555555555555"


def fill(world: World) -> World:
    world.put("b.csv", "a")
    world.put("sub/a.csv", "a", "x", tags={"height": 3})
    world.put("sub/deep/c.csv")
    world.put(".hidden/d.csv")
    record = DatasetMetadata(id=ID, name="Wind", labels=frozenset({"z", "y"}), tags={"t": {1}})
    world.keeper.stored.dataset = record
    return world


@pytest.fixture(params=[False, True], ids=["local", "cloud"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(in_cloud=request.param)
    yield fill(made)
    made.close()


def place(world: World, path: str = "") -> str:
    return world.disk.location.of(path)


def test_a_whole_dataset_is_its_place(world: World) -> None:
    found = dataset_at(world.namespace, "")
    assert found == {
        "path": place(world),
        "files": None,
        "id": ID,
        "name": "Wind",
        "tags": {"t": {"_type": "set", "items": [1]}},
        "labels": ["y", "z"],
        "in_cloud": world.disk.in_cloud,
    }


def test_a_folder_of_a_dataset_is_its_place(world: World) -> None:
    for folder in ("sub", "sub/deep", ".hidden"):
        found = dataset_at(world.namespace, folder)
        assert (found["path"], found["files"]) == (place(world, folder), None)
        assert found["id"] != ID


@pytest.mark.parametrize(
    ("path", "folder", "files"),
    [
        ("by-label/a", "", ["b.csv", "sub/a.csv"]),
        ("by-label/a,x/by-ext/csv", "", ["b.csv", "sub/a.csv"]),
        ("not/by-label/a", "", [".hidden/d.csv", "sub/deep/c.csv"]),
        ("by-label/a/sub", "sub", ["sub/a.csv"]),
        ("sub/by-label/a", "sub", ["sub/a.csv"]),
        ("by-tag/height/3", "", ["sub/a.csv"]),
        ("order-by/-name", "", [".hidden/d.csv", "b.csv", "sub/a.csv", "sub/deep/c.csv"]),
        ("filter/size_bytes__gt=1000", "", []),
    ],
)
def test_a_view_is_its_files_where_they_really_are(world: World, path: str, folder: str, files: list[str]) -> None:
    found = dataset_at(world.namespace, path)
    assert found["path"] == place(world, folder)
    assert found["files"] == [place(world, file) for file in files]
    assert (found["name"], found["labels"]) == ("Wind", ["y", "z"])


def test_the_id_of_a_part_is_its_own_and_stays(world: World) -> None:
    paths = ("", "sub", "by-label/a", "by-label/a/sub", "by-label/x")
    ids = [dataset_at(world.namespace, path)["id"] for path in paths]
    assert len(set(ids)) == len(paths)
    assert ids == [dataset_at(world.namespace, path)["id"] for path in paths]


def test_a_dataset_whose_files_were_given_with_it_is_these_files(world: World) -> None:
    world.keeper.stored.is_fixed = True
    for path, files in (("", 4), ("sub", 2)):
        assert len(dataset_at(world.namespace, path)["files"]) == files


def test_a_folder_of_a_dataset_that_names_its_files_is_those_in_it(world: World) -> None:
    world.keeper.stored.named = frozenset({"b.csv", "sub/a.csv"})
    assert dataset_at(world.namespace, "")["files"] is None
    assert dataset_at(world.namespace, "sub")["files"] is not None


def test_a_dataset_without_its_sub_folders_is_the_files_in_it() -> None:
    world = World(recursive=False)
    world.put("b.csv")
    try:
        assert dataset_at(world.namespace, "")["files"] == ["/data/set/b.csv"]
    finally:
        world.close()


@pytest.mark.parametrize("path", ["b.csv", "by-label", ".hash", ".octuefs", "by-tag/height"])
def test_what_is_no_directory_of_the_dataset_is_refused(world: World, path: str) -> None:
    with pytest.raises(NotADirectory, match=f"/{path}: it is no dataset"):
        dataset_at(world.namespace, path)


def test_what_is_not_there_is_not_found(world: World) -> None:
    for path in ("nothing", "by-label/nothing", "sub/nothing/by-label/a"):
        with pytest.raises(NotFound):
            dataset_at(world.namespace, path)


# --- several datasets in one mount


class Part:
    """A dataset, or why it is out of reach."""

    generation = 1

    def __init__(self, namespace: Namespace | None) -> None:
        self.namespace_or_none = namespace

    def namespace(self) -> Namespace:
        if self.namespace_or_none is None:
            raise PermissionRefused("the link expired on 2020-01-01; ask for a new one")
        return self.namespace_or_none


@pytest.fixture
def tree() -> Iterator[Any]:
    worlds = {"mast": fill(World()), "wind": fill(World(in_cloud=True))}
    parts = {name: Part(Namespace(it.dataset, None, path=f"/{name}")) for name, it in worlds.items()}
    control = ControlFiles(lambda: b"{}", lambda: b"", lambda: None, worlds["mast"].kept)
    yield ManifestNamespace({**parts, "gone": Part(None)}, ManifestFacts(ID, None, lambda: b"{}"), control)
    for world in worlds.values():
        world.close()


def test_a_dataset_of_several_is_found_by_its_name(tree: Any) -> None:
    assert dataset_at(tree, "wind")["path"] == "gs://bucket/set"
    assert dataset_at(tree, "mast/sub")["path"] == "/data/set/sub"
    assert dataset_at(tree, "mast/by-label/a")["files"] == ["/data/set/b.csv", "/data/set/sub/a.csv"]
    assert dataset_at(tree, "by-label/a/wind")["files"] == ["gs://bucket/set/b.csv", "gs://bucket/set/sub/a.csv"]


@pytest.mark.parametrize("path", ["", "by-label", "by-label/a", "filter/size_bytes__gt=0/by-ext/csv"])
def test_several_datasets_are_not_one(tree: Any, path: str) -> None:
    with pytest.raises(BadValue, match="several datasets are mounted here; name each"):
        dataset_at(tree, path)


def test_a_dataset_out_of_reach_says_why(tree: Any) -> None:
    with pytest.raises(OctuefsError, match="the link expired"):
        dataset_at(tree, "gone")


def test_a_file_in_one_of_several_is_no_dataset(tree: Any) -> None:
    with pytest.raises(NotADirectory):
        dataset_at(tree, "mast/b.csv")
