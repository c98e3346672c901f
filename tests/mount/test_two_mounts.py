"""Two mounts of one folder or of one bucket path, and other writers of a bucket: no metadata lost, no data overwritten.

The cloud goes through the strict front: a request whose answer was lost and that is tried again is no conflict.
"""

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from model.mounts import Mount, get, labels, put, remountable, wait_until
from mount.writing import fails_with

from support.gcs import Bucket
from support.strict_gcs import Request, StrictGcs

MIB = 1 << 20
LARGE = 9 * MIB
"""Beyond what goes in one request."""


class Place:
    """A dataset, mounted twice."""

    def __init__(self, first: Mount, second: Mount, folder: Path | None, bucket: Bucket) -> None:
        self.first, self.second = first, second
        self._folder = folder
        self._bucket = bucket

    @property
    def roots(self) -> tuple[Path, Path]:
        return self.first.point, self.second.point

    def refresh(self) -> None:
        self.first.refresh()
        self.second.refresh()

    def stored_records(self) -> dict[str, dict[str, Any]]:
        """The metadata in the store, by name."""
        if self._folder is not None:
            return json.loads((self._folder / ".octue").read_text())["datafiles"]
        return {
            item["name"].removeprefix("data/"): {
                key.removeprefix("octue__"): json.loads(text) for key, text in item.get("metadata", {}).items()
            }
            for item in self._bucket.list("data/")
        }


@contextlib.contextmanager
def mounted_twice(kind: str, tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs, files: int) -> Iterator[Place]:
    source = tmp_path / "source"
    source.mkdir()
    if kind == "local":
        for number in range(files):
            (source / f"f{number}").write_text(f"{number}")
        url, folder = str(source), source
    else:
        for number in range(files):
            bucket.put(f"data/f{number}", f"{number}".encode())
        url, folder = f"{bucket.url}/data", None
    environment = strict_gcs.environment
    with remountable(url, environment=environment) as first, remountable(url, environment=environment) as second:
        yield Place(first, second, folder, bucket)


# --- metadata from both sides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "cloud"])
def test_labels_set_through_both_at_once_are_all_there(
    kind: str, tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    count = 60
    with mounted_twice(kind, tmp_path, bucket, strict_gcs, count) as place:

        def label(number: int) -> None:
            put(place.roots[number % 2] / f"f{number}", "labels", f"n{number}")

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(label, range(count)))
        place.refresh()
        for root in place.roots:
            wait_until(lambda root=root: all(labels(root / f"f{n}") == {f"n{n}"} for n in range(count)))
        place.first.unmount()
        place.second.unmount()
        stored = place.stored_records()
        assert {name: it["labels"]["items"] for name, it in stored.items()} == {
            f"f{n}": [f"n{n}"] for n in range(count)
        }


@pytest.mark.parametrize("kind", ["local", "cloud"])
def test_different_fields_of_one_file_set_through_both_at_once_are_all_there(
    kind: str, tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    rounds = 12
    with mounted_twice(kind, tmp_path, bucket, strict_gcs, 1) as place:

        def set_from(side: int) -> None:
            for number in range(rounds):
                put(place.roots[side] / "f0", f"tags.side{side}_{number}", str(number))
            put(place.roots[side] / "f0", *[("labels", "one two"), ("timestamp", "2024-01-02T03:04:05")][side])

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(set_from, (0, 1)))
        tags = {f"side{side}_{number}": number for side in (0, 1) for number in range(rounds)}
        place.refresh()
        for root in place.roots:
            wait_until(lambda root=root: json.loads(get(root / "f0", "tags") or "{}") == tags)
            wait_until(lambda root=root: labels(root / "f0") == {"one", "two"})
            wait_until(lambda root=root: get(root / "f0", "timestamp") == "2024-01-02T03:04:05")
            assert get(root / "f0", "id") == get(place.roots[0] / "f0", "id")
        place.first.unmount()
        place.second.unmount()
        (record,) = place.stored_records().values()
        assert record["tags"] == tags
        assert record["labels"] == {"_type": "set", "items": ["one", "two"]}
        assert record["timestamp"] == {"_type": "datetime", "value": "2024-01-02T03:04:05"}


