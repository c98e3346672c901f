"""Hears of changes that other programs make in a local folder.

watchdog's threads note paths; one thread of ours gathers them for a moment and passes them on. Links are
never followed. Where the system has no watches left, the folder is scanned again and again instead.
"""

import ctypes
import errno
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.utils import BaseThread

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.02
SPACING_SECONDS = 0.1
SCAN_SECONDS = 0.5
_LIVENESS_SECONDS = 0.5
_SCAN_SHARE = 5
"""Scanning, that of all folders together, may take one part in this many of the time."""
_INSTANCES_SHARE = 2
"""One in this many of the user's inotify instances is for us: other programs need some, too."""
_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
BURST_EVENTS = 4096
"""After more events than this at once some may have been lost (the kernel queues 16,384): all is read again."""

_LISTENING = threading.Lock()
"""Held while a watcher's threads start, which takes as long as the folder has watches to set."""
_IN_DELETE_SELF = 0x400

_HEARD: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileAttribEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]


_REMEDIES = {
    errno.ENOSPC: " More watches: sysctl fs.inotify.max_user_watches",
    errno.EMFILE: " More instances: sysctl fs.inotify.max_user_instances",
}


class Counter:
    """How many watchers of this process do the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.number = 0

    def enter(self, most: int | None = None) -> bool:
        """Count one more, if that is at most `most`, and say whether it is counted."""
        with self._lock:
            if most is not None and self.number >= most:
                return False
            self.number += 1
            return True

    def leave(self) -> None:
        """Count one less."""
        with self._lock:
            self.number -= 1


_LISTENERS, _SCANNERS = Counter(), Counter()


def _most_listeners() -> int | None:
    """Return how many folders may be listened to; None where the system has no such limit."""
    try:
        return int(_INSTANCES.read_text()) // _INSTANCES_SHARE
    except (OSError, ValueError):
        return None


class Watcher(FileSystemEventHandler):
    """Calls back with the changed paths of a folder, relative to it, from one thread."""

    def __init__(
        self, root: str, changed: Callable[[set[str]], object], rescan: Callable[[], object], *, recursive: bool
    ) -> None:
        """`rescan` reads everything again and returns when it has."""
        self._root = root
        self._changed = changed
        self._rescan = rescan
        self._recursive = recursive
        self._condition = threading.Condition()
        self._paths: set[str] = set()
        self._events = 0
        self._new_folders = False
        self._stopping = False
        self._observer: BaseObserver | None = None
        self._thread: threading.Thread | None = None
        self._listeners: list[threading.Thread] = []
        """watchdog's threads: one that dies of something takes its word of changes along."""
        self.how = "none"
        """How changes are heard of: "inotify" (or the system's like), or "scanning"."""
        self._counted: Counter | None = None
        """Where this watcher is counted."""

    def start(self) -> None:
        """Begin to listen, or to scan where the system cannot watch."""
        try:
            self._listen()
            if self._recursive:
                _prove_watches_left()
            self.how, work = "inotify", self._gather
        except (OSError, RecursionError) as error:
            self._fall_back(error)
            work = self._scan
        self._thread = threading.Thread(target=work, name="watcher", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        """Let watchdog start, and note which threads it makes: no other watcher's, which may be starting too."""
        if not _LISTENERS.enter(_most_listeners()):
            raise OSError(errno.EMFILE, "others need the inotify instances that are left")
        self._counted = _LISTENERS
        self._observer = Observer()
        self._observer.schedule(self, self._root, recursive=self._recursive, event_filter=_HEARD)
        with _LISTENING:
            others = set(threading.enumerate())
            self._observer.start()
            self._listeners = [it for it in threading.enumerate() if it not in others and isinstance(it, BaseThread)]

    def stop(self) -> None:
        """End both threads."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._stop_observer()
        self._leave()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _fall_back(self, error: OSError | RecursionError) -> None:
        if isinstance(error, OSError):
            reason, remedy = error.strerror, _REMEDIES.get(error.errno or 0, "")
        else:
            reason, remedy = "its folders are nested too deeply for it", ""
        logger.warning("cannot watch %s (%s); it is scanned instead.%s", self._root, reason, remedy)
        self._stop_observer()
        self._leave()
        self.how = "scanning"

    def _leave(self) -> None:
        """Be counted no more."""
        with self._condition:
            counted, self._counted = self._counted, None
        if counted is not None:
            counted.leave()

    def _stop_observer(self) -> None:
        with self._condition:
            observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(timeout=2)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Take one event from watchdog."""
        with self._condition:
            for path in (event.src_path, event.dest_path):
                if path:
                    self._paths.add(os.path.relpath(os.fsdecode(path), self._root))
            self._events += 1
            self._new_folders |= isinstance(event, DirCreatedEvent | DirMovedEvent)
            self._condition.notify()

    def _gather(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._paths, timeout=_LIVENESS_SECONDS)
            time.sleep(GATHER_SECONDS)
            with self._condition:
                if self._stopping:
                    return None
                paths, self._paths = self._paths, set()
                events, self._events = self._events, 0
                new_folders, self._new_folders = self._new_folders, False
            paths.discard(".")
            try:
                if not all(thread.is_alive() for thread in self._listeners):
                    raise RecursionError
                if new_folders:
                    _prove_watches_left()
            except (OSError, RecursionError) as error:
                if self._stopping:
                    return None  # watchdog's threads have ended because they were told to
                self._fall_back(error)
                self._tell(self._rescan)
                return self._scan()
            if events > BURST_EVENTS:
                self._tell(self._rescan)
            elif paths:
                self._tell(self._changed, paths)
            time.sleep(SPACING_SECONDS)

    def _scan(self) -> None:
        pause = SCAN_SECONDS
        with self._condition:
            if self._stopping:
                return
            _SCANNERS.enter()
            self._counted = _SCANNERS
        while True:
            with self._condition:
                if self._condition.wait_for(lambda: self._stopping, timeout=pause):
                    return
            started = time.monotonic()
            self._tell(self._rescan)
            pause = max(SCAN_SECONDS, _SCAN_SHARE * (time.monotonic() - started) * _SCANNERS.number)

    def _tell(self, callback: Callable[..., object], *told: set[str]) -> None:
        """Call back; a failure, but one for the end of the mount, is logged and must not end the listening."""
        try:
            callback(*told)
        except Exception:
            if not self._stopping:
                logger.exception("changes in %s may not show yet", self._root)


def _prove_watches_left() -> None:
    """Take one more watch and give it back: watchdog passes over folders that it cannot watch without a word.

    :raise OSError: where the system has none left
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    watches = libc.inotify_init1(os.O_CLOEXEC)
    try:
        if watches < 0 or libc.inotify_add_watch(watches, os.fsencode(tempfile.gettempdir()), _IN_DELETE_SELF) < 0:
            raise OSError(ctypes.get_errno(), "the system has no inotify watches left")
    finally:
        if watches >= 0:
            os.close(watches)
