"""The index: what is published is what is found, by every way of asking."""

import itertools
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from octuefs.datafile import Datafile
from octuefs.entries import Change, DatafileSeen, Folder, FolderGone, FolderSeen, Other, OtherSeen, Removed
from octuefs.index import Index
from octuefs.model.filters import parse_filters
from octuefs.model.hashes import encode_crc32c
from octuefs.model.metadata import DatafileMetadata
from octuefs.model.paths import CloudLocation, LocalLocation, Location
from octuefs.model.viewnames import tag_entries
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.tree.queries import HasDate, HasExtension, HasHash, HasLabel, HasTag, Not, Satisfies

DISK = LocalLocation("/data/set")
CLOUD = CloudLocation("bucket", "set")

_MODES = {Kind.FILE: stat.S_IFREG, Kind.FOLDER: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK, Kind.SPECIAL: stat.S_IFIFO}


def info(path: str, kind: Kind = Kind.FILE, size: int = 0, version: object = 1) -> ObjectInfo:
    return ObjectInfo(
        path=path,
        kind=kind,
        size=size,
        mtime_ns=0,
        ctime_ns=0,
        mode=_MODES[kind] | 0o644,
        uid=0,
        gid=0,
        inode=1,
        links=1,
        version=version,
    )


def datafile(
    path: str,
    *,
    location: Location = DISK,
    size: int = 0,
    labels: Iterable[str] = (),
    tags: dict[str, Any] | None = None,
    timestamp: datetime | None = None,
    crc32c: int | None = None,
) -> Datafile:
    described = info(path, size=size)
    metadata = DatafileMetadata(timestamp=timestamp, tags=tags or {}, labels=frozenset(labels))
    made = Datafile(described, location, metadata, described)
    made.crc32c = crc32c
    return made


def index_of(*changes: Change | Datafile) -> Index:
    index = Index()
    index.publish([DatafileSeen(change) if isinstance(change, Datafile) else change for change in changes])
    return index


def paths(index: Index, *queries: Any, folder: str = "") -> list[str]:
    return sorted(member.path for member in index.members(folder, queries))


def labelled(*labels: str) -> HasLabel:
    return HasLabel(frozenset(labels))


def tagged(key: str, *values: str) -> HasTag:
    return HasTag(key, frozenset(values))


def test_a_datafile_that_is_published_again_stays() -> None:
    file = datafile("a", labels=["x"], size=3, crc32c=1)
    index = index_of(file, file)
    assert index.members("", (labelled("x"),)) == [file]
    assert file.row == 0
    assert index.total_bytes == 3


# --- what is published is there ---------------------------------------------------------------------------------------


def test_a_new_index_holds_nothing_but_its_root() -> None:
    index = Index()
    assert index.entry("") is index.root
    assert index.folder("") is index.root
    assert index.members("", ()) == []
    assert index.entry("a") is None
    assert index.entry("a/b/c") is None
    assert index.folder("a") is None
    assert index.members("a", ()) == []


def test_a_datafile_stands_at_its_path_and_implies_its_folders() -> None:
    file = datafile("a/b/c.csv")
    index = index_of(file)
    assert index.entry("a/b/c.csv") is file
    folder = index.entry("a/b")
    assert isinstance(folder, Folder)
    assert folder.info is None
    assert folder.path == "a/b"
    assert list(index.root.children) == ["a"]
    assert index.folder("a/b/c.csv") is None
    assert index.entry("a/b/c.csv/d") is None


def test_a_folder_that_is_seen_keeps_what_is_in_it() -> None:
    index = index_of(datafile("a/b"), FolderSeen(info("a", Kind.FOLDER, version=7)))
    folder = index.folder("a")
    assert folder is not None
    assert folder.info is not None
    assert folder.info.version == 7
    assert paths(index) == ["a/b"]


def test_an_empty_folder_stands_and_is_no_member() -> None:
    index = index_of(FolderSeen(info("a/b", Kind.FOLDER)))
    assert index.folder("a/b") is not None
    assert paths(index) == []
    assert index.subset_children("", (), "") == {}


