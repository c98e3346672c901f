"""Random sequences of operations on a mount and on a plain folder: they answer alike and look alike, step by step.

What is done to both comes through the mount, through its views, and from other programs underneath. After each example
the mount is made again and compared once more, and then what lies in the store itself.

`OCTUEFS_SOAK_MINUTES=N` (see `scripts/soak`) goes on for N minutes, each time with other sequences.
"""

import contextlib
import functools
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from model.metadata import Record, join, name, parent
from model.mounts import remountable
from model.twin import Handle, Twin
from model.worlds import CloudWorld, LocalWorld, World

from support.drivers import over_each_driver
from support.gcs import Bucket
from support.strict_gcs import StrictGcs

pytestmark = over_each_driver

SOAK_MINUTES = float(os.environ.get("OCTUEFS_SOAK_MINUTES", "0"))
EXAMPLES = 7
STEPS = 45

# --- what sequences are made of --------------------------------------------------------------------------------------

basenames = st.sampled_from(["a", "b", "c.csv"])


@dataclass(frozen=True)
class Spot:
    """Where something is to happen: mostly where that is possible, else at `path`."""

    chance: int
    number: int
    path: str

    def among(self, present: Sequence[str]) -> str:
        """One of those that are there."""
        return present[self.number % len(present)] if present and self.chance else self.path

    def below(self, folders: Sequence[str]) -> str:
        """A name in one of the folders that are there."""
        return join(folders[self.number % len(folders)], name(self.path)) if self.chance else self.path


spots = st.builds(
    Spot,
    st.integers(0, 5),
    st.integers(0, 20),
    st.lists(basenames, min_size=1, max_size=3).map("/".join),
)
labels = st.sampled_from(["x", "y"])
label_sets = st.frozensets(labels)
lengths = st.sampled_from([0, 1, 5, 4095, 4096, 200_001])
offsets = st.sampled_from([0, 0, 1, 3, 4096, 150_000])
modes = st.sampled_from([0o644, 0o600, 0o755])
tag_values = st.sampled_from([5, "text", True, {"n": [1]}])
tags = st.dictionaries(st.sampled_from(["k", "m_1"]), tag_values, max_size=2)
timestamps = st.sampled_from([None, "2024-01-02T03:04:05", "2024-05-06T07:08:09+02:00"])
records = st.builds(Record, label_sets, tags, timestamps)
documents = st.dictionaries(basenames, records, max_size=3)
kinds_of_open = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_WRONLY,
        os.O_RDWR,
        os.O_RDWR | os.O_CREAT,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        os.O_RDWR | os.O_APPEND,
        os.O_RDWR | os.O_TRUNC,
    ]
)
which = st.integers(0, 3)


