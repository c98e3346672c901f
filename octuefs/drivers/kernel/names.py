"""Names: looking them up, making, removing and moving what they lead to."""

import stat
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.freshness import Freshness
from octuefs.drivers.kernel.nodes import DirectoryRecord, FileRecord, NodeTable, Record
from octuefs.drivers.kernel.pinned import PinnedFiles
from octuefs.drivers.kernel.request import Body, Handler, Request
from octuefs.drivers.kernel.resolving import Resolver
from octuefs.errors import BadValue, NotFound, StaleNode
from octuefs.handles import BadHandle
from octuefs.operations import IO_BYTES, Operations
from octuefs.stores.base import ObjectInfo
from octuefs.tree.node import Attributes, Node
from octuefs.writing.base import Caller

_NO_REPLACE: Final = 1
"""RENAME_NOREPLACE of renameat2(2)."""


class Names:
    """Answers what is asked about names."""

    def __init__(
        self,
        operations: Operations,
        table: NodeTable,
        resolver: Resolver,
        freshness: Freshness,
        pinned: PinnedFiles | None,
    ) -> None:
        """`pinned` reads texts where the kernel answers opens itself."""
        self._operations = operations
        self._table = table
        self._resolver = resolver
        self._freshness = freshness
        self._pinned = pinned

    def handlers(self) -> dict[int, Handler]:
        """Return what answers each opcode."""
        return {
            requests.LOOKUP: self.lookup,
            requests.MKNOD: self.mknod,
            requests.MKDIR: self.mkdir,
            requests.SYMLINK: self.symlink,
            requests.LINK: self.link,
            requests.UNLINK: self.unlink,
            requests.RMDIR: self.rmdir,
            requests.RENAME: self.rename,
            requests.RENAME2: self.rename,
        }

    # --- looking up

    def lookup(self, request: Request) -> Body:
        """LOOKUP."""
        parent = self._table.directory(request.node)
        name = requests.name_in(request.rest)
        seen = self._freshness.changes
        directory = self._resolver.directory(parent, request)
        try:
            return self.entry(parent, name, self._resolver.child(directory, name, request), seen)
        except NotFound:
            if request.may_wait:
                raise
            return replies.no_entry(self._freshness.missing(parent, seen))

    def entry(self, parent: DirectoryRecord, name: str, node: Node, seen: int) -> bytes:
        """Count a look-up, and return the entry that says so.

        :param seen: the number of changes before `node` was looked up
        """
        attributes, remembered = self._resolver.attributes(parent, name, node)
        if self._pinned is not None and node.home is None and stat.S_ISREG(attributes.mode):
            record, attributes = self._text(parent, name, node, self._pinned.text_of(node))
        else:
            record = self.found(parent, name, node, attributes)
            if remembered and isinstance(record, FileRecord) and record.handles:
                attributes = self.of_handles(record) or attributes
        return self.told(parent, record, node, attributes, seen)

    def told(
        self, parent: DirectoryRecord, record: Record, node: Node, attributes: Attributes | ObjectInfo, seen: int
    ) -> bytes:
        """Return the entry that says what was found under a name of `parent`; see `entry`."""
        freshness = self._freshness
        names = freshness.names(parent, derived=node.derived, volatile=node.volatile, seen=seen)
        facts = names
        if isinstance(record, DirectoryRecord):
            facts = freshness.directory_facts(names)
            if isinstance(attributes, Attributes):
                attributes = freshness.of_directory(record, attributes)
        return replies.entry(record.id, attributes, IO_BYTES, names, facts)

    def _text(self, parent: DirectoryRecord, name: str, node: Node, text: bytes) -> tuple[Record, Attributes]:
        """Count a look-up of a text of our making, and return its record, one for each text, and its attributes."""
        attributes = self._operations.getattr(node)._replace(size=len(text))
        record = self._table.file_found(parent, name, (parent.id, name, text))
        record.text, record.told = text, attributes
        return record, attributes

    def of_handles(self, record: FileRecord) -> Attributes | None:
        """Return what an open file tells of itself: the index hears of what is written when it is stored."""
        for handle in record.handles:
            with suppress(BadHandle):  # just being closed
                return self._operations.fgetattr(handle)
        return None

    def found(self, parent: DirectoryRecord, name: str, node: Node, attributes: Attributes | ObjectInfo) -> Record:
        """Count a look-up, and return the record of what was found."""
        if stat.S_ISDIR(attributes.mode):
            return self._table.directory_found(parent, name, derived=node.derived)
        return self._table.file_found(parent, name, self._resolver.key_of((parent, name), node, attributes))

    # --- making

    def _made(self, request: Request, parent: DirectoryRecord, directory: Node, name: str) -> bytes:
        """Return the entry of what was just made."""
        seen = self._freshness.changes
        return self.entry(parent, name, self._operations.lookup(directory, name), seen)

    def mknod(self, request: Request) -> Body:
        """MKNOD."""
        mode, device, name = requests.mknod_request(request.head, request.rest)
        parent, directory = self.place(request)
        with self._freshness.asked_for(self.path(parent, name)):
            self._operations.mknod(directory, name, mode, device, caller(request))
        return self._made(request, parent, directory, name)

    def mkdir(self, request: Request) -> Body:
        """MKDIR."""
        mode, name = requests.mkdir_request(request.head, request.rest)
        parent, directory = self.place(request)
        with self._freshness.asked_for(self.path(parent, name)):
            self._operations.mkdir(directory, name, stat.S_IMODE(mode), caller(request))
        return self._made(request, parent, directory, name)

    def symlink(self, request: Request) -> Body:
        """SYMLINK."""
        name, target = requests.two_names_in(request.rest)
        parent, directory = self.place(request)
        with self._freshness.asked_for(self.path(parent, name)):
            self._operations.symlink(directory, name, target, caller(request))
        return self._made(request, parent, directory, name)

    def link(self, request: Request) -> Body:
        """LINK."""
        old, name = requests.link_request(request.head, request.rest)
        parent, directory = self.place(request)
        record = self._table.file(old)
        self._resolver.check_places(record, request)
        for old_parent, old_name in record.places:
            old_directory = self._resolver.directory(old_parent, request)
            with self._freshness.asked_for(self.path(parent, name), self.path(old_parent, old_name)):
                self._operations.link(old_directory, old_name, directory, name)
            self._freshness.forget_attributes(record.id)
            return self._made(request, parent, directory, name)
        raise NotFound(f"{name}: the file that was to be linked has no name any more")

    # --- removing

    def unlink(self, request: Request) -> Body:
        """UNLINK."""
        name = requests.name_in(request.rest)
        parent, directory = self.place(request)
        with self._freshness.asked_for(self.path(parent, name)), self._gone(parent, name):
            self._operations.unlink(directory, name)
        record = self._table.removed(parent, name)
        if isinstance(record, FileRecord) and (record.places or parent.derived):
            self._freshness.forget_attributes(record.id)  # the kernel takes it for gone, and it has other names
        return b""

    def _gone(self, parent: DirectoryRecord, name: str) -> AbstractContextManager[None]:
        """Return what holds while a file is removed, or replaced; in a view it is not, but shows no more."""
        return nullcontext() if parent.derived else self._table.leaving(parent, name)

    def rmdir(self, request: Request) -> Body:
        """RMDIR."""
        name = requests.name_in(request.rest)
        parent, directory = self.place(request)
        with self._freshness.asked_for(self.path(parent, name)):
            self._operations.rmdir(directory, name)
        self._table.removed(parent, name)
        return b""

    # --- moving

    def rename(self, request: Request) -> Body:
        """RENAME and RENAME2."""
        read = requests.rename_request if request.opcode == requests.RENAME else requests.rename2_request
        it = read(request.head, request.rest)
        if it.flags & ~_NO_REPLACE:
            raise BadValue("names can be moved, but not exchanged or whited out")
        parent, directory = self.place(request)
        new_parent = self._table.directory(it.new_parent)
        new_directory = self._resolver.directory(new_parent, request)
        old_path, new_path = self.path(parent, it.old_name), self.path(new_parent, it.new_name)
        with self._freshness.asked_for(old_path, new_path), self._gone(new_parent, it.new_name):
            self._operations.rename(
                directory, it.old_name, new_directory, it.new_name, replace=not it.flags & _NO_REPLACE
            )
        moved = self._table.renamed((parent, it.old_name), (new_parent, it.new_name))
        if isinstance(moved, FileRecord):
            self._know_again(moved, new_parent, new_directory, it.new_name)
        return b""

    def _know_again(self, record: FileRecord, parent: DirectoryRecord, directory: Node, name: str) -> None:
        """Let a file that was moved be known by what it is now: in the cloud its number comes from its name."""
        try:
            node = self._operations.lookup(directory, name)
            attributes = self._operations.getattr(node)
        except NotFound:
            return
        key: Hashable = self._resolver.key_of((parent, name), node, attributes)
        if key != record.key:
            self._table.rekey(record, key)
            self._freshness.forget_attributes(record.id)

    # --- places

    def place(self, request: Request) -> tuple[DirectoryRecord, Node]:
        """Return the directory that a request is about, and its node in the tree."""
        parent = self._table.directory(request.node)
        return parent, self._resolver.directory(parent, request)

    def path(self, parent: DirectoryRecord, name: str) -> str:
        """Return the path in the mount of a name in a directory."""
        try:
            return f"{self._table.path_of(parent).rstrip('/')}/{name}"
        except StaleNode:
            return ""

    def paths(self, record: Record) -> list[str]:
        """Return the paths in the mount by which the kernel knows something, as far as it has any."""
        if isinstance(record, FileRecord):
            return [path for place in record.places if (path := self.path(*place))]
        try:
            return [self._table.path_of(record)]
        except StaleNode:
            return []


def caller(request: Request) -> Caller:
    """Return who asks."""
    return Caller(request.uid, request.gid)
