"""Renames in a bucket, of files and folders: journaled before they begin, and gone on with after a crash.

`CloudWriter` calls, from any thread. A file's bytes never leave the server: its object is copied, proven by its
checksum, and removed by its generation. A file that was never stored changes its path alone.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import Entry, Folder, Other
from octuefs.errors import (
    AlreadyExists,
    BadValue,
    Conflict,
    IsADirectory,
    NotADirectory,
    OctuefsError,
)
from octuefs.model.changes import MetadataChange, difference, over
from octuefs.model.metadata import DatafileMetadata, custom_metadata_patch
from octuefs.model.paths import parent_of
from octuefs.report import Report
from octuefs.stores.base import ObjectInfo
from octuefs.writing.cloud_documents import CloudDocuments
from octuefs.writing.cloud_facts import CloudFacts, generation_of, latest
from octuefs.writing.cloud_metadata import ATTEMPTS, CloudMetadata, without_metadata
from octuefs.writing.cloudfiles import CloudFiles
from octuefs.writing.folder_renames import RENAME, FolderRenames
from octuefs.writing.journal import Journal
from octuefs.writing.moves import Custom, Move, Moves, Unsure, has_bytes_of
from octuefs.writing.ordering import PathLocks
from octuefs.writing.properties import checked, guessed_type, metadata_in, patched
from octuefs.writing.recent import RecentNames, without_anothers_id
from octuefs.writing.sessions import DISPLACED

_RESERVED = "goog-reserved-"
_ANY_TYPE = "application/octet-stream"


class Renames:
    """Renames files and folders of one cloud dataset."""

    def __init__(
        self,
        facts: CloudFacts,
        files: CloudFiles,
        metadata: CloudMetadata,
        documents: CloudDocuments,
        moves: Moves,
        folders: FolderRenames,
        journal: Journal,
        report: Report,
        *,
        paths: PathLocks,
        recent: RecentNames,
    ) -> None:
        self._facts = facts
        self._files = files
        self._metadata = metadata
        self._documents = documents
        self._moves = moves
        self._folders = folders
        self._journal = journal
        self._report = report
        self._paths = paths
        self._recent = recent
        self._lock = threading.Lock()  # guards _under_way
        self._under_way: Counter[str] = Counter()
        """By the old path of a rename how many threads are at it."""

    def rename(self, old: str, new: str, *, replace: bool, change: MetadataChange) -> None:
        """rename(2); see `Writer`."""
        if self.interrupted:
            self.resume()
        with self._working_on(old):
            if isinstance(self._checked(old, new, replace=replace), Folder):
                self._rename_folder(old, new, replace=replace)
            else:
                self._rename_file(old, new, change, replace=replace)

    def _checked(self, old: str, new: str, *, replace: bool) -> Entry:
        """Return what stands at `old` if rename(2) may move it to `new`."""
        source, target = self._facts.entry(old), self._facts.index.entry(new)
        self._facts.folder(parent_of(new))
        if not old or not new:
            raise BadValue("the dataset's own folder cannot be renamed through its mount")
        if target is not None and not replace:
            raise AlreadyExists(f"{new}: exists already")
        if not isinstance(source, Folder):
            if isinstance(target, Folder):
                raise IsADirectory(f"{new}: is a folder")
        elif new.startswith(f"{old}/"):
            raise BadValue(f"{old}: cannot be moved into itself")
        elif target is not None and not isinstance(target, Folder):
            raise NotADirectory(f"{new}: is a file")
        return source

    @contextmanager
    def _working_on(self, old: str) -> Iterator[None]:
        with self._lock:
            self._under_way[old] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[old] -= 1
                if not self._under_way[old]:
                    del self._under_way[old]

    # --- files

    def _rename_file(self, old: str, new: str, change: MetadataChange, *, replace: bool) -> None:
        for _ in range(ATTEMPTS):
            with (
                self._paths.hold(old, new),
                self._files.at_rest(old, new) as at_rest,
                self._leaving(old, new),
            ):
                source = self._checked(old, new, replace=replace)
                if isinstance(source, Folder):
                    raise Conflict(f"{old}: a folder has taken its place meanwhile")
                if self._rename_at_rest(source, new, change, at_rest):
                    return
            self._files.store_now(old)
        raise Conflict(f"{old}: it keeps being written, so it was not renamed; try again")

    def _rename_at_rest(
        self, source: Datafile | Other, new: str, change: MetadataChange, at_rest: Mapping[str, ObjectInfo | None]
    ) -> bool:
        """Rename a file to which no upload is under way; return False where what was written is to be stored first."""
        old = source.info.path
        target = self._facts.index.entry(new)
        if isinstance(target, Folder):
            raise IsADirectory(f"{new}: a folder was made there meanwhile")
        stored = latest(at_rest.get(old, source.info), source.info)
        unstored = self._files.metadata(old)
        mine = unstored if unstored is not None else _metadata_of(source)
        beneath = self._awaiting(new) if target is None else None
        theirs = beneath if beneath is not None else self._files.metadata(new) or _metadata_of(target)

        def described(present: DatafileMetadata) -> DatafileMetadata:
            return self._metadata.completed(new, change.apply(over(present, theirs)), present)

        if stored is None and target is None:
            if changed := difference(mine, described(mine)):
                self._files.change_metadata(old, changed)  # first, as it may be too big
            self._files.moved(old, new, None)
        elif unstored is not None and (stored is None or target is not None or beneath is not None or change):
            return False
        else:
            assert stored is not None, "what was never stored is stored first"
            standing = latest(at_rest.get(new, target.info), target.info) if target is not None else None
            self._move_object(_move(stored, new, standing, described), replaces=target is not None)
        self._recent.remember(old, mine)
        self._recent.take(new)
        self._documents.arrived(new)
        return True

    def _awaiting(self, path: str) -> DatafileMetadata | None:
        """Return what waits for a name, or what it had until a moment ago: renamed to it is made again."""
        waiting = self._documents.waiting_at(path)
        if waiting is not None:
            return waiting
        recent = self._recent.find(path)
        return None if recent is None else without_anothers_id(recent, path, self._facts.index)

    def _move_object(self, move: Move, *, replaces: bool) -> None:
        source = move.source
        wanted = checked(dict(move.described(source.custom_metadata or {})), move.new)
        if replaces:
            with suppress(Conflict):  # what was opened is gone already
                self._files.keep_open(move.new)
        row = {
            "kind": "file",
            "new": move.new,
            "generation": generation_of(source),
            "target": move.target,
            "custom": wanted,
        }
        self._journal.put(RENAME, move.old, row)
        self._journal.settle()
        try:
            copy = self._moves.copy(move)
        except Unsure as error:
            self._report.failure(f"{error}; the rename of {move.old} goes on at the next rename or mount")
            with suppress(OctuefsError):
                self._facts.look(move.new)
            raise
        except OctuefsError:
            self._journal.drop(RENAME, move.old)
            raise
        if replaces:
            self._files.removed(move.new)
        self._facts.publish(copy)
        try:
            copy, stays = self._moves.remove_source(move, copy)
        except OctuefsError as error:
            self._report.failure(
                f"{move.old}: it was copied to {move.new} and could not be removed yet; "
                f"this goes on at the next rename or mount: {error}"
            )
            raise
        self._done(move, copy, stays)

    def _done(self, move: Move, copy: ObjectInfo, stays: ObjectInfo | None) -> None:
        self._facts.publish(*([copy] if stays is None else [copy, stays]), removed=[move.old])
        self._files.moved(move.old, move.new, copy)
        self._journal.drop(RENAME, move.old)

    def _leaving(self, old: str, new: str) -> AbstractContextManager[None]:
        return self._facts.leaving(old) if parent_of(old) != parent_of(new) else nullcontext()

    # --- folders

    def _rename_folder(self, old: str, new: str, *, replace: bool) -> None:
        with (
            self._paths.hold_folders(old, new),
            self._files.at_rest(*self._files.below(old)),
            self._leaving(old, new),
        ):
            if not isinstance(self._checked(old, new, replace=replace), Folder):
                raise Conflict(f"{old}: a file has taken its place meanwhile")
            self._facts.check_names_below(old, new)
            infos = self._folders.move(old, new)
            self._facts.publish_folder_gone(old, infos)
            self._files.moved_folder(old, new, {info.path: info for info in infos})
            self._documents.moved_folder(old, new)
        self._facts.look_again(old)  # somebody may have made something in it at the last moment

    # --- what was interrupted

    @property
    def interrupted(self) -> int:
        """How many renames were interrupted and are to be gone on with."""
        rows = self._journal.items(RENAME)
        with self._lock:
            return sum(not self._under_way[old] for old in rows)

    def resume(self) -> None:
        """Go on with renames that were interrupted, by a crash or a failure; what fails again waits for the next."""
        self._resume_all()
        while self._take_displaced():
            self._resume_all()

    def _take_displaced(self) -> bool:
        """Let renames be gone on with that another session's of the same path displaced, once that is over."""
        rows = self._journal.items(RENAME)
        taken: set[str] = set()
        for key, row in self._journal.items(DISPLACED).items():
            if row["kind"] == RENAME and (old := str(row["key"])) not in rows and old not in taken:
                taken.add(old)
                self._journal.put(RENAME, old, row["value"])
                self._journal.drop(DISPLACED, key)
        return bool(taken)

    def _resume_all(self) -> None:
        for old, row in self._journal.items(RENAME).items():
            with self._lock:
                if self._under_way[old]:
                    continue
            new = str(row["new"])
            try:
                with self._working_on(old):
                    if row["kind"] == "folder":
                        self._resume_folder(old, new, back=bool(row["back"]))
                    else:
                        self._resume_file(old, new, row)
            except OctuefsError as error:
                self._report.failure(f"{old}: its rename to {new} was interrupted and cannot go on yet: {error}")

    def _resume_file(self, old: str, new: str, row: Mapping[str, Any]) -> None:
        with self._paths.hold(old, new), self._files.at_rest(old, new), self._leaving(old, new):
            source, copy = self._moves.present(old), self._moves.present(new)
            if source is None or generation_of(source) != row["generation"]:
                self._facts.look(old)  # it went well, or another has made something new of it
                self._facts.look(new)
                self._journal.drop(RENAME, old)
                return
            if copy is None or generation_of(copy) == row["target"] or not has_bytes_of(copy, source):
                self._report.failure(f"{old}: its rename to {new} was interrupted before it began; rename it again")
                self._journal.drop(RENAME, old)
                return
            move = Move(source, new, described=lambda _: dict(row["custom"]))
            copy, stays = self._moves.remove_source(move, self._moves.describe(copy, move))
            self._done(move, copy, stays)

    def _resume_folder(self, old: str, new: str, *, back: bool) -> None:
        with (
            self._paths.hold_folders(old, new),
            self._files.at_rest(*self._files.below(old)),
            self._leaving(old, new),
        ):
            infos = self._folders.resume(old, new, back=back)
            if not back:
                self._files.moved_folder(old, new, {info.path: info for info in infos})
                self._documents.moved_folder(old, new)


