"""The store of a dataset in Google Cloud Storage, through gcsfs.

The index calls for facts: one recursive list with metadata, never a request per object, which stands in `gcs_listing`.
The content layer calls for bytes, which stand in `gcs_bytes`, the writers for changes, which stand in `gcs_uploads` and
`gcs_writing`. Any thread may call. How requests are sent stands in `gcs_requests`, how gcsfs is set up in
`gcs_connect`, what its exceptions mean in `gcs_failures`, what Google says of an object in `gcs_resource`. Importing
this module is cheap: gcsfs, which takes a second to import, comes with the first request.
"""

import json
import threading

from octuefs.errors import (
    Conflict,
    IsADirectory,
    NotFound,
    StoreUnavailable,
)
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.gcs_bytes import GcsBytes, GcsObject
from octuefs.stores.gcs_connect import single_request
from octuefs.stores.gcs_listing import LIST_FIELDS, GcsListing
from octuefs.stores.gcs_requests import LONGEST_NAME, SILENCE_SECONDS
from octuefs.stores.gcs_resource import FIELDS, problem_with_name
from octuefs.stores.gcs_writing import GcsWriting
from octuefs.stores.plain import PlainStore
from octuefs.stores.traffic import Ticket

_CHECK_PAUSES = (0.5, 1.0)
"""Seconds between the tries of `check`, which are few: somebody waits for the mount."""


class GcsStore(GcsListing, GcsWriting, GcsBytes, PlainStore):
    """An ObjectStore over a prefix in a bucket.

    Its parameters are those of `GcsRequests`; what lists stands in `GcsListing`, what changes the bucket in
    `GcsUploads` and `GcsWriting`.
    """

    def check(self) -> None:
        """Raise where the bucket does not exist, may not be listed, or cannot be reached; a prefix may be empty.

        It gives up after few tries, as somebody waits at a terminal.
        """
        request = single_request(self._connected())
        bucket = self._place.bucket

        async def look(_: Ticket) -> None:
            params = {"prefix": self._place.object_prefix, "maxResults": 1, "fields": LIST_FIELDS}
            json.loads((await request("GET", "b/{}/o", bucket, **params))[-1])

        for pause in (*_CHECK_PAUSES, None):
            self._gone = (None, 0.0)
            try:
                self._wait(look, f"gs://{bucket}", "stat", seconds=SILENCE_SECONDS)
                return
            except NotFound as error:
                raise NotFound(f"there is no such bucket: gs://{bucket}; check its name") from error
            except StoreUnavailable:
                if pause is None:
                    raise
                threading.Event().wait(pause)

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
        listing = self._json(subject, "b/{}/o", self._place.bucket, prefix=prefix, maxResults=1, fields=LIST_FIELDS)
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
