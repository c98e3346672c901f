"""The index folders whose values follow from what files are, and the table of all index folders.

A value that does not occur in the directory D that a view stands in does not exist, but a valid filter or order always
does.
"""

import stat
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import Any

from octuefs.datafile import Datafile
from octuefs.errors import BadValue, NotUnique
from octuefs.model.filters import Filter, parse_filters
from octuefs.model.hashes import from_url_safe, url_safe
from octuefs.model.ordering import Ordering, parse_ordering
from octuefs.model.viewnames import decode_extension, decode_name, encode_extension
from octuefs.tree.context import Context
from octuefs.tree.node import DirectoryEntry, Node
from octuefs.tree.queries import HasDate, HasExtension, HasHash, Satisfies
from octuefs.tree.real import DatafileNode
from octuefs.tree.scope import Scope
from octuefs.tree.values import ByLabel, ByTag
from octuefs.tree.view import View, encoded


class ByExtension(View[str]):
    """`by-ext/<extension>[,...]/`."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        return encoded(self.occurring(self.index.by_extension), encode_extension)

    @classmethod
    def values(cls, name: str) -> Sequence[str]:
        """See `View`."""
        return [decode_extension(part) for part in name.split(",") if part]

    def present(self, values: Sequence[str]) -> Sequence[str]:
        """See `View`."""
        return self.among(self.index.by_extension, values)

    def chosen(self, name: str, values: Sequence[str]) -> Node:
        """See `View`."""
        return self.narrowed(name, HasExtension(frozenset(values)))


class ByDate(View[str]):
    """`by-date/<YYYY>/<MM>/<DD>/`, one class for the three levels: `above` holds the levels above."""

    def __init__(
        self,
        scope: Scope,
        path: str,
        context: Context,
        *,
        negated: bool,
        above: tuple[frozenset[int], ...] = (),
    ) -> None:
        super().__init__(scope, path, context, negated=negated)
        self.above = above

    def _dates(self) -> Iterable[date]:
        here = self.rows()
        for day, rows in list(self.index.by_date.items()):
            chosen = all(part in parts for part, parts in zip(_parts(day), self.above, strict=False))
            if chosen and rows.intersect(here):
                yield day

    def names(self) -> Iterable[str]:
        """See `View`."""
        level = len(self.above)
        return sorted({_part_name(level, _parts(day)[level]) for day in self._dates()})

    @classmethod
    def values(cls, name: str) -> Sequence[str]:
        """See `View`."""
        return [part for part in name.split(",") if part]

    def present(self, values: Sequence[str]) -> Collection[str]:
        """See `View`."""
        return set(values).intersection(self.names())

    def chosen(self, name: str, values: Sequence[str]) -> Node:
        """See `View`."""
        chosen = (*self.above, frozenset(int(part) for part in values))
        if len(chosen) == 3:
            return self.narrowed(name, HasDate(*chosen))
        return ByDate(self.scope, self.child_path(name), self.context, negated=self.negated, above=chosen)


class ByHash(View[str]):
    """`by-hash/<hash>[,...]/`, in the URL-safe alphabet."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        return sorted({url_safe(datafile.hash_value) for datafile in self.scope.hashed_members()})

    @classmethod
    def values(cls, name: str) -> Sequence[str]:
        """See `View`."""
        return [from_url_safe(part) for part in name.split(",") if part]

    def present(self, values: Sequence[str]) -> Sequence[str]:
        """See `View`."""
        if self.index.unhashed:
            self.scope.hashed_members()
        return self.among(self.index.by_hash, values)

    def chosen(self, name: str, values: Sequence[str]) -> Node:
        """See `View`."""
        return self.narrowed(name, HasHash(frozenset(values)))


