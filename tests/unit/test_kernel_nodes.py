"""What the driver keeps of what the kernel knows: numbers, counts of look-ups, and names."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from octuefs.drivers.kernel.nodes import DirectoryRecord, FileRecord, NodeTable
from octuefs.drivers.kernel.requests import ROOT_ID
from octuefs.errors import StaleNode


@pytest.fixture
def table() -> NodeTable:
    return NodeTable()


def directory(table: NodeTable, path: str) -> DirectoryRecord:
    """Look up each directory of a path, and return the last."""
    record = table.root
    for name in path.strip("/").split("/"):
        record = table.directory_found(record, name, derived=False)
    return record


def above(record: DirectoryRecord) -> DirectoryRecord:
    assert record.place is not None
    return record.place[0]


# --- numbers and counts


def test_the_root_is_there_from_the_start_and_is_never_forgotten(table: NodeTable) -> None:
    table.forget(ROOT_ID, 1 << 60)
    assert table.directory(ROOT_ID) is table.root
    assert table.path_of(table.root) == "/"
    assert len(table) == 1


def test_each_look_up_counts_and_the_node_is_gone_with_the_last_of_them(table: NodeTable) -> None:
    record = table.file_found(table.root, "a", "key")
    assert table.file_found(table.root, "a", "key") is record
    assert table.file_found(table.root, "a", "key") is record
    table.forget(record.id, 2)
    assert table.get(record.id) is record
    table.forget(record.id, 1)
    with pytest.raises(StaleNode):
        table.get(record.id)
    assert table.root.children == {}


def test_a_number_is_never_used_again(table: NodeTable) -> None:
    seen = {ROOT_ID}
    for _ in range(3):
        for record in (table.file_found(table.root, "a", "key"), directory(table, "/d")):
            assert record.id not in seen
            seen.add(record.id)
            table.forget(record.id, 1)


def test_what_is_not_known_is_forgotten_quietly(table: NodeTable) -> None:
    record = table.file_found(table.root, "a", "key")
    table.forget(record.id, 1)
    table.forget(record.id, 1)
    table.forget(12345, 1)
    assert len(table) == 1


def test_a_directory_is_no_file_and_a_file_no_directory(table: NodeTable) -> None:
    file, folder = table.file_found(table.root, "a", "key"), directory(table, "/d")
    assert table.file(file.id) is file
    assert table.directory(folder.id) is folder
    with pytest.raises(StaleNode):
        table.directory(file.id)
    with pytest.raises(StaleNode):
        table.file(folder.id)


def test_a_hundred_thousand_files_looked_up_and_forgotten_leave_nothing(table: NodeTable) -> None:
    folders = [directory(table, f"/d{number}") for number in range(100)]
    files = [
        table.file_found(folders[number % 100], f"f{number}", (1, number % 90_000))  # some by two names
        for number in range(100_000)
    ]
    assert len(table) == 1 + 100 + 90_000
    for record in [*files, *folders]:
        table.forget(record.id, 1)
    assert len(table) == 1
    assert table.root.children == {}
    assert table.find("/d0") == (table.root, "d0", None)
    assert table.file_found(table.root, "again", (1, 0)) is not files[0]


# --- files


def test_a_file_has_one_node_by_all_its_names(table: NodeTable) -> None:
    folder, view = directory(table, "/d"), directory(table, "/by-label")
    record = table.file_found(folder, "a", "key")
    assert table.file_found(view, "b", "key") is record
    assert record.places == ((view, "b"), (folder, "a"))
    assert table.file_found(table.root, "c", "other") is not record


def test_another_file_at_a_name_takes_the_name_from_the_first(table: NodeTable) -> None:
    first = table.file_found(table.root, "a", "first")
    table.file_found(table.root, "b", "first")
    second = table.file_found(table.root, "a", "second")
    assert first.places == ((table.root, "b"),)
    assert second.places == ((table.root, "a"),)


def test_a_file_that_is_detached_serves_who_has_it_and_the_next_look_up_finds_another(table: NodeTable) -> None:
    record = table.file_found(table.root, "a", "key")
    table.opened(record, 7)
    table.detach(record)
    new = table.file_found(table.root, "a", "key")
    assert new is not record
    assert table.get(record.id) is record
    assert (record.places, record.handles) == ((), (7,))
    table.forget(record.id, 1)
    assert table.file_found(table.root, "a", "key") is new


def test_a_file_known_by_its_name_is_known_by_the_new_one(table: NodeTable) -> None:
    record = table.file_found(table.root, "a", "/a")
    table.renamed((table.root, "a"), (table.root, "b"))
    table.rekey(record, "/b")
    assert table.file_found(table.root, "b", "/b") is record
    assert table.file_found(table.root, "a", "/a") is not record


def test_handles_are_kept_until_they_are_released(table: NodeTable) -> None:
    record = table.file_found(table.root, "a", "key")
    for handle in (1, 2, 3):
        table.opened(record, handle)
    table.released(record, 2)
    table.released(record, 9)
    assert record.handles == (1, 3)


def test_a_file_is_not_at_a_place_where_another_is(table: NodeTable) -> None:
    first = table.file_found(table.root, "a", "first")
    second = table.file_found(table.root, "a", "second")
    table.not_at(first, (table.root, "a"))
    assert table.root.children == {"a": second}
    table.not_at(second, (table.root, "a"))
    assert table.root.children == {}
    assert second.places == ()


# --- directories


def test_a_directory_tells_its_path_after_one_above_it_was_renamed(table: NodeTable) -> None:
    deep = directory(table, "/a/b/c")
    assert table.path_of(deep) == "/a/b/c"
    table.renamed((table.root, "a"), (table.root, "x"))
    assert table.path_of(deep) == "/x/b/c"
    other = directory(table, "/other")
    table.renamed((table.directory_found(table.root, "x", derived=False), "b"), (other, "moved"))
    assert table.path_of(deep) == "/other/moved/c"


def test_a_removed_directory_and_all_below_it_have_no_path(table: NodeTable) -> None:
    deep = directory(table, "/a/b/c")
    table.removed(table.root, "a")
    for record in (deep, above(deep)):
        with pytest.raises(StaleNode, match="was removed or replaced"):
            table.path_of(record)


def test_a_replaced_directory_has_no_path_and_the_one_in_its_place_has_its_own(table: NodeTable) -> None:
    old, new = directory(table, "/old"), directory(table, "/new")
    assert table.renamed((table.root, "new"), (table.root, "old")) is new
    assert table.path_of(new) == "/old"
    with pytest.raises(StaleNode):
        table.path_of(old)
    table.forget(old.id, 1)
    assert table.find("/old") == (table.root, "old", new)


def test_a_directory_made_again_at_its_place_is_another(table: NodeTable) -> None:
    first = directory(table, "/d")
    assert table.removed(table.root, "d") is first
    second = directory(table, "/d")
    assert second.id != first.id
    table.forget(first.id, 1)
    assert table.path_of(second) == "/d"


def test_directories_are_forgotten_from_the_leaves_up_whatever_the_order_of_the_requests(table: NodeTable) -> None:
    deep = directory(table, "/a/b/c")
    for record in (above(deep), above(above(deep))):
        table.forget(record.id, 1)
    assert table.path_of(deep) == "/a/b/c"
    table.forget(deep.id, 1)
    assert len(table) == 1
    assert table.root.children == {}


def test_a_file_outlives_the_directory_that_it_was_found_in(table: NodeTable) -> None:
    folder = directory(table, "/d")
    record = table.file_found(folder, "a", "key")
    table.file_found(table.root, "b", "key")
    table.forget(folder.id, 1)
    assert record.places == ((table.root, "b"),)


def test_views_that_the_kernel_knows_are_counted(table: NodeTable) -> None:
    first = table.directory_found(table.root, "by-label", derived=True)
    second = table.directory_found(first, "raw", derived=True)
    assert table.derived == 2
    table.removed(table.root, "by-label")
    for record in (second, first):
        table.forget(record.id, 1)
    assert table.derived == 0


def test_a_folder_in_the_place_of_a_view_is_another_directory(table: NodeTable) -> None:
    view = table.directory_found(table.root, "d", derived=True)
    folder = table.directory_found(table.root, "d", derived=False)
    assert folder is not view
    with pytest.raises(StaleNode):
        table.path_of(view)


def test_a_name_that_led_to_a_directory_may_lead_to_a_file_and_back(table: NodeTable) -> None:
    folder = directory(table, "/a")
    file = table.file_found(table.root, "a", "key")
    with pytest.raises(StaleNode):
        table.path_of(folder)
    again = directory(table, "/a")
    assert file.places == ()
    assert table.find("/a") == (table.root, "a", again)


@pytest.mark.parametrize("path", ["/nothing", "/d/nothing", "/d/f/below", "/nothing/below"])
def test_what_the_kernel_does_not_know_is_not_found(path: str, table: NodeTable) -> None:
    table.file_found(directory(table, "/d"), "f", "key")
    assert table.find(path)[2] is None


def test_what_the_kernel_knows_is_found_with_its_directory_and_its_name(table: NodeTable) -> None:
    folder = directory(table, "/d")
    file = table.file_found(folder, "f", "key")
    assert table.find("/") == (None, "", table.root)
    assert table.find("/d") == (table.root, "d", folder)
    assert table.find("/d/f") == (folder, "f", file)


# --- all of it, against a plain model

NAMES = st.sampled_from("abc")
KEYS = st.integers(0, 4)


class Known:
    """A node as the model has it."""

    def __init__(self, id: int, *, folder: bool) -> None:
        self.id = id
        self.folder = folder
        self.count = 0


def test_a_file_that_takes_the_inode_number_of_one_without_a_name_gets_a_node_of_its_own() -> None:
    table = NodeTable()
    old = table.file_found(table.root, "old", ("dataset", 7))
    table.removed(table.root, "old")
    new = table.file_found(table.root, "new", ("dataset", 7))
    assert new is not old
    assert (old.places, new.places) == ((), ((table.root, "new"),))
    table.forget(old.id, 1)
    assert table.file_found(table.root, "new", ("dataset", 7)) is new


def test_a_file_that_is_being_removed_is_joined_by_none_unless_that_fails() -> None:
    table = NodeTable()
    old = table.file_found(table.root, "old", ("dataset", 7))
    with table.leaving(table.root, "old"):
        new = table.file_found(table.root, "new", ("dataset", 7))
    assert new is not old
    with suppress(OSError), table.leaving(table.root, "new"):
        raise OSError
    assert table.file_found(table.root, "new", ("dataset", 7)) is new


def test_a_file_with_two_names_of_which_one_is_removed_keeps_its_node() -> None:
    table = NodeTable()
    view = table.directory_found(table.root, "by-ext", derived=True)
    record = table.file_found(table.root, "one", ("dataset", 7))
    assert table.file_found(table.root, "two", ("dataset", 7)) is record
    assert table.file_found(view, "one", ("dataset", 7)) is record
    with table.leaving(table.root, "one"):
        table.removed(table.root, "one")
    assert table.file_found(table.root, "two", ("dataset", 7)) is record
    with table.leaving(table.root, "two"):  # what a view shows is no name of its own
        assert table.file_found(table.root, "new", ("dataset", 7)) is not record


def test_a_file_that_is_moved_keeps_its_node() -> None:
    table = NodeTable()
    record = table.file_found(table.root, "old", ("dataset", 7))
    assert table.renamed((table.root, "old"), (table.root, "new")) is record
    assert table.file_found(table.root, "new", ("dataset", 7)) is record


class NodeTableMachine(RuleBasedStateMachine):
    """Look-ups, changes of names and forgetting as the kernel does them: of a directory after all directories in it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = NodeTable()
        root = Known(ROOT_ID, folder=True)
        self.known = {ROOT_ID: root}
        self.at: dict[tuple[int, str], int] = {}  # what stands at a place, by number of the directory and name
        self.keys: dict[int, int] = {}  # of files that look-ups lead to
        self.used = {ROOT_ID}

    def pick(self, data: st.DataObject, fits: Callable[[Known], bool]) -> Known:
        return data.draw(st.sampled_from([it for it in self.known.values() if fits(it)]))

    def record(self, id: int) -> DirectoryRecord | FileRecord:
        return self.table.get(id)

    def folder(self, data: st.DataObject) -> DirectoryRecord:
        return self.table.directory(self.pick(data, lambda it: it.folder).id)

    def counted(self, id: int, *, folder: bool) -> None:
        if id not in self.known:
            assert id not in self.used
            self.used.add(id)
            self.known[id] = Known(id, folder=folder)
        self.known[id].count += 1

    def let_go(self) -> None:
        """Files without a name are found no more: their number may be another's."""
        self.keys = {key: there for key, there in self.keys.items() if there in self.at.values()}

    def path(self, id: int) -> str | None:
        if id == ROOT_ID:
            return ""
        place = next((place for place, there in self.at.items() if there == id), None)
        above = None if place is None else self.path(place[0])
        return None if place is None or above is None else f"{above}/{place[1]}"

    @rule(data=st.data(), name=NAMES)
    def look_up_a_directory(self, data: st.DataObject, name: str) -> None:
        parent = self.folder(data)
        before = self.at.get((parent.id, name))
        record = self.table.directory_found(parent, name, derived=False)
        if before is not None and self.known[before].folder:
            assert record.id == before
        self.counted(record.id, folder=True)
        self.at[parent.id, name] = record.id
        self.let_go()

    @rule(data=st.data(), name=NAMES, key=KEYS)
    def look_up_a_file(self, data: st.DataObject, name: str, key: int) -> None:
        parent = self.folder(data)
        record = self.table.file_found(parent, name, key)
        assert record.id == self.keys.get(key, record.id)
        self.counted(record.id, folder=False)
        self.keys[key] = record.id
        self.at[parent.id, name] = record.id
        self.let_go()

    @rule(data=st.data(), name=NAMES)
    def remove(self, data: st.DataObject, name: str) -> None:
        parent = self.folder(data)
        removed = self.table.removed(parent, name)
        assert (removed and removed.id) == self.at.pop((parent.id, name), None)
        self.let_go()

    @precondition(lambda self: self.at)
    @rule(data=st.data(), name=NAMES)
    def rename(self, data: st.DataObject, name: str) -> None:
        old = data.draw(st.sampled_from(list(self.at)))
        new = (self.pick(data, lambda it: it.folder).id, name)
        moved = self.known[self.at[old]]
        there = self.known.get(self.at.get(new, 0))
        above: int | None = new[0]
        while above is not None and above != moved.id:
            above = next((place[0] for place, it in self.at.items() if it == above), None)
        if above is not None or (there is not None and there.folder != moved.folder):
            return  # the kernel refuses it
        self.table.renamed(
            (self.table.directory(old[0]), old[1]),
            (self.table.directory(new[0]), new[1]),
        )
        self.at[new] = self.at.pop(old)
        self.let_go()

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.keys)))
        id = self.keys.pop(key)
        record = self.table.file(id)
        self.table.detach(record)
        self.at = {place: there for place, there in self.at.items() if there != id}

    @precondition(lambda self: len(self.known) > 1)
    @rule(data=st.data(), whole=st.booleans())
    def forget(self, data: st.DataObject, whole: bool) -> None:
        it = self.pick(data, lambda it: it.id != ROOT_ID)
        number = it.count if whole else data.draw(st.integers(1, it.count))
        inside = [there for (parent, _), there in self.at.items() if parent == it.id]
        if number == it.count and any(self.known[there].folder for there in inside):
            return  # the kernel keeps what leads to something that it knows
        self.table.forget(it.id, number)
        it.count -= number
        if it.count == 0:
            del self.known[it.id]
            self.keys = {key: there for key, there in self.keys.items() if there != it.id}
            self.at = {place: there for place, there in self.at.items() if there != it.id and place[0] != it.id}
            self.let_go()

    @invariant()
    def the_table_knows_what_the_kernel_knows(self) -> None:
        assert len(self.table) == len(self.known)
        for it in self.known.values():
            record = self.record(it.id)
            assert isinstance(record, DirectoryRecord) == it.folder
            assert record.lookups == it.count

    @invariant()
    def directories_have_their_paths(self) -> None:
        for it in self.known.values():
            if it.folder:
                path = self.path(it.id)
                if path is None:
                    with pytest.raises(StaleNode):
                        self.table.path_of(self.table.directory(it.id))
                else:
                    assert self.table.path_of(self.table.directory(it.id)) == (path or "/")

    @invariant()
    def what_stands_at_a_place_is_known_there_and_knows_the_place(self) -> None:
        found = set()
        for it in self.known.values():
            record = self.record(it.id)
            if isinstance(record, DirectoryRecord):
                for name, child in record.children.items():
                    assert self.at[it.id, name] == child.id
                    found.add((it.id, name))
                    if isinstance(child, FileRecord):
                        assert (record, name) in child.places
            else:
                assert len(set(record.places)) == len(record.places)
                for parent, name in record.places:
                    assert parent.children[name] is record
        assert found == set(self.at)

    def teardown(self) -> None:
        for it in sorted(self.known.values(), key=lambda it: it.count):  # in no order that means anything
            self.table.forget(it.id, it.count)
        assert len(self.table) == 1


TestNodeTable = NodeTableMachine.TestCase
TestNodeTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
