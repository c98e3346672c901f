"""From the kernel's nodes to those of the tree, which may lead elsewhere with each change of the facts."""

import stat
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from octuefs.drivers.kernel.nodes import DirectoryRecord, FileRecord, NodeTable, Place, Record
from octuefs.drivers.kernel.request import Request, WouldWait
from octuefs.errors import NotADirectory, NotFound, StaleNode
from octuefs.operations import Opened, Operations
from octuefs.stores.base import ObjectInfo
from octuefs.tree.node import Attributes, Node

_MOST_DOUBTED: Final = 4096


class Resolver:
    """Finds the tree's node of a record."""

    def __init__(self, operations: Operations, table: NodeTable) -> None:
        self._operations = operations
        self._table = table
        self._doubted: set[tuple[int, str]] = set()
        """Places where something else was found than the index says."""

    def node(self, record: Record, request: Request) -> Node:
        """Return the tree's node of what the kernel knows.

        :raise StaleNode: where nothing of the kind is there any more
        :raise WouldWait: where that is not known at once, and the request must not wait
        """
        if isinstance(record, DirectoryRecord):
            return self.directory(record, request)
        for node, place in self.candidates(record, request):
            facts = node.info_at_once or self._operations.getattr(node)
            if record.text is not None or self.key_of(place, node, facts) == record.key:
                return node
            self.not_at(record, place)
        raise StaleNode(f"node {record.id}: the file is not where it was found")

    def directory(self, record: DirectoryRecord, request: Request) -> Node:
        """Return the tree's node of a directory, as `node`."""
        path = self._table.path_of(record)
        version = self._operations.version_at_once(path)
        if version is None:
            if not request.may_wait:
                raise WouldWait
            version = self._operations.version(path)
        found = record.found
        if found is not None and found[0] == version:
            return found[1]
        if record.place is None:
            node = self._operations.root
        else:
            if record.derived and not request.may_wait:
                raise WouldWait
            parent, name = record.place
            try:
                node = self._operations.lookup(self.directory(parent, request), name)
            except (NotFound, NotADirectory) as error:
                raise StaleNode(f"{path}: {error}") from error
        record.found = (version, node)
        return node

    def file(self, record: FileRecord, request: Request) -> tuple[Node, Attributes]:
        """Return the tree's node of what is no directory, as `node`, and its attributes as they are now."""
        for node, place in self.candidates(record, request):
            attributes = self._operations.getattr(node)
            if self.key_of(place, node, attributes) == record.key:
                return node, attributes
            self.not_at(record, place)
        raise StaleNode(f"node {record.id}: the file is not where it was found")

    def candidates(self, record: FileRecord, request: Request) -> Iterator[tuple[Node, Place]]:
        """Yield what stands where a file was found, the latest first: the file, or what has come in its place."""
        for place in record.places:
            parent, name = place
            try:
                yield self.child(self.directory(parent, request), name, request), place
            except (NotFound, NotADirectory, StaleNode):
                self.not_at(record, place)

    def to_change(self, record: Record, request: Request) -> Node:
        """Return the tree's node of what is to be changed, as `node`.

        A request names a file and not the name that a program used. So where one of its names leads to something else
        by now, that one may be meant, and nothing is changed before the kernel has looked it up again.
        """
        if isinstance(record, FileRecord):
            self.check_places(record, request)
        return self.node(record, request)

    def check_places(self, record: FileRecord, request: Request) -> None:
        """See to it that a file is where it was found, in the dataset's own folders; see `to_change`.

        :raise StaleNode: where it is not; only once, and it is not known to be there any more
        """
        known = len(record.places)
        for place in record.places:
            if place[0].derived:
                continue
            try:
                node = self.child(self.directory(place[0], request), place[1], request)
                found = self.key_of(place, node, self._operations.getattr(node)) == record.key
            except (NotFound, NotADirectory, StaleNode):
                found = False
            if not found:
                self.not_at(record, place)
        if len(record.places) < known:
            raise StaleNode(f"node {record.id}: the file is not everywhere any more where it was found")

    def child(self, directory: Node, name: str, request: Request) -> Node:
        """Return what stands under a name in a directory.

        :raise NotFound: where nothing does
        :raise WouldWait: where that is not known at once, and the request must not wait
        """
        node = directory.known(name)
        if node is None:
            if not request.may_wait and not directory.answers_at_once(name):
                raise WouldWait
            node = self._operations.lookup(directory, name)
        return node

    def not_at(self, record: FileRecord, place: Place) -> None:
        """Take note that a file is not at a place any more; what stands there now, the disk is to be asked."""
        self._table.not_at(record, place)
        if len(self._doubted) >= _MOST_DOUBTED:
            self._doubted.clear()
        self._doubted.add((place[0].id, place[1]))

    def attributes(self, parent: DirectoryRecord, name: str, node: Node) -> tuple[Attributes | ObjectInfo, bool]:
        """Return what stat(2) tells of what was found under a name, and whether it is what the index remembers.

        That counts where the kernel asks for the first time; where it asks again, the disk does.
        """
        place, info = (parent.id, name), node.info_at_once
        if place in self._doubted:
            attributes = self._operations.getattr(node)
            if info is None or info.inode == attributes.inode:
                self._doubted.discard(place)
            return attributes, False
        if name not in parent.children and info is not None:
            return info, True
        return self._operations.getattr(node), False

    def opened(self, record: FileRecord, request: Request, open_at: Callable[[Node, Place], Opened]) -> Opened:
        """Open the file that a record stands for, with `open_at` of each place where it was found.

        :raise StaleNode: where it is not there any more
        :raise WouldWait: where its store is to be asked first, and the request must not wait
        """
        for node, place in self.candidates(record, request):
            if not request.may_wait and not node.opens_at_once:
                raise WouldWait
            try:
                opened = open_at(node, place)
            except NotFound:
                self.not_at(record, place)
                raise
            if self._is_open(record, node, place, opened):
                return opened
            self._operations.release(opened.handle)
            self.not_at(record, place)
        raise StaleNode(f"node {record.id}: the file was replaced or removed")

    def _is_open(self, record: FileRecord, node: Node, place: Place, opened: Opened) -> bool:
        """Say whether a file that was just opened is the one that a record stands for."""
        if node.home is None:
            return self.key_of(place, node, self._operations.getattr(node)) == record.key
        return isinstance(record.key, tuple) and record.key[:2] == (node.home, opened.inode)

    def key_of(self, place: Place, node: Node, attributes: Attributes | ObjectInfo) -> Hashable:
        """Return which file a node is, whatever path leads to it; what stands at its path alone is that path's."""
        kind = stat.S_IFMT(attributes.mode)
        if (home := node.home) is not None:
            return home, attributes.inode, kind
        if kind == stat.S_IFLNK:
            return place[0].id, place[1], node.read_link()  # the kernel keeps the target for as long as the node
        return place[0].id, place[1], kind
