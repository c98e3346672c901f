"""What a driver asks of nodes besides system calls: which file it is, how it came about, whether it answers at once.

And of the tree: how long what it tells counts, and who is told of changes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.tree_world import World

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import DatafileSeen, FolderGone, Removed
from octuefs.model.hashes import url_safe
from octuefs.tree.node import Node


@pytest.fixture(params=["local", "cloud"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    it = World(in_cloud=request.param == "cloud")
    it.put("a.csv", "x")
    it.put("sub/deep/b.csv", "x", tags={"k": 1})
    it.put("other/c.csv")
    yield it
    it.close()


@pytest.fixture
def new_world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(**options))
        return made[-1]

    yield make
    for it in made:
        it.close()


# --- which file it is


def test_a_datafile_is_one_of_its_dataset_by_whatever_path(world: World) -> None:
    paths = ["a.csv", "by-label/x/a.csv", "by-ext/csv/a.csv", "order-by/name/000001_a.csv"]
    nodes = [world.node(path) for path in paths]
    assert {node.home for node in nodes} == {world.dataset}
    assert len({node.attributes().inode for node in nodes}) == 1
    assert [node.derived for node in nodes] == [False] * 4


def test_what_stands_at_its_path_alone_has_no_home(world: World) -> None:
    paths = ["", "sub", ".hash", "sub/.one", ".octuefs", ".octuefs/status", "by-label", "by-label/x", "by-label/x/sub"]
    assert {world.node(path).home for path in paths} == {None}


def test_a_metadata_file_has_no_home_and_is_derived_where_it_is_of_our_making(new_world: Callable[..., World]) -> None:
    disk, cloud = new_world(), new_world(in_cloud=True)
    for world in (disk, cloud):
        world.put("a.csv", "x")
    disk.disk.files[".octue"] = b"{}"
    disk.index.publish([disk.writer.seen(".octue")])
    stored, made, in_view = disk.node(".octue"), cloud.node(".octue"), disk.node("by-label/x/.octue")
    assert (stored.home, made.home, in_view.home) == (None, None, None)
    assert (stored.derived, made.derived, in_view.derived) == (False, True, True)


def test_what_is_no_datafile_is_a_file_of_its_dataset_too(world: World) -> None:
    world.disk.links["link"] = "sub"
    world.index.publish([world.writer.seen("link")])
    assert world.node("link").home is world.dataset
    assert not world.node("link").derived


def test_views_texts_and_the_control_panel_are_derived_and_folders_are_not(world: World) -> None:
    derived = [".hash", "sub/.hashes", "sub/.one", ".octuefs", ".octuefs/status", ".octuefs/recovered", "by-label"]
    derived += ["by-label/x", "by-label/x/sub", "by-label/x/sub/deep", "order-by/name", "not/by-label/x"]
    assert [world.node(path).derived for path in derived] == [True] * len(derived)
    assert [world.node(path).derived for path in ("", "sub", "sub/deep")] == [False] * 3


# --- whether it answers at once


def at_once(node: Node, *names: str) -> list[bool]:
    return [node.answers_at_once(name) for name in names]


def test_a_folder_answers_at_once_but_for_virtual_names(world: World) -> None:
    assert at_once(world.node(""), "a.csv", "sub", "nothing", "by-nothing") == [True] * 4
    assert at_once(world.node(""), ".octue", ".hash", ".one", "by-label", "filter", ".octuefs") == [False] * 6
    assert at_once(world.node("sub"), "deep", ".octuefs") == [True, True]
    assert at_once(world.node("a.csv"), "b") == [False]


def test_a_name_of_a_view_is_a_plain_one_where_there_are_no_views(new_world: Callable[..., World]) -> None:
    assert at_once(new_world(views=False).node(""), "by-label", ".octue") == [True, False]


def test_a_folder_does_not_answer_at_once_where_a_file_on_the_disk_is_to_be_taken_in(
    new_world: Callable[..., World],
) -> None:
    world = new_world()
    world.disk.files["new"] = b""
    assert at_once(world.node(""), "new", "nothing") == [False, True]


def test_a_bucket_that_each_open_asks_does_not_answer_at_once_for_what_is_not_known(
    new_world: Callable[..., World],
) -> None:
    world = new_world(in_cloud=True)
    world.put("a.csv")
    world.keeper.metadata_ttl = 0
    assert at_once(world.node(""), "a.csv", "nothing") == [True, False]


def test_a_directory_of_a_view_answers_at_once_for_files_and_for_folders_once_they_are_known(world: World) -> None:
    view = world.node("by-label/x")
    world.index.publish([FolderGone("")])
    assert at_once(view, "a.csv", "nothing", "sub", ".octue", "by-ext", ".hash") == [True, True, False] + [False] * 3
    view.lookup("sub")
    assert at_once(view, "sub", "other") == [True, True]
    world.index.publish([FolderGone("")])
    assert at_once(view, "sub") == [False]


def test_a_flat_view_answers_at_once_when_its_order_is_known(world: World) -> None:
    flat = world.node("order-by/name")
    assert at_once(flat, "000001_a.csv", "nothing") == [False, False]
    list(flat.entries())
    assert at_once(flat, "000001_a.csv", "nothing") == [True, True]


def test_a_view_that_asks_for_hashes_does_not_answer_at_once_before_they_are_known(
    new_world: Callable[..., World],
) -> None:
    world = new_world()
    world.put("a.csv")
    hashed = world.index.entry("a.csv")
    assert isinstance(hashed, Datafile)
    view = world.node(f"by-hash/{url_safe(hashed.hash_value)}")
    assert at_once(view, "a.csv") == [True]
    info = hashed.info._replace(crc32c=None)
    unhashed = Datafile(info, world.disk.location, NO_METADATA, info)
    world.index.publish([DatafileSeen(unhashed)])
    assert at_once(view, "a.csv") == [False]
    world.index.publish_hash(unhashed, 5)
    assert at_once(view, "a.csv") == [True]


def test_index_folders_texts_and_the_control_panel_promise_nothing(world: World) -> None:
    for path in ("by-label", "by-tag", "not", ".octuefs", ".octuefs/recovered", ".hash"):
        assert at_once(world.node(path), "x") == [False]


# --- how long it counts, and who is told


def test_what_the_keeper_says_counts_for_all_but_the_control_panel(world: World) -> None:
    world.keeper.lasting = lambda: 42.0  # type: ignore[method-assign]
    lasting = world.operations.lasting
    assert [lasting(path) for path in ("/", "/a.csv", "/by-label/x/a.csv")] == [42.0] * 3
    assert [lasting(path) for path in ("/.octuefs", "/.octuefs/status")] == [0.0] * 2


def test_a_path_is_not_fresh_where_its_version_is_waited_for(world: World) -> None:
    assert world.operations.version_at_once("/a.csv") is not None
    world.keeper.begin_expiring = lambda: object()  # type: ignore[method-assign,assignment,return-value]
    waits = world.operations.version_at_once("/a.csv") is None
    assert waits == world.dataset.in_cloud  # a disk is never waited for
    assert world.operations.version_at_once("/") is not None
    assert world.operations.version_at_once("/.octuefs/status") is not None


def test_who_observes_is_told_by_paths_in_the_mount(new_world: Callable[..., World]) -> None:
    told: list[str] = []
    alone, one_of_several = new_world(), new_world(path="/name")
    for world in (alone, one_of_several):
        world.operations.observe(told.append)
        world.put("a/b")
        world.index.publish([Removed("a/b"), FolderGone("")])
    assert told == [*["/a", "/a/b"] * 2, "/", *["/name/a", "/name/a/b"] * 2, "/name"]


def test_a_folder_of_a_view_that_is_remembered_is_a_change_of_the_root(world: World) -> None:
    told: list[str] = []
    world.operations.observe(told.append)
    world.mkdir("by-label/new")
    assert told == ["/"]
