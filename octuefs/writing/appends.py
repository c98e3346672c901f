"""Appending to a large object: the new bytes become an object of their own, which the server joins to the old one.

The part stands beside the file under a temporary name for as long as that takes. It is in the journal before it is
made and until it is gone; parts of a process that died are deleted by the next one, others after a day.
"""

import logging
import time
from collections.abc import Callable, Iterable

from octuefs.errors import Conflict, NameTooLong, NotFound, OctuefsError
from octuefs.model.hashes import combine_crc32c
from octuefs.model.paths import is_temporary, join, parent_of, temporary_name
from octuefs.stores.base import ObjectInfo
from octuefs.stores.writing import ObjectProperties, ObjectStore, Precondition
from octuefs.writing.cloud_facts import check_name, condition_of, generation_of
from octuefs.writing.contents import checksum
from octuefs.writing.journal import Journal
from octuefs.writing.uploads import Upload, Uploader, proven

logger = logging.getLogger(__name__)

LEAST_BYTES = 8 << 20
"""Objects from this size on are appended to on the server."""

_PART = "part"
_OLD_SECONDS = 86400.0


class Appends:
    """Appends to objects, and clears away what an append that failed has left."""

    def __init__(
        self, store: ObjectStore, journal: Journal, uploader: Uploader, *, wanted: bool, failure: Callable[[str], None]
    ) -> None:
        """`wanted` is False where nothing is ever to be composed; `failure` is told what nobody is told otherwise."""
        self._store = store
        self._journal = journal
        self._uploader = uploader
        self._wanted = wanted
        self._failure = failure

    def suits(self, base: ObjectInfo) -> bool:
        """Say whether an object can be appended to on the server; the bucket is asked once."""
        if not self._wanted or base.size < LEAST_BYTES or base.crc32c is None:
            return False
        try:
            check_name(self._store.location, _part_beside(base.path))
            return self._store.bucket_facts().composes
        except NameTooLong:
            return False
        except OctuefsError as error:
            logger.debug("the bucket does not say whether it composes: %s", error)
            return False

    def append(self, upload: Upload) -> ObjectInfo:
        """Store a content that begins with the bytes of its base: send the rest, and join."""
        content, base = upload.content, upload.base
        assert content is not None
        assert base is not None
        assert base.crc32c is not None
        body = content.staged.body()
        start, length = base.size, upload.size - base.size
        crc32c = checksum(body, start, upload.size)
        part = _part_beside(upload.path)
        self._journal.put(_PART, part, {"path": upload.path, "when": time.time()})
        try:
            made = self._uploader.put(
                part,
                lambda offset, size: body(start + offset, size),
                length,
                crc32c,
                ObjectProperties(),
                Precondition(generation=0),
                lambda session, offset: None,
            )
            sources = [(upload.path, generation_of(base)), (part, generation_of(made))]
            try:
                info = self._store.compose(upload.path, sources, upload.properties, condition_of(base))
            except NotFound as error:  # that generation of the object is gone: replaced by another, or by ourselves
                raise Conflict(f"{upload.path}: it was replaced while it was appended to") from error
            return proven(info, upload.size, combine_crc32c(base.crc32c, crc32c, length))
        finally:
            self._delete(part)

    def clear(self) -> None:
        """Delete the parts that a process which died has left."""
        for part in self._journal.items(_PART):
            self._delete(part)

    def sweep(self, parts: Iterable[ObjectInfo]) -> None:
        """Delete the temporary objects among `parts` that are older than a day."""
        for info in parts:
            if is_temporary(info.path) and info.ctime_ns < (time.time() - _OLD_SECONDS) * 1e9:
                self._delete(info.path, generation_of(info))

    def _delete(self, part: str, generation: int | None = None) -> None:
        try:
            self._store.delete(part, Precondition(generation=generation))
        except NotFound:
            pass
        except OctuefsError as error:
            self._failure(f"{part}: a part of a file that was appended to could not be deleted yet: {error}")
            return
        self._journal.drop(_PART, part)


def _part_beside(path: str) -> str:
    return join(parent_of(path), temporary_name())