def test_what_is_no_datafile_stands_and_is_no_member() -> None:
    index = index_of(OtherSeen(info("a/fifo", Kind.SPECIAL)))
    assert isinstance(index.entry("a/fifo"), Other)
    assert paths(index) == []
    assert index.total_bytes == 0


def test_sizes_are_summed_over_what_stands_now() -> None:
    index = index_of(datafile("a", size=5), datafile("b/c", size=7))
    assert index.total_bytes == 12
    index.publish([DatafileSeen(datafile("a", size=1)), Removed("b")])
    assert index.total_bytes == 1


def test_each_change_lets_the_version_and_the_time_grow() -> None:
    index = Index()
    seen = [(index.version, index.changed_ns)]
    for change in (DatafileSeen(datafile("a")), FolderSeen(info("f", Kind.FOLDER)), FolderGone("f"), Removed("a")):
        index.publish([change])
        seen.append((index.version, index.changed_ns))
    assert all(later[0] > earlier[0] and later[1] > earlier[1] for earlier, later in itertools.pairwise(seen))


# --- who is told ------------------------------------------------------------------------------------------------------


def observed(index: Index) -> list[str]:
    """What an observer is told from now on; each change stands by then."""
    told: list[str] = []
    version = index.version

    def callback(path: str) -> None:
        assert index.version > version
        told.append(path)

    index.observe(callback)
    return told


def test_who_observes_is_told_the_path_of_each_change() -> None:
    index = index_of(datafile("a"), FolderSeen(info("f", Kind.FOLDER)))
    told = observed(index)
    index.publish([DatafileSeen(datafile("a", size=1)), OtherSeen(info("f/fifo", Kind.SPECIAL))])
    index.publish([FolderSeen(info("f", Kind.FOLDER)), Removed("f/fifo")])
    index.publish([FolderGone("")])
    assert told == ["a", "f/fifo", "f", "f/fifo", ""]


def test_who_observes_is_told_of_folders_that_come_and_go_with_a_file() -> None:
    index = index_of()
    told = observed(index)
    index.publish([DatafileSeen(datafile("a/b/c", location=CLOUD))])
    assert sorted(told) == ["a", "a/b", "a/b/c"]
    told.clear()
    index.publish([Removed("a/b/c")])
    assert sorted(told) == ["a", "a/b", "a/b/c"]


def test_who_observes_is_told_of_a_folder_alone_where_it_goes_with_all_in_it() -> None:
    index = index_of(datafile("a/b/c"), datafile("a/d"), FolderSeen(info("a", Kind.FOLDER)))
    told = observed(index)
    index.publish([Removed("a")])
    assert told == ["a"]


def test_who_observes_is_told_of_what_a_reading_found_and_not_of_what_a_writer_holds() -> None:
    index = index_of(datafile("a"), datafile("held"))
    told = observed(index)
    index.hold("held")
    with index.reading() as reading:
        index.publish_read([Removed("a"), Removed("held")], reading)
    assert told == ["a"]


def test_a_hash_that_becomes_known_is_no_change() -> None:
    file = datafile("a")
    index = index_of(file)
    told = observed(index)
    index.publish_hash(file, 5)
    assert told == []


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.fixture
def filled() -> Index:
    return index_of(
        datafile("one.csv", labels=["a"], tags={"k": 1, "n": {"x": "v"}}, crc32c=1, size=1),
        datafile("two.CSV", labels=["a", "b"], tags={"k": "1"}, timestamp=datetime(2024, 1, 2), crc32c=2, size=2),
        datafile("sub/three", labels=["b"], timestamp=datetime(2024, 2, 2, tzinfo=UTC), crc32c=1, size=3),
        datafile("sub/deep/four.csv", tags={"k": None, "l": [1]}, size=4),
    )


