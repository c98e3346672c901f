"""A bucket that is mounted again shows at once what was known of it, and soon what has changed since."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from model.mounts import Mount, get, labels, remountable, wait_until

from support.gcs import Bucket
from support.mounting import DRIVERS
from support.strict_gcs import Held, Request, StrictGcs

by_each_driver = pytest.mark.parametrize("driver", DRIVERS)


def is_listing(request: Request) -> bool:
    """Whether all of the bucket is listed, and not only whether it can be."""
    return request.kind == "list" and request.query.get("maxResults") != "1" and "delimiter" not in request.query


def label(name: str) -> dict[str, str]:
    return {"octue__labels": json.dumps([name])}


@pytest.fixture
def driver() -> str:
    return DRIVERS[0]


@pytest.fixture
def mount(bucket: Bucket, strict_gcs: StrictGcs, driver: str) -> Iterator[Mount]:
    """What was mounted once, and is not now."""
    bucket.put("d/.octue", b'{"dataset": {"name": "The farm"}}')
    bucket.put("d/a.txt", b"old", label("one"))
    bucket.put("d/gone.txt", b"gone")
    bucket.put("d/sub/b.txt", b"b", label("two"))
    source, environment = f"{bucket.url}/d", strict_gcs.environment
    with remountable(source, "--driver", driver, environment=environment) as it:
        assert sorted(os.listdir(it.point)) == [".octue", "a.txt", "gone.txt", "sub"]
        it.unmount()
        strict_gcs.forget_requests()
        yield it
        strict_gcs.clear()


@pytest.fixture
def held(mount: Mount, strict_gcs: StrictGcs) -> Held:
    """The listings of the next mount, which wait."""
    return strict_gcs.hold(is_listing, times=None)


@by_each_driver
def test_a_remount_shows_all_that_was_known_with_one_request_and_no_listing_waited_for(
    mount: Mount, held: Held, strict_gcs: StrictGcs
) -> None:
    printed = mount.mount()
    assert "3 files" in printed
    root = mount.point
    assert sorted(os.listdir(root)) == [".octue", "a.txt", "gone.txt", "sub"]
    assert "sub" in os.listdir(root / "by-label" / "two")
    assert (root / "a.txt").stat().st_size == 3
    assert get(root, "name") == "The farm"
    assert labels(root / "sub" / "b.txt") == {"two"}
    assert [it.kind for it in strict_gcs.requests if not is_listing(it)] in ([], ["list"])  # the check
    held.release()


@by_each_driver
def test_an_open_of_what_has_changed_since_gives_what_stands_there_now(
    mount: Mount, held: Held, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    bucket.put("d/a.txt", b"new bytes", label("one"))
    bucket.put("d/new.txt", b"was not there")
    bucket.delete("d/gone.txt")
    mount.mount()
    root = mount.point
    strict_gcs.forget_requests()
    assert (root / "a.txt").read_bytes() == b"new bytes"
    assert (root / "a.txt").read_bytes() == b"new bytes"
    assert strict_gcs.count(kind="get") == 1
    assert (root / "new.txt").read_bytes() == b"was not there"
    with pytest.raises(FileNotFoundError):
        (root / "gone.txt").read_bytes()
    strict_gcs.forget_requests()
    for _ in range(3):
        assert not (root / "none.txt").exists()
        assert not (root / "by-label" / "none").exists()
    assert [it.kind for it in strict_gcs.requests if not is_listing(it)] == ["get", "list"]
    assert not mount.status()["confirmed"]
    held.release()
    wait_until(lambda: mount.status()["confirmed"])
    assert sorted(os.listdir(root)) == [".octue", "a.txt", "new.txt", "sub"]
    strict_gcs.forget_requests()
    assert not (root / "other.txt").exists()
    assert strict_gcs.requests == []


@by_each_driver
def test_what_has_changed_shows_once_the_bucket_has_been_read(
    mount: Mount, held: Held, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    bucket.put("d/a.txt", b"new bytes", label("three"))
    bucket.put("d/sub/deep/new.txt", b"1")
    bucket.delete("d/gone.txt")
    bucket.put("d/.octue", b'{"dataset": {"name": "The mast"}}')
    mount.mount()
    root = mount.point
    assert (root / "a.txt").stat().st_size == 3
    assert sorted(os.listdir(root / "sub")) == [".octue", "b.txt"]
    held.release()
    wait_until(lambda: (root / "sub" / "deep" / "new.txt").exists())
    wait_until(lambda: not (root / "gone.txt").exists())
    wait_until(lambda: (root / "a.txt").stat().st_size == 9)
    assert sorted(os.listdir(root / "by-label")) == ["three", "two"]
    assert get(root, "name") == "The mast"
    assert json.loads((root / ".octue").read_text())["dataset"]["name"] == "The mast"


def test_what_was_written_shows_in_the_next_mount_before_the_bucket_is_listed(
    mount: Mount, strict_gcs: StrictGcs
) -> None:
    mount.mount()
    root = mount.point
    (root / "made.txt").write_text("made")
    os.setxattr(root / "a.txt", "user.octue.labels", b"written")
    (root / "gone.txt").unlink()
    (root / "folder").mkdir()
    os.rename(root / "sub" / "b.txt", root / "moved.txt")
    mount.unmount()
    held = strict_gcs.hold(is_listing, times=None)
    mount.mount()
    assert sorted(os.listdir(root)) == [".octue", "a.txt", "folder", "made.txt", "moved.txt", "sub"]
    assert labels(root / "a.txt") == {"written"}
    assert (root / "made.txt").stat().st_size == 4
    held.release()


def test_a_daemon_that_was_killed_while_it_wrote_leaves_no_older_facts(mount: Mount, bucket: Bucket) -> None:
    mount.mount()
    root = mount.point
    (root / "made.txt").write_text("made")
    (root / "gone.txt").unlink()
    mount.kill(mount.pid())
    mount.mount()
    assert sorted(os.listdir(root)) == [".octue", "a.txt", "made.txt", "sub"]
    with pytest.raises(FileNotFoundError):
        (root / "gone.txt").stat()


def test_a_daemon_that_was_killed_and_only_read_leaves_what_is_known(mount: Mount, strict_gcs: StrictGcs) -> None:
    mount.mount()
    mount.kill(mount.pid())
    held = strict_gcs.hold(is_listing, times=None)
    mount.mount()
    assert sorted(os.listdir(mount.point)) == [".octue", "a.txt", "gone.txt", "sub"]
    held.release()


def test_a_damaged_file_of_facts_is_no_harm(mount: Mount) -> None:
    for file in facts_files():
        file.write_bytes(b"this is no database" * 1000)
    mount.mount()
    assert sorted(os.listdir(mount.point)) == [".octue", "a.txt", "gone.txt", "sub"]


def facts_files() -> list[Path]:
    """The files of facts of this run."""
    cache = Path(os.environ["OCTUEFS_TESTS_RUN"], "user", "cache", "octuefs")
    assert oct((cache / "facts").stat().st_mode & 0o777) == "0o700"
    return list((cache / "facts").glob("*.sqlite"))


def test_a_bucket_that_cannot_be_reached_cannot_be_mounted_be_it_known_or_not(
    mount: Mount, strict_gcs: StrictGcs
) -> None:
    strict_gcs.fail(403, lambda request: request.kind == "list", times=None)
    with pytest.raises(Exception, match="ended with"):
        mount.mount()


def test_a_file_that_is_written_before_the_bucket_has_been_read_never_overwrites_what_others_stored(
    mount: Mount, held: Held, bucket: Bucket
) -> None:
    bucket.put("d/a.txt", b"theirs")
    bucket.put("d/new.txt", b"theirs")
    mount.mount()
    root = mount.point
    with (root / "a.txt").open("ab") as file:
        file.write(b" and ours")
    assert bucket.get("d/a.txt") == b"theirs and ours"
    with pytest.raises(FileExistsError):
        os.close(os.open(root / "new.txt", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    assert bucket.get("d/new.txt") == b"theirs"
    held.release()


def test_two_mounts_share_what_is_known(mount: Mount, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    mount.mount()
    with remountable(mount.source, environment=strict_gcs.environment) as other:
        (other.point / "theirs.txt").write_text("1")
        (mount.point / "ours.txt").write_text("2")
        other.unmount()
        mount.unmount()
    held = strict_gcs.hold(is_listing, times=None)
    mount.mount()
    names = [".octue", "a.txt", "gone.txt", "ours.txt", "sub", "theirs.txt"]
    assert sorted(os.listdir(mount.point)) == names
    held.release()
