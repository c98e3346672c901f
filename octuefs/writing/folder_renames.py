"""Renames of folders of a bucket: in one operation where it has folders, else object by object, side by side.

First everything is copied; a failure there takes the copies back and nothing has happened. Then the sources go; a
failure there leaves the journal's row, by which the rest follows later. `Renames` calls, holding what is needed.
"""

import threading
from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field

from octuefs.entries import Folder
from octuefs.errors import AlreadyExists, Conflict, NotEmpty, NotFound, OctuefsError, Unsupported
from octuefs.model.paths import is_temporary
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo, Skipped
from octuefs.stores.writing import ObjectStore, Precondition
from octuefs.writing.cloud_facts import CloudFacts, generation_of
from octuefs.writing.journal import Journal
from octuefs.writing.moves import Move, Moves, Unsure, has_bytes_of
from octuefs.writing.ordering import failures_of

RENAME = "rename"
"""The journal's kind of renames that are under way."""


@dataclass
class _Objects:
    """What the bucket has of a folder."""

    files: list[ObjectInfo] = field(default_factory=list)
    markers: list[ObjectInfo] = field(default_factory=list)


class FolderRenames:
    """Moves folders of one dataset."""

    def __init__(
        self, store: ObjectStore, facts: CloudFacts, moves: Moves, journal: Journal, report: Report, executor: Executor
    ) -> None:
        self._store = store
        self._facts = facts
        self._moves = moves
        self._journal = journal
        self._report = report
        self._executor = executor

    def move(self, old: str, new: str) -> list[ObjectInfo]:
        """Move all that the bucket has of a folder, and return it as it is now.

        :raise NotEmpty: where something is in `new`
        """
        if not self._facts.is_empty(self._facts.index.folder(new) or Folder(new)):
            raise NotEmpty(f"{new}: the folder is not empty")
        if self._store.bucket_facts().has_folders:
            return self._move_at_once(old, new)
        objects = self._objects(old)
        self._journal.put(RENAME, old, {"kind": "folder", "new": new, "back": False})
        self._journal.settle()
        moves = [Move(info, _moved(info.path, old, new)) for info in objects.files]
        copies, failures = self._copy(moves, objects.markers, old, new)
        if failures:
            self._take_back(old, new, copies.values(), objects, unsure=any(isinstance(it, Unsure) for it in failures))
            raise failures[0]
        standing = self._remove_sources(old, moves, copies, objects.markers)
        self._journal.drop(RENAME, old)
        return [*self._markers_at(old, new, objects.markers), *standing]

    # --- in one operation

    def _move_at_once(self, old: str, new: str) -> list[ObjectInfo]:
        self._store.delete_marker(new)
        try:
            self._store.rename_folder(old, new)
        except (NotFound, Conflict, AlreadyExists):
            if self._exists(old) or not self._exists(new):
                raise
            # Our own doing, its answer was lost.
        objects = self._objects(new)
        return [*objects.markers, *objects.files]

    def _exists(self, folder: str) -> bool:
        try:
            return self._store.stat(folder).kind is Kind.FOLDER
        except NotFound:
            return False

    # --- object by object

    def _objects(self, folder: str) -> _Objects:
        """List what is to move.

        :raise Unsupported: where something could not
        """
        objects = _Objects()
        with suppress(NotFound):  # all files of it may be new ones
            for item in self._store.scan(folder, recursive=True):
                if isinstance(item, Skipped):
                    raise Unsupported(
                        f"{folder}: it holds {item.name!r}, which could not be renamed ({item.reason}); nothing was"
                    )
                if item.kind is Kind.FOLDER:
                    objects.markers.append(item)
                elif not is_temporary(item.path):
                    objects.files.append(item)
        with suppress(NotFound):
            own = self._store.stat(folder)
            if own.kind is not Kind.FOLDER:  # an object of the folder's own name hides it
                known = self._facts.index.folder(folder)
                own = known.info if known is not None and known.info is not None else own
            if own.kind is Kind.FOLDER and generation_of(own):
                objects.markers.append(own)
        return objects

    def _copy(
        self, moves: list[Move], markers: list[ObjectInfo], old: str, new: str
    ) -> tuple[dict[str, ObjectInfo], list[OctuefsError]]:
        """Copy objects and markers; return the copies by the old path, and what failed."""
        copies: dict[str, ObjectInfo] = {}
        lock = threading.Lock()
        stop = threading.Event()

        def copy(number: int) -> None:
            if stop.is_set():
                return
            try:
                copied = self._moves.copy(moves[number])
            except OctuefsError:
                stop.set()
                raise
            with lock:
                copies[moves[number].old] = copied

        failures = list(failures_of(self._executor, copy, range(len(moves))).values())
        if not failures:
            made = failures_of(
                self._executor,
                lambda number: self._make_marker(markers[number], _moved(markers[number].path, old, new)),
                range(len(markers)),
            )
            failures = list(made.values())
        return copies, failures

    def _make_marker(self, marker: ObjectInfo, folder: str) -> None:
        made = self._store.make_marker(folder)
        custom = dict(marker.custom_metadata or {})
        if custom:
            self._store.patch(f"{folder}/", custom, Precondition(generation_of(made)))

    def _markers_at(self, old: str, new: str, markers: list[ObjectInfo]) -> list[ObjectInfo]:
        found = []
        for marker in markers:
            with suppress(OctuefsError):  # its folder shows by what is in it, and is looked at again
                found.append(self._store.make_marker(_moved(marker.path, old, new)))
        return found

    def _take_back(self, old: str, new: str, copies: Iterable[ObjectInfo], objects: _Objects, *, unsure: bool) -> None:
        """Remove the copies; where one is left, or may be, the journal knows."""
        by_path = {copy.path: copy for copy in copies}
        failures = failures_of(self._executor, lambda path: self._moves.remove_copy(by_path[path]), by_path)
        for marker in objects.markers:
            folder = _moved(marker.path, old, new)
            if folder != new or self._facts.index.entry(new) is None:
                with suppress(OctuefsError):
                    self._store.delete_marker(folder)
        if not failures and not unsure:
            self._journal.drop(RENAME, old)
            return
        self._journal.put(RENAME, old, {"kind": "folder", "new": new, "back": True})
        self._journal.settle()
        self._report.failure(
            f"{old}: its rename to {new} failed, and not all copies could be taken back yet; "
            "they will be at the next rename or mount"
        )
        self._facts.publish(*(by_path[path] for path in failures))

    def _remove_sources(
        self, old: str, moves: list[Move], copies: dict[str, ObjectInfo], markers: list[ObjectInfo]
    ) -> list[ObjectInfo]:
        """Remove what was copied; return the copies, and what others stored at the old paths meanwhile.

        :raise OctuefsError: where something could not; both stand, the journal knows, and all is shown as it is
        """
        by_old = {move.old: move for move in moves}
        done: dict[str, list[ObjectInfo]] = {}

        def remove(path: str) -> None:
            copy, stays = self._moves.remove_source(by_old[path], copies[path])
            done[path] = [copy] if stays is None else [copy, stays]

        failures = failures_of(self._executor, remove, by_old)
        if not failures:
            failures = failures_of(self._executor, self._store.delete_marker, [marker.path for marker in markers])
        standing = [info for infos in done.values() for info in infos]
        if failures:
            both = [copy for path, copy in copies.items() if path not in done]
            self._facts.publish(*both, *standing, removed=list(done))
            for error in failures.values():
                self._report.failure(
                    f"{old}: {len(failures)} of its files are in both folders still; "
                    f"its rename goes on at the next rename or mount: {error}"
                )
                raise error
        return standing

    # --- what was interrupted

    def resume(self, old: str, new: str, *, back: bool) -> list[ObjectInfo]:
        """Go on with a rename that was interrupted, or with taking its copies back; return what it brought to `new`.

        :raise OctuefsError: where it could not be completed; its row stays
        """
        objects = self._objects(old)
        strangers: list[str] = []
        copies: dict[str, ObjectInfo] = {}
        moves: list[Move] = []
        for info in objects.files:
            move = Move(info, _moved(info.path, old, new))
            copy = self._moves.present(move.new)
            if copy is not None and not has_bytes_of(copy, info):
                strangers.append(info.path)
            elif back:
                if copy is not None:
                    self._moves.remove_copy(copy)
                    self._facts.publish(removed=[copy.path])
            else:
                moves.append(move)
                copies[info.path] = self._moves.copy(move) if copy is None else self._brought_up_to_date(copy, info)
        if back:
            self._journal.drop(RENAME, old)
            return []
        for marker in objects.markers:
            self._make_marker(marker, _moved(marker.path, old, new))
        standing = self._remove_sources(old, moves, copies, [] if strangers else objects.markers)
        arrived = [*self._markers_at(old, new, objects.markers), *standing]
        self._facts.publish(*arrived, removed=list(copies))
        if not strangers:
            self._facts.publish_markers_gone(marker.path for marker in objects.markers)
        for path in strangers:
            self._report.failure(
                f"{path}: it stays, because something else stands at {_moved(path, old, new)}; "
                f"the rename of {old} to {new}, which was interrupted, is done for all else"
            )
        self._journal.drop(RENAME, old)
        return arrived

    def _brought_up_to_date(self, copy: ObjectInfo, source: ObjectInfo) -> ObjectInfo:
        """Give a copy the metadata that its source got after it was made."""
        if source.ctime_ns <= copy.ctime_ns:
            return copy
        return self._moves.describe(copy, Move(source, copy.path, described=lambda _: source.custom_metadata or {}))


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :]
