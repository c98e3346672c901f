"""The one place where the concrete parts of a mount are wired together, and its life from load to unmount.

`open_dataset` serves the commands that read a source without mounting it; `serve` is a whole mount, in the
calling thread, until it is unmounted.
"""

import io
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from octuefs import __version__, places
from octuefs.config import MountConfig, SourceConfig
from octuefs.content.hashing import HashCache, Hasher
from octuefs.control import ControlServer
from octuefs.dataset import Dataset
from octuefs.errors import OctuefsError, from_os_error
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.paths import CloudLocation, LocalLocation
from octuefs.operations import Operations
from octuefs.report import Report, printable
from octuefs.stores.base import Store
from octuefs.tree.namespace import ControlFiles, Namespace

logger = logging.getLogger(__name__)

_SHOWN_SKIPPED = 100
_LOG_BYTES = 1 << 20
_KERNEL_SECONDS = 0.5
"""How long the kernel may answer from what it knows; with the watcher's moment a change shows within a second."""

Announce = Callable[[dict[str, Any]], None]
"""Told `{"seen": n}` while a source is read and `{"mounted": {...}}` once the mount answers."""


def open_store(config: SourceConfig, mount_point: str | None = None) -> Store:
    """Return the store of a source, checked to be there; it never looks into `mount_point`.

    :raise OctuefsError: where it is not, or may not be read
    """
    location = config.location
    store: Store
    if isinstance(location, CloudLocation):
        from octuefs.stores.gcs import GcsStore

        store = GcsStore(location, anonymous=config.anonymous)
    else:
        from octuefs.stores.local import LocalStore

        store = LocalStore(location, mount_point)
    try:
        store.check()
    except BaseException:
        store.close()
        raise
    return store


def _open_hash_cache(store: Store) -> HashCache | None:
    if store.in_cloud:
        return None
    try:
        return HashCache(places.hash_cache())
    except (OSError, OctuefsError, sqlite3.Error) as error:
        logger.warning("hashes are not remembered over mounts: %s", error)
        return None


@contextmanager
def open_dataset(
    config: SourceConfig, report: Report, progress: Callable[[int], None] | None = None
) -> Iterator[Dataset]:
    """Give the loaded dataset of a source; `progress` is told how many files have been seen."""
    with _unloaded_dataset(config, report) as dataset:
        dataset.keeper.load(progress)
        yield dataset


@contextmanager
def _unloaded_dataset(config: SourceConfig, report: Report, mount_point: str | None = None) -> Iterator[Dataset]:
    with ExitStack() as stack:
        store = open_store(config, mount_point)
        stack.callback(store.close)
        cache = _open_hash_cache(store)
        if cache is not None:
            stack.callback(cache.close)
        index = Index()
        hasher = Hasher(store, index.publish_hash, cache)
        stack.callback(hasher.close)
        keeper = Keeper(
            store,
            report,
            index,
            recursive=config.recursive,
            metadata_ttl=max(0.0, config.metadata_ttl - _KERNEL_SECONDS),
        )
        stack.callback(keeper.close)
        dataset = Dataset(keeper, hasher)
        yield dataset


@dataclass
class _Mount:
    """A running mount, as its control panel tells of it."""

    config: MountConfig
    dataset: Dataset
    report: Report
    watching: Callable[[], str]
    started: float

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
            "read_only": True,
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
        }

    def status_text(self) -> bytes:
        """Return the same as text."""
        return json.dumps(self.status(), indent=2).encode() + b"\n"

    def refresh(self) -> None:
        """Read the store again and wait for it."""
        self.dataset.keeper.refresh().result()

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
            }


def serve(config: MountConfig, announce: Announce) -> None:
    """Mount and answer until unmounted, or told to end by a signal.

    :raise OctuefsError: where the source cannot be read or the mount not be made
    """
    from octuefs.drivers import libfuse

    report = Report()
    with ExitStack() as stack:
        dataset = stack.enter_context(_unloaded_dataset(config.source, report, config.mount_point))
        watching = _watch(dataset, config.source, stack)
        dataset.keeper.load(lambda seen: announce({"seen": seen}))
        mount = _Mount(config, dataset, report, watching, time.time())
        namespace = Namespace(
            dataset,
            ControlFiles(mount.status_text, lambda: report.text().encode("utf-8", "replace"), mount.refresh),
            views=config.views,
            list_views=config.list_views,
        )
        for path in islice(namespace.shadowed_paths(), _SHOWN_SKIPPED):
            logger.warning("the dataset's own %s hides the virtual name", printable(path))
        control = ControlServer(places.control_socket(config.mount_point), _commands(mount))
        stack.callback(control.close)
        libfuse.serve(
            Operations(namespace, report),
            config.mount_point,
            source_name=str(dataset.location),
            read_only=config.read_only,
            allow_other=config.allow_other,
            kernel_seconds=min(_KERNEL_SECONDS, config.source.metadata_ttl) if dataset.in_cloud else _KERNEL_SECONDS,
            mounted=lambda: announce({"mounted": mount.summary()}),
        )
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


def _commands(mount: _Mount) -> dict[str, Callable[[], dict[str, Any]]]:
    def refresh() -> dict[str, Any]:
        mount.refresh()
        return mount.status()

    return {"refresh": refresh, "status": mount.status}


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
