"""What the headers of an answer say of an object behind a URL, as an ObjectInfo. Pure: values in, values out.

Google's XML API tells in headers what its JSON API tells in an object's resource; names come in any case.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any

from octuefs.errors import StoreUnavailable
from octuefs.model.listed_files import cloud_path_of_url
from octuefs.model.paths import CloudLocation, UrlLocation
from octuefs.stores.base import Kind, ObjectInfo, Ownership
from octuefs.stores.gcs_resource import describe
from octuefs.stores.members import number_of

_CUSTOM = "x-goog-meta-"
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
_PROPERTIES = {
    "contentType": "content-type",
    "contentDisposition": "content-disposition",
    "contentLanguage": "content-language",
    "cacheControl": "cache-control",
}
_NO_PLACE = CloudLocation("", "")


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by their names in lower case, with values as the text that was sent.

    HTTP's library takes each byte for a character of Latin-1; servers that send other text send UTF-8.
    """
    return {name.lower(): _text(value) for name, value in headers.items()}


def _text(value: str) -> str:
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return value


def range_of(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return (offset, size of the whole object) of a `Content-Range`; None for what it does not say."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if found is None:
        return None, None
    return (int(found[1]) if found[1] else None), int(found[2])


def size_of(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes are stored, None where the headers do not say it."""
    whole = range_of(headers)[1]
    if whole is not None:
        return whole
    for name in ("x-goog-stored-content-length", "content-length"):
        if headers.get(name, "").isdigit():
            return int(headers[name])
    return None


def generation_of(headers: Mapping[str, str]) -> int:
    """Return a number that changes with the bytes: the generation, elsewhere than at Google one made of the ETag."""
    generation = headers.get("x-goog-generation", "")
    if generation.isdigit():
        return int(generation)
    told = f"{headers.get('etag', '')}\n{headers.get('last-modified', '')}"
    return int.from_bytes(blake2b(told.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "big") + 1


NO_GENERATION = generation_of({})
"""The number of every object of a server that tells neither generation nor ETag nor time."""


def origin_of(url: str, headers: Mapping[str, str]) -> str:
    """Return where the bytes behind a URL live: a gs:// path, elsewhere than at Google the URL without its query."""
    return cloud_path_of_url(url) if "x-goog-generation" in headers else str(UrlLocation(url))


def info_of(url: str, path: str, headers: Mapping[str, str], ownership: Ownership) -> ObjectInfo:
    """Describe the object behind a URL under its `path` in a dataset.

    :raise StoreUnavailable: where the server does not tell its size
    """
    size = size_of(headers)
    if size is None:
        raise StoreUnavailable(f"{UrlLocation(url)}: the server does not tell how large it is")
    modified = _time(headers.get("last-modified"))
    resource: dict[str, Any] = {
        "size": size,
        "generation": generation_of(headers),
        "metageneration": int(text) if (text := headers.get("x-goog-metageneration", "")).isdigit() else 0,
        "crc32c": _crc32c(headers.get("x-goog-hash", "")),
        "metadata": {name[len(_CUSTOM) :]: text for name, text in headers.items() if name.startswith(_CUSTOM)},
        "updated": modified,
        "timeCreated": modified,
        "contentEncoding": _encoding(headers),
        **{key: headers.get(name) for key, name in _PROPERTIES.items()},
    }
    origin = origin_of(url, headers)
    described = describe(_NO_PLACE, path, Kind.FILE, resource, ownership)
    return described._replace(origin=origin, inode=number_of(origin))


def _crc32c(hashes: str) -> str | None:
    """Return the checksum in a list of `<algorithm>=<base64>`."""
    for part in hashes.split(","):
        algorithm, _, value = part.strip().partition("=")
        if algorithm.lower() == "crc32c":
            return value
    return None


def _encoding(headers: Mapping[str, str]) -> str | None:
    stored = headers.get("x-goog-stored-content-encoding", headers.get("content-encoding"))
    return None if stored == "identity" else stored


def _time(text: str | None) -> str | None:
    """Return an HTTP date as RFC 3339 has it."""
    try:
        return parsedate_to_datetime(text or "").astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return None
