"""The bytes of a file of a cloud dataset: writing stages them first, whole or only what comes after a large object."""

import time
from collections.abc import Callable
from contextlib import suppress

from octuefs.errors import Conflict, LocalFailure, OctuefsError
from octuefs.stores.base import ObjectInfo
from octuefs.writing.cloud_facts import generation_of
from octuefs.writing.contents import Content
from octuefs.writing.filestate import FileState
from octuefs.writing.properties import after_write
from octuefs.writing.streams import FIRST_CHUNK_BYTES, Stream


class FileBytes(FileState):
    """A file that can be written to."""

    def write(self, offset: int | None, data: bytes) -> int:
        """Write all of `data` at `offset`, None for the end."""

        def act(content: Content) -> None:
            content.staged.write(content.size if offset is None else offset, data)

        self._change(act, offset)
        return len(data)

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes; of what is cut off nothing is fetched."""
        if length == 0:
            self._start_over()
        elif length != self.info().size:
            self._change(lambda content: content.staged.truncate(length), length, keep=length)

    def allocate(self, offset: int, length: int) -> None:
        """Have room for these bytes, and extend the file to their end."""
        self._change(lambda content: content.staged.allocate(offset, length), offset)

    def _change(self, act: Callable[[Content], None], offset: int | None, *, keep: int | None = None) -> None:
        """Change the content from `offset` on; only its first `keep` bytes are needed."""
        while True:
            with self._state:
                self.check()
                content = self.content
                if content is not None and not content.frozen and (offset is None or offset >= content.first):
                    with self._noting_full_disk():
                        act(content)
                    self._note_write(content)
                    break
            base = self.base
            try:
                with self._staging, self._noting_full_disk():
                    self._make_writable(offset, keep)
            except Conflict:  # by ourselves, it may be
                if not self.has_moved_on(base):
                    self._around.look_again([self.path])
                    raise
        self._make_known(content)

    def _make_known(self, content: Content) -> None:
        """Return once a crash leaves what is written under its name: a commit, for the first write of a content.

        Where the journal cannot be written there is no promise to keep yet; a close makes one.
        """
        position = content.noted_at
        if position is not None:
            content.noted_at = None
            if not self._around.journal.is_durable(position):
                with suppress(LocalFailure):
                    self._around.journal.settle()

    def _start_over(self) -> None:
        with self._staging, self._noting_full_disk():
            new = Content(self._around.staged_folder)
            with self._state:
                try:
                    self.check()
                except OctuefsError:
                    new.forget()
                    raise
                old, self.content = self.content, new
                self._full = None
                self._dirty = False
                self._note_write(new)
                if old is not None and not old.frozen:
                    self._abandon(old)
                    self._forget([old])

    def _make_writable(self, offset: int | None, keep: int | None) -> None:
        """Stage the content, or a copy of what is frozen; under `_staging`."""
        content, base = self.content, self.base
        changes = content.staged.changes if content is not None else 0
        if content is None:
            self.check()
            assert base is not None, "a new file is staged from the beginning"
            end = base.size if keep is None else min(keep, base.size)
            appends = end == base.size and (offset is None or offset >= base.size) and not self.is_removed
            if appends and base.crc32c is not None and self._around.appends.suits(base):
                new = Content(self._around.staged_folder, first=base.size, crc32c_before=base.crc32c)
            else:
                new = self._fetched(base, end)
        elif content.frozen:
            try:
                new = content.copy(self._around.staged_folder)
            except ValueError:
                if self.content is content:
                    raise
                return  # it was stored meanwhile, and let go of
        else:
            if offset is not None and offset < content.first:
                content.bring_in(self._read_base)
                with self._state:
                    self._put_rows()
            return
        with self._state:
            if content is None:
                is_current = self.content is None and _have_same_bytes(self.base, base)
            else:  # it may have been stored meanwhile, and written to since
                is_current = self.content is content and content.frozen and content.staged.unchanged_since(changes)
            if is_current and self.failure is None:
                self.content = new
                return
        new.forget()

    def _fetched(self, base: ObjectInfo, end: int) -> Content:
        """Return the first `end` bytes of an object, staged and proven where they are all of it."""
        content = Content(self._around.staged_folder)
        try:
            whole = base.crc32c if end == base.size else None
            content.staged.materialise(self._read_base, end, crc32c=whole)
        except BaseException:
            content.forget()
            raise
        return content

    def _read_base(self, offset: int, size: int) -> bytes:
        base = self.base
        assert base is not None
        return self._around.store.open(base).read(offset, size)

    def fetch(self) -> None:
        """Stage the content whole, so that its object may go."""
        with self._staging:
            content, base = self.content, self.base
            if content is not None:
                if content.first:
                    content.bring_in(self._read_base)
            elif base is not None and self.failure is None:
                new = self._fetched(base, base.size)
                with self._state:
                    self.content = new

    def _note_write(self, content: Content) -> None:
        """Take note that the content was written to."""
        self._changed_ns = time.time_ns()
        self._touch()
        custom = after_write(self.custom)
        if custom is not self.custom:
            self.custom = custom
            self._abandon(content)
        if self.is_removed:
            return
        if not self._dirty:
            self._dirty = True
            if self._around.stands(self):
                self._hold()
            self._put_row(content, "open")
            content.noted_at = self._around.journal.position
            self._around.journal.hurry()
        if content.may_stream:
            self._stream(content)

    def _stream(self, content: Content) -> None:
        """Send on what is written in order, once it is enough."""
        stream = content.stream
        if stream is None:
            if content.first or content.staged.written_in_order < FIRST_CHUNK_BYTES or self._queue:
                return

            def note(session: str | None, offset: int) -> None:
                self.note_session(content, session, offset)

            stream = content.stream = Stream(
                self._around.store,
                self._around.streams,
                content,
                self.path,
                self._properties(),
                self._condition(),
                note,
            )
        if stream.is_valid():
            stream.grown()
        else:
            self._abandon(content)

    def _noting_full_disk(self) -> "_NotingFullDisk":
        return _NotingFullDisk(self)

    def note_full_disk(self, error: OctuefsError) -> None:
        """Take note that something of the content is missing, so that it is never stored."""
        with self._state:
            self._full = error
            if self.content is not None and not self.content.frozen:
                self._note_write(self.content)  # some of it may have been


def _have_same_bytes(one: ObjectInfo | None, other: ObjectInfo | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.crc32c is None:
        return generation_of(one) == generation_of(other)
    return (one.size, one.crc32c) == (other.size, other.crc32c)


class _NotingFullDisk:
    """Within, a failure of the staging disk marks the file as one of which not all was written."""

    def __init__(self, file: FileBytes) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LocalFailure):
            self._file.note_full_disk(error)
