"""`--write-back`: close returns once a file is durable on this machine, and the bucket gets it behind."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from model.mounts import Mount, get, labels, put, remountable, wait_until
from mount.writing import fails_with

from support.gcs import Bucket
from support.strict_gcs import Held, Request, StrictGcs

MIB = 1 << 20


def is_upload(request: Request) -> bool:
    return request.kind in ("upload", "start", "send")


@contextlib.contextmanager
def at_work(what: Callable[[], object]) -> Iterator[threading.Thread]:
    """Do something on a thread meanwhile; what it raises is raised at the end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            what()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
    assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]


class Behind:
    """A dataset mounted with --write-back, and its bucket."""

    def __init__(self, mount: Mount, bucket: Bucket, gcs: StrictGcs) -> None:
        self.mount, self.bucket, self.gcs = mount, bucket, gcs

    @property
    def root(self) -> Path:
        return self.mount.point

    def hold(self) -> Held:
        """Nothing more gets into the bucket until this is released."""
        return self.gcs.hold(is_upload, times=None)

    def stored(self) -> dict[str, bytes]:
        """The files in the bucket."""
        names = [item["name"] for item in self.bucket.list("data/")]
        return {name.removeprefix("data/"): self.bucket.get(name) for name in names if not name.endswith("/")}

    def pending(self) -> int:
        return int(self.mount.status()["writing"]["pending_files"])

    def sync_of(self, name: str) -> str | None:
        return get(self.root / name, "sync")

    def sync(self) -> None:
        result = self.mount.command("sync")
        assert result.returncode == 0, result.stderr


@pytest.fixture
def behind(bucket: Bucket, strict_gcs: StrictGcs) -> Iterator[Behind]:
    bucket.put("data/old", b"old content", {"octue__labels": '["old"]'})
    options = ("--write-back",)
    with remountable(f"{bucket.url}/data", *options, environment=strict_gcs.environment) as mount:
        try:
            yield Behind(mount, bucket, strict_gcs)
        finally:
            strict_gcs.clear()


# --- closing and waiting ---------------------------------------------------------------------------------------------


def test_close_returns_before_the_upload_and_everything_tells_that_it_is_pending(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "new").write_bytes(b"new content")
    assert held.arrived.wait(10)
    assert behind.stored() == {"old": b"old content"}
    assert behind.sync_of("new") == "pending"
    assert behind.sync_of("old") == "clean"
    assert behind.pending() == 1
    held.release()
    behind.sync()
    assert behind.stored()["new"] == b"new content"
    assert behind.sync_of("new") == "clean"
    assert behind.pending() == 0
    assert behind.mount.errors() == ""