def _metadata_of(entry: Entry | None) -> DatafileMetadata:
    return entry.metadata if isinstance(entry, Datafile) else NO_METADATA


def _move(
    stored: ObjectInfo,
    new: str,
    standing: ObjectInfo | None,
    described: Callable[[DatafileMetadata], DatafileMetadata],
) -> Move:
    """Return how the object `stored` goes to `new`, over the one that is `standing` there."""
    theirs = standing.custom_metadata or {} if standing is not None else {}
    octues = without_metadata(theirs)
    foreign = {key: text for key, text in theirs.items() if key not in octues and not key.startswith(_RESERVED)}

    def custom(mine: Custom) -> Custom:
        present = metadata_in(mine)
        return checked({**foreign, **patched(mine, custom_metadata_patch(mine, present, described(present)))}, new)

    headers = _headers(stored, standing) if standing is not None else None
    return Move(stored, new, generation_of(standing) if standing is not None else 0, custom, headers)


def _headers(stored: ObjectInfo, standing: ObjectInfo) -> Mapping[str, str]:
    """Return the headers of a file that is renamed over another: what nobody chose for it is kept from the other.

    How its bytes are encoded is its own.
    """
    chosen = dict(stored.properties)
    if chosen.get("contentType") in (_ANY_TYPE, guessed_type(stored.path)):
        del chosen["contentType"]
    kept = {name: value for name, value in standing.properties.items() if name != "contentEncoding"}
    headers = {**kept, **chosen}
    if "contentType" not in headers and "contentType" in stored.properties:
        headers["contentType"] = stored.properties["contentType"]
    return headers
