"""What other programs change in a local folder or a bucket shows in the mount."""

import contextlib
import errno
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octuefs.model.hashes import encode_crc32c, extend_crc32c, hash_of_set
from octuefs.stores import watch
from support import mounting
from support.gcs import Bucket
from support.mounting import environment_for, mounted, run_octuefs
from support.strict_gcs import StrictGcs

PATIENCE = 8.0
"""Seconds: what is promised is one; the rest is for a machine that is busy."""


def shows(what: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is true; a name that is not there (yet) is not."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if what():
                return
        assert time.monotonic() < deadline, "it does not show in the mount"
        time.sleep(0.02)


def hash_of(data: bytes) -> str:
    return encode_crc32c(extend_crc32c(0, data))


def line_of(path: Path) -> str:
    return path.read_text().rstrip("\n")


def status_of(point: Path) -> dict[str, Any]:
    return json.loads((point / ".octuefs" / "status").read_text())


def attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.octue.{name}").decode()


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".octue")


def record(labels: list[str]) -> dict[str, Any]:
    return {"labels": {"_type": "set", "items": labels}, "tags": {}, "timestamp": None}


def write_octue(folder: Path, datafiles: dict[str, Any]) -> None:
    """Write a `.octue` as the SDK and editors do: beside it, then over it."""
    (folder / ".octue.new").write_text(json.dumps({"datafiles": datafiles}))
    (folder / ".octue.new").replace(folder / ".octue")


# --- a local folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_text("1")
    (folder / "b.dat").write_text("22")
    (folder / "sub" / "c.csv").write_text("333")
    write_octue(folder, {"a.csv": record(["old"])})
    return folder


@pytest.fixture
def point(source: Path) -> Iterator[Path]:
    """The source, mounted, with everything looked at once so that it is in every cache."""
    with mounted(source) as point:
        assert tree(point) == ["a.csv", "b.dat", "sub", "sub/c.csv"]
        assert tree(point / "by-ext" / "csv") == ["a.csv", "sub", "sub/c.csv"]
        assert os.listdir(point / "by-label") == ["old"]
        assert line_of(point / ".hash") == hash_of_set([hash_of(b"1"), hash_of(b"22"), hash_of(b"333")])
        assert "a.csv" in (point / ".octue").read_text()
        yield point


def test_a_new_file_shows_in_the_tree_the_views_and_the_hash(source: Path, point: Path) -> None:
    assert not (point / "new.csv").exists()
    (source / "new.csv").write_text("4444")
    shows(lambda: (point / "new.csv").read_text() == "4444")
    shows(lambda: "new.csv" in os.listdir(point))
    shows(lambda: "new.csv" in os.listdir(point / "by-ext" / "csv"))
    contents = (b"1", b"22", b"333", b"4444")
    shows(lambda: line_of(point / ".hash") == hash_of_set(map(hash_of, contents)))
    shows(lambda: attribute(point, "count") == "4")


def test_a_changed_file_shows_its_bytes_size_and_hash(source: Path, point: Path) -> None:
    (source / "sub" / "c.csv").write_text("something longer")
    shows(lambda: (point / "sub" / "c.csv").read_text() == "something longer")
    shows(lambda: (point / "by-ext" / "csv" / "sub" / "c.csv").stat().st_size == 16)
    shows(lambda: attribute(point / "sub" / "c.csv", "hash") == hash_of(b"something longer"))
    shows(lambda: line_of(point / "sub" / ".hash") == hash_of_set([hash_of(b"something longer")]))
    shows(lambda: attribute(point / "sub", "size_bytes") == "16")


def test_a_file_changed_in_place_to_the_same_size_shows_its_new_bytes(source: Path, point: Path) -> None:
    assert (point / "b.dat").read_text() == "22"
    with (source / "b.dat").open("r+") as file:
        file.write("23")
    shows(lambda: (point / "b.dat").read_text() == "23")
    shows(lambda: attribute(point / "b.dat", "hash") == hash_of(b"23"))


