"""All benchmarks: `scripts/bench [PART...]`, without a part all of them.

Prints a table of the local part, and one of all others; `--json FILE` writes the figures too. What each part measures
stands in bench_native.py (local), bench_read.py and bench_write.py.
"""

import argparse
import signal
import tempfile
from pathlib import Path

from bench_native import HEAD as NATIVE_HEAD
from bench_native import bench_native
from bench_read import bench_cloud, bench_dataset
from bench_tools import Table, as_json, print_table
from bench_write import bench_write_cloud, bench_write_local

from support.latency import HaproxyMissing, haproxy
from support.mounting import remove, run_folder

LOCAL = "local"
PARTS = {
    "dataset": bench_dataset,
    "cloud": bench_cloud,
    "write-local": bench_write_local,
    "write-cloud": bench_write_cloud,
}


def main() -> None:
    """Run the parts that the arguments name, and print their tables."""
    known = ", ".join((LOCAL, *PARTS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {known} (default: all)")
    parser.add_argument("--quick", action="store_true", help="do a tenth of the local part's work")
    parser.add_argument("--rounds", type=int, default=3, help="how often each mount of the local part has its turn")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    chosen = options.parts or [LOCAL, *PARTS]
    if unknown := set(chosen) - {LOCAL, *PARTS}:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    if "write-cloud" in chosen:
        try:
            haproxy()  # minutes before it is needed
        except HaproxyMissing as error:
            raise SystemExit(f"bench: {error}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left behind then, either
    native, others = Table([], NATIVE_HEAD), Table([])
    tables = (native, others)
    try:
        for name in chosen:
            if name == LOCAL:
                bench_native(native.rows, quick=options.quick, rounds=options.rounds)
                continue
            with tempfile.TemporaryDirectory(prefix="octuefs-bench-") as work:
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