@pytest.mark.parametrize("kind", ["local", "cloud"])
def test_metadata_of_files_that_both_make_and_rename_at_once_are_all_there(
    kind: str, tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    with mounted_twice(kind, tmp_path, bucket, strict_gcs, 1) as place:

        def work(side: int) -> None:
            root = place.roots[side]
            for number in range(15):
                (root / f"new{side}-{number}").write_text(f"{side} {number}")
                put(root / f"new{side}-{number}", "labels", f"s{side}-n{number}")
                os.rename(root / f"new{side}-{number}", root / f"renamed{side}-{number}")

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(work, (0, 1)))
        place.first.unmount()
        place.second.unmount()
        stored = place.stored_records()
        for side in (0, 1):
            for number in range(15):
                record = stored[f"renamed{side}-{number}"]
                assert record["labels"]["items"] == [f"s{side}-n{number}"]
        assert not [name for name in stored if name.startswith("new")]


def test_a_local_octue_rewritten_by_the_sdk_between_bursts_loses_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"f{number}").write_text("x")
    with remountable(source) as mount:
        for number in range(10):
            put(mount.point / f"f{number}", "labels", "ours")
        # Before the burst is over another program stores what it knows: of its own files alone.
        document = {"datafiles": {f"f{n}": {"labels": {"_type": "set", "items": ["theirs"]}} for n in range(10, 20)}}
        (source / ".octue.new").write_text(json.dumps(document))
        (source / ".octue.new").rename(source / ".octue")
        wait_until(lambda: labels(mount.point / "f15") == {"theirs"})
        mount.unmount()
    stored = json.loads((source / ".octue").read_text())["datafiles"]
    assert {name: it["labels"]["items"] for name, it in stored.items()} == {
        f"f{n}": ["ours" if n < 10 else "theirs"] for n in range(20)
    }


# --- data: who is first wins -----------------------------------------------------------------------------------------


