"""Keeps the index of a dataset true to its store.

Who calls: `mount.py` loads; the watcher says which paths changed; operations ask that facts are fresh. All
changes of the index are made by one thread (the *keeper*), in the order they are asked for; callers wait for its
futures and hold no lock meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from octuefs.bucket_reading import Comparison, Found, pack_all
from octuefs.classification import Classifier
from octuefs.datafile import Datafile
from octuefs.differences import (
    Listing,
    differing_files,
    folder_changes,
    lies_at_or_below,
    metadata_file_changed,
    removals,
)
from octuefs.entries import Change, DatafileSeen, Folder, FolderSeen, Other, OtherSeen, Reading, Removed
from octuefs.errors import NotFound, OctuefsError, StoreUnavailable, TimedOut
from octuefs.facts.file import Besides
from octuefs.index import Index
from octuefs.model.metadata import DatafileMetadata, DatasetMetadata, OctueDocument
from octuefs.model.paths import (
    METADATA_NAME,
    is_temporary,
    join,
    name_of,
    parent_of,
)
from octuefs.other_names import OtherNames
from octuefs.remembered import Remembered
from octuefs.report import Report
from octuefs.stored_metadata import StoredMetadata
from octuefs.stores.base import Kind, ObjectInfo, Store

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
"""How soon a refresh that failed is tried again."""
_LONGEST_WAIT_SECONDS = 20.0
"""How long an answer waits for a store that is slow to be listed, before it is given from the old facts."""
_HEARD_SECONDS = 120.0
_UNHEARD_SECONDS = 1.0
"""How long what is known counts: of a folder whose changes are heard of, and of what is asked for them."""
_HEAD_START_SECONDS = 0.3
"""How long a bucket that is known is not read yet: reading it takes time from the answers that are waited for."""
_LEAST_TTL = 0.5
"""Look-ups and listings are not asked of the store more often than this, whatever the TTL (seconds)."""

Told = tuple[DatasetMetadata | None, Sequence[str]]
"""A dataset's record, and what is wrong with it in words."""


