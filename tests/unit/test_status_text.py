"""What `octuefs status` shows of what a daemon says."""

import io
from typing import Any

import pytest
from rich.console import Console

from octuefs.commands.status_text import plain_text, request_rows, rich_text, rows
from octuefs.stores.traffic import Traffic

MIB = 1 << 20


def status(traffic: Traffic | None = None, **other: Any) -> dict[str, Any]:
    """What the daemon of a bucket's mount says."""
    figures = (traffic or Traffic()).figures()
    return {
        "source": "gs://bucket/d",
        "mount_point": "/m",
        "driver": "kernel",
        "version": "1.2",
        "pid": 42,
        "read_only": False,
        "mounted_seconds": 3725.4,
        "traffic": {"pending_files": 0, "pending_bytes": 0, **figures},
        "counts": {"files": 3, "bytes": 3 * MIB},
        "problems": 0,
        "failures": 0,
        "asked": 100.0,
        **other,
    }


def busy() -> Traffic:
    """The traffic of a mount that was read."""
    traffic = Traffic()
    with traffic.request("read") as ticket:
        ticket.retried(OSError())
    traffic.arrived(10 * MIB)
    return traffic


def shown(said: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, str]:
    return dict(rows(said, before))


def test_a_mount_that_asks_nothing_says_no_more_than_how_it_is() -> None:
    assert shown(status()) == {
        "source": "gs://bucket/d",
        "mounted": "on /m for 1 h 2 min, kernel driver, process 42, octuefs 1.2",
        "files": "3 files, 3.0 MiB",
        "problems": "none",
        "to store": "nothing",
    }


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7200, "2 h 0 min"), (90_000, "1 d 1 h")]
)
def test_how_long_a_mount_stands_is_told_in_two_units(seconds: float, words: str) -> None:
    assert f" for {words}, " in shown(status(mounted_seconds=seconds))["mounted"]


def test_a_read_only_mount_has_nothing_to_store() -> None:
    said = shown(status(read_only=True))
    assert "to store" not in said
    assert "read-only, kernel driver" in said["mounted"]


def test_what_is_wrong_and_where_to_read_of_it_is_told() -> None:
    said = shown(status(problems=1, failures=2, skipped_count=3))
    assert said["problems"] == "1 problem, 2 failures, 3 names skipped: cat /m/.octuefs/errors"


def test_what_is_not_stored_yet_is_told() -> None:
    traffic = Traffic()
    traffic.gauge("pending_files", lambda: 2)
    traffic.gauge("pending_bytes", lambda: 3 * MIB)
    assert shown(status(traffic))["to store"] == "2 files, 3.0 MiB"


def test_several_datasets_are_counted_with_those_out_of_reach() -> None:
    counts = {"datasets": 3, "unreachable": 1, "files": 1, "bytes": 5}
    said = shown(status(source="a=gs://x", datasets={}, counts=counts))
    assert said["source"] == "a=gs://x (3 datasets, 1 of them out of reach)"
    assert said["files"] == "1 file, 5 bytes"


def test_two_readings_give_the_rate_between_them() -> None:
    traffic = busy()
    before = status(traffic)
    traffic.arrived(5 * MIB)
    assert shown(before)["received"] == "10.0 MiB"
    assert shown(status(traffic, asked=102.0), before)["received"] == "15.0 MiB (2.5 MiB/s)"


def test_requests_have_a_line_for_each_kind_that_there_was() -> None:
    ((kind, done, failed, again, *times),) = request_rows(status(busy()))
    assert (kind, done, failed, again) == ("read", "1", "0", "1")
    assert all(text.endswith(" ms") for text in times)


def test_fewer_places_and_overload_are_told() -> None:
    traffic = busy()
    traffic.note_overload()
    said = shown(status(traffic))
    assert said["under way"] == "0 of at most 32 requests, of 64 when the store is at ease"
    assert said["overload"] == "the store said so 1 time"


def test_cache_read_ahead_and_prefetch_are_told_with_what_they_were_good_for() -> None:
    traffic = busy()
    for name, amount in {
        "cache_hits": 3,
        "cache_misses": 1,
        "cache_hit_bytes": 4 * MIB,
        "cache_evicted_bytes": 2 * MIB,
        "cache_dropped": 1,
        "prefetch_files": 5,
        "prefetch_bytes": 10 * MIB,
        "prefetch_used_bytes": 9 * MIB,
        "prefetch_wasted_bytes": MIB,
        "read_ahead_bytes": 8 * MIB,
        "read_ahead_used_bytes": 8 * MIB,
    }.items():
        traffic.count(name, amount)
    for name, size in {"cache_bytes": 6 * MIB, "cache_objects": 1, "memory_bytes": MIB}.items():
        traffic.gauge(name, lambda size=size: size)  # type: ignore[misc]
    said = shown(status(traffic))
    assert said["cache"] == "1 file, 6.0 MiB, 2.0 MiB made room, 1 damaged file dropped"
    assert said["from cache"] == "75 % of 4 reads, 4.0 MiB"
    assert said["prefetch"] == "5 files, 10.0 MiB: 90 % used, 1.0 MiB wasted"
    assert said["read-ahead"] == "8.0 MiB: 100 % used, 0 bytes wasted"
    assert said["buffers"] == "1.0 MiB"


def test_without_a_terminal_it_is_lines_of_aligned_columns() -> None:
    text = plain_text(status(busy(), source="gs://b/odd\nname", metrics_port=9100), None)
    lines = text.splitlines()
    assert lines[0] == "source      gs://b/odd\\nname"
    assert "metrics     http://127.0.0.1:9100/metrics" in lines
    assert lines[-3:][0] == ""
    heads, cells = lines[-2:]
    assert heads.split() == ["requests", "done", "failed", "tried", "again", "p50", "p90", "p99"]
    assert len(heads) == len(cells)
    assert "\x1b" not in text


def test_on_a_terminal_it_says_the_same_words() -> None:
    said = status(busy(), problems=1)
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    console.print(rich_text(said, None))
    console.print(rich_text(status(), None))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for name, words in rows(said, None):
        assert name in text
        assert words in text
    assert "tried again" in text
