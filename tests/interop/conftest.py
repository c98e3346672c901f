"""The world of the interop tests: datasets that the SDK wrote, their cloud copies, mounts of both, the SDK's answers.

Each SDK process and each mount costs a second, so all of it is made once: the SDK writes and uploads everything in one
process, and what it says through the mounts it says in another.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from interop import datasets
from interop.datasets import MOUNTS, WHOLE_MOUNTS, WRITTEN_MOUNTS
from interop.world import Question, Sdk, Source, Sources

from support import golden
from support.gcs import Bucket, GcsServer
from support.mounting import DRIVER, environment_for, mounted


@pytest.fixture(scope="session")
def places(gcs_server: GcsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Bucket]]:
    """A folder and a bucket for all interop datasets."""
    bucket = Bucket(gcs_server, f"octuefs-interop-{uuid.uuid4().hex[:8]}")
    gcs_server.create_bucket(bucket.name)
    yield tmp_path_factory.mktemp("interop"), bucket
    gcs_server.delete_bucket(bucket.name)


@pytest.fixture(scope="session")
def sdk(places: tuple[Path, Bucket], tmp_path_factory: pytest.TempPathFactory) -> Sdk:
    return Sdk(places[1].environment, tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="session")
def sources(places: tuple[Path, Bucket], sdk: Sdk) -> Sources:
    """Every dataset, written and uploaded by the SDK (the golden ones were written by it long ago)."""
    folder, bucket = places
    names = ["written", "nameless"]
    questions: list[Question] = []
    for name, files, dataset in (
        ("written", datasets.FILES, datasets.DATASET),
        ("nameless", datasets.NAMELESS_FILES, None),
    ):
        for path, file in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_bytes(file.content)
        stored = {path: file.metadata for path, file in files.items() if file.metadata is not None}
        questions.append(("write", {"path": str(folder / name), "dataset": dataset, "files": stored}))
    for case in golden.cases():
        golden.materialise(case, folder / "golden" / str(case))
        names.append(str(case))
    local = {name: str(folder / ("golden" if name.startswith("case") else ".") / name) for name in names}
    cloud = {name: f"{bucket.url}/deep/down/{name}" for name in names}
    for name in names:
        # A record stored in the cloud always has a name.
        arguments = {"path": os.path.normpath(local[name]), "to": cloud[name], "with_record": name != "nameless"}
        questions.append(("upload", arguments))
    sdk.ask(questions)
    for raw_name, content in datasets.EXTRA_FILES.items():
        Path(os.fsdecode(os.fsencode(folder / "nameless") + b"/" + raw_name)).write_bytes(content)
    (folder / "nameless" / "sub" / "link.csv").symlink_to("../two.csv")
    (folder / "nameless" / "broken").symlink_to("nowhere")
    return {
        **{f"local {name}": Source(os.path.normpath(path), {}) for name, path in local.items()},
        **{f"cloud {name}": Source(path, bucket.environment) for name, path in cloud.items()},
    }


@pytest.fixture(scope="session")
def said_of_sources(sources: Sources, sdk: Sdk) -> Mapping[str, Any]:
    """What the SDK says of every source."""
    answers = sdk.describe([source.location for source in sources.values()])
    return dict(zip(sources, answers, strict=True))


# --- mounts


@pytest.fixture(scope="session")
def driver(request: pytest.FixtureRequest) -> str:
    """The driver of `mounts`: the one of all others, where a file does not run over each."""
    return getattr(request, "param", environment_for()[DRIVER])


@pytest.fixture(scope="session")
def mounts(sources: Sources, driver: str) -> Iterator[Mapping[str, Path]]:
    """The mount points of MOUNTS; "golden" is the folder of all golden datasets, mounted as one."""
    contexts: dict[str, AbstractContextManager[Path]] = {}
    for name, (source, zone, options) in MOUNTS.items():
        where = sources[source]
        environment = {**where.environment, DRIVER: driver}
        contexts[name] = mounted(where.location, *options, environment=environment, zone=zone)
    golden_folder = Path(sources["local case0"].location).parent
    contexts["golden"] = mounted(golden_folder, environment={DRIVER: driver}, zone="Asia/Kolkata")
    entered: list[AbstractContextManager[Path]] = []

    def enter(context: AbstractContextManager[Path]) -> Path:
        mountpoint = context.__enter__()
        entered.append(context)
        return mountpoint

    with ThreadPoolExecutor(6) as pool:
        try:
            yield dict(zip(contexts, pool.map(enter, contexts.values()), strict=True))
        finally:
            pool.shutdown(wait=True)
            with ThreadPoolExecutor(6) as other:
                list(other.map(lambda context: context.__exit__(None, None, None), entered))


@pytest.fixture(scope="session")
def said_through_mounts(mounts: Mapping[str, Path], sdk: Sdk) -> Callable[..., Any]:
    """`said(mount, path="")`: what the SDK says of a mount, or of a view of the written datasets'."""
    paths = [(name, "") for name in WHOLE_MOUNTS]
    paths += [("golden", str(case)) for case in golden.cases()]
    views = [*datasets.VIEWS, *datasets.ORDERED_VIEWS]
    paths += [(name, view.path) for name in WRITTEN_MOUNTS if "New_York" not in name for view in views]
    answers = sdk.describe([os.path.join(mounts[name], path) for name, path in paths])
    said = dict(zip(paths, answers, strict=True))
    return lambda name, path="": said[name, path]
