"""`octuefs upload`, `download` and `verify` against a strict server that fails on command."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octuefs.model.hashes import encode_crc32c, extend_crc32c
from support import mounting
from support.gcs import Bucket
from support.mounting import environment_for, mounted, run_octuefs
from support.strict_gcs import Request, StrictGcs

MIB = 1 << 20
LARGE = 20 * MIB


def record(*labels: str) -> dict[str, object]:
    return {
        "id": str(uuid.uuid4()),
        "timestamp": None,
        "tags": {"height": 10},
        "labels": {"_type": "set", "items": sorted(labels)},
        "sdk_version": "0.69.1",
    }


def describe(folder: Path, files: dict[str, object], dataset: dict[str, object] | None = None) -> None:
    (folder / ".octue").write_text(json.dumps({"datafiles": files, **({"dataset": dataset} if dataset else {})}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small dataset."""
    folder = tmp_path / "source"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    for number in range(6):
        (folder / f"{number}.csv").write_bytes(b"%d,\n" % number)
    (folder / "sub" / "deep" / "zero").write_bytes(b"")
    describe(folder, {"0.csv": record("a"), "1.csv": record()}, {"id": str(uuid.uuid4()), "name": "N", "labels": []})
    return folder


@pytest.fixture
def place(strict_bucket: Bucket) -> str:
    return f"{strict_bucket.url}/some/where"


@pytest.fixture
def octuefs(strict_gcs: StrictGcs) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda *arguments: run_octuefs(*arguments, environment=strict_gcs.environment, timeout=120)


@contextlib.contextmanager
def started(gcs: StrictGcs, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command under way, whose stderr is kept."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [mounting.OCTUEFS, *map(os.fspath, arguments)],
            env=environment_for(gcs.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
        process.stderr = errors  # type: ignore[assignment]
        try:
            yield process
        finally:
            process.kill()
            process.wait(20)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def names(bucket: Bucket) -> dict[str, str]:
    """Generations by name below the place."""
    return {it["name"].removeprefix("some/where/"): it["generation"] for it in bucket.list("some/where/")}


def of_kind(*kinds: str) -> Callable[[Request], bool]:
    return lambda request: request.kind in kinds


def is_media_of(name: str) -> Callable[[Request], bool]:
    return lambda request: request.kind == "media" and request.name.endswith(name)


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".octuefs-")]


# --- uploading again


