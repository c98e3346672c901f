"""Reading the text of a manifest: from a disk, from a bucket, or from a URL.

`sources.py` calls `read_manifest` with what was given as a source, in the thread that mounts; a `Manifest` leaves, or
None where the source is a dataset itself. A URL may be signed: nothing that is raised or logged shows its query.
"""

import os
import posixpath
from collections.abc import Callable
from contextlib import closing
from typing import NoReturn
from urllib.parse import urlsplit

from octuefs.errors import BadValue, NotFound, from_os_error
from octuefs.model.listed_files import GOOGLE_HOST, cloud_path_of_url
from octuefs.model.manifest import Manifest, describes_one_dataset, parse_manifest
from octuefs.model.paths import CloudLocation, LocalLocation, Source, UrlLocation, name_of, parent_of
from octuefs.stores.base import Kind, Store

LONGEST_MANIFEST = 64 << 20
"""Bytes; one of a million files has less."""

MANIFEST_ENDING = ".json"
"""How the name of an object ends that is taken for a manifest before anything else."""
_EMULATOR = "STORAGE_EMULATOR_HOST"

OpenBucket = Callable[[CloudLocation], Store]
"""Gives the store of a prefix in a bucket, which its caller closes."""

Fetch = Callable[[str, int], bytes]
"""Gives the text of at most so many bytes that a URL answers; nothing that it raises shows the URL's query."""


def read_manifest(source: Source, open_bucket: OpenBucket, fetch: Fetch) -> Manifest | None:
    """Return the manifest that stands at a source, or None where a dataset is meant.

    A local file is taken for one, an object whose name ends in ".json", and what a URL answers unless it is the JSON
    object of a shared dataset.

    :raise BadValue: where it should be one and is none; other OctuefsError where it cannot be read
    """
    if isinstance(source, UrlLocation):
        data = fetch(source.url, LONGEST_MANIFEST)
        return None if describes_one_dataset(data) else _parsed(data, source)
    if isinstance(source, LocalLocation):
        return manifest_at(source, open_bucket, fetch) if os.path.isfile(source.path) else None
    if not source.prefix.endswith(MANIFEST_ENDING):
        return None
    try:
        return manifest_at(source, open_bucket, fetch)
    except NotFound:
        return None


def manifest_at(source: Source, open_bucket: OpenBucket, fetch: Fetch) -> Manifest:
    """Return the manifest that stands at a source, whatever its name is.

    :raise NotFound: where no file, object or URL does
    :raise BadValue: where it is none
    """
    if isinstance(source, UrlLocation):
        return _parsed(fetch(source.url, LONGEST_MANIFEST), source)
    if isinstance(source, LocalLocation):
        return _parsed(_read_file(source.path), source)
    return _parsed(_read_object(source, open_bucket), source)


def base_of(source: Source) -> str:
    """Return the folder of a manifest, which the paths in it are relative to.

    Of an object in Google Cloud Storage that was given by its URL, that is the folder in the bucket: no signature of
    the manifest is one of a dataset.
    """
    if isinstance(source, LocalLocation):
        return os.path.dirname(source.path)
    if isinstance(source, CloudLocation):
        return str(CloudLocation(source.bucket, parent_of(source.prefix)))
    if _is_of_google(source.url):
        return posixpath.dirname(cloud_path_of_url(source.url))
    return posixpath.dirname(str(source))


def _is_of_google(url: str) -> bool:
    host = (urlsplit(url).hostname or "").lower()
    emulator = urlsplit(os.environ.get(_EMULATOR, ""))
    return (
        host == GOOGLE_HOST
        or host.endswith(f".{GOOGLE_HOST}")
        or (bool(emulator.netloc) and emulator.netloc == urlsplit(url).netloc)
    )


def _parsed(data: bytes, source: Source) -> Manifest:
    try:
        return parse_manifest(data, base_of(source))
    except BadValue as error:
        raise BadValue(f"{source}: {error}") from None


def _too_long(source: object) -> NoReturn:
    raise BadValue(f"{source}: it is larger than {LONGEST_MANIFEST >> 20} MiB; that is no manifest")


# --- a disk and a bucket


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST_MANIFEST + 1)
    except OSError as error:
        raise from_os_error(error, path) from error
    if len(data) > LONGEST_MANIFEST:
        _too_long(path)
    return data


def _read_object(location: CloudLocation, open_bucket: OpenBucket) -> bytes:
    name = name_of(location.prefix)
    if not name:
        raise NotFound(f"{location} is a bucket, and no manifest")
    with closing(open_bucket(CloudLocation(location.bucket, parent_of(location.prefix)))) as store:
        info = store.stat(name)
        if info.kind is not Kind.FILE:
            raise NotFound(f"{location}: no such object")
        if info.size > LONGEST_MANIFEST:
            _too_long(location)
        return store.read_small(name, LONGEST_MANIFEST)
