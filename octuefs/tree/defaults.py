"""What nodes of a kind have in common: what a directory, or what is none, answers where it has nothing else to say."""

from collections.abc import Callable, Hashable, Iterable

from octuefs.errors import IsADirectory, NoAttribute, NotADirectory, NotALink, NotPermitted, OctuefsError
from octuefs.stores.base import ByteSource, ObjectInfo
from octuefs.stores.writing import Times
from octuefs.tree.node import DirectoryEntry, Moving, Node
from octuefs.writing.base import Caller, OpenFile


class _Unchangeable:
    """Refusals of what is of our making."""

    def check_writable(self) -> None:
        """Refuse nothing for the sake of a dataset: this belongs to none."""

    def open_writable(self, flags: int) -> OpenFile:
        """Refuse."""
        raise _ours()

    def truncate(self, length: int) -> None:
        """Refuse."""
        raise _ours()

    def set_mode(self, mode: int) -> None:
        """Refuse."""
        raise _ours()

    def set_owner(self, uid: int, gid: int) -> None:
        """Refuse."""
        raise _ours()

    def set_times(self, times: Times) -> None:
        """Refuse."""
        raise _ours()

    def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """Refuse."""
        raise _ours()

    def remove_xattr(self, name: str) -> None:
        """Refuse."""
        raise _ours()

    def sync(self) -> None:
        """Do nothing: nothing of this is stored."""


def _ours() -> NotPermitted:
    return NotPermitted("octuefs makes this out of the dataset; change the dataset's files instead")


class _Closed(_Unchangeable):
    """Refusals of all that is made in a directory, or taken out of it."""

    def refusal(self, name: str) -> OctuefsError:
        """Return the error of a change of `name` in this."""
        return _ours()

    def create(self, name: str, flags: int, mode: int, caller: Caller) -> OpenFile:
        """Refuse."""
        raise self.refusal(name)

    def make_folder(self, name: str, mode: int, caller: Caller) -> None:
        """Refuse."""
        raise self.refusal(name)

    def make_link(self, name: str, target: str, caller: Caller) -> None:
        """Refuse."""
        raise self.refusal(name)

    def make_special(self, name: str, mode: int, device: int, caller: Caller) -> None:
        """Refuse."""
        raise self.refusal(name)

    def remove(self, name: str) -> None:
        """Refuse."""
        raise self.refusal(name)

    def remove_folder(self, name: str) -> None:
        """Refuse."""
        raise self.refusal(name)

    def give(self, name: str) -> Moving:
        """Refuse."""
        raise self.refusal(name)

    def take(self, moving: Moving, name: str, *, replace: bool) -> None:
        """Refuse."""
        raise self.refusal(name)

    def take_link(self, moving: Moving, name: str) -> None:
        """Refuse."""
        raise self.refusal(name)


class Leaf(_Closed):
    """Defaults of a node that is no directory."""

    control: Callable[[bytes], object] | None = None
    derived: bool = True
    volatile: bool = False

    @property
    def opens_at_once(self) -> bool:
        """Ask nobody."""
        return True

    @property
    def home(self) -> Hashable | None:
        """Stand at its path alone."""
        return None

    def answers_at_once(self, name: str) -> bool:
        """Refuse: nothing is in a file."""
        return False

    def refusal(self, name: str) -> OctuefsError:
        """Return the error of asking for anything in a file."""
        return NotADirectory(f"{name}: what stands above it is no directory")

    def lookup(self, name: str) -> Node:
        """Refuse: nothing is in a file."""
        raise self.refusal(name)

    def check_listable(self) -> None:
        """Refuse: nothing is in a file."""
        raise NotADirectory("not a directory")

    def known(self, name: str) -> "Node | None":
        """Know nothing: nothing is in a file."""
        return None

    @property
    def info_at_once(self) -> ObjectInfo | None:
        """Be asked."""
        return None

    def entries(self) -> Iterable[DirectoryEntry]:
        """Refuse: nothing is in a file."""
        raise NotADirectory("not a directory")

    def read_link(self) -> str:
        """Refuse: no link."""
        raise NotALink("not a symbolic link")

    def get_xattr(self, name: str) -> bytes:
        """Have none."""
        raise NoAttribute(name)

    def list_xattrs(self) -> list[str]:
        """Have none."""
        return []

    def tells_at_once(self, name: str) -> bool:
        """Have to be waited for."""
        return False


class Branch(_Closed):
    """Defaults of a directory: one of our making, in which nothing can be made."""

    home = None
    info_at_once: ObjectInfo | None = None
    opens_at_once = True
    derived = True
    volatile = False
    control: Callable[[bytes], object] | None = None

    def answers_at_once(self, name: str) -> bool:
        """Promise nothing."""
        return False

    def check_listable(self) -> None:
        """Have nothing in the way."""

    def known(self, name: str) -> Node | None:
        """Have to look."""
        return None

    def open_writable(self, flags: int) -> OpenFile:
        """Refuse: a directory has no bytes."""
        raise IsADirectory("a directory cannot be written as a file")

    def truncate(self, length: int) -> None:
        """Refuse: a directory has no bytes."""
        raise IsADirectory("a directory cannot be cut")

    def open(self) -> ByteSource:
        """Refuse: a directory has no bytes."""
        raise IsADirectory("a directory cannot be read as a file")

    def read_link(self) -> str:
        """Refuse: no link."""
        raise NotALink("not a symbolic link")

    def get_xattr(self, name: str) -> bytes:
        """Have none."""
        raise NoAttribute(name)

    def list_xattrs(self) -> list[str]:
        """Have none."""
        return []

    def tells_at_once(self, name: str) -> bool:
        """Have to be waited for."""
        return False


class UnkeptAttributes:
    """For directories of views: nothing keeps these, but `cp -a` and `rsync -a` set them wherever they write."""

    def set_mode(self, mode: int) -> None:
        """Succeed without effect."""

    def set_owner(self, uid: int, gid: int) -> None:
        """Succeed without effect."""

    def set_times(self, times: Times) -> None:
        """Succeed without effect."""
