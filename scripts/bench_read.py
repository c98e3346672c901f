"""The benchmark of reading.

Local: a dataset of 20,000 small files with metadata, and a file of 1 GiB, through the mount and from the source
folder itself. Cloud: 2,000 objects on a fake-gcs-server of this machine, through octuefs and through
`rclone mount` beside it.
"""

import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench_tools import BLOCK, GIB, Row, rclone_mounted, run, seconds

from support.gcs import GcsServer
from support.mounting import mounted

FILES = 20_000
FILES_PER_FOLDER = 200
OBJECTS = 2_000
ROUNDS = 3


def make_dataset(root: Path) -> None:
    """Write 20,000 files in folders of 200, each with a record in its folder's `.octue`."""
    for folder in range(FILES // FILES_PER_FOLDER):
        place = root / f"turbine-{folder:03}"
        place.mkdir(parents=True)
        records = {}
        for number in range(FILES_PER_FOLDER):
            name = f"part-{number:04}.csv"
            (place / name).write_text(f"{folder},{number}\n" * 20)
            records[name] = {
                "id": f"{folder:08x}-0000-4000-8000-{number:012x}",
                "timestamp": {"_type": "datetime", "value": f"2024-{folder % 12 + 1:02}-{number % 28 + 1:02}T00:00:00"},
                "tags": {"turbine": folder, "height": number % 100 / 2},
                "labels": {"_type": "set", "items": ["even" if number % 2 == 0 else "odd", "x"]},
                "sdk_version": "0.69.1",
            }
        (place / ".octue").write_text(json.dumps({"datafiles": records}, indent=4) + "\n")


def read_file(path: Path) -> None:
    """Read a file from start to end in pieces of 1 MiB."""
    with path.open("rb", buffering=0) as file:
        while file.read(BLOCK):
            pass


def daemon_memory(mount_point: Path) -> float:
    """Return the daemon's resident memory in MB."""
    pid = json.loads((mount_point / ".octuefs/status").read_text())["pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000


def bench_local(work: Path) -> list[Row]:
    """Measure the mount of a local folder."""
    source, large = work / "dataset", work / "large"
    make_dataset(source)
    large.mkdir()
    with (large / "file").open("wb") as file:
        block = os.urandom(BLOCK)
        for _ in range(GIB // BLOCK):
            file.write(block)
    rows: list[Row] = []
    find = lambda place: seconds(lambda: run("find", place, "-ls"))  # noqa: E731

    started = time.perf_counter()
    with mounted(source) as mount:
        run("ls", mount)
        first_ls = time.perf_counter() - started
        rows.append((f"mount until first ls, {FILES:,} files", f"{first_ls:.2f} s", "", "< 2 s"))
        run("find", source, "-ls")
        plain = statistics.median(find(source) for _ in range(ROUNDS))
        first = find(mount)
        second = statistics.median(find(mount) for _ in range(ROUNDS))
        rows.append(("find -ls, first", f"{first:.2f} s", f"{first / plain:.1f}x the source", ""))
        rows.append(("find -ls, again", f"{second:.2f} s", f"{second / plain:.1f}x the source", "<= 2x"))
        view = statistics.median(seconds(lambda: run("find", mount / "by-label/x")) for _ in range(ROUNDS))
        rows.append((f"find by-label/x, {FILES:,} files", f"{1000 * view:.0f} ms", "", "< 200 ms"))
        hashing = seconds((mount / ".hash").read_bytes)
        rows.append((f"cat .hash, {FILES:,} files, none known", f"{hashing:.2f} s", "", ""))
        rows.append(("daemon memory after all this", f"{daemon_memory(mount):.0f} MB", "", "< 150 MB"))
    with mounted(source) as mount:
        rows.append(("cat .hash after a remount", f"{seconds((mount / '.hash').read_bytes):.2f} s", "", ""))
    with mounted(large) as mount:
        read_file(large / "file")
        plain = statistics.median(seconds(lambda: read_file(large / "file")) for _ in range(ROUNDS))
        first = seconds(lambda: read_file(mount / "file"))
        second = statistics.median(seconds(lambda: read_file(mount / "file")) for _ in range(ROUNDS))
        for what, took, goal in (("first", first, ">= 250 MB/s"), ("again", second, ">= 1,000 MB/s")):
            speed = f"{GIB / 1e6 / took:,.0f} MB/s"
            rows.append((f"1 GiB sequential, {what}", speed, f"{plain / took:.2f} of the source's speed", goal))
    return rows


def bench_cloud(work: Path) -> list[Row]:
    """Measure the mount of a bucket against rclone's."""
    rows: list[Row] = []
    with GcsServer() as server:
        server.create_bucket("bench")
        with ThreadPoolExecutor(4) as pool:
            names = [f"turbine-{number % 20:02}/part-{number:04}.csv" for number in range(OBJECTS)]
            list(pool.map(lambda name: server.put("bench", name, b"1,2,3\n"), names))

        def measure(mount_time: float, mount: Path) -> tuple[float, float, float]:
            first = seconds(lambda: run("find", mount, "-ls"))
            again = statistics.median(seconds(lambda: run("find", mount, "-ls")) for _ in range(ROUNDS))
            return mount_time, first, again

        started = time.perf_counter()
        with mounted("gs://bench", environment=server.environment) as mount:
            ours = measure(time.perf_counter() - started, mount)
        started = time.perf_counter()
        with rclone_mounted(server, "bench", work / "rclone", "--read-only") as mount:
            theirs = measure(time.perf_counter() - started, mount)
    works = (("mount", ""), ("find -ls, first", "<= 1.5x"), ("find -ls, again", ""))
    for (what, goal), our, their in zip(works, ours, theirs, strict=True):
        label = f"{what}, {OBJECTS:,} objects"
        rows.append((label, f"{our:.2f} s", f"{our / their:.1f}x rclone mount ({their:.2f} s)", goal))
    return rows
