"""Sessions: one daemon's own, and what dead ones have left."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from octuefs import places
from octuefs.errors import LocalFailure
from octuefs.model.paths import CloudLocation, LocalLocation
from octuefs.writing import sessions as module
from octuefs.writing.sessions import DISPLACED, UNREADABLE, Session, dead_sessions, describe_source, open_session


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir(mode=0o700)
    return folder


def leave(source: Path, number: int, rows: dict[tuple[str, str], dict[str, object]], *staged: str) -> Path:
    """Make a dead session, made the `number`th."""
    folder = source / f"{number:032x}"
    folder.mkdir(mode=0o700)
    (source / "lock").touch()
    (folder / "lock").touch()
    os.utime(folder / "lock", ns=(number, number))
    session = Session(folder, os.open(folder / "lock", os.O_RDWR))
    for (kind, key), value in rows.items():
        session.journal.put(kind, key, value)
    for name in staged:
        (session.staged_folder / name).write_text(name)
    session.release()
    return folder


def content(session: Session) -> tuple[dict[tuple[str, str], dict[str, object]], dict[str, str]]:
    rows = {(kind, key): value for kind, key, value in session.journal.entries()}
    return rows, {path.name: path.read_text() for path in session.staged_folder.iterdir()}


def folders(source: Path) -> list[str]:
    return sorted(path.name for path in source.iterdir() if path.name != "lock")


def test_a_new_session_is_private_whatever_the_umask(source: Path) -> None:
    before = os.umask(0)
    try:
        session = open_session(source)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [*source.rglob("*")]}
    assert modes.pop(session.folder) == modes.pop(session.staged_folder) == 0o700
    assert set(modes.values()) == {0o600}
    session.close()


def test_a_session_that_holds_nothing_goes_when_it_is_closed(source: Path) -> None:
    session = open_session(source)
    session.journal.put("file", "a", {})
    session.journal.drop("file", "a")
    session.close()
    assert folders(source) == []


def test_what_a_session_leaves_the_next_one_has(source: Path) -> None:
    session = open_session(source)
    session.journal.put("file", "a", {"n": 1})
    (session.staged_folder / "a").write_text("bytes")
    session.close()
    assert dead_sessions(source) == {"file": 1}
    again = open_session(source)
    assert again.folder == session.folder
    assert content(again) == ({("file", "a"): {"n": 1}}, {"a": "bytes"})
    assert again.problems == []
    assert dead_sessions(source) == {}
    again.close()


def test_living_sessions_are_left_alone(source: Path) -> None:
    first = open_session(source)
    first.journal.put("file", "a", {})
    first.journal.settle()
    second = open_session(source)
    assert second.folder != first.folder
    assert content(second) == ({}, {})
    assert dead_sessions(source) == {}
    first.close()
    second.close()


def test_several_dead_ones_become_one_and_empty_ones_go(source: Path) -> None:
    leave(source, 1, {})
    oldest = leave(source, 2, {("file", "a"): {"n": 1}, ("waiting", "x"): {"n": 1}}, "a")
    leave(source, 3, {("file", "b"): {"n": 2}, ("waiting", "x"): {"n": 1}}, "b", "c")
    leave(source, 4, {}, "d")
    (source / "e.done").mkdir()
    assert dead_sessions(source) == {"file": 2, "waiting": 2}
    session = open_session(source)
    assert session.folder == oldest
    assert content(session) == (
        {("file", "a"): {"n": 1}, ("file", "b"): {"n": 2}, ("waiting", "x"): {"n": 1}},
        {name: name for name in "abcd"},
    )
    assert folders(source) == [oldest.name]
    session.close()


def test_of_two_entries_for_one_thing_the_later_stays_and_the_earlier_is_kept(source: Path) -> None:
    leave(source, 1, {("pending", "x"): {"n": 1}})
    leave(source, 12, {("pending", "x"): {"n": 2}})
    leave(source, 103, {("pending", "x"): {"n": 3}})
    session = open_session(source)
    assert session.journal.items("pending") == {"x": {"n": 3}}
    displaced = session.journal.items(DISPLACED)
    assert [displaced[key] for key in sorted(displaced)] == [
        {"kind": "pending", "key": "x", "value": {"n": 1}},
        {"kind": "pending", "key": "x", "value": {"n": 2}},
    ]
    session.close()


def test_a_crash_at_any_moment_of_taking_over_loses_nothing(source: Path) -> None:
    """A child takes over and dies at its n-th step; whoever comes then has all."""
    steps = 0
    while True:
        for path in source.iterdir():
            assert path.name == "lock"
        leave(source, 1, {("file", "a"): {"n": 1}, ("waiting", "x"): {"n": 1}}, "a")
        leave(source, 2, {("file", "b"): {"n": 2}, ("waiting", "x"): {"n": 2}}, "b", "c")
        leave(source, 3, {("file", "d"): {"n": 3}, ("waiting", "x"): {"n": 3}}, "d")
        leave(source, 4, {})
        child = os.fork()
        if child == 0:
            _die_after(steps)
            open_session(source)
            os._exit(0)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        session = open_session(source)
        rows, staged = content(session)
        assert staged == {name: name for name in "abcd"}, f"after {steps} steps"
        displaced = {value["value"]["n"] for kind, value in _of(rows) if kind == DISPLACED}  # type: ignore[index]
        assert displaced == {1, 2}
        assert {key: value for key, value in rows.items() if key[0] != DISPLACED} == {
            ("file", "a"): {"n": 1},
            ("file", "b"): {"n": 2},
            ("file", "d"): {"n": 3},
            ("waiting", "x"): {"n": 3},
        }
        assert folders(source) == [session.folder.name]
        for kind, key in rows:
            session.journal.drop(kind, key)
        for name in staged:
            (session.staged_folder / name).unlink()
        session.close()
        if finished:
            break
        steps += 1
    assert steps > 15


def _of(rows: dict[tuple[str, str], dict[str, object]]) -> Iterator[tuple[str, dict[str, object]]]:
    return ((kind, value) for (kind, _), value in rows.items())


def _die_after(steps: int) -> None:
    """Let this process die at its step after so many: renames, syncs, removals, changes of a journal."""
    left = iter(range(steps))

    def mortal(function):  # type: ignore[no-untyped-def]
        def step(*args, **kwargs):  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                os._exit(1)
            return function(*args, **kwargs)

        return step

    for owner, name in (
        (os, "rename"),
        (os, "fsync"),
        (os, "mkdir"),
        (os, "rmdir"),
        (module.Journal, "put"),
        (module.Journal, "settle"),
        (module.Journal, "close"),
    ):
        setattr(owner, name, mortal(getattr(owner, name)))


_WRITES = """
import sys, time
from pathlib import Path
from octuefs.writing.sessions import open_session
session = open_session(Path(sys.argv[1]))
session.journal.put("file", "a", {"n": 1})
session.journal.settle()
print("settled", flush=True)
time.sleep(60)
"""


def test_what_a_killed_daemon_has_left_is_counted_without_a_trace_and_taken_over(source: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WRITES, str(source)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"settled\n"
    assert dead_sessions(source) == {}
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()

    def traces() -> dict[Path, tuple[int, int, bytes]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
            for path in [source, *source.rglob("*")]
        }

    before = traces()
    assert dead_sessions(source) == {"file": 1}
    assert traces() == before
    session = open_session(source)
    assert session.journal.items("file") == {"a": {"n": 1}}
    session.close()


def test_nothing_is_counted_where_nobody_ever_wrote(source: Path, tmp_path: Path) -> None:
    assert dead_sessions(source) == dead_sessions(tmp_path / "nowhere") == {}
    assert list(source.iterdir()) == []


def test_a_session_whose_process_ended_while_it_made_it_counts_nothing(source: Path) -> None:
    open_session(source).close()
    (source / f"{1:032x}").mkdir()
    (source / f"{2:032x}").mkdir()
    (source / f"{2:032x}" / "lock").touch()
    (source / f"{2:032x}" / "journal.sqlite").touch()
    assert dead_sessions(source) == {}
    session = open_session(source)
    assert folders(source) == [session.folder.name]
    session.close()


@pytest.mark.expected_logs("was damaged")
def test_damaged_journals_are_kept_and_told_with_their_files(source: Path) -> None:
    oldest = leave(source, 1, {("file", "a"): {}}, "a")
    later = leave(source, 2, {("file", "b"): {}}, "b")
    for folder in (oldest, later):
        (folder / "journal.sqlite").write_bytes(b"no journal" * 1000)
    assert dead_sessions(source) == {UNREADABLE: 2}
    session = open_session(source)
    assert content(session) == ({}, {"a": "a", "b": "b"})
    assert len(session.problems) == 2
    names = [path.name for path in session.strangers()]
    assert sum(name.startswith("journal.sqlite.broken-") for name in names) == 1
    assert sum(name.startswith(f"{later.name}.journal.sqlite.broken-") for name in names) == 1
    session.close()
    assert folders(source) == [oldest.name]


def test_what_cannot_be_taken_over_is_left_and_told(source: Path) -> None:
    leave(source, 1, {("file", "a"): {}})
    (source / f"{2:032x}").write_text("no folder")
    session = open_session(source)
    assert session.journal.items("file") == {"a": {}}
    (problem,) = session.problems
    assert f"{2:032x}" in problem
    session.close()


def test_a_failure_of_taking_over_lets_go_of_all(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(source, 1, {("file", "a"): {}}, "a")
    leave(source, 2, {("file", "b"): {}}, "b")

    def full(*_: object) -> None:
        raise OSError(28, "No space")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_sync_folder", full)
        with pytest.raises(LocalFailure, match="No space left") as failure:
            open_session(source)
    assert failure.value.errno == 28
    session = open_session(source)
    assert content(session) == ({("file", "a"): {}, ("file", "b"): {}}, {"a": "a", "b": "b"})
    session.close()


def test_a_lock_that_another_keeps_is_told(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    session = open_session(source)
    with module._locked(source):
        with pytest.raises(LocalFailure, match=r"source/lock for"):
            open_session(source)
        assert dead_sessions(source) == {}
        session.close()  # does not fail; the next one removes it
    assert len(folders(source)) == 1
    open_session(source).close()
    assert folders(source) == []


def test_a_source_is_its_endpoint_bucket_and_path_or_its_real_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    real = describe_source("", LocalLocation(str(tmp_path / "data")))
    assert describe_source("", LocalLocation(str(tmp_path / "link"))) == real
    keys = {
        real,
        describe_source("", LocalLocation(os.fsdecode(b"/\xff"))),
        describe_source("", CloudLocation("b", "a")),
        describe_source("", CloudLocation("b", "")),
        describe_source("", CloudLocation("c", "a")),
        describe_source("http://localhost:1", CloudLocation("b", "a")),
    }
    assert len({json.dumps(key) for key in keys}) == 6
    before = os.umask(0)
    try:
        made = {places.writing_folder(key) for key in keys}
    finally:
        os.umask(before)
    assert len(made) == 6
    assert {path.parent for path in made} == {tmp_path / "state" / "octuefs" / "writing"}
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