class ById(View[str]):
    """`by-id/<uuid>`: the datafile itself."""

    @property
    def leads_to(self) -> int:
        """See `View`."""
        return stat.S_IFREG

    def _by_id(self) -> dict[str, list[Datafile]]:
        scope = self.scope
        scope.settle()

        def compute() -> dict[str, list[Datafile]]:
            members = self.index.members(scope.folder, scope.queries)
            if not scope.is_view:
                members += [it for it in self.index.shadowed.values() if scope.contains(it.path)]
            table: dict[str, list[Datafile]] = {}
            for datafile in members:
                table.setdefault(self.index.id_of(datafile), []).append(datafile)
            return table

        return self.index.cached(
            ("ids", scope.folder, scope.queries, scope.is_view), compute, hashed=scope.needs_hashes
        )

    def names(self) -> Iterable[str]:
        """See `View`."""
        return sorted(self._by_id())

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        dataset = self.scope.dataset
        return [
            DirectoryEntry(name, shown.inode, shown.mode)
            for name, datafiles in sorted(self._by_id().items())
            for shown in [DatafileNode(dataset, datafiles[0], in_view=True).shown]
        ]

    @classmethod
    def values(cls, name: str) -> Sequence[str]:
        """See `View`."""
        return [name.lower()]

    def present(self, values: Sequence[str]) -> Sequence[str]:
        """See `View`."""
        table = self._by_id()
        return [datafile_id for datafile_id in values if datafile_id in table]

    def chosen(self, name: str, values: Sequence[str]) -> Node:
        """See `View`.

        :raise NotFound: where it is not here after all
        :raise NotUnique: where several datafiles have the ID
        """
        (datafile_id,) = values
        datafiles = self._by_id().get(datafile_id)
        if not datafiles:
            raise self.missing(name)
        if len(datafiles) > 1:
            raise NotUnique(f"{self.child_path(name)}: {len(datafiles)} datafiles have this ID")
        return DatafileNode(self.scope.dataset, datafiles[0], in_view=True)


class FilterView(View[Filter]):
    """`filter/<expression>[,...]/`; lists nothing, for its names have no end."""

    open_ended = True

    @classmethod
    def values(cls, name: str) -> Sequence[Filter]:
        """See `View`."""
        return parse_filters(name)

    def chosen(self, name: str, values: Sequence[Filter]) -> Node:
        """See `View`."""
        return self.narrowed(name, Satisfies(tuple(values)))


class OrderView(View[Ordering]):
    """`order-by/<attribute>/` and `order-by/-<attribute>/`; lists nothing."""

    open_ended = True

    @classmethod
    def values(cls, name: str) -> Sequence[Ordering]:
        """See `View`."""
        return [parse_ordering(decode_name(name))]

    def chosen(self, name: str, values: Sequence[Ordering]) -> Node:
        """See `View`."""
        (order,) = values
        return self.context.directory(self.scope.ordered(order), self.child_path(name))


class NotView(View[str]):
    """`not/<view>/...`; lists nothing."""

    open_ended = True

    @classmethod
    def values(cls, name: str) -> Sequence[str]:
        """See `View`: the name of the next view."""
        if name not in NEGATABLE:
            raise BadValue(f"`not` is followed by one of {', '.join(NEGATABLE)}")
        return [name]

    def chosen(self, name: str, values: Sequence[str]) -> Node:
        """See `View`."""
        (view,) = values
        return NEGATABLE[view](self.scope, self.child_path(name), self.context, negated=not self.negated)


def _parts(day: date) -> tuple[int, int, int]:
    return day.year, day.month, day.day


def _part_name(level: int, part: int) -> str:
    return f"{part:0{4 if level == 0 else 2}}"


VIEWS: dict[str, type[View[Any]]] = {
    "by-label": ByLabel,
    "by-ext": ByExtension,
    "by-tag": ByTag,
    "by-date": ByDate,
    "by-id": ById,
    "by-hash": ByHash,
    "filter": FilterView,
    "not": NotView,
    "order-by": OrderView,
}
"""The index folders of every directory, by name."""

NEGATABLE: dict[str, type[View[Any]]] = {
    name: kind for name, kind in VIEWS.items() if name not in ("by-id", "order-by")
}
