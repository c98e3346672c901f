"""Open files: opening, reading, writing, closing."""

import os
from typing import Final

from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.backing import OpenFiles, Opening, Replaced
from octuefs.drivers.kernel.freshness import Freshness
from octuefs.drivers.kernel.names import Names, caller
from octuefs.drivers.kernel.nodes import DirectoryRecord, FileRecord, NodeTable, Place
from octuefs.drivers.kernel.pinned import PinnedFiles
from octuefs.drivers.kernel.request import Body, Handler, Request, WouldWait
from octuefs.drivers.kernel.requests import OPEN_IN, OPEN_KILL_SUIDGID, READ_IN, WRITE_IN, WRITE_KILL_SUIDGID
from octuefs.drivers.kernel.resolving import Resolver
from octuefs.drivers.second_tries import Once
from octuefs.errors import NotFound, StaleNode
from octuefs.operations import Opened, Operations
from octuefs.stores.base import as_ready
from octuefs.tree.node import Node
from octuefs.writing.base import DiskOpenFile

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class Files:
    """Answers what is asked about files and what they hold."""

    def __init__(
        self,
        operations: Operations,
        table: NodeTable,
        resolver: Resolver,
        freshness: Freshness,
        names: Names,
        open_files: OpenFiles,
        pinned: PinnedFiles | None,
    ) -> None:
        """`pinned` finds the bytes where the kernel answers opens itself."""
        self._operations = operations
        self._table = table
        self._resolver = resolver
        self._freshness = freshness
        self._names = names
        self._open_files = open_files
        self._pinned = pinned
        self._vanished = Once()

    def handlers(self) -> dict[int, Handler]:
        """Return what answers each opcode."""
        if self._pinned is not None:  # whatever else is asked, the kernel is told once that it need not
            return {requests.READ: self.read}
        return {
            requests.OPEN: self.open,
            requests.CREATE: self.create,
            requests.READ: self.read,
            requests.WRITE: self.write,
            requests.FLUSH: self.flush,
            requests.RELEASE: self.release,
            requests.FSYNC: self.fsync,
            requests.FALLOCATE: self.fallocate,
            requests.LSEEK: self.lseek,
            requests.COPY_FILE_RANGE: self.copy_file_range,
        }

    # --- opening

    def open(self, request: Request) -> Body:
        """OPEN."""
        flags, open_flags = OPEN_IN.unpack_from(request.head)
        if flags & _WRITES and not request.may_wait:
            raise WouldWait
        record = self._table.file(request.node)
        try:
            opened = self._open(record, flags, request)
        except NotFound as error:
            # The kernel took the name for there: as on every ESTALE it looks again, and O_CREAT then makes the file.
            # What is still found at the second try and cannot be opened is not there, as its error says.
            if self._vanished.is_first((request.node, request.pid)):
                raise StaleNode(str(error)) from error
            raise
        if self._vanished:
            self._vanished.forget((request.node, request.pid))
        if open_flags & OPEN_KILL_SUIDGID:
            self._operations.fdrop_privileges(opened.handle)
        return self._opened(record, opened, flags)

    def _open(self, record: FileRecord, flags: int, request: Request) -> Opened:
        if not flags & _WRITES:
            return self._resolver.opened(record, request, lambda node, _: self._operations.open(node, flags))

        def open_at(node: Node, place: Place) -> Opened:
            with self._freshness.asked_for(self._names.path(*place)):
                return self._operations.open(node, flags)

        self._resolver.check_places(record, request)
        return self._resolver.opened(record, request, open_at)

    def _opened(self, record: FileRecord, opened: Opened, flags: int) -> bytes:
        """Take note of an open file and return the answer.

        :raise StaleNode: where the node stands for what others have open; the kernel then looks up another
        """
        source = self._operations.source_of(opened.handle)
        try:
            how, backing = self._open_files.opened(
                record,
                opened,
                source,
                writes=bool(flags & _WRITES),
                direct=opened.direct or bool(flags & os.O_DIRECT),
            )
        except Replaced:
            self._operations.release(opened.handle)
            self._table.detach(record)
            raise StaleNode(f"node {record.id}: another file stands there than those who have it open see") from None
        return replies.opened(opened.handle, how, backing)

    def create(self, request: Request) -> Body:
        """CREATE."""
        it = requests.create_request(request.head, request.rest)
        parent, directory = self._names.place(request)
        with self._freshness.asked_for(self._names.path(parent, it.name)):
            opened = self._operations.create(directory, it.name, it.flags, it.mode & 0o7777, caller(request))
        try:
            entry, record = self._entry(parent, it.name, opened)
        except BaseException:
            self._operations.release(opened.handle)
            raise
        if self._vanished:  # the node may be that of what stood there, where the inode's number is the same
            self._vanished.forget((record.id, request.pid))
        try:
            return entry + self._opened(record, opened, it.flags | os.O_RDWR)
        except BaseException:
            self._table.forget(record.id, 1)
            raise

    def _entry(self, parent: DirectoryRecord, name: str, opened: Opened) -> tuple[bytes, FileRecord]:
        """Count the look-up of a file that was just made, and return the entry that says so."""
        seen = self._freshness.changes
        node = self._operations.node_of(opened.handle)
        attributes = self._operations.fgetattr(opened.handle)
        record = self._names.found(parent, name, node, attributes)
        assert isinstance(record, FileRecord), "what was opened is no directory"
        return self._names.told(parent, record, node, attributes, seen), record

    # --- reading and writing

    def read(self, request: Request) -> Body:
        """READ."""
        handle, offset, size, *_ = READ_IN.unpack_from(request.head)
        if self._pinned is None:
            return self._read(handle, offset, size, request)
        record = self._table.file(request.node)
        if record.text is not None:
            return record.text[offset : offset + size]
        with self._pinned.opened(record, request) as handle:
            return self._read(handle, offset, size, request)

    def _read(self, handle: int, offset: int, size: int, request: Request) -> Body:
        if request.may_wait:
            return self._operations.read(handle, offset, size)
        source = as_ready(self._operations.source_of(handle))
        if source is None:
            raise WouldWait
        room = request.room[:size]
        count = source.read_now(offset, room)
        if count is None:
            raise WouldWait
        return room[:count]

    def write(self, request: Request) -> Body:
        """WRITE."""
        handle, offset, size, flags, *_ = WRITE_IN.unpack_from(request.head)
        written = self._operations.write(handle, offset, bytes(request.rest[:size]))
        if flags & WRITE_KILL_SUIDGID:
            self._operations.fdrop_privileges(handle)
        return replies.written(written)

    def fallocate(self, request: Request) -> Body:
        """FALLOCATE."""
        handle, offset, length, mode = requests.fallocate_request(request.head)
        self._operations.fallocate(handle, mode, offset, length)
        self._changed(handle)
        return b""

    def lseek(self, request: Request) -> Body:
        """LSEEK: SEEK_DATA and SEEK_HOLE."""
        return replies.offset(self._operations.lseek(*requests.lseek_request(request.head)))

    def copy_file_range(self, request: Request) -> Body:
        """COPY_FILE_RANGE."""
        it = requests.copy_request(request.head)
        copied = self._operations.copy_file_range(it.handle, it.offset, it.to_handle, it.to_offset, it.length)
        self._changed(it.to_handle)
        return replies.written(copied)

    def _changed(self, handle: int) -> None:
        """Have the kernel ask again how long a file is that was changed without its seeing the bytes."""
        if (opening := self._open_files.get(handle)) is not None:
            self._freshness.forget_attributes(opening.record.id)

    # --- storing and closing

    def _note_passed_through(self, opening: Opening, handle: int) -> None:
        """Take note of what was written by passthrough, which no request has told of."""
        source = self._operations.source_of(handle)
        if opening.passed_through and opening.writes and isinstance(source, DiskOpenFile):
            version = source.version()
            if version != opening.version:
                opening.version = version
                source.mark_written()

    def flush(self, request: Request) -> Body:
        """FLUSH."""
        handle = requests.handle_in(request.head)
        opening = self._open_files.get(handle)
        if opening is None or not opening.writes:
            return b""
        if not request.may_wait:
            raise WouldWait
        with self._freshness.asked_for(*self._names.paths(opening.record)):
            self._note_passed_through(opening, handle)
            self._operations.flush(handle)
        return b""

    def fsync(self, request: Request) -> Body:
        """FSYNC."""
        handle, data_only = requests.fsync_request(request.head)
        opening = self._open_files.get(handle)
        if opening is None:
            self._operations.fsync(handle, data_only=data_only)
            return b""
        with self._freshness.asked_for(*self._names.paths(opening.record)):
            self._note_passed_through(opening, handle)
            self._operations.fsync(handle, data_only=data_only)
        return b""

    def release(self, request: Request) -> Body:
        """RELEASE."""
        handle = requests.handle_in(request.head)
        opening = self._open_files.get(handle)
        if opening is None or not opening.writes:
            self._open_files.closed(handle)
            self._operations.release(handle)
            return b""
        if not request.may_wait:
            raise WouldWait
        with self._freshness.asked_for(*self._names.paths(opening.record)):
            self._note_passed_through(opening, handle)
            self._open_files.closed(handle)
            self._operations.release(handle)
        return b""
