"""What `octuefs status` shows: rows of names and words, and a table of requests, from what a daemon says of itself.

Two readings, a moment apart, give rates too. Nothing is asked here.
"""

from typing import TYPE_CHECKING, Any

from octuefs.model.sizes import counted, size_text
from octuefs.report import printable

if TYPE_CHECKING:
    from rich.console import Group

Row = tuple[str, str]
Status = dict[str, Any]

_COLUMNS = ("requests", "done", "failed", "tried again", "p50", "p90", "p99")


def rows(status: Status, before: Status | None) -> list[Row]:
    """Return all there is to say besides the requests; with a reading from before, rates too."""
    traffic = status["traffic"]
    found = [
        ("source", _source(status)),
        ("mounted", f"on {status['mount_point']} for {_duration(status['mounted_seconds'])}, {_ways(status)}"),
        ("files", _files(status)),
        ("problems", _problems(status)),
    ]
    if not status["read_only"]:
        found.append(("to store", _to_store(traffic)))
    if "metrics_port" in status:
        found.append(("metrics", f"http://127.0.0.1:{status['metrics_port']}/metrics"))
    if any(it["count"] for it in traffic["requests"].values()) or traffic["in_flight"]:
        found += _of_bytes(status, before)
    return found


def request_rows(status: Status) -> list[tuple[str, ...]]:
    """Return the cells of the table of requests, those of `_COLUMNS`, for each kind that there was."""
    return [
        (
            kind,
            f"{it['count']:,}",
            f"{it['failed']:,}",
            f"{it['retried']:,}",
            *(_milliseconds(it[f"p{percent}_ms"]) for percent in (50, 90, 99)),
        )
        for kind, it in status["traffic"]["requests"].items()
        if it["count"]
    ]


def plain_text(status: Status, before: Status | None) -> str:
    """Return it as lines."""
    named = [(name, printable(words)) for name, words in rows(status, before)]
    lines = [f"{name:<12}{words}" for name, words in named]
    if requests := request_rows(status):
        lines += ["", *_aligned([_COLUMNS, *requests])]
    return "\n".join(lines)


def rich_text(status: Status, before: Status | None) -> "Group":
    """Return it for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, words in rows(status, before):
        facts.add_row(name, Text(printable(words), style="red" if _is_bad(name, words) else ""))
    requests = request_rows(status)
    if not requests:
        return Group(facts)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if number else "left")
    for cells in requests:
        table.add_row(*cells)
    return Group(facts, table)


def _is_bad(name: str, words: str) -> bool:
    return name == "problems" and words != "none"


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines


def _source(status: Status) -> str:
    if "datasets" not in status:
        return str(status["source"])
    lost = status["counts"]["unreachable"]
    out_of_reach = f", {lost} of them out of reach" if lost else ""
    return f"{status['source']} ({counted(status['counts']['datasets'], 'dataset')}{out_of_reach})"


def _ways(status: Status) -> str:
    reading = "read-only, " if status["read_only"] else ""
    return f"{reading}{status['driver']} driver, process {status['pid']}, octuefs {status['version']}"


def _files(status: Status) -> str:
    return f"{counted(status['counts']['files'], 'file')}, {size_text(status['counts']['bytes'])}"


def _problems(status: Status) -> str:
    found = [counted(status[name], name[:-1]) for name in ("problems", "failures") if status[name]]
    if status.get("skipped_count"):
        found.append(f"{counted(status['skipped_count'], 'name')} skipped")
    return f"{', '.join(found)}: cat {status['mount_point']}/.octuefs/errors" if found else "none"


def _to_store(traffic: dict[str, Any]) -> str:
    if not traffic["pending_files"]:
        return "nothing"
    return f"{counted(traffic['pending_files'], 'file')}, {size_text(traffic['pending_bytes'])}"


def _of_bytes(status: Status, before: Status | None) -> list[Row]:
    """Return what is said of requests, of the bytes that went, and of what was spared or fetched for nothing."""
    traffic = status["traffic"]
    waiting = f", {traffic['waiting']:,} waiting" if traffic["waiting"] else ""
    fewer = f", of {traffic['most_places']} when the store is at ease" if _is_lowered(traffic) else ""
    found = [
        ("received", _amount(status, before, "received_bytes")),
        ("sent", _amount(status, before, "sent_bytes")),
        ("under way", f"{traffic['in_flight']} of at most {traffic['places']} requests{waiting}{fewer}"),
    ]
    if traffic["overloads"]:
        found.append(("overload", f"the store said so {counted(traffic['overloads'], 'time')}"))
    found += _of_cache(traffic)
    for name, prefix in (("read-ahead", "read_ahead"), ("prefetch", "prefetch")):
        if fetched := traffic[f"{prefix}_bytes"]:
            used, wasted = traffic[f"{prefix}_used_bytes"], traffic[f"{prefix}_wasted_bytes"]
            files = f"{counted(traffic['prefetch_files'], 'file')}, " if prefix == "prefetch" else ""
            found.append(
                (name, f"{files}{size_text(fetched)}: {_share(used, fetched)} used, {size_text(wasted)} wasted")
            )
    if "memory_bytes" in traffic:
        found.append(("buffers", size_text(int(traffic["memory_bytes"]))))
    return found


def _is_lowered(traffic: dict[str, Any]) -> bool:
    return bool(traffic["places"] < traffic["most_places"])


def _of_cache(traffic: dict[str, Any]) -> list[Row]:
    found = []
    if "cache_bytes" in traffic:
        files = f"{counted(int(traffic['cache_objects']), 'file')}, " if "cache_objects" in traffic else ""
        dropped = f", {counted(traffic['cache_dropped'], 'damaged file')} dropped" if traffic["cache_dropped"] else ""
        evicted = f", {size_text(traffic['cache_evicted_bytes'])} made room" if traffic["cache_evicted_bytes"] else ""
        found.append(("cache", f"{files}{size_text(int(traffic['cache_bytes']))}{evicted}{dropped}"))
    if reads := traffic["cache_hits"] + traffic["cache_misses"]:
        hits = f"{_share(traffic['cache_hits'], reads)} of {counted(reads, 'read')}"
        found.append(("from cache", f"{hits}, {size_text(traffic['cache_hit_bytes'])}"))
    return found


def _amount(status: Status, before: Status | None, name: str) -> str:
    """Return a number of bytes, and how many a second there were since the reading before."""
    now = status["traffic"][name]
    if before is None or status["asked"] <= before["asked"]:
        return size_text(now)
    rate = max(0.0, (now - before["traffic"][name]) / (status["asked"] - before["asked"]))
    return f"{size_text(now)} ({size_text(int(rate))}/s)"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
