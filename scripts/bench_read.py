"""The benchmark of a local dataset: the index of 20,000 small files with metadata.

What the driver makes of them bench_native.py measures.
"""

import json
import statistics
import time
from pathlib import Path

from bench_tools import Row, run, seconds

from support.mounting import mounted

FILES = 20_000
FILES_PER_FOLDER = 200
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
