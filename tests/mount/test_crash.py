"""kill -9 of the daemon at random moments while programs write: what was promised is there at the next mount.

Each program notes what it was promised (`acked`: close, fsync, rename or setfattr returned) and what it was doing when
its mount died (`trying`); after the next mount exactly one of the two is the truth, whole.
"""

import contextlib
import errno
import json
import os
import random
import select
import signal
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import pytest
from model.mounts import PATIENCE, Mount, get, labels, put, remountable, wait_until

from support.gcs import Bucket
from support.mounting import lazy_unmount
from support.strict_gcs import StrictGcs

SOAK_MINUTES = float(os.environ.get("OCTUEFS_SOAK_MINUTES", "0"))
KILLS = 17
"""How often each mount is killed; `scripts/soak` goes on for as long as it is told."""
LONGEST_LOAD = 0.6
"""Seconds of work before a kill, at most."""
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED}
"""What programs hear from a mount that died; the last of what the daemon had been given over io_uring."""
MIB = 1 << 20

Content = bytes | None
"""What stands at a path; None: nothing."""
UNTRIED = object()


class Look(Protocol):
    """How a path looks, in the mount or in the store behind it."""

    def __call__(self, path: str) -> Content: ...


class File:
    """One path, and what may stand there."""

    def __init__(self, path: str, *, in_place: bool) -> None:
        """`in_place`: writing goes to the source itself, where what was cut off has had a part of its effect."""
        self.path = path
        self.in_place = in_place
        self.acked: Content = None
        self.trying: object = UNTRIED
        self.attempts: list[bytes] = []

    @contextlib.contextmanager
    def becoming(self, content: Content) -> Iterator[None]:
        """Within, the file is made what it then is."""
        self.trying = content
        if content is not None:
            self.attempts.append(content)
        yield
        self.promised(content)
        self.trying = UNTRIED

    def promised(self, content: Content) -> None:
        """From now on nothing less than this may stand there."""
        self.acked = content
        if content is not None and content not in self.attempts[-1:]:
            self.attempts.append(content)

    def allows(self, found: Content) -> bool:
        if found == self.acked:
            return True
        if self.trying is UNTRIED:
            return False
        if found == self.trying:
            return True
        if not self.in_place or found is None or not isinstance(self.trying, bytes):
            return False
        kept = len(self.acked) if self.acked is not None and self.trying.startswith(self.acked) else 0
        return self.trying.startswith(found) and len(found) >= kept

    def check(self, found: Content) -> None:
        assert self.allows(found), (
            f"{self.path}: found {_short(found)}, promised {_short(self.acked)}, was trying {_short(self.trying)}"
        )

    def settle(self, found: Content) -> None:
        """Go on from what was found."""
        self.acked, self.trying = found, UNTRIED
        if found is not None:
            self.attempts[:-1] = []


def _short(content: object) -> str:
    if isinstance(content, bytes):
        return f"{len(content)} bytes {content[:40]!r}"
    return "nothing" if content is None else "no other" if content is UNTRIED else repr(content)


# --- programs --------------------------------------------------------------------------------------------------------


class Program:
    """Writes until its mount dies; `in_place` as for `File`."""

    def __init__(self, in_place: bool) -> None:
        self.in_place = in_place
        self.files: dict[str, File] = {}
        self.steps = 0

    def file(self, path: str) -> File:
        return self.files.setdefault(path, File(path, in_place=self.in_place))

    def prepare(self, root: Path) -> None:
        """Make what it needs, once."""

    def step(self, root: Path) -> None:
        raise NotImplementedError

    def check(self, look: Look) -> None:
        """Everything is as was promised."""
        for file in self.files.values():
            file.check(look(file.path))

    def check_mounted(self, root: Path) -> None:
        """Likewise what only the mount tells."""

    def settle(self, look: Look) -> None:
        """Go on from what is there."""
        for path, file in list(self.files.items()):
            file.settle(look(path))
            if file.acked is None:
                del self.files[path]


class SmallFiles(Program):
    """Many new files, each removed again after a while."""

    def step(self, root: Path) -> None:
        self.steps += 1
        new = self.file(f"small-{self.steps}")
        content = f"content of {self.steps}\n".encode() * (self.steps % 7 + 1)
        with new.becoming(content):
            (root / new.path).write_bytes(content)
        old = self.files.get(f"small-{self.steps - 20}")
        if old is not None:
            with old.becoming(None):
                (root / old.path).unlink()


