"""The datasets of a mount that has several, by name: opened side by side, and again where one was out of reach.

One that cannot be reached has its folder in the mount all the same; who reads it gets the reason as an errno.
"""

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from copy import copy
from typing import Any

from octuefs.config import MountConfig
from octuefs.dataset import Dataset
from octuefs.errors import NotADirectory, NotFound, OctuefsError, PermissionRefused, from_os_error
from octuefs.model.listed_files import place_files
from octuefs.model.manifest import DatasetEntry, dataset_dictionary
from octuefs.model.metadata import DatasetMetadata
from octuefs.model.paths import GS_SCHEME, LocalLocation, parse_source
from octuefs.mounted import MountedDataset
from octuefs.report import Report, printable
from octuefs.resources import Resources
from octuefs.tree.namespace import Namespace

logger = logging.getLogger(__name__)

_GONE = (NotFound, NotADirectory, PermissionRefused)
"""What says that a dataset cannot be reached; what a store does not answer may come yet, and the old facts stand."""
_LOOK_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 2.0
_AT_ONCE = 32
"""How many datasets are opened, or closed, at a time: most of that is waiting for a store."""
_TELL_SECONDS = 0.2
_PATIENCE_SECONDS = 1.0
"""How long who asks for a dataset waits for it to be tried again."""
_RETRY_SECONDS = 5.0
"""How soon a dataset out of reach that is asked for is tried again."""


