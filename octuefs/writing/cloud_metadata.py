"""Changes of what a bucket keeps along with an object: the metadata of datafiles, modes and times.

Any thread may call. A change is one PATCH of only what differs, on condition that the version that was seen still
stands. A 412 is not yet a conflict: where just the metadata changed meanwhile, ours is made to theirs field by field.
"""

import random
import stat
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import Folder
from octuefs.errors import Conflict, NotFound
from octuefs.model.changes import MetadataChange, difference, first_record, merge
from octuefs.model.metadata import DatafileMetadata, custom_metadata_patch
from octuefs.report import Report
from octuefs.stores.base import ObjectInfo
from octuefs.stores.writing import ObjectStore, Times
from octuefs.writing.cloud_facts import CloudFacts, condition_of, generation_of
from octuefs.writing.cloudfiles import CloudFiles
from octuefs.writing.ordering import PathLocks
from octuefs.writing.properties import (
    MODE_KEY,
    checked,
    metadata_in,
    patched,
    permissions,
    stored_mtime,
    with_attributes,
)

ATTEMPTS = 50
"""How often something is tried that other writers come before."""
_STEP_ASIDE_SECONDS = 0.02
"""How long, by chance, who was overtaken waits at most, so that two who change one file at once do not go on so."""

_PREFIX = "octue__"
_UNPREFIXED = ("id", "timestamp", "tags", "labels")

Completion = Callable[[DatafileMetadata, DatafileMetadata], DatafileMetadata]
"""`complete(new, stored)` returns what to store where `new` is meant and `stored` stands."""


def without_metadata(custom: Mapping[str, str]) -> dict[str, str | None]:
    """Return the patch that removes all of Octue's metadata; the keys of others stay."""
    return dict.fromkeys(key for key in custom if key.startswith(_PREFIX) or key in _UNPREFIXED)


