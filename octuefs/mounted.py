"""One dataset of a mount, and its part of the mount's life: opened, asked how it is, drained, closed.

`mount.py` has one of these, or several under their names where a manifest or several sources are mounted.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from octuefs.config import MountConfig, check_outside_mounts
from octuefs.dataset import Dataset
from octuefs.model.manifest import DatasetEntry
from octuefs.model.paths import LocalLocation, parse_source
from octuefs.report import Report, printable
from octuefs.resources import Resources
from octuefs.sources import loaded_entry
from octuefs.wiring import open_changes
from octuefs.writing.base import Pending
from octuefs.writing.recovered import RecoveredEntry

_SHOWN_SKIPPED = 100


class MountedDataset:
    """A dataset that is mounted, with what watches it and what writes into it."""

    def __init__(
        self,
        entry: DatasetEntry,
        config: MountConfig,
        report: Report,
        progress: Callable[[int], None],
        resources: Resources,
    ) -> None:
        """Open and load the dataset; `progress` is told how many files have been seen, `resources` are the mount's.

        :raise OctuefsError: where it cannot be reached; nothing stays open then
        """
        self.report = report
        self._resources = resources
        self._stack = ExitStack()
        try:
            self._open(entry, config, progress)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, entry: DatasetEntry, config: MountConfig, progress: Callable[[int], None]) -> None:
        location = parse_source(entry.path)
        if isinstance(location, LocalLocation):
            check_outside_mounts(location)
        self.dataset = loaded_entry(
            entry,
            config.source,
            self.report,
            self._stack,
            progress,
            opened=lambda dataset: self._begin(dataset, config),
            mount_point=config.mount_point,
            read_only=config.read_only,
            ownership=config.ownership,
            traffic=self._resources.traffic,
            remembers=True,
        )
        if self.changes is not None:
            self.changes.restore()

    def _begin(self, dataset: Dataset, config: MountConfig) -> None:
        if dataset.in_cloud:
            dataset.reading = self._resources.reading()
        self.changes = open_changes(config, dataset, self.report, self._stack)
        self._watching = _watch(dataset, self._stack, config.source.metadata_ttl)

    # --- how it is

    def status(self) -> dict[str, Any]:
        """Return what `.octuefs/status` says of the dataset."""
        dataset, index, report = self.dataset, self.dataset.index, self.report
        skipped = [{"name": printable(name), "reason": reason} for name, reason in list(report.skipped.items())]
        return {
            "source": str(dataset.location),
            "read_only": dataset.writer is None,
            "recursive": dataset.keeper.recursive,
            "dataset": {"id": dataset.id, "name": dataset.name},
            "counts": (counts := self.counts()),
            "confirmed": dataset.keeper.is_confirmed,
            "index_version": index.version,
            "files_hashed": dataset.hasher.computed,
            "cache": {"hashes_remembered": dataset.hasher.remembered},
            "changes": self._watching(),
            "skipped_count": len(skipped),
            "skipped": skipped[:_SHOWN_SKIPPED],
            "sdk_hash_differs": dataset.in_cloud and bool(skipped or counts["shadowed"]),
            "problems": report.problem_count,
            "failures": report.failure_count,
            **self._of_writing(),
        }

    def counts(self) -> dict[str, int]:
        """Return how many files, bytes and labels there are, and the like."""
        index = self.dataset.index
        with index.lock:
            return {
                "files": len(index.datafiles),
                "bytes": index.total_bytes,
                "labels": sum(1 for rows in index.by_label.values() if rows),
                "not_hashed": len(index.unhashed),
                "shadowed": len(index.shadowed),
            }

    def _of_writing(self) -> dict[str, Any]:
        writer = self.dataset.writer
        if self.changes is None or writer is None:
            return {}
        return {
            "journal": str(self.changes.folder),
            "recovered": len(self.recovered()),
            "writing": writer.status(),
        }

    def labels(self) -> list[str]:
        """Return the labels that occur."""
        with self.dataset.index.lock:
            return sorted(self.dataset.index.by_label)

    def extensions(self) -> list[str]:
        """Return the extensions that occur."""
        with self.dataset.index.lock:
            return sorted(self.dataset.index.by_extension)

    # --- what is not stored yet, or could not be

    def pending(self) -> list[Pending]:
        """Return what was written and is not stored yet."""
        return list(self.dataset.writer.pending()) if self.dataset.writer is not None else []

    def drain(self, seconds: float) -> int:
        """Wait for that, at most `seconds`; return how many files are left."""
        return self.dataset.writer.drain(seconds) if self.dataset.writer is not None else 0

    def recovered(self) -> list[RecoveredEntry]:
        """Return what could not be stored."""
        return self.changes.recovered.entries() if self.changes is not None else []

    def failed_since(self, when: float) -> dict[str, str]:
        """Return why by path, of what could not be stored since then (seconds since the epoch) and what is left."""
        failed = {it.path: it.reason for it in self.recovered() if it.when >= when}
        return {**failed, **{item.path: "the store does not take it" for item in self.pending()}}

    def notes(self) -> list[str]:
        """Return what whoever mounts must know."""
        if self.changes is None:
            return []
        left = len(self.pending())
        return [f"{left} files that an earlier mount left are being stored now"] if left else []

    def close(self) -> None:
        """Give back what the dataset holds."""
        self._stack.close()


def _watch(dataset: Dataset, stack: ExitStack, metadata_ttl: float) -> Callable[[], str]:
    """Begin to hear of changes underneath; return what says how they are heard of. The TTL is in seconds."""
    location, keeper = dataset.location, dataset.keeper
    if dataset.in_cloud or not isinstance(location, LocalLocation):
        return lambda: f"asked again every {metadata_ttl:g} s"
    from octuefs.stores.watch import Watcher

    def begin() -> Watcher:
        watcher = Watcher(
            location.path, keeper.changed, lambda: keeper.refresh().exception(), recursive=keeper.recursive
        )
        watcher.start()
        return watcher

    current = [begin()]

    def begin_again() -> None:
        current[0].stop()
        current[0] = begin()

    keeper.replaced = begin_again
    keeper.heard = lambda: current[0].how == "inotify"
    stack.callback(lambda: current[0].stop())
    return lambda: current[0].how
