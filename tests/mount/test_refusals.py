"""What is refused leaves the store as it was, and `.octuefs/errors` says why; what could not be stored is kept."""

import contextlib
import errno
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from model.mounts import Mount, get, labels, put, remountable, wait_until
from mount.writing import fails_with, opened

from support.gcs import Bucket, GcsServer
from support.strict_gcs import Request, StrictGcs

MIB = 1 << 20
DOCUMENT = {
    "datafiles": {
        "a.csv": {"labels": {"_type": "set", "items": ["x"]}, "tags": {"k": 1}, "timestamp": None},
        "b.csv": {"labels": {"_type": "set", "items": ["y"]}, "tags": {}, "timestamp": None},
    }
}


@dataclass
class Place:
    """A mounted dataset: a.csv (labelled x, tag k), b.csv (labelled y), folder d with c.csv."""

    mount: Mount
    look: Callable[[], Any]
    """All that a change could change in the store."""
    in_cloud: bool

    @property
    def root(self) -> Path:
        return self.mount.point


def look_into_folder(source: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in source.rglob("*"):
        at = path.lstat()
        data = path.read_bytes() if path.is_file() else None
        found[str(path)] = (at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns, data)
    return found


def fill_folder(source: Path) -> None:
    (source / "d").mkdir(parents=True)
    for name in ("a.csv", "b.csv", "d/c.csv"):
        (source / name).write_text(f"content of {name}\n")
    (source / ".octue").write_text(json.dumps(DOCUMENT))


def fill_bucket(bucket: Bucket) -> None:
    bucket.put("data/a.csv", b"content of a.csv\n", {"octue__labels": '["x"]', "octue__tags": '{"k": 1}'})
    bucket.put("data/b.csv", b"content of b.csv\n", {"octue__labels": '["y"]'})
    bucket.put("data/d/", b"")
    bucket.put("data/d/c.csv", b"content of d/c.csv\n")


@contextlib.contextmanager
def place_of(kind: str, tmp_path: Path, bucket: Bucket, gcs: StrictGcs, *options: str) -> Iterator[Place]:
    if kind == "local":
        source = tmp_path / "source"
        fill_folder(source)
        with remountable(source, *options) as mount:
            yield Place(mount, lambda: look_into_folder(source), False)
    else:
        fill_bucket(bucket)
        with remountable(f"{bucket.url}/data", *options, environment=gcs.environment) as mount:
            yield Place(mount, bucket.list, True)


@pytest.fixture(scope="module", params=["local", "cloud"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, gcs_server: GcsServer
) -> Iterator[Place]:
    """One for all tests that leave everything as it was."""
    name = f"octuefs-{uuid.uuid4().hex[:12]}"
    gcs_server.create_bucket(name)
    with (
        StrictGcs(gcs_server.environment) as gcs,
        place_of(request.param, tmp_path_factory.mktemp("refusals"), Bucket(gcs_server, name), gcs) as it,
    ):
        yield it
    gcs_server.delete_bucket(name)


@pytest.fixture
def cloud(tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs) -> Iterator[Mount]:
    with place_of("cloud", tmp_path, bucket, strict_gcs) as it:
        yield it.mount


def sync(place: Place) -> None:
    """Have all metadata in the store."""
    for folder in (place.root, place.root / "d"):
        with opened(folder, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)


@contextlib.contextmanager
def refused(place: Place, number: int, *words: str) -> Iterator[None]:
    """What is within fails with this errno, changes nothing in the store and is explained in `errors`."""
    before, told = place.look(), place.mount.errors()
    with fails_with(number):
        yield
    sync(place)  # what would be written behind is written by now
    assert place.look() == before
    new = place.mount.errors()
    assert new != told, "errors says nothing of it"
    assert "Traceback" not in new
    for word in words:
        assert word in new, f"errors does not name {word}: {new}"


# --- EINVAL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", "Not-lower"),
        ("labels", "good bad-"),
        ("labels", '["a", 5]'),
        ("labels", "a_b"),
        ("tags", "no JSON"),
        ("tags", "[1, 2]"),
        ("tags", '{"Bad": 1}'),
        ("tags", '{"k_": 1}'),
        ("tags.Bad", "1"),
        ("tags.k_", "1"),
        ("timestamp", "yesterday"),
        ("timestamp", "2024-13-01T00:00:00"),
        ("timestamp", ""),
    ],
)
def test_a_bad_value_of_an_attribute_is_einval(name: str, value: str, place: Place) -> None:
    with refused(place, errno.EINVAL, "a.csv"):
        put(place.root / "a.csv", name, value)
    assert labels(place.root / "a.csv") == {"x"}
    assert get(place.root / "a.csv", "tags") == '{"k": 1}'


