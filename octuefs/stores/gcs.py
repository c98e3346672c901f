"""The store of a dataset in Google Cloud Storage, through gcsfs.

The index calls for facts: one recursive list with metadata, never a request per object. The content layer
calls for bytes: ranged reads, each pinned to the generation that was listed, of the bytes as they are
stored (no decompression). Any thread may call; the requests run on fsspec's event loop, on a thread of its
own. How gcsfs is set up stands in `gcs_connect`, what its exceptions mean in `gcs_failures`, what Google says
of an object in `gcs_resource`. Importing this module is cheap: gcsfs, which takes a second to import, comes
with the first request.
"""

import asyncio
import concurrent.futures
import json
import logging
import os
import threading
import time
from collections.abc import Coroutine, Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from octuefs.errors import (
    BadValue,
    Conflict,
    IsADirectory,
    NotALink,
    NotFound,
    StoreUnavailable,
    Unsupported,
)
from octuefs.model.paths import CloudLocation, Location
from octuefs.stores.base import Kind, LinkTarget, ObjectInfo, Skipped, Space
from octuefs.stores.gcs_connect import connect, endpoint_url, is_google
from octuefs.stores.gcs_failures import Unreachable, failure
from octuefs.stores.gcs_resource import FIELDS, describe, problem_with_name

_LOG = logging.getLogger(__name__)

_LIST_FIELDS = f"nextPageToken,prefixes,items({FIELDS})"
_PAGE_SIZE = 1000

_SILENCE_SECONDS = 30
"""How long a server may say nothing before a request counts as failed (and is tried again)."""
_REQUEST_SECONDS = 180
"""How long one request may take, all its tries included."""
_GONE_SECONDS = 3.0
"""How long after all tries to connect have failed further requests fail at once: the kernel asks twice."""
_CHECK_PAUSES = (0.5, 1.0)
"""Seconds between the tries of `check`, which are few: somebody waits for the mount."""

_LONGEST_NAME = 1024
"""Bytes in the name of an object."""

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

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


