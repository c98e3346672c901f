"""The life of a mount, from load to unmount: `serve`, in the calling thread, until it is unmounted.

What it is made of comes from `wiring.py`. What was written and is not stored yet when the mount ends is stored before
`serve` returns, or stays in the journal where that cannot be, or where `octuefs unmount --force` says so.
"""

import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from octuefs import __version__, places
from octuefs.config import MountConfig, SourceConfig
from octuefs.control import Command, ControlServer
from octuefs.dataset import Dataset
from octuefs.errors import ReadOnly, from_os_error
from octuefs.model.paths import LocalLocation
from octuefs.operations import Operations
from octuefs.report import Report, printable
from octuefs.tree.control import ControlFiles
from octuefs.tree.namespace import Namespace
from octuefs.wiring import KERNEL_SECONDS, Changes, open_changes, open_store, unloaded_dataset
from octuefs.writing.recovered import Recovered

logger = logging.getLogger(__name__)

_SHOWN_SKIPPED = 100
_LOG_BYTES = 1 << 20
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""How long nothing may move of what is to be stored before the end of a mount leaves it in the journal."""

Announce = Callable[[dict[str, Any]], None]
"""Told `{"seen": n}` while a source is read and `{"mounted": {...}}` once the mount answers."""


@dataclass
class _Mount:
    """A running mount, as its control panel tells of it."""

    config: MountConfig
    dataset: Dataset
    report: Report
    changes: Changes | None
    watching: Callable[[], str]
    started: float
    given_up: threading.Event = field(default_factory=threading.Event)
    """Set where nobody waits for what is not stored yet."""
    refreshed: Callable[[], None] = lambda: None
    """Called after the store was read again at somebody's wish."""

    def status(self) -> dict[str, Any]:
        """Return what `.octuefs/status` says."""
        dataset, index, report = self.dataset, self.dataset.index, self.report
        with index.lock:
            counts = {
                "files": len(index.datafiles),
                "bytes": index.total_bytes,
                "labels": sum(1 for rows in index.by_label.values() if rows),
                "not_hashed": len(index.unhashed),
                "shadowed": len(index.shadowed),
            }
        skipped = [{"name": printable(name), "reason": reason} for name, reason in list(report.skipped.items())]
        return {
            "source": str(dataset.location),
            "mount_point": self.config.mount_point,
            "driver": "libfuse",
            "version": __version__,
            "pid": os.getpid(),
            "read_only": self.config.read_only,
            "mounted_seconds": round(time.time() - self.started, 1),
            "recursive": self.config.source.recursive,
            "dataset": {"id": dataset.id, "name": dataset.name},
            "counts": counts,
            "index_version": index.version,
            "files_hashed": dataset.hasher.computed,
            "cache": {"hashes_remembered": dataset.hasher.remembered},
            "changes": self.watching(),
            "skipped_count": len(skipped),
            "skipped": skipped[:_SHOWN_SKIPPED],
            "sdk_hash_differs": dataset.in_cloud and bool(skipped or counts["shadowed"]),
            "problems": report.problem_count,
            "failures": report.failure_count,
            **self._of_writing(),
        }

    def _of_writing(self) -> dict[str, Any]:
        if self.changes is None:
            return {}
        return {
            "journal": str(self.changes.folder),
            "recovered": len(self.changes.recovered.entries()),
            "writing": self.dataset.writing.status(),
        }

    def pending(self) -> dict[str, Any]:
        """Return how much is not stored yet."""
        left = self.dataset.writer.pending() if self.dataset.writer is not None else []
        return {"files": len(left), "bytes": sum(item.size - item.sent for item in left)}

    def sync(self) -> dict[str, Any]:
        """Wait until everything written is stored, and say what could not be since the mount was made."""
        self.wait_until_stored()
        kept = [] if self.changes is None else self.changes.recovered.entries()
        failed = {it.path: it.reason for it in kept if it.when >= self.started}
        left = self.dataset.writer.pending() if self.dataset.writer is not None else []
        return {"failed": {**failed, **{item.path: "the store does not take it" for item in left}}}

    def wait_until_stored(self) -> None:
        """Return when everything is stored, when nothing has moved for a while, or when it was given up."""
        writer = self.dataset.writer
        before: dict[str, Any] = {}
        moved = time.monotonic()
        while writer is not None and writer.drain(_LOOK_SECONDS) and not self.given_up.is_set():
            now = self.pending()
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > _PATIENCE_SECONDS:
                return

    def status_text(self) -> bytes:
        """Return the same as text."""
        return json.dumps(self.status(), indent=2).encode() + b"\n"

    def refresh(self) -> None:
        """Read the store again and wait for it."""
        self.dataset.keeper.refresh().result()
        self.refreshed()

    def summary(self) -> dict[str, Any]:
        """Return what the mount command prints."""
        dataset, index = self.dataset, self.dataset.index
        with index.lock:
            return {
                "source": str(dataset.location),
                "mount_point": self.config.mount_point,
                "name": dataset.name,
                "files": len(index.datafiles),
                "bytes": index.total_bytes,
                "labels": sorted(index.by_label),
                "extensions": sorted(index.by_extension),
                "problems": self.report.problem_count + len(self.report.skipped),
                "views": self.config.views,
                "read_only": self.config.read_only,
                "notes": self._notes(),
            }

    def _notes(self) -> list[str]:
        """Return what whoever mounts must know."""
        if self.changes is None:
            return [] if not self.report.failure_count else ["see .octuefs/errors"]
        notes = []
        if left := self.pending()["files"]:
            notes.append(f"{left} files that an earlier mount left are being stored now")
        if kept := len(self.changes.recovered.entries()):
            notes.append(f"{kept} things could not be stored earlier: octuefs recover {self.config.mount_point}")
        return notes


