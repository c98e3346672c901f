"""Any sequence of changes in a bucket, mounts, ends and kills: what shows is what a first mount would show."""

import json
import sqlite3
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from unit.test_remembered import Mount, World, octue

from octuefs.datafile import Datafile
from octuefs.errors import NotFound
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.report import Report
from octuefs.tree.queries import HasDate, HasExtension, HasHash, HasLabel, HasTag, Not

PATHS = st.sampled_from(["a", "a/b", "a/b/c.csv", "a/d.csv", "e.CSV", "f/g/h", "f/.x", "a/n.octue", ".octue", "f-1"])
LABELS = st.sets(st.sampled_from(["l", "m", "n"]))
TIMES = st.sampled_from([None, "2024-01-01T00:00:00", "2024-02-01T00:00:00+02:00"])
IDS = st.sampled_from([None, "6f1f8d1e-0f5c-4c57-8c2a-111111111111", "6f1f8d1e-0f5c-4c57-8c2a-222222222222"])
QUERIES = (
    *(HasLabel(frozenset({label})) for label in "lmn"),
    *(HasExtension(frozenset({extension})) for extension in ("csv", "CSV", "")),
    *(HasTag("k", frozenset({value})) for value in ("1", "2")),
    HasDate(frozenset({2024}), frozenset({2}), frozenset({1})),
    Not(HasLabel(frozenset({"l"}))),
)


def is_metadata(path: str) -> bool:
    """Whether a path is what octuefs makes itself."""
    return path.rpartition("/")[2] == ".octue"


class Remounts(RuleBasedStateMachine):
    """One bucket, and a mount of it that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.world = World(Path(folder) / "facts.sqlite", self.stack)
        self.current: Mount | None = None

    @initialize(paths=st.sets(PATHS))
    def begin(self, paths: set[str]) -> None:
        for path in paths:
            self.world.store.put(path, b"{}" if path == ".octue" else path.encode(), octue("l"))

    @rule(path=PATHS, size=st.integers(0, 3), labels=LABELS, tag=st.sampled_from([None, 1, 2]), time=TIMES, id=IDS)
    def put(self, path: str, size: int, labels: set[str], tag: int | None, time: str | None, id: str | None) -> None:
        tags: dict[str, Any] = {} if tag is None else {"k": tag}
        data = json.dumps({"dataset": {"name": f"n{size}"}}).encode() if path == ".octue" else b"x" * size
        self.world.store.put(path, data, octue(*sorted(labels), id=id, timestamp=time, **tags))

    @rule(path=PATHS)
    def drop(self, path: str) -> None:
        if path in self.world.store.objects:
            self.world.store.drop(path)

    @rule(path=st.sampled_from(["a/", "f/g/", "empty/"]), there=st.booleans())
    def mark(self, path: str, there: bool) -> None:
        if there:
            self.world.store.put(path)
        elif path in self.world.store.objects:
            self.world.store.drop(path)

    @rule(path=PATHS, label=st.sampled_from(["l", "m"]))
    def describe(self, path: str, label: str) -> None:
        if path in self.world.store.objects:
            self.world.store.touch_metadata(path, octue__labels=json.dumps([label]))

    @rule()
    def look(self) -> None:
        if self.current is None:
            self.current = self.world.mount()
        else:
            self.current.keeper.refresh().result()
        self.current.confirmed()
        self.compare(self.current)

    @rule(path=PATHS)
    def open_at_once(self, path: str) -> None:
        """What is asked for one by one is right before the bucket has been read."""
        if self.current is not None or not self.is_remembered():
            return
        self.world.store.gate.clear()
        self.current = mount = self.world.mount()
        known = mount.index.shadowed.get(path) or mount.index.entry(path)
        objects = self.world.store.objects
        if isinstance(known, Datafile):
            try:
                present = mount.keeper.ask(known.info)
            except NotFound:
                assert path not in objects
            else:
                assert path not in objects or present.size == len(objects[path].data)
        elif known is None and path in objects and not is_metadata(path):
            assert mount.keeper.find_unseen(path)
        self.world.store.gate.set()

    def is_remembered(self) -> bool:
        if not self.world.file.exists():
            return False
        connection = sqlite3.connect(self.world.file)
        try:
            (count,) = connection.execute("SELECT count(*) FROM folders").fetchone()
            (files,) = connection.execute("SELECT count(*) FROM facts WHERE name = 'count' AND value > 0").fetchone()
            (gone,) = connection.execute("SELECT count(*) FROM changes WHERE text IS NULL").fetchone()
            return bool(count and files and not gone)  # else it may be that nothing is left
        finally:
            connection.close()

    @rule()
    def unmount(self) -> None:
        if self.current is not None:
            self.current.close()
            self.current = None

    @rule()
    def kill(self) -> None:
        """The end of a mount that has not written what it knew last."""
        if self.current is not None:
            remembered = self.current.keeper._remembered
            assert remembered is not None
            file, remembered._file = remembered._file, None
            remembered._ending.set()
            remembered._wake.set()
            if remembered._thread.ident is not None:
                remembered._thread.join()
            if file is not None:
                file.close()
            self.current.close()
            self.current = None

    def compare(self, mount: Mount) -> None:
        plain = Keeper(self.world.store, Report(), Index(), recursive=True, metadata_ttl=60)
        plain.load()
        plain.close()
        twin = object.__new__(Mount)
        twin.index = plain.index
        assert mount.shown() == twin.shown()
        assert mount.keeper.stored.dataset == plain.stored.dataset
        assert mount.index.total_bytes == plain.index.total_bytes
        ours, theirs = mount.index, plain.index
        hashes = [HasHash(frozenset({value})) for value in theirs.by_hash]
        for query in (*QUERIES, *hashes):
            for folder in ("", "a", "a/b", "f"):
                assert {it.path for it in ours.members(folder, (query,))} == {
                    it.path for it in theirs.members(folder, (query,))
                }
                assert set(ours.subset_children("", (query,), folder)) == set(
                    theirs.subset_children("", (query,), folder)
                )
        for table in ("by_label", "by_extension", "by_date", "by_tag"):
            assert getattr(ours, table).keys() == getattr(theirs, table).keys()
        assert set(ours.by_hash) == set(theirs.by_hash)
        for datafile in theirs.members("", ()):
            if datafile.metadata.id is not None:
                assert ours.is_anothers(datafile.metadata.id, "other") == theirs.is_anothers(
                    datafile.metadata.id, "other"
                )

    def teardown(self) -> None:
        self.world.store.gate.set()
        self.stack.close()


TestAnySequenceOfMounts = Remounts.TestCase
TestAnySequenceOfMounts.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
