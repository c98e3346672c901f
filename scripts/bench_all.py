"""All benchmarks: `scripts/bench [PART...]`, without a part all of them.

Prints a table of the local part, two of the cloud part, and one of all others; `--json FILE` writes the figures too.
What each part measures stands in bench_native.py (local), bench_cloud.py and bench_cloud_many.py, bench_read.py and
bench_write.py.
"""

import argparse
import signal
import tempfile
from pathlib import Path

from bench_cloud import bench_cloud
from bench_cloud_many import HEAD as MANY_HEAD
from bench_cloud_many import bench_many
from bench_cloud_table import HEAD as CLOUD_HEAD
from bench_native import HEAD as NATIVE_HEAD
from bench_native import bench_native
from bench_read import bench_dataset
from bench_tools import Table, as_json, print_table
from bench_write import bench_write_cloud, bench_write_local

from support.latency import HaproxyMissing, haproxy
from support.mounting import remove, run_folder
from support.sdk import PYTHON as SDK

LOCAL, CLOUD = "local", "cloud"
PARTS = {
    "dataset": bench_dataset,
    "write-local": bench_write_local,
    "write-cloud": bench_write_cloud,
}


def main() -> None:
    """Run the parts that the arguments name, and print their tables."""
    known = ", ".join((LOCAL, CLOUD, *PARTS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {known} (default: all)")
    parser.add_argument("--quick", action="store_true", help="do a tenth of the local part, and the cloud part once")
    parser.add_argument("--rounds", type=int, default=3, help="how often each mount of the local part has its turn")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    chosen = options.parts or [LOCAL, CLOUD, *PARTS]
    if unknown := set(chosen) - {LOCAL, CLOUD, *PARTS}:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    if {CLOUD, "write-cloud"} & set(chosen):
        try:
            haproxy()  # minutes before it is needed
        except HaproxyMissing as error:
            raise SystemExit(f"bench: {error}") from error
    if CLOUD in chosen and not SDK.exists():
        raise SystemExit(f"bench: {SDK}: no such file; make it with: scripts/bootstrap --sdk")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left behind then, either
    native, cloud, many, others = Table([], NATIVE_HEAD), Table([], CLOUD_HEAD), Table([], MANY_HEAD), Table([])
    tables = (native, cloud, many, others)
    try:
        for name in chosen:
            if name == LOCAL:
                bench_native(native.rows, quick=options.quick, rounds=options.rounds)
                continue
            with tempfile.TemporaryDirectory(prefix="octuefs-bench-") as work:
                if name == CLOUD:
                    bench_cloud(cloud.rows, Path(work), quick=options.quick)
                    bench_many(many.rows, Path(work), quick=options.quick)
                    continue
                others.rows.extend((f"{name}: {what}", *rest) for what, *rest in PARTS[name](Path(work)))
    except KeyboardInterrupt:
        raise SystemExit("bench: ended before it was done") from None
    finally:
        remove(run_folder())
        for table in tables:
            if table.rows:
                print_table(table)
    if options.json:
        options.json.write_text(as_json(tables))


if __name__ == "__main__":
    main()