def test_the_second_of_two_writers_is_told_and_what_it_wrote_is_kept(
    tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    with mounted_twice("cloud", tmp_path, bucket, strict_gcs, 1) as place:
        winner, loser = place.roots
        with (winner / "f0").open("wb", buffering=0) as one, (loser / "f0").open("wb", buffering=0) as two:
            one.write(b"of the first")
            two.write(b"of the second")
            one.close()
            descriptor = os.dup(two.fileno())
            with fails_with(errno.ESTALE):
                os.close(descriptor)
            with contextlib.suppress(OSError):
                two.close()
        assert bucket.get("data/f0") == b"of the first"
        assert place.second.recovered_of("f0") == [b"of the second"]
        assert place.first.recovered() == {}
        assert "f0" in place.second.errors()
        wait_until(lambda: (loser / "f0").read_bytes() == b"of the first")
        (entry,) = place.second.recover()
        assert entry["path"] == "f0"
        assert entry["size"] == len(b"of the second")
        assert entry["reason"]
        assert place.second.command("recover", "--restore", entry["name"]).returncode == 0
        assert place.second.command("sync").returncode == 0
        assert bucket.get("data/f0") == b"of the second"
        assert (loser / "f0").read_bytes() == b"of the second"
        assert place.second.recover() == []


def test_what_lost_can_be_discarded_by_command_and_by_rm(tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"old")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        for number in range(2):
            lose(mount, bucket, "a", f"ours {number}".encode(), f"theirs {number}".encode())
            wait_until(lambda number=number: (mount.point / "a").read_bytes() == f"theirs {number}".encode())
        entries = mount.recover()
        assert sorted(mount.recovered_of("a")) == [b"ours 0", b"ours 1"]
        assert len({entry["name"] for entry in entries}) == 2
        listed = mount.command("recover").stdout
        assert all(entry["name"] in listed for entry in entries)
        assert mount.command("recover", "--discard", entries[0]["name"]).returncode == 0
        assert mount.recovered_of("a") == [b"ours 1"]
        subprocess.run(["rm", mount.point / ".octuefs" / "recovered" / entries[1]["name"]], check=True)
        assert mount.recover() == []
        result = mount.command("recover", "--restore", entries[1]["name"])
        assert result.returncode == 1
        assert entries[1]["name"] in result.stderr
        assert bucket.get("data/a") == b"theirs 1"


def lose(mount: Mount, bucket: Bucket, name: str, ours: bytes, theirs: bytes) -> None:
    """Write a file while another stores a version of it."""
    descriptor = os.open(mount.point / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(descriptor, ours)
    bucket.put(f"data/{name}", theirs)
    with fails_with(errno.ESTALE):
        os.close(descriptor)


def test_what_lost_is_still_there_after_a_remount(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"old", {"octue__labels": '["kept"]'})
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        lose(mount, bucket, "a", b"ours", b"theirs")
        mount.unmount()
        mount.mount()
        assert mount.recovered_of("a") == [b"ours"]
        assert (mount.point / "a").read_bytes() == b"theirs"
        mount.kill(mount.pid())
        mount.mount()
        assert mount.recovered_of("a") == [b"ours"]


def test_a_new_name_that_another_took_first_is_theirs(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/x", b"x")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        lose(mount, bucket, "new", b"ours", b"theirs")
        assert bucket.get("data/new") == b"theirs"
        assert mount.recovered_of("new") == [b"ours"]
        wait_until(lambda: (mount.point / "new").read_bytes() == b"theirs")


def test_a_file_that_another_removed_while_it_was_written_is_a_conflict(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"old")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        descriptor = os.open(mount.point / "a", os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, b"ours")
        bucket.delete("data/a")
        with fails_with(errno.ESTALE):
            os.close(descriptor)
        assert bucket.list("data/a") == []
        assert mount.recovered_of("a") == [b"ours"]
        wait_until(lambda: not (mount.point / "a").exists())


def test_a_large_upload_that_was_overtaken_loses_too(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"old")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        ours = os.urandom(MIB) * 20
        descriptor = os.open(mount.point / "a", os.O_WRONLY | os.O_TRUNC)
        for offset in range(0, len(ours), MIB):
            os.write(descriptor, ours[offset : offset + MIB])
        wait_until(lambda: strict_gcs.count(kind="start") == 1)
        bucket.put("data/a", b"theirs")
        with fails_with(errno.ESTALE):
            os.close(descriptor)
        assert bucket.get("data/a") == b"theirs"
        assert mount.recovered_of("a") == [ours]


def test_an_append_on_the_server_that_was_overtaken_loses_with_all_it_needs(
    bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    old = os.urandom(MIB) * 9
    bucket.put("data/a", old)
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        descriptor = os.open(mount.point / "a", os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, b"our tail")
        bucket.put("data/a", b"theirs")
        with fails_with(errno.ESTALE):
            os.close(descriptor)
        assert bucket.get("data/a") == b"theirs"
        (kept,) = mount.recovered_of("a")
        assert kept.endswith(b"our tail")
        assert [item["name"] for item in bucket.list("data/") if ".octuefs-" in item["name"]] == []


def test_removing_what_another_has_replaced_unseen_is_refused(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"old")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        assert (mount.point / "a").read_bytes() == b"old"
        bucket.put("data/a", b"theirs, unseen")
        with fails_with(errno.ESTALE):
            (mount.point / "a").unlink()
        assert bucket.get("data/a") == b"theirs, unseen"
        wait_until(lambda: (mount.point / "a").read_bytes() == b"theirs, unseen")
        (mount.point / "a").unlink()
        assert bucket.list("data/a") == []


# --- metadata alone --------------------------------------------------------------------------------------------------


def test_fields_that_another_changed_are_merged_and_only_the_same_one_is_a_conflict(
    bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    bucket.put("data/a", b"a", {"octue__labels": '["old"]', "octue__tags": '{"k": 1}', "foreign": "stays"})
    through = strict_gcs.bucket(bucket.name)
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        through.patch_metadata("data/a", {"octue__tags": '{"k": 2}', "other": "theirs"})
        put(mount.point / "a", "labels", "new")
        stored = bucket.stat("data/a")["metadata"]
        assert json.loads(stored["octue__labels"]) == {"_type": "set", "items": ["new"]}
        assert json.loads(stored["octue__tags"]) == {"k": 2}
        assert (stored["foreign"], stored["other"]) == ("stays", "theirs")
        assert get(mount.point / "a", "tags") == '{"k": 2}'

        through.patch_metadata("data/a", {"octue__labels": '{"_type": "set", "items": ["theirs"]}'})
        with fails_with(errno.ESTALE):
            put(mount.point / "a", "labels", "ours")
        assert json.loads(bucket.stat("data/a")["metadata"]["octue__labels"])["items"] == ["theirs"]
        assert "a" in mount.errors()
        wait_until(lambda: labels(mount.point / "a") == {"theirs"})
        put(mount.point / "a", "labels", "ours")
        assert json.loads(bucket.stat("data/a")["metadata"]["octue__labels"])["items"] == ["ours"]


def test_tags_of_different_keys_are_different_fields(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"a", {"octue__tags": '{"k": 1, "m": 1}'})
    through = strict_gcs.bucket(bucket.name)
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        through.patch_metadata("data/a", {"octue__tags": '{"k": 2, "m": 1}'})
        put(mount.point / "a", "tags.m", "2")
        assert json.loads(bucket.stat("data/a")["metadata"]["octue__tags"]) == {"k": 2, "m": 2}
        through.patch_metadata("data/a", {"octue__tags": '{"k": 2, "m": 3}'})
        with fails_with(errno.ESTALE):
            put(mount.point / "a", "tags.m", "4")
        assert json.loads(bucket.stat("data/a")["metadata"]["octue__tags"]) == {"k": 2, "m": 3}


def test_labels_that_another_set_while_data_were_written_stay(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"old", {"octue__tags": '{"k": 1}'})
    through = strict_gcs.bucket(bucket.name)
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        with (mount.point / "a").open("wb") as file:
            file.write(b"ours")
            through.patch_metadata("data/a", {"octue__labels": '["theirs"]'})
        assert bucket.get("data/a") == b"ours"
        stored = bucket.stat("data/a")["metadata"]
        assert json.loads(stored["octue__labels"]) == ["theirs"]
        assert json.loads(stored["octue__tags"]) == {"k": 1}
        assert mount.recovered() == {}


def test_new_data_under_a_change_of_metadata_are_no_conflict_for_the_same_fields_old_value(
    bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    # Another generation, whose metageneration begins at 1 again: ours must not be taken for theirs.
    bucket.put("data/a", b"old", {"octue__labels": '["old"]'})
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        assert labels(mount.point / "a") == {"old"}
        bucket.put("data/a", b"theirs", {"octue__labels": '["new"]'})
        with fails_with(errno.ESTALE):
            put(mount.point / "a", "labels", "ours")
        assert bucket.get("data/a") == b"theirs"
        assert json.loads(bucket.stat("data/a")["metadata"]["octue__labels"]) == ["new"]


# --- answers that were lost ------------------------------------------------------------------------------------------


Fault = Callable[[StrictGcs, Callable[[Request], bool]], object]
LOST: dict[str, Fault] = {
    "dropped": lambda gcs, when: gcs.drop(when, after_effect=True),
    "failed": lambda gcs, when: gcs.fail(503, when, after_effect=True),
}


@pytest.fixture(params=list(LOST))
def lost(request: pytest.FixtureRequest, strict_gcs: StrictGcs) -> Callable[[str], Any]:
    """`lost(kind)`: the answer to the next request of a kind is lost after it had its effect."""
    return lambda kind: LOST[request.param](strict_gcs, lambda it: it.kind == kind)


def check_in_order(mount: Mount) -> None:
    assert mount.recovered() == {}
    assert mount.command("sync").returncode == 0


def test_an_upload_whose_answer_was_lost_is_stored_once(
    bucket: Bucket, strict_gcs: StrictGcs, lost: Callable[[str], Any]
) -> None:
    bucket.put("data/a", b"old", {"octue__labels": '["x"]'})
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        for name in ("a", "new"):
            rule = lost("upload")
            (mount.point / name).write_bytes(b"data of " + name.encode())
            assert rule.hits == 1
            assert bucket.get(f"data/{name}") == b"data of " + name.encode()
        assert labels(mount.point / "a") == {"x"}
        # What is known of it is what stands there: the next change finds its version.
        put(mount.point / "new", "labels", "y")
        (mount.point / "a").write_bytes(b"again")
        assert bucket.get("data/a") == b"again"
        check_in_order(mount)


def test_a_large_upload_whose_last_answer_was_lost_is_stored_once(
    bucket: Bucket, strict_gcs: StrictGcs, lost: Callable[[str], Any]
) -> None:
    bucket.put("data/x", b"x")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        data = os.urandom(MIB) * 9
        rule = lost("send")
        (mount.point / "large").write_bytes(data)
        assert rule.hits == 1
        assert bucket.get("data/large") == data
        (mount.point / "large").write_bytes(b"small now")
        assert bucket.get("data/large") == b"small now"
        check_in_order(mount)


def test_a_patch_whose_answer_was_lost_is_no_conflict(
    bucket: Bucket, strict_gcs: StrictGcs, lost: Callable[[str], Any]
) -> None:
    bucket.put("data/a", b"a", {"octue__labels": '["old"]'})
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        rule = lost("patch")
        put(mount.point / "a", "labels", "new")
        assert rule.hits == 1
        assert labels(mount.point / "a") == {"new"}
        put(mount.point / "a", "labels", "newer")
        os.removexattr(mount.point / "a", "user.octue.labels")
        (mount.point / "a").write_bytes(b"b")
        check_in_order(mount)


def test_a_delete_whose_answer_was_lost_succeeds(
    bucket: Bucket, strict_gcs: StrictGcs, lost: Callable[[str], Any]
) -> None:
    bucket.put("data/a", b"a")
    bucket.put("data/b", b"b")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        rule = lost("delete")
        (mount.point / "a").unlink()
        assert rule.hits == 1
        assert os.listdir(mount.point) == ["b"]
        assert [item["name"] for item in bucket.list()] == ["data/b"]
        check_in_order(mount)


@pytest.mark.parametrize("kind", ["rewrite", "delete"])
def test_a_rename_one_of_whose_answers_was_lost_succeeds(
    kind: str, bucket: Bucket, strict_gcs: StrictGcs, lost: Callable[[str], Any]
) -> None:
    bucket.put("data/a", b"a", {"octue__labels": '["x"]'})
    bucket.put("data/over", b"over")
    bucket.put("data/d/1", b"1")
    bucket.put("data/d/2", b"2")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        for old, new in (("a", "b"), ("b", "over"), ("d", "e")):
            rule = lost(kind)
            os.rename(mount.point / old, mount.point / new)
            assert rule.hits == 1
        assert {item["name"]: bucket.get(item["name"]) for item in bucket.list() if item["name"][-1] != "/"} == {
            "data/over": b"a",
            "data/e/1": b"1",
            "data/e/2": b"2",
        }
        assert labels(mount.point / "over") == {"x"}
        assert mount.status()["writing"]["interrupted_renames"] == 0
        check_in_order(mount)


def test_an_append_whose_compose_was_not_answered_is_made_once(
    bucket: Bucket, strict_gcs: StrictGcs, lost: Callable[[str], Any]
) -> None:
    old = os.urandom(MIB) * 9
    bucket.put("data/a", old)
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        for number in range(2):
            rule = lost("compose")
            with (mount.point / "a").open("ab") as file:
                file.write(f"tail {number};".encode())
            assert rule.hits == 1
        assert bucket.get("data/a") == old + b"tail 0;tail 1;"
        assert [item["name"] for item in bucket.list()] == ["data/a"]
        check_in_order(mount)


def test_a_folder_whose_marker_was_not_answered_is_made(
    bucket: Bucket, strict_gcs: StrictGcs, lost: Callable[[str], Any]
) -> None:
    bucket.put("data/a", b"a")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        rule = lost("upload")
        (mount.point / "d").mkdir()
        assert rule.hits == 1
        rule = lost("delete")
        (mount.point / "d").rmdir()
        assert rule.hits == 1
        assert [item["name"] for item in bucket.list()] == ["data/a"]


# --- others, in the middle of a rename -------------------------------------------------------------------------------


def test_what_another_stores_between_copy_and_delete_of_a_rename_is_not_removed(
    bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    bucket.put("data/a", b"ours")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        strict_gcs.before(lambda it: it.kind == "delete", lambda: bucket.put("data/a", b"theirs"))
        with contextlib.suppress(OSError):
            os.rename(mount.point / "a", mount.point / "b")
        assert bucket.get("data/a") == b"theirs"
        assert bucket.get("data/b") == b"ours"
        wait_until(lambda: (mount.point / "a").read_bytes() == b"theirs")
        assert (mount.point / "b").read_bytes() == b"ours"


def test_a_target_that_another_stores_during_a_rename_stays(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    bucket.put("data/a", b"ours")
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        strict_gcs.before(lambda it: it.kind == "rewrite", lambda: bucket.put("data/b", b"theirs"))
        with fails_with(errno.ESTALE):
            os.rename(mount.point / "a", mount.point / "b")
        assert bucket.get("data/a") == b"ours"
        assert bucket.get("data/b") == b"theirs"
        wait_until(lambda: (mount.point / "b").read_bytes() == b"theirs")
        assert (mount.point / "a").read_bytes() == b"ours"


def test_what_another_puts_into_a_folder_that_is_renamed_is_not_lost(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    for number in range(5):
        bucket.put(f"data/d/{number}", f"{number}".encode())
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        strict_gcs.before(lambda it: it.kind == "delete", lambda: bucket.put("data/d/new", b"theirs"))
        with contextlib.suppress(OSError):
            os.rename(mount.point / "d", mount.point / "e")
        stored = {item["name"]: bucket.get(item["name"]) for item in bucket.list() if item["name"][-1] != "/"}
        assert b"theirs" in stored.values()
        ours = {name: data for name, data in stored.items() if data != b"theirs"}
        assert sorted(ours.values()) == [b"0", b"1", b"2", b"3", b"4"]
        assert len({name.rpartition("/")[0] for name in ours}) == 1


def test_a_rename_that_fails_in_the_middle_goes_on_and_leaves_no_half(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    for number in range(6):
        bucket.put(f"data/d/{number}", f"{number}".encode())
    with remountable(f"{bucket.url}/data", environment=strict_gcs.environment) as mount:
        refusal = strict_gcs.fail(403, lambda it: it.kind == "rewrite" and it.name.endswith(("/3", "/4")), times=None)
        with fails_with(errno.EACCES):
            os.rename(mount.point / "d", mount.point / "e")
        refusal.remove()
        mount.unmount()
        mount.mount()
        stored = [item["name"] for item in bucket.list() if item["name"][-1] != "/"]
        assert len({name.rpartition("/")[0] for name in stored}) == 1, stored
        assert sorted(bucket.get(name) for name in stored) == [b"0", b"1", b"2", b"3", b"4", b"5"]
        assert mount.status()["writing"]["interrupted_renames"] == 0
