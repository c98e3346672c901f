"""A datafile as the index holds it: what the store says of the file, and its Octue metadata."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from octuefs.model.hashes import encode_crc32c
from octuefs.model.metadata import DatafileMetadata, datafile_metadata_hash, extension_of
from octuefs.model.paths import CloudLocation, Location, derived_id, name_of
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