def test_bytes_that_are_no_text_are_einval(place: Place) -> None:
    with refused(place, errno.EINVAL, "a.csv"):
        os.setxattr(place.root / "a.csv", "user.octue.labels", b"\xff\xfe")


@pytest.fixture
def _metadata_are_put_back(place: Place) -> Iterator[None]:
    """Also where a test fails, the next ones find what they need."""
    yield
    put(place.root / "a.csv", "labels", "x")
    put(place.root / "a.csv", "tags", '{"k": 1}')
    put(place.root / "b.csv", "labels", "y")
    sync(place)
    for entry in place.mount.recovered():
        (place.root / ".octuefs" / "recovered" / entry).unlink()


@pytest.mark.parametrize("folder", ["", "d"])
@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"datafiles": []}', '{"datafiles": {"a.csv": 5}}', '{"datafiles": {"c.csv": {"labels": ["A"]}}}'],
)
@pytest.mark.usefixtures("_metadata_are_put_back")
def test_a_malformed_octue_is_einval_and_kept(folder: str, text: str, place: Place) -> None:
    with refused(place, errno.EINVAL, ".octue"), opened(place.root / folder / ".octue", os.O_WRONLY | os.O_CREAT) as fd:
        os.ftruncate(fd, 0)
        os.write(fd, text.encode())
    assert place.mount.recovered_of(".octue") == [text.encode()]
    assert labels(place.root / "a.csv") == {"x"}
    (entry,) = place.mount.recover()
    assert place.mount.command("recover", "--discard", entry["name"]).returncode == 0
    assert place.mount.recovered() == {}


@pytest.mark.usefixtures("_metadata_are_put_back")
def test_a_malformed_octue_is_kept_over_mounts(place: Place) -> None:
    with fails_with(errno.EINVAL), opened(place.root / ".octue", os.O_WRONLY | os.O_TRUNC) as fd:
        os.write(fd, b"{")
    place.mount.unmount()
    place.mount.mount()
    assert place.mount.recovered_of(".octue") == [b"{"]
    assert labels(place.root / "a.csv") == {"x"}
    (entry,) = place.mount.recover()
    assert place.mount.command("recover", "--discard", entry["name"]).returncode == 0


def test_a_file_with_no_metadata_in_it_renamed_to_octue_is_einval(place: Place) -> None:
    with refused(place, errno.EINVAL, ".octue"):
        os.rename(place.root / "b.csv", place.root / "d" / ".octue")
    assert (place.root / "b.csv").read_text() == "content of b.csv\n"


# --- EPERM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["id", "hash", "metadata_hash", "cloud_path", "local_path", "exists_locally", "exists_in_cloud", "sync"]
)
def test_what_is_not_ours_to_set_is_eperm(name: str, place: Place) -> None:
    with refused(place, errno.EPERM, name):
        put(place.root / "a.csv", name, "x")
    with refused(place, errno.EPERM, name):
        os.removexattr(place.root / "a.csv", f"user.octue.{name}")


def test_a_folder_has_no_metadata_of_its_own(place: Place) -> None:
    with refused(place, errno.EPERM, "labels"):
        put(place.root / "d", "labels", "x")
    with refused(place, errno.EPERM, "labels"):
        put(place.root / "by-label" / "x", "labels", "y")


@pytest.mark.parametrize("view", ["by-ext/csv", "filter/name=a.csv", "by-label/x,y", "not/by-label/x", "by-hash"])
def test_making_and_removing_in_views_that_are_not_ours_to_set_is_eperm(view: str, place: Place) -> None:
    if view == "by-hash":
        view = f"by-hash/{os.listdir(place.root / 'by-hash')[0]}"
    shown = next(path for path in sorted((place.root / view).rglob("*")) if path.is_file() and path.name != ".octue")
    with refused(place, errno.EPERM, "new"):
        (place.root / view / "new").write_text("x")
    with refused(place, errno.EPERM, shown.name):
        shown.unlink()
    with refused(place, errno.EPERM, "new"):
        (place.root / view / "new").mkdir()
    with refused(place, errno.EPERM, shown.name):
        os.rename(shown, shown.with_name("renamed"))


