"""Files that a dataset lists wherever they are: how their paths are read, and their places in the dataset.

Paths are absolute local ones, gs://bucket/object, and http(s) URLs. A URL may be signed, and is a credential then: no
message, and no `repr`, shows one.
"""

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from octuefs.errors import BadValue
from octuefs.model.paths import (
    GS_SCHEME,
    NAME_MAX,
    SIGNED_METADATA_NAME,
    bucket_and_name,
    join,
    name_of,
    parent_of,
    parse_source,
    path_bytes,
)
from octuefs.model.values import shown

_URL_SCHEMES = ("http://", "https://")
GOOGLE_HOST = "storage.googleapis.com"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file that a dataset lists: where it is (an absolute local path, gs://bucket/object, or an http(s) URL).

    `given` are those of the raw JSON fields id, timestamp, tags and labels that stand beside it; they count where
    nothing is stored with the file.
    """

    path: str = field(repr=False)
    given: Mapping[str, Any] = field(default_factory=dict)


def is_url(path: str) -> bool:
    """Say whether a path is an http(s) URL."""
    return path.lower().startswith(_URL_SCHEMES)


def is_cloud(path: str) -> bool:
    """Say whether a path is gs:// or an http(s) URL."""
    return path.startswith(GS_SCHEME) or is_url(path)


def absolute_path(text: str, base: str) -> str:
    """Return a path as a document in the folder `base` means it; a local one normalised.

    `base` is an absolute local path, gs://bucket/path or the http(s) URL of a folder. What comes after the bucket is
    not looked at: it may be the name of an object that no file can have.

    :raise BadValue: for what cannot be a path; no URL shows in it
    """
    if is_url(text.strip()):
        text = text.strip()
    elif text == "":
        raise BadValue("its path is empty")
    elif "\0" in text:
        raise BadValue("its path has a NUL character")
    elif not text.startswith((GS_SCHEME, "/")):
        if "://" in text:
            raise BadValue("its path is neither local nor gs:// nor http(s)://")
        text = _joined(base, text)
    if is_url(text):
        parse_source(text)
        return text
    if text.startswith(GS_SCHEME):
        if not bucket_and_name(text)[0]:
            raise BadValue(f"its path {shown(text)} names no bucket")
        return text
    try:
        path_bytes(text)
    except UnicodeEncodeError:
        raise BadValue("its path is not valid Unicode") from None
    return os.path.normpath("/" + text.lstrip("/"))


def _joined(base: str, relative: str) -> str:
    if is_url(base):
        return urljoin(base.rstrip("/") + "/", "./" + relative)
    if not base.startswith(GS_SCHEME):
        return os.path.join(base, relative)
    bucket, prefix = bucket_and_name(base)
    path = posixpath.normpath(posixpath.join(prefix, relative))
    if path == ".." or path.startswith("../"):
        raise BadValue(f"its path {shown(relative)} leads out of the bucket")
    return GS_SCHEME + bucket + ("" if path == "." else f"/{path}")


def _named(path: str) -> tuple[str, str]:
    """Return (where, name) of a path: of a local one "" and itself, of others bucket and object, decoded once.

    Of Google's own two forms of a URL, and of gs://, "where" is the same.
    """
    if path.startswith(GS_SCHEME):
        return GS_SCHEME, path[len(GS_SCHEME) :]
    if not is_url(path):
        return "", os.path.normpath(path)
    parts = urlsplit(path)
    host = parts.hostname or ""
    name = unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape").removeprefix("/")
    if host == GOOGLE_HOST:
        return GS_SCHEME, name
    if host.endswith(f".{GOOGLE_HOST}"):
        return GS_SCHEME, f"{host.removesuffix(f'.{GOOGLE_HOST}')}/{name}"
    return parts.netloc, name


def cloud_path_of_url(url: str) -> str:
    """Return the gs:// path of an object by its URL: https://host/bucket/object, or with the bucket in the host."""
    return GS_SCHEME + _named(url)[1]


def place_below(path: str, file: str) -> str | None:
    """Return the place of a file in the dataset at `path`: its path relative to that, None where it is not below it.

    The dataset of the URL that shares it is what stands before `.signed_metadata_files`. What comes back may yet be
    no path (`problem_with_path`): objects are not named like files.
    """
    if is_cloud(path) != is_cloud(file):
        return None
    folder, name = _named(path)[1], _named(file)[1]
    if is_url(path):
        folder = f"{folder}/".partition(f"/{SIGNED_METADATA_NAME}/")[0]
    folder = folder.rstrip("/") + "/"
    return name.removeprefix(folder) if name.startswith(folder) and name != folder else None


def place_files(path: str, files: Iterable[FileEntry]) -> list[tuple[str, FileEntry]]:
    """Return each file with its place in the dataset at `path`, in the order given, the very same file once.

    A file that is not below `path` stands at the top by its basename, or as `stem~2.ext`, `stem~3.ext`, ... where that
    is taken: by what is below `path`, wherever in the list, or by one before it. A place may yet be no path
    (`problem_with_path`); links of a local dataset are the caller's to resolve.
    """
    entries: dict[tuple[str, str], FileEntry] = {}
    for entry in files:
        entries.setdefault(_named(entry.path), entry)
    names = _Names()
    places: dict[tuple[str, str], str] = {}
    for identity, entry in entries.items():
        below = place_below(path, entry.path)
        if below is not None:
            places[identity] = names.take(below)  # on two hosts may be two files of one name
    for below in places.values():
        names.taken.add(below.partition("/")[0])
    for identity in entries:
        if identity not in places:
            places[identity] = names.take(name_of(identity[1]))
    return [(places[identity], entry) for identity, entry in entries.items()]


class _Names:
    """The places that are taken in a dataset."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self._last: dict[str, int] = {}
        """The highest number by the path that was numbered."""

    def take(self, path: str) -> str:
        """Return a path, or the first of its numbered ones, that is free, and take it."""
        found = path
        if path in self.taken:
            stem, extension = os.path.splitext(name_of(path))
            number = self._last.get(path, 1)
            while found in self.taken:
                number += 1
                found = join(parent_of(path), _cut(stem, f"~{number}{extension}"))
            self._last[path] = number
        self.taken.add(found)
        return found


def _cut(stem: str, ending: str) -> str:
    """Return stem and ending as a name; of a stem that is too long for one, its beginning."""
    while stem and len((stem + ending).encode("utf-8", "surrogatepass")) > NAME_MAX:
        stem = stem[:-1]
    return stem + ending