def test_a_second_upload_sends_nothing(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    source: Path,
    place: str,
    strict_gcs: StrictGcs,
    bucket: Bucket,
) -> None:
    assert octuefs("upload", source, place).returncode == 0
    stored = names(bucket)
    assert {".octue", "0.csv", "5.csv", "sub/deep/zero", "empty/"} <= stored.keys()
    strict_gcs.forget_requests()
    done = octuefs("upload", source, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 there already" in done.stdout
    assert {request.kind for request in strict_gcs.requests} == {"list", "media"}
    assert strict_gcs.count(kind="media") == 1  # of the dataset's own record
    assert names(bucket) == stored


def test_where_only_metadata_differ_only_they_are_sent(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    source: Path,
    place: str,
    strict_gcs: StrictGcs,
    bucket: Bucket,
) -> None:
    assert octuefs("upload", source, place).returncode == 0
    stored = names(bucket)
    document = json.loads((source / ".octue").read_text())
    document["datafiles"]["0.csv"]["labels"]["items"] = ["b", "c"]
    document["datafiles"]["0.csv"]["id"] = str(uuid.uuid4())
    document["datafiles"]["2.csv"] = record("new")
    (source / ".octue").write_text(json.dumps(document))
    bucket.patch_metadata("some/where/0.csv", {"foreign": "kept"})
    before = bucket.stat("some/where/0.csv")["metadata"]
    strict_gcs.forget_requests()
    assert octuefs("upload", source, place).returncode == 0
    assert strict_gcs.count("PATCH") == 2
    assert strict_gcs.count("POST") == 0
    assert names(bucket) == stored
    after = bucket.stat("some/where/0.csv")["metadata"]
    # The stored ID stays, and so does what others keep there.
    assert after == {**before, "octue__labels": '{"_type": "set", "items": ["b", "c"]}'}
    assert json.loads(bucket.stat("some/where/2.csv")["metadata"]["octue__labels"])["items"] == ["new"]


def test_what_was_changed_is_stored_anew_and_what_else_is_there_stays(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path, place: str, bucket: Bucket
) -> None:
    assert octuefs("upload", source, place).returncode == 0
    bucket.put("some/where/other.csv", b"other")
    bucket.put("some/where/3.csv", b"theirs", {"foreign": "kept", "goog-reserved-file-mtime": "5"}, "text/x-own")
    (source / "1.csv").write_bytes(b"changed")
    done = octuefs("upload", source, place)
    assert done.returncode == 0
    assert "1 other file" in done.stdout
    assert bucket.get("some/where/1.csv") == b"changed"
    assert bucket.get("some/where/other.csv") == b"other"
    replaced = bucket.stat("some/where/3.csv")
    assert (replaced["contentType"], replaced["metadata"]) == ("text/x-own", {"foreign": "kept"})
    assert bucket.get("some/where/3.csv") == b"3,\n"


def test_an_upload_that_was_killed_goes_on_with_the_rest(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    source: Path,
    place: str,
    strict_gcs: StrictGcs,
    bucket: Bucket,
) -> None:
    for number in range(60):
        (source / f"many{number}.bin").write_bytes(os.urandom(100))
    rule = strict_gcs.delay(0.3, of_kind("upload"))
    with started(strict_gcs, "upload", source, place) as process:
        wait_for(lambda: len(names(bucket)) >= 10)
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
    rule.remove()
    time.sleep(1)  # what was under way arrives
    stored = names(bucket)
    assert 10 <= len(stored) < 60
    strict_gcs.forget_requests()
    assert octuefs("upload", source, place).returncode == 0
    present = names(bucket)
    assert len(present) == 69  # 60, 6, zero, the record and a marker
    assert strict_gcs.count(kind="upload") == 69 - len(stored)
    assert {name: present[name] for name in stored} == stored


def test_a_large_upload_that_was_killed_leaves_nothing_half(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    source: Path,
    place: str,
    strict_gcs: StrictGcs,
    bucket: Bucket,
) -> None:
    data = os.urandom(LARGE)
    (source / "large.bin").write_bytes(data)
    held = strict_gcs.hold(of_kind("send"))
    with started(strict_gcs, "upload", source, place) as process:
        assert held.arrived.wait(30)
        process.kill()
        process.wait(20)
        strict_gcs.forget_sessions()
        held.release()
    assert "large.bin" not in names(bucket)
    assert octuefs("upload", source, place).returncode == 0
    assert bucket.get("some/where/large.bin") == data


def test_ctrl_c_ends_an_upload_in_words_and_leaves_what_is_done(
    source: Path, place: str, strict_gcs: StrictGcs, bucket: Bucket
) -> None:
    (source / "large.bin").write_bytes(os.urandom(LARGE))
    held = strict_gcs.hold(of_kind("send"))
    with started(strict_gcs, "upload", source, place) as process:
        assert held.arrived.wait(30)
        wait_for(lambda: "5.csv" in names(bucket))
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        strict_gcs.forget_sessions()
        held.release()
        assert process.wait(30) == 1
        assert process.stderr is not None
        process.stderr.seek(0)
        assert "run the same upload again" in process.stderr.read()
    assert "large.bin" not in names(bucket)


# --- uploading where something fails


def test_failures_that_pass_are_gone_over(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    source: Path,
    place: str,
    strict_gcs: StrictGcs,
    bucket: Bucket,
) -> None:
    data = os.urandom(LARGE)
    (source / "large.bin").write_bytes(data)
    strict_gcs.fail(503, of_kind("upload"), times=3)
    strict_gcs.drop(of_kind("upload"), times=2, after_effect=True)
    strict_gcs.cut_body(of_kind("send"), 10 * MIB)
    done = octuefs("upload", source, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert bucket.get("some/where/large.bin") == data
    *_, last = [request.size for request in strict_gcs.requests if request.kind == "send"]
    assert last == LARGE - 10 * MIB  # it went on where it was
    assert octuefs("verify", place, source).returncode == 0


def test_what_another_writer_stores_meanwhile_is_not_overwritten(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    source: Path,
    place: str,
    strict_gcs: StrictGcs,
    bucket: Bucket,
) -> None:
    listings = lambda request: request.kind == "list" and "maxResults=1000" in str(request)  # noqa: E731
    strict_gcs.after(listings, lambda: bucket.put("some/where/3.csv", b"theirs"))
    done = octuefs("upload", source, place)
    assert done.returncode == 1
    assert "3.csv: another writer" in done.stderr
    assert "1 file failed" in done.stderr
    assert bucket.get("some/where/3.csv") == b"theirs"
    assert {f"{number}.csv" for number in range(6)} <= names(bucket).keys()


def test_a_refusal_is_said_in_words_and_not_tried_for_ever(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path, place: str, strict_gcs: StrictGcs
) -> None:
    for number in range(100):
        (source / f"many{number}.bin").write_bytes(b"%d" % number)
    strict_gcs.fail(403, of_kind("upload"), times=None)
    done = octuefs("upload", source, place)
    assert done.returncode == 1
    assert "storage.objects.create" in done.stderr
    assert "many99.bin: " in done.stderr  # all that failed is listed
    assert "not tried" in done.stderr
    assert strict_gcs.count(kind="upload") < 60


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_file_that_changes_while_it_is_read_is_not_stored(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    source: Path,
    place: str,
    strict_gcs: StrictGcs,
    bucket: Bucket,
    size: int,
) -> None:
    path = source / "changing.bin"
    path.write_bytes(os.urandom(size))

    def change() -> None:
        path.write_bytes(os.urandom(size))

    # A large one after it was read for its checksum; a small one after it was listed.
    kind = of_kind("start") if size == LARGE else of_kind("list")
    strict_gcs.before(kind, change)
    done = octuefs("upload", source, place)
    assert done.returncode == 1
    assert "changing.bin: it changed while it was read" in done.stderr
    assert "changing.bin" not in names(bucket)
    assert "5.csv" in names(bucket)
    assert octuefs("upload", source, place).returncode == 0
    assert bucket.get("some/where/changing.bin") == path.read_bytes()


def test_what_a_bucket_cannot_hold_is_named(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path, place: str, bucket: Bucket
) -> None:
    (source / "link.csv").symlink_to("sub/../0.csv")
    (source / "outside.csv").symlink_to("/etc/hostname")
    os.mkfifo(source / "fifo")
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.csv")).write_bytes(b"latin")
    (source / "sub" / ".octue").write_text("{ no JSON")
    bucket.put("some/where/1.csv/below", b"theirs")
    done = octuefs("upload", source, place)
    assert done.returncode == 1
    assert bucket.get("some/where/link.csv") == b"0,\n"
    for text in (
        "left out: fifo: ",
        "outside.csv: the link leads to nothing in the dataset",
        "caf\\xe9.csv: ",
        "sub/.octue: ",
        "1.csv: a folder of this name",
        "4 files failed",
    ):
        assert text in done.stderr
    assert "outside.csv" not in names(bucket)
    assert "1.csv" not in names(bucket)


# --- downloading


@pytest.fixture
def stored(octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path, place: str, bucket: Bucket) -> str:
    """A dataset in the bucket."""
    (source / "large.bin").write_bytes(os.urandom(LARGE))
    assert octuefs("upload", source, place).returncode == 0
    bucket.put("some/where/x.octue", b"hidden from the SDK")
    bucket.put("some/where/.signed_metadata_files/link", b"{}")
    bucket.put(f"some/where/.octuefs-{uuid.uuid4().hex}.octue", b"part")
    return place


def assert_same(folder: Path, source: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and path.name != ".octue":
            assert (folder / path.relative_to(source)).read_bytes() == path.read_bytes()
    assert (folder / "empty").is_dir()
    assert (folder / "x.octue").read_bytes() == b"hidden from the SDK"
    assert not (folder / ".signed_metadata_files").exists()
    assert temporaries(folder) == []


def test_a_second_download_fetches_what_differs(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    stored: str,
    source: Path,
    tmp_path: Path,
    strict_gcs: StrictGcs,
) -> None:
    folder = tmp_path / "new" / "folder"
    assert octuefs("download", stored, folder).returncode == 0
    assert_same(folder, source)
    document = json.loads((folder / ".octue").read_text())
    assert document["datafiles"] == json.loads((source / ".octue").read_text())["datafiles"]
    (folder / "4.csv").write_bytes(b"5,\n")
    (folder / "mine.csv").write_bytes(b"mine")
    (folder / "5.csv").unlink()
    strict_gcs.forget_requests()
    done = octuefs("download", stored, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 files written" in done.stdout
    assert "1 other file" in done.stdout
    media = [request.name for request in strict_gcs.requests if request.kind == "media"]
    assert sorted(media) == ["some/where/.octue", "some/where/4.csv", "some/where/5.csv"]
    assert_same(folder, source)
    assert (folder / "mine.csv").read_bytes() == b"mine"


def test_records_are_merged_into_those_that_are_there(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], stored: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    mine, own = record("mine"), record("old")
    describe(folder, {"mine.csv": mine, "0.csv": own}, {"id": str(uuid.uuid4()), "name": "old", "labels": ["x"]})
    before = json.loads((folder / ".octue").read_text())
    assert octuefs("download", stored, folder).returncode == 0
    after = json.loads((folder / ".octue").read_text())
    assert after["datafiles"]["mine.csv"] == mine
    assert after["datafiles"]["0.csv"]["labels"]["items"] == ["a"]
    assert after["datafiles"]["0.csv"]["id"] == own["id"]  # a stored ID stays
    assert (after["dataset"]["name"], after["dataset"]["id"]) == ("N", before["dataset"]["id"])


def test_no_link_is_followed_out_of_the_folder(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], stored: str, tmp_path: Path
) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    (outside / "deep").mkdir(parents=True)
    (outside / "victim").write_bytes(b"safe")
    (folder / "sub").symlink_to(outside)
    (folder / "3.csv").symlink_to(outside / "victim")
    done = octuefs("download", stored, folder)
    assert done.returncode == 1
    assert "sub/deep/zero: " in done.stderr
    assert (outside / "victim").read_bytes() == b"safe"
    assert {path.name for path in outside.rglob("*")} == {"deep", "victim"}
    assert (folder / "3.csv").read_bytes() == b"3,\n"
    assert not (folder / "3.csv").is_symlink()


def test_answers_that_break_off_are_asked_for_again(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    stored: str,
    source: Path,
    tmp_path: Path,
    strict_gcs: StrictGcs,
) -> None:
    cut = strict_gcs.cut_answer(is_media_of("large.bin"), MIB)
    failed = strict_gcs.fail(503, is_media_of(".csv"), times=3)
    done = octuefs("download", stored, tmp_path / "folder")
    assert (done.returncode, done.stderr) == (0, "")
    assert cut.hits == 1
    assert failed.hits == 3
    assert_same(tmp_path / "folder", source)


def test_an_object_that_is_replaced_meanwhile_is_listed_and_the_old_file_stays(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    stored: str,
    tmp_path: Path,
    strict_gcs: StrictGcs,
    bucket: Bucket,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "2.csv").write_bytes(b"old")
    strict_gcs.before(is_media_of("2.csv"), lambda: bucket.put("some/where/2.csv", b"theirs"))
    done = octuefs("download", stored, folder)
    assert done.returncode == 1
    assert "2.csv: " in done.stderr
    assert (folder / "2.csv").read_bytes() == b"old"
    assert (folder / "1.csv").read_bytes() == b"1,\n"
    assert temporaries(folder) == []
    assert octuefs("download", stored, folder).returncode == 0
    assert (folder / "2.csv").read_bytes() == b"theirs"


def test_a_download_that_was_killed_goes_on_and_clears_up(
    octuefs: Callable[..., subprocess.CompletedProcess[str]],
    stored: str,
    source: Path,
    tmp_path: Path,
    strict_gcs: StrictGcs,
) -> None:
    folder = tmp_path / "folder"
    held = strict_gcs.hold(is_media_of("large.bin"), times=None)
    with started(strict_gcs, "download", stored, folder) as process:
        assert held.arrived.wait(30)
        wait_for(lambda: (folder / "5.csv").exists())
        process.kill()
        process.wait(20)
    strict_gcs.clear()
    assert not (folder / "large.bin").exists()
    left = temporaries(folder)
    assert left
    for temporary in left:
        os.utime(temporary, (0, 0))
    assert octuefs("download", stored, folder).returncode == 0
    assert_same(folder, source)


def test_ctrl_c_ends_a_download_without_a_trace(stored: str, tmp_path: Path, strict_gcs: StrictGcs) -> None:
    folder = tmp_path / "folder"
    held = strict_gcs.hold(is_media_of("large.bin"), times=None)
    with started(strict_gcs, "download", stored, folder) as process:
        assert held.arrived.wait(30)
        wait_for(lambda: (folder / "5.csv").exists())
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        held.release()
        assert process.wait(30) == 1
        assert process.stderr is not None
        process.stderr.seek(0)
        assert "run the same download again" in process.stderr.read()
    assert temporaries(folder) == []
    assert not (folder / "large.bin").exists()
    assert (folder / "5.csv").read_bytes() == b"5,\n"


def test_modes_and_times_that_are_stored_are_set(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], place: str, tmp_path: Path, bucket: Bucket
) -> None:
    custom = {"goog-reserved-posix-mode": "640", "goog-reserved-file-mtime": "1600000000.25"}
    bucket.put("some/where/a.csv", b"a", custom)
    bucket.put("some/where/folder/", b"", {"goog-reserved-posix-mode": "500", "goog-reserved-file-mtime": "7"})
    bucket.put("some/where/folder/b.csv", b"b")
    folder = tmp_path / "copy"
    for _ in range(2):
        assert octuefs("download", place, folder).returncode == 0
        found = (folder / "a.csv").stat()
        assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o640, 1_600_000_000_250_000_000)
        assert (folder / "folder").stat().st_mode & 0o7777 == 0o500
        assert (folder / "folder").stat().st_mtime == 7
        (folder / "a.csv").chmod(0o600)


# --- verifying


def test_verify_compares_with_hashes(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path, tmp_path: Path
) -> None:
    (source / "new\nline \\ name").write_bytes(b"n")
    with mounted(source) as mount:
        hashes = (mount / ".hashes").read_bytes()
    file = tmp_path / "hashes"
    file.write_bytes(hashes)
    done = octuefs("verify", source, file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "8 files verified (19 bytes)\n", "")
    (source / "3.csv").write_bytes(b"4,\n")
    (source / "2.csv").unlink()
    (source / "extra\x1b.csv").write_bytes(b"")
    done = octuefs("verify", source, file)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == [
        "2.csv: missing",
        f"3.csv: changed: its hash is {encode_crc32c(extend_crc32c(0, b'4,' + bytes([10])))},"
        f" not {encode_crc32c(extend_crc32c(0, b'3,' + bytes([10])))}",
        "extra\\x1b.csv: extra: there is no hash for it",
    ]
    assert "3 files could not be verified" in done.stderr
    file.write_bytes(hashes + b"no hash\n")
    done = octuefs("verify", source, file)
    assert done.returncode == 1
    assert "line 9: " in done.stderr


def test_verify_compares_two_datasets(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], stored: str, source: Path, strict_gcs: StrictGcs
) -> None:
    (source / "x.octue").write_bytes(b"no datafile to a bucket")
    strict_gcs.forget_requests()
    for pair in ((source, stored), (stored, source)):
        done = octuefs("verify", *pair)
        assert (done.returncode, done.stderr) == (0, "")
    assert not [it for it in strict_gcs.requests if it.kind == "media" and not it.name.endswith(".octue")]
    (source / "large.bin").write_bytes(b"other")
    done = octuefs("verify", stored, source)
    assert done.returncode == 1
    assert "large.bin: changed" in done.stdout


