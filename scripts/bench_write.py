"""The benchmark of writing.

Local: a file of 1 GiB and 5,000 small files, through the mount and into the source folder itself. Cloud: a
fake-gcs-server of this machine, as it is and behind 30 ms that each request takes longer, through octuefs and through
`rclone mount` beside it, and by plain requests. What takes turns takes them run by run, so that all of a row meets
the same noise.
"""

import http.client
import json
import os
import shutil
import sqlite3
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench_tools import BLOCK, GIB, Row, rclone_mounted, run, seconds

from support.gcs import GcsServer
from support.latency import gcs_behind
from support.mounting import mounted, run_folder, run_octuefs

ROUNDS = 3
SMALL_FILES = 5_000
DELAYS = (0, 30)
"""Milliseconds that each request takes longer."""
FEW = 64
MANY, MANY_PER_FOLDER = 1_000, 50
LARGE = 256 << 20
KILOBYTE = b"0123456789abcde\n" * 64
Work = Callable[[Path], object]
BUCKET, RCLONE_BUCKET = "bench", "rclone"
RCLONE_OPTIONS = ("--vfs-cache-mode", "off")


def in_turns(
    works: Sequence[tuple[Work, Path]], rounds: int = ROUNDS, settle: Callable[[], object] = os.sync
) -> list[float]:
    """Return the median of each work's seconds; they take turns, each in a new folder of its place in each round.

    After each `settle` is called, so that nobody pays for what another has begun.
    """
    taken: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        for (work, place), times in zip(works, taken, strict=True):
            folder = place / f"part-{number}"
            folder.mkdir()
            times.append(seconds(work, folder))
            settle()
    return [statistics.median(times) for times in taken]


def write_file(path: Path, size: int) -> None:
    """Write a file from start to end in pieces of 1 MiB."""
    block = bytes(BLOCK)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // BLOCK):
            file.write(block)


def write_small(folder: Path, number: int = FEW) -> None:
    """Write so many files of 1 KB, one after another."""
    for index in range(number):
        with (folder / f"{index:04}.csv").open("wb", buffering=0) as file:
            file.write(KILOBYTE)


def copy(source: Path, target: Path) -> None:
    """Copy a file in pieces of 1 MiB."""
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        while block := reading.read(BLOCK):
            writing.write(block)


def append(path: Path) -> None:
    """Write 1 KB to the end of a file."""
    with path.open("ab", buffering=0) as file:
        file.write(KILOBYTE)


# --- local


def bench_write_local(work: Path) -> list[Row]:
    """Measure writing through the mount of a local folder."""
    source, beside = work / "dataset", work / "beside"
    source.mkdir()
    beside.mkdir()
    with mounted(source) as mount:
        taken: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for folder, times in zip((beside, mount), taken, strict=True):
                times.append(seconds(write_file, folder / "large", GIB))
                (folder / "large").unlink()
                os.sync()  # as `in_turns` does
        plain, ours = map(statistics.median, taken)
        speed, ratio = f"{GIB / 1e6 / ours:,.0f} MB/s", f"{plain / ours:.2f} of the source's speed"
        rows: list[Row] = [("write a file of 1 GiB", speed, ratio, ">= 200 MB/s")]
        create = partial(write_small, number=SMALL_FILES)
        plain, ours = in_turns([(create, beside), (create, mount)])
        speed, ratio = f"{SMALL_FILES / ours:,.0f}/s", f"{plain / ours:.2f} of the source's speed"
        rows.append((f"create {SMALL_FILES:,} files of 1 KB", speed, ratio, ">= 1,000/s"))
    return rows


# --- cloud


@contextmanager
def server_behind(delay: int) -> Iterator[GcsServer]:
    """Run a server with two empty buckets: what it has makes it slow, so each measurement has its own."""
    with gcs_behind(delay) as server:
        server.create_bucket(BUCKET)
        server.create_bucket(RCLONE_BUCKET)
        yield server


