"""What a listing of a store says that the index does not know: the pure part of keeping one true to the other.

The keeper calls with what it has listed, and reads what is needed of the files that differ. Nothing here asks a store
or changes the index.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from octuefs.datafile import Datafile
from octuefs.entries import Change, Folder, FolderGone, FolderSeen, Other, Removed
from octuefs.index import Index
from octuefs.model.paths import METADATA_NAME, is_temporary, join, name_of, parent_of
from octuefs.stores.base import Kind, ObjectInfo, Skipped

_REPORTED_EACH = 500


@dataclass
class Listing:
    """What a store has in a folder `top`, and below it where that was asked for."""

    top: str
    recursive: bool
    folders: dict[str, ObjectInfo] = field(default_factory=dict)
    files: dict[str, dict[str, ObjectInfo]] = field(default_factory=dict)
    """By folder and name all that is no folder; `top` is always there."""
    skipped: dict[str, str] = field(default_factory=dict)
    """By name why something cannot be shown."""
    leftovers: list[ObjectInfo] = field(default_factory=list)
    """Temporary files or objects of ours."""

    @classmethod
    def of(
        cls,
        top: str,
        found: Iterable[ObjectInfo | Skipped],
        progress: Callable[[int], None] | None = None,
        *,
        recursive: bool,
        folders: bool = True,
    ) -> "Listing":
        """Sort what was found, by folder and by name: a store may tell it in any order.

        Without `folders` none count. `progress` is told how many files have been seen.
        """
        listing = cls(top, recursive, files={top: {}})
        count = 0
        for item in found:
            if isinstance(item, Skipped):
                listing.skipped[item.name] = item.reason
            elif is_temporary(item.path):
                listing.leftovers.append(item)
            elif item.kind is Kind.FOLDER:
                if folders:
                    listing.folders[item.path] = item
            else:
                listing.files.setdefault(parent_of(item.path), {})[name_of(item.path)] = item
                count += 1
                if progress is not None and count % _REPORTED_EACH == 0:
                    progress(count)
        listing.folders = dict(sorted(listing.folders.items()))
        listing.files = {folder: dict(sorted(infos.items())) for folder, infos in sorted(listing.files.items())}
        return listing

    def admit(self, admits: Callable[[str], bool], admits_folder: Callable[[str], bool]) -> None:
        """Leave out what does not belong to a dataset that names its files."""
        kept = {
            folder: {name: info for name, info in infos.items() if admits(info.path)}
            for folder, infos in self.files.items()
        }
        self.files = {folder: infos for folder, infos in kept.items() if infos or folder == self.top}
        self.folders = {path: info for path, info in self.folders.items() if admits_folder(path)}


def removals(index: Index, listing: Listing, *, in_cloud: bool) -> Iterator[Change]:
    """Yield what the index knows and the store has no more; in the cloud folders stay that content implies."""
    start = index.folder(listing.top)
    pending = [start] if start else []
    while pending:
        folder = pending.pop()
        present = listing.files.get(folder.path, {})
        for name, entry in folder.children.items():
            path = join(folder.path, name)
            if not isinstance(entry, Folder):
                if name not in present:
                    yield Removed(path)
            elif path in listing.folders or in_cloud:
                if entry.info is not None and path not in listing.folders:
                    yield FolderGone(path)
                if listing.recursive:
                    pending.append(entry)
            else:
                yield Removed(path)
    for path in list(index.shadowed):
        parent = parent_of(path)
        looked_at = parent == listing.top or (listing.recursive and lies_at_or_below(parent, {listing.top}))
        if looked_at and name_of(path) not in listing.files.get(parent, {}):
            yield Removed(path)


def folder_changes(index: Index, folders: Iterable[ObjectInfo]) -> Iterator[Change]:
    """Yield the folders that are not known as they are; of the root its owner and permissions count."""
    for info in folders:
        known = index.entry(info.path)
        present = known.info if isinstance(known, Folder) else None
        if present is None or (
            present.version != info.version
            if info.path
            else (present.mode, present.uid, present.gid) != (info.mode, info.uid, info.gid)
        ):
            yield FolderSeen(info)


def differing_files(index: Index, infos: Iterable[ObjectInfo], may_differ: Callable[[str], bool]) -> list[ObjectInfo]:
    """Return those of a folder that are not known as they are, and datafiles that may differ all the same."""
    found = []
    for info in infos:
        known = index.shadowed.get(info.path) or index.entry(info.path)
        same = isinstance(known, Datafile | Other) and known.info.version == info.version
        if not same or (isinstance(known, Datafile) and may_differ(info.path)):
            found.append(info)
    return found


def metadata_file_changed(index: Index, folder: str, present: ObjectInfo | None) -> bool:
    """Say whether a folder's `.octue` is another than is known; None stands for none."""
    known = index.entry(join(folder, METADATA_NAME))
    if not isinstance(known, Other) or present is None:
        return isinstance(known, Other) or present is not None
    return known.info.version != present.version


def lies_at_or_below(path: str, places: Collection[str]) -> bool:
    """Say whether a path is one of `places`, or lies below one; "" is the root, above all."""
    if path in places or "" in places:
        return True
    while path := parent_of(path):
        if path in places:
            return True
    return False
