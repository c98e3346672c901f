"""Nodes of what is really there: datafiles, and files, links and devices that are no datafiles."""

import stat
from collections.abc import Callable, Hashable
from contextlib import suppress

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import NotALink, NotFound, Unsupported
from octuefs.model.paths import parent_of
from octuefs.stores.base import ByteSource, Kind, ObjectInfo
from octuefs.stores.writing import Times
from octuefs.tree.defaults import Leaf
from octuefs.tree.node import Attributes
from octuefs.tree.scope import Scope
from octuefs.tree.xattrs import (
    HASH_NAME,
    datafile_xattr,
    foreign_names,
    foreign_xattr,
    listed_datafile_xattrs,
    remove_datafile_xattr,
    remove_foreign_xattr,
    set_datafile_xattr,
    set_foreign_xattr,
)
from octuefs.writing.base import OpenFile


def _tell_nobody() -> None:
    """Do nothing."""


class StoredLeaf(Leaf):
    """What the nodes of a dataset's own files have in common: changes go to its writer, by path."""

    dataset: Dataset
    derived = False  # it is the dataset's own, also where a view shows it

    @property
    def home(self) -> Hashable | None:
        """See `Node`: each version of an object that is only read is read for itself."""
        if self.dataset.in_cloud and self.dataset.writer is None:
            return self.dataset, self.stored.content_version
        return self.dataset

    @property
    def opens_at_once(self) -> bool:
        """See `Node`."""
        return not self.dataset.keeper.asks_at_open(self.stored.path)

    def check_writable(self) -> None:
        """See `Node`."""
        self.dataset.check_writable()

    @property
    def stored(self) -> ObjectInfo:
        """What stands in the dataset where its bytes and attributes are changed."""
        raise NotImplementedError

    def open_writable(self, flags: int) -> OpenFile:
        """See `Node`."""
        if self.stored.kind is Kind.SPECIAL:
            raise Unsupported("only regular files can be opened through the mount")
        return self.dataset.open_writable(self.stored, flags)

    def truncate(self, length: int) -> None:
        """See `Node`."""
        self.dataset.writing.truncate(self.stored.path, length)

    def set_mode(self, mode: int) -> None:
        """See `Node`."""
        self.dataset.writing.set_mode(self.stored.path, mode)

    def set_owner(self, uid: int, gid: int) -> None:
        """See `Node`."""
        self.dataset.writing.set_owner(self.stored.path, uid, gid)

    def set_times(self, times: Times) -> None:
        """See `Node`."""
        self.dataset.writing.set_times(self.stored.path, times)

    def sync(self) -> None:
        """See `Node`."""
        if self.dataset.writer is None:
            return
        with suppress(NotFound):  # what has gone needs nothing
            self.dataset.writing.sync_folder(parent_of(self.stored.path))


class DatafileNode(StoredLeaf):
    """A datafile. In a view a symbolic link that leads to a file shows as that file."""

    def __init__(
        self,
        dataset: Dataset,
        datafile: Datafile,
        *,
        in_view: bool,
        described: Callable[[], None] = _tell_nobody,
        scope: Scope | None = None,
    ) -> None:
        """`described` is called once an attribute was set or removed; `scope` is that of the directory it is in."""
        self.dataset = dataset
        self.datafile = datafile
        self._described = described
        self._scope = scope
        self._as_target = in_view and datafile.info.kind is Kind.SYMLINK and datafile.content is not None

    @property
    def stored(self) -> ObjectInfo:
        """See `StoredLeaf`: of a link that shows as a file, the file."""
        return self.shown

    @property
    def shown(self) -> ObjectInfo:
        """What readdir says of it, without asking the disk."""
        content = self.datafile.content
        return content if self._as_target and content is not None else self.datafile.info

    @property
    def info_at_once(self) -> ObjectInfo | None:
        """See `Node`."""
        dataset = self.dataset
        return self.datafile.info if not self._as_target and not dataset.in_cloud and dataset.keeper.heard() else None

    def attributes(self) -> Attributes:
        """See `Node`."""
        if self._as_target:
            target = self.dataset.store.follow_link(self.datafile.path)
            if target.info is not None:
                return Attributes.of(target.info)
        return Attributes.of(self.dataset.current(self.datafile.info))

    def open(self) -> ByteSource:
        """See `Node`."""
        source = self.dataset.open(self.datafile.info)
        if self._scope is not None and self.dataset.reading is not None:
            self.dataset.note_opened(self.datafile.info, self._scope.whole_key, self._scope.after)
        return source

    def read_link(self) -> str:
        """See `Node`."""
        if self.shown.kind is not Kind.SYMLINK:
            raise NotALink("not a symbolic link")
        return self.dataset.store.read_link(self.datafile.path)

    def get_xattr(self, name: str) -> bytes:
        """See `Node`."""
        return datafile_xattr(self.dataset, self.datafile, name)

    def list_xattrs(self) -> list[str]:
        """See `Node`."""
        return listed_datafile_xattrs(self.dataset, self.datafile)

    def tells_at_once(self, name: str) -> bool:
        """See `Node`: hashes may have to be computed, all else is known or stands on the disk."""
        return name != HASH_NAME or self.datafile.crc32c is not None

    def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """See `Node`."""
        set_datafile_xattr(self.dataset, self.datafile, name, value, flags)
        self._described()

    def remove_xattr(self, name: str) -> None:
        """See `Node`."""
        remove_datafile_xattr(self.dataset, self.datafile, name)
        self._described()


class OtherNode(StoredLeaf):
    """Something listed that is no datafile."""

    def __init__(self, dataset: Dataset, info: ObjectInfo) -> None:
        self.dataset = dataset
        self.info = info

    @property
    def stored(self) -> ObjectInfo:
        """See `StoredLeaf`."""
        return self.info

    def attributes(self) -> Attributes:
        """See `Node`."""
        return Attributes.of(self.dataset.current(self.info))

    def open(self) -> ByteSource:
        """See `Node`."""
        if not stat.S_ISREG(self.info.mode):
            raise Unsupported("only regular files can be opened through the mount")
        return self.dataset.open(self.info)

    def read_link(self) -> str:
        """See `Node`."""
        if self.info.kind is not Kind.SYMLINK:
            raise NotALink("not a symbolic link")
        return self.dataset.store.read_link(self.info.path)

    def get_xattr(self, name: str) -> bytes:
        """See `Node`."""
        return foreign_xattr(self.dataset, self.info.path, name)

    def list_xattrs(self) -> list[str]:
        """See `Node`."""
        return foreign_names(self.dataset, self.info.path)

    def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """See `Node`."""
        set_foreign_xattr(self.dataset, self.info.path, name, value, flags)

    def remove_xattr(self, name: str) -> None:
        """See `Node`."""
        remove_foreign_xattr(self.dataset, self.info.path, name)
