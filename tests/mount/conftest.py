"""Real mounts of the same files in a folder and in a bucket."""

import fcntl
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from mount.trees import CloudSource, LocalSource, Source

from support.gcs import Bucket, GcsServer

_CACHES = Path(tempfile.gettempdir()) / "octuefs-tests-kernel-caches"
"""Locked while tests count what the kernel's caches save, and against all others where these are dropped."""

SourceMaker = Callable[[str], AbstractContextManager[Source]]


@pytest.fixture(scope="module", autouse=True)
def caches_of_the_kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no other worker drop the kernel's caches, which are those of all mounts, while requests are counted."""
    module = request.module.__name__.rpartition(".")[2]
    if not module.startswith("test_kernel_"):
        yield
        return
    with _CACHES.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if module == "test_kernel_forgetting" else fcntl.LOCK_SH)
        yield


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
