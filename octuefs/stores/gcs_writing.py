"""What changes a bucket besides uploads: joining, copying, patching and removing objects, markers and folders.

The cloud writer calls, with a `Precondition` each time; an `ObjectInfo` of what now stands there leaves.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from octuefs.errors import (
    AlreadyExists,
    Conflict,
    NotFound,
    OctuefsError,
    PermissionRefused,
    StoreUnavailable,
    TimedOut,
)
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.gcs_requests import WORK_SECONDS, Request
from octuefs.stores.gcs_resource import FIELDS
from octuefs.stores.gcs_uploads import GcsUploads, conditions, resource_of
from octuefs.stores.writing import BucketFacts, ObjectProperties, Precondition

_JSON = {"Content-Type": "application/json; charset=UTF-8"}
_MARKER = ObjectProperties(fixed={"contentType": "application/x-directory"})
_BUCKET_FIELDS = "hierarchicalNamespace,retentionPolicy,defaultEventBasedHold,storageClass,autoclass"
_OBJECT = "b/{}/o/{}"

_RENAME_SECONDS = 600.0
"""How long the server may take to move a folder."""
_LOOK_SECONDS = (0.1, 5.0)
"""How long to wait between looks at whether it is done: at first, and at most."""

_OPERATION_FAILURES: Mapping[int, type[OctuefsError]] = {
    5: NotFound,
    6: AlreadyExists,
    7: PermissionRefused,
    9: Conflict,
    10: Conflict,
}
"""What the codes of a failed operation (google.rpc.Code) mean."""


class GcsWriting(GcsUploads):
    """The part of an ObjectStore that changes what is there."""

    _facts: BucketFacts | None = None

    def bucket_facts(self) -> BucketFacts:
        """Say what the bucket can do; asked once and remembered.

        Parts are not joined where each would have to be kept (retention, holds) or paid for beyond its life
        (storage classes with a least duration), nor where the bucket may not be looked at.
        """
        if self._facts is None:
            subject = f"gs://{self._place.bucket}"
            try:
                bucket = self._json(subject, "b/{}", self._place.bucket, fields=_BUCKET_FIELDS)
            except PermissionRefused:  # storage.buckets.get is not part of the usual roles
                self._facts = BucketFacts(composes=False, has_folders=False)
                return self._facts
            self._facts = BucketFacts(
                composes=not bucket.get("retentionPolicy")
                and not bucket.get("defaultEventBasedHold")
                and not (bucket.get("autoclass") or {}).get("enabled")
                and bucket.get("storageClass", "STANDARD") == "STANDARD",
                has_folders=bool((bucket.get("hierarchicalNamespace") or {}).get("enabled")),
            )
        return self._facts

    def compose(
        self,
        path: str,
        sources: Sequence[tuple[str, int]],
        properties: ObjectProperties,
        condition: Precondition,
    ) -> ObjectInfo:
        """Join objects, (path, generation) each and at most 32, into one on the server.

        :raise NotFound: where one of them is gone
        :raise Conflict: where one has another generation, or the target's precondition does not hold
        """
        destination = resource_of(self._name(path), properties)
        del destination["name"]  # the URL has it
        parts = [
            {
                "name": self._name(source),
                "generation": str(generation),
                "objectPreconditions": {"ifGenerationMatch": str(generation)},
            }
            for source, generation in sources
        ]
        resource = self._change(
            "POST",
            f"{_OBJECT}/compose",
            self._place.of(path),
            "storage.objects.create, storage.objects.get (and storage.objects.delete to replace an object)",
            self._place.bucket,
            self._name(path),
            params=conditions(condition),
            content={"sourceObjects": parts, "destination": destination},
        )
        return self._describe(path, Kind.FILE, resource)

    def rewrite(self, old: str, generation: int, new: str, condition: Precondition) -> ObjectInfo:
        """Copy an object on the server with all that is stored along; loops until the server is done.

        :raise NotFound: where that generation of the source is gone
        :raise Conflict: where the target's precondition does not hold
        """
        bucket = self._place.bucket
        source = self._name(old)
        subject = f"{self._place.of(old)} to {self._place.of(new)}"
        params = {
            "sourceGeneration": str(generation),
            "ifSourceGenerationMatch": str(generation),
            "fields": f"done,rewriteToken,resource({FIELDS})",
            **conditions(condition),
        }
        try:
            while True:
                answer = self._change(
                    "POST",
                    _OBJECT + "/rewriteTo/b/{}/o/{}",
                    subject,
                    "storage.objects.get and storage.objects.create (and storage.objects.delete to replace an object)",
                    bucket,
                    source,
                    bucket,
                    self._name(new),
                    params=params,
                )
                if answer.get("done"):
                    return self._describe(new, Kind.FILE, answer["resource"])
                params["rewriteToken"] = answer["rewriteToken"]
        except KeyError as error:
            raise StoreUnavailable(f"{subject}: the server neither copied it nor said how to go on") from error
        except Conflict as error:  # of the target, or of the source
            if self._generation(old, source) != generation:
                raise NotFound(f"{self._place.of(old)}: this version is gone") from error
            raise

    def _generation(self, path: str, name: str) -> int:
        """Return the generation of an object now, 0 where there is none."""
        try:
            resource = self._json(self._place.of(path), _OBJECT, self._place.bucket, name, fields="generation")
        except NotFound:
            return 0
        return int(resource.get("generation", 0))

    def patch(self, path: str, custom_metadata: Mapping[str, str | None], condition: Precondition) -> ObjectInfo:
        """Set some keys of the custom metadata and remove those that are None; the others stay."""
        resource = self._change(
            "PATCH",
            _OBJECT,
            self._place.of(path),
            "storage.objects.update",
            self._place.bucket,
            self._name(path),
            params={"fields": FIELDS, **conditions(condition)},
            content={"metadata": dict(custom_metadata)},
        )
        if "timeCreated" not in resource:  # fake-gcs-server answers a patch in words of its own
            resource = self._json(self._place.of(path), _OBJECT, self._place.bucket, self._name(path), fields=FIELDS)
        return self._describe(path, Kind.FILE, resource)

    def delete(self, path: str, condition: Precondition) -> None:
        """Remove an object.

        :raise NotFound: where there is none
        """
        self._delete(self._name(path), self._place.of(path), condition)

    def _delete(self, name: str, subject: str, condition: Precondition) -> None:
        self._ask(
            Request(
                "DELETE",
                _OBJECT,
                subject,
                "storage.objects.delete",
                names=(self._place.bucket, name),
                params=conditions(condition),
            )
        )

    def make_marker(self, folder: str) -> ObjectInfo:
        """Store the empty object `folder/` that makes an empty folder; one that is there already is returned."""
        subject = self._place.of(folder)
        name = self._name(folder) + "/"
        while True:
            try:
                resource = self._upload(name, subject, lambda offset, size: b"", 0, 0, _MARKER, Precondition(0))
            except Conflict:
                try:
                    resource = self._json(subject, _OBJECT, self._place.bucket, name, fields=FIELDS)
                except NotFound:  # it was there and went: ours is wanted after all
                    continue
            return self._describe(folder, Kind.FOLDER, resource)

    def delete_marker(self, folder: str) -> None:
        """Remove that object; none there is no failure."""
        try:
            self._delete(self._name(folder) + "/", self._place.of(folder), Precondition())
        except NotFound:
            return

    def rename_folder(self, old: str, new: str) -> None:
        """Move a folder in one operation of the server (where `bucket_facts().has_folders`).

        :raise NotFound: where it is not there, or `new` has no parent folder
        :raise AlreadyExists: where `new` is there
        """
        subject = f"{self._place.of(old)} to {self._place.of(new)}"
        bucket = self._place.bucket
        operation = self._change(
            "POST",
            "b/{}/folders/{}/renameTo/folders/{}",
            subject,
            "storage.folders.rename",
            bucket,
            self._name(old) + "/",
            self._name(new) + "/",
        )
        end = time.monotonic() + _RENAME_SECONDS
        pause, longest = _LOOK_SECONDS
        while not operation.get("done"):
            if time.monotonic() > end:
                raise TimedOut(f"{subject}: the server goes on moving the folder; look again later")
            threading.Event().wait(pause)
            pause = min(pause * 2, longest)
            number = str(operation.get("name", "")).rpartition("/")[2]
            operation = self._json(subject, "b/{}/operations/{}", bucket, number)
        code = (operation.get("error") or {}).get("code")
        if code:
            failure = _OPERATION_FAILURES.get(code, StoreUnavailable)
            raise failure(f"{subject}: the folder was not moved (the server's code is {code})")

    def _change(
        self,
        method: str,
        url: str,
        subject: str,
        needs: str,
        *names: str,
        params: Mapping[str, str] | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send a request whose body and answer are JSON, and that may cost the server some work."""
        return self._ask_json(
            Request(
                method,
                url,
                subject,
                needs,
                names=names,
                params=params or {},
                headers={} if content is None else _JSON,
                data=b"" if content is None else json.dumps(content).encode(),
                silence=WORK_SECONDS,
            )
        )
