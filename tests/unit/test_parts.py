"""Several datasets of one mount: opened side by side, each in reach or not."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from octuefs import parts
from octuefs.config import MountConfig, SourceConfig
from octuefs.errors import NotFound, PermissionRefused, StoreUnavailable
from octuefs.model.manifest import DatasetEntry
from octuefs.report import Report
from octuefs.resources import Resources

CONFIG = MountConfig(SourceConfig(""), "/nowhere")
RESOURCES = Resources(CONFIG, Report())


class FakeDataset:
    """What a part mounts: opened by `opening`, which may fail, and closed once."""

    opening: Callable[[str], None] = staticmethod(lambda path: None)  # type: ignore[assignment]
    closed: list[str]

    def __init__(
        self, entry: DatasetEntry, config: MountConfig, report: Any, progress: Callable[[int], None], resources: Any
    ) -> None:
        self.path = entry.path
        type(self).opening(entry.path)
        progress(3)
        self.dataset = SimpleNamespace(
            in_cloud=True,
            location=None,
            index=SimpleNamespace(written=0),
            keeper=SimpleNamespace(
                failure=None,
                begin_expiring=lambda: None,
                refresh=lambda: SimpleNamespace(exception=lambda seconds: None),
            ),
        )

    def close(self) -> None:
        FakeDataset.closed.append(self.path)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDataset.opening = staticmethod(lambda path: None)
    FakeDataset.closed = []
    monkeypatch.setattr(parts, "MountedDataset", FakeDataset)
    monkeypatch.setattr(parts, "Namespace", lambda *_, path, **__: path)
    monkeypatch.setattr(parts, "_LOOK_SECONDS", 0.0)


def entries(number: int) -> dict[str, DatasetEntry]:
    return {f"d{index}": DatasetEntry(f"gs://bucket/d{index}") for index in range(number)}


def test_datasets_are_opened_at_the_same_time() -> None:
    together = threading.Barrier(20)
    FakeDataset.opening = staticmethod(lambda path: together.wait(30) and None)
    opened = parts.open_parts(entries(200), CONFIG, Report(), lambda seen: None, RESOURCES)
    assert all(part.mounted is not None for part in opened.values())
    parts.for_all(opened, parts.DatasetPart.close)
    assert len(FakeDataset.closed) == 200


@pytest.mark.expected_logs("cannot be reached", "could not be opened")
def test_one_that_fails_does_not_stop_the_others() -> None:
    def fail(path: str) -> None:
        if path.endswith("d1"):
            raise PermissionRefused("forbidden")
        if path.endswith("d2"):
            raise ZeroDivisionError

    FakeDataset.opening = staticmethod(fail)
    opened = parts.open_parts(entries(4), CONFIG, Report(), lambda seen: None, RESOURCES)
    assert [name for name, part in opened.items() if part.mounted is None] == ["d1", "d2"]
    with pytest.raises(PermissionRefused, match="forbidden"):
        opened["d1"].namespace()
    assert opened["d0"].namespace() == "/d0"
    assert opened["d2"].namespace_or_none is None
    assert "d1: the dataset cannot be reached: forbidden" in opened["d1"].report.text()


def part_out_of_reach() -> tuple[parts.DatasetPart, threading.Event]:
    """Return a dataset that cannot be opened until the event is set."""
    reached = threading.Event()

    def fail(path: str) -> None:
        if not reached.is_set():
            raise NotFound("not yet")

    FakeDataset.opening = staticmethod(fail)
    return parts.open_parts(entries(1), CONFIG, Report(), lambda seen: None, RESOURCES)["d0"], reached


@pytest.mark.expected_logs("cannot be reached")
def test_one_out_of_reach_is_tried_again() -> None:
    part, reached = part_out_of_reach()
    part.try_again().result(10)
    assert part.namespace_or_none is None
    before = part.generation
    reached.set()
    part.try_again().result(10)
    assert part.namespace() == "/d0"
    assert part.generation > before
    assert part.report.text() == ""
    part.try_again().result(10)  # which has nothing to do
    part.close()
    assert FakeDataset.closed == ["gs://bucket/d0"]


@pytest.mark.expected_logs("cannot be reached")
@pytest.mark.parametrize(("failure", "gone"), [(NotFound("gone"), True), (StoreUnavailable("busy"), False)])
def test_one_that_goes_away_is_out_of_reach_until_it_is_back(failure: Exception, gone: bool) -> None:
    part = parts.open_parts(entries(1), CONFIG, Report(), lambda seen: None, RESOURCES)["d0"]
    mounted: Any = part.mounted
    before = part.generation
    mounted.dataset.keeper.failure = failure
    if not gone:  # a store that does not answer leaves the old facts standing
        assert part.namespace() == "/d0"
        return
    with pytest.raises(NotFound, match="gone"):
        part.namespace()
    assert part.generation > before
    mounted.dataset.keeper.failure = None
    assert part.namespace() == "/d0"
    assert part.report.text() == ""


class FakeNamespace:
    """What observes a dataset."""

    def __init__(self, *_: object, path: str, **__: object) -> None:
        self.path = path
        self.observers: list[Callable[[str], object]] = []

    def observe(self, callback: Callable[[str], object]) -> None:
        self.observers.append(callback)


@pytest.mark.expected_logs("cannot be reached")
def test_who_observes_is_told_of_a_dataset_that_is_lost_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "Namespace", FakeNamespace)
    part = parts.open_parts(entries(1), CONFIG, Report(), lambda seen: None, RESOURCES)["d0"]
    told: list[str] = []
    part.observe(told.append)
    namespace: Any = part.namespace()
    assert (len(namespace.observers), told) == (1, [])
    mounted: Any = part.mounted
    mounted.dataset.keeper.failure = NotFound("gone")
    assert part.namespace_or_none is None
    assert part.namespace_or_none is None
    assert told == ["/d0"]
    mounted.dataset.keeper.failure = None
    assert part.namespace() is namespace
    assert (len(namespace.observers), told) == (1, ["/d0", "/d0"])


@pytest.mark.expected_logs("cannot be reached")
def test_who_observes_is_told_of_a_dataset_that_comes_into_reach_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "Namespace", FakeNamespace)
    part, reached = part_out_of_reach()
    told: list[str] = []
    part.observe(told.append)
    part.try_again().result(10)
    assert told == []
    reached.set()
    part.try_again().result(10)
    namespace: Any = part.namespace()
    assert (len(namespace.observers), told) == (1, ["/d0"])


def test_a_dataset_does_not_answer_at_once_where_something_was_written_through_an_overlapping_one() -> None:
    named = {"all": DatasetEntry("gs://bucket/a"), "some": DatasetEntry("gs://bucket/a/b")}
    opened = parts.open_parts(named, CONFIG, Report(), lambda seen: None, RESOURCES)
    some: Any = opened["some"].mounted
    for part in opened.values():
        assert part.namespace() == f"/{part.name}"
    assert opened["all"].answers_at_once
    some.dataset.index.written += 1
    assert not opened["all"].answers_at_once
    assert opened["some"].answers_at_once
    assert opened["all"].namespace() == "/all"
    assert opened["all"].answers_at_once


def test_what_is_opened_too_late_is_closed() -> None:
    part = parts.DatasetPart("d0", entries(1)["d0"], CONFIG, Report("d0"), RESOURCES)
    part.close()
    part.open(lambda seen: None)
    assert part.mounted is None
    assert FakeDataset.closed == ["gs://bucket/d0"]


def test_a_command_that_has_gone_ends_the_opening() -> None:
    going_on = threading.Event()
    FakeDataset.opening = staticmethod(lambda path: going_on.wait(30) and None)

    def gone(seen: int) -> None:
        going_on.set()
        raise StoreUnavailable("the command has gone")

    with pytest.raises(StoreUnavailable, match="has gone"):
        parts.open_parts(entries(3), CONFIG, Report(), gone, RESOURCES)
    assert len(FakeDataset.closed) == 3


def test_a_link_is_named_without_what_authorises_it() -> None:
    entry = DatasetEntry("https://host/bucket/path/.signed_metadata_files/slug?X-Goog-Signature=5ec2e7")
    part = parts.DatasetPart("d", entry, CONFIG, Report("d"), RESOURCES)
    assert part.primitive() == "https://host/bucket/path/.signed_metadata_files/slug"
