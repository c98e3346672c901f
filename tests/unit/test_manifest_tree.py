"""The tree of a mount of several datasets: their directories, what the root says, and views over all of them."""

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from unit.tree_world import CALLER, Calls, Kept, World

from octuefs.entries import Removed
from octuefs.errors import CrossDevice, NotFound, OctuefsError, PermissionRefused, ReadOnly, StoreUnavailable, to_errno
from octuefs.model.hashes import hash_of_set, hash_of_text
from octuefs.model.metadata import DatafileMetadata
from octuefs.operations import Operations
from octuefs.report import Report
from octuefs.stores.base import Space
from octuefs.tree.control import ControlFiles
from octuefs.tree.manifest import ManifestFacts, ManifestNamespace
from octuefs.tree.namespace import Namespace
from octuefs.tree.views import VIEWS

ID = "11111111-2222-4333-8444-555555555555"
FILE_ID = "3c8f7a56-1d7e-4b1a-8a51-2f6f9d3c0e11"
TEXT = b'{"datasets": {}}'


class Part:
    """A dataset that can be out of reach."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.generation = 1
        self.error: OctuefsError | None = None
        self.asked = 0
        self.answers_at_once = True

    @property
    def namespace_or_none(self) -> Namespace | None:
        return None if self.error else self.world.namespace

    def namespace(self) -> Namespace:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.world.namespace

    def observe(self, callback: Callable[[str], object]) -> None:
        self.world.namespace.observe(callback)

    def lose(self, error: OctuefsError) -> None:
        self.error = error
        self.generation += 1

    def regain(self) -> None:
        self.error = None
        self.generation += 1


class Several(Calls):
    """A mount of several datasets; each is a `World` of its own under `of`."""

    def __init__(
        self,
        *names: str,
        in_cloud: Sequence[str] = (),
        views: bool = True,
        list_views: bool = False,
        name: str | None = "m",
    ) -> None:
        self.of = {
            it: World(
                in_cloud=it in in_cloud, name=f"folder-of-{it}", path=f"/{it}", views=views, list_views=list_views
            )
            for it in names
        }
        self.parts = {it: Part(world) for it, world in self.of.items()}
        self.kept = Kept()
        self.refreshed = 0
        control = ControlFiles(lambda: b"{}\n", lambda: b"", self._refresh, self.kept)
        self.tree = ManifestNamespace(
            self.parts, ManifestFacts(ID, name, lambda: TEXT), control, views=views, list_views=list_views
        )
        self.operations = Operations(self.tree, Report())

    def _refresh(self) -> None:
        self.refreshed += 1

    def close(self) -> None:
        for world in self.of.values():
            world.close()

    def put(self, path: str, *labels: str, **facts: Any) -> None:
        """Let a file stand in a dataset; its text is its path there."""
        dataset, _, place = path.partition("/")
        self.of[dataset].put(place, *labels, **facts)

    def date(self, path: str, when: datetime) -> None:
        dataset, _, place = path.partition("/")
        world = self.of[dataset]
        world.index.publish([world.writer.seen(place, DatafileMetadata(timestamp=when))])

    def text(self, path: str) -> str:
        return self.read(path).decode()

    def xattr(self, path: str, name: str) -> str:
        return self.operations.getxattr(self.node(path), f"user.octue.{name}").decode()

    def fails(self, number: int, call: Any, *arguments: Any, words: str = "") -> None:
        """A call fails with an errno, and says so in these words."""
        with pytest.raises(OctuefsError) as failure:
            call(*arguments)
        assert to_errno(failure.value) == number, failure.value
        assert words in str(failure.value)

    def hash_of(self, *paths: str) -> str:
        """The hash of a set of files, by their texts."""
        return hash_of_set(hash_of_text(path.partition("/")[2]) for path in paths)


@pytest.fixture
def new() -> Iterator[Any]:
    made: list[Several] = []

    def make(*names: str, **options: Any) -> Several:
        made.append(Several(*names, **options))
        return made[-1]

    yield make
    for it in made:
        it.close()


@pytest.fixture
def farm(new: Any) -> Several:
    """Two datasets, a local one and one in the cloud, and a third with nothing in it."""
    it: Several = new("turbines", "mast", "empty", in_cloud=["mast"])
    it.put("turbines/a.csv", "a")
    it.put("turbines/2024/b.csv", "a", "b", tags={"height": 5})
    it.put("turbines/2024/c.txt", "b")
    it.put("mast/a.csv", "a", "m", tags={"height": 7, "deep": {"er": "x"}})
    it.put("mast/d.txt")
    return it


# --- the root ---------------------------------------------------------------------------------------------------------


def test_the_root_lists_the_datasets_as_directories_sorted_by_their_bytes(new: Any) -> None:
    farm = new("b", "Ünï", "a", "Z")
    assert farm.ls("") == ["Z", "a", "b", "Ünï"]
    for entry in farm.node("").entries():
        assert stat.S_ISDIR(entry.mode)
        assert entry.inode == farm.operations.getattr(farm.node(entry.name)).inode
    assert stat.S_ISDIR(farm.operations.getattr(farm.node("")).mode)


def test_each_dataset_answers_as_when_it_is_mounted_alone(farm: Several) -> None:
    assert farm.ls("turbines") == ["2024", "a.csv"]
    assert farm.read("mast/d.txt") == b"d.txt"
    assert farm.ls("turbines/by-label") == ["a", "b"]
    assert farm.ls("turbines/by-label/a/2024") == ["b.csv"]
    assert (
        farm.text("turbines/.hash")
        == farm.hash_of("turbines/a.csv", "turbines/2024/b.csv", "turbines/2024/c.txt") + "\n"
    )
    assert farm.xattr("turbines", "name") == "folder-of-turbines"
    assert farm.xattr("mast", "cloud_path") == "gs://bucket/folder-of-mast"
    assert farm.xattr("mast", "count") == "2"


def test_a_datasets_root_has_no_control_panel_and_the_mounts_root_has_one(farm: Several) -> None:
    assert not farm.exists("turbines/.octuefs")
    assert farm.read(".octuefs/status") == b"{}\n"
    assert ".octuefs" not in farm.ls("")
    assert "by-label/<label>/<dataset>/" in farm.text(".octuefs/views")
    farm.mkdir("turbines/.octuefs")
    assert farm.ls("turbines/.octuefs") == []
    farm.operations.write(farm.operations.open(farm.node(".octuefs/refresh"), os.O_WRONLY).handle, 0, b"1")
    assert farm.refreshed == 1


def test_what_was_recovered_is_discarded_though_no_dataset_can_be_written(farm: Several) -> None:
    farm.kept.texts["one"] = b"text"
    for world in farm.of.values():
        world.dataset.writer = None
    farm.rm(".octuefs/recovered/one")
    assert farm.ls(".octuefs/recovered") == []


def test_a_dataset_is_written_through_its_directory(farm: Several) -> None:
    farm.write("turbines/new", b"text")
    farm.mkdir("mast/sub")
    farm.mv("mast/d.txt", "mast/sub/d.txt")
    farm.rm("turbines/a.csv")
    assert set(farm.of["turbines"].disk.files) == {"2024/b.csv", "2024/c.txt", "new"}
    assert set(farm.of["mast"].disk.files) == {"a.csv", "sub/d.txt"}


def test_the_roots_hash_is_that_of_the_manifest(farm: Several) -> None:
    hashes = [
        ("empty", farm.hash_of()),
        ("mast", farm.hash_of("mast/a.csv", "mast/d.txt")),
        ("turbines", farm.hash_of("turbines/a.csv", "turbines/2024/b.csv", "turbines/2024/c.txt")),
    ]
    assert farm.text(".hash") == hash_of_text(str(hashes)) + "\n"
    assert farm.xattr("", "hash") == hash_of_text(str(hashes))
    assert len(farm.read(".hash")) == farm.operations.getattr(farm.node(".hash")).size


def test_a_manifest_without_datasets_has_the_sdks_hashes(new: Any) -> None:
    farm = new()
    assert farm.ls("") == []
    assert farm.text(".hash") == farm.text(".metadata_hash") == "dk29dg==\n"
    assert farm.read(".hashes") == b""
    assert farm.xattr("", "count") == farm.xattr("", "size_bytes") == "0"
    assert farm.operations.statfs("/") == Space(0, 0, 0, 0)


def test_the_roots_hashes_has_a_line_for_each_file_of_each_dataset(farm: Several) -> None:
    paths = ["mast/a.csv", "mast/d.txt", "turbines/2024/b.csv", "turbines/2024/c.txt", "turbines/a.csv"]
    lines = "".join(f"{hash_of_text(path.partition('/')[2])}  {path}\n" for path in paths)
    assert farm.text(".hashes") == lines
    assert farm.operations.getattr(farm.node(".hashes")).size == len(lines)


def test_the_root_has_the_manifests_attributes(farm: Several) -> None:
    assert farm.xattr("", "id") == ID
    assert farm.xattr("", "name") == "m"
    assert farm.xattr("", "metadata_hash") == "dk29dg=="
    assert farm.xattr("", "count") == "5"
    assert farm.xattr("", "size_bytes") == str(len("a.csv2024/b.csv2024/c.txta.csvd.txt"))
    assert farm.operations.listxattr(farm.node("")) == []
    for name in ("labels", "tags", "tags.height", "cloud_path", "nonsense"):
        farm.fails(errno.ENODATA, farm.xattr, "", name)
    farm.fails(errno.ENOTSUP, farm.operations.getxattr, farm.node(""), "user.mine")


def test_a_manifest_without_a_name_has_none(new: Any) -> None:
    farm = new("one", name=None)
    farm.fails(errno.ENODATA, farm.xattr, "", "name")


@pytest.mark.parametrize("path", ["", "by-label/a", "filter/size_bytes__gt=0"])
def test_attributes_over_all_cannot_be_set(farm: Several, path: str) -> None:
    node = farm.node(path)
    for name in ("name", "id", "labels", "hash"):
        farm.fails(errno.EPERM, farm.operations.setxattr, node, f"user.octue.{name}", b"x", 0, words="dataset")
        farm.fails(errno.EPERM, farm.operations.removexattr, node, f"user.octue.{name}")
    farm.fails(errno.ENOTSUP, farm.operations.setxattr, node, "user.mine", b"x", 0)
    farm.fails(errno.ENODATA, farm.operations.removexattr, node, "user.mine")


def test_the_manifest_is_there_and_not_listed(farm: Several) -> None:
    assert farm.read(".octue-manifest.json") == TEXT
    assert ".octue-manifest.json" not in farm.ls("")
    assert not farm.exists("turbines/.octue-manifest.json")
    assert not farm.exists("by-label/a/.octue-manifest.json")
    assert farm.operations.getattr(farm.node(".octue-manifest.json")).size == len(TEXT)


def test_there_is_no_metadata_file_over_all(farm: Several) -> None:
    for path in (".octue", "by-label/a/.octue"):
        assert not farm.exists(path)
        farm.fails(errno.EPERM, farm.write, path)


def test_nothing_is_made_removed_or_renamed_in_the_root(farm: Several) -> None:
    words = "the root holds the datasets"
    farm.fails(errno.EPERM, farm.mkdir, "new", words=words)
    farm.fails(errno.EPERM, farm.write, "new", words=words)
    farm.fails(errno.EPERM, farm.operations.symlink, farm.node(""), "new", "turbines", CALLER)
    farm.fails(errno.EPERM, farm.operations.mknod, farm.node(""), "new", stat.S_IFREG | 0o644, 0, CALLER)
    farm.fails(errno.EPERM, farm.operations.mknod, farm.node(""), "new", stat.S_IFIFO | 0o644, 0, CALLER)
    farm.fails(errno.EPERM, farm.rmdir, "empty", words=words)
    farm.fails(errno.EPERM, farm.rmdir, "turbines")
    farm.fails(errno.EPERM, farm.mv, "turbines", "other", words=words)
    farm.fails(errno.EPERM, farm.mv, "turbines/a.csv", "a.csv", words=words)
    farm.fails(errno.EPERM, farm.ln, "turbines/a.csv", "a.csv")
    farm.fails(errno.EPERM, farm.mv, "mast", "turbines/mast")
    farm.fails(errno.EPERM, farm.rm, ".hash")
    assert farm.ls("") == ["empty", "mast", "turbines"]


def test_modes_and_times_of_folders_over_all_are_taken_without_effect(farm: Several) -> None:
    for path in ("", "by-label", "by-label/a"):
        node = farm.node(path)
        before = farm.operations.getattr(node)
        farm.operations.chmod(node, 0o700)
        farm.operations.chown(node, 12345, 12345)
        farm.operations.utimens(node, (1, 1))
        assert farm.operations.getattr(node) == before
        assert (before.uid, before.gid) == (os.getuid(), os.getgid())
        assert stat.S_IMODE(before.mode) == 0o755


def test_the_root_changes_when_a_dataset_does(farm: Several) -> None:
    before = farm.operations.getattr(farm.node("")).mtime_ns
    farm.put("mast/new")
    assert farm.operations.getattr(farm.node("")).mtime_ns == farm.of["mast"].index.changed_ns > before


def test_names_that_are_not_there_are_not_found(farm: Several) -> None:
    farm.fails(errno.ENOENT, farm.node, "nothing")
    farm.fails(errno.ENAMETOOLONG, farm.node, "n" * 256)
    farm.fails(errno.ENOENT, farm.node, "by-label/a/nothing")
    farm.fails(errno.ENOENT, farm.node, "by-label/a/empty")


def test_views_can_be_listed_in_the_root_and_in_the_datasets(new: Any) -> None:
    farm = new("turbines", list_views=True)
    assert farm.ls("") == sorted([*VIEWS, "turbines"])
    assert farm.ls("turbines") == sorted(VIEWS)
    farm.put("turbines/f", "a")
    assert farm.ls("by-label/a") == ["turbines"]


def test_without_views_only_the_datasets_the_manifest_and_the_panel_answer(new: Any) -> None:
    farm = new("turbines", views=False)
    for name in (*VIEWS, ".hash", ".hashes", ".metadata_hash", ".one"):
        assert not farm.exists(name)
        assert not farm.exists(f"turbines/{name}")
    assert farm.read(".octue-manifest.json") == TEXT
    assert farm.exists(".octuefs/status")


def test_own_files_that_hide_a_virtual_name_are_told_with_their_dataset(farm: Several) -> None:
    farm.put("turbines/by-label")
    farm.put("mast/sub/.hash")
    farm.put("mast/.octuefs")
    assert list(farm.tree.shadowed_paths()) == ["mast/sub/.hash", "turbines/by-label"]


# --- renaming between datasets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("new_path", ["mast/a2.csv", "mast/by-label/m/a2.csv", "by-label/m/mast/a2.csv"])
@pytest.mark.parametrize("old", ["turbines/a.csv", "turbines/by-label/a/a.csv", "by-label/a/turbines/a.csv"])
def test_what_belongs_to_another_dataset_can_only_be_copied(farm: Several, old: str, new_path: str) -> None:
    for call in (farm.mv, farm.ln):
        farm.fails(errno.EXDEV, call, old, new_path, words="another dataset")
    assert set(farm.of["mast"].disk.files) == {"a.csv", "d.txt"}
    assert farm.of["turbines"].labels("a.csv") == {"a"}


def test_values_of_another_datasets_view_can_only_be_copied(farm: Several) -> None:
    farm.mkdir("mast/by-label/new")
    farm.fails(errno.EXDEV, farm.mv, "turbines/by-label/b", "mast/by-label/b")
    farm.fails(errno.EXDEV, farm.mv, "turbines/by-label/b", "mast/b")
    farm.fails(errno.EXDEV, farm.mv, "turbines/by-tag/height", "mast/by-tag/width")
    farm.fails(errno.EXDEV, farm.mv, "turbines/2024", "mast/2024")


def test_between_views_of_one_dataset_files_move_as_ever(farm: Several) -> None:
    farm.mv("by-label/a/turbines/a.csv", "turbines/by-label/b/a.csv")
    assert farm.of["turbines"].labels("a.csv") == {"b"}
    farm.mv("turbines/by-label/b/a.csv", "by-label/a/turbines/a.csv")
    assert farm.of["turbines"].labels("a.csv") == {"a"}


# --- views over all ---------------------------------------------------------------------------------------------------


def test_a_view_over_all_lists_the_values_of_all_and_the_datasets_that_have_them(farm: Several) -> None:
    assert farm.ls("by-label") == ["a", "b", "m"]
    assert farm.ls("by-label/a") == ["mast", "turbines"]
    assert farm.ls("by-label/b") == ["turbines"]
    assert farm.ls("by-label/a/turbines") == ["2024", "a.csv"]
    assert farm.ls("by-label/a/turbines/2024") == ["b.csv"]
    assert farm.read("by-label/a/mast/a.csv") == b"a.csv"
    assert farm.ls("by-ext") == ["csv", "txt"]
    assert farm.ls("by-ext/txt") == ["mast", "turbines"]
    assert farm.ls("by-tag") == ["deep.er", "height"]
    assert farm.ls("by-tag/height") == ["5", "7"]
    assert farm.ls("by-tag/height/7") == ["mast"]
    assert farm.ls("filter") == farm.ls("not") == farm.ls("order-by") == []


def test_the_values_of_a_list_may_occur_in_different_datasets(farm: Several) -> None:
    assert farm.ls("by-label/b,m") == ["mast", "turbines"]
    assert farm.ls("by-label/b,m/mast") == ["a.csv"]
    assert farm.ls("by-tag/height/5,7") == ["mast", "turbines"]
    for name in ("b,nothing", "nothing", ",", "B"):
        farm.fails(errno.ENOENT, farm.node, f"by-label/{name}")
    farm.fails(errno.ENOENT, farm.node, "by-tag/height/6")
    farm.fails(errno.ENOENT, farm.node, "by-tag/nothing")
    farm.fails(errno.ENOENT, farm.node, "by-ext/CSV")


def test_dates_may_lie_in_different_datasets(farm: Several) -> None:
    farm.date("turbines/a.csv", datetime(2024, 5, 1, tzinfo=UTC))
    farm.date("mast/d.txt", datetime(2023, 5, 2, tzinfo=UTC))
    assert farm.ls("by-date") == ["2023", "2024"]
    assert farm.ls("by-date/2023,2024") == ["05"]
    assert farm.ls("by-date/2023,2024/05") == ["01", "02"]
    assert farm.ls("by-date/2023,2024/05/01,02") == ["mast", "turbines"]
    assert farm.ls("by-date/2023/05/02/mast") == ["d.txt"]
    assert farm.ls("not/by-date/2023/05/02/mast") == ["a.csv"]
    farm.fails(errno.ENOENT, farm.node, "by-date/2025")
    farm.fails(errno.ENOENT, farm.node, "by-date/2023/05/01")


def test_hashes_are_found_in_all_datasets(farm: Several) -> None:
    same = hash_of_text("a.csv")
    assert same.replace("/", "_").replace("+", "-") in farm.ls("by-hash")
    assert len(farm.ls("by-hash")) == 4
    assert farm.ls(f"by-hash/{same}") == ["mast", "turbines"]
    farm.fails(errno.ENOENT, farm.node, "by-hash/AAAAAA==")
    farm.fails(errno.ENOENT, farm.node, "by-hash/nonsense")


def test_what_a_view_leaves_out_is_left_out_of_each_dataset_alone(farm: Several) -> None:
    assert farm.ls("not/by-label/b") == ["mast", "turbines"]
    assert farm.ls("not/by-label/b/mast") == ["a.csv", "d.txt"]
    assert farm.ls("not/by-label/b/turbines") == ["a.csv"]
    assert farm.ls("not/by-label/a,b") == ["mast"]
    assert farm.ls("not/not/by-label/b") == ["turbines"]
    assert farm.ls("not/by-tag/height/5/turbines") == ["2024", "a.csv"]
    assert farm.ls("not/by-ext/csv/turbines/2024") == ["c.txt"]
    farm.fails(errno.ENOENT, farm.node, "not/by-label/nothing")
    farm.fails(errno.ENOENT, farm.node, "not/by-id")
    farm.fails(errno.ENOENT, farm.node, "not/nothing")


def test_a_valid_filter_is_there_be_it_empty(farm: Several) -> None:
    assert farm.ls("filter/size_bytes__gt=1000") == []
    assert farm.ls("filter/labels__contains=b,name__ends_with=txt/turbines/2024") == ["c.txt"]
    assert farm.ls("not/filter/labels__contains=a") == ["mast", "turbines"]
    farm.fails(errno.ENOENT, farm.node, "filter/nmae=x")
    assert farm.text("filter/size_bytes__gt=1000/.hash") == "dk29dg==\n"


def test_views_over_all_nest_in_any_order_and_in_a_dataset_its_own_take_over(farm: Several) -> None:
    for path in ("by-label/a/by-ext/csv/by-tag/height/5", "by-tag/height/5/by-label/a/filter/size_bytes__gt=0"):
        assert farm.ls(path) == ["turbines"]
        assert farm.ls(f"{path}/turbines/2024") == ["b.csv"]
    assert farm.ls("by-label/a/by-label") == ["a", "b", "m"]
    assert farm.ls("by-label/a/by-label/b") == ["turbines"]
    assert farm.ls("by-label/a/turbines/by-label/b") == ["2024"]
    assert farm.ls("by-label/a/turbines/2024/by-ext") == ["csv"]
    assert farm.ls("by-ext/txt/by-label") == ["b"]
    farm.fails(errno.ENOENT, farm.node, "by-ext/txt/by-label/a")


def test_directories_over_all_tell_of_their_files(farm: Several) -> None:
    paths = ["mast/a.csv", "turbines/2024/b.csv", "turbines/a.csv"]
    assert farm.text("by-label/a/.hash") == farm.hash_of(*paths) + "\n"
    assert farm.text("by-label/a/.hashes") == "".join(
        f"{hash_of_text(path.partition('/')[2])}  {path}\n" for path in paths
    )
    assert farm.text("by-label/a/.metadata_hash") == "dk29dg==\n"
    assert farm.xattr("by-label/a", "hash") == farm.hash_of(*paths)
    assert farm.xattr("by-label/a", "count") == "3"
    assert farm.xattr("by-label/a", "size_bytes") == "20"
    farm.fails(errno.ENODATA, farm.xattr, "by-label/a", "id")
    farm.fails(errno.ENODATA, farm.xattr, "by-label", "hash")
    assert farm.operations.listxattr(farm.node("by-label/a")) == []


def test_the_only_file_is_linked_by_its_path_from_the_directory(farm: Several) -> None:
    assert farm.operations.readlink(farm.node("by-label/m/.one")) == "mast/a.csv"
    assert farm.operations.readlink(farm.node("by-tag/height/5/.one")) == "turbines/2024/b.csv"
    assert farm.operations.readlink(farm.node("order-by/name/by-label/m/.one")) == "000001_a.csv"
    farm.fails(errno.ENOTUNIQ, farm.node, "by-label/a/.one")
    farm.fails(errno.ENOTUNIQ, farm.node, ".one")
    farm.fails(errno.ENOENT, farm.node, "filter/size_bytes__gt=1000/.one")


def test_a_file_is_found_by_its_id_in_whatever_dataset(farm: Several) -> None:
    farm.put("mast/known", id=FILE_ID)
    assert FILE_ID in farm.ls("by-id")
    assert len(farm.ls("by-id")) == 6
    assert farm.read(f"by-id/{FILE_ID}") == farm.read(f"by-id/{FILE_ID.upper()}") == b"known"
    assert all(stat.S_ISREG(entry.mode) for entry in farm.node("by-id").entries())
    farm.fails(errno.ENOENT, farm.node, f"by-id/{ID}")
    farm.put("turbines/same", id=FILE_ID)
    farm.fails(errno.ENOTUNIQ, farm.node, f"by-id/{FILE_ID}", words="2 datasets")
    assert farm.read(f"turbines/by-id/{FILE_ID}") == b"same"
    farm.put("mast/again", id=FILE_ID)
    farm.of["turbines"].index.publish([Removed("same")])
    farm.fails(errno.ENOTUNIQ, farm.node, f"by-id/{FILE_ID}", words="2 datafiles")


def test_an_order_over_all_is_flat_and_its_ties_go_by_dataset_and_path(farm: Several) -> None:
    assert farm.ls("order-by/name") == ["000001_a.csv", "000002_a.csv", "000003_b.csv", "000004_c.txt", "000005_d.txt"]
    places = [farm.node(f"order-by/name/{name}") for name in farm.ls("order-by/name")]
    datasets = {id(world.dataset): name for name, world in farm.of.items()}
    found = [f"{datasets[id(node.dataset)]}/{node.datafile.path}" for node in places]  # type: ignore[attr-defined]
    assert found == ["mast/a.csv", "turbines/a.csv", "turbines/2024/b.csv", "turbines/2024/c.txt", "mast/d.txt"]
    assert farm.ls("order-by/-name")[:2] == ["000001_d.txt", "000002_c.txt"]
    assert farm.ls("order-by/-name")[3:] == ["000004_a.csv", "000005_a.csv"]
    farm.fails(errno.ENOENT, farm.node, "order-by/nothing")
    farm.fails(errno.ENOENT, farm.node, "order-by/labels")
    farm.fails(errno.ENOENT, farm.node, "order-by/name/turbines")


def test_a_view_below_an_order_filters_and_keeps_it_and_a_second_order_replaces_it(farm: Several) -> None:
    expected = ["000001_b.csv", "000002_a.csv", "000003_a.csv"]
    assert farm.ls("order-by/-size_bytes/by-label/a") == farm.ls("by-label/a/order-by/-size_bytes") == expected
    assert farm.ls("order-by/-size_bytes/not/by-label/a") == ["000001_c.txt", "000002_d.txt"]
    assert farm.ls("order-by/-size_bytes/order-by/name/by-label/b") == ["000001_b.csv", "000002_c.txt"]
    assert farm.ls("order-by/name/filter/size_bytes__gt=1000") == []
    assert farm.ls("order-by/-size_bytes/by-label") == ["a", "b", "m"]
    assert farm.text("order-by/-size_bytes/by-label/b/.hashes").splitlines()[0].endswith("  000001_b.csv")


def test_an_order_follows_what_changes(farm: Several) -> None:
    node = farm.node("order-by/name")
    farm.put("turbines/aa")
    assert [entry.name for entry in node.entries()][2] == "000003_aa"
    assert node.lookup("000003_aa").open().read(0, 9) == b"aa"


def test_files_of_a_flat_directory_are_edited_in_place_and_linked_elsewhere_but_not_moved(farm: Several) -> None:
    farm.write("order-by/name/000001_a.csv", b"new")
    assert farm.of["mast"].disk.files["a.csv"] == b"new"
    farm.fails(errno.EPERM, farm.rm, "order-by/name/000001_a.csv")
    farm.fails(errno.EPERM, farm.mv, "order-by/name/000002_a.csv", "turbines/x")
    farm.fails(errno.EXDEV, farm.ln, "order-by/name/000002_a.csv", "mast/x")
    farm.ln("order-by/name/000002_a.csv", "turbines/x")
    assert "x" in farm.of["turbines"].disk.files


def test_nothing_is_made_in_a_folder_over_all_and_the_reason_names_the_remedy(farm: Several) -> None:
    remedy = "one dataset's own views, /<dataset>/by-label"
    farm.fails(errno.EPERM, farm.mkdir, "by-label/new", words=remedy)
    farm.fails(errno.EPERM, farm.mkdir, "by-label/b/mast", words=remedy)
    farm.fails(errno.EPERM, farm.write, "by-label/a/new", words=remedy)
    farm.fails(errno.EPERM, farm.rmdir, "by-label/a", words=remedy)
    farm.fails(errno.EPERM, farm.mv, "by-label/a", "by-label/z", words=remedy)
    farm.fails(errno.EPERM, farm.mv, "by-label/a/turbines", "by-label/a/t")
    farm.fails(errno.EPERM, farm.mv, "turbines/a.csv", "by-label/b/a.csv")
    farm.fails(errno.EISDIR, farm.rm, "by-label/a/turbines")
    farm.fails(errno.ENOTEMPTY, farm.rmdir, "by-label/a/turbines")
    farm.fails(errno.ENOENT, farm.rmdir, "by-label/b/mast")
    farm.fails(errno.EPERM, farm.rmdir, "by-ext/csv/turbines")
    assert farm.ls("by-label") == ["a", "b", "m"]


def test_in_a_view_over_all_a_dataset_is_written_as_in_its_own_view(farm: Several) -> None:
    farm.write("by-label/b/turbines/new")
    assert farm.of["turbines"].labels("new") == {"b"}
    farm.rm("by-label/a/turbines/2024/b.csv")
    assert farm.of["turbines"].labels("2024/b.csv") == {"b"}
    assert "2024/b.csv" in farm.of["turbines"].disk.files
    farm.mkdir("by-label/b/turbines/sub")
    assert farm.ls("turbines/by-label/b") == ["2024", "new", "sub"]
    farm.mv("by-label/b/turbines/new", "by-label/a/turbines/new")
    assert farm.of["turbines"].labels("new") == {"a"}


def test_a_value_made_in_one_dataset_shows_over_all(farm: Several) -> None:
    farm.mkdir("mast/by-label/new")
    assert farm.ls("by-label") == ["a", "b", "m", "new"]
    assert farm.ls("by-label/new") == ["mast"]
    assert farm.ls("by-label/new/mast") == []
    farm.rmdir("mast/by-label/new")
    assert not farm.exists("by-label/new")


def test_rm_r_of_a_datasets_folder_in_a_view_over_all_ends_well(farm: Several) -> None:
    farm.rm_r("by-label/a/turbines")
    assert farm.of["turbines"].labels("2024/b.csv") == {"b"}
    assert farm.ls("by-label/a") == ["mast"]
    assert farm.ls("turbines/by-label") == ["b"]


def test_rm_r_of_a_value_over_all_ends_well(farm: Several) -> None:
    version = farm.operations.version("/by-label/a")
    farm.rm_r("by-label/a")
    assert farm.operations.version("/by-label/a") > version
    assert not farm.exists("by-label/a")
    assert farm.ls("by-label") == ["b", "m"]
    assert farm.of["mast"].labels("a.csv") == {"m"}
    assert set(farm.of["mast"].disk.files) == {"a.csv", "d.txt"}


def test_a_value_that_comes_back_while_it_is_removed_stays(farm: Several) -> None:
    farm.rm_r("by-label/b/turbines")
    assert farm.ls("by-label/b") == []
    farm.put("mast/late", "b")
    farm.fails(errno.ENOTEMPTY, farm.rmdir, "by-label/b")
    assert farm.ls("by-label/b") == ["mast"]


def test_what_was_emptied_over_all_is_forgotten_with_a_refresh(farm: Several) -> None:
    farm.rm_r("by-label/b/turbines")
    assert farm.exists("by-label/b")
    farm.tree.forget_shown()
    assert not farm.exists("by-label/b")


# --- datasets that are only read --------------------------------------------------------------------------------------


def test_each_dataset_says_for_itself_why_it_is_only_read(farm: Several) -> None:
    dataset = farm.of["mast"].dataset
    dataset.writer = None
    dataset.read_only_reason = "it was shared by a link"
    for call, *arguments in (
        (farm.write, "mast/new"),
        (farm.write, "mast/a.csv"),
        (farm.mkdir, "mast/new"),
        (farm.rm, "mast/a.csv"),
        (farm.rm, "by-label/a/mast/a.csv"),
        (farm.rmdir, "mast/by-label/a"),
        (farm.mkdir, "mast/by-label/new"),
        (farm.mv, "mast/a.csv", "mast/b.csv"),
        (farm.mv, "turbines/a.csv", "mast/b.csv"),
        (farm.ln, "mast/a.csv", "mast/b.csv"),
        (farm.write, "mast/.hash"),
        (farm.write, "order-by/name/000001_a.csv"),
    ):
        farm.fails(errno.EROFS, call, *arguments, words="it was shared by a link")
    farm.fails(errno.EROFS, farm.operations.chmod, farm.node("mast"), 0o700)
    farm.fails(errno.EROFS, farm.operations.setxattr, farm.node("mast/a.csv"), "user.octue.labels", b"x", 0)
    with pytest.raises(ReadOnly, match="shared by a link"):
        _ = dataset.writing
    with pytest.raises(CrossDevice):  # copied, it stays where it is
        farm.mv("mast/a.csv", "turbines/b.csv")
    farm.write("turbines/new")


def test_syncing_what_is_only_read_does_nothing(farm: Several) -> None:
    farm.of["mast"].dataset.writer = None
    for path in ("", "mast", "by-label", "by-label/a", "by-label/a/mast"):
        handle = farm.operations.opendir(farm.node(path))
        farm.operations.fsyncdir(handle)
        farm.operations.releasedir(handle)
    opened = farm.operations.open(farm.node("mast/a.csv"), os.O_RDONLY)
    farm.operations.fsync(opened.handle, data_only=False)
    farm.operations.release(opened.handle)


# --- datasets that cannot be reached ----------------------------------------------------------------------------------


def test_a_dataset_out_of_reach_is_there_and_reading_it_gives_the_reason(farm: Several) -> None:
    farm.parts["mast"].lose(PermissionRefused("mast: no rights"))
    assert farm.ls("") == ["empty", "mast", "turbines"]
    assert stat.S_ISDIR(farm.operations.getattr(farm.node("mast")).mode)
    assert farm.operations.listxattr(farm.node("mast")) == []
    for call, *arguments in (
        (farm.ls, "mast"),
        (farm.operations.opendir, farm.node("mast")),
        (farm.read, "mast/a.csv"),
        (farm.xattr, "mast", "id"),
        (farm.mkdir, "mast/new"),
        (farm.write, "mast/new"),
        (farm.mv, "turbines/a.csv", "mast/a.csv"),
        (farm.operations.statfs, "/mast"),
    ):
        farm.fails(errno.EACCES, call, *arguments, words="mast: no rights")
    farm.fails(errno.ENOTSUP, farm.operations.getxattr, farm.node("mast"), "user.mine")
    assert farm.ls("turbines") == ["2024", "a.csv"]


def test_looking_at_the_root_tries_no_dataset_again(farm: Several) -> None:
    part = farm.parts["mast"]
    part.lose(StoreUnavailable("mast: gone"))
    farm.ls("")
    farm.operations.getattr(farm.node("mast"))
    farm.operations.version("/mast")
    farm.ls("by-label")
    assert part.asked == 0
    farm.fails(errno.EIO, farm.ls, "mast")
    assert part.asked == 1


def test_views_over_all_leave_out_what_is_out_of_reach(farm: Several) -> None:
    farm.parts["mast"].lose(StoreUnavailable("mast: gone"))
    assert farm.ls("by-label") == ["a", "b"]
    assert farm.ls("by-label/a") == ["turbines"]
    assert farm.ls("order-by/name") == ["000001_a.csv", "000002_b.csv", "000003_c.txt"]
    farm.fails(errno.ENOENT, farm.node, "by-label/m")
    for part in farm.parts.values():
        part.lose(StoreUnavailable("gone"))
    assert farm.ls("by-label") == farm.ls("order-by/name") == farm.ls("not/filter/name=x") == farm.ls("by-id") == []
    assert farm.ls("not/by-tag") == farm.ls("filter/name=x/by-date") == []
    farm.fails(errno.ENOENT, farm.node, "by-label/a")
    farm.fails(errno.ENOENT, farm.node, "not/by-label/a")


@pytest.mark.parametrize("name", ["hash", "count", "size_bytes"])
def test_what_is_said_of_the_whole_manifest_needs_all_datasets(farm: Several, name: str) -> None:
    farm.parts["mast"].lose(StoreUnavailable("mast: gone"))
    farm.fails(errno.EIO, farm.xattr, "", name, words="mast: gone")
    farm.fails(errno.EIO, farm.read, ".hash", words="mast: gone")
    farm.fails(errno.EIO, farm.read, ".hashes", words="mast: gone")
    farm.fails(errno.EIO, farm.node, ".one", words="mast: gone")
    assert farm.operations.getattr(farm.node(".hash")).size == 9
    assert farm.xattr("", "id") == ID
    assert farm.read(".octue-manifest.json") == TEXT


def test_a_dataset_that_is_gone_is_not_found_but_the_hash_of_the_manifest_is_there(farm: Several) -> None:
    farm.parts["mast"].lose(NotFound("no such folder"))
    farm.fails(errno.ENOENT, farm.ls, "mast")
    farm.fails(errno.EIO, farm.read, ".hash", words="mast cannot be reached: no such folder")
    farm.fails(errno.EIO, farm.xattr, "", "count")


def test_a_dataset_that_comes_back_answers_at_paths_that_are_known(farm: Several) -> None:
    part = farm.parts["mast"]
    versions = [(farm.operations.version("/mast"), farm.operations.version("/by-label"))]
    part.lose(StoreUnavailable("mast: gone"))
    node = farm.node("mast")
    versions.append((farm.operations.version("/mast"), farm.operations.version("/by-label")))
    part.regain()
    versions.append((farm.operations.version("/mast"), farm.operations.version("/by-label")))
    assert [entry.name for entry in node.entries()] == [".octue", "a.csv", "d.txt"]
    assert node.lookup("d.txt").open().read(0, 9) == b"d.txt"
    for of_one_path in zip(*versions, strict=True):
        assert sorted(set(of_one_path)) == list(of_one_path)
    assert farm.ls("mast") == ["a.csv", "d.txt"]


# --- versions and room ------------------------------------------------------------------------------------------------


def test_a_change_of_one_dataset_is_told_of_its_own_paths_and_of_views_over_all(farm: Several) -> None:
    paths = ("/turbines/a.csv", "/mast", "/mast/d.txt", "/by-label/a/mast", "/nothing")
    before = {path: farm.operations.version(path) for path in paths}
    assert before == {path: farm.operations.version(path) for path in paths}
    farm.put("mast/new")
    changed = {path for path in paths if farm.operations.version(path) != before[path]}
    assert changed == {"/mast", "/mast/d.txt", "/by-label/a/mast", "/nothing"}


def test_only_the_datasets_that_a_path_leads_into_are_asked_again(
    farm: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name, world in farm.of.items():
        monkeypatch.setattr(world.keeper, "begin_expiring", lambda name=name: asked.append(name))
    expected = {
        "/": [],
        "/.octuefs/status": [],
        "/nothing": [],
        "/.octue-manifest.json": [],
        "/mast": [],
        "/mast/a": ["mast"],
        "/mast/.octuefs": ["mast"],
        "/by-label/a/mast/a.csv": ["empty", "mast", "turbines"],
        "/.hash": ["empty", "mast", "turbines"],
    }
    for path, datasets in expected.items():
        asked.clear()
        farm.operations.version(path)
        assert asked == datasets, path
    asked.clear()
    farm.ls("")
    assert asked == []
    farm.ls("mast")
    assert asked == ["mast"]


def test_the_room_is_that_of_the_dataset_or_of_the_one_that_has_most(farm: Several) -> None:
    rooms = {"turbines": Space(100, 10, 9, 1), "mast": Space(50, 20, 9, 2), "empty": Space(5, 1, 9, 3)}
    for name, room in rooms.items():
        farm.of[name].disk.space = lambda room=room: room  # type: ignore[attr-defined]
    assert farm.operations.statfs("/turbines/a.csv") == rooms["turbines"]
    assert farm.operations.statfs("/") == farm.operations.statfs("/by-label/a") == rooms["mast"]
    farm.parts["mast"].lose(StoreUnavailable("gone"))
    assert farm.operations.statfs("/") == rooms["turbines"]


# --- one dataset's tree at a path of the mount ------------------------------------------------------------------------


def test_a_tree_at_a_path_names_its_nodes_by_the_paths_in_the_mount(farm: Several) -> None:
    inodes = {
        farm.operations.getattr(farm.node(path)).inode
        for path in (
            "mast/by-label",
            "turbines/by-label",
            "by-label",
            "by-label/a/mast",
            "by-label/a",
            "mast/by-label/a",
        )
    }
    assert len(inodes) == 6
    farm.fails(errno.ENOENT, farm.node, "turbines/2024/nothing", words="/turbines/2024/nothing")
    for path in ("by-label/a", "turbines/by-label/a"):
        for entry in farm.node(path).entries():
            assert entry.inode == farm.operations.getattr(farm.node(f"{path}/{entry.name}")).inode


def test_a_local_dataset_that_has_gone_still_has_its_directory(farm: Several) -> None:
    farm.of["turbines"].disk.folders.clear()
    assert stat.S_ISDIR(farm.operations.getattr(farm.node("turbines")).mode)
    assert "turbines" in farm.ls("")


def test_a_datasets_own_record_shows_at_the_top_of_its_part_of_a_view(farm: Several) -> None:
    assert set(json.loads(farm.read("by-label/a/mast/.octue"))["datafiles"]) == {"a.csv"}
    assert set(json.loads(farm.read("by-label/a/turbines/2024/.octue"))["datafiles"]) == {"b.csv"}


# --- what a driver asks besides ---------------------------------------------------------------------------------------


def test_the_root_and_what_stands_over_all_datasets_is_derived_and_the_datasets_are_not(farm: Several) -> None:
    over_all = ["", "by-label", "by-label/a", ".hash", ".octuefs", ".octue-manifest.json", "turbines/by-label"]
    assert [farm.node(path).derived for path in over_all] == [True] * len(over_all)
    assert [farm.node(path).derived for path in ("turbines", "mast/a.csv", "by-label/a/mast/a.csv")] == [False] * 3
    farm.parts["mast"].lose(NotFound("gone"))
    assert farm.node("mast").derived


def test_a_file_belongs_to_its_own_dataset_by_whatever_path(farm: Several) -> None:
    mast = farm.of["mast"].dataset
    assert {farm.node(path).home for path in ("mast/a.csv", "by-label/a/mast/a.csv", "mast/by-ext/csv/a.csv")} == {mast}
    assert farm.node("turbines/a.csv").home is not mast


def test_the_root_answers_at_once_for_the_datasets_alone(farm: Several) -> None:
    root = farm.node("")
    assert [root.answers_at_once(name) for name in ("turbines", "mast")] == [True, True]
    assert [root.answers_at_once(name) for name in ("by-label", ".hash", ".octuefs", "nothing")] == [False] * 4
    assert not farm.node("by-label/a").answers_at_once("mast")
    farm.parts["mast"].answers_at_once = False
    assert not root.answers_at_once("mast")


def test_what_is_told_of_a_dataset_counts_as_long_as_it_says_and_nothing_else_at_all(farm: Several) -> None:
    farm.of["turbines"].keeper.lasting = lambda: 42.0  # type: ignore[method-assign]
    lasting = farm.operations.lasting
    assert [lasting(path) for path in ("/turbines", "/turbines/2024/b.csv")] == [42.0] * 2
    assert [lasting(path) for path in ("/", "/by-label/a", "/.octuefs/status", "/nothing")] == [0.0] * 4
    farm.parts["turbines"].lose(NotFound("gone"))
    assert lasting("/turbines") == 0.0


def test_a_path_over_all_datasets_is_fresh_where_none_is_waited_for(farm: Several) -> None:
    paths = ("/", "/.octuefs/status", "/by-label/a", "/mast/a.csv", "/turbines/a.csv")
    assert [farm.operations.version_at_once(path) is not None for path in paths] == [True] * 5
    farm.of["mast"].keeper.begin_expiring = lambda: object()  # type: ignore[method-assign,assignment,return-value]
    assert [farm.operations.version_at_once(path) is not None for path in paths] == [True, True, False, False, True]
    farm.parts["mast"].answers_at_once = False
    assert [farm.operations.version_at_once(path) is not None for path in paths] == [False, False, False, False, True]


def test_who_observes_is_told_of_all_datasets_by_their_paths_in_the_mount(farm: Several) -> None:
    told: list[str] = []
    farm.operations.observe(told.append)
    farm.put("mast/new")
    farm.of["turbines"].index.publish([Removed("2024")])
    assert told == ["/mast/new", "/turbines/2024"]
    told.clear()
    farm.tree.vanishing.forget("/by-label/a")
    assert told == ["/"]