def test_an_answer_is_ready_until_the_next_change(filled: Index) -> None:
    queries = (labelled("a"),)
    assert not filled.is_selected("", queries)
    filled.select("", queries)
    assert filled.is_selected("", queries)
    assert not filled.is_selected("sub", queries)
    filled.publish([Removed("one.csv")])
    assert not filled.is_selected("", queries)


def test_an_answer_that_depends_on_hashes_is_ready_until_one_becomes_known(filled: Index) -> None:
    queries = (HasHash(frozenset({encode_crc32c(1)})),)
    filled.select("", queries)
    assert filled.is_selected("", queries)
    filled.publish_hash(filled.entry("sub/deep/four.csv"), 9)  # type: ignore[arg-type]
    assert not filled.is_selected("", queries)


def test_a_label_finds_its_files_and_several_find_those_of_each(filled: Index) -> None:
    assert paths(filled, labelled("a")) == ["one.csv", "two.CSV"]
    assert paths(filled, labelled("a", "b")) == ["one.csv", "sub/three", "two.CSV"]
    assert paths(filled, labelled("a", "unknown")) == ["one.csv", "two.CSV"]
    assert paths(filled, labelled("unknown")) == []
    assert paths(filled, labelled()) == []


def test_queries_one_after_the_other_mean_and(filled: Index) -> None:
    assert paths(filled, labelled("a"), labelled("b")) == ["two.CSV"]
    assert paths(filled, labelled("a"), HasExtension(frozenset({"csv"}))) == ["one.csv"]


def test_an_extension_keeps_its_case_and_may_be_none(filled: Index) -> None:
    assert paths(filled, HasExtension(frozenset({"csv"}))) == ["one.csv", "sub/deep/four.csv"]
    assert paths(filled, HasExtension(frozenset({"CSV", ""}))) == ["sub/three", "two.CSV"]


def test_a_tag_finds_its_value_as_text(filled: Index) -> None:
    assert paths(filled, tagged("k", "1")) == ["one.csv", "two.CSV"]
    assert paths(filled, tagged("k", "null")) == ["sub/deep/four.csv"]
    assert paths(filled, tagged("n.x", "v")) == ["one.csv"]
    assert paths(filled, tagged("l", "[1]")) == []
    assert paths(filled, tagged("unknown", "1")) == []


def test_a_date_is_that_of_the_timestamps_own_offset() -> None:
    east = timezone(timedelta(hours=14))
    index = index_of(datafile("a", timestamp=datetime(2024, 3, 1, 1, tzinfo=east)), datafile("b"))
    assert set(index.by_date) == {date(2024, 3, 1)}
    assert paths(index, HasDate(frozenset({2024}), frozenset({3}), frozenset({1}))) == ["a"]
    assert paths(index, HasDate(frozenset({2024}), frozenset({2}), frozenset({29}))) == []


def test_a_hash_finds_all_with_these_bytes(filled: Index) -> None:
    assert paths(filled, HasHash(frozenset({encode_crc32c(1)}))) == ["one.csv", "sub/three"]


def test_filters_ask_each_file(filled: Index) -> None:
    assert paths(filled, Satisfies(parse_filters("size_bytes__gt=1,name__ends_with=csv"))) == ["sub/deep/four.csv"]


def test_not_is_the_rest_of_what_is_asked(filled: Index) -> None:
    assert paths(filled, Not(labelled("a"))) == ["sub/deep/four.csv", "sub/three"]
    assert paths(filled, labelled("b"), Not(labelled("a"))) == ["sub/three"]
    assert paths(filled, Not(Not(labelled("a")))) == paths(filled, labelled("a"))


def test_a_folder_asks_for_what_is_below_it(filled: Index) -> None:
    assert paths(filled, folder="sub") == ["sub/deep/four.csv", "sub/three"]
    assert paths(filled, labelled("b"), folder="sub") == ["sub/three"]
    assert paths(filled, folder="sub/deep") == ["sub/deep/four.csv"]
    assert paths(filled, folder="su") == []
    assert paths(filled, folder="one.csv") == []


