"""A datafile as the index holds it: what the store says of the file, and its Octue metadata."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from octuefs.facts.pack import Pack
from octuefs.model.hashes import encode_crc32c
from octuefs.model.metadata import DatafileMetadata, datafile_metadata_hash, extension_of
from octuefs.model.paths import CloudLocation, Location, derived_id, join, name_of
from octuefs.stores.base import ObjectInfo

NO_METADATA = DatafileMetadata()


class Datafile:
    """One version of a datafile; a change of content or metadata makes a new one.

    `info` describes what stands at the path, which may be a symbolic link; `content` the regular file whose
    bytes the datafile has (None where a link dangles or leaves the dataset). Offers the attributes that
    filters read (`model.filters.Member`), named as the SDK names them.
    """

    __slots__ = ("content", "crc32c", "info", "location", "metadata", "row")

    def __init__(
        self,
        info: ObjectInfo,
        location: Location,
        metadata: DatafileMetadata = NO_METADATA,
        content: ObjectInfo | None = None,
    ) -> None:
        self.info = info
        self.content = content
        self.location = location
        self.metadata = metadata
        self.crc32c = content.crc32c if content is not None else 0
        """CRC32C of the bytes, None until it is computed; a broken link has that of no bytes."""
        self.row = -1
        """The row in the index, -1 while in none."""

    @property
    def path(self) -> str:
        """The path in the dataset."""
        return self.info.path

    @property
    def inode(self) -> int:
        """The inode number of what stands at the path."""
        return self.info.inode

    @property
    def mode(self) -> int:
        """Its type and permission bits."""
        return self.info.mode

    @property
    def in_cloud(self) -> bool:
        """True for an object in a bucket."""
        if self.info.origin is not None:
            return not self.info.is_listed_on_disk
        return isinstance(self.location, CloudLocation)

    @property
    def may_share_its_path(self) -> bool:
        """True where a folder may stand at the same path: for objects, and for files that a list brings together."""
        return self.in_cloud or self.info.origin is not None

    @property
    def full_path(self) -> str:
        """Where the bytes live: a gs:// path or an absolute local one; a URL (without its query) outside of Google."""
        return self.info.origin or self.location.of(self.info.path)

    @property
    def name(self) -> str:
        """The basename."""
        return name_of(self.info.path)

    @property
    def extension(self) -> str:
        """The extension without its dot, "" for none."""
        return extension_of(self.name)

    @property
    def id(self) -> str:
        """The stored ID, else a stable one made from the location, which may be another's: see `Index.id_of`."""
        return self.metadata.id or derived_id(self.full_path)

    @property
    def timestamp(self) -> datetime | None:
        """The stored timestamp."""
        return self.metadata.timestamp

    @property
    def labels(self) -> frozenset[str]:
        """The stored labels."""
        return self.metadata.labels

    @property
    def tags(self) -> Mapping[str, Any]:
        """The stored tags."""
        return self.metadata.tags

    @property
    def size(self) -> int:
        """The number of bytes of the content."""
        return self.content.size if self.content is not None else 0

    @property
    def size_bytes(self) -> int | None:
        """The same as filters see it: None, as in the SDK, where a link leads nowhere."""
        return self.content.size if self.content is not None else None

    @property
    def hash_value(self) -> str:
        """The CRC32C of the bytes in base64; "" while unknown (callers compute it first)."""
        return "" if self.crc32c is None else encode_crc32c(self.crc32c)

    @property
    def metadata_hash_value(self) -> str:
        """The hash of the metadata."""
        return datafile_metadata_hash(self.metadata)

    @property
    def local_path(self) -> str | None:
        """The absolute path on this machine, None in the cloud (nothing is downloaded to answer)."""
        return None if self.in_cloud else self.full_path

    @property
    def cloud_path(self) -> str | None:
        """The gs:// path, None for a local file."""
        return self.full_path if self.in_cloud else None

    @property
    def exists_in_cloud(self) -> bool | None:
        """True in the cloud; None, as the SDK has it, for a local file."""
        return True if self.in_cloud else None

    @property
    def exists_locally(self) -> bool:
        """True for a local file."""
        return not self.in_cloud


_RECENT = 4096
"""So many descriptions of packed datafiles are kept for a while, as they are mostly asked for several times."""

_recent: "deque[PackedDatafile]" = deque()


class PackedDatafile(Datafile):
    """An object of a bucket whose facts stay packed, as there may be millions; it describes itself when asked to.

    Its content is what stands at its path, and its hash is known.
    """

    __slots__ = ("_name", "_number", "_pack", "_recent_info")

    def __init__(self, pack: Pack, name: str, number: int, *, has_row: bool = True) -> None:
        """`number` is its row in the index, or without `has_row` its place in the pack; `name` is as it is there."""
        self._pack = pack
        self._name = name
        self._number = number  # not its place in the pack besides: one number for both takes half the room
        self._recent_info: ObjectInfo | None = None
        self.row = number if has_row else -1

    @property
    def _at(self) -> int:
        """Its place in the pack."""
        return self._number - self._pack.first_row

    @property
    def info(self) -> ObjectInfo:  # type: ignore[override]
        """See `Datafile`."""
        info = self._recent_info
        if info is None:
            info = self._recent_info = self._pack.info(self._at, self._name)
            _recent.append(self)
            if len(_recent) > _RECENT:
                _recent.popleft()._recent_info = None
        return info

    @property
    def content(self) -> ObjectInfo | None:  # type: ignore[override]
        """See `Datafile`."""
        return self.info

    @property
    def location(self) -> Location:  # type: ignore[override]
        """See `Datafile`."""
        return self._pack.bucket.location

    @property
    def metadata(self) -> DatafileMetadata:  # type: ignore[override]
        """See `Datafile`."""
        return self._pack.metadata(self._at) or NO_METADATA

    @property
    def crc32c(self) -> int | None:  # type: ignore[override]
        """See `Datafile`; what the bucket does not tell counts as that of no bytes."""
        return self._pack.crc32c(self._at) or 0

    @property
    def path(self) -> str:
        """See `Datafile`."""
        return join(self._pack.folder, self._name)

    @property
    def inode(self) -> int:
        """See `Datafile`."""
        return self._pack.place(self._at)[0]

    @property
    def mode(self) -> int:
        """See `Datafile`."""
        return self._pack.place(self._at)[1]

    @property
    def in_cloud(self) -> bool:
        """See `Datafile`."""
        return True

    @property
    def may_share_its_path(self) -> bool:
        """See `Datafile`."""
        return True

    @property
    def full_path(self) -> str:
        """See `Datafile`."""
        return self.location.of(self.path)

    @property
    def name(self) -> str:
        """See `Datafile`."""
        return self._name

    @property
    def timestamp(self) -> datetime | None:
        """See `Datafile`."""
        return self._pack.timestamp(self._at)

    @property
    def labels(self) -> frozenset[str]:
        """See `Datafile`."""
        common = self._pack.common(self._at)
        return common.labels if common is not None else NO_METADATA.labels

    @property
    def tags(self) -> Mapping[str, Any]:
        """See `Datafile`."""
        common = self._pack.common(self._at)
        return common.tags if common is not None else NO_METADATA.tags

    @property
    def size(self) -> int:
        """See `Datafile`."""
        return self._pack.size(self._at)

    @property
    def size_bytes(self) -> int | None:
        """See `Datafile`."""
        return self._pack.size(self._at)
