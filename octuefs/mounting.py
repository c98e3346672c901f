"""What a running mount is: one dataset (`mounted.py`), or several by name (`parts.py`), with one tree and one panel.

`mount.py` makes it, serves its tree to the kernel, and ends it.
"""

import json
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from octuefs import __version__
from octuefs.config import MountConfig, check_apart
from octuefs.errors import OctuefsError
from octuefs.model.manifest import DatasetEntry, Manifest, manifest_text
from octuefs.model.paths import derived_id, parse_source
from octuefs.mounted import MountedDataset
from octuefs.parts import DatasetPart, for_all, open_parts
from octuefs.recoveries import Recoveries
from octuefs.report import Report, printable
from octuefs.resources import Resources
from octuefs.tree.control import ControlFiles
from octuefs.tree.manifest import ManifestFacts, ManifestNamespace
from octuefs.tree.namespace import MountedTree, Namespace
from octuefs.wiring import KERNEL_SECONDS

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""How long nothing may move of what is to be stored before the end of a mount leaves it in the journal."""

Announce = Callable[[dict[str, Any]], None]
"""Told `{"seen": n}` while a source is read and `{"mounted": {...}}` once the mount answers."""


class Mount(ABC):
    """A running mount, as its control panel tells of it."""

    def __init__(self, config: MountConfig, report: Report) -> None:
        self.config = config
        self.report = report
        """What the calls of programs met, whichever dataset they were about, and what went wrong with each dataset."""
        self.resources = Resources(config, report)
        """What all its datasets share."""
        self.traffic = self.resources.traffic
        """What they ask of their stores."""
        self.traffic.gauge("pending_files", lambda: self.pending()["files"])
        self.traffic.gauge("pending_bytes", lambda: self.pending()["bytes"])
        self.metrics_port: int | None = None
        """Where the figures are served to Prometheus, if they are."""
        self.started = time.time()
        self.given_up = threading.Event()
        """Set where nobody waits for what is not stored yet."""
        self.driver_status: Callable[[], dict[str, Any]] = dict
        """What the driver says of itself."""
        self.recovered = Recoveries(self.mounted_by_name)

    # --- what is mounted

    @abstractmethod
    def mounted_by_name(self) -> Mapping[str, MountedDataset]:
        """Return the datasets in reach by name; the only one of a mount without a manifest is named ""."""

    def mounted(self) -> Iterable[MountedDataset]:
        """Return the datasets in reach."""
        return self.mounted_by_name().values()

    @abstractmethod
    def tree(self) -> MountedTree:
        """Return the one tree of the mount."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Return what `.octuefs/status` says."""

    @abstractmethod
    def read_again(self) -> None:
        """Read all stores again and wait for that."""

    # --- how it is

    def general_status(self) -> dict[str, Any]:
        """Return what `.octuefs/status` says of every mount."""
        return {
            "source": self.config.shown_source,
            "mount_point": self.config.mount_point,
            "driver": "kernel" if self.config.takes_kernel_driver else "libfuse",
            **({"kernel": kernel} if (kernel := self.driver_status()) else {}),
            "version": __version__,
            "pid": os.getpid(),
            "read_only": self.config.read_only,
            "mounted_seconds": round(time.time() - self.started, 1),
            **({"metrics_port": self.metrics_port} if self.metrics_port is not None else {}),
            "traffic": self.traffic.figures(),
        }

    def pending(self) -> dict[str, Any]:
        """Return how much is not stored yet."""
        left = [item for mounted in self.mounted() for item in mounted.pending()]
        return {"files": len(left), "bytes": sum(item.size - item.sent for item in left)}

    def sync(self) -> dict[str, Any]:
        """Wait until everything written is stored, and say what could not be since the mount was made."""
        self.wait_until_stored()
        failed = {}
        for name, mounted in self.mounted_by_name().items():
            for path, reason in mounted.failed_since(self.started).items():
                failed[f"{name}/{path}" if name else path] = reason
        return {"failed": failed}

    def wait_until_stored(self) -> None:
        """Return when everything is stored, when nothing has moved for a while, or when it was given up."""
        before: dict[str, Any] = {}
        moved = time.monotonic()
        while self._drain() and not self.given_up.is_set():
            now = self.pending()
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > _PATIENCE_SECONDS:
                return

    def _drain(self) -> bool:
        """Wait a moment for what is not stored yet, and say whether anything is left."""
        waiting = [mounted for mounted in self.mounted() if mounted.pending()]
        for mounted in waiting:
            mounted.drain(_LOOK_SECONDS / len(waiting))
        return any(mounted.drain(0) for mounted in self.mounted())

    def refresh(self) -> dict[str, Any]:
        """Read the stores again, and forget what views show only because programs look at it."""
        self.read_again()
        self.tree().forget_shown()
        return self.status()

    def control_files(self) -> ControlFiles:
        """Return what `.octuefs/` shows and does."""
        return ControlFiles(
            lambda: json.dumps(self.status(), indent=2).encode() + b"\n",
            lambda: self.report.text().encode("utf-8", "replace"),
            self.refresh,
            None if self.config.read_only else self.recovered,
        )

    def summary(self) -> dict[str, Any]:
        """Return what the mount command prints."""
        reports, mounted = self.report.with_parts(), self.mounted()
        counts = [it.counts() for it in mounted]
        return {
            "source": self.config.shown_source,
            "mount_point": self.config.mount_point,
            "files": sum(it["files"] for it in counts),
            "bytes": sum(it["bytes"] for it in counts),
            "labels": sorted({label for it in mounted for label in it.labels()}),
            "extensions": sorted({extension for it in mounted for extension in it.extensions()}),
            "problems": sum(it.problem_count + len(it.skipped) for it in reports),
            "views": self.config.views,
            "read_only": self.config.read_only or self._only_reads(),
            "notes": self.notes(),
        }

    def _only_reads(self) -> bool:
        """Say whether there are datasets, and none of them can be written."""
        mounted = list(self.mounted())
        return bool(mounted) and all(it.dataset.writer is None for it in mounted)

    def notes(self) -> list[str]:
        """Return what whoever mounts must know."""
        notes = [
            f"{name}: {note}" if name else note
            for name, mounted in self.mounted_by_name().items()
            for note in mounted.notes()
        ]
        if self.config.read_only and any(report.failure_count for report in self.report.with_parts()):
            notes.append("see .octuefs/errors")
        if kept := len(self.recovered.entries()):
            notes.append(f"{kept} things could not be stored earlier: octuefs recover {self.config.mount_point}")
        return notes

    def kernel_seconds(self) -> float:
        """Return how long the kernel may keep names and attributes."""
        in_cloud = any(mounted.dataset.in_cloud for mounted in self.mounted())
        return min(KERNEL_SECONDS, self.config.source.metadata_ttl) if in_cloud else KERNEL_SECONDS


