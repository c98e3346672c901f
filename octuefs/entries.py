"""What the index holds, and the changes that it takes. Values, which those who publish and those who ask share."""

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

    __slots__ = ("children", "info", "path")

    def __init__(self, path: str, info: ObjectInfo | None = None) -> None:
        self.path = path
        self.info = info
        self.children: dict[str, Entry] = {}


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
    """What writers did since a reading of the store began: the paths, and all folders above them."""

    __slots__ = ("above", "touched")

    def __init__(self) -> None:
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