class DatasetPart:
    """One dataset of several, in reach or not. Any thread may call."""

    def __init__(
        self, name: str, entry: DatasetEntry, config: MountConfig, report: Report, resources: Resources
    ) -> None:
        """`report` is the dataset's own, `resources` are the mount's."""
        self.name = name
        self.entry = entry
        self.report = report
        self.mounted: MountedDataset | None = None
        """None where the dataset cannot be reached."""
        self.error: OctuefsError = NotFound(f"{name} is not open yet")
        """Why it cannot be reached."""
        self.overlapping: list[DatasetPart] = []
        """Others that have objects of this one."""
        self.generation = 0
        """Grows when the dataset comes into reach."""
        self._config = config
        self._resources = resources
        self._lock = threading.Lock()  # guards what follows, for memory work alone
        self._namespace: Namespace | None = None
        self._observer: Callable[[str], object] | None = None
        self._tried_at = self._looked_at = 0.0
        self._folder: tuple[int, int] | None = None
        """Which folder of a disk the dataset was when it was looked at last."""
        self._reached = False
        self._written: dict[str, int] = {}
        """What was written through the overlapping ones when this one was looked at last."""
        self._failure: OctuefsError | None = None
        """Why the store could not be read when the dataset was looked at last."""
        self._trying: Future[None] | None = None
        self._closed = False

    def open(self, progress: Callable[[int], None]) -> None:
        """Open the dataset, or note why it cannot be reached."""
        try:
            mounted = MountedDataset(self.entry, self._config, self.report, progress, self._resources)
        except OctuefsError as error:
            self.error = error
        except Exception as error:
            logger.exception("%s could not be opened", self.name)
            self.error = OctuefsError(f"unexpected failure: {error!r}")
        else:
            config = self._config
            namespace = Namespace(
                mounted.dataset, None, views=config.views, list_views=config.list_views, path=f"/{self.name}"
            )
            folder = _identity_of(mounted.dataset)
            with self._lock:
                too_late = self._closed  # the mount has ended meanwhile
                if not too_late:
                    self.mounted, self._namespace = mounted, namespace
                    self._reached = True
                    self._folder = folder
                    self.generation += 1
                    observer = self._observer
            if too_late:
                mounted.close()
                return
            if observer is not None:
                namespace.observe(observer)
                observer(f"/{self.name}")
        self._tried_at = time.monotonic()
        self._tell()

    def namespace(self) -> Namespace:
        """Return the dataset's tree.

        :raise OctuefsError: where it cannot be reached; it is tried again in the background, now and then
        """
        namespace = self.namespace_or_none
        if namespace is not None:
            return namespace
        if self.mounted is None and time.monotonic() - self._tried_at >= _RETRY_SECONDS:
            with suppress(TimeoutError):
                self.try_again().result(_PATIENCE_SECONDS)
            if (namespace := self.namespace_or_none) is not None:
                return namespace
        raise copy(self.error)

    @property
    def namespace_or_none(self) -> Namespace | None:
        """The same, None where the dataset cannot be reached."""
        mounted = self.mounted
        if mounted is None:
            return None
        self._follow_others(mounted.dataset)
        self._look(mounted.dataset)
        return self._namespace if self._reached else None

    @property
    def answers_at_once(self) -> bool:
        """True where nothing was written through an overlapping dataset, so that this one is not to be read again."""
        written = self._written_by_others()
        with self._lock:
            return self.mounted is None or written == self._written

    def _written_by_others(self) -> dict[str, int]:
        return {part.name: it.dataset.index.written for part in self.overlapping if (it := part.mounted) is not None}

    def observe(self, callback: Callable[[str], object]) -> None:
        """Have `callback` told of each change in the dataset, by its path in the mount, and of its loss and return."""
        with self._lock:
            self._observer = callback
            namespace = self._namespace
        if namespace is not None:
            namespace.observe(callback)

    def _follow_others(self, dataset: Dataset) -> None:
        """Read a bucket again where something was written there through another dataset of the mount.

        So an open sees what was stored when the last close returned, by whatever name (a disk is watched anyhow).
        """
        written = self._written_by_others()
        with self._lock:
            changed, self._written = written != self._written, written
        if changed:
            _read_again(dataset)

    def _look(self, dataset: Dataset) -> None:
        """Learn, now and then, whether a dataset that was in reach has gone, or has come back."""
        with self._lock:
            now = time.monotonic()
            failure = dataset.keeper.failure
            if now - self._looked_at < _LOOK_SECONDS and failure is self._failure:
                return
            self._looked_at, self._failure = now, failure
        gone = self._gone_from_disk(dataset) or dataset.keeper.failure
        if isinstance(gone, _GONE):
            self.error = gone
            if dataset.in_cloud:
                dataset.keeper.begin_expiring()  # which tries again
        reached = not isinstance(gone, _GONE)
        with self._lock:
            changed, self._reached = reached != self._reached, reached
            self.generation += changed
            observer = self._observer
        if changed:
            self._tell()
            if observer is not None:
                observer(f"/{self.name}")

    def _gone_from_disk(self, dataset: Dataset) -> OctuefsError | None:
        """Return why no folder stands at a local dataset's path; one that has come back, or is another, is read."""
        location = dataset.location
        if dataset.in_cloud or not isinstance(location, LocalLocation):
            return None
        try:
            facts = os.stat(location.path)
            if not stat.S_ISDIR(facts.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            self._folder = None
            return from_os_error(error, location.path)
        folder = (facts.st_dev, facts.st_ino)
        if folder != self._folder:
            _read_again(dataset)
            self._folder = folder
        return None

    def _tell(self) -> None:
        """Say in the report whether the dataset can be reached."""
        self.report.set_problems("", [] if self._reached else [f"the dataset cannot be reached: {self.error}"])
        if self._reached:
            logger.info("%s can be reached", printable(self.name))

    def try_again(self) -> "Future[None]":
        """Open the dataset in the background, where it is out of reach; joins a try that is under way."""
        with self._lock:
            if self._trying is None or self._trying.done():
                self._trying = Future()
                if self.mounted is None and not self._closed:
                    threading.Thread(target=self._open_behind, args=[self._trying], daemon=True, name="open").start()
                else:
                    self._trying.set_result(None)
            return self._trying

    def _open_behind(self, done: "Future[None]") -> None:
        try:
            self.open(lambda _: None)
        finally:
            done.set_result(None)

    def primitive(self) -> str | dict[str, Any]:
        """Return the dataset as a manifest names it: by its place, or with its files where it has only some.

        What authorises a link is left out.
        """
        if self.entry.files is None:
            return str(self.mounted.dataset.location if self.mounted else parse_source(self.entry.path))
        if self.mounted is None:
            files = [_place_of(file.path) for _, file in place_files(self.entry.path, self.entry.files)]
            return {"path": _place_of(self.entry.path), "files": sorted(files)}
        dataset = self.mounted.dataset
        stored = dataset.metadata or DatasetMetadata()
        return dataset_dictionary(
            str(dataset.location),
            (datafile.full_path for datafile in dataset.index.members("", ())),
            id=dataset.id,
            name=dataset.name,
            tags=stored.tags,
            labels=stored.labels,
        )

    def close(self) -> None:
        """Close the dataset for good."""
        with self._lock:
            self._closed = True
            mounted, self.mounted = self.mounted, None
        if mounted is not None:
            mounted.close()


def _read_again(dataset: Dataset) -> None:
    """Read a dataset's store again and wait for that, but not for long; a failure is the keeper's to tell."""
    with suppress(TimeoutError, CancelledError, RuntimeError):  # of which the latter two come with the mount's end
        dataset.keeper.refresh().exception(_LONGEST_WAIT_SECONDS)


def _identity_of(dataset: Dataset) -> tuple[int, int] | None:
    """Return which folder of a disk a local dataset is, None where that does not matter or nothing is there."""
    location = dataset.location
    if not dataset.in_cloud and isinstance(location, LocalLocation):
        with suppress(OSError):
            facts = os.stat(location.path)
            return facts.st_dev, facts.st_ino
    return None


def _place_of(path: str) -> str:
    return str(parse_source(path))


def open_parts(
    entries: Mapping[str, DatasetEntry],
    config: MountConfig,
    report: Report,
    progress: Callable[[int], None],
    resources: Resources,
) -> dict[str, DatasetPart]:
    """Open the datasets of a manifest at the same time; each has a part of `report`, and all share `resources`.

    `progress` is told in this thread how many files of all have been seen; what it raises ends the opening.
    """
    parts = {name: DatasetPart(name, entry, config, report.of(name), resources) for name, entry in entries.items()}
    for part in parts.values():
        part.overlapping = [it for it in parts.values() if it is not part and _overlap(part.entry, it.entry)]
    seen: dict[str, int] = {}
    try:
        for_all(
            parts,
            lambda part: part.open(lambda number: seen.update({part.name: number})),
            lambda: progress(sum(list(seen.values()))),
        )
    except BaseException:
        for_all(parts, DatasetPart.close)
        raise
    return parts


def _overlap(one: DatasetEntry, other: DatasetEntry) -> bool:
    """Say whether two datasets of a bucket may have objects in common."""
    return any(
        short.path.startswith(GS_SCHEME) and f"{long.path}/".startswith(f"{short.path}/")
        for short, long in ((one, other), (other, one))
    )


def for_all(
    parts: Mapping[str, DatasetPart], act: Callable[[DatasetPart], object], meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Do something with all datasets, many at a time; `meanwhile` is called now and then until all are done.

    :raise Exception: what `meanwhile`, or else the first of them raised
    """
    if not parts:
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(parts)), "datasets") as threads:
        doing = [threads.submit(act, part) for part in parts.values()]
        try:
            while wait(doing, _TELL_SECONDS).not_done:
                meanwhile()
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    for done in doing:
        done.result()