class OneDataset(Mount):
    """A mount whose root is a dataset's."""

    def __init__(self, config: MountConfig, entry: DatasetEntry, announce: Announce, stack: ExitStack) -> None:
        super().__init__(config, Report())
        stack.callback(self.resources.close)
        self._mounted = MountedDataset(
            entry, config, self.report, lambda seen: announce({"seen": seen}), self.resources
        )
        stack.callback(self._mounted.close)
        self.dataset = self._mounted.dataset
        self._tree = Namespace(self.dataset, self.control_files(), views=config.views, list_views=config.list_views)

    def mounted_by_name(self) -> Mapping[str, MountedDataset]:
        """See `Mount`."""
        return {"": self._mounted}

    def tree(self) -> MountedTree:
        """See `Mount`."""
        return self._tree

    def status(self) -> dict[str, Any]:
        """See `Mount`."""
        return {**self.general_status(), **self._mounted.status(), "source": self.config.shown_source}

    def read_again(self) -> None:
        """See `Mount`."""
        self._mounted.dataset.keeper.refresh().result()


class SeveralDatasets(Mount):
    """A mount of a manifest, or of several sources: a folder for each dataset."""

    def __init__(self, config: MountConfig, manifest: Manifest, announce: Announce, stack: ExitStack) -> None:
        super().__init__(config, Report())
        stack.callback(self.resources.close)
        for entry in manifest.datasets.values():
            check_apart(config.mount_point, parse_source(entry.path))
        self._id = manifest.id or derived_id(f"{config.shown_source} {sorted(manifest.datasets)}")
        self._name = manifest.name
        self._parts = open_parts(
            manifest.datasets, config, self.report, lambda seen: announce({"seen": seen}), self.resources
        )
        stack.callback(for_all, self._parts, DatasetPart.close)
        if config.strict and (lost := self._out_of_reach()):
            raise OctuefsError(
                f"--strict: {'; '.join(f'{part.name} cannot be reached: {part.error}' for part in lost)}"
            )
        self._tree = ManifestNamespace(
            self._parts,
            ManifestFacts(self._id, self._name, self._text),
            self.control_files(),
            views=config.views,
            list_views=config.list_views,
        )

    def _out_of_reach(self) -> list[DatasetPart]:
        return [part for part in self._parts.values() if part.mounted is None]

    def _text(self) -> bytes:
        datasets = {name: part.primitive() for name, part in self._parts.items()}
        return manifest_text(self._id, self._name, datasets).encode()

    def mounted_by_name(self) -> Mapping[str, MountedDataset]:
        """See `Mount`."""
        return {name: mounted for name, part in self._parts.items() if (mounted := part.mounted) is not None}

    def tree(self) -> MountedTree:
        """See `Mount`."""
        return self._tree

    def status(self) -> dict[str, Any]:
        """See `Mount`."""
        datasets = {name: self._status_of(part) for name, part in self._parts.items()}
        reached = [it for it in datasets.values() if "counts" in it]
        return {
            **self.general_status(),
            "manifest": {"id": self._id, "name": self._name},
            "counts": {
                "datasets": len(datasets),
                "unreachable": len(datasets) - len(reached),
                "files": sum(it["counts"]["files"] for it in reached),
                "bytes": sum(it["counts"]["bytes"] for it in reached),
            },
            "problems": sum(report.problem_count for report in self.report.with_parts()),
            "failures": sum(report.failure_count for report in self.report.with_parts()),
            "datasets": datasets,
        }

    def _status_of(self, part: DatasetPart) -> dict[str, Any]:
        mounted = part.mounted
        if mounted is None:
            return {"source": str(parse_source(part.entry.path)), "unreachable": printable(str(part.error))}
        return mounted.status()

    def read_again(self) -> None:
        """See `Mount`; what is out of reach is tried again too."""
        failures: dict[str, OctuefsError] = {}

        def read(part: DatasetPart) -> None:
            part.try_again().result()
            if part.mounted is None:
                return
            try:
                part.mounted.dataset.keeper.refresh().result()
            except OctuefsError as error:
                failures[part.name] = error

        for_all(self._parts, read)
        if failures:
            raise OctuefsError("; ".join(f"{name}: {error}" for name, error in sorted(failures.items())))

    def summary(self) -> dict[str, Any]:
        """See `Mount`."""
        in_reach = [name for name, part in self._parts.items() if part.mounted is not None]
        return {**super().summary(), "datasets": list(self._parts), "in_reach": in_reach}

    def notes(self) -> list[str]:
        """See `Mount`."""
        return [f"{part.name} cannot be reached: {part.error}" for part in self._out_of_reach()] + super().notes()