class CloudMetadata:
    """Changes the metadata and attributes of one cloud dataset's objects."""

    def __init__(
        self, store: ObjectStore, facts: CloudFacts, files: CloudFiles, paths: PathLocks, report: Report
    ) -> None:
        self._store = store
        self._facts = facts
        self._files = files
        self._paths = paths
        self._report = report

    # --- metadata

    def completed(
        self,
        path: str,
        new: DatafileMetadata,
        stored: DatafileMetadata = NO_METADATA,
        *,
        besides: Collection[str] = (),
    ) -> DatafileMetadata:
        """Return what to store for `new`: a first record gets the file's ID, but none of `besides`, and our version."""
        if new == stored:
            return new
        return first_record(new, self._facts.index.new_id(path, self._facts.location, besides))

    def describe(self, path: str, change: MetadataChange) -> None:
        """Change the metadata of a datafile.

        :raise Conflict: where another changed the same field, or the content
        :raise TooBig: where the object cannot keep so much; nothing is changed
        """
        if not change:
            return
        with self._paths.hold(path):
            if not self._files.change_metadata(path, change):
                datafile = self._facts.datafile(path)
                self._store_change(datafile, change, lambda new, stored: self.completed(path, new, stored))

    def replace_record(self, path: str, record: DatafileMetadata | None, besides: Collection[str] = ()) -> None:
        """Let `record` be all the metadata of a datafile, None for none; an ID that is stored stays.

        :param besides: IDs that a first record does not get
        :raise Conflict: where another changed the metadata, or the content, meanwhile
        """
        with self._paths.hold(path):
            datafile = self._facts.datafile(path)
            pending = self._files.metadata(path)
            present = datafile.metadata if pending is None else pending
            wanted = record or NO_METADATA
            if record is not None and present.id and present.id != record.id:
                if record.id:
                    self._report.failure(f"{path}: its stored ID {present.id} is kept; {record.id} was written for it")
                wanted = replace(wanted, id=present.id)
            change = difference(present, wanted)
            if (change or pending is not None) and self._files.change_metadata(path, change):
                return
            unread = wanted.unread

            def complete(new: DatafileMetadata, stored: DatafileMetadata) -> DatafileMetadata:
                return self.completed(path, replace(new, unread=unread), stored, besides=besides)

            self._store_change(datafile, change, complete, keeps=record is not None)

    def _store_change(
        self, datafile: Datafile, change: MetadataChange, complete: Completion, *, keeps: bool = True
    ) -> None:
        """Patch an object until it is done or in vain; where it `keeps` nothing, unknown keys go too."""
        path, info, base = datafile.path, datafile.info, datafile.metadata
        self._files.settle(path)
        for _ in range(ATTEMPTS):
            theirs = metadata_in(info.custom_metadata or {})
            new = change.apply(base) if info is datafile.info else merge(base, change, theirs)
            custom = info.custom_metadata or {}
            if not (keeps or new.labels or new.tags or new.timestamp):
                patch = without_metadata(custom)
            else:  # what another set meanwhile stays, with an ID, even where all was to go
                patch = custom_metadata_patch(custom, theirs, complete(new, theirs))
            if not patch:
                return
            present = self._patch(path, patch, info, "described")
            if present is None:
                return
            info = present
        raise Conflict(f"{datafile.path}: its metadata keeps changing; nothing was changed, try again")

    def _patch(self, path: str, patch: Mapping[str, str | None], info: ObjectInfo, doing: str) -> ObjectInfo | None:
        """Patch an object that is as `info` says; return what it is instead where just its metadata are others.

        :raise Conflict: where it has another content by now
        """
        checked(patched(info.custom_metadata or {}, patch), path)
        try:
            self._stored(self._store.patch(path, patch, condition_of(info)))
            return None
        except NotFound:
            self._facts.publish(removed=[path])
            raise
        except Conflict:
            present = self._facts.look(path)
            if present is None or generation_of(present) != generation_of(info):
                raise self._facts.conflict(path, doing) from None
        if has_all(present, patch):
            self._stored(present)  # our own doing, its answer was lost
            return None
        time.sleep(random.uniform(0, _STEP_ASIDE_SECONDS))
        return present

    def _stored(self, info: ObjectInfo) -> None:
        self._files.replaced(info.path, info)
        self._facts.publish(info)

    # --- attributes

    def set_mode(self, path: str, mode: int) -> None:
        """chmod(2)."""
        with self._paths.hold(path):
            if not self._files.set_attributes(path, mode=mode & 0o7777):
                self._set_attribute(path, with_attributes({}, mode=mode))

    def set_times(self, path: str, times: Times) -> None:
        """utimensat(2); a bucket keeps no times of access."""
        mtime_ns = times[1]
        with self._paths.hold(path):
            if mtime_ns is None:
                self._facts.entry(path)
            elif not self._files.set_attributes(path, mtime_ns=mtime_ns):
                self._set_attribute(path, with_attributes({}, mtime_ns=mtime_ns))

    def _set_attribute(self, path: str, patch: Mapping[str, str]) -> None:
        """Set what stands besides the metadata: nothing but another content is in its way."""
        entry = self._facts.entry(path)
        if isinstance(entry, Folder):
            self._set_folder_attribute(entry, patch)
            return
        info = entry.info
        self._files.settle(path)
        for _ in range(ATTEMPTS):
            present = self._patch(path, patch, info, "changed")
            if present is None:
                return
            info = present
        raise Conflict(f"{path}: its metadata keeps changing; nothing was changed, try again")

    def _set_folder_attribute(self, folder: Folder, patch: Mapping[str, str]) -> None:
        if not folder.path:
            self._set_root_attribute(folder, patch)
            return
        known = folder.info if folder.info is not None and generation_of(folder.info) else None
        for _ in range(ATTEMPTS):
            if known is None:
                known = self._store.make_marker(folder.path)  # or what stands there by now
            try:
                done = self._store.patch(f"{folder.path}/", patch, condition_of(known))
            except (NotFound, Conflict):
                known = None
                continue
            self._facts.publish(_as_folder(known, done))
            return
        raise Conflict(f"{folder.path}: the folder keeps changing; nothing was changed, try again")

    def _set_root_attribute(self, folder: Folder, patch: Mapping[str, str]) -> None:
        """Change how the dataset's own folder shows while it is mounted: no object of the bucket could keep it.

        So programs that copy a whole folder, its permissions included, end well.
        """
        root = folder.info or self._store.stat("")
        mtime_ns = stored_mtime(patch)
        permission_bits = permissions(patch.get(MODE_KEY), stat.S_IMODE(root.mode))
        self._facts.publish(
            root._replace(
                mode=stat.S_IFMT(root.mode) | permission_bits,
                mtime_ns=root.mtime_ns if mtime_ns is None else mtime_ns,
            )
        )


def _as_folder(folder: ObjectInfo, marker: ObjectInfo) -> ObjectInfo:
    """Return what is to be said of a folder whose marker, an object, was described."""
    mode = folder.mode
    if MODE_KEY in (marker.custom_metadata or {}):
        mode = stat.S_IFMT(mode) | stat.S_IMODE(marker.mode)
    return folder._replace(
        mode=mode,
        mtime_ns=marker.mtime_ns,
        ctime_ns=marker.ctime_ns,
        version=marker.version,
        custom_metadata=marker.custom_metadata,
    )


def has_all(info: ObjectInfo, patch: Mapping[str, str | None]) -> bool:
    """Say whether an object's custom metadata is as a patch would make it."""
    custom = info.custom_metadata or {}
    return all(custom.get(key) == value for key, value in patch.items())