def test_a_subset_has_the_folders_that_lead_to_a_member(filled: Index) -> None:
    unlabelled = (Not(labelled("a", "b")),)
    four = filled.entry("sub/deep/four.csv")
    assert filled.subset_children("", unlabelled, "") == {"sub": None}
    assert filled.subset_children("", unlabelled, "sub") == {"deep": None}
    assert filled.subset_children("", unlabelled, "sub/deep") == {"four.csv": four}
    assert filled.subset_children("sub", (labelled("b"),), "sub") == {"three": filled.entry("sub/three")}
    assert filled.subset_children("", unlabelled, "nowhere") == {}


# --- replacing and removing -------------------------------------------------------------------------------------------


def test_a_file_that_is_replaced_is_found_by_its_new_facts_alone() -> None:
    index = index_of(datafile("f", labels=["old"], tags={"k": 1}, timestamp=datetime(2020, 1, 1), crc32c=1))
    index.publish([DatafileSeen(datafile("f", labels=["new"], tags={"k": 2}, timestamp=datetime(2021, 1, 1)))])
    assert paths(index) == ["f"]
    assert paths(index, labelled("old")) == paths(index, tagged("k", "1")) == []
    assert paths(index, labelled("new")) == paths(index, tagged("k", "2")) == ["f"]
    assert date(2020, 1, 1) not in index.by_date
    assert paths(index, HasHash(frozenset({encode_crc32c(1)}))) == []
    assert len(index.unhashed) == 1


def test_what_is_removed_is_found_by_nothing_and_takes_what_is_below_along(filled: Index) -> None:
    filled.publish([Removed("sub")])
    assert filled.entry("sub") is None
    assert paths(filled) == ["one.csv", "two.CSV"]
    assert paths(filled, labelled("b")) == ["two.CSV"]
    assert len(filled.datafiles) == 2


def test_removing_what_is_not_there_changes_nothing(filled: Index) -> None:
    before = paths(filled)
    filled.publish([Removed("nothing"), Removed("no/such"), Removed("one.csv/below"), FolderGone("nothing")])
    assert paths(filled) == before


def test_a_file_that_becomes_something_else_is_no_member_any_more() -> None:
    index = index_of(datafile("f", labels=["a"]))
    index.publish([OtherSeen(info("f", Kind.SPECIAL))])
    assert paths(index) == paths(index, labelled("a")) == []
    index.publish([DatafileSeen(datafile("f", labels=["b"]))])
    assert paths(index, labelled("b")) == ["f"]


def test_on_a_disk_a_folder_in_a_files_place_replaces_it_and_the_other_way_round() -> None:
    index = index_of(datafile("x", labels=["a"]))
    index.publish([FolderSeen(info("x", Kind.FOLDER)), DatafileSeen(datafile("x/y", labels=["b"]))])
    assert paths(index) == ["x/y"]
    assert paths(index, labelled("a")) == []
    index.publish([DatafileSeen(datafile("x"))])
    assert paths(index) == ["x"]
    assert paths(index, labelled("b")) == []


def test_rows_are_used_again() -> None:
    index = Index()
    for number in range(50):
        index.publish([DatafileSeen(datafile("f", labels=[f"l{number}"]))])
    assert index.datafiles.max() <= 1
    assert paths(index, labelled("l49")) == ["f"]
    assert paths(index, labelled("l48")) == []


def test_a_hash_is_published_for_the_version_that_stands() -> None:
    old = datafile("f")
    index = index_of(old)
    index.publish_hash(old, 5)
    assert paths(index, HasHash(frozenset({encode_crc32c(5)}))) == ["f"]
    assert not index.unhashed
    new = datafile("f")
    index.publish([DatafileSeen(new)])
    index.publish_hash(old, 6)
    assert new.crc32c is None
    assert paths(index, HasHash(frozenset({encode_crc32c(6)}))) == []
    assert len(index.unhashed) == 1


