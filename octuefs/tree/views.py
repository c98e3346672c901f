"""The index folders whose values follow from what files are, and the table of all index folders.

A value that does not occur in the directory D that a view stands in does not exist, but a valid filter or order always
does.
"""

import stat
from collections.abc import Iterable
from datetime import date

from octuefs.datafile import Datafile
from octuefs.errors import BadValue, NotFound, NotUnique
from octuefs.model.filters import parse_filters
from octuefs.model.hashes import from_url_safe, url_safe
from octuefs.model.ordering import parse_ordering
from octuefs.model.viewnames import decode_extension, decode_name, encode_extension
from octuefs.tree.context import Context
from octuefs.tree.node import DirectoryEntry, Node
from octuefs.tree.queries import HasDate, HasExtension, HasHash, Satisfies
from octuefs.tree.real import DatafileNode
from octuefs.tree.scope import Scope
from octuefs.tree.values import ByLabel, ByTag
from octuefs.tree.view import View, encoded


class ByExtension(View):
    """`by-ext/<extension>[,...]/`."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        return encoded(self.occurring(self.index.by_extension), encode_extension)

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        extensions = [decode_extension(part) for part in name.split(",") if part]
        if not self.occurs(self.index.by_extension, extensions):
            raise self.missing(name)
        return self.narrowed(name, HasExtension(frozenset(extensions)))


class ByDate(View):
    """`by-date/<YYYY>/<MM>/<DD>/`, one class for the three levels: `chosen` holds the levels above."""

    def __init__(
        self,
        scope: Scope,
        path: str,
        context: Context,
        *,
        negated: bool,
        chosen: tuple[frozenset[int], ...] = (),
    ) -> None:
        super().__init__(scope, path, context, negated=negated)
        self.chosen = chosen

    def _dates(self) -> Iterable[date]:
        here = self.rows()
        for day, rows in list(self.index.by_date.items()):
            chosen = all(part in parts for part, parts in zip(_parts(day), self.chosen, strict=False))
            if chosen and rows.intersect(here):
                yield day

    def names(self) -> Iterable[str]:
        """See `View`."""
        level = len(self.chosen)
        return sorted({_part_name(level, _parts(day)[level]) for day in self._dates()})

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        level = len(self.chosen)
        parts = [part for part in name.split(",") if part]
        if not parts or not set(parts) <= set(self.names()):
            raise self.missing(name)
        chosen = (*self.chosen, frozenset(int(part) for part in parts))
        if level == 2:
            return self.narrowed(name, HasDate(*chosen))
        return ByDate(self.scope, self.child_path(name), self.context, negated=self.negated, chosen=chosen)


class ByHash(View):
    """`by-hash/<hash>[,...]/`, in the URL-safe alphabet."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        return sorted({url_safe(datafile.hash_value) for datafile in self.scope.hashed_members()})

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        try:
            hashes = [from_url_safe(part) for part in name.split(",") if part]
        except BadValue:
            raise self.missing(name) from None
        self.scope.hashed_members()
        if not self.occurs(self.index.by_hash, hashes):
            raise self.missing(name)
        return self.narrowed(name, HasHash(frozenset(hashes)))


class ById(View):
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

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        datafiles = self._by_id().get(name.lower())
        if not datafiles:
            raise self.missing(name)
        if len(datafiles) > 1:
            raise NotUnique(f"{self.child_path(name)}: {len(datafiles)} datafiles have this ID")
        return DatafileNode(self.scope.dataset, datafiles[0], in_view=True)


class FilterView(View):
    """`filter/<expression>[,...]/`; lists nothing, for its names have no end."""

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        try:
            filters = parse_filters(name)
        except BadValue as error:
            raise NotFound(f"{self.child_path(name)}: {error}") from None
        return self.narrowed(name, Satisfies(filters))


class OrderView(View):
    """`order-by/<attribute>/` and `order-by/-<attribute>/`; lists nothing."""

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        try:
            order = parse_ordering(decode_name(name))
        except BadValue as error:
            raise NotFound(f"{self.child_path(name)}: {error}") from None
        return self.context.directory(self.scope.ordered(order), self.child_path(name))


class NotView(View):
    """`not/<view>/...`; lists nothing."""

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        kind = NEGATABLE.get(name)
        if kind is None:
            raise NotFound(f"{self.child_path(name)}: `not` is followed by one of {', '.join(NEGATABLE)}")
        return kind(self.scope, self.child_path(name), self.context, negated=not self.negated)


def _parts(day: date) -> tuple[int, int, int]:
    return day.year, day.month, day.day


def _part_name(level: int, part: int) -> str:
    return f"{part:0{4 if level == 0 else 2}}"


VIEWS: dict[str, type[View]] = {
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

NEGATABLE: dict[str, type[View]] = {name: kind for name, kind in VIEWS.items() if name not in ("by-id", "order-by")}
