"""What the benchmark does with the real Octue SDK (run by .venv-sdk): `bench_sdk.py LOCATION FOLDER STEP...`

LOCATION is a dataset, in the cloud or a folder; FOLDER is new. The steps are load, read and download, done in this
order; what is printed is a JSON object with the seconds of each. The files of a folder are downloaded by copying them,
as the SDK has no way for that.
"""

import json
import shutil
import sys
import time

from octue.resources import Dataset

FEW = 100


def main(location: str, folder: str, *steps: str) -> None:
    """Do the steps that are named."""
    taken = {}
    dataset = None
    if "load" in steps:
        started = time.perf_counter()
        dataset = Dataset(path=location)
        taken["load"] = time.perf_counter() - started
    if "read" in steps:
        files = sorted(dataset.files, key=lambda file: file.cloud_path or file.local_path)[:FEW]
        started = time.perf_counter()
        for file in files:
            with file.open("rb") as content:
                content.read()
        taken["read"] = time.perf_counter() - started
    if "download" in steps:
        started = time.perf_counter()
        if dataset is not None and dataset.exists_in_cloud:
            dataset.download(folder)
        else:
            shutil.copytree(location, folder, copy_function=shutil.copyfile)
        taken["download"] = time.perf_counter() - started
    print(json.dumps(taken))


if __name__ == "__main__":
    main(*sys.argv[1:])