def test_a_file_is_never_found_by_two_hashes() -> None:
    file = datafile("f")
    index = index_of(file)
    index.publish_hash(file, 5)
    index.publish_hash(file, 6)
    assert [value for value, rows in index.by_hash.items() if rows] == [encode_crc32c(6)]


# --- folders that only objects imply ----------------------------------------------------------------------------------


def test_an_implied_folder_goes_with_the_last_thing_in_it() -> None:
    index = index_of(datafile("a/b/one", location=CLOUD), datafile("a/two", location=CLOUD))
    index.publish([Removed("a/b/one")])
    assert index.folder("a/b") is None
    assert index.folder("a") is not None
    index.publish([Removed("a/two")])
    assert index.folder("a") is None


def test_a_folder_of_its_own_stays_until_it_is_gone_itself() -> None:
    index = index_of(FolderSeen(info("a/b", Kind.FOLDER)), datafile("a/b/one", location=CLOUD))
    index.publish([Removed("a/b/one")])
    assert index.folder("a/b") is not None
    index.publish([FolderGone("a/b")])
    assert index.folder("a") is None


def test_a_folder_that_is_gone_itself_stays_while_something_is_in_it() -> None:
    index = index_of(FolderSeen(info("a", Kind.FOLDER)), datafile("a/one", location=CLOUD))
    index.publish([FolderGone("a")])
    assert paths(index) == ["a/one"]
    index.publish([Removed("a/one")])
    assert index.folder("a") is None


def test_the_root_never_goes() -> None:
    index = index_of(datafile("a", location=CLOUD))
    index.publish([Removed("a"), FolderGone("")])
    assert index.folder("") is index.root


# --- objects hidden by a folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("object_first", [True, False])
def test_of_an_object_and_a_folder_of_its_name_the_folder_shows(object_first: bool) -> None:
    hidden, inside = datafile("a", location=CLOUD, labels=["l"]), datafile("a/b", location=CLOUD)
    index = index_of(*((hidden, inside) if object_first else (inside, hidden)))
    assert paths(index) == ["a/b"]
    assert paths(index, labelled("l")) == []
    assert index.shadowed == {"a": hidden}


def test_a_hidden_object_shows_when_the_folder_goes() -> None:
    hidden = datafile("a", location=CLOUD, labels=["l"])
    index = index_of(hidden, datafile("a/b", location=CLOUD), Removed("a/b"))
    assert paths(index) == paths(index, labelled("l")) == ["a"]
    assert index.shadowed == {}


def test_a_hidden_object_that_is_removed_leaves_the_folder_alone() -> None:
    index = index_of(datafile("a", location=CLOUD), datafile("a/b", location=CLOUD), Removed("a"))
    assert paths(index) == ["a/b"]
    assert index.shadowed == {}
    index.publish([Removed("a/b")])
    assert paths(index) == []


def test_a_hidden_object_that_is_replaced_shows_as_the_new_one() -> None:
    index = index_of(datafile("a", location=CLOUD), datafile("a/b", location=CLOUD))
    new = datafile("a", location=CLOUD, size=9)
    index.publish([DatafileSeen(new), Removed("a/b")])
    assert index.entry("a") is new


def test_objects_hidden_one_in_the_other_show_one_after_the_other() -> None:
    index = index_of(*(datafile(path, location=CLOUD) for path in ("a", "a/b", "a/b/c")))
    assert paths(index) == ["a/b/c"]
    assert sorted(index.shadowed) == ["a", "a/b"]
    index.publish([Removed("a/b/c")])
    assert paths(index) == ["a/b"]
    index.publish([Removed("a/b")])
    assert paths(index) == ["a"]


# --- what is remembered -----------------------------------------------------------------------------------------------


def test_an_answer_is_remembered_until_the_next_change(filled: Index) -> None:
    computed = []

    def compute() -> int:
        computed.append(1)
        return len(computed)

    assert [filled.cached("key", compute) for _ in range(3)] == [1, 1, 1]
    assert filled.cached("other key", compute) == 2
    filled.publish([Removed("one.csv")])
    assert filled.cached("key", compute) == 3


