"""What a local writer tells the index: what stands at a path after it was changed.

Each method returns once that is published. The index's lock is held from looking an entry up until its successor is
published, so that no two changes of one file overtake each other.
"""

from collections.abc import Collection, Mapping

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import Change, DatafileSeen, Entry, Folder, FolderSeen, Other, OtherSeen, Removed
from octuefs.errors import NotFound, OctuefsError
from octuefs.keeper import Keeper
from octuefs.model.metadata import DatafileMetadata, OctueDocument
from octuefs.model.paths import METADATA_NAME, join, name_of, parent_of
from octuefs.model.values import same
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import DiskStore
from octuefs.writing.documents import Documents

_TOGETHER = 500
"""So many datafiles are published at once; the index's lock is held meanwhile."""


class LocalFacts:
    """The index of a local dataset, as its writer uses it."""

    def __init__(self, store: DiskStore, keeper: Keeper, documents: Documents) -> None:
        self._store = store
        self._keeper = keeper
        self._documents = documents
        self.index = keeper.index

    # --- questions

    def entry(self, path: str) -> Entry | None:
        """Return what is known to stand at a path."""
        return self.index.entry(path)

    def record_at(self, path: str) -> DatafileMetadata | None:
        """Return the record of a file, be it there or to come; None where there is none."""
        entry = self.index.entry(path)
        if isinstance(entry, Datafile):
            return entry.metadata if entry.metadata is not NO_METADATA else None
        return self.records(parent_of(path)).get(name_of(path))

    def records(self, folder: str) -> Mapping[str, DatafileMetadata]:
        """Return the records of a folder's files, those that come later included, by basename."""
        described = self.index.entry(join(folder, METADATA_NAME))
        try:
            if isinstance(described, Other):
                return self._keeper.stored.document(folder, described.info.version).datafiles
        except OctuefsError:
            return {}  # reported; the keeper gives the file its record once it can be read
        return self._documents.overlay(folder, OctueDocument()).datafiles if self._documents.has(folder) else {}

    # --- files

    def made(self, info: ObjectInfo, metadata: DatafileMetadata | None) -> None:
        """Publish a file that is new under its name."""
        self.index.publish([self._keeper.classify(info, metadata)])
        if self._keeper.other_names.has_broken:
            self._keeper.changed([info.path])

    def changed(self, path: str, info: ObjectInfo | None = None) -> None:
        """Publish what stands at a path, `info` where that is known already.

        :raise NotFound: where nothing does
        """
        if info is None:
            info = self._store.stat(path)
        if info.kind is Kind.FOLDER:
            self.index.publish([FolderSeen(info)])
        elif info.kind is Kind.SYMLINK:
            self._keeper.changed([path]).result()
        else:
            self._file_changed(info)
            self.look(*self._keeper.other_names.of(info))

    def written(self, info: ObjectInfo) -> bool:
        """Publish a regular file after its content changed; False where it is not known to stand at its path."""
        with self.index.lock:
            known = self.index.entry(info.path)
            if not isinstance(known, Datafile) or known.info.inode != info.inode:
                return False
            if known.info.version != info.version and known.info.ctime_ns <= info.ctime_ns:
                self.index.publish([DatafileSeen(Datafile(info, known.location, known.metadata, info))])
        self.look(*self._keeper.other_names.of(info))
        return True

    def _file_changed(self, info: ObjectInfo) -> None:
        with self.index.lock:
            known = self.index.entry(info.path)
            if isinstance(known, Datafile | Other):
                if known.info.version == info.version:
                    return
                if known.info.inode == info.inode and known.info.ctime_ns > info.ctime_ns:
                    return  # another thread has seen what came later
            metadata = known.metadata if isinstance(known, Datafile) and known.metadata is not NO_METADATA else None
            self.index.publish([self._keeper.classify(info, metadata)])

    def look(self, *paths: str) -> None:
        """Have the keeper look at paths, if there are any, and wait for it."""
        if paths:
            self._keeper.changed(paths).result()

    def removed(self, path: str) -> None:
        """Publish that nothing stands at a path any more."""
        others = self._others_at(path)
        self.index.publish([Removed(path)])
        self._keeper.report.clear_below(path)
        self.look(*others)

    def _others_at(self, path: str) -> list[str]:
        """Return the other names of the file that is known to stand at a path."""
        entry = self.index.entry(path)
        return self._keeper.other_names.of(entry.info) if isinstance(entry, Datafile) else []

    def renamed(self, before: ObjectInfo, info: ObjectInfo, metadata: DatafileMetadata | None) -> None:
        """Publish that the file which `before` described is now what `info` does, with its content as it was."""
        others = {*self._others_at(before.path), *self._others_at(info.path)} - {before.path, info.path}
        change = self._keeper.classify(info, metadata)  # asks the disk where it is a link
        with self.index.lock:
            known = self.index.entry(before.path)
            if (
                isinstance(change, DatafileSeen)
                and isinstance(known, Datafile)
                and known.content is not None
                and known.content.version == before.version
                and (before.size, before.mtime_ns) == (info.size, info.mtime_ns)
            ):
                change.datafile.crc32c = known.crc32c
            self.index.publish([Removed(before.path), change])
        self._keeper.report.clear_below(before.path)
        self.look(*others)
        if self._keeper.other_names.has_broken:
            self._keeper.changed([info.path])

    def described(self, path: str, datafile: Datafile, metadata: DatafileMetadata) -> Datafile:
        """Publish other metadata of a datafile, under the index's lock, and return what is known then."""
        new = with_metadata(datafile, metadata)
        self.index.publish([DatafileSeen(new)])
        return new

    # --- folders

    def folder_moved(self, old: str, new: str) -> None:
        """Publish that a folder has another name: all that is known in it and below it moves along."""
        info = self._store.stat(new)
        links: list[str] = []
        with self.index.lock:
            changes: list[Change] = [Removed(old), Removed(new), FolderSeen(info)]
            start = self.index.folder(old)
            pending = [start] if start is not None else []
            while pending:
                for child in pending.pop().children.values():
                    if isinstance(child, Folder):
                        pending.append(child)
                    if (change := _moved(child, old, new)) is not None:
                        changes.append(change)
                    if not isinstance(child, Folder) and child.info.kind is Kind.SYMLINK:
                        links.append(new + child.info.path[len(old) :])
            self.index.publish(changes)
        self._keeper.report.clear_below(old)
        links += self._keeper.other_names.leading_below(old)
        looked_at = self._keeper.changed([old, new, *links])
        if links:  # a relative one may lead elsewhere now
            looked_at.result()

    def document_written(self, folder: str, document: OctueDocument, names: Collection[str]) -> None:
        """Publish what a folder's `.octue` says, newly written: of the files of `names`, and whatever else is new."""
        path = join(folder, METADATA_NAME)
        if self.index.folder(folder) is None:
            return
        self._file_written(path, folder, self._documents.overlay(folder, document))
        with self.index.lock:
            known = self.index.folder(folder)
            files = [it for it in known.children.values() if isinstance(it, Datafile)] if known is not None else []
        for start in range(0, len(files), _TOGETHER):
            with self.index.lock:
                # Once more: changes may have come meanwhile.
                records = self._documents.overlay(folder, document).datafiles
                changes: list[Change] = []
                for file in files[start : start + _TOGETHER]:
                    entry = self.index.entry(file.path)
                    if not isinstance(entry, Datafile):
                        continue
                    metadata = records.get(entry.name, NO_METADATA)
                    if entry.metadata != metadata or not same(entry.metadata.tags, metadata.tags):
                        changes.append(DatafileSeen(with_metadata(entry, metadata)))
                    elif entry.name in names:
                        changes.append(DatafileSeen(entry))  # a reading that began before this is older now
                if changes:
                    self.index.publish(changes)

    def _file_written(self, path: str, folder: str, document: OctueDocument) -> None:
        """Publish the `.octue` file itself.

        The record of the dataset, be it ours or another's, is the keeper's to take in: the file then counts as one
        that it has not seen.
        """
        try:
            info = self._store.stat(path)
        except NotFound:
            info = None
        known = self.index.entry(path)
        stored = self._keeper.stored
        if folder or document.dataset == stored.dataset:
            if info is not None:
                self.index.publish([OtherSeen(info)])
            elif known is not None:
                self.index.publish([Removed(path)])
            return
        unseen = info if info is not None else known.info if isinstance(known, Other) else None
        if unseen is not None:
            self.index.publish([OtherSeen(unseen._replace(version=None))])
            self._keeper.changed([path])
        else:  # there never was a file
            with self.index.lock:
                stored.dataset = self._documents.overlay(folder, OctueDocument()).dataset


def with_metadata(datafile: Datafile, metadata: DatafileMetadata) -> Datafile:
    """Return a datafile with other metadata and the same content."""
    new = Datafile(datafile.info, datafile.location, metadata, datafile.content)
    new.crc32c = datafile.crc32c
    return new


def _moved(entry: Entry, old: str, new: str) -> Change | None:
    """Return what an entry below a renamed folder is under its new path."""

    def moved(info: ObjectInfo) -> ObjectInfo:
        return info._replace(path=new + info.path[len(old) :])

    if isinstance(entry, Folder):
        return FolderSeen(moved(entry.info)) if entry.info is not None else None
    if isinstance(entry, Other):
        return OtherSeen(moved(entry.info))
    content = entry.content
    if content is not None and content.path.startswith(f"{old}/"):
        content = moved(content)
    datafile = Datafile(moved(entry.info), entry.location, entry.metadata, content)
    datafile.crc32c = entry.crc32c
    return DatafileSeen(datafile)
