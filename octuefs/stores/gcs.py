"""The store of a dataset in Google Cloud Storage, through gcsfs.

The index calls for facts: one recursive list with metadata, never a request per object. The content layer
calls for bytes: ranged reads, each pinned to the generation that was listed, of the bytes as they are
stored (no decompression). The writers call for changes, which stand in `gcs_uploads` and `gcs_writing`. Any
thread may call. How requests are sent stands in `gcs_requests`, how gcsfs is set up in `gcs_connect`, what its
exceptions mean in `gcs_failures`, what Google says of an object in `gcs_resource`. Importing this module is
cheap: gcsfs, which takes a second to import, comes with the first request.
"""

import concurrent.futures
import json
import threading
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from octuefs.errors import (
    Conflict,
    IsADirectory,
    NotFound,
    StoreUnavailable,
)
from octuefs.stores.base import Kind, ObjectInfo, Skipped
from octuefs.stores.gcs_requests import LONGEST_NAME, SILENCE_SECONDS
from octuefs.stores.gcs_resource import FIELDS, problem_with_name
from octuefs.stores.gcs_writing import GcsWriting
from octuefs.stores.plain import PlainStore

_LIST_FIELDS = f"nextPageToken,prefixes,items({FIELDS})"
_PAGE_SIZE = 1000

_CHECK_PAUSES = (0.5, 1.0)
"""Seconds between the tries of `check`, which are few: somebody waits for the mount."""

Response = tuple[Mapping[str, str], bytes]