def test_verify_reads_every_object_back(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], stored: str, strict_gcs: StrictGcs
) -> None:
    strict_gcs.forget_requests()
    done = octuefs("verify", stored)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "8 files verified (20.0 MiB)\n"
    assert {it.name for it in strict_gcs.requests if it.kind == "media"} >= {"some/where/large.bin", "some/where/0.csv"}


def test_verify_finds_what_a_disk_has_spoilt(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path
) -> None:
    done = octuefs("verify", source)
    assert done.returncode == 0
    assert "no hash was remembered of 7 of them" in done.stdout
    for path in source.rglob("*"):
        os.utime(path, (0, 0))
    time.sleep(0.3)
    assert octuefs("hash", source).returncode == 0  # remembers them
    done = octuefs("verify", source)
    assert (done.returncode, done.stdout) == (0, "7 files verified (18 bytes)\n")


# --- what is refused


def test_what_lies_in_a_mount_is_refused(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path, stored: str
) -> None:
    with mounted(source) as mount:
        for arguments in (("upload", mount, stored), ("download", stored, mount / "new" / "er"), ("verify", mount)):
            done = octuefs(*arguments)
            assert done.returncode == 1
            assert "lies in an octuefs mount" in done.stderr
        assert not (source / "new").exists()


def test_places_are_checked_first(
    octuefs: Callable[..., subprocess.CompletedProcess[str]], source: Path, place: str
) -> None:
    for arguments, text in (
        (("upload", place, source), "in this order"),
        (("download", source, place), "in this order"),
        (("download", place, source / "0.csv"), "is a file"),
        (("upload", source / "nowhere", place), "no such folder"),
        (("upload", source, "gs://octuefs-nowhere-at-all/x"), "no such bucket"),
        (("verify", source, source / "nowhere"), "nowhere"),
    ):
        done = octuefs(*arguments)
        assert done.returncode == 1
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
