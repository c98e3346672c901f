"""What Google says of an object, its JSON resource, as an ObjectInfo. Pure: values in, values out."""

import base64
import binascii
import stat
import zlib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from octuefs.model.paths import CloudLocation, problem_with_path
from octuefs.stores.base import NO_PROPERTIES, Kind, ObjectInfo, Ownership
from octuefs.stores.gcs_failures import failure

PROPERTIES = ("contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl")
"""What Google keeps for an object's readers."""

_OUR_KEYS = ("octue__", "goog-reserved-")


class Resource(msgspec.Struct, gc=False):
    """What is asked for of an object and used, under Google's names; numbers may come as texts, as Google's do."""

    name: str = ""
    size: int = 0
    generation: int = 0
    metageneration: int = 0
    crc32c: str | None = None
    metadata: dict[str, str] | None = None
    updated: str | None = None
    timeCreated: str | None = None
    contentType: str | None = None
    contentEncoding: str | None = None
    contentDisposition: str | None = None
    contentLanguage: str | None = None
    cacheControl: str | None = None


FIELDS = ",".join(Resource.__struct_fields__)
"""The parts of a resource that are asked for and used."""


def describe(
    location: CloudLocation, path: str, kind: Kind, resource: Mapping[str, Any], ownership: Ownership | None = None
) -> ObjectInfo:
    """Describe the file or folder at `path`, which belongs to this process's user where nothing else is said.

    A folder that is no object, only implied by those below it, has an empty resource: its version is
    (0, 0, 0) and its times are 0, as nothing stores them.

    :raise StoreUnavailable: where that is no resource of an object
    """
    try:
        typed = msgspec.convert(resource, Resource, strict=False)
    except ValueError as error:
        raise failure(error, location.of(path)) from error
    return Describer(location, ownership or Ownership()).describe(path, kind, typed)


class Describer:
    """Makes an ObjectInfo of what is said of each of the objects of one location. Any thread may call."""

    def __init__(self, location: CloudLocation, ownership: Ownership) -> None:
        """Describe what stands in `location`, and belongs to whom `ownership` says."""
        self._ownership = ownership
        self._file_mode = _mode(Kind.FILE, None, ownership)
        self._named = _hash_of_names(location)

    def describe(self, path: str, kind: Kind, resource: Resource) -> ObjectInfo:
        """Return what a resource says of the file or folder at `path`; see the function of this name."""
        custom = resource.metadata
        is_file = kind is Kind.FILE
        ctime_ns = parse_time(resource.updated)
        mtime_ns = ctime_ns if resource.timeCreated == resource.updated else parse_time(resource.timeCreated)
        mode = self._file_mode
        checksum = 0
        if custom:
            if "" in custom.values():
                custom = _without_removed(custom)
            # The checksum is for emulators: fake-gcs-server leaves the metageneration as it is when metadata change.
            checksum = zlib.crc32("\0".join(map("\0".join, sorted(custom.items()))).encode("utf-8", "surrogatepass"))
            if (stored := _stored_mtime(custom.get("goog-reserved-file-mtime"))) is not None:
                mtime_ns = stored
        if custom or not is_file:
            mode = _mode(kind, (custom or {}).get("goog-reserved-posix-mode"), self._ownership)
        named = self._named.copy()
        named.update(path.encode("utf-8", "surrogateescape"))
        properties = _properties(
            resource.contentType,
            resource.contentEncoding,
            resource.contentDisposition,
            resource.contentLanguage,
            resource.cacheControl,
        )
        return ObjectInfo(  # by place, as names take a while and there are millions
            path,
            kind,
            resource.size if is_file else 0,
            mtime_ns,
            ctime_ns,
            mode,
            self._ownership.uid,
            self._ownership.gid,
            int.from_bytes(named.digest(), "big") >> 1,
            1,
            (resource.generation, resource.metageneration, checksum),
            _crc32c(resource.crc32c) if is_file else None,
            {} if custom is None else custom,
            properties=properties,
        )