def test_a_hash_that_becomes_known_is_a_change_to_what_is_remembered(filled: Index) -> None:
    query = HasHash(frozenset({encode_crc32c(77)}))
    assert paths(filled, query) == []
    four = filled.entry("sub/deep/four.csv")
    assert isinstance(four, Datafile)
    filled.publish_hash(four, 77)
    assert paths(filled, query) == ["sub/deep/four.csv"]


def test_what_is_given_out_is_not_what_is_kept(filled: Index) -> None:
    rows = filled.select("", ())
    assert rows is not filled.datafiles
    before = len(filled.datafiles)
    filled.publish([Removed("one.csv")])
    assert len(rows) == before


# --- any sequence of changes ------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c.csv", "d.CSV"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LABELS = st.sets(st.sampled_from(["l", "m", "n"]), max_size=3)
TAGS = st.dictionaries(
    st.sampled_from(["k", "j"]),
    st.sampled_from([1, "1", None, True, [1], {"x": 5}, {"x": {"y": ""}}]),
    max_size=2,
)
TIMES = st.sampled_from([None, datetime(2024, 1, 1), datetime(2024, 2, 1, 23, tzinfo=timezone(timedelta(hours=-9)))])
HASHES = st.sampled_from([None, 1, 2])


@dataclass
class Model:
    """The same facts as a dictionary of objects and marked folders; what a bucket holds."""

    objects: dict[str, Datafile]
    marked: set[str]

    def folders(self) -> set[str]:
        implied = {above for path in (*self.objects, *self.marked) for above in _above(path)}
        return implied | self.marked

    def shown(self) -> dict[str, Datafile]:
        folders = self.folders()
        return {path: file for path, file in self.objects.items() if path not in folders}


def _above(path: str) -> set[str]:
    parts = path.split("/")
    return {"/".join(parts[:count]) for count in range(1, len(parts))}