class Saver(Program):
    """An editor: in the cloud overwrites, on a disk (where that is not atomic) renames over."""

    def step(self, root: Path) -> None:
        self.steps += 1
        file = self.file("saved")
        content = f"version {self.steps} ".encode() * (500 + self.steps % 3)
        if not self.in_place:
            with file.becoming(content):
                (root / "saved").write_bytes(content)
            return
        new = self.file("saved.new")
        with new.becoming(content):
            (root / "saved.new").write_bytes(content)
        file.trying, new.trying = content, None
        file.attempts.append(content)
        os.rename(root / "saved.new", root / "saved")
        file.promised(content)
        new.promised(None)
        file.trying = new.trying = UNTRIED

    def check(self, look: Look) -> None:
        if "saved" in self.files:
            file = self.files["saved"]
            found = look("saved")
            # Never a part of it, also on a disk.
            assert found in (file.acked, file.trying), (_short(found), _short(file.acked), _short(file.trying))
        super().check(look)


class Appender(Program):
    """A log, opened for each line."""

    def step(self, root: Path) -> None:
        self.steps += 1
        file = self.file("log")
        line = f"line {self.steps}\n".encode()
        with file.becoming((file.acked or b"") + line):
            descriptor = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)


class Syncer(Program):
    """A log that stays open, with fsync after each line."""

    def step(self, root: Path) -> None:
        file = self.file("synced")
        descriptor = os.open(root / "synced", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            while True:
                self.steps += 1
                line = f"line {self.steps} and so on\n".encode()
                with file.becoming((file.acked or b"") + line):
                    os.write(descriptor, line)
                    os.fsync(descriptor)
        finally:
            os.close(descriptor)


class LargeFile(Program):
    """A large file from beginning to end, with one fsync in between."""

    SIZE, SYNCED = 12 * MIB, 9 * MIB

    def step(self, root: Path) -> None:
        self.steps += 1
        file = self.file("large")
        content = random.Random(self.steps).randbytes(MIB) * (self.SIZE // MIB)
        file.trying = content
        file.attempts = [content]
        descriptor = os.open(root / "large", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        if self.in_place:
            file.promised(b"")  # it was truncated
        try:
            for offset in range(0, self.SIZE, MIB):
                if offset == self.SYNCED:
                    os.fsync(descriptor)
                    file.promised(content[: self.SYNCED])
                os.write(descriptor, content[offset : offset + MIB])
        finally:
            os.close(descriptor)
        file.promised(content)
        file.trying = UNTRIED

    def check(self, look: Look) -> None:
        if "large" not in self.files:
            return
        file, found = self.files["large"], look("large")
        if isinstance(file.trying, bytes) and found == file.trying[: self.SYNCED]:
            return  # its fsync was under way
        if self.in_place and file.trying is not UNTRIED and found == b"":
            assert file.acked is None or len(file.acked) != self.SYNCED
            return  # its O_TRUNC was
        file.check(found)


class Labeller(Program):
    """setfattr in a loop, over ten files."""

    def __init__(self, in_place: bool) -> None:
        super().__init__(in_place)
        self.acked: dict[str, int] = {}
        self.trying: tuple[str, int] | None = None

    def prepare(self, root: Path) -> None:
        for number in range(10):
            (root / f"labelled-{number}").write_text(f"file {number}\n")
            self.acked[f"labelled-{number}"] = 0

    def step(self, root: Path) -> None:
        self.steps += 1
        path = f"labelled-{self.steps % 10}"
        self.trying = (path, self.steps)
        put(root / path, "tags.step", str(self.steps))
        if self.steps % 3 == 0:
            put(root / path, "labels", f"by-{self.steps % 2}")
        self.acked[path] = self.steps
        self.trying = None

    def check_mounted(self, root: Path) -> None:
        for path, acked in self.acked.items():
            found = int(get(root / path, "tags.step") or 0)
            allowed = {acked} | ({self.trying[1]} if self.trying and self.trying[0] == path else set())
            assert found in allowed, f"{path}: setfattr returned for {acked}, there is {found}, tried {self.trying}"
            assert (root / path).read_text() == f"file {path[-1]}\n"
            self.acked[path] = found
        self.trying = None


class Renamer(Program):
    """A file with metadata, and a folder, that go to and fro."""

    def __init__(self, in_place: bool) -> None:
        super().__init__(in_place)
        self.name, self.folder = "here", "folder-here"
        self.renaming_file = self.renaming_folder = False

    def prepare(self, root: Path) -> None:
        (root / "here").write_text("it moves\n")
        put(root / "here", "labels", "moving")
        (root / "folder-here").mkdir()
        for number in range(4):
            (root / "folder-here" / f"{number}").write_text(f"{number}")
            put(root / "folder-here" / f"{number}", "labels", "below")

    def step(self, root: Path) -> None:
        name, folder = _other(self.name), _other(self.folder)
        self.renaming_file = True
        os.rename(root / self.name, root / name)
        self.name, self.renaming_file = name, False
        self.renaming_folder = True
        os.rename(root / self.folder, root / folder)
        self.folder, self.renaming_folder = folder, False

    def check(self, look: Look) -> None:
        found = [name for name in ("here", "there") if look(name) is not None]
        assert len(found) == 1, f"the file that was renamed stands at {found}"
        if not self.renaming_file:
            assert found == [self.name]
        assert look(found[0]) == b"it moves\n"
        folders = {
            folder: [number for number in range(4) if look(f"{folder}/{number}") == str(number).encode()]
            for folder in ("folder-here", "folder-there")
        }
        whole = [folder for folder, numbers in folders.items() if numbers == [0, 1, 2, 3]]
        assert len(whole) == 1, f"the folder that was renamed: {folders}"
        assert not folders[_other(whole[0])], f"the folder that was renamed: {folders}"
        if not self.renaming_folder:
            assert whole == [self.folder]
        self.name, self.folder = found[0], whole[0]

    def check_mounted(self, root: Path) -> None:
        assert labels(root / self.name) == {"moving"}
        for number in range(4):
            assert labels(root / self.folder / f"{number}") == {"below"}
        self.renaming_file = self.renaming_folder = False


def _other(name: str) -> str:
    return name.replace("here", "there") if "there" not in name else name.replace("there", "here")


PROGRAMS: tuple[Callable[[bool], Program], ...] = (
    SmallFiles,
    Saver,
    Appender,
    Syncer,
    LargeFile,
    Labeller,
    Renamer,
)


class Running:
    """A program at work on a thread."""

    def __init__(self, program: Program, root: Path) -> None:
        self.failure: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(program, root), name=type(program).__name__)
        self._thread.start()

    def _run(self, program: Program, root: Path) -> None:
        try:
            while not self._stopped.is_set():
                program.step(root)
        except OSError as error:
            if error.errno not in GONE:
                self.failure = error
        except BaseException as error:
            self.failure = error

    def end(self) -> None:
        """Wait for its end; its mount is dead."""
        self._stopped.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"{self._thread.name} hangs in a dead mount"
        if self.failure is not None:
            raise AssertionError(f"{self._thread.name} failed before its mount was killed") from self.failure


# --- the test --------------------------------------------------------------------------------------------------------


def kill_under_load(mount: Mount, programs: list[Program], moment: float) -> None:
    """Let programs write, kill the daemon after `moment` seconds, and free the mount point."""
    pid = mount.pid()
    running = [Running(program, mount.point) for program in programs]
    process = os.pidfd_open(pid)
    try:
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        assert select.select([process], [], [], PATIENCE)[0]
    finally:
        os.close(process)
        failures = []
        for each in running:
            try:
                each.end()
            except AssertionError as error:
                failures.append(error)
        # Not before all have ended: what they did then would land in the mount point itself.
        lazy_unmount(mount.point)
    if failures:
        raise failures[0]
    assert os.listdir(mount.point) == []
    assert mount.left() == []


def check_recovered(mount: Mount, programs: list[Program]) -> None:
    """What is offered is what somebody wrote, as far as it came; then it is discarded."""
    attempts = {path: file.attempts for program in programs for path, file in program.files.items()}
    for entry in mount.recover():
        name = entry["name"].rpartition(".")[0]
        data = (mount.point / ".octuefs" / "recovered" / entry["name"]).read_bytes()
        if name in attempts:
            assert any(content.startswith(data) for content in attempts[name]), f"{entry}: {_short(data)}"
        (mount.point / ".octuefs" / "recovered" / entry["name"]).unlink()
    assert mount.recover() == []


def crash(mount: Mount, look_into_store: Look, kills: int, *, in_place: bool) -> None:
    """The whole of it, `kills` times, or as long as a soak takes."""
    seed = time.time_ns() if SOAK_MINUTES else 4
    print(f"seed {seed}")
    chance = random.Random(seed)
    programs = [make(in_place) for make in PROGRAMS]

    def look(path: str) -> Content:
        try:
            return (mount.point / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    mount.mount()
    for program in programs:
        program.prepare(mount.point)
    end = time.monotonic() + SOAK_MINUTES * 60
    number = 0
    while number < kills or time.monotonic() < end:
        number += 1
        kill_under_load(mount, programs, chance.uniform(0.01, LONGEST_LOAD))
        mount.mount()
        synced = mount.command("sync")
        # Also where something is in recovered/: what was open.
        assert synced.returncode == 0, f"kill {number}: {synced.stderr}"
        try:
            for program in programs:
                program.check(look)
                program.check_mounted(mount.point)
                program.check(look_into_store)
            check_recovered(mount, programs)
        except AssertionError as error:
            error.add_note(f"after kill {number} of seed {seed}; .octuefs/errors: {mount.errors()}")
            raise
        for program in programs:
            program.settle(look)
    mount.unmount()
    for program in programs:
        program.check(look_into_store)


@contextlib.contextmanager
def watched(document: Path) -> Iterator[None]:
    """Within, a `.octue` is read all the time, and is JSON each time."""
    stop = threading.Event()
    torn: list[str] = []
    seen = set()

    def watch() -> None:
        while not stop.wait(0.001):
            with contextlib.suppress(FileNotFoundError):
                text = document.read_text()
                seen.add(text)
                try:
                    json.loads(text)
                except ValueError:
                    torn.append(text)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert torn == []
    assert len(seen) > 3, "it was hardly ever written"


@pytest.mark.timeout(600 + SOAK_MINUTES * 120)
def test_a_local_mount_keeps_its_promises_over_crashes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()

    def look(path: str) -> Content:
        try:
            return (source / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    with remountable(source, now=False) as mount, watched(source / ".octue"):
        crash(mount, look, KILLS, in_place=True)
    documents = list(source.rglob(".octue"))
    assert documents
    for document in documents:
        json.loads(document.read_text())
    left = [path for path in source.rglob("*") if path.name.startswith((".octuefs-", ".fuse_hidden"))]
    assert left == []


@pytest.mark.timeout(600 + SOAK_MINUTES * 120)
@pytest.mark.parametrize("mode", ["default", "write-back"])
def test_a_cloud_mount_keeps_its_promises_over_crashes(mode: str, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    options = ["--write-back"] if mode == "write-back" else []
    bucket.put("data/.octue", b"{}")

    def names() -> set[str]:
        return {item["name"].removeprefix("data/") for item in bucket.list("data/")}

    def look(path: str) -> Content:
        try:
            return bucket.get(f"data/{path}")
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    with remountable(f"{bucket.url}/data", *options, environment=strict_gcs.environment, now=False) as mount:
        crash(mount, look, KILLS, in_place=False)
        assert [name for name in names() if ".octuefs-" in name or ".fuse_hidden" in name] == []


@pytest.mark.parametrize("kind", ["local", "cloud"])
def test_what_was_open_and_never_closed_is_offered_and_not_stored(
    kind: str, tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"stored")
    bucket.put("data/a", b"stored")
    url = str(source) if kind == "local" else f"{bucket.url}/data"
    with remountable(url, environment=strict_gcs.environment) as mount:
        descriptor = os.open(mount.point / "a", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, b" and more")
            time.sleep(0.5)  # its name is noted soon, before that the bytes alone are offered
            mount.kill(mount.pid())
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        mount.mount()
        if kind == "local":
            # It was written into the source itself.
            assert (source / "a").read_bytes() == b"stored and more"
            assert mount.recovered() == {}
            return
        assert bucket.get("data/a") == b"stored"
        assert (mount.point / "a").read_bytes() == b"stored"
        assert mount.recovered_of("a") == [b"stored and more"]
        (entry,) = mount.recover()
        assert mount.command("recover", "--restore", entry["name"]).returncode == 0
        wait_until(lambda: (mount.point / "a").read_bytes() == b"stored and more")
        assert mount.command("sync").returncode == 0
        assert bucket.get("data/a") == b"stored and more"
        assert mount.recovered() == {}


def test_the_resumable_upload_of_a_daemon_that_died_is_cancelled(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        descriptor = os.open(mount.point / "large", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            for _ in range(20):
                os.write(descriptor, bytes(MIB))
            wait_until(lambda: strict_gcs.count(kind="start") == 1)
            wait_until(lambda: any(it.kind == "send" and it.status == 308 for it in strict_gcs.requests))
            mount.kill(mount.pid())
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        assert strict_gcs.count(kind="cancel") == 0
        mount.mount()
        wait_until(lambda: strict_gcs.count(kind="cancel") == 1, say=str([it.kind for it in strict_gcs.requests]))
        assert [len(data) for data in mount.recovered_of("large")] == [20 * MIB]
        assert bucket.list("data/large") == []


def test_a_crash_of_the_machine_that_left_a_dead_mount_is_mended_by_the_next(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("a")
    with remountable(source) as mount:
        for number in range(5):
            put(mount.point / "a", "labels", f"n{number}")
            mount.kill(mount.pid())
            mount.mount()
            assert labels(mount.point / "a") == {f"n{number}"}
        mount.unmount()
        stored = json.loads((source / ".octue").read_text())["datafiles"]["a"]
        assert stored["labels"] == {"_type": "set", "items": ["n4"]}
