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

from octuefs.model.paths import CloudLocation, problem_with_path
from octuefs.stores.base import NO_PROPERTIES, Kind, ObjectInfo, Ownership

PROPERTIES = ("contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl")
"""What Google keeps for an object's readers."""

FIELDS = f"name,size,generation,metageneration,crc32c,metadata,updated,timeCreated,{','.join(PROPERTIES)}"
"""The parts of a resource that are asked for and used."""

_OUR_KEYS = ("octue__", "goog-reserved-")


def describe(
    location: CloudLocation, path: str, kind: Kind, resource: Mapping[str, Any], ownership: Ownership | None = None
) -> ObjectInfo:
    """Describe the file or folder at `path`, which belongs to this process's user where nothing else is said.

    A folder that is no object, only implied by those below it, has an empty resource: its version is
    (0, 0, 0) and its times are 0, as nothing stores them.
    """
    ownership = ownership or Ownership()
    metadata = _metadata(resource.get("metadata") or {})
    mtime_ns = _stored_mtime(metadata.get("goog-reserved-file-mtime"))
    is_file = kind is Kind.FILE
    return ObjectInfo(
        path=path,
        kind=kind,
        size=int(resource.get("size", 0)) if is_file else 0,
        mtime_ns=parse_time(resource.get("timeCreated")) if mtime_ns is None else mtime_ns,
        ctime_ns=parse_time(resource.get("updated")),
        mode=_mode(kind, metadata.get("goog-reserved-posix-mode"), ownership),
        uid=ownership.uid,
        gid=ownership.gid,
        inode=inode_of(location, path),
        links=1,
        version=_version(resource, metadata),
        crc32c=_crc32c(resource.get("crc32c")) if is_file else None,
        custom_metadata=metadata,
        properties=_properties(*map(resource.get, PROPERTIES)),
    )


def custom_metadata_size(metadata: Mapping[str, str]) -> int:
    """Return the bytes that count towards Google's 8 KiB of custom metadata: those of all keys and values."""
    return sum(len(text.encode("utf-8", "surrogateescape")) for item in metadata.items() for text in item)


def encode_crc32c(crc32c: int) -> str:
    """Return a checksum as Google writes it: base64 of its four bytes, the highest first."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def _metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Return the custom metadata without our keys whose value is "".

    fake-gcs-server stores "" where a key is to be removed. For Google's server nothing is lost by it: "" is no value
    of ours (each is a JSON text, a number or a mode), and it says as little as a key that is not there. Everybody
    else's keys stay as they are.
    """
    if "" not in metadata.values():
        return metadata
    return {key: value for key, value in metadata.items() if value or not key.startswith(_OUR_KEYS)}


@lru_cache(maxsize=1024)
def _properties(*values: str | None) -> Mapping[str, str]:
    """Return what is set of PROPERTIES; one mapping for all objects that are alike, as there are millions."""
    return {name: value for name, value in zip(PROPERTIES, values, strict=True) if value} or NO_PROPERTIES


def _version(resource: Mapping[str, Any], metadata: Mapping[str, str]) -> tuple[int, int, int]:
    """Return (generation, metageneration, checksum of the custom metadata).

    The checksum is for emulators: fake-gcs-server leaves the metageneration as it is when metadata change.
    """
    checksum = zlib.crc32(repr(sorted(metadata.items())).encode()) if metadata else 0
    return (int(resource.get("generation", 0)), int(resource.get("metageneration", 0)), checksum)


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
            seconds = _day_seconds(text[:10]) + int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
            return seconds * 1_000_000_000 + int(text[20:-1].ljust(9, "0")[:9])
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
    except (ValueError, IndexError):
        return 0


@lru_cache(maxsize=1024)
def _day_seconds(day: str) -> int:
    """Return the seconds from the epoch to the beginning of a day (UTC)."""
    return (datetime.fromisoformat(day).toordinal() - datetime(1970, 1, 1).toordinal()) * 86400


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
        data = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(data, "big") if len(data) == 4 else None


def inode_of(location: CloudLocation, path: str) -> int:
    """Return a stable number of 63 bits for what stands at `path`."""
    name = f"{location.bucket}/{location.object_prefix}{path}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 1