def test_names_in_order_by_are_not_ours_to_set(place: Place) -> None:
    first = place.root / "order-by" / "name" / "000001_a.csv"
    with refused(place, errno.EPERM, "000001_a.csv"):
        first.unlink()
    with refused(place, errno.EPERM, "new"):
        (first.parent / "new").write_text("x")


@pytest.mark.parametrize("name", [".hash", ".hashes", ".metadata_hash"])
def test_virtual_files_cannot_be_renamed_to_or_removed(name: str, place: Place) -> None:
    with refused(place, errno.EPERM, name):
        os.rename(place.root / "b.csv", place.root / name)
    with refused(place, errno.EPERM, name):
        (place.root / name).unlink()


@pytest.mark.parametrize("name", ["by-label", "by-ext", "filter", "not", ".octuefs"])
def test_virtual_folders_cannot_be_made_renamed_to_or_removed(name: str, place: Place) -> None:
    before = place.look()
    with fails_with(errno.EISDIR):  # the kernel's own
        os.rename(place.root / "b.csv", place.root / name)
    with fails_with(errno.EPERM, errno.ENOTEMPTY):
        os.rename(place.root / "d", place.root / name)
    with fails_with(errno.EEXIST):
        (place.root / name).mkdir()
    with fails_with(errno.EPERM):
        (place.root / name).rmdir()
    assert place.look() == before


def test_names_like_those_of_our_own_temporary_files_are_eperm(place: Place) -> None:
    with refused(place, errno.EPERM, ".octuefs-"):
        (place.root / f".octuefs-{'0' * 32}.octue").write_text("x")


def test_a_view_never_hides_a_file_that_stands_there(place: Place) -> None:
    before = place.look()
    with fails_with(errno.EEXIST):
        (place.root / "by-label" / "x" / "b.csv").write_text("lost?")
    with fails_with(errno.EEXIST):
        os.rename(place.root / "by-label" / "x" / "a.csv", place.root / "by-label" / "x" / "b.csv")
    place.mount.command("sync")
    assert place.look() == before