def test_a_file_that_grows_shows_what_was_appended(source: Path, point: Path) -> None:
    with (source / "b.dat").open("a") as file:
        for number in range(3):
            file.write(str(number))
            file.flush()
            expected = "22" + "".join(map(str, range(number + 1)))
            shows(lambda expected=expected: (point / "b.dat").read_text() == expected)


def test_a_removed_file_is_gone_from_the_tree_the_views_and_the_hash(source: Path, point: Path) -> None:
    (source / "a.csv").unlink()
    shows(lambda: not (point / "a.csv").exists())
    shows(lambda: os.listdir(point / "by-ext" / "csv") == ["sub"])
    shows(lambda: os.listdir(point / "by-label") == [])
    shows(lambda: line_of(point / ".hash") == hash_of_set([hash_of(b"22"), hash_of(b"333")]))


def test_a_renamed_file_shows_under_its_new_name_only(source: Path, point: Path) -> None:
    (source / "b.dat").rename(source / "sub" / "d.csv")
    shows(lambda: tree(point) == ["a.csv", "sub", "sub/c.csv", "sub/d.csv"])
    shows(lambda: tree(point / "by-ext" / "csv") == ["a.csv", "sub", "sub/c.csv", "sub/d.csv"])
    shows(lambda: sorted(os.listdir(point / "by-ext")) == ["csv"])
    assert (point / "sub" / "d.csv").read_text() == "22"


def test_a_file_renamed_over_another_takes_its_place(source: Path, point: Path) -> None:
    (source / "b.dat").replace(source / "a.csv")
    shows(lambda: (point / "a.csv").read_text() == "22")
    shows(lambda: tree(point) == ["a.csv", "sub", "sub/c.csv"])
    # The record goes by name.
    shows(lambda: attribute(point / "a.csv", "labels") == "old")


def test_permissions_and_times_of_files_and_folders_show(source: Path, point: Path) -> None:
    (source / "a.csv").chmod(0o640)
    (source / "sub").chmod(0o750)
    os.utime(source / "b.dat", (1_600_000_000, 1_600_000_000))
    shows(lambda: (point / "a.csv").stat().st_mode & 0o777 == 0o640)
    shows(lambda: (point / "sub").stat().st_mode & 0o777 == 0o750)
    shows(lambda: (point / "b.dat").stat().st_mtime == 1_600_000_000)


