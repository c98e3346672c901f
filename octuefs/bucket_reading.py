"""How a bucket is read whole: what is listed is packed where nothing is known yet, else compared as it comes.

The keeper calls, in its thread. Nothing of a listing is kept but what differs, so that a million objects cost no more
room while they are listed again than they do otherwise.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pyroaring import BitMap

from octuefs.classification import HASH_NOT_TOLD, Classifier
from octuefs.datafile import Datafile
from octuefs.entries import Change, Folder, FolderGone, FolderSeen, Other, OtherSeen, Removed
from octuefs.facts.pack import Version
from octuefs.facts.snapshot import Builder, Snapshot
from octuefs.index import Index
from octuefs.model.paths import METADATA_NAME, is_temporary, parent_of
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo, Skipped

_REPORTED_EACH = 500
_TOGETHER = 500
"""How many differences are published at a time."""
_TABLES = 32
"""How many folders are kept ready to compare with: a listing in several parts is in several folders at a time."""

Progress = Callable[[int], None]


@dataclass
class Found:
    """What a listing of a whole bucket had besides datafiles."""

    describes: Callable[[ObjectInfo], object]
    """Told of the root's `.octue`, before it is yielded."""
    described: ObjectInfo | None = None
    """That object."""
    skipped: dict[str, str] = field(default_factory=dict)
    """By name why something cannot be shown."""
    leftovers: list[ObjectInfo] = field(default_factory=list)
    """Temporary objects of ours."""

    def sort(
        self, found: Iterable[ObjectInfo | Skipped], progress: Progress | None, *, folders: bool
    ) -> Iterator[ObjectInfo]:
        """Take in what is besides, and yield all that shows; without `folders` none of these."""
        count = 0
        for item in found:
            if isinstance(item, Skipped):
                self.skipped[item.name] = item.reason
                continue
            path = item.path
            if item.kind is Kind.FOLDER:
                if folders:
                    yield item
                continue
            if path.endswith(METADATA_NAME):
                if is_temporary(path):
                    self.leftovers.append(item)
                    continue
                if path == METADATA_NAME:
                    self.described = item
                    self.describes(item)
            yield item
            count += 1
            if progress is not None and count % _REPORTED_EACH == 0:
                progress(count)


def pack_all(infos: Iterable[ObjectInfo], builder: Builder, classifier: Classifier, report: Report) -> Snapshot:
    """Return all that is listed, packed; what is wrong with the metadata of datafiles is reported."""
    for info in infos:
        if info.kind is Kind.FOLDER:
            builder.add_folder(info)
        elif classifier.counts(info):
            builder.add(info)
        else:
            builder.add_other(info)
    snapshot, problems = builder.finish()
    for path in builder.unhashed:
        problems[path] = [*problems.get(path, ()), HASH_NOT_TOLD]
    for path, texts in problems.items():
        report.set_problems(path, texts)
    return snapshot


class Comparison:
    """Compares what is listed of a whole bucket, in any order, with what the index knew when that began."""

    def __init__(self, index: Index, classify: Callable[[ObjectInfo], Change]) -> None:
        self._index = index
        self._classify = classify
        self._before = index.datafiles.copy()
        self._seen = array("I")
        """The rows of the datafiles that were listed."""
        self._others_seen: set[str] = set()
        """The paths of what is no datafile, or has no row."""
        self._folders_seen: set[str] = set()
        self._hidden_before = set(index.shadowed)
        self._hidden: dict[str, int] = {}
        """The rows that datafiles had which a folder hides since, by path."""
        self._looked_above: set[str] = set()
        self._differing: set[str] = set()
        """The paths of what differed, which may have rows of what has gone."""
        self._tables: dict[str, tuple[dict[str, int], list[Version], int, int] | None] = {}
        """Of folders that are packed the places by name, the versions, the number of datafiles and their first row."""

    def differences(self, infos: Iterable[ObjectInfo]) -> Iterator[list[Change]]:
        """Yield in portions what is listed and not known as it is."""
        portion: list[Change] = []
        for info in infos:
            if info.kind is Kind.FOLDER:
                self._folders_seen.add(info.path)
                self._note_hidden(info.path)
                known = self._index.entry(info.path)
                present = known.info if isinstance(known, Folder) else None
                if present is None or present.version != info.version:
                    portion.append(FolderSeen(info))
            elif not self._is_known(info):
                change = self._classify(info)
                self._differing.add(info.path)
                self._note_hidden(parent_of(info.path))
                if not (isinstance(change, OtherSeen) and isinstance(self._index.entry(info.path), Folder)):
                    portion.append(change)
            if len(portion) >= _TOGETHER:
                yield portion
                portion = []
        yield portion

    def _note_hidden(self, folder: str) -> None:
        """Take note of the datafiles that stand where a folder is to stand, or one above it."""
        while folder and folder not in self._looked_above:
            self._looked_above.add(folder)
            entry = self._index.entry(folder)
            if isinstance(entry, Datafile):
                self._hidden[folder] = entry.row
            folder = parent_of(folder)

    def _is_known(self, info: ObjectInfo) -> bool:
        folder, _, name = info.path.rpartition("/")
        table = self._tables[folder] if folder in self._tables else self._table(folder)
        if table is not None:
            places, versions, datafiles, first_row = table
            at = places.get(name)
            if at is None:
                self._others_seen.add(info.path)  # one that a folder hides, or a new one
                hidden = self._index.shadowed.get(info.path)
                return hidden is not None and hidden.info.version == info.version
            if at < datafiles:
                self._seen.append(first_row + at)
            else:
                self._others_seen.add(info.path)
            return versions[at] == info.version
        known = self._index.shadowed.get(info.path) or self._index.entry(info.path)
        if isinstance(known, Datafile) and known.row >= 0:
            self._seen.append(known.row)
        else:
            self._others_seen.add(info.path)
        return isinstance(known, Datafile | Other) and known.info.version == info.version

    def _table(self, folder: str) -> tuple[dict[str, int], list[Version], int, int] | None:
        packed = self._index.packed_at(folder)
        if len(self._tables) >= _TABLES:
            del self._tables[next(iter(self._tables))]
        table = None
        if packed is not None:
            places = {name: at for at, name in packed.named()}
            table = places, list(packed.versions()), packed.datafiles, packed.first_row
        self._tables[folder] = table
        return table

    def removals(self) -> Iterator[Change]:
        """Yield, once all is listed, what was known and is there no more."""
        index = self._index
        unseen = self._before - BitMap(self._seen)
        with index.lock:
            missing = index.resolve(unseen & index.datafiles)
        yield from (Removed(path) for datafile in missing if (path := datafile.path) not in self._differing)
        for info, _ in list(index.objects(datafiles=False)):
            if info.kind is Kind.FOLDER:
                if info.path not in self._folders_seen:
                    yield FolderGone(info.path)
            elif info.path not in self._others_seen:
                yield Removed(info.path)
        hidden = [*self._hidden_before, *(path for path, row in self._hidden.items() if row in unseen)]
        for path in hidden:
            if path in index.shadowed and path not in self._others_seen:
                yield Removed(path)