class Keeper:
    """Reads the facts of one store into one index, at first and again where they may have changed."""

    def __init__(
        self,
        store: Store,
        report: Report,
        index: Index,
        *,
        recursive: bool,
        metadata_ttl: float,
        fixed: DatasetMetadata | None = None,
        given: DatasetMetadata | None = None,
        told: Callable[[], Told] | None = None,
        remembered: Remembered | None = None,
    ) -> None:
        """`metadata_ttl` is in seconds and counts in the cloud only; a disk is watched.

        Of the dataset's own record: `fixed` counts instead of the stored one, and what `told` returns after each
        reading of the whole store (a shared dataset's own record); `given` where the stored one lacks something.
        `remembered` is what another mount knew of a bucket.
        """
        self.store = store
        self.location = store.location
        self.in_cloud = store.in_cloud
        self.report = report
        self.index = index
        self.recursive = recursive
        self.metadata_ttl = metadata_ttl
        self.stored = StoredMetadata(store, report, fixed=fixed, given=given)
        self._told = told
        self.replaced: Callable[[], object] = lambda: None
        """Called where another folder has taken the source's place, so that it is watched instead."""
        self.heard: Callable[[], bool] = lambda: False
        """Says whether changes of a disk are heard of as they happen."""
        self._lists_disk_files = False
        """True where files of a disk are among those of a dataset in the cloud: nothing is heard of these."""
        self._remembered = remembered
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keeper")
        self._looker = self._thread
        """What looks at single paths: a thread of its own where the whole store takes long to be read."""
        if remembered is not None:
            self._looker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="looker")
        self._is_confirmed = True
        """False while what is known is what another mount knew, and the store has not been read since."""
        self._asked: set[str] = set()
        """The paths that the store was asked for meanwhile."""
        self._record_is_unread = False
        """True where the dataset's record in a bucket could not be read."""
        self._when_confirmed: list[Callable[[], object]] = []
        self._closing = threading.Event()
        self._refresh_lock = threading.Lock()
        self._refreshing: Future[None] | None = None
        self._refreshed_at = 0.0
        self._failed_at: float | None = None
        """When the latest refresh failed, None where it did not."""
        self.failure: OctuefsError | None = None
        """Why it did."""
        self.leftovers: list[ObjectInfo] = []
        """Temporary files or objects of ours that the latest reading of the whole store found."""
        self.other_names = OtherNames()
        """Links to files of a disk: they change with the files."""
        self._classifier = Classifier(store, report, index, self.other_names)
        self._to_look_at: set[str] = set()
        self._looking: Future[None] | None = None

    def load(self, progress: Callable[[int], None] | None = None) -> None:
        """Fill the index from the store; `progress` is told how many files have been seen.

        Where another mount has remembered what is in a bucket that is filled in at once, and the bucket is read in the
        background; until that is done opens and names that are not found ask (`ask`, `find_unseen`).

        :raise OctuefsError: where the store cannot be listed
        """
        if self._thread.submit(self._recall).result():
            self._is_confirmed = False
            with self._refresh_lock:
                self._refreshing = self._thread.submit(self._read_after_a_moment)
            return
        started = time.monotonic()
        self._thread.submit(self._synchronise, "", progress).result()
        self._refreshed_at = started

    def _read_after_a_moment(self) -> None:
        """Read the store again once the mount has had the time to be made and to answer for the first time."""
        if not self._closing.wait(_HEAD_START_SECONDS):
            self._refresh()

    def _recall(self) -> bool:
        """Fill the index with what is remembered; say whether there was anything."""
        if self._remembered is None:
            return False
        besides = self._remembered.begin(lambda info: self.classify(info, None), self._besides)
        if besides is None or self.index.is_empty:
            return False
        self.stored.restore(besides.record)
        self.report.replace_skipped(besides.skipped)
        for subject, problems in besides.problems.items():
            self.report.set_problems(subject, problems)
        return True

    def _besides(self) -> Besides | None:
        """Return what is to be remembered besides the objects, None where all is to be read again another time."""
        stored = self.stored
        if stored.named is not None or stored.is_fixed or self._record_is_unread:
            return None
        return Besides(stored.raw_record, dict(self.report.skipped), self.report.problems())

    def about_to_write(self) -> None:
        """Take note, before a program's change, that the store is written through this mount."""
        if self._remembered is not None:
            self._remembered.about_to_write()

    @property
    def is_confirmed(self) -> bool:
        """False while what is known is what an earlier mount knew, and the store has not been read since."""
        return self._is_confirmed

    def when_confirmed(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the store has been read since this mount began, at once where it has."""
        with self._refresh_lock:
            waits = not self._is_confirmed
            if waits:
                self._when_confirmed.append(callback)
        if not waits:
            callback()

    def _confirm(self) -> None:
        with self._refresh_lock:
            self._is_confirmed = True
            callbacks, self._when_confirmed = self._when_confirmed, []
        self._asked.clear()
        for callback in callbacks:
            callback()

    def refresh(self, *, join: bool = False) -> "Future[None]":
        """Read the whole store again, from now on, or `join` a reading that is under way already."""
        with self._refresh_lock:
            under_way = self._refreshing
            if under_way is None or under_way.done() or (under_way.running() and not join):
                self._refreshing = under_way = self._thread.submit(self._refresh)
            return under_way

    def _refresh(self) -> None:
        started = time.monotonic()
        try:
            if self.store.reopen_if_replaced():
                self.report.failure(f"{self.location} was replaced by another folder; that one is shown now")
                self.replaced()
            self._synchronise("", None)
        except Exception as error:
            self._failed_at = time.monotonic()
            self.report.failure(f"could not re-read {self.location}: {error}")
            if isinstance(error, OctuefsError):
                self.failure = error
                raise
            logger.exception("unexpected failure while %s was read", self.location)
            self.failure = StoreUnavailable(f"{self.location} could not be read: {error}")
            raise self.failure from error
        self._refreshed_at = started
        self._failed_at = self.failure = None
        if not self._is_confirmed:
            self._confirm()

    def expire(self) -> None:
        """Make sure that what is known of a cloud dataset is no older than its TTL.

        From half of the TTL on the store is re-read in the background, so that those who keep asking never
        wait. A store that does not answer leaves the old facts standing, and nobody waits for it twice; the
        report says so.
        """
        expire_all([self])

    def begin_expiring(self) -> "Future[None] | None":
        """Begin to read the store again where its time has come; return what is to be waited for, if anything is."""
        if not self.in_cloud:
            return None
        if not self._is_confirmed:
            if self._failed_at is not None and time.monotonic() - self._failed_at >= _RETRY_SECONDS:
                self.refresh(join=True)
            return None  # nobody waits: what has to be right is asked for
        ttl = max(self.metadata_ttl, _LEAST_TTL)
        age = time.monotonic() - self._refreshed_at
        if age < ttl / 2:
            return None
        if self._failed_at is not None:
            if time.monotonic() - self._failed_at >= _RETRY_SECONDS:
                self.refresh(join=True)
            return None
        refreshing = self.refresh(join=True)
        return refreshing if age >= ttl else None

    def end_expiring(self, refreshing: "Future[None]") -> None:
        """Take note of how that went: nobody waits for long, nor twice, for a store that does not answer."""
        if not refreshing.done():
            self._failed_at = time.monotonic()
            self.report.failure(f"{self.location} does not answer; what was known of it is shown")
        elif not refreshing.cancelled() and refreshing.exception() is not None:
            logger.debug("serving what was known of %s", self.location)

    def lasting(self) -> float:
        """Return for how many seconds what is known counts where nothing else is heard of it.

        In the cloud that is what is left of the TTL. A disk tells of changes, but for a watch that may miss one.
        """
        if not self.in_cloud:
            return _HEARD_SECONDS if self.heard() else _UNHEARD_SECONDS
        if self._failed_at is not None or not self._is_confirmed:
            return _UNHEARD_SECONDS
        left = max(0.0, self._refreshed_at + self.metadata_ttl - time.monotonic())
        return min(left, _UNHEARD_SECONDS) if self._lists_disk_files else left

    def changed(self, paths: Iterable[str]) -> "Future[None]":
        """Look at single paths of the store again and publish what they are now.

        What is asked while others wait to be looked at is looked at together with them.
        """
        with self._refresh_lock:
            self._to_look_at.update(paths)
            look = self._looking
            if look is None or look.done() or look.running():
                look = self._looking = self._looker.submit(self._look)
            return look

    def notice(self, path: str, version: object) -> None:
        """Have a path looked at again, in the background, if its known version is not `version`."""
        entry = self.index.entry(path)
        if isinstance(entry, Datafile | Other) and entry.info.version != version:
            self.changed([path])

    def asks_at_open(self, path: str) -> bool:
        """Say whether the store is to be asked what stands at a path before it is opened."""
        return self.in_cloud and (self.metadata_ttl <= 0 or (not self._is_confirmed and path not in self._asked))

    def ask(self, info: ObjectInfo) -> ObjectInfo:
        """Ask a bucket once what stands at an object's path now, take it in, and return it.

        Where the bucket does not answer, and each open is not to ask anyhow, what was known counts.

        :raise NotFound: where nothing does
        :raise OctuefsError: where it cannot be asked
        """
        with self.index.reading() as reading:
            try:
                present = self.store.stat(info.path)
            except NotFound:
                self._publish([Removed(info.path)], reading)
                self._note_asked(info.path)
                raise
            except (StoreUnavailable, TimedOut):
                if self.metadata_ttl <= 0:
                    raise
                return info
            if present.kind is not Kind.FILE:
                self.changed([info.path]).result()
            elif present.version != info.version:
                self._publish([self.classify(present, None)], reading)
        self._note_asked(info.path)
        return present

    def _note_asked(self, path: str) -> None:
        if not self._is_confirmed:
            self._asked.add(path)

    def find_unseen(self, path: str) -> bool:
        """Say whether the store has something at a path that the index does not know, and take it in.

        On a disk this closes the moment between a file's creation and the watcher's word of it. A cloud
        dataset is asked where every open asks (a TTL of 0), and once for each path until it has been read.
        """
        if not self._may_be_unseen(path):
            return False
        with self.index.reading() as reading:
            try:
                info = self.store.stat(path)
            except NotFound:
                self._note_asked(path)
                return False
            except OctuefsError:
                return False
            if info.kind is Kind.FOLDER and not self.recursive:
                return False
            if self.in_cloud and info.kind is Kind.FILE and self.stored.admits(path) and not is_temporary(path):
                self._publish([self.classify(info, None)], reading)
            else:
                self.changed([path]).result()
        self._note_asked(path)
        return self.index.entry(path) is not None

    def _may_be_unseen(self, path: str) -> bool:
        if not self.recursive and "/" in path:
            return False
        if not self.in_cloud or self.metadata_ttl <= 0:
            return True
        return not self._is_confirmed and path not in self._asked and name_of(path) != METADATA_NAME

    def finds_at_once(self, path: str) -> bool:
        """Say whether `find_unseen(path)` asks no more than a disk; what it takes in waits for the keeper."""
        if not self._may_be_unseen(path):
            return True
        if self.in_cloud:
            return False
        try:
            self.store.stat(path)
        except OctuefsError:
            return True
        return False

    def close(self) -> None:
        """Stop the threads, and write what is to be remembered."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._looker.shutdown(wait=False, cancel_futures=True)
        if self._remembered is not None:
            self._remembered.close()

    def _look(self) -> None:
        with self._refresh_lock:
            paths, self._to_look_at = self._to_look_at, set()
        try:
            with self.index.reading() as reading:
                self._look_at(paths, reading)
        except Exception:
            logger.exception("could not take in what changed")  # nobody may wait for this
            raise

    def _look_at(self, paths: set[str], reading: Reading) -> None:
        changes: list[Change] = []
        # Metadata first: what is looked at afterwards keeps what the index then has.
        for path in sorted(paths, key=lambda path: (name_of(path) != METADATA_NAME, path)):
            if (not self.recursive and "/" in path) or is_temporary(path):
                continue
            try:
                if name_of(path) == METADATA_NAME and not self.in_cloud:
                    self._synchronise(parent_of(path), None, only_folder=True)
                else:
                    changes.extend(self._change_at(path))
            except NotFound:
                logger.debug("%s went away while it was looked at; the word of that is on its way", path)
            except OctuefsError as error:
                self.report.failure(f"{path} could not be looked at: {error}")
        self._publish(changes, reading)
        # Only now: these ask the index, and what was just looked at may be a link itself.
        self._publish(list(self._changes_of_links(paths)), reading)

    def _publish(self, changes: list[Change], reading: Reading) -> None:
        """Publish what was read, and look again at what a writer changed meanwhile."""
        if changes and (overtaken := self.index.publish_read(changes, reading)):
            self.changed(overtaken)

    def _change_at(self, path: str) -> Iterator[Change]:
        try:
            info = self.store.stat(path)
        except NotFound:
            if self.index.entry(path) is not None:
                yield Removed(path)
            self.report.clear_below(path)
            return
        known = self.index.entry(path)
        if not (self.stored.admits_folder if info.kind is Kind.FOLDER else self.stored.admits)(path):
            return
        if info.kind is Kind.FOLDER:
            if not self.recursive:
                return
            # Made or moved here: it may be another one, even where the number is the same.
            self._synchronise(path, None)
            return
        if isinstance(known, Folder) and not self.in_cloud:
            yield Removed(path)
        folder = parent_of(path)
        if isinstance(known, Datafile) and known.info.version == info.version and info.kind is not Kind.SYMLINK:
            return
        if self.in_cloud:
            yield self.classify(info, None)
        elif isinstance(known, Datafile):
            yield self.classify(info, known.metadata)
        else:
            described = self.index.entry(join(folder, METADATA_NAME))
            version = described.info.version if isinstance(described, Other) else None
            yield self.classify(info, self.stored.document(folder, version).datafiles.get(name_of(path)))

    def _changes_of_links(self, paths: set[str]) -> Iterator[Change]:
        """Look again at the symbolic links that lead to `paths`, or to nothing: they change without being touched."""
        for path in self.other_names.links():
            known = self.index.entry(path)
            if not isinstance(known, Datafile) or known.info.kind is not Kind.SYMLINK:
                self.other_names.discard_link(path)
                continue
            if known.content is not None and not lies_at_or_below(known.content.path, paths):
                continue
            try:
                change = self.classify(known.info, known.metadata)
            except NotFound:
                continue  # it went away; the word of that is on its way
            present = change.datafile.content if isinstance(change, DatafileSeen) else None
            if (present and present.version) != (known.content and known.content.version):
                yield change

    def _synchronise(self, top: str, progress: Callable[[int], None] | None, *, only_folder: bool = False) -> None:
        """Publish the differences between the store, in and below `top`, and the index."""
        with self.index.reading() as reading:
            if self._remembered is not None and not top and not only_folder and self.stored.named is None:
                self._compare_bucket(self._remembered, progress, reading)
                if self.stored.named is None:
                    return
            self._compare(top, progress, reading, only_folder=only_folder)

    def _compare_bucket(self, remembered: Remembered, progress: Callable[[int], None] | None, reading: Reading) -> None:
        """Do the same with all of a bucket that does not say which files are its dataset, or pack what it has first."""
        known = self.index.entry(METADATA_NAME)
        version = known.info.version if isinstance(known, Other) else None

        def read_record(info: ObjectInfo) -> None:
            if info.version != version:
                self._read_record(present=True)

        found = Found(read_record)
        infos = found.sort(self.store.scan("", recursive=self.recursive), progress, folders=self.recursive)
        if self.index.may_load:
            snapshot = pack_all(infos, remembered.builder(), self._classifier, self.report)
            if self.stored.named is not None:
                return
            if found.described is None:
                self._read_record(present=False)
            self.index.load(snapshot)
            remembered.keep(snapshot)
        else:
            comparison = Comparison(self.index, lambda info: self.classify(info, None))
            for changes in comparison.differences(infos):
                self._publish(changes, reading)
            if found.described is None and version is not None:
                self._read_record(present=False)
            gone = list(comparison.removals())
            for change in gone:
                if isinstance(change, Removed):
                    self.report.clear_below(change.path)
            self._publish(gone, reading)
            remembered.start()
        if self._record_is_unread and found.described is not None:
            self._publish([OtherSeen(found.described._replace(version=None))], reading)
        self.leftovers = found.leftovers
        self.report.replace_skipped(found.skipped)

    def _read_record(self, *, present: bool) -> None:
        """Read the dataset's own record; where that fails it is read again with the next reading of the bucket."""
        self._record_is_unread = not self.stored.read_dataset(present=present)
        if self._refreshed_at or not self._is_confirmed:
            self.stored.note_outside()

    def _compare(
        self, top: str, progress: Callable[[int], None] | None, reading: Reading, *, only_folder: bool
    ) -> None:
        recursive = self.recursive and not only_folder
        found = self.store.scan(top, recursive=recursive)
        listing = Listing.of(top, found, progress, recursive=recursive, folders=self.recursive)
        unread: set[str] = set()
        described = listing.files[top].get(METADATA_NAME)
        if not top and metadata_file_changed(self.index, "", described):
            named = self.stored.named
            if not self.stored.read_dataset(present=described is not None):
                unread.add("")
            if self._refreshed_at or not self._is_confirmed:
                self.stored.note_outside()  # before, whoever loads opens the dataset as one of listed files
            if only_folder and self.stored.named != named:
                self._synchronise("", progress)
                return
        if not top and not only_folder:
            self.stored.note_missing(info.path for infos in listing.files.values() for info in infos.values())
        if self.stored.named is not None:
            listing.admit(self.stored.admits, self.stored.admits_folder)
        changes = list(removals(self.index, listing, in_cloud=self.in_cloud))
        if self._told is not None and not top and not only_folder:
            changes.extend(self._take_told(*self._told()))
        for change in changes:
            if isinstance(change, Removed):
                self.report.clear_below(change.path)
        if not self.in_cloud and top not in listing.folders:
            listing.folders = {top: self.store.stat(top), **listing.folders}
        changes.extend(folder_changes(self.index, listing.folders.values()))
        for folder, infos in listing.files.items():
            changes.extend(self._file_changes(folder, infos, unread))
        self._publish(changes, reading)
        if not top and recursive == self.recursive:
            self.leftovers = listing.leftovers
            self.report.replace_skipped(listing.skipped)
        else:
            for name, reason in listing.skipped.items():
                self.report.skip(name, reason)

    def _take_told(self, record: DatasetMetadata | None, problems: Sequence[str]) -> Iterator[Change]:
        """Take the record that the store was told with what it listed; texts made of another one are out of date."""
        known = self.stored.dataset
        self.stored.fix(record, problems)
        if self.stored.dataset != known:
            yield FolderSeen(self.store.stat(""))

    def _file_changes(self, folder: str, infos: dict[str, ObjectInfo], unread: set[str]) -> Iterator[Change]:
        """Yield what differs among the files of a folder.

        Where its `.octue` could not be read this time (the folder is in `unread`), known metadata stay and the file
        counts as seen in no version, so that the next reading tries again.
        """
        described = infos.get(METADATA_NAME)
        stale = not self.in_cloud and metadata_file_changed(self.index, folder, described)
        differing = differing_files(
            self.index, infos.values(), lambda path: stale or (not self.in_cloud and self.other_names.is_link(path))
        )
        document = None
        if differing and not self.in_cloud and folder not in unread:
            try:
                if described:
                    document = self.stored.document(folder, described.version)
                else:
                    document = self.stored.overlay(folder, OctueDocument())
            except OctuefsError:
                unread.add(folder)
        for info in differing:
            known = self.index.shadowed.get(info.path) or self.index.entry(info.path)
            metadata: DatafileMetadata | None = None
            if document is not None:
                metadata = document.datafiles.get(name_of(info.path))
            elif isinstance(known, Datafile) and not self.in_cloud:
                metadata = known.metadata
            try:
                change = self.classify(info, metadata)
            except NotFound:
                continue  # a link that has gone meanwhile; the word of that is on its way
            if isinstance(change, OtherSeen) and self.in_cloud and isinstance(known, Folder):
                continue  # an object that is no datafile, hidden by the folder of its name
            yield change
        if folder in unread and described is not None:
            yield OtherSeen(described._replace(version=None))

    def classify(self, info: ObjectInfo, metadata: DatafileMetadata | None) -> Change:
        """Return what stands at `info.path`; see `Classifier`."""
        self._lists_disk_files |= info.is_listed_on_disk
        return self._classifier.classify(info, metadata)


def expire_all(keepers: Iterable[Keeper]) -> None:
    """Make sure that what is known of several datasets is no older than their TTL: see `Keeper.expire`.

    Those that are to be waited for are read at the same time.
    """
    under_way = [(keeper, reading) for keeper in keepers if (reading := keeper.begin_expiring()) is not None]
    if under_way:
        wait([reading for _, reading in under_way], _LONGEST_WAIT_SECONDS)
        for keeper, reading in under_way:
            keeper.end_expiring(reading)
