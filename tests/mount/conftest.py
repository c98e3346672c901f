"""Real mounts of the same files in a folder and in a bucket."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest
from mount.trees import CloudSource, LocalSource, Source

from support.gcs import Bucket, GcsServer

SourceMaker = Callable[[str], AbstractContextManager[Source]]


@pytest.fixture(scope="session")
def new_source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SourceMaker:
    """`with new_source("local"):` or `"cloud"`: an empty place for a dataset."""

    @contextmanager
    def make(kind: str) -> Iterator[Source]:
        if kind == "local":
            yield LocalSource(tmp_path_factory.mktemp("source") / "dataset")
            return
        server: GcsServer = request.getfixturevalue("gcs_server")
        name = f"octuefs-{uuid.uuid4().hex[:12]}"
        server.create_bucket(name)
        yield CloudSource(Bucket(server, name))
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda item: server.delete(name, item["name"]), server.list(name)))
        server.delete_bucket(name)

    return make