# --- EROFS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "cloud"])
def test_a_read_only_mount_refuses_everything(kind: str, tmp_path: Path, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    with place_of(kind, tmp_path, bucket, strict_gcs, "--read-only") as place:
        root = place.root
        before = place.look()
        strict_gcs.forget_requests()
        attempts: dict[str, Callable[[], Any]] = {
            "create": lambda: (root / "new").write_text("x"),
            "open": lambda: os.open(root / "a.csv", os.O_WRONLY),
            "truncate": lambda: os.truncate(root / "a.csv", 0),
            "unlink": lambda: (root / "a.csv").unlink(),
            "rename": lambda: os.rename(root / "a.csv", root / "b.csv"),
            "mkdir": lambda: (root / "new").mkdir(),
            "rmdir": lambda: (root / "d").rmdir(),
            "chmod": lambda: (root / "a.csv").chmod(0o600),
            "utime": lambda: os.utime(root / "a.csv", (1, 1)),
            "setfattr": lambda: put(root / "a.csv", "labels", "y"),
            "setfattr -x": lambda: os.removexattr(root / "a.csv", "user.octue.labels"),
            "setfattr of the dataset": lambda: put(root, "labels", "y"),
            "symlink": lambda: os.symlink("a.csv", root / "link"),
            "link": lambda: os.link(root / "a.csv", root / "link"),
            ".octue": lambda: (root / ".octue").write_text("{}"),
            "by-label": lambda: (root / "by-label" / "x" / "new").write_text("x"),
            "mkdir in by-label": lambda: (root / "by-label" / "new").mkdir(),
        }
        found = {}
        for name, attempt in attempts.items():
            try:
                attempt()
                found[name] = "succeeded"
            except OSError as error:
                found[name] = errno.errorcode[error.errno or 0]
        assert found == dict.fromkeys(attempts, "EROFS")
        assert place.look() == before
        assert [request for request in strict_gcs.requests if request.method != "GET"] == []


# --- E2BIG -----------------------------------------------------------------------------------------------------------


def test_metadata_beyond_what_an_object_holds_are_e2big_and_nothing_is_changed(
    cloud: Mount, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    place = Place(cloud, bucket.list, True)
    with refused(place, errno.E2BIG, "a.csv"):
        put(cloud.point / "a.csv", "tags", json.dumps({"k": "x" * 9000}))
    assert get(cloud.point / "a.csv", "tags") == '{"k": 1}'
    with refused(place, errno.E2BIG, "a.csv"):
        put(cloud.point / "a.csv", "tags.more", "y" * 9000)
    assert strict_gcs.count("PATCH") == 0


# --- ENOSPC: the disk on which files are staged ----------------------------------------------------------------------


@dataclass
class Disk:
    """A small disk for the state of mounts."""

    folder: Path
    ballast: Path

    def fill(self) -> None:
        """Take all that is free."""
        with self.ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "small-disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "octuefs-tests", folder], check=True)
    try:
        yield Disk(folder, folder / "ballast")
    finally:
        deadline = time.monotonic() + 10
        while subprocess.run(["umount", folder], capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, "somebody still uses the small disk"
            time.sleep(0.1)


@pytest.fixture
def full(disk: Disk, bucket: Bucket, strict_gcs: StrictGcs) -> Iterator[Mount]:
    """A mount of the bucket that stages its files on the small disk."""
    fill_bucket(bucket)
    environment = {**strict_gcs.environment, "XDG_STATE_HOME": str(disk.folder)}
    with remountable(f"{bucket.url}/data", environment=environment) as mount:
        yield mount
        disk.free()


def write_all(descriptor: int, size: int) -> int:
    """Write until an error or the end, and return the errno."""
    try:
        for _ in range(0, size, 1 << 17):
            os.write(descriptor, bytes(1 << 17))
    except OSError as error:
        return error.errno or 0
    return 0


def closed(descriptor: int) -> int:
    """Close, and return the errno."""
    try:
        os.close(descriptor)
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.parametrize("name", ["new", "a.csv"])
def test_a_full_staging_disk_is_enospc_and_the_store_is_as_it_was(
    name: str, full: Mount, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    before = bucket.list()
    strict_gcs.forget_requests()
    descriptor = os.open(full.point / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    assert write_all(descriptor, 12 * MIB) == errno.ENOSPC
    assert closed(descriptor) == errno.ENOSPC
    assert bucket.list() == before
    assert [it for it in strict_gcs.requests if it.kind in ("upload", "start", "send", "compose", "patch")] == []
    assert name in full.errors()
    assert "No space left" in full.errors()
    # What was refused takes no room, so the mount goes on.
    wait_until(lambda: sorted(os.listdir(full.point)) == [".octue", "a.csv", "b.csv", "d"])
    assert (full.point / "a.csv").read_text() == "content of a.csv\n"
    (full.point / "other").write_bytes(bytes(2 * MIB))
    assert bucket.get("data/other") == bytes(2 * MIB)
    assert full.recovered() == {}


def test_space_that_is_freed_lets_the_mount_go_on(full: Mount, disk: Disk, bucket: Bucket) -> None:
    descriptor = os.open(full.point / "new", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, bytes(MIB))
    disk.fill()
    assert write_all(descriptor, 4 * MIB) == errno.ENOSPC
    # Reading needs no room.
    assert (full.point / "a.csv").read_text() == "content of a.csv\n"
    assert sorted(os.listdir(full.point / "d")) == ["c.csv"]
    disk.free()
    # A file of which a part is missing is not stored, whatever room there is now.
    assert closed(descriptor) == errno.ENOSPC
    assert bucket.list("data/new") == []
    (full.point / "new").write_bytes(b"written anew")
    assert bucket.get("data/new") == b"written anew"
    put(full.point / "new", "labels", "x")
    assert labels(full.point / "new") == {"x"}


def test_a_disk_that_is_full_from_the_start_refuses_and_loses_nothing(full: Mount, disk: Disk, bucket: Bucket) -> None:
    before = bucket.list()
    disk.fill()
    with fails_with(errno.ENOSPC), (full.point / "a.csv").open("wb", buffering=0) as file:
        for _ in range(8):
            file.write(bytes(MIB))
    assert bucket.list() == before
    assert (full.point / "b.csv").read_text() == "content of b.csv\n"
    disk.free()
    (full.point / "a.csv").write_text("new")
    assert bucket.get("data/a.csv") == b"new"
    assert labels(full.point / "a.csv") == {"x"}


def test_statfs_tells_what_is_free_for_staging(full: Mount, disk: Disk) -> None:
    told = os.statvfs(full.point)
    real = os.statvfs(disk.folder)
    assert told.f_bavail * told.f_frsize <= real.f_bavail * real.f_frsize + (1 << 17)
    disk.fill()
    wait_until(lambda: (it := os.statvfs(full.point)).f_bavail * it.f_frsize < 1 << 17)


def test_what_was_closed_with_write_back_is_not_lost_on_a_full_disk(
    disk: Disk, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    fill_bucket(bucket)
    environment = {**strict_gcs.environment, "XDG_STATE_HOME": str(disk.folder)}
    with remountable(f"{bucket.url}/data", "--write-back", environment=environment) as mount:
        held = strict_gcs.hold(lambda it: it.kind in ("upload", "start", "send"), times=None)
        kept = []
        with fails_with(errno.ENOSPC):
            for number in range(12):
                (mount.point / f"f{number}").write_bytes(bytes([number]) * MIB)
                kept.append(number)
        assert kept
        refused_at = len(kept)
        held.release()
        assert mount.command("sync").returncode in (0, 1)
        for number in kept:
            assert bucket.get(f"data/f{number}") == bytes([number]) * MIB
        assert bucket.list(f"data/f{refused_at}") == []
        (mount.point / f"f{refused_at}").write_bytes(b"goes now")
        assert mount.command("sync").returncode == 0
        assert bucket.get(f"data/f{refused_at}") == b"goes now"


# --- a bucket that refuses -------------------------------------------------------------------------------------------


def is_upload(request: Request) -> bool:
    return request.kind in ("upload", "start", "send")


FAULTS: dict[str, tuple[Callable[[StrictGcs], Any], tuple[int, ...]]] = {
    "401": (lambda gcs: gcs.fail(401, is_upload, None), (errno.EACCES,)),
    "403": (lambda gcs: gcs.fail(403, is_upload, None), (errno.EACCES,)),
    "404": (lambda gcs: gcs.fail(404, is_upload, None), (errno.ENOENT, errno.EIO)),
    "429": (lambda gcs: gcs.fail(429, is_upload, None), (errno.EIO,)),
    "500": (lambda gcs: gcs.fail(500, is_upload, None), (errno.EIO,)),
    "503": (lambda gcs: gcs.fail(503, is_upload, None), (errno.EIO,)),
    "connection": (lambda gcs: gcs.drop(is_upload, None), (errno.EIO, errno.ETIMEDOUT)),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "name", "size"),
    [
        *((fault, name, 1000) for fault in ("401", "403", "404") for name in ("a.csv", "new")),
        ("403", "a.csv", 9 * MIB),
        ("429", "new", 1000),
        ("500", "a.csv", 1000),
        ("503", "new", 9 * MIB),
        ("connection", "a.csv", 1000),
    ],
)
def test_an_upload_that_fails_fails_the_close_and_the_bytes_are_kept(
    fault: str, name: str, size: int, cloud: Mount, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    begin, numbers = FAULTS[fault]
    before = bucket.list()
    rule = begin(strict_gcs)
    data = os.urandom(1000) * (size // 1000)
    descriptor = os.open(cloud.point / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for offset in range(0, len(data), MIB):
        os.write(descriptor, data[offset : offset + MIB])
    with fails_with(*numbers):
        os.close(descriptor)
    assert name in cloud.errors()
    assert cloud.recovered_of(name) == [data]
    assert bucket.list() == before
    assert rule.hits
    # What stood there stands there, with what was said of it; what never stood there does not.
    wait_until(lambda: (cloud.point / "a.csv").read_text() == "content of a.csv\n")
    assert labels(cloud.point / "a.csv") == {"x"}
    wait_until(lambda: not (cloud.point / "new").exists())
    rule.remove()
    (entry,) = cloud.recover()
    result = cloud.command("recover", "--restore", entry["name"])
    assert result.returncode == 0, result.stderr
    assert cloud.command("sync").returncode == 0
    assert bucket.get(f"data/{name}") == data
    assert labels(cloud.point / "a.csv") == {"x"}
    assert cloud.recovered() == {}


@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_a_failure_that_passes_is_not_seen(size: int, cloud: Mount, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    data = os.urandom(1000) * (size // 1000)
    rules = [strict_gcs.fail(503, is_upload, 1), strict_gcs.drop(is_upload, 1), strict_gcs.fail(429, is_upload, 1)]
    (cloud.point / "new").write_bytes(data)
    assert all(rule.hits for rule in rules)
    assert bucket.get("data/new") == data
    assert cloud.recovered() == {}


def test_a_large_upload_that_is_cut_off_goes_on_where_it_was(
    cloud: Mount, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    data = os.urandom(MIB) * 24
    cut = strict_gcs.cut_body(lambda it: it.kind == "send" and it.size > 4 * MIB, 3 * MIB)
    (cloud.point / "new").write_bytes(data)
    assert cut.hits == 1
    assert bucket.get("data/new") == data
    sent = sum(request.size for request in strict_gcs.requests if request.kind == "send")
    assert sent < len(data) + 8 * MIB, "it was begun anew"


def test_a_bucket_that_keeps_other_bytes_is_eio_and_nothing_is_lost(
    cloud: Mount, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    # What arrives in the bucket is not what was sent; the server itself would refuse with our checksum's help.
    rule = strict_gcs.fail(400, is_upload, None)
    descriptor = os.open(cloud.point / "new", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, b"content")
    with fails_with(errno.EIO, errno.EINVAL):
        os.close(descriptor)
    assert rule.hits
    assert cloud.recovered_of("new") == [b"content"]


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("patch", lambda root: put(root / "a.csv", "labels", "new")),
        ("patch", lambda root: (root / "a.csv").chmod(0o600)),
        ("delete", lambda root: (root / "a.csv").unlink()),
        ("rewrite", lambda root: os.rename(root / "a.csv", root / "renamed")),
        ("rewrite", lambda root: os.rename(root / "a.csv", root / "b.csv")),
        ("rewrite", lambda root: os.rename(root / "d", root / "e")),
        ("upload", lambda root: (root / "new").mkdir()),
        ("upload", lambda root: put(root, "labels", "dataset")),
    ],
    ids=["setfattr", "chmod", "unlink", "rename", "rename-over", "rename-folder", "mkdir", "setfattr-dataset"],
)
def test_any_change_that_the_bucket_refuses_is_eacces_and_nothing_is_changed(
    kind: str, act: Callable[[Path], Any], cloud: Mount, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    before = bucket.list()
    listing = sorted(os.listdir(cloud.point))
    refusal = strict_gcs.fail(403, lambda it: it.kind == kind, None)
    with fails_with(errno.EACCES):
        act(cloud.point)
    assert refusal.hits
    assert bucket.list() == before
    assert "refus" in cloud.errors() or "403" in cloud.errors()
    assert sorted(os.listdir(cloud.point)) == listing
    assert labels(cloud.point / "a.csv") == {"x"}
    assert (cloud.point / "a.csv").read_text() == "content of a.csv\n"
    refusal.remove()
    act(cloud.point)
    assert cloud.status()["writing"]["interrupted_renames"] == 0


def test_of_many_setfattrs_each_reports_its_own_failure(cloud: Mount, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    for number in range(10):
        (cloud.point / f"f{number}").write_text("x")
    strict_gcs.fail(403, lambda it: it.kind == "patch" and it.name.endswith(("3", "7")), None)
    found = {}
    for number in range(10):
        try:
            put(cloud.point / f"f{number}", "labels", "new")
            found[number] = 0
        except OSError as error:
            found[number] = error.errno or 0
    assert found == {number: errno.EACCES if number in (3, 7) else 0 for number in range(10)}
    strict_gcs.clear()
    for number in range(10):
        stored = bucket.stat(f"data/f{number}").get("metadata", {})
        assert ("octue__labels" in stored) == (number not in (3, 7))
