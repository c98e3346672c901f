"""The places where the cloud benchmark does its work: buckets, and mounts of them of each kind."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_tools import PATIENCE, rclone_mounted

from support.gcs import GcsServer
from support.generated import Generated, custom_metadata
from support.mounting import DRIVER, mounted, run_octuefs

LISTED, SMALL, LARGE, DATASET = "bench-listed", "bench-small", "bench-large", "bench-sdk"
"""Buckets, each for one kind of work: the more objects one has, the slower fake-gcs-server is."""
LISTED_OBJECTS, LISTED_PER_FOLDER = 2_000, 100
SMALL_FILES, SMALL_BYTES = 400, 3_000
LARGE_BYTES = 256 << 20
LARGE_NAME = "large.bin"
DATASET_FILES, DATASET_PER_FOLDER = 500, 10
"""In small folders: for each file of a folder that is not in the cloud the SDK reads the `.octue` of all of it anew."""
SMALL_NAMES = [f"part/{number:04}.csv" for number in range(SMALL_FILES)]
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True)
class Kind:
    """A way to use a bucket: a mount of octuefs or of rclone, or none."""

    name: str
    driver: str = ""
    """Of octuefs."""
    cache_mode: str = ""
    """Of rclone."""


OCTUEFS = Kind("octuefs", driver="kernel")
LIBFUSE = Kind("octuefs, libfuse", driver="libfuse")
RCLONE = Kind("rclone, off", cache_mode="off")
RCLONE_FULL = Kind("rclone, full", cache_mode="full")
NO_MOUNT = Kind("no mount")
KINDS = (OCTUEFS, LIBFUSE, RCLONE, RCLONE_FULL, NO_MOUNT)
OURS = (OCTUEFS, LIBFUSE)
THEIRS = (RCLONE, RCLONE_FULL)


def begin_commands() -> None:
    """Have the program imported: the commands that follow are forked from a process which did that."""
    run_octuefs("--version")


@contextmanager
def shown(kind: Kind, server: GcsServer, bucket: str, state: Path) -> Iterator[Path]:
    """Mount a bucket in one way.

    :param state: where the mount keeps what it caches; in a new folder nothing is cached
    """
    if kind in OURS:
        folders = {"XDG_CACHE_HOME": state / "cache", "XDG_STATE_HOME": state / "state"}
        for folder in folders.values():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {**server.environment, DRIVER: kind.driver, **{key: str(path) for key, path in folders.items()}}
        with mounted(f"gs://{bucket}", "--read-only", environment=environment, timeout=PATIENCE) as mount:
            yield mount
        return
    mount = state / "mount"
    state.mkdir(exist_ok=True)
    options = ("--vfs-cache-mode", kind.cache_mode, "--cache-dir", state / "cache", "--log-level", "ERROR")
    with rclone_mounted(server, bucket, mount, *options) as mount:
        yield mount


@contextmanager
def new_state(work: Path) -> Iterator[Path]:
    """Make a folder for what a mount keeps, and remove it."""
    state = Path(tempfile.mkdtemp(dir=work, prefix="state-"))
    try:
        yield state
    finally:
        shutil.rmtree(state, ignore_errors=True)


def memory(mount: Path) -> dict[str, float]:
    """Return what memory the daemon of a mount of octuefs has ("VmRSS") and had at most ("VmHWM"), in MB."""
    pid = json.loads((mount / ".octuefs/status").read_bytes())["pid"]
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {parts[0][:-1]: int(parts[1]) * 1024 / 1e6 for parts in lines if parts[0] in ("VmRSS:", "VmHWM:")}


def drop_pages() -> None:
    """Have the kernel forget what it cached of all files, those of mounts included."""
    os.sync()
    DROP_CACHES.write_text("3")


def may_drop_pages() -> bool:
    """Whether the kernel lets us."""
    return os.access(DROP_CACHES, os.W_OK)


# --- what is in the buckets

Content = Mapping[str, tuple[bytes, Mapping[str, str] | None]]


def fill(server: GcsServer, large: bytes) -> None:
    """Put into new buckets what all works use."""
    small = b"0123456789abcde\n" * (SMALL_BYTES // 16)
    _fill(server, LISTED, {name: (b"1,2,3\n", metadata) for name, metadata in listed()})
    _fill(server, SMALL, {name: (name.encode() + small, None) for name in SMALL_NAMES})
    files = _described(DATASET_FILES, DATASET_PER_FOLDER)
    _fill(server, DATASET, {name: (name.encode() + small, metadata) for name, metadata in files})
    _fill(server, LARGE, {LARGE_NAME: (large, None)})


def listed() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the names of what is looked at, and the metadata."""
    return _described(LISTED_OBJECTS, LISTED_PER_FOLDER)


def _described(objects: int, per_folder: int) -> Iterator[tuple[str, dict[str, str]]]:
    names = Generated(objects, per_folder)
    for position in range(objects):
        folder, number = divmod(position, per_folder)
        yield names.name(position), custom_metadata(f"{folder:04}", number)


def _fill(server: GcsServer, bucket: str, content: Content) -> None:
    server.create_bucket(bucket)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: server.put(bucket, name, *content[name]), content))
