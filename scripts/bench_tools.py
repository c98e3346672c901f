"""What the benchmarks share: timing, rclone beside octuefs, and the table."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.gcs import GcsServer
from support.mounting import lazy_unmount, mounts_below

Row = tuple[str, ...]
"""Of a table; most say what was measured, what octuefs takes, against what that stands, and the goal."""

HEAD: Row = ("what", "octuefs", "against", "goal")
GIB = 1 << 30
BLOCK = 1 << 20
PATIENCE = 300
"""Seconds after which a client or a mount hangs."""
CLIENT = Path(__file__).with_name("bench_client.py")


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """Return how long `work` takes with these arguments."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command to its end, its output thrown away."""
    subprocess.run(list(map(str, command)), cwd=cwd, stdout=subprocess.DEVNULL, check=True)


def time_client(work: str, *arguments: object, prefix: Sequence[str] = ()) -> float:
    """Return the seconds that a new client takes for a work of bench_client.py.

    :param prefix: what begins its command
    """
    command = [*prefix, sys.executable, CLIENT, work, *arguments]
    result = subprocess.run(
        list(map(str, command)), cwd="/", capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if result.returncode != 0:
        raise SystemExit(f"bench: {work} of {arguments[0]} failed:\n{result.stderr}")
    return float(result.stdout)


@contextmanager
def rclone_mounted(server: GcsServer, bucket: str, mount: Path, *options: str | Path) -> Iterator[Path]:
    """Mount a bucket with rclone beside octuefs; ends its process afterwards."""
    mount.mkdir()
    remote = f":gcs,anonymous=true,endpoint='{server.endpoint}/storage/v1/':{bucket}"
    rclone = shutil.which("rclone") or Path(sys.executable).with_name("rclone")
    command = [rclone, "mount", remote, mount, *options]
    process = subprocess.Popen(list(map(str, command)), start_new_session=True)  # Ctrl-C is for us, who end it
    try:
        deadline = time.monotonic() + 30
        while not mounts_below(mount):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("bench: rclone mount did not come up")
            time.sleep(0.02)
        yield mount
    finally:
        subprocess.run(["fusermount3", "-u", str(mount)], check=False)
        for path in mounts_below(mount):
            lazy_unmount(path)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Table:
    """Rows under one head."""

    rows: list[Row]
    head: Row = HEAD


def print_table(table: Table) -> None:
    """Print a table as the README has it."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    for row in [table.head, tuple("-" * width for width in widths), *table.rows]:
        print("| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) + " |")


def as_json(tables: Sequence[Table]) -> str:
    """Return the figures for programs."""
    return json.dumps([dict(zip(it.head, row, strict=True)) for it in tables for row in it.rows], indent=2) + "\n"
