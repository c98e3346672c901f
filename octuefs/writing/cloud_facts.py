"""How changes of a bucket become known: the writers of a cloud dataset tell the index what they did, through this.

Folders are kept as on any disk: the last file that leaves one leaves a marker object behind.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from octuefs.datafile import Datafile
from octuefs.entries import Change, DatafileSeen, Entry, Folder, FolderGone, FolderSeen, Other, Removed
from octuefs.errors import BadValue, Conflict, NameTooLong, NotADirectory, NotFound
from octuefs.keeper import Keeper
from octuefs.model.paths import CloudLocation, Location, is_temporary, join, name_of, parent_of, path_bytes
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import ObjectStore, Precondition

_LONGEST_NAME = 1024
"""Bytes in the name of an object."""


def generation_of(info: ObjectInfo) -> int:
    """Return the generation of an object, 0 for what the bucket does not hold (an implied folder, a new file)."""
    return _number(info, 0)


def condition_of(info: ObjectInfo) -> Precondition:
    """Return the precondition that exactly this version, metadata included, still stands."""
    return Precondition(generation_of(info), _number(info, 1))


def latest(stored: ObjectInfo | None, seen: ObjectInfo) -> ObjectInfo | None:
    """Return what the bucket has, as far as we know: what an open file began with, or what was seen there since."""
    return seen if stored is not None and generation_of(seen) > generation_of(stored) else stored


def check_name(location: Location, path: str, *, is_folder: bool = False) -> None:
    """Refuse a path that no object can have: its name holds the whole path, with a slash at the end of a folder's.

    :raise NameTooLong: where it is too long
    :raise BadValue: where it is no UTF-8
    """
    assert isinstance(location, CloudLocation)
    try:
        length = len((location.object_prefix + path).encode()) + is_folder
    except UnicodeEncodeError:
        raise BadValue(f"{path}: its name is no UTF-8, and names in a bucket are") from None
    if length > _LONGEST_NAME:
        raise NameTooLong(f"{path}: {length} bytes; names in a bucket have at most {_LONGEST_NAME}")


def _number(info: ObjectInfo, place: int) -> int:
    version = info.version
    if isinstance(version, tuple) and len(version) > place and isinstance(version[place], int):
        return int(version[place])
    return 0


class CloudFacts:
    """What is known of a cloud dataset, and how what was done to it becomes known."""

    def __init__(self, store: ObjectStore, keeper: Keeper) -> None:
        self.store = store
        self.index = keeper.index
        self.location = keeper.location
        self._report = keeper.report
        self._classify: Callable[[ObjectInfo, None], Change] = keeper.classify
        self._look_again: Callable[[Iterable[str]], object] = keeper.changed
        self._lock = threading.Lock()  # guards _leaving; taken before the index's lock
        self._leaving: dict[str, set[str]] = {}
        """By folder the names that are about to leave it."""

    # --- what is known

    def entry(self, path: str) -> Entry:
        """Return what stands at a path.

        :raise NotFound: where nothing does
        :raise NotADirectory: where a file stands above it
        """
        entry = self.index.entry(path)
        if entry is None:
            self.folder(parent_of(path))
            raise NotFound(f"{path}: no such file or folder")
        return entry

    def datafile(self, path: str) -> Datafile:
        """Return the datafile at a path, which a folder of the same name may hide.

        :raise NotFound: where there is none
        """
        entry = self.index.shadowed.get(path) or self.index.entry(path)
        if not isinstance(entry, Datafile):
            raise NotFound(f"{path}: no datafile stands there")
        return entry

    def folder(self, path: str) -> Folder:
        """Return a folder in which something is to stand.

        :raise NotFound: where it is not there
        :raise NotADirectory: where a file stands there, or above
        """
        entry = self.index.entry(path)
        if isinstance(entry, Folder):
            return entry
        above = path
        while entry is None and above:
            above = parent_of(above)
            entry = self.index.entry(above)
        if isinstance(entry, Folder):
            raise NotFound(f"{path}: no such folder")
        raise NotADirectory(f"{above}: is a file, so nothing can stand in it")

    def check_name(self, path: str, *, is_folder: bool = False) -> None:
        """Refuse a path that no object can have; see `check_name`."""
        check_name(self.store.location, path, is_folder=is_folder)

    def check_names_below(self, old: str, new: str) -> None:
        """Refuse a rename of a folder by which something in it would get a path that no object can have."""
        if len(new.encode()) <= len(path_bytes(old)):
            return
        with self.index.lock:
            folders = [folder] if (folder := self.index.folder(old)) is not None else []
            while folders:
                folder = folders.pop()
                self.check_name(new + folder.path[len(old) :], is_folder=True)
                for name, entry in folder.children.items():
                    if isinstance(entry, Folder):
                        folders.append(entry)
                    else:
                        self.check_name(join(new + folder.path[len(old) :], name))

    # --- what was done

    def publish(self, *infos: ObjectInfo, removed: Collection[str] = ()) -> None:
        """Tell what is gone, and what stands at its path now."""
        changes: list[Change] = [Removed(path) for path in removed]
        changes.extend(self._seen(info) for info in infos)
        self.index.publish(changes)
        for path in removed:
            self._report.clear_below(path)

    def publish_folder_gone(self, folder: str, infos: Iterable[ObjectInfo] = ()) -> None:
        """Tell that a folder is gone with all below it, and what stands elsewhere instead."""
        with self.index.lock:
            hidden = [path for path in self.index.shadowed if path == folder or path.startswith(f"{folder}/")]
            stays = self.index.shadowed.get(folder)  # an object of the folder's own name
            changes: list[Change] = [Removed(path) for path in (*hidden, folder)]
            if stays is not None:
                changes.append(DatafileSeen(stays))
            self.index.publish([*changes, *map(self._seen, infos)])
        self._report.clear_below(folder)

    def publish_markers_gone(self, folders: Iterable[str]) -> None:
        """Tell that folders have no object of their own any more; they stay while something is in them."""
        self.index.publish([FolderGone(path) for path in sorted(folders, reverse=True)])

    def _seen(self, info: ObjectInfo) -> Change:
        return FolderSeen(info) if info.kind is Kind.FOLDER else self._classify(info, None)

    def look(self, path: str) -> ObjectInfo | None:
        """Ask what object stands at a path, let it be known, and return it; None for none."""
        try:
            info = self.store.stat(path)
        except NotFound:
            if self.index.entry(path) is not None:
                self.publish(removed=[path])
            return None
        if info.kind is not Kind.FILE:
            self._look_again([path])
            return None
        self.publish(info)
        return info

    def look_again(self, path: str) -> None:
        """Have a path looked at again, in the background."""
        self._look_again([path])

    def conflict(self, path: str, doing: str) -> Conflict:
        """Return the failure of a change that another writer came before; what they stored is seen from now on."""
        present = self.look(path)
        what = "changed" if present is not None else "removed"
        return Conflict(f"{path}: another writer {what} it meanwhile, so it was not {doing}; look at it and try again")

    @contextmanager
    def leaving(self, path: str) -> Iterator[None]:
        """Within, `path` is taken out of its folder, which gets a marker where nothing else is left to hold it."""
        parent, name = parent_of(path), name_of(path)
        if not parent:
            yield
            return
        with self._lock:
            leaving = self._leaving.setdefault(parent, set())
            leaving.add(name)
            with self.index.lock:
                folder = self.index.folder(parent)
                vanishes = folder is not None and folder.info is None and leaving.issuperset(folder.children)
        try:
            if vanishes:
                self.publish(self.store.make_marker(parent))
            yield
        finally:
            with self._lock:
                leaving.discard(name)
                if not leaving and self._leaving.get(parent) is leaving:
                    del self._leaving[parent]

    def is_empty(self, folder: Folder) -> bool:
        """Say whether nothing is in a folder, in the bucket too, that a program could see."""
        return not folder.children and not any(True for _ in self._visible(folder.path))

    def _visible(self, folder: str) -> Iterator[str]:
        try:
            for item in self.store.scan(folder, recursive=False):
                name = item.path if isinstance(item, ObjectInfo) else item.name
                if not is_temporary(name):
                    yield name
        except NotFound:
            return

    def children(self, folder: str) -> list[Datafile | Other]:
        """Return the files directly in a folder."""
        with self.index.lock:
            found = self.index.folder(folder)
            return [entry for entry in found.children.values() if not isinstance(entry, Folder)] if found else []