def test_without_write_back_close_waits_for_the_bucket(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/old", b"old content")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        held = strict_gcs.hold(is_upload, times=None)
        with at_work(lambda: (mount.point / "new").write_bytes(b"new")) as writing:
            assert held.arrived.wait(10)
            assert writing.is_alive()
            held.release()
        assert bucket.get("data/new") == b"new"
        assert get(mount.point / "new", "sync") == "clean"


def test_sync_waits_until_everything_is_stored(behind: Behind) -> None:
    held = behind.hold()
    for number in range(20):
        (behind.root / f"f{number}").write_text(f"{number}")
    assert held.arrived.wait(10)
    ended: list[subprocess.CompletedProcess[str]] = []
    with at_work(lambda: ended.append(behind.mount.command("sync"))) as syncing:
        syncing.join(1)
        assert syncing.is_alive()
        held.release()
    assert (ended[0].returncode, ended[0].stdout) == (0, "everything is stored\n")
    assert len(behind.stored()) == 21


def test_fsync_waits_for_the_bucket(behind: Behind) -> None:
    held = behind.hold()
    with (behind.root / "new").open("wb") as file:
        file.write(b"one ")
        file.flush()
        with at_work(lambda: os.fsync(file.fileno())) as syncing:
            assert held.arrived.wait(10)
            assert syncing.is_alive()
            held.release()
        assert behind.stored()["new"] == b"one "
        behind.gcs.clear()
        file.write(b"two")
    behind.sync()
    assert behind.stored()["new"] == b"one two"


def test_fsync_of_a_file_that_was_closed_before_waits_for_the_bucket(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "new").write_bytes(b"content")
    assert held.arrived.wait(10)
    with (behind.root / "new").open("r+b") as file, at_work(lambda: os.fsync(file.fileno())) as syncing:
        syncing.join(0.3)
        assert syncing.is_alive()
        held.release()
    assert behind.stored()["new"] == b"content"


def test_uploads_run_in_parallel(behind: Behind) -> None:
    held = behind.hold()
    for number in range(8):
        (behind.root / f"f{number}").write_text(f"{number}")
    wait_until(lambda: behind.gcs.count(kind="upload") >= 4, say="not more than three uploads are under way")
    held.release()
    behind.sync()
    assert behind.gcs.count(kind="upload") == 8


def test_a_large_file_is_pending_too(behind: Behind) -> None:
    data = os.urandom(MIB) * 20
    held = behind.hold()
    (behind.root / "large").write_bytes(data)
    assert behind.sync_of("large") == "pending"
    assert behind.mount.status()["writing"]["pending_bytes"] == len(data)
    assert (behind.root / "large").read_bytes() == data
    held.release()
    behind.sync()
    assert behind.stored()["large"] == data


# --- while it is pending ---------------------------------------------------------------------------------------------


def test_what_is_pending_is_read_back_and_shows_everywhere(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "old").write_bytes(b"rewritten")
    (behind.root / "new.csv").write_bytes(b"1,2\n")
    assert held.arrived.wait(10)
    assert (behind.root / "old").read_bytes() == b"rewritten"
    assert (behind.root / "old").stat().st_size == 9
    assert labels(behind.root / "old") == {"old"}
    assert (behind.root / "by-ext" / "csv" / "new.csv").read_bytes() == b"1,2\n"
    assert (behind.root / "by-label" / "old" / "old").read_bytes() == b"rewritten"
    # A look at the bucket, which has not got it, hides nothing.
    behind.mount.refresh()
    assert sorted(os.listdir(behind.root)) == [".octue", "new.csv", "old"]
    assert (behind.root / "old").read_bytes() == b"rewritten"
    held.release()
    behind.sync()
    assert behind.stored() == {"old": b"rewritten", "new.csv": b"1,2\n"}


def test_a_rewrite_while_it_is_pending_stores_the_last_version(behind: Behind) -> None:
    held = behind.hold()
    for number in range(10):
        (behind.root / "old").write_text(f"version {number}")
        assert (behind.root / "old").read_text() == f"version {number}"
    held.release()
    behind.sync()
    assert behind.stored() == {"old": b"version 9"}
    assert labels(behind.root / "old") == {"old"}
    # The versions in between were never asked for.
    assert behind.gcs.count(kind="upload") <= 3
    assert behind.mount.recovered() == {}


def test_an_append_while_it_is_pending_is_stored_with_it(behind: Behind) -> None:
    held = behind.hold()
    for number in range(5):
        with (behind.root / "log").open("a") as file:
            file.write(f"line {number}\n")
    held.release()
    behind.sync()
    assert behind.stored()["log"] == b"".join(b"line %d\n" % number for number in range(5))


def test_a_rename_while_it_is_pending_stores_it_under_its_new_name(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "new").write_bytes(b"new content")
    put(behind.root / "new", "labels", "x")
    with at_work(lambda: os.rename(behind.root / "new", behind.root / "renamed")) as renaming:
        renaming.join(0.3)
        held.release()
    assert (behind.root / "renamed").read_bytes() == b"new content"
    assert not (behind.root / "new").exists()
    behind.sync()
    assert behind.stored() == {"old": b"old content", "renamed": b"new content"}
    assert labels(behind.root / "renamed") == {"x"}


def test_a_rename_of_its_folder_while_it_is_pending_takes_it_along(behind: Behind) -> None:
    (behind.root / "d").mkdir()
    held = behind.hold()
    (behind.root / "d" / "new").write_bytes(b"new content")
    with at_work(lambda: os.rename(behind.root / "d", behind.root / "e")) as renaming:
        renaming.join(0.3)
        held.release()
    behind.sync()
    assert behind.stored() == {"old": b"old content", "e/new": b"new content"}


def test_what_is_removed_while_it_is_pending_is_not_in_the_bucket_afterwards(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "new").write_bytes(b"new content")
    (behind.root / "old").write_bytes(b"rewritten")
    assert held.arrived.wait(10)

    def remove() -> None:
        (behind.root / "new").unlink()
        (behind.root / "old").unlink()

    with at_work(remove) as removing:
        removing.join(0.3)
        held.release()
    assert os.listdir(behind.root) == []
    behind.sync()
    assert behind.stored() == {}
    assert behind.mount.recovered() == {}


def test_metadata_set_while_it_is_pending_are_stored_with_it(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "new").write_bytes(b"new content")
    put(behind.root / "new", "labels", "x")
    put(behind.root / "new", "tags.k", "1")
    assert labels(behind.root / "new") == {"x"}
    held.release()
    behind.sync()
    stored = behind.bucket.stat("data/new")["metadata"]
    assert json.loads(stored["octue__labels"]) == {"_type": "set", "items": ["x"]}
    assert json.loads(stored["octue__tags"]) == {"k": 1}


# --- the end of a mount ----------------------------------------------------------------------------------------------


def test_unmount_waits_for_the_uploads(behind: Behind) -> None:
    held = behind.hold()
    for number in range(10):
        (behind.root / f"f{number}").write_text(f"{number}")
    assert held.arrived.wait(10)
    with at_work(behind.mount.unmount) as unmounting:
        unmounting.join(1)
        assert unmounting.is_alive()
        held.release()
    assert len(behind.stored()) == 11
    assert behind.mount.left() == []


def test_unmount_by_force_leaves_it_in_the_journal_and_the_next_mount_stores_it(behind: Behind) -> None:
    down = behind.gcs.drop(is_upload, times=None)
    (behind.root / "new").write_bytes(b"new content")
    put(behind.root / "new", "labels", "x")
    (behind.root / "old").write_bytes(b"rewritten")
    wait_until(lambda: down.hits)
    result = behind.mount.command("unmount", "--force")
    assert result.returncode == 0, result.stderr
    assert behind.mount.left() == []
    behind.gcs.clear()
    assert behind.stored() == {"old": b"old content"}
    behind.mount.mount()
    assert (behind.root / "new").read_bytes() == b"new content"
    assert (behind.root / "old").read_bytes() == b"rewritten"
    behind.sync()
    assert behind.stored() == {"new": b"new content", "old": b"rewritten"}
    assert labels(behind.root / "new") == {"x"}
    assert labels(behind.root / "old") == {"old"}
    assert behind.mount.recovered() == {}


def test_a_read_only_mount_leaves_the_journal_alone_and_says_so(behind: Behind) -> None:
    behind.gcs.drop(is_upload, times=None)
    (behind.root / "new").write_bytes(b"new content")
    assert behind.mount.command("unmount", "--force").returncode == 0
    behind.gcs.clear()
    behind.gcs.forget_requests()
    url = f"{behind.bucket.url}/data"
    with remountable(url, "--read-only", environment=behind.gcs.environment, now=False) as reading:
        assert ".octuefs/errors" in reading.mount()
        assert "without --read-only" in reading.errors()
        assert os.listdir(reading.point) == [".octue", "old"]
    assert behind.stored() == {"old": b"old content"}
    assert [it for it in behind.gcs.requests if it.method != "GET"] == []
    behind.mount.mount()
    behind.sync()
    assert behind.stored()["new"] == b"new content"


def test_unmount_says_what_is_left_when_the_bucket_cannot_be_reached(behind: Behind) -> None:
    behind.gcs.fail(403, is_upload, times=None)
    (behind.root / "new").write_bytes(b"new content")
    result = behind.mount.command("unmount")
    assert behind.mount.left() == []
    behind.gcs.clear()
    assert behind.stored() == {"old": b"old content"}
    # Whichever way it is kept, it is told and it is there.
    said = behind.mount.mount()
    kept = behind.mount.recovered_of("new")
    if kept:
        assert kept == [b"new content"]
    else:
        behind.sync()
        assert behind.stored()["new"] == b"new content"
        assert result.returncode == 1, said
        assert "1 file" in result.stderr


def test_a_mount_without_write_back_stores_what_one_with_it_left(behind: Behind) -> None:
    behind.gcs.drop(is_upload, times=None)
    (behind.root / "new").write_bytes(b"new content")
    assert behind.mount.command("unmount", "--force").returncode == 0
    behind.gcs.clear()
    with remountable(f"{behind.bucket.url}/data", environment=behind.gcs.environment) as mount:
        assert (mount.point / "new").read_bytes() == b"new content"
        assert mount.command("sync").returncode == 0
        assert behind.stored()["new"] == b"new content"


# --- failures behind -------------------------------------------------------------------------------------------------


def test_a_network_that_was_down_for_a_while_delays_and_loses_nothing(behind: Behind) -> None:
    down = behind.gcs.drop(is_upload, times=None)
    for number in range(5):
        (behind.root / f"f{number}").write_text(f"{number}")
    wait_until(lambda: down.hits >= 5)
    assert behind.stored() == {"old": b"old content"}
    assert all((behind.root / f"f{number}").read_text() == f"{number}" for number in range(5))
    assert all(behind.sync_of(f"f{number}") != "clean" for number in range(5))
    down.remove()
    behind.sync()
    assert len(behind.stored()) == 6
    assert behind.sync_of("f0") == "clean"
    assert behind.mount.recovered() == {}


def test_what_another_stored_meanwhile_stays_and_ours_is_kept_and_told(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "old").write_bytes(b"ours")
    assert held.arrived.wait(10)
    behind.bucket.put("data/old", b"theirs")
    held.release()
    wait_until(lambda: behind.mount.recovered_of("old") == [b"ours"])
    assert behind.bucket.get("data/old") == b"theirs"
    assert "old" in behind.mount.errors()
    wait_until(lambda: (behind.sync_of("old") or "").startswith("failed: "))
    # Who opens it next is told, once.
    with fails_with(errno.ESTALE):
        (behind.root / "old").read_bytes()
    wait_until(lambda: (behind.root / "old").read_bytes() == b"theirs")


def test_a_failure_behind_is_told_at_the_next_fsync(behind: Behind) -> None:
    held = behind.hold()
    reader = os.open(behind.root / "old", os.O_RDWR)
    try:
        (behind.root / "old").write_bytes(b"ours")
        assert held.arrived.wait(10)
        behind.bucket.put("data/old", b"theirs")
        held.release()
        wait_until(lambda: behind.mount.recovered_of("old") == [b"ours"])
        with fails_with(errno.ESTALE):
            os.fsync(reader)
    finally:
        with contextlib.suppress(OSError):  # told once more, maybe
            os.close(reader)
    assert behind.bucket.get("data/old") == b"theirs"


def test_sync_says_what_failed_and_ends_with_1(behind: Behind) -> None:
    held = behind.hold()
    (behind.root / "old").write_bytes(b"ours")
    assert held.arrived.wait(10)
    behind.bucket.put("data/old", b"theirs")
    held.release()
    result = behind.mount.command("sync")
    assert result.returncode == 1
    assert "old: " in result.stderr
    assert "recover" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bucket_that_refuses_is_told_and_what_was_written_is_kept(behind: Behind) -> None:
    refusal = behind.gcs.fail(403, is_upload, times=None)
    (behind.root / "old").write_bytes(b"ours")
    (behind.root / "new").write_bytes(b"ours, new")
    wait_until(lambda: (behind.sync_of("old") or "").startswith("failed: "))
    wait_until(lambda: behind.mount.recovered_of("new") == [b"ours, new"])
    assert behind.mount.recovered_of("old") == [b"ours"]
    for name in ("old", "new"):
        wait_until(lambda name=name: f"/{name}:" in behind.mount.errors())
    refusal.remove()
    for entry in behind.mount.recover():
        assert behind.mount.command("recover", "--restore", entry["name"]).returncode == 0
    behind.sync()
    assert behind.stored() == {"old": b"ours", "new": b"ours, new"}
    assert labels(behind.root / "old") == {"old"}


# --- amounts ---------------------------------------------------------------------------------------------------------


def test_a_tree_copied_with_write_back_is_complete_after_sync(behind: Behind, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    for number in range(150):
        path = source / f"d{number % 7}" / f"f{number}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * number)
    shutil.copytree(source, behind.root / "tree")
    behind.sync()
    stored = behind.stored()
    for path in source.rglob("*.csv"):
        assert stored[f"tree/{path.relative_to(source)}"] == path.read_bytes()
    assert behind.mount.errors() == ""


def test_a_crash_while_much_is_pending_loses_nothing(behind: Behind) -> None:
    held = behind.hold()
    for number in range(60):
        (behind.root / f"f{number}").write_text(f"content {number}")
    assert held.arrived.wait(10)
    behind.mount.kill(behind.mount.pid())
    behind.gcs.clear()
    behind.mount.mount()
    assert {(behind.root / f"f{n}").read_text() for n in range(60)} == {f"content {n}" for n in range(60)}
    behind.sync()
    stored = behind.stored()
    assert {stored[f"f{n}"] for n in range(60)} == {b"content %d" % n for n in range(60)}
    assert behind.mount.recovered() == {}


def test_a_version_that_was_stored_but_not_answered_before_a_crash_is_not_anothers(behind: Behind) -> None:
    # The bucket has the second version, of which nobody knows; the third was closed, and is the one to be there.
    held = behind.gcs.hold(lambda it: it.kind == "upload", after_effect=True)
    with (behind.root / "old").open("a") as file:
        file.write(", second")
    assert held.arrived.wait(10)
    with (behind.root / "old").open("a") as file:
        file.write(", third")
    assert behind.stored() == {"old": b"old content, second"}
    behind.mount.kill(behind.mount.pid())
    behind.gcs.clear()
    behind.mount.mount()
    assert (behind.root / "old").read_bytes() == b"old content, second, third"
    behind.sync()
    assert behind.stored() == {"old": b"old content, second, third"}
    assert behind.mount.recovered() == {}
