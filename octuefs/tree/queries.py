"""The conditions that views stand for, as set operations on the index. Hashable values, no I/O."""

from dataclasses import dataclass
from datetime import date

from pyroaring import BitMap

from octuefs.index import Index, Query
from octuefs.model.filters import Filter


def _union(bitmaps: "list[BitMap]") -> BitMap:
    return BitMap.union(*bitmaps) if bitmaps else BitMap()


@dataclass(frozen=True, slots=True)
class HasLabel:
    """One of these labels."""

    labels: frozenset[str]

    @property
    def needs_hashes(self) -> bool:
        """See `Query`."""
        return False

    def select(self, index: Index, among: BitMap) -> BitMap:
        """See `Query`."""
        return among & _union([index.by_label[label] for label in self.labels if label in index.by_label])


@dataclass(frozen=True, slots=True)
class HasExtension:
    """One of these extensions, "" for none."""

    extensions: frozenset[str]

    @property
    def needs_hashes(self) -> bool:
        """See `Query`."""
        return False

    def select(self, index: Index, among: BitMap) -> BitMap:
        """See `Query`."""
        table = index.by_extension
        return among & _union([table[extension] for extension in self.extensions if extension in table])


@dataclass(frozen=True, slots=True)
class HasTag:
    """A tag (a dotted key, as `viewnames.tag_entries` writes it) with one of these values as text."""

    key: str
    values: frozenset[str]

    @property
    def needs_hashes(self) -> bool:
        """See `Query`."""
        return False

    def select(self, index: Index, among: BitMap) -> BitMap:
        """See `Query`."""
        table = index.by_tag.get(self.key, {})
        return among & _union([table[value] for value in self.values if value in table])


@dataclass(frozen=True, slots=True)
class HasDate:
    """A timestamp whose date has one of these years, months and days."""

    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]

    @property
    def needs_hashes(self) -> bool:
        """See `Query`."""
        return False

    def _has(self, day: date) -> bool:
        return day.year in self.years and day.month in self.months and day.day in self.days

    def select(self, index: Index, among: BitMap) -> BitMap:
        """See `Query`."""
        return among & _union([bitmap for day, bitmap in index.by_date.items() if self._has(day)])


@dataclass(frozen=True, slots=True)
class HasHash:
    """One of these hashes; the caller has seen to it that they are known."""

    hashes: frozenset[str]

    @property
    def needs_hashes(self) -> bool:
        """See `Query`."""
        return True

    def select(self, index: Index, among: BitMap) -> BitMap:
        """See `Query`."""
        return among & _union([index.by_hash[value] for value in self.hashes if value in index.by_hash])


@dataclass(frozen=True, slots=True)
class Satisfies:
    """All of these filters."""

    filters: tuple[Filter, ...]

    @property
    def needs_hashes(self) -> bool:
        """See `Query`."""
        return any(filter_.attribute == "hash_value" for filter_ in self.filters)

    def select(self, index: Index, among: BitMap) -> BitMap:
        """See `Query`."""
        for filter_ in self.filters:
            among = BitMap(datafile.row for datafile in index.resolve(among) if filter_.matches(datafile))
        return among


@dataclass(frozen=True, slots=True)
class Not:
    """What another condition leaves out."""

    query: Query

    @property
    def needs_hashes(self) -> bool:
        """See `Query`."""
        return self.query.needs_hashes

    def select(self, index: Index, among: BitMap) -> BitMap:
        """See `Query`."""
        return among - self.query.select(index, among)
