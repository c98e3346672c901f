"""What programs read an object of a cloud store through, by where its bytes are: `reading.py` makes them.

Each is one open handle. Any thread may call.
"""

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, suppress

from octuefs.content.objects import CloudObject
from octuefs.content.parts import stamp_of
from octuefs.content.patterns import Streams
from octuefs.content.small import SmallObjects
from octuefs.errors import Conflict, NotFound, OctuefsError
from octuefs.stores.base import ObjectInfo, StreamSource
from octuefs.stores.descriptor import Descriptor

_DISK_AHEAD_BYTES = 8 << 20
"""What a disk is to bring while the bytes before are on their way to the reader."""


class _Reader:
    """What the readers of objects have in common: which bytes they read never changes."""

    def __init__(self, source: StreamSource, info: ObjectInfo, gone: Callable[[], object]) -> None:
        self._source = source
        self._info = info
        self._gone = gone

    def version(self) -> Hashable:
        """Return the version that was opened."""
        return self._source.version()

    def identity(self) -> Hashable:
        """Return the same: what was opened never changes."""
        return self._source.identity()

    def info(self) -> ObjectInfo:
        """Describe the version that was opened."""
        return self._info


class SmallReader(_Reader):
    """A `ReadySource` over a small object."""

    def __init__(
        self, small: SmallObjects, key: str, source: StreamSource, info: ObjectInfo, gone: Callable[[], object]
    ) -> None:
        super().__init__(source, info, gone)
        self._small = small
        self._key = key

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        try:
            return self._small.get(self._key, self._source, self._info)[offset : offset + size]
        except (Conflict, NotFound):
            self._gone()
            raise

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """See `ReadySource`: what is in memory is at hand."""
        data = self._small.held(self._key)
        if data is None:
            return None
        found = data[offset : offset + len(room)]
        room[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """See `ByteSource`."""
        self._source.close()


class ObjectReader(_Reader):
    """A `ReadySource` over a large object: one handle, with the streams in which it reads."""

    def __init__(
        self,
        cloud_object: CloudObject,
        source: StreamSource,
        gone: Callable[[], object],
        read_ahead: int,
        release: Callable[[], None],
    ) -> None:
        """`release` is called once it is closed."""
        super().__init__(source, cloud_object.info, gone)
        self._object = cloud_object
        self._release = release
        self._lock = threading.Lock()  # guards what follows
        self._streams = Streams(read_ahead)
        self._closed = False

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        with self._lock:
            ahead = self._streams.note(offset, size)
        try:
            return self._object.read(offset, size, ahead)
        except (Conflict, NotFound):
            self._gone()
            raise

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """See `ReadySource`."""
        count = self._object.read_now(offset, room)
        if count:
            with self._lock:
                ahead = self._streams.note(offset, count)
            if ahead:
                self._object.fetch_ahead(offset + count, ahead)
        return count

    def close(self) -> None:
        """See `ByteSource`."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._release()
            self._source.close()


class CachedFile(_Reader):
    """A `DiskSource` over an object that is whole in the disk cache: read as the plain file that it is there."""

    def __init__(
        self, file: Descriptor, source: StreamSource, info: ObjectInfo, otherwise: Callable[[], ObjectReader]
    ) -> None:
        """`otherwise` opens the object where the file turns out to be damaged."""
        super().__init__(source, info, lambda: None)
        self._file = file
        self._stamp = stamp_of(file)
        self._otherwise = otherwise
        self._lock = threading.Lock()  # guards what follows
        self._instead: ObjectReader | None = None
        self._closed = False

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        instead = self._instead
        if instead is None:
            with suppress(OctuefsError):  # of a disk that fails
                self._file.will_need(offset + size, _DISK_AHEAD_BYTES)
                data = self._file.read(offset, size)
                if len(data) == self._present(offset, size) and stamp_of(self._file) == self._stamp:
                    return data
            with self._lock:
                if self._instead is None and not self._closed:
                    self._instead = self._otherwise()
                instead = self._instead
        return instead.read(offset, size) if instead is not None else b""

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """See `ReadySource`."""
        instead = self._instead
        if instead is not None:
            return instead.read_now(offset, room)
        count = self._file.read_now(offset, room)
        is_right = count == self._present(offset, len(room)) and stamp_of(self._file) == self._stamp
        return count if is_right else None

    def _present(self, offset: int, size: int) -> int:
        """Return how many of `size` bytes from `offset` on the object has."""
        return max(0, min(size, self._info.size - offset))

    def lend(self) -> AbstractContextManager[int]:
        """See `DiskSource`."""
        return self._file.lend()

    def close(self) -> None:
        """See `ByteSource`."""
        with self._lock:
            self._closed = True
            instead, self._instead = self._instead, None
        if instead is not None:
            instead.close()
        self._file.close()
        self._source.close()