class GcsStore:
    """A Store over a prefix in a bucket.

    :param anonymous: send no credentials (public buckets)
    :param endpoint: the server instead of Google's; STORAGE_EMULATOR_HOST where None. Credentials are only
        ever sent to Google
    """

    def __init__(self, location: CloudLocation, *, anonymous: bool = False, endpoint: str | None = None) -> None:
        self.location: Location = location
        self._place = location
        self.endpoint = endpoint_url(endpoint)
        self._anonymous = anonymous or not is_google(self.endpoint)
        self._made_ns = time.time_ns()
        self._lock = threading.Lock()  # guards _filesystem and _process
        self._filesystem: Any = None
        self._process = 0
        self._gone: tuple[Exception | None, float] = (None, 0.0)
        """Why no connection could be had of late, and until when that counts."""

    @property
    def in_cloud(self) -> bool:
        """True: metadata stands with each object."""
        return True

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
                self._wait(look(), f"gs://{bucket}", seconds=_SILENCE_SECONDS)
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
                listing = self._result(page, self._place.of(folder), _REQUEST_SECONDS)
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
                    yield Skipped(path + "/", problem) if problem else describe(self._place, path, Kind.FOLDER, {})
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
            return replace(describe(self._place, "", Kind.FOLDER, {}), mtime_ns=self._made_ns, ctime_ns=self._made_ns)
        name = self._place.object_prefix + path
        subject = self._place.of(path)
        if problem_with_name(path) or len(name.encode()) > _LONGEST_NAME:
            raise NotFound(f"{subject}: no object can have this name")
        try:
            resource = self._json(subject, "b/{}/o/{}", self._place.bucket, name, fields=FIELDS)
        except NotFound:
            return self._stat_folder(path)
        return describe(self._place, path, Kind.FILE, resource)

    def _stat_folder(self, path: str) -> ObjectInfo:
        subject = self._place.of(path)
        prefix = f"{self._place.object_prefix}{path}/"
        listing = self._json(subject, "b/{}/o", self._place.bucket, prefix=prefix, maxResults=1, fields=_LIST_FIELDS)
        for resource in listing.get("items", ()):
            if resource["name"] == prefix:
                return describe(self._place, path, Kind.FOLDER, resource)
            return describe(self._place, path, Kind.FOLDER, {})
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

    def read_small(self, path: str, limit: int) -> bytes:
        """Return the whole content of an object of at most `limit` bytes.

        :raise BadValue: for a longer one, of which nothing is read
        """
        for last in (False, True):
            info = self.stat(path)
            if info.size > limit:
                raise BadValue(f"{self._place.of(path)}: {info.size} bytes; at most {limit} are read")
            try:
                return self.open(info).read(0, info.size)
            except Conflict:  # replaced in between: the new one will do
                if last:
                    raise
        raise AssertionError

    def read_link(self, path: str) -> str:
        """Refuse: a bucket has no symbolic links."""
        raise NotALink(f"{self._place.of(path)}: not a symbolic link")

    def follow_link(self, path: str) -> LinkTarget:
        """Refuse: a bucket has no symbolic links."""
        raise NotALink(f"{self._place.of(path)}: not a symbolic link")

    def get_xattr(self, path: str, name: str) -> bytes:
        """Refuse: an object has no attributes but the metadata of octue."""
        raise Unsupported(f"{self._place.of(path)}: objects have no attributes but octue's own; {name} is not kept")

    def list_xattrs(self, path: str) -> list[str]:
        """Return none: an object has no foreign attributes."""
        return []

    def space(self) -> Space:
        """Return a petabyte and 2**32 objects, all free: a bucket has no limit, and programs want a number."""
        return Space(total_bytes=1 << 50, free_bytes=1 << 50, total_files=1 << 32, free_files=1 << 32)

    def reopen_if_replaced(self) -> bool:
        """Do nothing: every request names the bucket anew."""
        return False

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        with self._lock:
            filesystem, self._filesystem = self._filesystem, None
        if filesystem is None or self._process != os.getpid() or filesystem.session is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(filesystem.session.close(), filesystem.loop).result(5)
        except (concurrent.futures.TimeoutError, RuntimeError):
            _LOG.debug("the connections to %s did not close in time", self.endpoint or "Google")

    # ---- requests

    def _connected(self) -> Any:
        """Return the gcsfs file system of this process (a fork takes neither threads nor connections along)."""
        with self._lock:
            if self._filesystem is None or self._process != os.getpid():
                self._filesystem = connect(
                    f"gs://{self._place.bucket}", self.endpoint, anonymous=self._anonymous, silence=_SILENCE_SECONDS
                )
                self._process = os.getpid()
            return self._filesystem

    def _start_page(self, prefix: str, recursive: bool, token: str | None) -> "concurrent.futures.Future[Any]":
        filesystem = self._connected()
        request = filesystem._call(
            "GET",
            "b/{}/o",
            self._place.bucket,
            prefix=prefix,
            delimiter=None if recursive else "/",
            maxResults=_PAGE_SIZE,
            pageToken=token,
            fields=_LIST_FIELDS,
            json_out=True,
        )
        return asyncio.run_coroutine_threadsafe(request, filesystem.loop)

    def _json(self, subject: str, path: str, *names: str, **params: Any) -> Any:
        return self._wait(self._connected()._call("GET", path, *names, json_out=True, **params), subject)

    def _wait(self, request: Coroutine[Any, Any, Any], subject: str, *, seconds: float = _REQUEST_SECONDS) -> Any:
        return self._result(asyncio.run_coroutine_threadsafe(request, self._connected().loop), subject, seconds)

    def _result(self, future: "concurrent.futures.Future[Any]", subject: str, seconds: float) -> Any:
        """Wait for a request and return its result; every failure leaves as ours."""
        try:
            gone, until = self._gone
            if gone is not None and time.monotonic() < until:
                raise gone
            return future.result(seconds)
        except Exception as error:
            future.cancel()
            failed = failure(error, subject, self.endpoint)
            if isinstance(failed, Unreachable) and error is not self._gone[0]:
                self._gone = (error, time.monotonic() + _GONE_SECONDS)
            raise failed from error

    def _described(self, resource: Mapping[str, Any]) -> ObjectInfo | Skipped:
        """Describe a listed object, or say why it cannot be shown."""
        path = resource["name"][len(self._place.object_prefix) :]
        kind = Kind.FOLDER if path.endswith("/") else Kind.FILE
        place = path.removesuffix("/")
        problem = problem_with_name(place)
        return Skipped(path, problem) if problem else describe(self._place, place, kind, resource)
