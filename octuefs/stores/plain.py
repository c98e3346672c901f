"""What buckets and lists of files have in common as stores: they hold files, and neither links nor other attributes.

`gcs.py` and `members.py` build on it; they say what stands at a path, and open it.
"""

from abc import ABC, abstractmethod

from octuefs.errors import BadValue, Conflict, NotALink, Unsupported
from octuefs.model.paths import Location
from octuefs.stores.base import ByteSource, LinkTarget, ObjectInfo, Space


class PlainStore(ABC):
    """The part of a `Store` that follows from this."""

    location: Location

    @abstractmethod
    def stat(self, path: str) -> ObjectInfo:
        """See `Store`."""

    @abstractmethod
    def open(self, info: ObjectInfo) -> ByteSource:
        """See `Store`."""

    @property
    def in_cloud(self) -> bool:
        """True: metadata stands with each file."""
        return True

    def read_small(self, path: str, limit: int) -> bytes:
        """Return the whole content of a file of at most `limit` bytes.

        :raise BadValue: for a longer one, of which nothing is read
        """
        for last in (False, True):
            info = self.stat(path)
            if info.size > limit:
                raise BadValue(f"{self.location.of(path)}: {info.size} bytes; at most {limit} are read")
            source = self.open(info)
            try:
                return source.read(0, info.size)
            except Conflict:  # replaced in between: the new one will do
                if last:
                    raise
            finally:
                source.close()
        raise AssertionError

    def read_link(self, path: str) -> str:
        """Refuse: there are no symbolic links."""
        raise NotALink(f"{self.location.of(path)}: not a symbolic link")

    def follow_link(self, path: str) -> LinkTarget:
        """Refuse: there are no symbolic links."""
        raise NotALink(f"{self.location.of(path)}: not a symbolic link")

    def get_xattr(self, path: str, name: str) -> bytes:
        """Refuse: a file has no attributes but the metadata of octue."""
        raise Unsupported(f"{self.location.of(path)}: it has no attributes but octue's own; {name} is not kept")

    def list_xattrs(self, path: str) -> list[str]:
        """Return none: a file has no foreign attributes."""
        return []

    def space(self) -> Space:
        """Return a petabyte and 2**32 files, all free: there is no limit, and programs want a number."""
        return Space(total_bytes=1 << 50, free_bytes=1 << 50, total_files=1 << 32, free_files=1 << 32)

    def reopen_if_replaced(self) -> bool:
        """Do nothing: everything is looked up anew by its name."""
        return False
