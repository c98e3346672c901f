"""Nodes of what is really there: datafiles, and files, links and devices that are no datafiles."""

import stat

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import NotALink, OctuefsError, Unsupported
from octuefs.stores.base import ByteSource, Kind, ObjectInfo
from octuefs.tree.node import Attributes, Leaf
from octuefs.tree.xattrs import datafile_xattr, foreign_names, foreign_xattr, listed_datafile_xattrs


def current_info(dataset: Dataset, info: ObjectInfo) -> ObjectInfo:
    """Return what stands at a path now: asked of a disk each time (microseconds), known in the cloud.

    :raise NotFound: where it has gone from the disk
    """
    if dataset.in_cloud:
        return info
    try:
        now = dataset.store.stat(info.path)
    except OctuefsError:
        dataset.keeper.notice(info.path, None)
        raise
    if now.version != info.version:
        dataset.keeper.notice(info.path, now.version)
    return now


class DatafileNode(Leaf):
    """A datafile. In a view a symbolic link that leads to a file shows as that file."""

    def __init__(self, dataset: Dataset, datafile: Datafile, *, in_view: bool) -> None:
        self.dataset = dataset
        self.datafile = datafile
        self._as_target = in_view and datafile.info.kind is Kind.SYMLINK and datafile.content is not None

    @property
    def shown(self) -> ObjectInfo:
        """What readdir says of it, without asking the disk."""
        content = self.datafile.content
        return content if self._as_target and content is not None else self.datafile.info

    def attributes(self) -> Attributes:
        """See `Node`."""
        if self._as_target:
            target = self.dataset.store.follow_link(self.datafile.path)
            if target.info is not None:
                return Attributes.of(target.info)
        return Attributes.of(current_info(self.dataset, self.datafile.info))

    def open(self) -> ByteSource:
        """See `Node`."""
        return self.dataset.open(self.datafile.info)

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


class OtherNode(Leaf):
    """Something listed that is no datafile."""

    def __init__(self, dataset: Dataset, info: ObjectInfo) -> None:
        self.dataset = dataset
        self.info = info

    def attributes(self) -> Attributes:
        """See `Node`."""
        return Attributes.of(current_info(self.dataset, self.info))

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
