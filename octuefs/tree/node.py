"""What the operations walk: nodes. A view wraps the same protocol that it shows.

Nodes are values made on the way and thrown away; what lasts are the index and the inode numbers. A node
never asks who called: permissions are the kernel's work (`default_permissions`).
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Protocol

from octuefs.dataset import Dataset
from octuefs.errors import NotPermitted
from octuefs.index import Query
from octuefs.stores.base import ByteSource, ObjectInfo
from octuefs.stores.writing import Times
from octuefs.writing.base import Caller, OpenFile

_VIRTUAL_INODE_BIT = 1 << 63
"""Inode numbers of what we invent have the highest bit set; a disk's own hardly ever do."""


class Attributes(NamedTuple):
    """What stat(2) tells; sizes in bytes, times in nanoseconds since the epoch, blocks of 512 bytes."""

    inode: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    uid: int
    gid: int
    blocks: int
    links: int = 1
    device: int = 0

    @classmethod
    def of(cls, info: ObjectInfo) -> "Attributes":
        """Return the attributes of what a store describes."""
        return cls(
            inode=info.inode,
            mode=info.mode,
            size=info.size,
            mtime_ns=info.mtime_ns,
            ctime_ns=info.ctime_ns,
            uid=info.uid,
            gid=info.gid,
            blocks=blocks_of(info.size) if info.blocks is None else info.blocks,
            links=info.links,
            device=info.device,
        )


