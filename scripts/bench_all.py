"""All benchmarks: `scripts/bench [PART...]`, without a part all of them.

Prints one table; `--json FILE` writes the figures too. What each part measures stands in bench_read.py and
bench_write.py.
"""

import argparse
import tempfile
from pathlib import Path

from bench_read import bench_cloud, bench_local
from bench_tools import Row, as_json, print_table
from bench_write import bench_write_cloud, bench_write_local

from support.latency import HaproxyMissing, haproxy
from support.mounting import remove, run_folder

PARTS = {
    "local": bench_local,
    "cloud": bench_cloud,
    "write-local": bench_write_local,
    "write-cloud": bench_write_cloud,
}


def main() -> None:
    """Run the parts that the arguments name, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    chosen = options.parts or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    if "write-cloud" in chosen:
        try:
            haproxy()  # minutes before it is needed
        except HaproxyMissing as error:
            raise SystemExit(f"bench: {error}") from error
    rows: list[Row] = []
    try:
        for name in chosen:
            with tempfile.TemporaryDirectory(prefix="octuefs-bench-") as work:
                rows += [(f"{name}: {what}", *rest) for what, *rest in PARTS[name](Path(work))]
    finally:
        remove(run_folder())
    print_table(rows)
    if options.json:
        options.json.write_text(as_json(rows))


if __name__ == "__main__":
    main()
