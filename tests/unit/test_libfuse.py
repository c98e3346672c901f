"""From paths to nodes."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from octuefs.drivers.libfuse import LibfuseAdapter
from octuefs.errors import NotFound


class CountingOperations:
    """A tree in which every name but "no" leads to a node, which is its path."""

    root = ""

    def __init__(self) -> None:
        self.lookups: list[str] = []

    def version(self, _path: str) -> int:
        return 1

    def version_of(self, _handle: int) -> int:
        return 1

    def identity_of(self, _handle: int) -> int:
        return 1

    def lookup(self, parent: str, name: str) -> str:
        self.lookups.append(f"{parent}/{name}")
        if name == "no":
            raise NotFound(name)
        return self.lookups[-1]


@pytest.fixture
def operations() -> CountingOperations:
    return CountingOperations()


@pytest.fixture
def adapter(operations: Any) -> LibfuseAdapter:
    return LibfuseAdapter(operations, lambda: None)


def test_the_deepest_path_is_found_and_each_name_looked_up_once(
    adapter: LibfuseAdapter, operations: CountingOperations
) -> None:
    deepest = "/a" * 2047
    for _ in range(2):
        assert str(adapter._resolve(deepest)) == deepest
    assert str(adapter._resolve("/a/b")) == "/a/b"
    assert adapter._resolve("/") is operations.root
    assert len(operations.lookups) == 2048


def test_what_is_missing_is_remembered(adapter: LibfuseAdapter, operations: CountingOperations) -> None:
    for path in ("/a/no", "/a/no", "/a/no/b/c"):
        with pytest.raises(NotFound):
            adapter._resolve(path)
    assert operations.lookups == ["/a", "/a/no"]


class ShortFile:
    """A file of ten bytes that is open."""

    def __init__(self) -> None:
        self.asked = 0
        """How often for its attributes."""

    def version_of(self, _handle: int) -> int:
        return 1

    identity_of = version_of

    def fgetattr(self, _handle: int) -> Any:
        self.asked += 1
        return SimpleNamespace(size=10)

    def read(self, _handle: int, offset: int, size: int) -> bytes:
        return bytes(10)[offset : offset + size]


@dataclass
class Info:
    fh: int = 1


def test_a_read_beyond_the_end_is_answered_after_the_one_that_meets_it() -> None:
    """The kernel takes the first that comes for where the file ends."""
    answered = []
    operations: Any = ShortFile()
    adapter = LibfuseAdapter(operations, lambda: None)
    adapter._pages.opened("/file", 1, inode=1, names=1)

    def read(offset: int) -> None:
        answered.append((offset, adapter.read(None, 100, offset, Info())))

    beyond = threading.Thread(target=read, args=(110,))
    beyond.start()
    for offset in (5, 10):
        read(offset)
    beyond.join()
    assert answered == [(5, bytes(5)), (10, b""), (110, b"")]


def test_what_is_made_for_each_open_is_not_asked_for_its_size_where_it_ends() -> None:
    operations: Any = ShortFile()
    assert LibfuseAdapter(operations, lambda: None).read(None, 100, 110, Info()) == b""
    assert operations.asked == 0