def serve(config: MountConfig, announce: Announce) -> None:
    """Mount and answer until unmounted, or told to end by a signal.

    :raise OctuefsError: where the source cannot be read or the mount not be made
    """
    from octuefs.drivers import libfuse

    report = Report()
    with ExitStack() as stack:
        store = open_store(config.source, config.mount_point, read_only=config.read_only, ownership=config.ownership)
        dataset = unloaded_dataset(config.source, store, report, stack)
        changes = open_changes(config, dataset, report, stack)
        watching = _watch(dataset, config.source, stack)
        dataset.keeper.load(lambda seen: announce({"seen": seen}))
        if changes is not None:
            changes.restore()
        mount = _Mount(config, dataset, report, changes, watching, time.time())
        namespace = Namespace(
            dataset,
            ControlFiles(
                mount.status_text,
                lambda: report.text().encode("utf-8", "replace"),
                mount.refresh,
                changes.recovered if changes is not None else None,
            ),
            views=config.views,
            list_views=config.list_views,
        )
        mount.refreshed = namespace.forget_shown
        for path in islice(namespace.shadowed_paths(), _SHOWN_SKIPPED):
            logger.warning("the dataset's own %s hides the virtual name", printable(path))
        control = ControlServer(places.control_socket(config.mount_point), _commands(mount))
        stack.callback(control.close)
        os.umask(0)  # the kernel has applied the caller's to every mode that it sends
        libfuse.serve(
            Operations(namespace, report),
            config.mount_point,
            source_name=str(dataset.location),
            read_only=config.read_only,
            allow_other=config.allow_other,
            kernel_seconds=min(KERNEL_SECONDS, config.source.metadata_ttl) if dataset.in_cloud else KERNEL_SECONDS,
            mounted=lambda: announce({"mounted": mount.summary()}),
        )
        mount.wait_until_stored()
    logger.info("unmounted %s", config.mount_point)


def _watch(dataset: Dataset, config: SourceConfig, stack: ExitStack) -> Callable[[], str]:
    """Begin to hear of changes underneath; return what says how they are heard of."""
    location, keeper = dataset.location, dataset.keeper
    if not isinstance(location, LocalLocation):
        return lambda: f"asked again every {config.metadata_ttl:g} s"
    from octuefs.stores.watch import Watcher

    def begin() -> Watcher:
        watcher = Watcher(
            location.path, keeper.changed, lambda: keeper.refresh().exception(), recursive=config.recursive
        )
        watcher.start()
        return watcher

    current = [begin()]

    def begin_again() -> None:
        current[0].stop()
        current[0] = begin()

    keeper.replaced = begin_again
    stack.callback(lambda: current[0].stop())
    return lambda: current[0].how


def _commands(mount: _Mount) -> dict[str, Command]:
    def refresh() -> dict[str, Any]:
        mount.refresh()
        return mount.status()

    def give_up() -> dict[str, Any]:
        mount.given_up.set()
        return {}

    def recovered() -> dict[str, Any]:
        return {
            "entries": [
                {"name": it.name, "path": it.path, "when": it.when, "reason": it.reason, "size": it.size}
                for it in _recovered(mount).entries()
            ]
        }

    def restore(name: str) -> dict[str, Any]:
        entry = _recovered(mount).entry(name)
        _recovered(mount).restore(name)
        return {"path": entry.path}

    def discard(name: str) -> dict[str, Any]:
        _recovered(mount).discard(name)
        return {}

    return {
        "refresh": refresh,
        "status": mount.status,
        "pending": mount.pending,
        "sync": mount.sync,
        "give_up": give_up,
        "recovered": recovered,
        "restore": restore,
        "discard": discard,
    }


def _recovered(mount: _Mount) -> Recovered:
    """Return what could not be stored.

    :raise ReadOnly: on a read-only mount, which never stores anything
    """
    if mount.changes is None:
        raise ReadOnly(f"{mount.config.mount_point} is mounted read-only; nothing is kept or restored there")
    return mount.changes.recovered


class _PrivateLog(RotatingFileHandler):
    """A log of four files at most, each 0600; none of its records is lost for a name that is not UTF-8."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> io.TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


def start_logging(path: Path | None, level: str) -> None:
    """Log to a file (0600), or to stderr where `path` is None; other libraries' noise only from warnings on.

    :raise OctuefsError: where the file cannot be written
    """
    try:
        handler: logging.Handler = _PrivateLog(path) if path else logging.StreamHandler()
    except OSError as error:
        raise from_os_error(error, f"the log {path}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("octuefs").setLevel(level)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs what it raises; our stores say it in words
