"""The store of a dataset that is shared by a signed URL, as the SDK's `Dataset.generate_signed_url` makes them.

The URL answers a JSON object: the dataset's own metadata, its path (gs://), and the signed URLs of its files. A file's
place is its URL's path relative to what stands before `.signed_metadata_files`; all else of it comes from the server
by HEAD. The keeper calls for facts, which reads all of this anew, and the content layer for bytes, on any thread.
Nothing can be written. No URL's query ever shows: it is what lets people in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from octuefs.errors import BadValue, OctuefsError
from octuefs.model.listed_files import FileEntry, cloud_path_of_url, is_url, place_files
from octuefs.model.metadata import DatasetMetadata, decode_dataset_record
from octuefs.model.paths import (
    GS_SCHEME,
    SIGNED_METADATA_NAME,
    CloudLocation,
    UrlLocation,
    bucket_and_name,
    parse_location,
    parse_source,
)
from octuefs.model.values import MAX_DEPTH, check_depth, load_json
from octuefs.stores.base import ByteSource, ObjectInfo, Ownership, Skipped
from octuefs.stores.members import Contents, MemberStore, in_parallel
from octuefs.stores.signed_http import SignedLinks
from octuefs.stores.traffic import Traffic

LARGEST_DOCUMENT = 256 << 20
"""Bytes; a signed URL has about 900."""
_SIGNED_FOLDER = f"/{SIGNED_METADATA_NAME}/"
_OWN_FIELDS = ("id", "name", "tags", "labels")


class SignedUrlStore(MemberStore[FileEntry]):
    """A store of the files that a shared dataset's document names.

    `location` is where the dataset lives by the document, once that was read, else by the URL.
    """

    def __init__(
        self, source: UrlLocation, *, ownership: Ownership | None = None, traffic: Traffic | None = None
    ) -> None:
        super().__init__(location_of(source.url), ownership)
        self.source = source
        self._url = source.url
        self._links = SignedLinks(ownership=ownership, traffic=traffic)
        self._is_located = False
        self._checked: Contents[FileEntry] | None = None
        """What `check` has just read, for who reads next."""
        self.record: DatasetMetadata | None = None
        """The dataset's own metadata, by the document that was read last."""
        self.problems: Sequence[str] = ()
        """What is wrong with them, in words."""

    def __repr__(self) -> str:
        return f"SignedUrlStore({self.source})"

    def check(self) -> None:
        """Read the document; raise where the link is refused, has expired, or leads to nothing.

        :raise BadValue: where it leads to something else than a shared dataset
        """
        self._checked = self._take(self._links.fetch(self._url, LARGEST_DOCUMENT, few_tries=True))

    def told(self) -> tuple[DatasetMetadata | None, Sequence[str]]:
        """Return the dataset's own metadata as they were read last, and what is wrong with them."""
        return self.record, self.problems

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        self._links.close()

    def _read_contents(self) -> Contents[FileEntry]:
        checked, self._checked = self._checked, None
        return checked or self._take(self._links.fetch(self._url, LARGEST_DOCUMENT))

    def _take(self, data: bytes) -> Contents[FileEntry]:
        """Take in what the document says, and return the files that it names."""
        document = self._parsed(data)
        record, problems = decode_dataset_record(
            {key: document[key] for key in _OWN_FIELDS if key in document}, revive_types=False
        )
        files = document.get("files")
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise BadValue(f"{self.source}: it is no shared dataset: its `files` are no list of URLs")
        with self._lock:
            if not self._is_located:
                self.location = _location_in(document) or self.location
                self._is_located = True
        self.record, self.problems = record, tuple(problems)
        entries, skipped = [], []
        for number, file in enumerate(files, 1):
            if _is_usable(file):
                entries.append(FileEntry(file))
            else:
                skipped.append(Skipped(f"file {number} of the shared dataset", "it is named by no http(s) URL"))
        listed = Contents.of(place_files(self._base(), entries))
        return replace(listed, skipped=(*listed.skipped, *skipped))

    def _parsed(self, data: bytes) -> Mapping[str, Any]:
        try:
            document = load_json(data.decode("utf-8"))
            check_depth(document, MAX_DEPTH + 1)
        except UnicodeDecodeError:
            raise BadValue(f"{self.source}: it is no shared dataset: it is not UTF-8") from None
        except BadValue as error:
            raise BadValue(f"{self.source}: it is no shared dataset: {error}") from None
        if not isinstance(document, dict):
            raise BadValue(f"{self.source}: it is no shared dataset: it holds no JSON object")
        return document

    def _base(self) -> str:
        """Return what places are relative to: the URL, or the dataset's path where the URL does not tell it."""
        return self._url if _SIGNED_FOLDER in cloud_path_of_url(self._url) else str(self.location)

    def _describe(self, place: str, member: FileEntry) -> ObjectInfo:
        return self._links.describe(member.path, place)

    def _describe_all(self, members: Mapping[str, FileEntry]) -> Iterator[tuple[str, ObjectInfo | OctuefsError]]:
        return in_parallel(lambda place: self._describe(place, members[place]), members)

    def _open(self, member: FileEntry, info: ObjectInfo) -> ByteSource:
        return self._links.open(member.path, info)


def location_of(url: str) -> CloudLocation:
    """Return where a dataset lives by the URL that shares it, which may be of any server."""
    bucket, prefix = bucket_and_name(cloud_path_of_url(url).partition(_SIGNED_FOLDER)[0])
    return CloudLocation(bucket, prefix.strip("/"))


def _location_in(document: Mapping[str, Any]) -> CloudLocation | None:
    path = document.get("path")
    if not isinstance(path, str) or not path.startswith(GS_SCHEME):
        return None
    try:
        location = parse_location(path)
    except BadValue:
        return None
    return location if isinstance(location, CloudLocation) else None


def _is_usable(file: str) -> bool:
    try:
        return is_url(file) and isinstance(parse_source(file), UrlLocation)
    except BadValue:
        return False
