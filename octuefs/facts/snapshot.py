"""All facts of a bucket at one moment, packed folder by folder, with the rows of each label, extension, date and tag.

`Builder` makes one of what a store lists, object by object in any order; `facts.file` keeps it on disk; an index begins
with one and unpacks folders when they are looked into. Folders stand in the order of a walk, each before those in it,
so all that is in and below one has neighbouring rows.
"""

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TypeVar

from pyroaring import BitMap

from octuefs.facts.pack import Bucket, Draft, Pack, Packed, is_ordinary, one_pack, pack
from octuefs.facts.templates import NotPlain
from octuefs.model.metadata import extension_of
from octuefs.model.paths import join, name_of, parent_of
from octuefs.model.viewnames import tag_entries
from octuefs.stores.base import ObjectInfo

Key = TypeVar("Key")


@dataclass
class Rows:
    """The rows of the datafiles that have something, by what they have."""

    labels: dict[str, BitMap] = field(default_factory=dict)
    extensions: dict[str, BitMap] = field(default_factory=dict)
    dates: dict[date, BitMap] = field(default_factory=dict)
    tags: dict[str, dict[str, BitMap]] = field(default_factory=dict)
    """By key and by value as text."""


class Snapshot:
    """The facts. Never changed."""

    def __init__(
        self, packs: list[Pack], markers: Mapping[str, ObjectInfo], shadowed: Pack | None, rows: Rows, total_bytes: int
    ) -> None:
        """`packs` are those of all folders in the order of a walk, of the root first.

        `markers` describe the folders that have an object of their own, `shadowed` holds the datafiles that folders of
        the same name hide, by path.

        :raise ValueError: where that is not so
        """
        self.packs = packs
        self.markers = markers
        self.shadowed = shadowed
        self.rows = rows
        self.total_bytes = total_bytes
        if not packs or packs[0].folder:
            raise ValueError("its first folder is not the root")
        self.below: list[list[int]] = [[] for _ in packs]
        """By number of a folder the numbers of those in it."""
        self._first_rows = array("q")
        numbers: dict[str, int] = {}
        self.numbers = numbers
        """The number of each folder by its path."""
        count = 0
        for number, pack_ in enumerate(packs):
            folder = pack_.folder
            numbers[folder] = number
            if number:
                above = numbers.get(parent_of(folder))
                if above is None:
                    raise ValueError("a folder stands before the one it is in")
                self.below[above].append(number)
            pack_.first_row = count
            self._first_rows.append(count)
            count += pack_.datafiles
        self.count = count
        """How many datafiles there are; rows begin at 0."""
        self._ends = array("q", [pack_.first_row + pack_.datafiles for pack_ in packs])
        for number in range(len(packs) - 1, 0, -1):
            above = numbers[parent_of(packs[number].folder)]
            self._ends[above] = max(self._ends[above], self._ends[number])

    def rows_of(self, number: int) -> range:
        """Return the rows of the datafiles in and below a folder."""
        return range(self._first_rows[number], self._ends[number])

    def objects(self, number: int, *, datafiles: bool = True) -> Iterator[tuple[ObjectInfo, bool]]:
        """Yield what is in and below a folder and has an object, and whether it is a datafile; or only what is none."""
        pending = [number]
        while pending:
            number = pending.pop()
            packed = self.packs[number]
            for below in self.below[number]:
                marker = self.markers.get(self.packs[below].folder)
                if marker is not None:
                    yield marker, False
            pending += self.below[number]
            if datafiles or packed.count > packed.datafiles:
                for at, name in packed.named():
                    if datafiles or at >= packed.datafiles:
                        yield packed.info(at, name), at < packed.datafiles

    def sizes(self, number: int) -> Iterator[int]:
        """Yield the size of each datafile in and below a folder."""
        pending = [number]
        while pending:
            number = pending.pop()
            pending += self.below[number]
            yield from self.packs[number].sizes()

    def named(self, number: int, names: Collection[str]) -> Iterator[str]:
        """Yield the paths of the files and folders in and below a folder that have one of some names."""
        wanted = {name.encode("utf-8", "surrogatepass") for name in names}
        ordinary = any(map(is_ordinary, names))
        pending = [number]
        while pending:
            number = pending.pop()
            packed = self.packs[number]
            if (ordinary or not packed.has_ordinary_names) and not wanted.isdisjoint(packed.names_text.split(b"\0")):
                yield from (join(packed.folder, name) for name in packed.names() if name in names)
            for below in self.below[number]:
                path = self.packs[below].folder
                if name_of(path) in names:
                    yield path
            pending += self.below[number]

    def pack_of_row(self, row: int) -> Pack:
        """Return the pack that a row is in."""

        return self.packs[bisect_right(self._first_rows, row) - 1]

    def checksums(self) -> "array[int]":
        """Return the CRC32C of each datafile by its row."""
        column = array("I")
        for pack_ in self.packs:
            column.extend(pack_.checksums())
        return column

    def ids(self) -> Iterator[str]:
        """Yield the IDs that are stored with datafiles."""
        for pack_ in self.packs:
            yield from pack_.ids()


