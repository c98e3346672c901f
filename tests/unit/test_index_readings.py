"""The index while writers change what the keeper reads: what a reading saw before a writer changed it never shows."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from octuefs.datafile import Datafile
from octuefs.entries import Change, DatafileSeen, FolderGone, Reading, Removed
from octuefs.index import Index
from octuefs.model.paths import LocalLocation
from octuefs.stores.base import Kind, ObjectInfo

DISK = LocalLocation("/data/set")
FILES = ["a", "ab", "d/x", "d/y", "d/e/x"]
PATHS = st.sampled_from(FILES)


def seen(path: str, version: int) -> DatafileSeen:
    info = ObjectInfo(path, Kind.FILE, version, 0, 0, 0o100644, 0, 0, 1, 1, version)
    return DatafileSeen(Datafile(info, DISK, content=info))


def shown(index: Index, path: str) -> int | None:
    entry = index.entry(path)
    if entry is None:
        return None
    assert isinstance(entry, Datafile)
    version = entry.info.version
    assert isinstance(version, int)
    return version


# --- one by one


def test_what_nobody_changed_meanwhile_is_taken_in() -> None:
    index = Index()
    index.publish([seen("a", 1), seen("d/x", 2)])
    with index.reading() as reading:
        assert index.publish_read([seen("a", 3), Removed("d/x"), seen("b", 4)], reading) == []
    assert [shown(index, path) for path in ("a", "d/x", "b")] == [3, None, 4]


@pytest.mark.parametrize(
    ("touched", "overtaken"),
    [
        ("a", ["a"]),
        ("d", ["d", "d/x", "d/e/x"]),
        ("d/x", ["d", "d/x"]),
        ("d/e", ["d", "d/e/x"]),
        ("", ["a", "ab", "d", "d/x", "d/e/x"]),
        ("d/new", ["d"]),
        ("b", []),
    ],
)
def test_what_a_writer_changed_meanwhile_is_to_be_read_again(touched: str, overtaken: list[str]) -> None:
    index = Index()
    with index.reading() as reading:
        index.publish([FolderGone(touched)])
        changes: list[Change] = [seen("a", 1), seen("ab", 1), Removed("d"), seen("d/x", 1), seen("d/e/x", 1)]
        assert index.publish_read(changes, reading) == overtaken
    with index.reading() as later:
        assert index.publish_read(changes, later) == []


def test_what_a_writer_did_before_the_reading_began_is_no_news() -> None:
    index = Index()
    index.publish([seen("a", 1)])
    with index.reading() as reading:
        assert index.publish_read([Removed("a")], reading) == []
    index.publish([seen("a", 2)])
    assert index.publish_read([Removed("a")], reading) == []  # an ended reading hears of nothing any more


def test_what_is_held_is_the_writers_alone_and_nobody_looks_again() -> None:
    index = Index()
    index.hold("d/x")
    index.publish([seen("d/x", 1)])
    with index.reading() as reading:
        changes: list[Change] = [Removed("d/x"), Removed("d"), seen("d/x", 2), seen("d/y", 3)]
        assert index.publish_read(changes, reading) == []
        assert (shown(index, "d/x"), shown(index, "d/y")) == (1, 3)
        index.let_go("d/x")
        assert index.publish_read(changes, reading) == ["d/x", "d", "d/x"]
    with index.reading() as later:
        assert index.publish_read([seen("d/x", 2)], later) == []
    assert shown(index, "d/x") == 2


# --- all ways to interleave them


@dataclass
class Looking:
    """A reading that is under way, what it saw (a version, None for nothing), and what writers touched meanwhile."""

    context: AbstractContextManager[Reading]
    reading: Reading
    saw: dict[str, int | None] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)


def related(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")


class Interleaved(RuleBasedStateMachine):
    """Writers and other programs change a store, while readings of it begin, look and are published, in any order.

    Versions are moments, so that an older one can be told from a newer one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.now = 0
        self.store: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        """When a path had nothing last."""
        self.said: dict[str, tuple[int, int | None]] = {}
        """What writers said last of a path, and when."""
        self.held: dict[str, int] = {}
        self.under_way: list[Looking] = []

    def tick(self) -> int:
        self.now += 1
        return self.now

    def publish(self, *changes: Change) -> None:
        self.index.publish(changes)
        for change in changes:
            path = change.datafile.path if isinstance(change, DatafileSeen) else getattr(change, "path", "")
            self.touch(path)

    def touch(self, path: str) -> None:
        for looking in self.under_way:
            looking.touched.add(path)

    # --- who changes

    @rule(path=PATHS)
    def write(self, path: str) -> None:
        version = self.tick()
        if path in self.held:
            self.held[path] = version
        else:
            self.store[path] = version
        self.said[path] = (version, version)
        self.publish(seen(path, version))

    @rule(path=PATHS)
    def remove(self, path: str) -> None:
        if path in self.held:
            return
        self.store.pop(path, None)
        self.said[path] = (self.tick(), None)
        self.gone[path] = self.now
        self.publish(Removed(path))

    @rule(folder=st.sampled_from(["d", "d/e"]))
    def remove_folder(self, folder: str) -> None:
        below = [path for path in FILES if path.startswith(f"{folder}/")]
        if any(path in self.held for path in below):
            return
        self.tick()
        for path in below:
            self.store.pop(path, None)
            self.said[path] = (self.now, None)
            self.gone[path] = self.now
        self.publish(Removed(folder))

    @rule(path=PATHS)
    def hold(self, path: str) -> None:
        """A file is open that is not stored yet."""
        version = self.tick()
        self.held[path] = version
        self.index.hold(path)
        self.said[path] = (version, version)
        self.publish(seen(path, version))

    @rule(path=PATHS)
    def let_go(self, path: str) -> None:
        """It is stored, and said to be."""
        if path in self.held:
            self.store[path] = self.held.pop(path)
            self.publish(seen(path, self.store[path]))
            self.index.let_go(path)
            self.touch(path)

    @rule(path=PATHS, removes=st.booleans())
    def another_program_changes(self, path: str, *, removes: bool) -> None:
        self.tick()
        if path in self.held:
            return
        if removes:
            self.store.pop(path, None)
            self.gone[path] = self.now
        else:
            self.store[path] = self.now

    # --- who reads

    @precondition(lambda self: len(self.under_way) < 3)
    @rule()
    def begin(self) -> None:
        context = self.index.reading()
        self.under_way.append(Looking(context, context.__enter__()))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), path=st.sampled_from([*FILES, "d", "d/e"]))
    def look(self, data: st.DataObject, path: str) -> None:
        looking = data.draw(st.sampled_from(self.under_way))
        if path in FILES:
            looking.saw[path] = self.store.get(path)
        elif not any(it.startswith(f"{path}/") for it in self.store):
            looking.saw[path] = None

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self._finish(data.draw(st.sampled_from(self.under_way)))

    def _finish(self, looking: Looking) -> list[str]:
        self.under_way.remove(looking)
        before = {path: shown(self.index, path) for path in FILES}
        # Folders first: what is removed with one may have come back when it was looked at.
        changes: list[Change] = [
            Removed(path) if version is None else seen(path, version)
            for path, version in sorted(looking.saw.items(), key=lambda item: (item[0] in FILES, item[0]))
        ]
        overtaken = self.index.publish_read(changes, looking.reading)
        looking.context.__exit__(None, None, None)
        for path, version in looking.saw.items():
            is_held = path in self.held or (version is None and any(it.startswith(f"{path}/") for it in self.held))
            touched = any(related(path, it) for it in looking.touched)
            assert (path in overtaken) == (touched and not is_held)
            if path in FILES:
                assert shown(self.index, path) == (before[path] if touched or is_held else version)
        return overtaken

    # --- what is so

    @invariant()
    def nothing_older_shows_than_what_writers_said(self) -> None:
        for path, (when, version) in self.said.items():
            present = shown(self.index, path)
            if present is None:
                assert version is None or self.gone.get(path, 0) > when
            else:
                assert present >= when

    @invariant()
    def what_is_held_shows_as_it_was_said(self) -> None:
        for path, version in self.held.items():
            assert shown(self.index, path) == version

    def teardown(self) -> None:
        """Once all is quiet, a look at all paths shows the store, and nothing is to be looked at again."""
        for looking in list(self.under_way):
            self._finish(looking)
        for path in list(self.held):
            self.let_go(path)
        context = self.index.reading()
        last = Looking(context, context.__enter__(), {path: self.store.get(path) for path in FILES})
        self.under_way.append(last)
        assert self._finish(last) == []
        assert {path: shown(self.index, path) for path in FILES} == {path: self.store.get(path) for path in FILES}
        assert set(self.index.datafiles) == {self.index.entry(path).row for path in self.store}  # type: ignore[union-attr]


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
