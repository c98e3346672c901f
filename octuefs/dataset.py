"""One dataset: keeps its index true to its store.

Who calls: `mount.py` loads and closes; the tree asks for facts, hashes and bytes; the watcher says which
paths changed. All changes of the index are made by one thread (the *keeper*), in the order they are asked
for; callers wait for its futures and hold no lock meanwhile.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from octuefs.content.hashing import Hasher
from octuefs.content.reader import SequentialReader
from octuefs.datafile import NO_METADATA, Datafile
from octuefs.errors import BadValue, Conflict, NotFound, OctuefsError
from octuefs.index import (
    Change,
    DatafileSeen,
    Folder,
    FolderGone,
    FolderSeen,
    Index,
    Other,
    OtherSeen,
    Query,
    Removed,
)
from octuefs.model.hashes import hash_of_set
from octuefs.model.metadata import (
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    dataset_metadata_hash,
    decode_custom_metadata,
    decode_dataset_record,
    decode_octue,
)
from octuefs.model.paths import CloudLocation, derived_id, join, name_of, parent_of
from octuefs.report import Report
from octuefs.stores.base import ByteSource, Kind, ObjectInfo, Skipped, Store

logger = logging.getLogger(__name__)

METADATA_NAME = ".octue"
SIGNED_METADATA_NAME = ".signed_metadata_files"
LARGEST_METADATA_FILE = 1 << 30
_ATTEMPTS = 5
_RETRY_SECONDS = 5.0
"""How soon a refresh that failed is tried again."""
_LONGEST_WAIT_SECONDS = 20.0
"""How long an answer waits for a store that is slow to be listed, before it is given from the old facts."""
_LEAST_TTL = 1.0
"""Look-ups and listings are not asked of the store more often than this, whatever the TTL (seconds)."""

Queries = tuple[Query, ...]


class Dataset:
    """A dataset in a store, with its index, its hashes and its own metadata."""

    def __init__(
        self, store: Store, report: Report, hasher: Hasher, index: Index, *, recursive: bool, metadata_ttl: float
    ) -> None:
        """`metadata_ttl` is in seconds and counts in the cloud only; a disk is watched."""
        self.store = store
        self.location = store.location
        self.in_cloud = store.in_cloud
        self.report = report
        self.index = index
        self.hasher = hasher
        self.recursive = recursive
        self.metadata_ttl = metadata_ttl
        self.metadata: DatasetMetadata | None = None
        """What is stored of the dataset itself, None where nothing is."""
        self._keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keeper")
        self._refresh_lock = threading.Lock()
        self._refreshing: Future[None] | None = None
        self._refreshed_at = 0.0
        self._failed_at: float | None = None
        """When the latest refresh failed, None where it did not."""
        self._links: set[str] = set()
        self._root_info = store.stat("")

    # --- facts of the dataset itself

    @property
    def name(self) -> str:
        """The stored name, else the folder's."""
        stored = self.metadata.name if self.metadata else None
        return stored or self.location.name

    @property
    def id(self) -> str:
        """The stored ID, else a stable one made from the location."""
        stored = self.metadata.id if self.metadata else None
        return stored or derived_id(str(self.location))

    @property
    def metadata_hash(self) -> str:
        """The hash of the dataset's own metadata."""
        return dataset_metadata_hash(self.metadata or DatasetMetadata(), self.name)

    @property
    def root_info(self) -> ObjectInfo:
        """What the store said of the root folder when it was last read: its owner and permissions."""
        return self._root_info

    # --- keeping the index true

    def load(self, progress: Callable[[int], None] | None = None) -> None:
        """Fill the index from the store; `progress` is told how many files have been seen.

        :raise OctuefsError: where the store cannot be listed
        """
        self._keeper.submit(self._synchronise, "", progress).result()
        self._refreshed_at = time.monotonic()

    def refresh(self) -> "Future[None]":
        """Read the whole store again; callers at the same time share one reading."""
        with self._refresh_lock:
            if self._refreshing is None or self._refreshing.done():
                self._refreshing = self._keeper.submit(self._refresh)
            return self._refreshing

    def _refresh(self) -> None:
        started = time.monotonic()
        try:
            self._synchronise("", None)
        except OctuefsError as error:
            self.report.failure(f"could not re-read {self.location}: {error}")
            self._failed_at = time.monotonic()
            raise
        self._refreshed_at = started
        self._failed_at = None

    def expire(self) -> None:
        """Make sure that what is known of a cloud dataset is no older than its TTL.

        From half of the TTL on the store is re-read in the background, so that those who keep asking never
        wait. A store that does not answer leaves the old facts standing, and nobody waits for it twice; the
        report says so.
        """
        if not self.in_cloud:
            return
        ttl = max(self.metadata_ttl, _LEAST_TTL)
        age = time.monotonic() - self._refreshed_at
        if age < ttl / 2:
            return
        if self._failed_at is not None:
            if time.monotonic() - self._failed_at >= _RETRY_SECONDS:
                self.refresh()
            return
        refreshing = self.refresh()
        if age >= ttl:
            try:
                refreshing.result(_LONGEST_WAIT_SECONDS)
            except OctuefsError:
                logger.debug("serving what was known of %s", self.location)
            except TimeoutError:
                self._failed_at = time.monotonic()

    def changed(self, paths: Iterable[str]) -> "Future[None]":
        """Look at single paths of the store again and publish what they are now."""
        return self._keeper.submit(self._look_at, set(paths))

    def notice(self, path: str, version: object) -> None:
        """Have a path looked at again, in the background, if its known version is not `version`."""
        entry = self.index.entry(path)
        if isinstance(entry, Datafile | Other) and entry.info.version != version:
            self.changed([path])

    def find_unseen(self, path: str) -> bool:
        """Say whether the store has something at a path that the index does not know, and take it in.

        On a disk this closes the moment between a file's creation and the watcher's word of it. A cloud
        dataset is asked only where every open asks (a TTL of 0).
        """
        if (self.in_cloud and self.metadata_ttl > 0) or (not self.recursive and "/" in path):
            return False
        try:
            info = self.store.stat(path)
        except OctuefsError:
            return False
        if info.kind is Kind.FOLDER and not self.recursive:
            return False
        self.changed([path]).result()
        return True

    def close(self) -> None:
        """Stop the keeper and the hashers."""
        self._keeper.shutdown(wait=False, cancel_futures=True)
        self.hasher.close()

    def _look_at(self, paths: set[str]) -> None:
        changes: list[Change] = []
        documents: dict[str, OctueDocument] = {}
        for path in sorted(paths):
            if not self.recursive and "/" in path:
                continue
            try:
                if name_of(path) == METADATA_NAME and not self.in_cloud:
                    self._synchronise(parent_of(path), None, only_folder=True)
                else:
                    changes.extend(self._change_at(path, documents))
            except NotFound:
                logger.debug("%s went away while it was looked at; the word of that is on its way", path)
            except OctuefsError as error:
                self.report.set_problems(path, [str(error)])
            except Exception:
                logger.exception("could not look at %s", path)
        if changes:
            self.index.publish(changes)
        # Only now: these ask the index, and what was just looked at may be a link itself.
        if changes := list(self._changes_of_links()):
            self.index.publish(changes)

    def _change_at(self, path: str, documents: dict[str, OctueDocument]) -> Iterator[Change]:
        try:
            info = self.store.stat(path)
        except NotFound:
            if self.index.entry(path) is not None:
                yield Removed(path)
            self.report.set_problems(path, [])
            return
        except OctuefsError as error:
            self.report.set_problems(path, [str(error)])
            return
        known = self.index.entry(path)
        if info.kind is Kind.FOLDER:
            if not self.recursive:
                return
            if not isinstance(known, Folder) or known.info is None or known.info.inode != info.inode:
                self._synchronise(path, None)
            else:
                yield FolderSeen(info)
            return
        if isinstance(known, Folder) and not self.in_cloud:
            yield Removed(path)
        folder = parent_of(path)
        if isinstance(known, Datafile) and known.info.version == info.version and info.kind is not Kind.SYMLINK:
            return
        if self.in_cloud:
            yield self._classify(info, None)
        elif isinstance(known, Datafile):
            yield self._classify(info, known.metadata)
        else:
            if folder not in documents:
                documents[folder] = self._read_document(folder)
            yield self._classify(info, documents[folder].datafiles.get(name_of(path)))

    def _changes_of_links(self) -> Iterator[Change]:
        """Look again at where symbolic links lead: their targets may have changed without them."""
        for path in sorted(self._links):
            known = self.index.entry(path)
            if not isinstance(known, Datafile) or known.info.kind is not Kind.SYMLINK:
                self._links.discard(path)
                continue
            change = self._classify(known.info, known.metadata)
            present = change.datafile.content if isinstance(change, DatafileSeen) else None
            if (present and present.version) != (known.content and known.content.version):
                yield change

    def _synchronise(self, top: str, progress: Callable[[int], None] | None, *, only_folder: bool = False) -> None:
        """Publish the differences between the store, in and below `top`, and the index."""
        recursive = self.recursive and not only_folder
        folders: dict[str, ObjectInfo] = {}
        files: dict[str, dict[str, ObjectInfo]] = {top: {}}
        skipped: dict[str, str] = {}
        count = 0
        for item in self.store.scan(top, recursive=recursive):
            if isinstance(item, Skipped):
                skipped[item.name] = item.reason
            elif item.kind is Kind.FOLDER:
                if self.recursive:
                    folders[item.path] = item
            else:
                files.setdefault(parent_of(item.path), {})[name_of(item.path)] = item
                count += 1
                if progress is not None and count % 500 == 0:
                    progress(count)
        changes = list(self._removals(top, folders, files, recursive=recursive))
        changes.extend(self._folder_changes(top, folders))
        for folder, infos in files.items():
            changes.extend(self._file_changes(folder, infos))
        if changes:
            self.index.publish(changes)
        if not top and recursive == self.recursive:
            self.report.replace_skipped(skipped)
        else:
            for name, reason in skipped.items():
                self.report.skip(name, reason)

    def _removals(
        self, top: str, folders: dict[str, ObjectInfo], files: dict[str, dict[str, ObjectInfo]], *, recursive: bool
    ) -> Iterator[Change]:
        start = self.index.folder(top)
        pending = [start] if start else []
        while pending:
            folder = pending.pop()
            present = files.get(folder.path, {})
            for name, entry in folder.children.items():
                path = join(folder.path, name)
                if not isinstance(entry, Folder):
                    if name not in present:
                        yield Removed(path)
                        self.report.set_problems(path, [])
                elif path in folders or self.in_cloud:
                    if entry.info is not None and path not in folders:
                        yield FolderGone(path)
                    if recursive:
                        pending.append(entry)
                else:
                    yield Removed(path)
        for path in list(self.index.shadowed):
            if name_of(path) not in files.get(parent_of(path), {}):
                yield Removed(path)

    def _folder_changes(self, top: str, folders: dict[str, ObjectInfo]) -> Iterator[Change]:
        if top and not self.in_cloud and top not in folders:
            folders = {top: self.store.stat(top), **folders}
        for path, info in folders.items():
            known = self.index.entry(path)
            if not isinstance(known, Folder) or known.info is None or known.info.version != info.version:
                yield FolderSeen(info)

    def _file_changes(self, folder: str, infos: dict[str, ObjectInfo]) -> Iterator[Change]:
        stale = self._metadata_file_changed(folder, infos.get(METADATA_NAME))
        if stale and not folder:
            self._read_dataset_record(infos.get(METADATA_NAME))
        document: OctueDocument | None = None
        for name, info in infos.items():
            path = info.path
            known = self.index.shadowed.get(path) or self.index.entry(path)
            same = isinstance(known, Datafile | Other) and known.info.version == info.version
            may_differ = (stale and not self.in_cloud) or path in self._links
            if same and (isinstance(known, Other) or not may_differ):
                continue
            if self.in_cloud:
                yield self._classify(info, None)
                continue
            if document is None:
                document = self._read_document(folder) if METADATA_NAME in infos else OctueDocument()
            yield self._classify(info, document.datafiles.get(name))

    def _metadata_file_changed(self, folder: str, info: ObjectInfo | None) -> bool:
        known = self.index.entry(join(folder, METADATA_NAME))
        known_version = known.info.version if isinstance(known, Other) else None
        return known_version != (info.version if info is not None else None)

    def _classify(self, info: ObjectInfo, metadata: DatafileMetadata | None) -> Change:
        """Return what stands at `info.path`: a datafile, with `metadata` on a disk, or something else."""
        name = name_of(info.path)
        if isinstance(self.location, CloudLocation):
            if name.endswith(METADATA_NAME) or SIGNED_METADATA_NAME in self.location.object_prefix + info.path:
                return OtherSeen(info)
            decoded, problems = decode_custom_metadata(info.custom_metadata or {})
            if info.crc32c is None:
                problems.append("the store does not tell its hash; it counts as that of no bytes, as in the SDK")
            self.report.set_problems(info.path, problems)
            datafile = Datafile(info, self.location, decoded or NO_METADATA, info)
            datafile.crc32c = info.crc32c or 0
            return DatafileSeen(datafile)
        if name == METADATA_NAME or info.kind is Kind.SPECIAL:
            return OtherSeen(info)
        if info.kind is Kind.SYMLINK:
            target = self.store.follow_link(info.path)
            self.report.set_problems(info.path, [target.reason] if target.kind == "broken" else [])
            if target.kind == "other":
                self._links.discard(info.path)
                return OtherSeen(info)
            self._links.add(info.path)
            return DatafileSeen(Datafile(info, self.location, metadata or NO_METADATA, target.info))
        return DatafileSeen(Datafile(info, self.location, metadata or NO_METADATA, info))

    # --- stored metadata

    def _read_document(self, folder: str) -> OctueDocument:
        """Read a folder's `.octue` file on a disk; what is wrong with it is reported, never raised."""
        path = join(folder, METADATA_NAME)
        try:
            document, problems = decode_octue(self.store.read_small(path, LARGEST_METADATA_FILE))
        except OctuefsError as error:
            # Nothing there is no problem; a FIFO or a link to nothing is.
            missing = isinstance(error, NotFound) and not self._stands_at(path)
            document, problems = OctueDocument(), [] if missing else [f"its metadata cannot be read: {error}"]
        self.report.set_problems(path, problems)
        if not folder:
            self.metadata = document.dataset
        return document

    def _stands_at(self, path: str) -> bool:
        try:
            self.store.stat(path)
        except OctuefsError:
            return False
        return True

    def _read_dataset_record(self, info: ObjectInfo | None) -> None:
        if info is None:
            self.metadata = None
        elif not self.in_cloud:
            self._read_document("")
        else:
            self.metadata = self._read_cloud_record()

    def _read_cloud_record(self) -> DatasetMetadata | None:
        problems: list[str] = []
        record: DatasetMetadata | None = None
        try:
            data = self.store.read_small(METADATA_NAME, LARGEST_METADATA_FILE)
            content = json.loads(data)
            if not isinstance(content, dict):
                raise BadValue("it holds no JSON object")
            if content.get("dataset"):
                record, problems = decode_dataset_record(content["dataset"], revive_types=False)
        except NotFound:
            pass
        except (ValueError, RecursionError) as error:
            problems = [f"it is malformed and counts as no metadata: {error}"]
        except OctuefsError as error:
            problems = [f"the dataset's metadata cannot be read: {error}"]
        self.report.set_problems(METADATA_NAME, problems)
        return record

    # --- hashes

    def hash_of(self, datafile: Datafile) -> str:
        """Return the hash of a datafile's content as it is now.

        :raise OctuefsError: where the file cannot be read, or keeps changing while it is
        """
        for _ in range(_ATTEMPTS):
            if failures := self.hasher.ensure([datafile]):
                raise failures[0]
            if datafile.crc32c is not None:
                return datafile.hash_value
            self.changed([datafile.path]).result()
            entry = self.index.entry(datafile.path)
            if not isinstance(entry, Datafile):
                raise NotFound(f"{datafile.path}: removed while it was read")
            datafile = entry
        raise Conflict(f"{datafile.path}: it keeps changing while it is read")

    def hashed_members(
        self, folder: str, queries: Queries, progress: Callable[[int], None] | None = None
    ) -> list[Datafile]:
        """Return the members of a subset, each with its hash known.

        :raise OctuefsError: where one cannot be read, or they keep changing
        """
        for _ in range(_ATTEMPTS):
            members = self.index.members(folder, queries)
            if failures := self.hasher.ensure(members, progress):
                raise failures[0]
            unknown = [datafile.path for datafile in members if datafile.crc32c is None]
            if not unknown:
                return members
            self.changed(unknown).result()
        raise Conflict(f"{self.location}: files keep changing while they are read")

    def set_hash(self, folder: str, queries: Queries, progress: Callable[[int], None] | None = None) -> str:
        """Return the hash of the set of datafiles in and below `folder` that satisfy `queries`."""
        members = self.hashed_members(folder, queries, progress)
        return self.index.cached(
            ("hash", folder, queries), lambda: hash_of_set(datafile.hash_value for datafile in members)
        )

    # --- bytes

    def open(self, info: ObjectInfo) -> ByteSource:
        """Open a file for reading; in the cloud its present generation, read ahead where it is read in order.

        :raise OctuefsError: where it cannot be opened
        """
        if not self.in_cloud:
            return self.store.open(info)
        if self.metadata_ttl <= 0:
            present = self.store.stat(info.path)
            if present.version != info.version:
                self.changed([info.path]).result()
                info = present
        return SequentialReader(self.store.open(info), info, lambda: self.changed([info.path]))
