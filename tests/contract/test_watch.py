"""The watcher of a local folder where watching or calling back fails."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from octuefs.stores import watch


class NoObserver:
    """Stands for watchdog where the folders are deeper than Python recurses."""

    def is_alive(self) -> bool:
        return False

    def schedule(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> None:
        raise RecursionError


def fails_at_first(error: Exception, done: threading.Event) -> Callable[..., None]:
    calls = []

    def callback(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise error
        done.set()

    return callback


@pytest.mark.expected_logs("cannot watch .*nested too deeply.*scanned|may not show")
@pytest.mark.parametrize("error", [ValueError(), CancelledError(), RuntimeError()])
def test_a_folder_too_deep_to_watch_is_scanned_also_after_a_scan_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(watch, "Observer", NoObserver)
    monkeypatch.setattr(watch, "SCAN_SECONDS", 0.001)
    scanned = threading.Event()
    watcher = watch.Watcher(str(tmp_path), lambda _: None, fails_at_first(error, scanned), recursive=True)
    watcher.start()
    assert watcher.how == "scanning"
    assert scanned.wait(10)
    watcher.stop()


@pytest.mark.expected_logs("may not show")
@pytest.mark.parametrize("burst", [False, True])
def test_a_callback_that_fails_is_logged_and_later_changes_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, burst: bool
) -> None:
    monkeypatch.setattr(watch, "SPACING_SECONDS", 0.001)
    if burst:
        monkeypatch.setattr(watch, "BURST_EVENTS", 0)
    told = threading.Event()
    failing = fails_at_first(CancelledError(), told)
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    watcher = watch.Watcher(str(tmp_path), nothing if burst else failing, failing if burst else nothing, recursive=True)
    watcher.start()
    for number in range(1000):
        (tmp_path / str(number)).touch()
        if told.wait(0.01):
            break
    assert told.is_set()
    watcher.stop()


def test_a_callback_that_fails_because_the_mount_ends_says_nothing(tmp_path: Path) -> None:
    began, go = threading.Event(), threading.Event()

    def changed(_: set[str]) -> None:
        began.set()
        assert go.wait(10)
        raise RuntimeError("cannot schedule new futures after shutdown")

    watcher = watch.Watcher(str(tmp_path), changed, lambda: None, recursive=True)
    watcher.start()
    (tmp_path / "a").touch()
    assert began.wait(10)
    stopping = threading.Thread(target=watcher.stop)
    stopping.start()
    while not watcher._stopping:
        assert stopping.is_alive()
    go.set()
    stopping.join(10)
    assert watcher._thread is not None
    assert not watcher._thread.is_alive()


@pytest.mark.expected_logs("cannot watch .*max_user_instances")
def test_others_are_left_their_share_of_what_the_system_can_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "instances").write_text("2\n")
    monkeypatch.setattr(watch, "_INSTANCES", tmp_path / "instances")
    monkeypatch.setattr(watch, "_LISTENERS", watch.Counter())
    monkeypatch.setattr(watch, "_SCANNERS", watch.Counter())
    monkeypatch.setattr(watch, "SCAN_SECONDS", 0.001)
    scanned = threading.Event()
    watchers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        watchers.append(watch.Watcher(str(tmp_path / name), lambda _: None, scanned.set, recursive=True))
        watchers[-1].start()
    assert [watcher.how for watcher in watchers] == ["inotify", "scanning"]
    assert scanned.wait(10)
    assert (watch._LISTENERS.number, watch._SCANNERS.number) == (1, 1)
    for watcher in watchers:
        watcher.stop()
    assert (watch._LISTENERS.number, watch._SCANNERS.number) == (0, 0)
