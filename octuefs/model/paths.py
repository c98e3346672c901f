"""Locations of datasets and the names that may stand in a path, parsed once into types.

A *relative path* is the place of a file in its dataset: components joined by "/", never empty, never
absolute, the dataset's root being "". Names are `str` with undecodable bytes as surrogates (PEP 383,
`os.fsdecode`), so any bytes but "/" and NUL survive.
"""

import os
import posixpath
import re
import uuid
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from octuefs.errors import BadValue

GS_SCHEME = "gs://"
METADATA_NAME = ".octue"
"""The SDK's metadata file of a folder."""
SIGNED_METADATA_NAME = ".signed_metadata_files"
"""The SDK's folder of links that share a dataset."""
NAME_MAX = 255
"""Longest name of a file in bytes (NAME_MAX of limits.h)."""

_TEMPORARY_NAME = re.compile(r"\.octuefs-[0-9a-f]{32}\.octue")

_LOCATION_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "octuefs:location")


@dataclass(frozen=True, slots=True)
class LocalLocation:
    """A local folder, by its absolute path."""

    path: str
    in_cloud: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The folder's name, which is the dataset's where none is stored."""
        return os.path.basename(self.path)

    def __str__(self) -> str:
        return self.path

    def of(self, relative_path: str) -> str:
        """Return the absolute path of a file of this dataset."""
        return f"{self.path.rstrip('/')}/{relative_path}" if relative_path else self.path


@dataclass(frozen=True, slots=True)
class CloudLocation:
    """A prefix in a bucket of Google Cloud Storage; `prefix` has no slash at either end, "" is the bucket."""

    bucket: str
    prefix: str
    in_cloud: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The last component of the path, which is the dataset's name where none is stored."""
        return posixpath.basename(self.prefix) or self.bucket

    def __str__(self) -> str:
        return f"{GS_SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def object_prefix(self) -> str:
        """What the names of all objects of the dataset begin with: "" or the prefix and a slash."""
        return f"{self.prefix}/" if self.prefix else ""

    def of(self, relative_path: str) -> str:
        """Return the gs:// path of a file of this dataset."""
        return f"{GS_SCHEME}{self.bucket}/{self.object_prefix}{relative_path}".rstrip("/")


Location = LocalLocation | CloudLocation


@dataclass(frozen=True, slots=True)
class UrlLocation:
    """An http(s) URL of a shared dataset or a manifest. What authorises it stands in `url` and is never shown."""

    url: str = field(repr=False)
    in_cloud: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The last component of the path."""
        return posixpath.basename(unquote(urlsplit(self.url).path).rstrip("/"))

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


Source = Location | UrlLocation
"""What a user calls a source."""


def whole(source: Source) -> str:
    """Return the text of a source as it can be given again: of a URL with what authorises it, which is never shown."""
    return source.url if isinstance(source, UrlLocation) else str(source)


def parse_source(text: str) -> Source:
    """Parse what a user calls a source: a location (`parse_location`), or an http(s) URL.

    :raise BadValue: for what is neither; its text never shows what authorises a URL
    """
    if not text.lower().startswith(("http://", "https://")):
        return parse_location(text)
    try:
        parts = urlsplit(text)
        complete = bool(parts.hostname) and parts.path.strip("/") != "" and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise BadValue("the URL is not complete; give https://host/path, in quotes, as it was sent to you")
    return UrlLocation(text)


def parse_location(text: str) -> Location:
    """Parse what a user calls a source: `gs://bucket/path`, or a local path (made absolute, `~` expanded).

    :raise BadValue: for an empty text, a gs:// without a bucket or with a path that no dataset can have,
        and for other schemes
    """
    if text.startswith(GS_SCHEME):
        bucket, path = bucket_and_name(text)
        if not bucket:
            raise BadValue(f"{text!r} names no bucket; write gs://bucket/path")
        path = path.strip("/")
        if any(part in ("", ".", "..") for part in path.split("/")) and path:
            raise BadValue(f"{text!r}: a path in a bucket has no empty, '.' or '..' parts")
        return CloudLocation(bucket, path)
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum():
        raise BadValue(f"cannot read {scheme}://; a source is a local folder or gs://bucket/path")
    if not text:
        raise BadValue("the source is empty; give a local folder or gs://bucket/path")
    return LocalLocation(os.path.abspath(os.path.expanduser(text)))


def bucket_and_name(path: str) -> tuple[str, str]:
    """Return the bucket of a gs:// path, and the name in it: that of an object, or of what its objects begin with."""
    bucket, _, name = path.removeprefix(GS_SCHEME).partition("/")
    return bucket, name


def parent_of(relative_path: str) -> str:
    """Return the folder of a relative path, "" for the root's children."""
    return relative_path.rpartition("/")[0]


def name_of(relative_path: str) -> str:
    """Return the last component of a relative path."""
    return relative_path.rpartition("/")[2]


def join(folder: str, name: str) -> str:
    """Return the relative path of `name` in `folder` ("" is the root)."""
    return f"{folder}/{name}" if folder else name


def temporary_name() -> str:
    """Return a new name for a file or object of ours that stands for a moment only: no mount and no SDK shows it."""
    return f".octuefs-{uuid.uuid4().hex}.octue"


def is_temporary(relative_path: str) -> bool:
    """Say whether a path ends in such a name."""
    return relative_path.endswith(METADATA_NAME) and _TEMPORARY_NAME.fullmatch(name_of(relative_path)) is not None


def path_bytes(relative_path: str) -> bytes:
    """Return the bytes that a path sorts by and is known to the kernel by."""
    return relative_path.encode("utf-8", "surrogateescape")


def problem_with_path(relative_path: str) -> str | None:
    """Say why an object's name below its dataset cannot be a path, or return None where it can.

    Refused are empty, "." and ".." components (which an absolute name begins with), NUL, components of
    more than NAME_MAX bytes and text that has no bytes.
    """
    for part in relative_path.split("/"):
        if part == "":
            return "it has an empty component"
        if part in (".", ".."):
            return f"it has a component {part!r}"
        if "\0" in part:
            return "it has a NUL character"
        try:
            length = len(path_bytes(part))
        except UnicodeEncodeError:
            return "it is not valid Unicode"
        if length > NAME_MAX:
            return f"a component has {length} bytes, {NAME_MAX} are possible"
    return None


def derived_id(full_path: str, number: int = 0) -> str:
    """Return the stable ID (UUIDv5) of a datafile or dataset that has none stored, from its location.

    Where that is another's already, for it stood there before, those of higher numbers come next.
    """
    name = full_path.encode("utf-8", "surrogateescape").hex()
    return str(uuid.uuid5(_LOCATION_NAMESPACE, f"{name}#{number}" if number else name))