class Builder:
    """Makes a snapshot."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._drafts: dict[str, Draft] = {"": Draft()}
        self._markers: dict[str, ObjectInfo] = {}
        self._shadowed: dict[str, Packed] = {}
        self.unhashed: list[str] = []
        """The paths of datafiles whose hash the bucket does not tell."""

    def add(self, info: ObjectInfo) -> None:
        """Take in a datafile."""
        folder, _, name = info.path.rpartition("/")
        draft = self._drafts.get(folder)
        if draft is None:
            draft = self._draft(folder)
        draft.add(name, pack(info, self._bucket.templates))
        if info.crc32c is None:
            self.unhashed.append(info.path)

    def add_other(self, info: ObjectInfo) -> None:
        """Take in an object that is no datafile."""
        self._draft(parent_of(info.path)).others[name_of(info.path)] = pack(info, self._bucket.templates)

    def add_folder(self, info: ObjectInfo) -> None:
        """Take in the object of a folder."""
        self._draft(info.path)
        self._markers[info.path] = info

    def add_shadowed(self, info: ObjectInfo) -> None:
        """Take in a datafile that the folder of its name hides; one that is told by `add` is found out to be such."""
        self._shadowed[info.path] = pack(info, self._bucket.templates)

    def _draft(self, folder: str) -> Draft:
        draft = self._drafts.get(folder)
        if draft is None:
            if folder:
                self._draft(parent_of(folder))
            draft = self._drafts[folder] = Draft()
        return draft

    def finish(self) -> tuple[Snapshot, dict[str, list[str]]]:
        """Return the snapshot, and by path what is wrong with the metadata of datafiles. The builder is empty then."""
        inside: dict[str, dict[str, None]] = {}
        for folder in self._drafts:
            if folder:
                inside.setdefault(parent_of(folder), {})[name_of(folder)] = None
        for folder, names in inside.items():
            draft = self._drafts[folder]
            for name, packed in draft.take(names).items():
                self._shadowed[join(folder, name)] = packed
            for name in names.keys() & draft.others.keys():
                del draft.others[name]
        packs = []
        for folder in sorted(self._drafts, key=lambda folder: folder.replace("/", "\0")):
            packs.append(self._drafts.pop(folder).finish(self._bucket, folder))
        shadowed = one_pack(self._bucket, "", self._shadowed) if self._shadowed else None
        problems: dict[str, list[str]] = {}
        rows, total_bytes = _rows_of(packs, problems)
        if shadowed is not None:
            for at, path in enumerate(shadowed.names()):
                _, found = shadowed.decoded(at)
                if found:
                    problems[path] = found
        return Snapshot(packs, self._markers, shadowed, rows, total_bytes), problems


def _rows_of(packs: list[Pack], problems: dict[str, list[str]]) -> tuple[Rows, int]:
    """Return the rows of what datafiles have and the sum of their sizes; note what is wrong with any."""
    extensions: dict[str, array[int]] = {}
    dates: dict[date, array[int]] = {}
    labels: dict[str, array[int]] = {}
    tags: dict[str, dict[str, array[int]]] = {}
    templates: dict[int, array[int]] = {}
    row = total_bytes = 0
    for pack_ in packs:
        total_bytes += sum(pack_.sizes())
        all_templates = pack_.bucket.templates.all
        for at, (name, number) in enumerate(zip(pack_.names(), pack_.template_numbers(), strict=False)):
            _note(extensions, extension_of(name), row)
            template = all_templates[number]
            texts = pack_.texts(at)
            try:
                timestamp = template.plain_timestamp(texts)
                _note(templates, number, row)
            except NotPlain:
                metadata, found = template.metadata(texts)
                if found:
                    problems[join(pack_.folder, name)] = found
                timestamp = metadata.timestamp if metadata is not None else None
                for label in metadata.labels if metadata is not None else ():
                    _note(labels, label, row)
                for key, text in tag_entries(metadata.tags) if metadata is not None else ():
                    _note(tags.setdefault(key, {}), text, row)
            if timestamp is not None:
                _note(dates, timestamp.date(), row)
            row += 1
    for number, rows in templates.items():
        common = packs[0].bucket.templates.all[number].decoded[0]
        if common is not None:
            for label in common.labels:
                labels.setdefault(label, array("I")).extend(rows)
            for key, text in tag_entries(common.tags):
                tags.setdefault(key, {}).setdefault(text, array("I")).extend(rows)
    return (
        Rows(
            _bitmaps(labels),
            _bitmaps(extensions),
            _bitmaps(dates),
            {key: _bitmaps(table) for key, table in tags.items()},
        ),
        total_bytes,
    )


def _note(table: "dict[Key, array[int]]", key: Key, row: int) -> None:
    rows = table.get(key)
    if rows is None:
        rows = table[key] = array("I")
    rows.append(row)


def _bitmaps(table: "dict[Key, array[int]]") -> dict[Key, BitMap]:
    return {key: BitMap(rows) for key, rows in table.items()}