def test_a_folder_moved_in_shows_with_all_below_it(source: Path, point: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep" / "deeper").mkdir(parents=True)
    (outside / "deep" / "deeper" / "x.csv").write_text("x")
    (outside / "y.csv").write_text("y")
    write_octue(outside, {"y.csv": record(["moved"])})
    outside.rename(source / "in")
    shows(lambda: tree(point / "in") == ["deep", "deep/deeper", "deep/deeper/x.csv", "y.csv"])
    shows(lambda: (point / "by-label" / "moved" / "in" / "y.csv").read_text() == "y")
    # And it is watched from now on.
    (source / "in" / "deep" / "deeper" / "z.csv").write_text("z")
    shows(lambda: "z.csv" in os.listdir(point / "in" / "deep" / "deeper"))


def test_a_folder_moved_out_or_removed_is_gone_with_all_below_it(source: Path, point: Path, tmp_path: Path) -> None:
    (source / "sub").rename(tmp_path / "away")
    shows(lambda: tree(point) == ["a.csv", "b.dat"])
    shows(lambda: tree(point / "by-ext" / "csv") == ["a.csv"])
    (source / "more").mkdir()
    (source / "more" / "x.csv").write_text("x")
    shows(lambda: (point / "more" / "x.csv").exists())
    (source / "more" / "x.csv").unlink()
    (source / "more").rmdir()
    shows(lambda: tree(point) == ["a.csv", "b.dat"])


def test_a_folder_renamed_within_keeps_its_content(source: Path, point: Path) -> None:
    (source / "sub").rename(source / "new")
    shows(lambda: tree(point) == ["a.csv", "b.dat", "new", "new/c.csv"])
    (source / "new" / "c.csv").write_text("changed")
    shows(lambda: (point / "new" / "c.csv").read_text() == "changed")


def test_a_file_that_becomes_a_folder_and_back_shows_as_what_it_is(source: Path, point: Path) -> None:
    (source / "b.dat").unlink()
    (source / "b.dat").mkdir()
    (source / "b.dat" / "x.csv").write_text("x")
    shows(lambda: (point / "b.dat" / "x.csv").read_text() == "x")
    (source / "b.dat" / "x.csv").unlink()
    (source / "b.dat").rmdir()
    (source / "b.dat").write_text("a file again")
    shows(lambda: (point / "b.dat").is_file() and (point / "b.dat").read_text() == "a file again")


def test_metadata_replaced_atomically_shows_in_attributes_and_views(source: Path, point: Path) -> None:
    write_octue(source, {"a.csv": record(["new"]), "b.dat": record(["new", "more"])})
    shows(lambda: sorted(os.listdir(point / "by-label")) == ["more", "new"])
    shows(lambda: attribute(point / "b.dat", "labels") == "more new")
    shows(lambda: "more" in (point / ".octue").read_text())
    # A second time, as the file is another one now.
    write_octue(source, {"a.csv": record(["third"])})
    shows(lambda: os.listdir(point / "by-label") == ["third"])


def test_metadata_written_in_place_shows_and_a_broken_state_in_between_does_no_harm(source: Path, point: Path) -> None:
    octue = source / ".octue"
    octue.write_text('{"datafiles": {"a.csv"')
    shows(lambda: ".octue" in (point / ".octuefs" / "errors").read_text())
    octue.write_text(json.dumps({"datafiles": {"a.csv": record(["whole"])}}))
    shows(lambda: os.listdir(point / "by-label") == ["whole"])
    shows(lambda: (point / ".octuefs" / "errors").read_text() == "")


def test_metadata_that_appears_or_goes_in_a_folder_shows(source: Path, point: Path) -> None:
    write_octue(source / "sub", {"c.csv": record(["deep"])})
    shows(lambda: (point / "by-label" / "deep" / "sub" / "c.csv").read_text() == "333")
    (source / "sub" / ".octue").unlink()
    shows(lambda: os.listdir(point / "by-label") == ["old"])


def test_the_datasets_own_name_and_labels_show_when_they_change(source: Path, point: Path) -> None:
    (source / ".octue").write_text(json.dumps({"dataset": {"name": "renamed", "labels": ["x"], "tags": {}}}))
    shows(lambda: attribute(point, "name") == "renamed")
    shows(lambda: attribute(point, "labels") == "x")


def test_a_link_that_leads_elsewhere_now_shows_its_new_target(source: Path, point: Path) -> None:
    (source / "link").symlink_to("a.csv")
    shows(lambda: attribute_of_link(point, "1"))
    (source / "next").symlink_to("b.dat")
    (source / "next").replace(source / "link")
    shows(lambda: os.readlink(point / "link") == "b.dat" and (point / "link").read_text() == "22")
    shows(lambda: attribute_of_link(point, "22"))


def attribute_of_link(point: Path, content: str) -> bool:
    """Say whether `.hashes` knows the datafile `link` with this content."""
    return f"{hash_of(content.encode())}  link\n" in (point / ".hashes").read_text()


def test_a_link_whose_target_changes_or_goes_shows_it(source: Path, point: Path) -> None:
    (source / "link").symlink_to("sub/c.csv")
    shows(lambda: attribute_of_link(point, "333"))
    (source / "sub" / "c.csv").write_text("other")
    shows(lambda: attribute_of_link(point, "other"))
    (source / "sub" / "c.csv").unlink()
    shows(lambda: attribute_of_link(point, ""))
    shows(lambda: "link: it leads to nothing" in (point / ".octuefs" / "errors").read_text())


def test_three_thousand_files_at_once_all_show(source: Path, point: Path) -> None:
    for number in range(30):
        folder = source / f"many{number}"
        folder.mkdir()
        for inner in range(100):
            (folder / f"{inner}.txt").write_text(f"{number} {inner}")
    shows(lambda: attribute(point, "count") == "3003", seconds=20)
    assert sum(len(os.listdir(point / "by-ext" / "txt" / f"many{number}")) for number in range(30)) == 3000
    assert (point / "many29" / "99.txt").read_text() == "29 99"
    for path in source.glob("many*/*"):
        path.unlink()
    shows(lambda: attribute(point, "count") == "3", seconds=20)


def test_a_new_file_can_be_opened_at_once(source: Path, point: Path) -> None:
    # No waiting here: a program that is told a name may open it.
    for number in range(20):
        (source / f"now{number}").write_text(str(number))
        assert (point / f"now{number}").read_text() == str(number)


def test_without_recursion_only_changes_of_the_top_show(source: Path) -> None:
    with mounted(source, "--no-recursive") as point:
        (source / "sub" / "new.csv").write_text("x")
        (source / "top.csv").write_text("y")
        shows(lambda: "top.csv" in os.listdir(point))
        assert attribute(point, "count") == "3"
        assert not (point / "sub" / "new.csv").exists()


def test_refresh_reads_a_local_folder_again(source: Path, point: Path) -> None:
    (source / "new.csv").write_text("x")
    result = run_octuefs("refresh", point)
    assert (result.returncode, result.stdout) == (0, f"{source} read again: 4 files\n")
    assert "new.csv" in os.listdir(point)


def test_a_source_that_is_removed_while_mounted_empties_the_mount_without_breaking_it(
    source: Path, point: Path
) -> None:
    for path in (source / "a.csv", source / "b.dat", source / ".octue", source / "sub" / "c.csv"):
        path.unlink()
    (source / "sub").rmdir()
    source.rmdir()
    shows(lambda: attribute(point, "count") == "0")
    assert status_of(point)["counts"]["files"] == 0


# --- a local folder, without watches


SCRIPT = """
set -e
echo {limit} > /proc/sys/user/max_inotify_{what}
"{octuefs}" mount "{source}" "{point}" >&2
cat "{point}/.octuefs/status"
mkdir "{source}/d40/new"
echo x > "{source}/d40/new/y.csv"
echo changed > "{source}/d39/f.csv"
n=0
count() {{ getfattr --only-values -n user.octue.count "{point}" 2> /dev/null; }}
until [ "$(count)" = 41 ] && grep -q changed "{point}/d39/f.csv"; do
  n=$((n + 1)); test $n -lt 160; sleep 0.05
done
cat "{point}/.octuefs/status"
"{octuefs}" unmount "{point}"
"""


@pytest.mark.parametrize(("what", "limit"), [("watches", 20), ("watches", 0), ("instances", 0), ("watches", 42)])
def test_without_enough_watches_the_folder_is_scanned_and_status_says_so(what: str, limit: int, tmp_path: Path) -> None:
    # In a namespace of its own the limit is for this mount alone.
    source, point = tmp_path / "source", tmp_path / "point"
    point.mkdir()
    for number in range(40):
        (source / f"d{number + 1}").mkdir(parents=True)
        (source / f"d{number + 1}" / "f.csv").write_text("1")
    script = SCRIPT.format(what=what, limit=limit, octuefs=mounting.OCTUEFS, source=source, point=point)
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env=environment_for(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    decoder = json.JSONDecoder()
    before, end = decoder.raw_decode(done.stdout)
    after, _ = decoder.raw_decode(done.stdout[end:].lstrip())
    # 42 watches are enough for the 41 folders and the look whether any is left, not for one more.
    assert before["changes"] == ("inotify" if limit == 42 else "scanning")
    assert after["changes"] == "scanning"


@pytest.mark.expected_logs("cannot watch")
def test_a_watcher_that_cannot_watch_scans_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoObserver:
        def is_alive(self) -> bool:
            return False

        def schedule(self, *_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(watch, "Observer", NoObserver)
    monkeypatch.setattr(watch, "SCAN_SECONDS", 0.01)
    scans: list[float] = []
    watcher = watch.Watcher(str(tmp_path), lambda _: None, lambda: scans.append(time.monotonic()), recursive=True)
    watcher.start()
    shows(lambda: len(scans) >= 3)
    assert watcher.how == "scanning"
    watcher.stop()
    seen = len(scans)
    time.sleep(0.1)
    assert len(scans) == seen


# --- a bucket


@pytest.fixture
def proxy(bucket: Bucket, strict_gcs: StrictGcs) -> StrictGcs:
    for name, label in (("a.csv", "old"), ("b.dat", None), ("sub/c.csv", None)):
        bucket.put(f"d/{name}", name.encode(), {"octue__labels": f'["{label}"]'} if label else None)
    return strict_gcs


def change_all(bucket: Bucket) -> None:
    """Add, change, remove and relabel an object each."""
    bucket.put("d/new.csv", b"new")
    bucket.put("d/b.dat", b"something longer")
    bucket.delete("d/sub/c.csv")
    bucket.patch_metadata("d/a.csv", {"octue__labels": '["new"]'})


def assert_all_changed(point: Path) -> None:
    assert tree(point) == ["a.csv", "b.dat", "new.csv"]
    assert (point / "b.dat").read_bytes() == b"something longer"
    assert os.listdir(point / "by-label") == ["new"]
    assert tree(point / "by-ext" / "csv") == ["a.csv", "new.csv"]
    contents = (b"a.csv", b"something longer", b"new")
    assert line_of(point / ".hash") == hash_of_set(map(hash_of, contents))
    assert attribute(point / "a.csv", "labels") == "new"
    assert "new" in (point / ".octue").read_text()


def test_what_changed_in_a_bucket_shows_after_refresh(bucket: Bucket, proxy: StrictGcs) -> None:
    with mounted(f"{bucket.url}/d", environment=proxy.environment) as point:
        assert tree(point) == ["a.csv", "b.dat", "sub", "sub/c.csv"]
        assert os.listdir(point / "by-label") == ["old"]
        change_all(bucket)
        result = run_octuefs("refresh", point)
        assert (result.returncode, result.stdout) == (0, f"{bucket.url}/d read again: 3 files\n")
        shows(lambda: "new.csv" in os.listdir(point), 2)  # the kernel's own half second
        assert_all_changed(point)


def test_what_changed_in_a_bucket_shows_after_writing_to_the_control_panel(bucket: Bucket, proxy: StrictGcs) -> None:
    with mounted(f"{bucket.url}/d", "--read-only", environment=proxy.environment) as readonly:
        with mounted(f"{bucket.url}/d", environment=proxy.environment) as point:
            assert tree(point) == ["a.csv", "b.dat", "sub", "sub/c.csv"]
            change_all(bucket)
            (point / ".octuefs" / "refresh").write_text("now\n")
            assert os.listdir(point) == [".octue", "a.csv", "b.dat", "new.csv"]
            shows(lambda: not (point / "sub").exists(), 2)
            assert_all_changed(point)
        # Through the socket also where nothing can be written.
        assert "new.csv" not in os.listdir(readonly)
        assert run_octuefs("refresh", readonly).returncode == 0
        assert "new.csv" in os.listdir(readonly)


def test_what_changed_in_a_bucket_shows_by_itself_within_the_time_to_live(bucket: Bucket, proxy: StrictGcs) -> None:
    with mounted(f"{bucket.url}/d", "--metadata-ttl", "1", environment=proxy.environment) as point:
        assert status_of(point)["changes"] == "asked again every 1 s"
        assert tree(point) == ["a.csv", "b.dat", "sub", "sub/c.csv"]
        change_all(bucket)
        shows(lambda: "new.csv" in os.listdir(point) and not (point / "sub").exists())
        shows(lambda: attribute(point / "a.csv", "labels") == "new")
        assert_all_changed(point)


def test_with_no_time_to_live_each_open_sees_the_newest(bucket: Bucket, proxy: StrictGcs) -> None:
    with mounted(f"{bucket.url}/d", "--metadata-ttl", "0", environment=proxy.environment) as point:
        for number in range(5):
            content = f"version {number} {'x' * number}"
            bucket.put("d/b.dat", content.encode())
            assert (point / "b.dat").read_text() == content


def test_an_object_replaced_while_open_is_stale_and_never_a_mix(bucket: Bucket, proxy: StrictGcs) -> None:
    old, new = b"o" * (3 << 20), b"n" * (3 << 20)
    bucket.put("d/big", old)
    with mounted(f"{bucket.url}/d", environment=proxy.environment) as point:
        with (point / "big").open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            assert file.read(1000) == old[:1000]
            bucket.put("d/big", new)
            file.seek(2 << 20)
            with pytest.raises(OSError, match="Stale") as failure:
                file.read(1000)
            assert failure.value.errno == errno.ESTALE
        # The failure itself makes the mount look again.
        shows(lambda: (point / "big").read_bytes() == new)
        assert "big" in (point / ".octuefs" / "errors").read_text()


def test_a_listing_costs_one_request_per_thousand_objects_and_metadata_none(
    bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    for number in range(1500):
        bucket.put(f"d/{number % 7}/{number:04}.csv", b"x", {"octue__labels": '["a"]'} if number % 2 else None)
    with mounted(f"{bucket.url}/d", environment=strict_gcs.environment) as point:
        assert strict_gcs.count(contains="maxResults=1000") == 2
        # Beside them: is the bucket there, and is there a `.octue`?
        assert len(strict_gcs.requests) <= 4
        strict_gcs.forget_requests()
        for command in (
            ["find", point, "-ls"],
            ["ls", "-lR", point / "by-label" / "a"],
            ["getfattr", "-d", "-m", "-", "-R", point / "0"],
            ["cat", point / ".hash", point / ".hashes", point / ".octuefs" / "status"],
            ["getfattr", "-n", "user.octue.hash", point / "3", point / "0" / "0000.csv"],
            ["stat", point / "filter" / "size_bytes__gt=0" / "0" / "0000.csv"],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        assert strict_gcs.requests == []
        assert run_octuefs("refresh", point).returncode == 0
        assert strict_gcs.count(contains="maxResults=1000") == 2
        assert len(strict_gcs.requests) <= 3


def test_a_small_object_is_read_with_one_request(bucket: Bucket, proxy: StrictGcs) -> None:
    bucket.put("d/small", bytes(900_000))
    with mounted(f"{bucket.url}/d", environment=proxy.environment) as point:
        before = len(proxy.requests)
        assert (point / "small").read_bytes() == bytes(900_000)
        assert len(proxy.requests) - before == 1


def test_a_server_that_refuses_makes_reads_fail_at_once_and_what_was_known_still_lists(
    bucket: Bucket, proxy: StrictGcs
) -> None:
    with mounted(f"{bucket.url}/d", environment=proxy.environment) as point:
        before = tree(point)
        refusal = proxy.fail(403, times=None)
        started = time.monotonic()
        with pytest.raises(PermissionError):
            (point / "b.dat").read_bytes()
        assert time.monotonic() - started < 10
        assert tree(point) == before
        assert os.listdir(point / "by-label") == ["old"]
        assert "b.dat" in (point / ".octuefs" / "errors").read_text()
        result = run_octuefs("refresh", point)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "refused" in line
        assert tree(point) == before
        refusal.remove()
        assert (point / "b.dat").read_bytes() == b"b.dat"
        assert run_octuefs("refresh", point).returncode == 0


def test_a_server_that_is_gone_leaves_the_listing_and_reads_fail_before_long(bucket: Bucket, proxy: StrictGcs) -> None:
    with mounted(f"{bucket.url}/d", environment=proxy.environment) as point:
        before = tree(point)
        proxy.stop_listening()
        reader = subprocess.Popen(["cat", point / "b.dat"], stderr=subprocess.PIPE, text=True)
        # Nothing else waits for the one that reads.
        assert tree(point) == before
        assert line_of(point / ".hash")
        assert os.listdir(point / "by-label") == ["old"]
        try:
            _, complaint = reader.communicate(timeout=60)
        finally:
            reader.kill()
        assert reader.returncode == 1
        assert "Input/output error" in complaint or "timed out" in complaint
        errors = (point / ".octuefs" / "errors").read_text()
        assert "b.dat" in errors
        assert "Traceback" not in errors
        assert tree(point) == before
