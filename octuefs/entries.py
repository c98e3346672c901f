"""What the index holds, and the changes that it takes. Values, which those who publish and those who ask share."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from octuefs.datafile import Datafile
from octuefs.model.paths import parent_of
from octuefs.stores.base import ObjectInfo


@dataclass(slots=True, eq=False)
class Other:
    """Something listed that is no datafile: metadata files, links to folders, FIFOs, sockets, devices."""

    info: ObjectInfo


class Folder:
    """A folder of the dataset. `info` is None where the store only implies it."""

    __slots__ = ("_children", "_unpack", "info", "path", "rows")

    def __init__(
        self,
        path: str,
        info: ObjectInfo | None = None,
        unpack: "Callable[[Folder], None] | None" = None,
        rows: range = range(0),
    ) -> None:
        """`unpack` is called where something is first asked for what is in it: it calls `fill`, if nobody has done so.

        `rows` are those of all datafiles in and below it until then.
        """
        self.path = path
        self.info = info
        self.rows = rows
        self._unpack = unpack
        self._children: dict[str, Entry] | None = {} if unpack is None else None

    @property
    def children(self) -> "dict[str, Entry]":
        """What is in the folder, by name."""
        children = self._children
        return children if children is not None else self._unpacked()

    @property
    def is_packed(self) -> bool:
        """True where nobody has looked into it, nor changed anything in or below it, since it was loaded."""
        return self._children is None

    def fill(self, children: "dict[str, Entry]") -> None:
        """Say what is in it."""
        self._children = children
        self._unpack = None  # last: who finds it gone finds the children

    def _unpacked(self) -> "dict[str, Entry]":
        unpack = self._unpack
        if unpack is not None:
            unpack(self)
        assert self._children is not None, "it was unpacked"
        return self._children


Entry = Folder | Datafile | Other


@dataclass(frozen=True, slots=True)
class Removed:
    """A change: nothing stands at this path (and below it) any more."""

    path: str


@dataclass(frozen=True, slots=True)
class FolderGone:
    """A change: the store no longer holds this folder itself; it stays while something is in it."""

    path: str


@dataclass(frozen=True, slots=True)
class FolderSeen:
    """A change: a folder stands here."""

    info: ObjectInfo


@dataclass(frozen=True, slots=True)
class DatafileSeen:
    """A change: this datafile stands at its path."""

    datafile: Datafile


@dataclass(frozen=True, slots=True)
class OtherSeen:
    """A change: something that is no datafile stands here."""

    info: ObjectInfo


Change = Removed | FolderGone | FolderSeen | DatafileSeen | OtherSeen


class Reading:
    """What writers did since a reading of the store began: the paths, and all folders above them.

    What another thread has read since counts as well.
    """

    __slots__ = ("above", "thread", "touched")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        """The thread that reads; what it reads within one reading is no news to another one of its own."""
        self.touched: set[str] = set()
        self.above: set[str] = set()

    def touch(self, path: str) -> None:
        """Note that a writer changed what stands at a path."""
        self.touched.add(path)
        while path and (path := parent_of(path)) not in self.above:
            self.above.add(path)

    def overtakes(self, path: str) -> bool:
        """Say whether what was read of a path may be older than what a writer did there, above or below."""
        if path in self.above and path:
            return True
        while path not in self.touched:
            if not path:
                return False
            path = parent_of(path)
        return True


def path_of(change: Change) -> str:
    """Return where in the dataset something has changed."""
    match change:
        case Removed(path) | FolderGone(path):
            return path
        case FolderSeen(info) | OtherSeen(info):
            return info.path
        case DatafileSeen(datafile):
            return datafile.path
