"""Changes through the tree: what each means for the dataset, in its real folders and in views."""

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cachetools import TTLCache
from unit.tree_world import CALLER, World

from octuefs.entries import Removed
from octuefs.errors import BadValue, NotFound
from octuefs.model.metadata import DatasetMetadata

ID = "3c8f7a56-1d7e-4b1a-8a51-2f6f9d3c0e11"
OTHER_ID = "6c0a9f8e-52a4-4d55-9b5e-6a9b3a8c7d22"


@pytest.fixture(params=["local", "cloud"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    it = World(in_cloud=request.param == "cloud")
    yield it
    it.close()


@pytest.fixture
def new_world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**options: bool) -> World:
        made.append(World(**options))
        return made[-1]

    yield make
    for it in made:
        it.close()


def octue(**records: Mapping[str, Any]) -> bytes:
    return json.dumps({"datafiles": records}).encode()


def record(*labels: str, **others: Any) -> dict[str, Any]:
    return {"labels": {"_type": "set", "items": list(labels)}, "tags": {}, "timestamp": None, **others}


# --- real folders -----------------------------------------------------------------------------------------------------


def test_what_is_done_in_a_real_folder_is_done_in_the_store(world: World) -> None:
    world.mkdir("sub")
    world.write("sub/f", b"text")
    assert world.read("sub/f") == b"text"
    world.mv("sub/f", "sub/g")
    world.mv("sub", "other")
    world.ln("other/g", "h")
    world.rm("other/g")
    world.rmdir("other")
    world.operations.symlink(*world.place("l"), "h", CALLER)
    world.operations.mknod(*world.place("p"), stat.S_IFIFO | 0o600, 0, CALLER)
    assert world.changes() == [
        ("make_folder", "sub"),
        ("create", "sub/f"),
        ("rename", "sub/f", "sub/g"),
        ("rename", "sub", "other"),
        ("link", "other/g", "h"),
        ("remove", "other/g"),
        ("remove_folder", "other"),
        ("make_link", "l", "h"),
        ("make_special", "p"),
    ]


def test_attributes_of_a_real_folder_are_set_in_the_store(world: World) -> None:
    world.mkdir("sub")
    world.changes()
    node = world.node("sub")
    world.operations.chmod(node, 0o700)
    world.operations.chown(node, 5, -1)
    world.operations.utimens(node, (1, 2))
    node.sync()
    assert world.changes() == [
        ("set_mode", "sub", 0o700),
        ("set_owner", "sub", 5, -1),
        ("set_times", "sub"),
        ("sync_folder", "sub"),
    ]


def test_the_datasets_attributes_are_set_on_its_root_alone(world: World) -> None:
    world.mkdir("sub")
    world.operations.setxattr(world.node(""), "user.octue.name", b"mine", 0)
    assert world.changes()[-1] == ("describe_dataset",)
    with world.refused(errno.EPERM, "folder"):
        world.operations.setxattr(world.node("sub"), "user.octue.name", b"mine", 0)
    with world.refused(errno.EPERM, "folder"):
        world.operations.setxattr(world.node("sub"), "user.octue.labels", b"a", 0)


def test_tags_that_are_set_to_what_they_are_keep_their_order(world: World) -> None:
    world.put("f", tags={"z": 1, "b": {"y": 1, "a": 2}})
    node = world.node("f")
    text = world.operations.getxattr(node, "user.octue.tags")
    assert text.index(b'"b"') < text.index(b'"z"')
    world.operations.setxattr(node, "user.octue.tags", text, 0)
    assert json.dumps(world.tags("f")) == '{"z": 1, "b": {"y": 1, "a": 2}}'


def test_an_id_leads_to_the_file_that_has_it_stored(world: World) -> None:
    world.put("f")
    own = world.operations.getxattr(world.node("f"), "user.octue.id").decode()
    world.put("g", id=own)  # as where f was moved away, and another came to its place
    assert world.read(f"by-id/{own}") == b"g"
    assert world.operations.getxattr(world.node("g"), "user.octue.id").decode() == own
    other = world.operations.getxattr(world.node("f"), "user.octue.id").decode()
    assert other != own
    assert world.read(f"by-id/{other}") == b"f"


def test_a_file_is_emptied_though_it_is_opened_for_reading_alone(world: World) -> None:
    world.put("f")
    opened = world.operations.open(world.node("f"), os.O_RDONLY | os.O_TRUNC)
    assert [flags & (os.O_ACCMODE | os.O_TRUNC) for flags in world.writer.opened] == [os.O_RDWR | os.O_TRUNC]
    world.operations.release(opened.handle)


def test_fsync_of_what_has_gone_succeeds(world: World) -> None:
    world.put("sub/f")
    opened = world.operations.open(world.node("sub/f"), os.O_RDONLY)
    folder = world.node("sub")
    world.disk.folders.remove("sub")
    world.operations.fsync(opened.handle, data_only=False)
    folder.sync()
    world.operations.release(opened.handle)


def test_fsync_of_a_file_open_for_reading_makes_durable_what_others_wrote(world: World) -> None:
    world.put("sub/f")
    opened = world.operations.open(world.node("sub/f"), os.O_RDONLY)
    world.operations.fsync(opened.handle, data_only=True)
    world.operations.release(opened.handle)
    assert world.disk.synced == ["sub/f"]
    assert world.changes() == [("sync_folder", "sub")]


@pytest.mark.parametrize("name", ["by-label", "by-tag", "not", "filter", ".hash", ".hashes", ".one", ".octuefs"])
def test_virtual_names_cannot_be_made_replaced_or_removed(world: World, name: str) -> None:
    world.put("f", "a")
    for call in (
        lambda: world.operations.create(*world.place(name), os.O_WRONLY | os.O_CREAT, 0o644, CALLER),
        lambda: world.mkdir(name),
        lambda: world.mv("f", name),
        lambda: world.mv(name, "g"),
        lambda: world.ln("f", name),
        lambda: world.rm(name),
        lambda: world.rmdir(name),
        lambda: world.operations.symlink(*world.place(name), "f", CALLER),
    ):
        with world.refused(errno.EPERM, name):
            call()
    assert world.changes() == []


def test_the_datasets_own_file_of_a_virtual_name_is_its_own(world: World) -> None:
    world.put("by-label")
    world.mv("by-label", "f")
    assert world.changes() == [("rename", "by-label", "f")]
    with world.refused(errno.EPERM):
        world.mv("f", "by-label")


def test_without_views_their_names_are_free(new_world: Callable[..., World]) -> None:
    world = new_world(views=False)
    world.mkdir("by-label")
    world.write(".hash", b"x")
    assert world.ls("") == [".hash", "by-label"]
    with world.refused(errno.EPERM):
        world.mkdir(".octuefs")


def test_the_control_panels_name_is_free_below_the_root(world: World) -> None:
    world.mkdir("sub")
    world.mkdir("sub/.octuefs")
    assert world.ls("sub") == [".octuefs"]


def test_names_that_octuefs_writes_under_cannot_be_made(world: World) -> None:
    name = f".octuefs-{'0' * 32}.octue"
    world.put("f", "a")
    for folder in ("", "by-label/a/"):
        with world.refused(errno.EPERM, name):
            world.write(folder + name)
        with world.refused(errno.EPERM, name):
            world.mv("f", folder + name)


def test_a_name_that_is_too_long_is_refused(world: World) -> None:
    world.put("f", "a")
    for folder in ("", "by-label/a/"):
        with world.refused(errno.ENAMETOOLONG):
            world.operations.create(*world.place(folder + "x" * 256), os.O_WRONLY, 0o644, CALLER)


def test_without_recursion_no_folder_can_be_made(new_world: Callable[..., World]) -> None:
    world = new_world(recursive=False)
    world.put("f", "a")
    for folder in ("", "by-label/a/"):
        with world.refused(errno.EPERM, "--no-recursive"):
            world.mkdir(folder + "sub")


def test_rename_without_replacing_leaves_what_is_there(world: World) -> None:
    world.put("f")
    world.put("g")
    with world.refused(errno.EEXIST):
        world.mv("f", "g", replace=False)


# --- `.octue` ---------------------------------------------------------------------------------------------------------


def test_octue_is_stored_once_it_is_closed(world: World) -> None:
    world.put("f")
    text = octue(f=record("a"))
    opened = world.operations.create(*world.place(".octue"), os.O_WRONLY | os.O_CREAT, 0o644, CALLER)
    assert opened.direct
    world.operations.write(opened.handle, 0, text[:5])
    world.operations.write(opened.handle, 5, text[5:])
    assert world.node(".octue").attributes().size == len(text)
    assert world.read(".octue") == text
    assert world.changes() == []
    world.operations.flush(opened.handle)
    world.operations.flush(opened.handle)
    world.operations.release(opened.handle)
    assert world.changes() == [("store_document", "")]
    assert world.writer.documents[""] == text
    assert world.labels("f") == {"a"}
    assert json.loads(world.read(".octue"))["datafiles"]["f"]["labels"]["items"] == ["a"]


def test_octue_can_be_changed_in_its_middle_and_appended_to(world: World) -> None:
    world.write(".octue", octue(f=record("a")))
    text = world.read(".octue")
    at = text.index(b'"a"')
    opened = world.operations.open(world.node(".octue"), os.O_RDWR)
    assert world.operations.read(opened.handle, at, 3) == b'"a"'
    world.operations.write(opened.handle, at, b'"b"')
    world.operations.fsync(opened.handle, data_only=False)
    world.operations.release(opened.handle)
    assert b'"b"' in world.read(".octue")
    opened = world.operations.open(world.node(".octue"), os.O_WRONLY | os.O_APPEND)
    world.operations.write(opened.handle, 0, b"  \n")
    world.operations.flush(opened.handle)
    world.operations.release(opened.handle)
    assert world.writer.documents[""].endswith(b"}\n  \n")


def test_malformed_metadata_is_refused_at_close_and_again_until_it_is_mended(world: World) -> None:
    opened = world.operations.create(*world.place(".octue"), os.O_WRONLY | os.O_CREAT, 0o644, CALLER)
    world.operations.write(opened.handle, 0, b"{")
    for _ in range(2):
        with pytest.raises(BadValue):
            world.operations.flush(opened.handle)
    assert world.writer.kept == [("", b"{")]
    world.operations.write(opened.handle, 1, b"}")
    world.operations.flush(opened.handle)
    world.operations.release(opened.handle)
    assert world.writer.documents[""] == b"{}"


def test_a_descriptor_closed_before_anything_is_written_stores_nothing(world: World) -> None:
    world.write(".octue", octue(f=record("a")))
    world.changes()
    opened = world.operations.open(world.node(".octue"), os.O_WRONLY | os.O_TRUNC)
    world.operations.flush(opened.handle)
    assert world.changes() == []
    world.operations.write(opened.handle, 0, octue(f=record("b")))
    world.operations.flush(opened.handle)
    world.operations.release(opened.handle)
    assert world.changes() == [("store_document", "")]


def test_two_descriptors_of_octue_share_its_text(world: World) -> None:
    world.write(".octue", octue(f=record("a")))
    one = world.operations.open(world.node(".octue"), os.O_RDWR).handle
    two = world.operations.open(world.node(".octue"), os.O_RDWR).handle
    world.operations.ftruncate(one, 0)
    world.operations.write(one, 0, octue(f=record("b")))
    assert world.operations.read(two, 0, 1000) == octue(f=record("b"))
    world.operations.flush(two)
    assert world.writer.documents[""] == octue(f=record("b"))
    world.changes()
    world.operations.release(one)
    world.operations.release(two)
    assert world.changes() == []


def test_what_copies_set_on_octue_does_no_harm(world: World) -> None:
    """`cp -a` and `rsync -a` set these, by path too, while the file is open."""
    opened = world.operations.create(*world.place(".octue"), os.O_WRONLY | os.O_CREAT, 0o644, CALLER)
    node = world.node(".octue")
    world.operations.chmod(node, 0o600)
    world.operations.utimens(node, (1, 1))
    world.operations.chown(node, os.getuid(), os.getgid())
    with world.refused(errno.EPERM):
        world.operations.chown(node, os.getuid() + 1, -1)
    world.operations.release(opened.handle)
    assert not world.exists(".octue")


def test_drivers_learn_that_octue_comes_and_goes(world: World) -> None:
    before = world.index.version
    opened = world.operations.create(*world.place(".octue"), os.O_WRONLY | os.O_CREAT, 0o644, CALLER)
    between = world.index.version
    world.operations.release(opened.handle)
    assert before < between < world.index.version


def test_a_file_renamed_to_octue_is_taken_as_written(world: World) -> None:
    world.put("f")
    world.write(".octue.tmp", octue(f=record("a")))
    world.mv(".octue.tmp", ".octue")
    assert world.labels("f") == {"a"}
    assert not world.exists(".octue.tmp")
    world.write("bad", b"{")
    with world.refused(errno.EINVAL):
        world.mv("bad", ".octue")
    with world.refused(errno.EEXIST):
        world.mv("bad", ".octue", replace=False)


def test_metadata_is_moved_by_copying(world: World) -> None:
    world.mkdir("sub")
    world.write(".octue", octue(f=record("a")))
    with world.refused(errno.EXDEV):
        world.mv(".octue", "sub/.octue")


def test_removing_octue_removes_the_metadata_of_the_folder(world: World) -> None:
    world.mkdir("sub")
    with world.refused(errno.ENOENT):
        world.rm("sub/.octue")
    world.write("sub/.octue", octue(f=record("a")))
    world.changes()
    world.rm("sub/.octue")
    assert world.changes() == [("remove_document", "sub")]


def test_rm_r_of_a_folder_ends_well_though_its_octue_goes_with_the_files(world: World) -> None:
    world.mkdir("sub")
    world.put("sub/f", "a")
    world.put("sub/g")
    assert any(entry.name == ".octue" for entry in world.node("sub").entries()) == world.dataset.in_cloud
    world.rm_r("sub")
    assert not world.exists("sub")


def test_octue_that_went_with_the_files_answers_until_it_is_removed_or_no_more_listed(
    new_world: Callable[..., World],
) -> None:
    world = new_world(in_cloud=True)
    for number, forgets in enumerate(
        (
            lambda: world.rm("sub/.octue"),
            lambda: list(world.node("sub").entries()),
            world.namespace.forget_shown,
        )
    ):
        world.put("sub/f", "a")
        world.put("sub/g")
        list(world.node("sub").entries())
        world.rm("sub/f")
        assert world.read("sub/.octue") == b"", number
        world.changes()
        before = world.index.version
        forgets()
        assert world.changes() == []
        assert not world.exists("sub/.octue")
        assert world.index.version > before
    world.put("sub/f", "a")
    world.rm("sub/f")
    assert not world.exists("sub/.octue"), "it was not listed"
    world.put("sub/f", "a")
    list(world.node("sub").entries())
    world.rm("sub/g")
    world.rm("sub/f")
    world.rmdir("sub")
    world.mkdir("sub")
    list(world.node("sub").entries())
    assert not world.exists("sub/.octue")


def test_octue_that_is_still_to_be_written_is_listed_found_and_removed(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    monkeypatch.setattr(world.keeper.stored, "has_pending", lambda folder: folder in world.writer.pending)
    for look in (
        lambda: [entry.name for entry in world.node("").entries()] == [".octue"],
        lambda: world.exists(".octue"),
        lambda: world.rm(".octue") is None,
    ):
        world.writer.pending.add("")
        assert look()
        world.disk.files.clear()
        world.index.publish([Removed(".octue")])


def test_what_waits_for_a_file_is_shown(new_world: Callable[..., World]) -> None:
    world = new_world(in_cloud=True)
    assert [entry.name for entry in world.node("").entries()] == []
    world.write(".octue", octue(late=record("a")))
    assert [entry.name for entry in world.node("").entries()] == [".octue"]
    assert set(json.loads(world.read(".octue"))["datafiles"]) == {"late"}
    world.write("late", b"x")
    assert world.labels("late") == {"a"}


def test_nothing_but_a_file_can_be_octue(world: World) -> None:
    world.mkdir("sub")
    for call in (
        lambda: world.mkdir(".octue"),
        lambda: world.operations.symlink(*world.place(".octue"), "f", CALLER),
        lambda: world.mv("sub", ".octue"),
    ):
        with world.refused(errno.EPERM):
            call()


def test_octue_does_not_answer_in_a_folder_that_is_being_filled_until_somebody_looks(world: World) -> None:
    """`cp -r` makes each file with O_EXCL in a folder that it made; `.octue` may be the last of them."""
    world.put("f", "a")
    for folder in ("by-label/a/new", "real"):
        world.mkdir(folder)
        opened = world.operations.create(*world.place(f"{folder}/x"), os.O_WRONLY | os.O_EXCL, 0o644, CALLER)
        world.operations.setxattr(world.node(f"{folder}/x"), "user.octue.labels", b"a b", 0)
        world.operations.release(opened.handle)
        assert not world.exists(f"{folder}/.octue")
        world.write(f"{folder}/.octue", octue(x=record("c")), flags=os.O_EXCL)
        assert world.exists(f"{folder}/.octue")
    assert (world.labels("new/x"), world.labels("real/x")) == ({"a", "c"}, {"c"})


def test_a_folder_is_being_filled_as_long_as_a_new_file_in_it_is_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file may take minutes to be written and stored, with no name looked up meanwhile."""
    now = 0.0
    monkeypatch.setattr(world.namespace.filling, "_scopes", TTLCache(9, 10.0, timer=lambda: now))
    world.put("f", "a")
    for folder in ("by-label/a/new", "real"):
        world.mkdir(folder)
        opened = world.operations.create(*world.place(f"{folder}/x"), os.O_WRONLY, 0o644, CALLER)
        world.operations.setxattr(world.node(f"{folder}/x"), "user.octue.labels", b"a", 0)
        now += 100
        assert not world.exists(f"{folder}/.octue")
        world.operations.write(opened.handle, 0, b"large")
        world.operations.fsync(opened.handle, data_only=False)
        world.operations.release(opened.handle)
        assert not world.exists(f"{folder}/.octue")
        assert world.read(f"{folder}/x") == b"large"
        now += 11
        assert world.exists(f"{folder}/.octue") == (world.dataset.in_cloud or folder != "real")


def test_a_folder_is_being_filled_as_long_as_what_is_below_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cp -r` may come to `.octue` after the folders."""
    now = 0.0
    monkeypatch.setattr(world.namespace.filling, "_scopes", TTLCache(9, 10.0, timer=lambda: now))
    world.put("f", "a")
    world.mkdir("by-label/a/new")
    world.write("by-label/a/new/x")
    world.mkdir("by-label/a/new/sub")
    now += 8
    world.mkdir("by-label/a/new/sub/deep")
    now += 8
    opened = world.operations.create(*world.place("by-label/a/new/sub/deep/x"), os.O_WRONLY, 0o644, CALLER)
    now += 100
    world.operations.release(opened.handle)
    now += 8
    assert not world.exists("by-label/a/new/.octue")
    assert world.exists("by-label/a/.octue")
    now += 8
    assert world.exists("by-label/a/new/.octue")


def test_setting_an_attribute_by_name_ends_the_filling_of_a_folder(new_world: Callable[..., World]) -> None:
    """It is a person or a script, who may look at `.octue` next."""
    world = new_world(in_cloud=True)
    world.put("f", "a")
    for folder in ("by-label/a/new", "real"):
        world.mkdir(folder)
        world.write(f"{folder}/x")
        world.operations.setxattr(world.node(f"{folder}/x"), "user.octue.labels", b"a b", 0)
        assert world.exists(f"{folder}/.octue")


def test_a_file_that_stays_open_does_not_hide_what_was_looked_at(world: World) -> None:
    world.put("f", "a")
    world.mkdir("by-label/a/new")
    opened = world.operations.create(*world.place("by-label/a/new/x"), os.O_WRONLY, 0o644, CALLER)
    list(world.node("by-label/a/new").entries())
    assert world.exists("by-label/a/new/.octue")
    world.operations.release(opened.handle)
    assert world.exists("by-label/a/new/.octue")


def test_listing_a_folder_ends_its_filling(world: World) -> None:
    world.put("f", "a")
    world.mkdir("by-label/a/new")
    world.write("by-label/a/new/x")
    assert not world.exists("by-label/a/new/.octue")
    before = world.index.version
    assert [entry.name for entry in world.node("by-label/a/new").entries()] == [".octue", "x"]
    assert world.index.version > before
    assert json.loads(world.read("by-label/a/new/.octue"))["datafiles"]["x"]


# --- creating in views ------------------------------------------------------------------------------------------------


def test_a_file_made_in_a_view_gets_all_that_lets_it_show_there(world: World) -> None:
    world.put("f", "a", tags={"k": 1, "s": "x"})
    world.put("sub/g", "a", "b", tags={"k": 1, "s": "x"})
    world.write("by-label/a/by-tag/k/1/by-tag/s/x/new", b"text")
    assert world.read("new") == b"text"
    assert (world.labels("new"), world.tags("new")) == ({"a"}, {"k": 1, "s": "x"})
    world.write("by-label/b/sub/deep", b"text")
    assert world.labels("sub/deep") == {"b"}
    world.write("sub/by-label/b/more", b"text")
    assert world.labels("sub/more") == {"b"}


def test_what_stands_unseen_in_the_dataset_is_not_overwritten_through_a_view(world: World) -> None:
    world.put("f", "a")
    world.put("g")
    for flags in (0, os.O_EXCL):
        with world.refused(errno.EEXIST, "does not show"):
            world.write("by-label/a/g", flags=flags)
    with world.refused(errno.EEXIST):
        world.mv("by-label/a/f", "by-label/a/g")
    world.put("h")
    with world.refused(errno.EEXIST):
        world.mv("h", "by-label/a/g")
    with world.refused(errno.EEXIST):
        world.ln("h", "by-label/a/g")
    with world.refused(errno.EEXIST):
        world.mkdir("by-label/a/g")


def test_what_shows_in_a_view_is_overwritten_and_edited_in_place(world: World) -> None:
    world.put("f", "a")
    world.write("by-label/a/f", b"text")
    world.write("by-ext/_/f", b"texts")
    assert world.read("f") == b"texts"
    node = world.node("by-ext/_/f")
    world.operations.truncate(node, 1)
    world.operations.setxattr(node, "user.octue.labels", b"a b", 0)
    assert world.labels("f") == {"a", "b"}


@pytest.mark.parametrize(
    "view",
    ["by-ext/_", "by-hash/{hash}", "filter/size_bytes__gt=0", "order-by/name", "not/by-label/b", "by-label/a,b"],
)
def test_views_whose_membership_is_not_ours_to_set_say_so(world: World, view: str) -> None:
    world.put("f", "a")
    world.put("g", "b")
    view = view.format(hash=world.ls("by-hash")[0])
    shown = world.ls(view)[0]
    for call in (
        lambda: world.write(f"{view}/new"),
        lambda: world.mkdir(f"{view}/new"),
        lambda: world.rm(f"{view}/{shown}"),
        lambda: world.mv(f"{view}/{shown}", "h"),
        lambda: world.mv(f"{view}/{shown}", f"{view}/h"),
        lambda: world.mv("g", f"{view}/h"),
        lambda: world.ln("g", f"{view}/h"),
        lambda: world.mkdir(f"{view}/by-label/new"),
        lambda: world.operations.symlink(*world.place(f"{view}/l"), "f", CALLER),
    ):
        with world.refused(errno.EPERM, view.partition("/")[0]):
            call()
    assert world.changes() == []


@pytest.mark.parametrize("index_folder", ["by-label", "by-tag", "by-tag/k", "by-ext", "by-date", "by-id", "filter"])
def test_no_file_can_stand_among_the_values_of_a_view(world: World, index_folder: str) -> None:
    world.put("f", "a", tags={"k": 1})
    for call in (
        lambda: world.operations.create(*world.place(f"{index_folder}/x"), os.O_WRONLY, 0o644, CALLER),
        lambda: world.mv("f", f"{index_folder}/x"),
        lambda: world.rm(f"{index_folder}/x"),
    ):
        with world.refused(errno.EPERM, index_folder):
            call()
    with world.refused(errno.EPERM):
        world.rmdir(index_folder.partition("/")[0])


def test_no_file_can_have_two_values_in_one_tag(world: World) -> None:
    world.put("f", "a", tags={"k": 1})
    with world.refused(errno.EPERM, "one value"):
        world.mkdir("by-tag/k/1/by-tag/k/2")
    world.put("g", tags={"k": 2, "a": 1})
    with world.refused(errno.EPERM):
        world.mkdir("by-tag/k/2/by-tag/k.a")
        world.mkdir("by-tag/k/2/by-tag/k.a/1")


def test_a_link_to_a_file_can_be_made_in_a_view_and_no_other(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.put("f", "a")
    world.mkdir("sub")
    world.operations.symlink(*world.place("by-label/a/l"), "f", CALLER)
    assert world.labels("l") == {"a"}
    with world.refused(errno.EPERM, "leads to no file"):
        world.operations.symlink(*world.place("by-label/a/m"), "sub", CALLER)
    assert not world.exists("m")
    with world.refused(errno.EPERM):
        world.operations.mknod(*world.place("by-label/a/p"), stat.S_IFIFO, 0, CALLER)


# --- values of tags ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("5", 5),
        ("5.0", 5.0),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("1e3", "1e3"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("text", "text"),
        ('"x"', '"x"'),
        ("a%2Fb", "a/b"),
        ("%", ""),
        ("[1]", "[1]"),
        ("1E400", "1E400"),
    ],
)
def test_a_tags_value_is_json_where_it_shows_as_the_same_name(world: World, name: str, value: object) -> None:
    world.mkdir("by-tag/k")
    world.mkdir(f"by-tag/k/{name}")
    world.write(f"by-tag/k/{name}/f")
    assert world.tags("f") == {"k": value}
    assert type(world.tags("f")["k"]) is type(value)
    assert world.ls("by-tag/k") == [name]
    assert world.ls(f"by-tag/k/{name}") == ["f"]


def test_nested_tags_are_made(world: World) -> None:
    world.mkdir("by-tag/a.b%2Ec")
    world.mkdir("by-tag/a.b%2Ec/1")
    world.write("by-tag/a.b%2Ec/1/f")
    assert world.tags("f") == {"a": {"b.c": 1}}
    world.rm("by-tag/a.b%2Ec/1/f")
    assert world.tags("f") == {}


@pytest.mark.parametrize("name", ["A", "new_", "a b", "-a", "a.%62", ""])
def test_keys_of_tags_are_checked(world: World, name: str) -> None:
    if name:
        with world.refused(errno.EINVAL):
            world.mkdir(f"by-tag/{name}")


@pytest.mark.parametrize("name", ["A", "a_b", "-a", "a b", " a", "%"])
def test_labels_are_checked(world: World, name: str) -> None:
    world.put("f", "a")
    with world.refused(errno.EINVAL):
        world.mkdir(f"by-label/{name}")
    with world.refused(errno.EINVAL):
        world.mv("by-label/a", f"by-label/{name}")


# --- folders of views -------------------------------------------------------------------------------------------------


def test_a_new_label_shows_before_a_file_has_it(world: World) -> None:
    before = world.index.version
    world.mkdir("by-label/new")
    assert world.index.version > before
    assert world.ls("by-label") == ["new"]
    assert world.ls("by-label/new") == []
    with world.refused(errno.EEXIST):
        world.mkdir("by-label/new")
    world.put("f", "a")
    world.mv("by-label/a/f", "by-label/new/f")
    assert world.labels("f") == {"new"}
    assert world.changes() == [("describe", "f")]
    assert world.ls("by-label") == ["a", "new"]
    world.rmdir("by-label/a")
    assert world.ls("by-label") == ["new"]
    with world.refused(errno.ENOTEMPTY):
        world.rmdir("by-label/new")
    with world.refused(errno.ENOENT):
        world.rmdir("by-label/z")


def test_a_refresh_forgets_folders_that_nothing_is_in(world: World) -> None:
    world.mkdir("by-label/new")
    world.mkdir("by-tag/k")
    before = world.index.version
    world.namespace.forget_shown()
    assert world.index.version > before
    assert not world.exists("by-label/new")
    assert not world.exists("by-tag/k")


def test_new_tags_show_before_a_file_has_them(world: World) -> None:
    world.mkdir("by-tag/k")
    assert world.ls("by-tag") == ["k"]
    world.mkdir("by-tag/k/v")
    assert world.ls("by-tag/k") == ["v"]
    with world.refused(errno.ENOTEMPTY):
        world.rmdir("by-tag/k")
    world.rmdir("by-tag/k/v")
    assert world.ls("by-tag/k") == []
    world.rmdir("by-tag/k")
    assert not world.exists("by-tag/k")


def test_values_are_made_below_others(world: World) -> None:
    world.mkdir("by-label/a")
    world.mkdir("by-label/a/by-label/b")
    assert world.ls("by-label/a/by-label") == ["b"]
    assert world.ls("by-label") == ["a"]
    world.write("by-label/a/by-label/b/f")
    assert world.labels("f") == {"a", "b"}


def test_folders_in_views_are_the_datasets_and_show_though_empty(world: World) -> None:
    world.put("f", "a")
    world.put("there/g")
    world.mkdir("by-label/a/there")
    assert world.changes() == []
    assert world.ls("by-label/a") == ["f", "there"]
    assert world.ls("by-label/a/there") == []
    world.mkdir("by-label/a/new")
    world.mkdir("by-label/a/new/deep")
    assert world.changes() == [("make_folder", "new"), ("make_folder", "new/deep")]
    assert world.ls("by-label/a/new") == ["deep"]
    with world.refused(errno.ENOTEMPTY):
        world.rmdir("by-label/a/new")
    world.rmdir("by-label/a/new/deep")
    world.rmdir("by-label/a/new")
    world.rmdir("by-label/a/there")
    assert world.changes() == [("remove_folder", "new/deep"), ("remove_folder", "new")]
    assert world.ls("by-label/a") == ["f"]
    assert world.exists("there/g")
    assert not world.exists("new")


def test_rmdir_in_a_view_leaves_a_folder_that_holds_anything(world: World) -> None:
    world.put("f", "a")
    world.mkdir("by-label/a/new")
    world.write("new/unseen")
    world.rmdir("by-label/a/new")
    assert world.ls("new") == ["unseen"]
    assert world.ls("by-label/a") == ["f"]


def test_a_folder_that_is_gone_from_the_dataset_shows_no_more(world: World) -> None:
    world.mkdir("by-label/a")
    world.mkdir("by-label/a/new")
    world.rmdir("new")
    assert world.ls("by-label/a") == []
    assert not world.exists("by-label/a/new")


def test_view_folders_take_no_attributes_and_do_not_mind(world: World) -> None:
    world.put("sub/f", "a")
    for path in ("by-label", "by-label/a", "by-label/a/sub", "by-ext/_"):
        node = world.node(path)
        assert node.attributes().mode & 0o200
        world.operations.chmod(node, 0o500)
        world.operations.chown(node, 5, 5)
        world.operations.utimens(node, (1, 1))
    assert world.changes() == []


# --- removing in views ------------------------------------------------------------------------------------------------


def test_rm_takes_the_innermost_away_and_never_the_data(world: World) -> None:
    world.put("f", "a", "b", tags={"k": 1})
    world.rm("by-label/a/by-tag/k/1/f")
    assert (world.labels("f"), world.tags("f")) == ({"a", "b"}, {})
    world.rm("by-label/a/by-label/b/f")
    assert world.labels("f") == {"a"}
    world.rm("by-label/a/f")
    assert world.labels("f") == set()
    assert world.read("f") == b"f"
    assert {call[0] for call in world.changes()} == {"describe"}


def test_rm_r_of_a_label_takes_it_away_and_touches_no_byte(world: World) -> None:
    for path in ("f", "sub/g", "sub/deep/h", "sub/deep/i"):
        world.put(path, "a", "b")
    world.put("sub/j", "b")
    files = dict(world.disk.files)
    world.rm_r("by-label/a")
    assert world.disk.files == files
    assert {path: world.labels(path) for path in files} == {path: {"b"} for path in files}
    assert {call[0] for call in world.changes()} == {"describe"}
    assert world.ls("by-label") == ["b"]


def test_rm_r_of_tags_takes_them_away(world: World) -> None:
    world.put("f", tags={"k": 1, "l": 1})
    world.put("sub/g", tags={"k": 2})
    world.rm_r("by-tag/k")
    assert (world.tags("f"), world.tags("sub/g")) == ({"l": 1}, {})
    assert world.ls("by-tag") == ["l"]


def test_removing_octue_in_a_view_changes_nothing(world: World) -> None:
    world.put("f", "a")
    world.rm("by-label/a/.octue")
    world.rm("by-ext/_/.octue")
    assert world.changes() == []
    assert [entry.name for entry in world.node("by-label/a").entries()] == [".octue", "f"]
    assert world.exists("by-label/a/.octue")


def test_octue_that_was_removed_from_a_view_can_be_made_anew_with_o_excl(world: World) -> None:
    """`tar x` removes what it finds, and makes it."""
    world.put("f", "a", "b")
    before = world.index.version
    world.rm("by-label/a/.octue")
    assert world.index.version > before
    assert not world.exists("by-label/a/.octue")
    with world.refused(errno.ENOENT):
        world.rm("by-label/a/.octue")
    world.write("by-label/a/.octue", octue(f=record("c")), flags=os.O_EXCL)
    assert world.exists("by-label/a/.octue")
    assert world.labels("f") == {"a", "c"}


def test_what_is_not_there_cannot_be_removed(world: World) -> None:
    world.put("f", "a")
    world.put("g")
    world.put("sub/h", "a")
    for path in ("by-label/a/g", "by-label/a/z"):
        with world.refused(errno.ENOENT):
            world.rm(path)
        with world.refused(errno.ENOENT):
            world.rmdir(path)
    with world.refused(errno.EISDIR):
        world.rm("by-label/a/sub")
    with world.refused(errno.ENOTDIR):
        world.rmdir("by-label/a/f")
    with world.refused(errno.ENOTEMPTY):
        world.rmdir("by-label/a/sub")


# --- moving and linking -----------------------------------------------------------------------------------------------


def test_moving_a_file_into_a_view_at_its_own_path_labels_it(world: World) -> None:
    world.put("f", "x")
    world.put("sub/g", "a")
    world.mv("f", "by-label/a/f")
    assert world.labels("f") == {"a", "x"}
    assert world.changes() == [("describe", "f")]


def test_moving_a_file_into_a_view_elsewhere_moves_and_labels_it(world: World) -> None:
    world.put("sub/f", "x")
    world.put("g", "a")
    world.mv("sub/f", "by-label/a/f")
    assert world.labels("f") == {"a", "x"}
    assert world.changes() == [("rename", "sub/f", "f")]


def test_moving_between_views_takes_one_away_and_gives_another(world: World) -> None:
    world.put("f", "a", tags={"k": 1})
    world.put("g", "b", tags={"k": 2})
    world.mv("by-label/a/f", "by-label/b/f")
    assert world.labels("f") == {"b"}
    world.mv("by-tag/k/1/f", "by-tag/k/2/f")
    assert (world.labels("f"), world.tags("f")) == ({"b"}, {"k": 2})
    world.mv("by-label/b/by-tag/k/2/f", "by-label/b/f")
    assert (world.labels("f"), world.tags("f")) == ({"b"}, {})
    world.mv("by-label/b/f", "by-label/b/h")
    assert world.labels("h") == {"b"}
    assert world.changes() == [("describe", "f"), ("describe", "f"), ("describe", "f"), ("rename", "f", "h")]


def test_a_condition_of_both_views_is_kept(world: World) -> None:
    world.put("f", "a", "b")
    world.mv("by-label/a/by-label/b/f", "by-label/b/f")
    assert world.labels("f") == {"b"}
    world.put("g", "b", "c")
    world.mv("by-label/b/f", "by-label/b/by-label/c/f")
    assert world.labels("f") == {"b", "c"}


def test_moving_out_of_a_view_takes_the_innermost_away(world: World) -> None:
    world.put("f", "a", "b")
    world.mkdir("sub")
    world.changes()
    world.mv("by-label/a/f", "f")
    assert (world.labels("f"), world.changes()) == ({"b"}, [("describe", "f")])
    world.mv("by-label/b/f", "sub/g")
    assert (world.labels("sub/g"), world.changes()) == (set(), [("rename", "f", "sub/g")])
    assert world.ls("by-label") == ["a", "b"]


def test_an_editors_save_in_a_view_keeps_what_the_file_had(world: World) -> None:
    """A new version is written beside the file and renamed over it: the view's label is not set on it by anybody."""
    world.put("f", "a", "b", tags={"k": 1, "l": 2})
    world.write("by-label/a/by-tag/k/1/f.new", b"text")
    world.mv("by-label/a/by-tag/k/1/f.new", "by-label/a/by-tag/k/1/f")
    assert (world.labels("f"), world.tags("f")) == ({"a", "b"}, {"k": 1, "l": 2})
    assert world.read("f") == b"text"
    world.write("by-label/a/f.new", b"text")
    world.operations.setxattr(world.node("f.new"), "user.octue.labels", b"a c", 0)
    world.mv("by-label/a/f.new", "by-label/a/f")
    assert (world.labels("f"), world.tags("f")) == ({"a", "c"}, {"k": 1, "l": 2})


def test_a_file_renamed_in_a_view_takes_the_record_that_waits(world: World) -> None:
    """As `rsync` writes a tree into a view."""
    world.mkdir("by-label/a")
    world.write("by-label/a/.octue", octue(f=record("b", id=ID)))
    world.write("by-label/a/.f.tmp", b"text")
    world.mv("by-label/a/.f.tmp", "by-label/a/f")
    assert world.labels("f") == {"a", "b"}


def test_a_tag_that_shows_in_the_folder_already_keeps_its_type(world: World) -> None:
    world.put("f", tags={"k": "5"})
    world.put("sub/g", tags={"k": 5})
    world.mv("f", "by-tag/k/5/sub/f")
    assert world.tags("sub/f") == {"k": "5"}


def test_linking_labels_too(world: World) -> None:
    world.put("f")
    world.put("g", "a")
    world.ln("f", "by-label/a/f")
    assert (world.labels("f"), world.changes()) == ({"a"}, [("describe", "f")])
    world.ln("by-ext/_/f", "by-label/a/h")
    assert (world.labels("h"), world.changes()) == ({"a"}, [("link", "f", "h"), ("describe", "h")])
    with world.refused(errno.EEXIST):
        world.ln("f", "by-label/a/f")


def test_only_datafiles_show_in_views(world: World) -> None:
    world.put("f", "a")
    world.operations.mknod(*world.place("pipe"), stat.S_IFIFO, 0, CALLER)
    with world.refused(errno.EPERM, "datafile"):
        world.mv("pipe", "by-label/a/pipe")
    with world.refused(errno.EPERM, "datafile"):
        world.ln("pipe", "by-label/a/pipe")


def test_moving_a_folder_into_a_view_labels_all_that_is_in_it(world: World) -> None:
    world.put("f", "a")
    world.put("sub/g")
    world.put("sub/deep/h", "b")
    world.mv("sub", "by-label/a/sub")
    assert (world.labels("sub/g"), world.labels("sub/deep/h")) == ({"a"}, {"a", "b"})
    assert {call[0] for call in world.changes()} == {"describe"}
    world.mv("sub", "by-label/a/renamed")
    assert world.changes() == [("rename", "sub", "renamed")]
    assert world.ls("by-label/a/renamed") == ["deep", "g"]


def test_moving_a_folder_between_views_moves_what_shows_of_it(world: World) -> None:
    world.put("sub/f", "a")
    world.put("sub/g", "a", "x")
    world.put("sub/unseen", "x")
    world.mkdir("by-label/b")
    world.mv("by-label/a/sub", "by-label/b/sub")
    assert {it: world.labels(it) for it in world.disk.files} == {
        "sub/f": {"b"},
        "sub/g": {"b", "x"},
        "sub/unseen": {"x"},
    }
    with world.refused(errno.EPERM, "does not show"):
        world.mv("by-label/b/sub", "by-label/b/other")
    world.rm("sub/unseen")
    world.mv("by-label/b/sub", "by-label/b/other")
    assert world.ls("by-label/b/other") == ["f", "g"]
    world.mv("by-label/b/other", "other")
    assert (world.labels("other/f"), world.labels("other/g")) == (set(), {"x"})


def test_an_empty_folder_of_a_view_is_renamed_with_the_datasets(world: World) -> None:
    world.put("f", "a")
    world.mkdir("by-label/a/new")
    world.mv("by-label/a/new", "by-label/a/newer")
    assert world.ls("by-label/a") == ["f", "newer"]
    assert world.exists("newer")
    assert not world.exists("new")


# --- renaming values --------------------------------------------------------------------------------------------------


def test_renaming_a_labels_folder_renames_the_label(world: World) -> None:
    for path in ("f", "sub/g", "sub/h"):
        world.put(path, "a", "x")
    world.mv("by-label/a", "by-label/b")
    assert {path: world.labels(path) for path in world.disk.files} == {path: {"b", "x"} for path in world.disk.files}
    assert world.ls("by-label") == ["b", "x"]


def test_a_value_is_renamed_within_its_scope_alone(world: World) -> None:
    world.put("f", "a", "x")
    world.put("sub/g", "a")
    world.put("sub/h", "a", "x")
    world.mv("sub/by-label/a", "sub/by-label/b")
    world.mv("by-label/x/by-label/a", "by-label/x/by-label/c")
    assert {path: world.labels(path) for path in world.disk.files} == {
        "f": {"c", "x"},
        "sub/g": {"b"},
        "sub/h": {"b", "x"},
    }


def test_a_value_is_not_renamed_onto_another_that_files_have(world: World) -> None:
    world.put("f", "a", tags={"k": 1, "l": 1})
    world.put("g", "b", tags={"k": 2})
    for old, new in (("by-label/a", "by-label/b"), ("by-tag/k/1", "by-tag/k/2"), ("by-tag/k", "by-tag/l")):
        with world.refused(errno.ENOTEMPTY):
            world.mv(old, new)
        with world.refused(errno.EEXIST):
            world.mv(old, new, replace=False)
    world.mkdir("by-label/empty")
    world.mv("by-label/a", "by-label/empty")
    assert world.labels("f") == {"empty"}


def test_renaming_folders_of_tags_renames_values_and_keys(world: World) -> None:
    world.put("f", tags={"z": 0, "k": 1, "y": 2})
    world.put("g", tags={"k": "one"})
    world.mv("by-tag/k/1", "by-tag/k/5")
    assert list(world.tags("f").items()) == [("z", 0), ("k", 5), ("y", 2)]
    world.mv("by-tag/k", "by-tag/m.n")
    assert (world.tags("f"), world.tags("g")) == ({"z": 0, "y": 2, "m": {"n": 5}}, {"m": {"n": "one"}})


def test_a_key_is_not_renamed_onto_what_does_not_show(world: World) -> None:
    world.put("f", tags={"k": 1, "list": [1]})
    with world.refused(errno.ENOTEMPTY, "list"):
        world.mv("by-tag/k", "by-tag/list")


def test_empty_values_are_renamed(world: World) -> None:
    world.mkdir("by-label/new")
    world.mv("by-label/new", "by-label/newer")
    assert world.ls("by-label") == ["newer"]
    world.mkdir("by-tag/k")
    world.mkdir("by-tag/k/v")
    world.mv("by-tag/k/v", "by-tag/k/w")
    assert world.ls("by-tag/k") == ["w"]
    world.mv("by-tag/k", "by-tag/l")
    assert world.ls("by-tag") == ["l"]


def test_the_folder_of_a_value_goes_nowhere_else(world: World) -> None:
    world.put("f", "a", tags={"k": 1, "l": 2})
    world.put("sub/g", "b")
    for old, new in (
        ("by-label/a", "folder"),
        ("by-label/a", "sub/by-label/a"),
        ("by-label/a", "by-tag/a"),
        ("by-label/a", "by-label/b/a"),
        ("by-tag/k/1", "by-tag/l/1"),
        ("by-tag/k", "by-label/k"),
        ("sub", "by-label/new"),
        ("not/by-label/b", "not/by-label/c"),
    ):
        with world.refused(errno.EPERM):
            world.mv(old, new)


@pytest.mark.expected_logs("was not changed")
def test_all_files_of_a_value_are_tried_and_the_first_failure_is_raised(world: World) -> None:
    for name in "fghi":
        world.put(name, "a")
    world.writer.failing = {"g": BadValue("g is bad"), "i": BadValue("i is bad")}
    with pytest.raises(BadValue, match="g is bad"):
        world.mv("by-label/a", "by-label/b")
    assert {name: world.labels(name) for name in "fghi"} == {"f": {"b"}, "g": {"a"}, "h": {"b"}, "i": {"a"}}
    assert "g is bad" in world.report.text()
    assert "i is bad" in world.report.text()


# --- `.octue` in views ------------------------------------------------------------------------------------------------


@pytest.mark.expected_logs("is left out|is kept")
def test_octue_of_a_view_merges_the_records_that_it_names(world: World) -> None:
    world.put("f", "a", "x", tags={"k": 1}, id=ID)
    world.put("g", "a", "y")
    world.put("unseen", "z")
    text = octue(f=record("b", id=OTHER_ID), unseen=record("b"), late=record("c"))
    world.write("by-label/a/by-tag/k/1/.octue", text)
    assert (world.labels("f"), world.tags("f")) == ({"a", "b"}, {"k": 1})
    assert world.writer.metadata_of("f").id == ID
    assert (world.labels("g"), world.labels("unseen")) == ({"a", "y"}, {"z"})
    assert world.changes() == [("store_records", "", ["late"]), ("describe", "f")]
    assert "unseen" in world.report.text()
    assert OTHER_ID in world.report.text()


def test_a_tree_copied_into_a_view_gets_its_metadata_and_the_views(world: World) -> None:
    """`cp -r` may write `.octue` first."""
    world.mkdir("by-label/a")
    world.mkdir("by-label/a/dir")
    world.write("by-label/a/dir/.octue", octue(f=record("b", id=ID)))
    world.write("by-label/a/dir/f", b"text")
    assert world.labels("dir/f") == {"a", "b"}
    assert world.writer.metadata_of("dir/f").id == ID


@pytest.mark.expected_logs("is left out")
def test_octue_of_a_view_that_is_not_ours_to_set_changes_only_what_shows(world: World) -> None:
    world.put("f", "a")
    world.put("g.csv", "a")
    world.write("by-ext/csv/.octue", octue(**{"f": record("b"), "g.csv": record("b"), "late": record("b")}))
    assert (world.labels("f"), world.labels("g.csv")) == ({"a"}, {"b"})
    assert world.changes() == [("describe", "g.csv")]


def test_malformed_metadata_in_a_view_is_kept(world: World) -> None:
    world.put("f", "a")
    with world.refused(errno.EINVAL):
        world.write("by-label/a/.octue", b"no")
    assert world.writer.kept == [(".octue", b"no")]


def test_the_datasets_record_in_a_views_octue_is_left_out(world: World) -> None:
    world.put("f", "a")
    world.keeper.stored.dataset = DatasetMetadata(name="mine")
    text = json.loads(world.read("by-label/a/.octue"))
    assert text["dataset"]["name"] == "mine"
    text["dataset"]["name"] = "yours"
    world.write("by-label/a/.octue", json.dumps(text).encode())
    assert world.changes() == []


# --- the control panel and attributes ---------------------------------------------------------------------------------


def test_what_could_not_be_stored_is_read_and_discarded_in_the_control_panel(world: World) -> None:
    assert world.ls(".octuefs/recovered") == []
    world.kept.texts["f.20240101T000000Z"] = b"lost"
    assert world.ls(".octuefs/recovered") == ["f.20240101T000000Z"]
    path = ".octuefs/recovered/f.20240101T000000Z"
    attributes = world.node(path).attributes()
    assert (attributes.size, attributes.mtime_ns, stat.S_IMODE(attributes.mode)) == (4, 5_500_000_000, 0o400)
    assert world.read(path) == b"lost"
    with world.refused(errno.EPERM):
        world.operations.open(world.node(path), os.O_WRONLY)
    with world.refused(errno.EPERM):
        world.write(".octuefs/recovered/new")
    with world.refused(errno.EPERM):
        world.mv(path, "back")
    world.rm(path)
    assert world.ls(".octuefs/recovered") == []
    with world.refused(errno.ENOENT):
        world.rm(path.replace("2024", "2023"))


def test_the_state_of_a_file_is_an_attribute_that_is_not_listed(world: World) -> None:
    world.put("f", "a")
    node = world.node("f")
    assert node.get_xattr("user.octue.sync") == b"pending f"
    assert node.list_xattrs() == ["user.octue.labels"]
    with world.refused(errno.EPERM):
        world.operations.setxattr(node, "user.octue.sync", b"clean", 0)
    world.dataset.writer = None
    assert world.node("f").get_xattr("user.octue.sync") == b"clean"


def test_a_read_only_mount_refuses_all_of_it(world: World) -> None:
    world.put("f", "a")
    world.dataset.writer = None
    for call in (
        lambda: world.write("new"),
        lambda: world.write(".octue", b"{}"),
        lambda: world.mkdir("by-label/new"),
        lambda: world.rm("by-label/a/f"),
        lambda: world.mv("f", "g"),
        lambda: world.mv("by-label/a", "by-label/b"),
    ):
        with world.refused(errno.EROFS):
            call()


def test_one_name_of_a_view_is_found_as_all_of_them_are(world: World) -> None:
    world.put("f", "a")
    world.put("g", "b")
    world.put("sub/deep/h", "a")
    world.put("sub/i", "b")
    world.put("other/j", "b")
    for view in (
        "by-label/a",
        "by-ext/_",
        "not/by-label/a",
        "filter/labels__contains=a",
        "sub/by-label/a",
        "order-by/name",
    ):
        for folder in ("", "/sub", "/sub/deep"):
            try:
                listed = world.ls(view + folder)
            except NotFound:
                continue
            names = {"f", "g", "sub", "deep", "h", "i", "other", "j", *listed}
            assert sorted(it for it in names if world.exists(f"{view}{folder}/{it}")) == sorted(listed)
