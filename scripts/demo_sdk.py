"""What the demo does with the real Octue SDK (run by .venv-sdk).

demo_sdk.py describe FOLDER         give the dataset in FOLDER its name, labels, tags and timestamps
demo_sdk.py upload FOLDER GS_PATH   upload it, metadata included
demo_sdk.py hash PATH               print the hash of a dataset, local or gs://
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from octue.resources import Datafile, Dataset

SEASONS = {12: "winter", 1: "winter", 2: "winter", 6: "summer", 7: "summer", 8: "summer"}


def describe(folder: str) -> None:
    for path in sorted(Path(folder).glob("*/*.csv")):
        turbine, year, month = path.stem.split("-")
        datafile = Datafile(str(path))
        datafile.labels = {"scada", SEASONS.get(int(month), "mild")}
        datafile.tags = {"turbine": turbine, "year": int(year), "interval": {"minutes": 10}}
        datafile.timestamp = datetime(int(year), int(month), 1, tzinfo=UTC)
        datafile.update_metadata()
    with Dataset(path=folder, name="La Haute Borne") as dataset:
        dataset.labels = {"wind", "onshore"}
        dataset.tags = {"country": "FR", "turbines": 4, "rated_power": {"kw": 2050}}


def main(command: str, *arguments: str) -> None:
    if command == "describe":
        describe(*arguments)
    elif command == "upload":
        Dataset(path=arguments[0]).upload(arguments[1])
    elif command == "hash":
        print(Dataset(path=arguments[0]).hash_value)
    else:
        sys.exit(f"{command}: no such command; there are describe, upload and hash")


if __name__ == "__main__":
    main(*sys.argv[1:])