class GcsObject:
    """A ByteSource over one generation of one object. It holds nothing open, and reads plainly what is asked for."""

    def __init__(self, store: "GcsStore", info: ObjectInfo, generation: int) -> None:
        self._store = store
        self._info = info
        self._generation = generation

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the object.

        :raise Conflict: where this generation is gone
        """
        end = min(offset + size, self._info.size)
        if end <= offset:
            return b""
        return self._store.read_range(self._info, self._generation, offset, end)

    def version(self) -> Hashable:
        """Return the version that is pinned: it stands, or reading fails."""
        return self._info.version

    def identity(self) -> Hashable:
        """Return the inode and the generation: its bytes never change."""
        return (self._info.inode, self._generation)

    def info(self) -> ObjectInfo:
        """Return what was opened; nothing is asked."""
        return self._info

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


class GcsStore(GcsWriting, PlainStore):
    """An ObjectStore over a prefix in a bucket.

    Its parameters are those of `GcsRequests`; what changes the bucket stands in `GcsUploads` and `GcsWriting`.
    """

    def check(self) -> None:
        """Raise where the bucket does not exist, may not be listed, or cannot be reached; a prefix may be empty.

        It gives up after few tries, as somebody waits at a terminal.
        """
        filesystem = self._connected()
        request = getattr(type(filesystem)._request, "__wrapped__", None)  # one try, without gcsfs's retries
        bucket = self._place.bucket

        async def look() -> None:
            params = {"prefix": self._place.object_prefix, "maxResults": 1, "fields": _LIST_FIELDS}
            if request is None:
                await filesystem._call("GET", "b/{}/o", bucket, json_out=True, **params)
            else:
                json.loads((await request(filesystem, "GET", "b/{}/o", bucket, **params))[-1])

        for pause in (*_CHECK_PAUSES, None):
            self._gone = (None, 0.0)
            try:
                self._wait(look(), f"gs://{bucket}", seconds=SILENCE_SECONDS)
                return
            except NotFound as error:
                raise NotFound(f"there is no such bucket: gs://{bucket}; check its name") from error
            except StoreUnavailable:
                if pause is None:
                    raise
                threading.Event().wait(pause)

    def scan(self, folder: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo | Skipped]:
        """Yield the objects in `folder`, and below it where `recursive`, in the order of their names.

        An object whose name ends in "/" is a folder. Folders that exist only through the objects below them
        are yielded where not `recursive`, and left to the caller where it is. The next page is under way
        while this one is yielded.

        :raise NotFound: with the first item, where nothing stands in a `folder` other than the dataset's root
        """
        if folder and problem_with_name(folder):
            raise NotFound(f"{self._place.of(folder)}: no folder can have this name")
        prefix = self._place.object_prefix + (f"{folder}/" if folder else "")
        found = False
        page: concurrent.futures.Future[Any] | None = self._start_page(prefix, recursive, None)
        try:
            while page is not None:
                listing = self._result(page, self._place.of(folder))
                token = listing.get("nextPageToken")
                page = self._start_page(prefix, recursive, token) if token else None
                for resource in listing.get("items", ()):
                    found = True
                    if resource["name"] != prefix:
                        yield self._described(resource)
                for name in () if recursive else listing.get("prefixes", ()):
                    found = True
                    path = name[len(self._place.object_prefix) : -1]
                    problem = problem_with_name(path)
                    yield Skipped(path + "/", problem) if problem else self._describe(path, Kind.FOLDER, {})
        finally:
            if page is not None:
                page.cancel()
        if folder and not found:
            raise NotFound(f"{self._place.of(folder)}: no such folder")

    def stat(self, path: str) -> ObjectInfo:
        """Return the object at `path`, or the folder that stands there because of its marker or its content.

        The dataset's root is there whatever the bucket holds, with the time this store was made.
        """
        if not path:
            return self._describe("", Kind.FOLDER, {})._replace(mtime_ns=self._made_ns, ctime_ns=self._made_ns)
        name = self._place.object_prefix + path
        subject = self._place.of(path)
        if problem_with_name(path) or len(name.encode()) > LONGEST_NAME:
            raise NotFound(f"{subject}: no object can have this name")
        try:
            resource = self._json(subject, "b/{}/o/{}", self._place.bucket, name, fields=FIELDS)
        except NotFound:
            return self._stat_folder(path)
        return self._describe(path, Kind.FILE, resource)

    def _stat_folder(self, path: str) -> ObjectInfo:
        subject = self._place.of(path)
        prefix = f"{self._place.object_prefix}{path}/"
        listing = self._json(subject, "b/{}/o", self._place.bucket, prefix=prefix, maxResults=1, fields=_LIST_FIELDS)
        for resource in listing.get("items", ()):
            if resource["name"] == prefix:
                return self._describe(path, Kind.FOLDER, resource)
            return self._describe(path, Kind.FOLDER, {})
        raise NotFound(f"{subject}: no such object or folder")

    def open(self, info: ObjectInfo) -> GcsObject:
        """Return a source pinned to the generation of `info`; no request is made, so what is gone shows at reading."""
        subject = self._place.of(info.path)
        if info.kind is not Kind.FILE:
            raise IsADirectory(f"{subject}: is a folder")
        version = info.version
        if not isinstance(version, tuple) or not version or not isinstance(version[0], int):
            raise Conflict(f"{subject}: its generation is not known")
        return GcsObject(self, info, version[0])

    def read_range(self, info: ObjectInfo, generation: int, offset: int, end: int) -> bytes:
        """Return the stored bytes from `offset` to before `end` (at most the size) of one generation, all of them.

        :raise Conflict: where that generation is gone
        """
        subject = self._place.of(info.path)
        headers = {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "gzip"}
        try:
            reply, data = self._get_media(subject, info.path, generation, headers)
        except (NotFound, Conflict) as error:
            raise Conflict(f"{subject}: the version that was opened was replaced or removed since") from error
        served = reply.get("x-goog-generation")
        if served is not None and served != str(generation):
            raise Conflict(f"{subject}: the version that was opened was replaced since")
        if len(data) == info.size and "Content-Range" not in reply:  # the whole object: the range was ignored
            data = data[offset:end]
        if len(data) != end - offset:
            raise StoreUnavailable(f"{subject}: {len(data)} bytes arrived where {end - offset} were asked for")
        return data

    def _get_media(self, subject: str, path: str, generation: int, headers: Mapping[str, str]) -> Response:
        """GET content as it is stored: "Accept-Encoding: gzip" keeps Google from unpacking, auto_decompress us."""
        filesystem = self._connected()
        url = filesystem.base.removesuffix("/storage/v1/") + "/download/storage/v1/b/{}/o/{}"
        name = self._place.object_prefix + path
        request = filesystem._call(
            "GET", url, self._place.bucket, name, alt="media", generation=str(generation), headers=dict(headers)
        )
        response: Response = self._wait(request, subject)
        return response

    def _start_page(self, prefix: str, recursive: bool, token: str | None) -> "concurrent.futures.Future[Any]":
        return self._start(
            "b/{}/o",
            self._place.bucket,
            prefix=prefix,
            delimiter=None if recursive else "/",
            maxResults=_PAGE_SIZE,
            pageToken=token,
            fields=_LIST_FIELDS,
        )

    def _described(self, resource: Mapping[str, Any]) -> ObjectInfo | Skipped:
        """Describe a listed object, or say why it cannot be shown."""
        path = resource["name"][len(self._place.object_prefix) :]
        kind = Kind.FOLDER if path.endswith("/") else Kind.FILE
        place = path.removesuffix("/")
        problem = problem_with_name(place)
        return Skipped(path, problem) if problem else self._describe(place, kind, resource)
