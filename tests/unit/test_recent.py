"""What a name's metadata was until a moment ago."""

from datetime import UTC, datetime

from octuefs.model.metadata import DatafileMetadata
from octuefs.writing.recent import RecentNames

FULL = DatafileMetadata(
    "fe79768a-957e-4408-ae71-8391b2dba676", datetime(2020, 1, 1, tzinfo=UTC), {"a": 1}, frozenset("x"), "1"
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_labels_tags_and_timestamp_come_back_without_the_id() -> None:
    recent = RecentNames()
    recent.remember("f", FULL)
    assert recent.take("f") == DatafileMetadata(timestamp=FULL.timestamp, tags=FULL.tags, labels=FULL.labels)


def test_they_are_taken_once() -> None:
    recent = RecentNames()
    recent.remember("f", FULL)
    assert recent.take("g") is None
    assert recent.take("f") is not None
    assert recent.take("f") is None


def test_they_are_forgotten_after_15_s() -> None:
    clock = Clock()
    recent = RecentNames(clock)
    recent.remember("f", FULL)
    recent.remember("g", FULL)
    clock.now += 14.9
    assert recent.take("f") is not None
    clock.now += 0.2
    assert recent.take("g") is None


def test_the_last_who_had_the_name_counts_even_with_nothing() -> None:
    recent = RecentNames()
    recent.remember("f", FULL)
    recent.remember("f", DatafileMetadata(FULL.id, sdk_version="1", unread={"other": 1, "labels": "Bad"}))
    assert recent.take("f") is None


def test_a_timestamp_stored_as_a_number_stays_one() -> None:
    recent = RecentNames()
    recent.remember("f", DatafileMetadata(timestamp=datetime.fromtimestamp(5), unread={"timestamp": 5, "other": 1}))
    found = recent.take("f")
    assert found is not None
    assert found.unread == {"timestamp": 5}