@functools.cache
def some_bytes(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


contents = st.builds(some_bytes, lengths, st.integers(0, 3))


def has_handles(machine: "MountModel") -> bool:
    return bool(machine.twin.handles)


def has_labels(machine: "MountModel") -> bool:
    return any(record.labels for record in machine.twin.metadata.files.values())


class MountModel(RuleBasedStateMachine):
    """The rules; each is one operation."""

    world: World
    plain: Path
    examples = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        top = f"example-{self.examples}-{time.monotonic_ns()}"
        self.twin = Twin(self.world, self.plain / top, top)
        self.twin.make_folder("a", 0o755)
        self.twin.make_folder("a/b", 0o755)
        for path in ("b", "a/c.csv"):
            self.twin.write_file(path, os.O_WRONLY | os.O_CREAT, 0, some_bytes(100, 0), 0o644, keep=False)

    def file(self, spot: Spot) -> str:
        return spot.among(self.twin.files())

    def folder(self, spot: Spot) -> str:
        return spot.among(self.twin.folders())

    def name(self, spot: Spot) -> str:
        return spot.below(self.twin.folders())

    def handle(self, number: int) -> Handle:
        return self.twin.handles[number % len(self.twin.handles)]

    # --- files

    @rule(at=spots, flags=kinds_of_open, offset=offsets, data=contents, mode=modes, keep=st.booleans())
    def open_and_write(self, at: Spot, flags: int, offset: int, data: bytes, mode: int, keep: bool) -> None:
        path = self.name(at) if flags & os.O_CREAT else self.file(at)
        self.twin.write_file(path, flags, offset, data, mode, keep=keep)

    @rule(at=spots, data=contents)
    def save(self, at: Spot, data: bytes) -> None:
        """Most files are simply written."""
        self.twin.write_file(self.name(at), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0, data, 0o644, keep=False)

    @rule(at=spots)
    def unlink(self, at: Spot) -> None:
        self.twin.unlink(self.file(at))

    @rule(old=spots, new=spots)
    def rename(self, old: Spot, new: Spot) -> None:
        self.twin.rename(self.file(old), self.name(new))

    @rule(old=spots, new=spots)
    def rename_over(self, old: Spot, new: Spot) -> None:
        self.twin.rename(self.file(old), self.file(new))

    @rule(old=spots, new=spots)
    def rename_folder(self, old: Spot, new: Spot) -> None:
        self.twin.rename(self.folder(old) or "a", self.name(new))

    @rule(at=spots, length=lengths)
    def truncate(self, at: Spot, length: int) -> None:
        path = self.file(at)
        self.twin.both(f"truncate {path} to {length}", lambda root: os.truncate(root / path, length))

    @rule(at=spots, mode=st.sampled_from([0o755, 0o700, 0o775]))
    def mkdir(self, at: Spot, mode: int) -> None:
        self.twin.make_folder(self.name(at), mode)

    @rule(at=spots)
    def rmdir(self, at: Spot) -> None:
        self.twin.rmdir(self.folder(at) or "b")

    @rule(at=spots, mode=modes)
    def chmod(self, at: Spot, mode: int) -> None:
        path = self.file(at)
        self.twin.both(f"chmod {mode:o} {path}", lambda root: os.chmod(root / path, mode))

    @rule(at=spots, when=st.sampled_from([1_000_000_000, 1_100_000_000]))
    def utime(self, at: Spot, when: int) -> None:
        path = self.file(at)
        self.twin.both(f"utime {path} {when}", lambda root: os.utime(root / path, (when, when)))

    # --- what is open

    @precondition(has_handles)
    @rule(number=which, offset=offsets, data=contents)
    def write(self, number: int, offset: int, data: bytes) -> None:
        self.twin.write(self.handle(number), offset, data)

    @precondition(has_handles)
    @rule(number=which, offset=offsets, length=lengths)
    def read(self, number: int, offset: int, length: int) -> None:
        self.twin.through(
            f"read {length} at {offset}",
            self.handle(number),
            lambda descriptor: os.pread(descriptor, length, offset),
        )

    @precondition(has_handles)
    @rule(number=which, length=lengths)
    def ftruncate(self, number: int, length: int) -> None:
        self.twin.through(
            f"ftruncate to {length}", self.handle(number), lambda descriptor: os.ftruncate(descriptor, length)
        )

    @precondition(has_handles)
    @rule(number=which)
    def fsync(self, number: int) -> None:
        self.twin.through("fsync", self.handle(number), os.fsync)

    @precondition(has_handles)
    @rule(number=which)
    def close_a_copy(self, number: int) -> None:
        self.twin.through("close a copy", self.handle(number), lambda descriptor: os.close(os.dup(descriptor)))

    @precondition(has_handles)
    @rule(number=which)
    def close(self, number: int) -> None:
        self.twin.close(self.handle(number))

    # --- metadata

    @rule(at=spots, chosen=st.frozensets(labels, min_size=1))
    def set_labels(self, at: Spot, chosen: frozenset[str]) -> None:
        text = " ".join(sorted(chosen))
        self.twin.set_xattr(self.file(at), "labels", text, lambda it: replace(it, labels=chosen))

    @rule(at=spots, value=tag_values, key=st.sampled_from(["k", "m_1"]))
    def set_tag(self, at: Spot, key: str, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.twin.set_xattr(self.file(at), f"tags.{key}", text, lambda it: replace(it, tags={**it.tags, key: value}))

    @rule(at=spots, when=st.sampled_from(["2024-01-02T03:04:05", "2024-05-06T07:08:09+02:00"]))
    def set_timestamp(self, at: Spot, when: str) -> None:
        self.twin.set_xattr(self.file(at), "timestamp", when, lambda it: replace(it, timestamp=when))

    @rule(at=spots, bad=st.sampled_from([("labels", "NOT GOOD"), ("tags", "[1]"), ("timestamp", "noon")]))
    def set_what_is_bad(self, at: Spot, bad: tuple[str, str]) -> None:
        self.twin.set_xattr(self.file(at), *bad, None)

    @rule(at=spots, field=st.sampled_from(["labels", "tags", "timestamp"]))
    def remove_xattr(self, at: Spot, field: str) -> None:
        self.twin.remove_xattr(self.file(at), field)

    @rule(at=spots, document=documents, by_rename=st.booleans())
    def write_document(self, at: Spot, document: dict[str, Record], by_rename: bool) -> None:
        self.twin.write_document(self.folder(at), document, by_rename=by_rename)

    @rule(at=spots)
    def remove_document(self, at: Spot) -> None:
        self.twin.remove_document(self.folder(at))

    # --- views

    def seen(self, at: Spot, within: Spot, label: str) -> tuple[str, str]:
        """A folder, and a file below it with the label, relative to it."""
        labelled = self.twin.labelled("", label)
        path = at.among(labelled)
        folder = parent(path) if within.number % 2 else ""
        return folder, path.removeprefix(f"{folder}/") if folder else path

    @precondition(has_labels)
    @rule(at=spots, within=spots, label=labels, data=contents)
    def write_in_view(self, at: Spot, within: Spot, label: str, data: bytes) -> None:
        folder, path = self.seen(at, within, label)
        if within.number % 3 == 0:
            path = join(parent(path), name(within.path))
        self.twin.write_in_view(folder, label, path, data)

    @precondition(has_labels)
    @rule(at=spots, within=spots, label=labels)
    def remove_in_view(self, at: Spot, within: Spot, label: str) -> None:
        folder, path = self.seen(at, within, label)
        self.twin.remove_in_view(folder, label, path)

    @precondition(has_labels)
    @rule(at=spots, within=spots, label=labels, other=labels, new=spots)
    def move_in_view(self, at: Spot, within: Spot, label: str, other: str, new: Spot) -> None:
        folder, path = self.seen(at, within, label)
        self.twin.move_in_view(folder, label, path, other, path if new.number % 2 else name(new.path))

    @rule(at=spots, within=spots, label=labels, by_link=st.booleans())
    def label_by_view(self, at: Spot, within: Spot, label: str, by_link: bool) -> None:
        path = self.file(at)
        folder = parent(path) if within.number % 2 else ""
        self.twin.label_by_view(folder, label, path.removeprefix(f"{folder}/") if folder else path, by_link=by_link)

    # --- others

    @rule(at=spots, data=contents, record=records)
    def put_underneath(self, at: Spot, data: bytes, record: Record) -> None:
        self.twin.put_underneath(self.name(at), data, record)

    @rule(at=spots)
    def remove_underneath(self, at: Spot) -> None:
        self.twin.remove_underneath(self.file(at))

    @rule(at=spots)
    def make_folder_underneath(self, at: Spot) -> None:
        self.twin.make_folder_underneath(self.name(at))

    @rule(at=spots, document=documents)
    def describe_underneath(self, at: Spot, document: dict[str, Record]) -> None:
        self.twin.describe_underneath(self.folder(at), document)

    # --- always

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if self.twin.handles or self.twin.history:
            self.twin.compare()

    def teardown(self) -> None:
        if not self.twin.consistent:
            print("what was done:", *self.twin.history, sep="\n  ")
            for handle in self.twin.handles:
                os.close(handle.plain)
                with contextlib.suppress(OSError):
                    os.close(handle.mounted)
            return
        self.twin.close_all()
        self.twin.compare()
        self.world.mount.unmount()
        try:
            self.twin.compare_store()
        finally:
            self.world.mount.mount()
        self.twin.compare()


class CloudModel(MountModel):
    """More that can happen in a bucket."""

    @rule(at=spots, ours=contents, theirs=contents)
    def overtake(self, at: Spot, ours: bytes, theirs: bytes) -> None:
        self.twin.overtake(self.file(at), b"ours" + ours, b"theirs" + theirs)


# --- tests -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Files are made with the modes that are asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


def explore(machine: type[MountModel], world: World, plain: Path) -> None:
    """Run examples: always the same ones, or others for as long as a soak takes."""
    model = type(machine.__name__, (machine,), {"world": world, "plain": plain})
    usual = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=not SOAK_MINUTES,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + SOAK_MINUTES * 60
    while True:
        run_state_machine_as_test(model, settings=usual)
        if time.monotonic() >= end:
            return


@pytest.mark.timeout(600 + SOAK_MINUTES * 120)
def test_a_local_mount_is_a_folder(tmp_path: Path) -> None:
    source, outside, plain = tmp_path / "source", tmp_path / "outside", tmp_path / "plain"
    for folder in (source, outside, plain):
        folder.mkdir(0o755)
    with remountable(source) as mount:
        explore(MountModel, LocalWorld(mount, source, outside), plain)


@pytest.mark.timeout(600 + SOAK_MINUTES * 120)
def test_a_cloud_mount_is_a_folder(tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    plain = tmp_path / "plain"
    plain.mkdir(0o755)
    # The server forgets a prefix that nothing is in; a dataset that has an object stays.
    bucket.put("some/data/.octue", b"{}")
    with remountable(f"{bucket.url}/some/data", environment=strict_gcs.environment) as mount:
        explore(CloudModel, CloudWorld(mount, bucket, "some/data"), plain)
