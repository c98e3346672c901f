"""Fetching what is at a path in the mount into the disk cache, on purpose: `octuefs prefetch` and `octuefs pin`.

`mount.py` hands the commands of the control socket on. A job runs in threads of its own until it is done or cancelled,
and is asked how it gets on.
"""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from octuefs.content.reading import Reading
from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import BadValue, NotFound, OctuefsError
from octuefs.model.sizes import size_text
from octuefs.stores.base import StreamSource

_AT_ONCE = 16
_SHOWN_FAILURES = 100

Found = list[tuple[Dataset, Datafile]]


class _Job:
    """Datafiles that are being fetched."""

    def __init__(self, files: int, size: int) -> None:
        self.files = files
        self.size = size
        self.cancelled = False
        self.ended = threading.Event()
        self.lock = threading.Lock()  # guards what follows
        self.done_files = 0
        self.done_bytes = 0
        self.failed: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        with self.lock:
            return {
                "files": self.files,
                "bytes": self.size,
                "done_files": self.done_files,
                "done_bytes": self.done_bytes,
                "failed": dict(itertools.islice(self.failed.items(), _SHOWN_FAILURES)),
                "failed_count": len(self.failed),
                "ended": self.ended.is_set(),
            }


class Fetches:
    """The jobs of a mount. Any thread may call."""

    def __init__(self, find: Callable[[str], Found], reading: Callable[[], Reading]) -> None:
        """`find` returns the datafiles at a path in the mount."""
        self._find = find
        self._reading = reading
        self._lock = threading.Lock()  # guards the jobs
        self._jobs: dict[int, _Job] = {}
        self._numbers = itertools.count(1)
        self._closed = False

    def begin(self, path: str, *, pin: bool) -> dict[str, Any]:
        """Begin to fetch what is at a path; return the number of the job, and what it is to do.

        :raise BadValue: where that lies on this machine, or is more than the disk cache can take
        """
        found = self._in_cloud(path)
        reading = self._reading()
        size = sum(datafile.size for _, datafile in found)
        cache = reading.cache
        if cache is None:
            raise BadValue("this mount has no disk cache; mount without --cache-size 0")
        room = cache.room_for_pinned if pin else cache.limit
        if size > room:
            raise BadValue(
                f"/{path}: {size_text(size)} in all, and the disk cache has room for {size_text(room)};"
                " mount with a larger --cache-size"
            )
        job = _Job(len(found), size)
        with self._lock:
            number = next(self._numbers)
            self._jobs[number] = job
        threading.Thread(target=self._run, args=(job, found, reading, pin), name="fetch", daemon=True).start()
        return {"job": number, **job.state()}

    def state(self, job: int, seconds: float = 0.0) -> dict[str, Any]:
        """Return how a job gets on, after so many seconds or at its end; one that has ended is forgotten.

        :raise NotFound: where there is no such job
        """
        with self._lock:
            found = self._jobs.get(job)
        if found is None:
            raise NotFound(f"there is no job {job}")
        found.ended.wait(seconds)
        state = found.state()
        if state["ended"]:
            with self._lock:
                self._jobs.pop(job, None)
        return state

    def cancel(self, job: int) -> dict[str, Any]:
        """Fetch no more for a job; what is here stays."""
        with self._lock:
            found = self._jobs.pop(job, None)
        if found is not None:
            found.cancelled = True
        return {}

    def release(self, path: str) -> dict[str, Any]:
        """Have what is at a path pinned no longer; return how many files these are."""
        found = self._in_cloud(path)
        keys = []
        for dataset, datafile in found:
            source = dataset.store.open(datafile.info)
            if isinstance(source, StreamSource) and (key := source.cache_key()) is not None:
                keys.append(key)
        self._reading().pin(keys, pinned=False)
        return {"files": len(found)}

    def _in_cloud(self, path: str) -> Found:
        found = [it for it in self._find(path) if it[1].in_cloud]
        if not found:
            raise BadValue(f"/{path}: it lies on this machine; there is nothing to fetch")
        return found

    def _run(self, job: _Job, found: Found, reading: Reading, pin: bool) -> None:
        try:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as threads:
                keys = [it for it in threads.map(lambda it: self._fetch(job, reading, *it), found) if it is not None]
            if pin:
                reading.pin(keys, pinned=True)
        except OctuefsError as error:
            with job.lock:
                job.failed[""] = str(error)
        finally:
            job.ended.set()

    def _fetch(self, job: _Job, reading: Reading, dataset: Dataset, datafile: Datafile) -> str | None:
        """Fetch one file, and return its key where it can be pinned."""
        if job.cancelled or self._closed:
            return None
        key = None
        try:
            key = reading.fetch(dataset.store.open(datafile.info))
            if key is None and datafile.size:
                raise OctuefsError("the disk cache does not take it")
        except OctuefsError as error:
            with job.lock:
                job.failed[datafile.path] = str(error)
        with job.lock:
            job.done_files += 1
            job.done_bytes += datafile.size
        return key

    def close(self) -> None:
        """Fetch nothing more."""
        self._closed = True