def blocks_of(size: int) -> int:
    """Return how many blocks of 512 bytes hold `size` bytes."""
    return -(-size // 512)


class DirectoryEntry(NamedTuple):
    """One listed name; of `mode` only the file type counts, as for d_type."""

    name: str
    inode: int
    mode: int


class Node(Protocol):
    """Anything that has a path in the mount."""

    def attributes(self) -> Attributes:
        """Return what stat(2) tells.

        :raise NotFound: where it has gone underneath
        """
        ...

    @property
    def home(self) -> Hashable | None:
        """Which dataset this is a file of, whatever path leads to it: with the inode number it says which file.

        Where versions of a file are kept apart, as in a bucket that is only read, it says which version, too.
        None for directories, and for what stands at its path alone (texts and links of our making, `.octue` files).
        """
        ...

    @property
    def derived(self) -> bool:
        """True where it is made of the facts of the index, and a directory where what it holds is.

        So are views, virtual texts and links, the control panel and the root of a manifest's mount; a dataset's own
        folders and files are not, whatever path leads to them.
        """
        ...

    def answers_at_once(self, name: str) -> bool:
        """Say whether `lookup(name)`, and asking what it finds for attributes, takes no request and no long computing.

        Memory and a local disk alone are asked then. False for what is no directory.
        """
        ...

    def lookup(self, name: str) -> "Node":
        """Return the node of a name in this directory, listed or not.

        :raise NotFound: where there is none
        :raise NotADirectory: where this is none
        """
        ...

    def check_listable(self) -> None:
        """Raise where this directory cannot be listed now, without listing it; glibc takes ENOENT later for its end.

        :raise OctuefsError: for the reason
        """
        ...

    def known(self, name: str) -> "Node | None":
        """Return the node of a name in this directory where memory alone says what it is, else None."""
        ...

    @property
    def info_at_once(self) -> ObjectInfo | None:
        """What is known of this file of a dataset and is as good as what its disk would say; else None.

        It is so where the disk tells of changes, but for what is written through the mount at the moment.
        """
        ...

    def entries(self) -> Iterable[DirectoryEntry]:
        """Return what this directory lists, in a stable order.

        :raise NotADirectory: where this is none
        """
        ...

    def open(self) -> ByteSource:
        """Open the bytes for reading.

        :raise IsADirectory: where this is a directory
        """
        ...

    def check_writable(self) -> None:
        """Refuse changes where the dataset that this belongs to is only read; asked before each of the calls below.

        :raise ReadOnly: with the reason
        """
        ...

    def open_writable(self, flags: int) -> OpenFile:
        """Open for writing, or both, as `flags` say (open(2)).

        :raise NotPermitted: where the bytes are of our making
        """
        ...

    def truncate(self, length: int) -> None:
        """truncate(2)."""
        ...

    def set_mode(self, mode: int) -> None:
        """chmod(2)."""
        ...

    def set_owner(self, uid: int, gid: int) -> None:
        """chown(2); -1 leaves one as it is."""
        ...

    def set_times(self, times: Times) -> None:
        """utimensat(2)."""
        ...

    def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """setxattr(2).

        :raise BadValue: for a value that cannot be taken
        """
        ...

    def remove_xattr(self, name: str) -> None:
        """removexattr(2)."""
        ...

    def create(self, name: str, flags: int, mode: int, caller: Caller) -> OpenFile:
        """Make a file in this directory and open it."""
        ...

    def make_folder(self, name: str, mode: int, caller: Caller) -> None:
        """mkdir(2) in this directory."""
        ...

    def make_link(self, name: str, target: str, caller: Caller) -> None:
        """symlink(2) in this directory."""
        ...

    def make_special(self, name: str, mode: int, device: int, caller: Caller) -> None:
        """mknod(2) in this directory, of anything but a regular file."""
        ...

    def remove(self, name: str) -> None:
        """unlink(2) of a name here."""
        ...

    def remove_folder(self, name: str) -> None:
        """rmdir(2) of a name here."""
        ...

    def sync(self) -> None:
        """fsync(2) of this directory; nothing happens where the dataset is only read."""
        ...

    def give(self, name: str) -> "Moving":
        """Say what leaves this directory when `name` is moved out of it, or linked elsewhere.

        :raise NotPermitted: where it cannot leave
        """
        ...

    def take(self, moving: "Moving", name: str, *, replace: bool) -> None:
        """rename(2): let what another directory (or this one) gives stand here under `name`.

        :raise CrossDevice: where it belongs to another dataset
        """
        ...

    def take_link(self, moving: "Moving", name: str) -> None:
        """link(2): give what another directory shows a second name here.

        :raise CrossDevice: where it belongs to another dataset
        """
        ...

    @property
    def volatile(self) -> bool:
        """True where the text is made anew for each open and must not be cached by the kernel."""
        ...

    def read_link(self) -> str:
        """Return where a symbolic link points.

        :raise NotALink: where this is none
        """
        ...

    def get_xattr(self, name: str) -> bytes:
        """Return the value of an extended attribute.

        :raise NoAttribute: where it has none of that name
        """
        ...

    def list_xattrs(self) -> list[str]:
        """Return the names of the attributes that are set and can be copied."""
        ...

    def tells_at_once(self, name: str) -> bool:
        """Say whether `get_xattr(name)`, and `list_xattrs()` for "", takes no request and no long computing."""
        ...

    @property
    def opens_at_once(self) -> bool:
        """False where the store is asked before it is opened for reading."""
        ...

    @property
    def control(self) -> Callable[[bytes], object] | None:
        """What takes the bytes written into a control file, None for everything else."""
        ...


@dataclass(frozen=True, slots=True)
class Moving:
    """What leaves a directory: a file or folder of a dataset, or the folder of a view's value (`by-label/<value>`).

    `path` is its path in `dataset`, and `leaving` are the conditions of the views that it shows in there. For the
    folder of a value, `index_folder` is the node that it lies in and `value` its name; `path` counts for nothing then.
    `refusal` says why it may be linked elsewhere, but not be moved.
    """

    dataset: Dataset
    path: str
    leaving: tuple[Query, ...] = ()
    index_folder: "Node | None" = None
    value: str = ""
    refusal: NotPermitted | None = None


def virtual_inode(path: str) -> int:
    """Return the stable inode number of something invented, by its path in the mount."""
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") | _VIRTUAL_INODE_BIT
