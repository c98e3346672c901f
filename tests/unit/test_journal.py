"""The journal: what is settled survives anything, and what cannot be is told."""

import contextlib
import errno
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octuefs.errors import LocalFailure, NotFound
from octuefs.writing import journal as module
from octuefs.writing.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


class Disk:
    """Stands before a journal's commits: counts, holds up or fails them."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits = 0
        self.fails = False
        self.begun = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()
        commit = journal._commit

        def watched(batch):  # type: ignore[no-untyped-def]
            self.commits += 1
            self.begun.set()
            assert self.goes_on.wait(10)
            return module._failure("the disk: No space", errno.ENOSPC) if self.fails else commit(batch)

        monkeypatch.setattr(journal, "_commit", watched)


def durable(path: Path, kind: str, copy: Path) -> dict[str, dict[str, object]]:
    """What a crash now would leave of a kind."""
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    journal = Journal(copy)
    try:
        return journal.items(kind)
    finally:
        journal.close()


def test_entries_are_there_at_once_and_after_opening_again(path: Path, journal: Journal) -> None:
    journal.put("file", "a", {"size": 1})
    journal.put("file", "b", {"size": 2})
    journal.put("text", "a", {})
    journal.put("file", "a", {"size": 3})
    journal.drop("file", "b")
    journal.drop("file", "never there")
    assert journal.items("file") == {"a": {"size": 3}}
    journal.close()
    again = Journal(path)
    assert again.items("file") == {"a": {"size": 3}}
    assert again.items("text") == {"a": {}}
    assert again.items("other") == {}
    assert sorted(again.entries()) == [("file", "a", {"size": 3}), ("text", "a", {})]
    assert again.problem is None
    again.close()


def test_what_is_given_and_what_is_got_are_copies(journal: Journal) -> None:
    value = {"labels": ["a"]}
    journal.put("file", "a", value)
    value["labels"].append("b")
    journal.items("file")["a"]["labels"].append("c")
    assert journal.items("file") == {"a": {"labels": ["a"]}}


def test_any_name_survives(path: Path, tmp_path: Path, journal: Journal) -> None:
    name = os.fsdecode(b"\xff\xfe/\x00 'x'\n") + "ü🦑"
    journal.put("file", name, {name: [name, None, 1.5]})
    journal.settle()
    assert durable(path, "file", tmp_path / "copy") == {name: {name: [name, None, 1.5]}}


def test_a_value_that_is_no_json_is_refused_and_nothing_queued(journal: Journal) -> None:
    with pytest.raises(TypeError):
        journal.put("file", "a", {"x": object()})
    assert journal.items("file") == {}


def test_what_is_settled_survives_a_crash(path: Path, tmp_path: Path, journal: Journal) -> None:
    journal.put("file", "a", {"n": 1})
    journal.settle()
    assert durable(path, "file", tmp_path / "copy") == {"a": {"n": 1}}
    journal.drop("file", "a")
    journal.settle()
    assert durable(path, "file", tmp_path / "copy") == {}


def test_what_nobody_settles_is_committed_soon(path: Path, tmp_path: Path, journal: Journal) -> None:
    journal.put("file", "a", {})
    end = time.monotonic() + 5
    while not durable(path, "file", tmp_path / "copy"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_who_settle_share_commits(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(journal, monkeypatch)
    disk.goes_on.clear()
    journal.put("file", "first", {})
    threads = [threading.Thread(target=journal.settle)]
    threads[0].start()
    assert disk.begun.wait(10)
    for number in range(8):
        journal.put("file", str(number), {})
        threads.append(threading.Thread(target=journal.settle))
        threads[-1].start()
    time.sleep(0.1)
    assert all(thread.is_alive() for thread in threads)
    disk.goes_on.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert disk.commits == 2


def test_nothing_new_costs_no_commit(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(journal, monkeypatch)
    journal.settle()
    journal.put("file", "a", {})
    journal.settle()
    journal.put("file", "a", {})
    journal.settle()
    assert disk.commits == 1


@pytest.mark.expected_logs("No space.*kept in memory")
def test_a_failed_commit_is_told_and_its_changes_come_with_the_next(
    path: Path, tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(journal, monkeypatch)
    disk.fails = True
    journal.put("file", "a", {"n": 1})
    for _ in range(2):
        with pytest.raises(LocalFailure, match="No space") as failure:
            journal.settle()
        assert failure.value.errno == errno.ENOSPC
    journal.put("file", "a", {"n": 2})
    journal.put("file", "b", {})
    disk.fails = False
    journal.settle()
    assert durable(path, "file", tmp_path / "copy") == {"a": {"n": 2}, "b": {}}


@pytest.mark.expected_logs("No space.*kept in memory")
def test_a_commit_that_began_before_there_was_room_is_nobody_elses_failure(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(journal, monkeypatch)
    disk.fails = True
    journal.put("file", "a", {})
    with pytest.raises(LocalFailure):
        journal.settle()
    commit, entered = journal._commit, threading.Event()

    def failing_first(batch):  # type: ignore[no-untyped-def]
        failure = commit(batch)
        entered.set()
        time.sleep(0.2)
        return failure

    monkeypatch.setattr(journal, "_commit", failing_first)

    def settle() -> None:
        with contextlib.suppress(LocalFailure):
            journal.settle()

    first = threading.Thread(target=settle)
    first.start()
    assert entered.wait(10)
    disk.fails = False  # there is room from here on
    journal.settle()
    first.join(10)


@pytest.mark.expected_logs("No space.*kept in memory")
def test_the_journal_itself_tries_again(
    path: Path, tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.05)
    disk = Disk(journal, monkeypatch)
    disk.fails = True
    journal.put("file", "a", {})
    assert disk.begun.wait(10)
    disk.fails = False
    end = time.monotonic() + 5
    while not durable(path, "file", tmp_path / "copy"):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.expected_logs("kept in memory")  # the journal's own thread may be among those who are told
def test_all_who_wait_for_a_commit_that_fails_are_told(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(journal, monkeypatch)
    disk.goes_on.clear()
    disk.fails = True
    told = []

    def settle() -> None:
        try:
            journal.settle()
        except LocalFailure as error:
            told.append(error)

    journal.put("file", "a", {})
    threads = [threading.Thread(target=settle) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert disk.begun.wait(10)
    time.sleep(0.1)
    disk.goes_on.set()
    for thread in threads:
        thread.join(10)
    assert len(set(map(id, told))) == 4
    disk.fails = False


@pytest.mark.expected_logs("kept in memory")
def test_a_file_that_may_not_grow_is_enospc_with_the_remedy(path: Path, journal: Journal) -> None:
    assert journal._connection is not None
    journal._connection.execute("PRAGMA max_page_count=4")
    journal.put("file", "a", {"x": "y" * 100_000})
    with pytest.raises(LocalFailure, match=r"journal\.sqlite: No space left on device; free some space") as failure:
        journal.settle()
    assert failure.value.errno == errno.ENOSPC
    assert "a" in journal.items("file")
    journal._connection.execute("PRAGMA max_page_count=100000")
    journal.settle()


@pytest.mark.expected_logs("kept in memory")
def test_closing_tells_what_could_not_be_committed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    disk = Disk(journal, monkeypatch)
    disk.fails = True
    journal.put("file", "a", {})
    with pytest.raises(LocalFailure, match="No space"):
        journal.close()
    with pytest.raises(LocalFailure, match="closed"):
        journal.settle()
    with pytest.raises(LocalFailure, match="closed"):
        journal.put("file", "b", {})
    again = Journal(path)
    assert again.items("file") == {}
    again.close()


def test_only_one_has_it_at_a_time(path: Path, journal: Journal) -> None:
    code = f"from pathlib import Path; from octuefs.writing.journal import Journal; Journal(Path({str(path)!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "another process has it open" in other.stderr


def test_all_files_are_private_whatever_the_umask(path: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = Journal(path)
        journal.put("file", "a", {})
        journal.settle()
    finally:
        os.umask(before)
    files = {found.name: stat.S_IMODE(found.stat().st_mode) for found in tmp_path.iterdir()}
    assert files == {"journal.sqlite": 0o600, "journal.sqlite-wal": 0o600}
    journal.close()


def test_the_log_does_not_grow_for_ever(path: Path, journal: Journal) -> None:
    for number in range(60):
        journal.put("file", "a", {"n": number, "x": "y" * 500_000})
        journal.settle()
    assert Path(f"{path}-wal").stat().st_size < 9 << 20
    assert path.stat().st_size < 3 << 20


def _no_database(path: Path) -> None:
    path.write_bytes(b"not a database at all\n" * 500)


def _half(path: Path) -> None:
    journal = Journal(path)
    for number in range(2000):
        journal.put("file", str(number), {"x": "y" * 100})
    journal.close()
    content = bytearray(path.read_bytes())
    content[8192 : len(content) // 2] = random.randbytes(len(content) // 2 - 8192)
    path.write_bytes(content)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE entries (a, b)")
    connection.close()


def _no_json(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO entries VALUES ('file', '\"a\"', '{')")
    connection.close()


def _no_text(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO entries VALUES ('file', CAST(x'ff' AS TEXT), '{}')")
    connection.close()


@pytest.mark.expected_logs("was damaged")
@pytest.mark.parametrize("damage", [_no_database, _half, _foreign, _no_json, _no_text])
def test_a_damaged_one_is_kept_aside_and_told(path: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    content = path.read_bytes()
    journal = Journal(path)
    assert journal.problem is not None
    (aside,) = tmp_path.glob("journal.sqlite.broken-*")
    assert aside.name in journal.problem
    assert aside.stat().st_size == len(content)
    journal.put("file", "a", {})
    journal.close()
    again = Journal(path)
    assert again.items("file") == {"a": {}}
    assert again.problem is None
    again.close()


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone/journal\.sqlite: No such file"):
        Journal(tmp_path / "gone" / "journal.sqlite")


_WRITES = """
import sys
from pathlib import Path
from octuefs.writing.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(10**9):
    journal.put("file", str(number % 7), {"n": number, "x": "y" * 3000})
    journal.settle()
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_settled(path: Path) -> None:
    for number in range(5):
        process = subprocess.Popen([sys.executable, "-c", _WRITES, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 * number)
        process.kill()
        settled = 0
        for line in process.stdout:
            if line.endswith("\n"):
                settled = int(line)
        process.stdout.close()
        process.wait(10)
        journal = Journal(path)
        assert journal.problem is None
        assert max(value["n"] for value in journal.items("file").values()) >= settled
        for key in journal.items("file"):
            journal.drop("file", key)
        journal.close()


def test_what_is_in_a_hurry_is_committed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octuefs.writing.journal._LAZY_SECONDS", 60.0)
    journal = Journal(tmp_path / "journal.sqlite")
    for number in range(20):
        journal.put("kind", str(number), {"n": number})
        journal.hurry()
        deadline = time.monotonic() + 10
        while journal._durable != journal._queued:
            assert time.monotonic() < deadline
            time.sleep(0.0005)
    journal.hurry()
    journal.close()
