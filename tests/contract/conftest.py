"""The places that the contract of stores is tested on, as fixtures."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from contract.places import Folder, Linked, Listed, Place, Prefix, Proxy, Shared

from octuefs.stores import beneath
from support.gcs import Bucket


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    place = Folder(tmp_path)
    yield place
    place.store.close()


@pytest.fixture
def prefix(bucket: Bucket) -> Iterator[Prefix]:
    place = Prefix(bucket)
    yield place
    place.store.close()


LISTS = {
    "listed folder": (Listed, "folder"),
    "listed bucket": (Listed, "prefix"),
    "listed links": (Linked, "prefix"),
    "shared": (Shared, "prefix"),
}


@pytest.fixture(params=["folder", "folder, walked", "bucket", *LISTS])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Each kind of place; a folder also as on systems without openat2(2)."""
    if request.param == "folder, walked":
        monkeypatch.setattr(beneath, "use_openat2", False)
    if request.param not in LISTS:
        yield request.getfixturevalue("prefix" if request.param == "bucket" else "folder")
        return
    kind, files = LISTS[request.param]
    listed = kind(request.getfixturevalue(files))
    yield listed
    listed.close()


@pytest.fixture
def place_with_folders(place: Place) -> Place:
    """Each kind of place where folders stand by themselves."""
    if not place.keeps_folders:
        pytest.skip("folders are only implied in a list of files")
    return place


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    proxy = Proxy(bucket.server.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(bucket: Bucket, proxy: Proxy) -> Iterator[Prefix]:
    """A dataset in a bucket whose requests go through `proxy`."""
    place = Prefix(bucket, proxy.endpoint)
    yield place
    place.store.close()


@pytest.fixture
def unprivileged() -> Callable[[Path], AbstractContextManager[None]]:
    """`with unprivileged(path)`: `path` may not be read. Root, who may read everything, is nobody meanwhile."""

    @contextmanager
    def within(path: Path) -> Iterator[None]:
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(0)
        is_root = os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)
            yield
        finally:
            if is_root:
                os.seteuid(0)
            path.chmod(mode)

    return within
