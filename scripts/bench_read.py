"""The benchmark of reading.

Dataset: the index of 20,000 small files with metadata; what the driver makes of them bench_native.py measures.
Cloud: 2,000 objects on a fake-gcs-server of this machine, through octuefs and through
`rclone mount` beside it.
"""

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench_tools import Row, rclone_mounted, run, seconds

from support.gcs import GcsServer
from support.mounting import mounted

FILES = 20_000
FILES_PER_FOLDER = 200
OBJECTS = 2_000
ROUNDS = 3


def make_dataset(root: Path, files: int = FILES) -> None:
    """Write so many files in folders of 200, each with a record in its folder's `.octue`."""
    for folder in range(max(1, files // FILES_PER_FOLDER)):
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


def bench_dataset(work: Path) -> list[Row]:
    """Measure what the index of a local folder costs."""
    source = work / "dataset"
    make_dataset(source)
    rows: list[Row] = []
    started = time.perf_counter()
    with mounted(source) as mount:
        run("ls", mount)
        first_ls = time.perf_counter() - started
        rows.append((f"mount until first ls, {FILES:,} files", f"{first_ls:.2f} s", "", "< 2 s"))
        view = statistics.median(seconds(lambda: run("find", mount / "by-label/x")) for _ in range(ROUNDS))
        rows.append((f"find by-label/x, {FILES:,} files", f"{1000 * view:.0f} ms", "", "< 200 ms"))
        hashing = seconds((mount / ".hash").read_bytes)
        rows.append((f"cat .hash, {FILES:,} files, none known", f"{hashing:.2f} s", "", ""))
    with mounted(source) as mount:
        rows.append(("cat .hash after a remount", f"{seconds((mount / '.hash').read_bytes):.2f} s", "", ""))
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