def custom_metadata_size(metadata: Mapping[str, str]) -> int:
    """Return the bytes that count towards Google's 8 KiB of custom metadata: those of all keys and values."""
    return sum(len(text.encode("utf-8", "surrogateescape")) for item in metadata.items() for text in item)


def encode_crc32c(crc32c: int) -> str:
    """Return a checksum as Google writes it: base64 of its four bytes, the highest first."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def _without_removed(metadata: dict[str, str]) -> dict[str, str]:
    """Return the custom metadata without our keys whose value is "".

    fake-gcs-server stores "" where a key is to be removed. For Google's server nothing is lost by it: "" is no value
    of ours (each is a JSON text, a number or a mode), and it says as little as a key that is not there. Everybody
    else's keys stay as they are.
    """
    return {key: value for key, value in metadata.items() if value or not key.startswith(_OUR_KEYS)}


@lru_cache(maxsize=1024)
def _properties(*values: str | None) -> Mapping[str, str]:
    """Return what is set of PROPERTIES; one mapping for all objects that are alike, as there are millions."""
    return {name: value for name, value in zip(PROPERTIES, values, strict=True) if value} or NO_PROPERTIES


def problem_with_name(path: str) -> str | None:
    """Say why the name of an object cannot be a path: as `problem_with_path`, and text that no bucket holds."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return problem_with_path(path)


def parse_time(text: str | None) -> int:
    """Return an RFC 3339 time in nanoseconds since the epoch, 0 where it is none."""
    if not text:
        return 0
    try:
        if text[-1] == "Z" and text[10] == "T" and text[19] in ".Z":
            seconds = _minute_seconds(text[:16]) + int(text[17:19])
            return seconds * 1_000_000_000 + int(text[20:-1].ljust(9, "0")[:9])
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
    except (ValueError, IndexError):
        return 0


@lru_cache(maxsize=4096)
def _minute_seconds(minute: str) -> int:
    """Return the seconds from the epoch to the beginning of a minute (UTC), written as far as that."""
    days = datetime.fromisoformat(minute[:10]).toordinal() - datetime(1970, 1, 1).toordinal()
    return days * 86400 + int(minute[11:13]) * 3600 + int(minute[14:16]) * 60


def _stored_mtime(text: str | None) -> int | None:
    """Return `goog-reserved-file-mtime` (seconds, maybe with a fraction) in nanoseconds, None where it is none."""
    if not text:
        return None
    try:
        nanoseconds = int(Decimal(text) * 1_000_000_000)
    except (InvalidOperation, ValueError, OverflowError):
        return None
    return nanoseconds if abs(nanoseconds) < 1 << 63 else None


def _mode(kind: Kind, text: str | None, ownership: Ownership) -> int:
    """Return st_mode from `goog-reserved-posix-mode` (octal), or the usual one."""
    is_folder = kind is Kind.FOLDER
    kind_bits, usual = (stat.S_IFDIR, ownership.dir_mode) if is_folder else (stat.S_IFREG, ownership.file_mode)
    try:
        permissions = int(text, 8) & 0o7777 if text else usual
    except ValueError:
        permissions = usual
    return kind_bits | permissions


def _crc32c(text: str | None) -> int | None:
    """Return the number in Google's base64 text; None where there is none (customer-encrypted objects)."""
    try:
        data = binascii.a2b_base64(text or "", strict_mode=True)
    except ValueError:
        return None
    return int.from_bytes(data, "big") if len(data) == 4 else None


def inode_of(location: CloudLocation, path: str) -> int:
    """Return a stable number of 63 bits for what stands at `path`."""
    named = _hash_of_names(location)
    named.update(path.encode("utf-8", "surrogateescape"))
    return int.from_bytes(named.digest(), "big") >> 1


def _hash_of_names(location: CloudLocation) -> blake2b:
    """Return the hash of what the names of all objects begin with; that of an object's whole name is its inode."""
    return blake2b(f"{location.bucket}/{location.object_prefix}".encode("utf-8", "surrogateescape"), digest_size=8)