@contextmanager
def both_mounted(server: GcsServer, work: Path) -> Iterator[tuple[Path, Path]]:
    """Mount a bucket with octuefs and another with rclone."""
    beside = work / "rclone"
    with (
        mounted(f"gs://{BUCKET}", environment=server.environment) as ours,
        rclone_mounted(server, RCLONE_BUCKET, beside, *RCLONE_OPTIONS) as theirs,
    ):
        yield ours, theirs
    beside.rmdir()


def behind(delay: int) -> str:
    """Say in a row what stands in front of the server."""
    return f", {delay} ms" if delay else ""


def bench_write_cloud(work: Path) -> list[Row]:
    """Measure writing through the mount of a bucket."""
    large = work / "large"
    with large.open("wb") as file:
        for _ in range(LARGE // BLOCK):
            file.write(os.urandom(BLOCK))
    rows = [bench_few(work, delay) for delay in DELAYS]
    rows += [bench_large(work, delay, large) for delay in DELAYS]
    rows += [bench_append(delay, large) for delay in DELAYS]
    rows.append(bench_many(work, DELAYS[-1]))
    rows += [bench_write_back(delay) for delay in DELAYS]
    return rows


def bench_few(work: Path, delay: int) -> Row:
    """Measure 64 small files, one after another, against rclone."""
    with server_behind(delay) as server, both_mounted(server, work) as (ours, theirs):
        our, their = in_turns([(write_small, ours), (write_small, theirs)])
    goal = "<= 2.2 s" if delay else "<= 0.3 s"
    what = f"{FEW} files of 1 KB, one after another{behind(delay)}"
    return what, f"{our:.2f} s", f"{our / their:.2f}x rclone mount ({their:.2f} s)", goal


def bench_large(work: Path, delay: int, large: Path) -> Row:
    """Measure a file of 256 MB against one resumable PUT of it; rclone's time is of one run."""
    with server_behind(delay) as server, both_mounted(server, work) as (ours, theirs):
        taken: list[list[float]] = [[], []]
        for number in range(ROUNDS):
            taken[0].append(seconds(put_resumably, server, RCLONE_BUCKET, large))
            server.delete(RCLONE_BUCKET, large.name)
            target = ours / f"large-{number}"
            taken[1].append(seconds(copy, large, target))
            target.unlink()
        plain, our = map(statistics.median, taken)
        their = seconds(copy, large, theirs / "large")
    what = f"a file of 256 MiB{behind(delay)}"
    return what, f"{our:.2f} s", f"{our / plain:.2f}x one PUT ({plain:.2f} s), rclone mount {their:.1f} s", "<= 1.3x"


def put_resumably(server: GcsServer, bucket: str, path: Path) -> None:
    """Store a file by one request of a resumable upload."""
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=120, blocksize=BLOCK)
    with closing(connection), path.open("rb", buffering=0) as file:
        body = json.dumps({"name": path.name})
        url = f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable"
        connection.request("POST", url, body, {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            answer.read()
            session = urlsplit(answer.headers["Location"])
        size = path.stat().st_size
        headers = {"Content-Length": str(size), "Content-Range": f"bytes 0-{size - 1}/{size}"}
        connection.request("PUT", f"{session.path}?{session.query}", file, headers)
        with connection.getresponse() as answer:
            answer.read()
            if answer.status not in (200, 201):
                raise SystemExit(f"bench: the server did not take {path}: {answer.status} {answer.reason}")


def bench_append(delay: int, large: Path) -> Row:
    """Measure how long it takes to append 1 KB to an object of 256 MB, beside one plain request for that."""
    with server_behind(delay) as server:
        put_resumably(server, BUCKET, large)
        put_resumably(server, RCLONE_BUCKET, large)
        server.put(RCLONE_BUCKET, "tail", KILOBYTE)
        taken: list[list[float]] = [[], []]
        with mounted(f"gs://{BUCKET}", environment=server.environment) as mount:
            for _ in range(ROUNDS):
                taken[0].append(seconds(compose, server, RCLONE_BUCKET, large.name, "tail"))
                taken[1].append(seconds(append, mount / large.name))
        plain, ours = map(statistics.median, taken)
    what = f"1 KB appended to 256 MiB{behind(delay)}"
    return what, f"{ours:.2f} s", f"{ours / plain:.2f}x one compose request ({plain:.2f} s)", "<= 0.5 s"


def compose(server: GcsServer, bucket: str, *names: str) -> None:
    """Have the server join objects under the first one's name."""
    body = json.dumps({"sourceObjects": [{"name": name} for name in names], "destination": {}})
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=120)
    with closing(connection):
        url = f"/storage/v1/b/{bucket}/o/{names[0]}/compose"
        connection.request("POST", url, body, {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"bench: the server did not join {names}: {answer.status} {answer.reason}")


def bench_many(work: Path, delay: int) -> Row:
    """Measure `cp -r` of 1,000 small files, until all are stored: with --write-back and without."""
    source = work / "many"
    source.mkdir()
    for number in range(MANY // MANY_PER_FOLDER):
        folder = source / f"part-{number:02}"
        folder.mkdir()
        write_small(folder, MANY_PER_FOLDER)
    taken = []
    for options in ((), ("--write-back",)):
        with server_behind(delay) as server:
            environment = server.environment
            with mounted(f"gs://{BUCKET}", *options, environment=environment, timeout=120) as mount:
                taken.append(seconds(copy_and_sync, source, mount))
            stored = len([item for item in server.list(BUCKET) if not item["name"].endswith("/")])
            if stored != MANY:
                raise SystemExit(f"bench: {stored} of {MANY} files were stored")
    shutil.rmtree(source)
    default, behind_ = taken
    what = f"{MANY:,} small files, cp -r, --write-back, sync{behind(delay)}"
    return what, f"{behind_:.2f} s", f"{default / behind_:.1f}x as fast as without ({default:.1f} s)", ">= 5x"


def copy_and_sync(source: Path, mount: Path) -> None:
    """Copy a folder, and wait until the store has it."""
    run("cp", "-r", source, mount)
    sync(mount)


def sync(mount: Path) -> None:
    """Wait until all that was written is stored, by the command that a user has, its start included."""
    result = run_octuefs("sync", mount, timeout=300)
    if result.returncode != 0:
        raise SystemExit(f"bench: octuefs sync: {result.stderr}")


def bench_write_back(delay: int) -> Row:
    """Measure the closes of 64 small files with --write-back against making as many durable by hand."""
    place = run_folder() / "durable"  # on the disk of the journal
    place.mkdir()
    with (
        server_behind(delay) as server,
        mounted(f"gs://{BUCKET}", "--write-back", environment=server.environment) as mount,
        closing(sqlite3.connect(place / "journal.sqlite", isolation_level=None)) as journal,
    ):
        journal.execute("PRAGMA journal_mode=WAL")
        journal.execute("PRAGMA synchronous=FULL")
        journal.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        by_hand = partial(write_durably, journal=journal)
        plain, ours = in_turns([(by_hand, place), (write_small, mount)], 2 * ROUNDS - 1, partial(sync, mount))
    shutil.rmtree(place)
    what = f"{FEW} files of 1 KB, --write-back, closed{behind(delay)}"
    against = f"{ours / plain:.1f}x fsyncs and commits ({1000 * plain:.0f} ms)"
    return what, f"{1000 * ours:.0f} ms", against, "<= 2.5x"


def write_durably(folder: Path, journal: sqlite3.Connection) -> None:
    """Write 64 files of 1 KB, each with fsync of itself and of the folder, and one commit."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for index in range(FEW):
            path = folder / f"{index:04}.csv"
            with path.open("wb", buffering=0) as file:
                file.write(KILOBYTE)
                os.fsync(file.fileno())
            os.fsync(descriptor)
            journal.execute("INSERT INTO entries VALUES (?, ?)", (str(path), json.dumps({"size": len(KILOBYTE)})))
    finally:
        os.close(descriptor)