class CloudIndex(RuleBasedStateMachine):
    """Objects come and go in a bucket; each way of asking answers as a scan of what is there would."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.model = Model({}, set())

    @rule(path=PATHS, labels=LABELS, tags=TAGS, timestamp=TIMES, crc32c=HASHES, size=st.integers(0, 9))
    def see_object(
        self,
        path: str,
        labels: set[str],
        tags: dict[str, Any],
        timestamp: datetime | None,
        crc32c: int | None,
        size: int,
    ) -> None:
        file = datafile(path, location=CLOUD, labels=labels, tags=tags, timestamp=timestamp, crc32c=crc32c, size=size)
        self.model.objects[path] = file
        self.index.publish([DatafileSeen(file)])

    @rule(path=PATHS)
    def remove_object(self, path: str) -> None:
        """`Removed` of an object that is there: of a path where only a folder stands it means the folder."""
        if path not in self.model.objects:
            return
        del self.model.objects[path]
        self.index.publish([Removed(path)])

    @rule(path=PATHS)
    def mark_folder(self, path: str) -> None:
        self.model.marked.add(path)
        self.index.publish([FolderSeen(info(path, Kind.FOLDER))])

    @rule(path=PATHS)
    def unmark_folder(self, path: str) -> None:
        self.model.marked.discard(path)
        self.index.publish([FolderGone(path)])

    @rule(path=PATHS)
    def remove_folder(self, path: str) -> None:
        if path not in self.model.folders() or path in self.model.objects:
            return
        self.model.objects = {
            name: file for name, file in self.model.objects.items() if not name.startswith(path + "/")
        }
        self.model.marked = {name for name in self.model.marked if name != path and not name.startswith(path + "/")}
        self.index.publish([Removed(path)])
        # The index forgets hidden objects one by one, as a new listing tells of each.
        self.index.publish([Removed(name) for name in list(self.index.shadowed) if name not in self.model.objects])

    @rule(path=PATHS, crc32c=HASHES, size=st.integers(0, 9))
    def write_object(self, path: str, crc32c: int | None, size: int) -> None:
        """Other content with the very metadata that are known."""
        known = self.model.objects.get(path)
        if known is None:
            return
        described = info(path, size=size)
        file = self.model.objects[path] = Datafile(described, CLOUD, known.metadata, described)
        file.crc32c = crc32c
        self.index.publish([DatafileSeen(file)])
        assert known.row == -1

    @rule(path=PATHS, crc32c=st.sampled_from([1, 2, 3]))
    def hash_object(self, path: str, crc32c: int) -> None:
        file = self.model.objects.get(path)
        if file is not None and file.crc32c is None:
            self.index.publish_hash(file, crc32c)

    @invariant()
    def the_tree_is_right(self) -> None:
        shown = self.model.shown()
        found: dict[str, Datafile] = {}
        folders = set()
        pending = [self.index.root]
        while pending:
            for entry in (folder := pending.pop()).children.values():
                if isinstance(entry, Folder):
                    folders.add(entry.path)
                    assert (entry.info is not None) == (entry.path in self.model.marked)
                    pending.append(entry)
                elif isinstance(entry, Datafile):
                    found[entry.path] = entry
            assert folder.path == "" or folder.children or folder.info is not None
        assert found == shown
        assert folders == self.model.folders()
        assert set(self.index.shadowed) == set(self.model.objects) - set(shown)
        assert self.index.total_bytes == sum(file.size for file in shown.values())

    @invariant()
    def every_question_is_answered_as_by_a_scan(self) -> None:
        shown = self.model.shown().values()
        assert set(self.index.members("", ())) == set(shown)

        def check(query: Any, says: Any) -> None:
            for folder in ("", "a", "a/b"):
                expected = {file.path for file in shown if says(file) and (not folder or folder in _above(file.path))}
                assert {file.path for file in self.index.members(folder, (query,))} == expected
                rest = {file.path for file in shown if not says(file) and (not folder or folder in _above(file.path))}
                assert {file.path for file in self.index.members(folder, (Not(query),))} == rest

        for labels in ({"l"}, {"m", "n"}):
            check(labelled(*labels), lambda file, labels=labels: bool(file.labels & labels))
        for extension in ("", "csv", "CSV"):
            check(HasExtension(frozenset({extension})), lambda file, it=extension: file.extension == it)
        for entry in (("k", "1"), ("k", "null"), ("j.x", "5"), ("k.x.y", "")):
            check(tagged(*entry), lambda file, it=entry: it in set(tag_entries(file.tags)))
        for day in (date(2024, 1, 1), date(2024, 2, 1), date(2024, 2, 2)):
            query = HasDate(*(frozenset({part}) for part in (day.year, day.month, day.day)))
            check(query, lambda file, day=day: file.timestamp is not None and file.timestamp.date() == day)
        for crc32c in (1, 2, 3):
            check(HasHash(frozenset({encode_crc32c(crc32c)})), lambda file, it=crc32c: file.crc32c == it)
        assert len(self.index.unhashed) == sum(1 for file in shown if file.crc32c is None)


TestAnySequenceOfChanges = CloudIndex.TestCase
TestAnySequenceOfChanges.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(st.tuples(PATHS, st.booleans(), LABELS), max_size=15))
@settings(deadline=None)
def test_on_a_disk_what_came_last_to_a_path_stands(steps: list[tuple[str, bool, set[str]]]) -> None:
    index = Index()
    stands: dict[str, Datafile] = {}
    for path, remove, labels in steps:
        stands = {name: file for name, file in stands.items() if name != path and not name.startswith(path + "/")}
        if remove:
            index.publish([Removed(path)])
            continue
        stands = {name: file for name, file in stands.items() if name not in _above(path)}
        stands[path] = file = datafile(path, labels=labels)
        index.publish([DatafileSeen(file)])
    assert paths(index) == sorted(stands)
    for label in ("l", "m", "n"):
        assert paths(index, labelled(label)) == sorted(name for name, file in stands.items() if label in file.labels)
