"""Index folders: `by-label/`, `by-tag/<key>/`, `not/`, `filter/` and the like.

They hold only their values. Looking one up narrows the scope of the directory D that the view stands in and
leads to a directory of that scope. A value that does not occur in D does not exist, but a valid filter or
order always does.
"""

import stat
from collections.abc import Callable, Iterable, Sequence
from datetime import date

from pyroaring import BitMap

from octuefs.datafile import Datafile
from octuefs.errors import BadValue, NotFound, NotUnique
from octuefs.index import Index, Query
from octuefs.model.filters import parse_filters
from octuefs.model.hashes import from_url_safe, url_safe
from octuefs.model.ordering import parse_ordering
from octuefs.model.paths import NAME_MAX
from octuefs.model.viewnames import alternatives, decode_extension, decode_name, encode_extension, encode_name
from octuefs.tree.node import Attributes, Branch, DirectoryEntry, Node, virtual_inode
from octuefs.tree.queries import HasDate, HasExtension, HasHash, HasLabel, HasTag, Not, Satisfies
from octuefs.tree.real import DatafileNode
from octuefs.tree.scope import Scope
from octuefs.tree.virtual import made_directory


class View(Branch):
    """An index folder in directory D, at `path` in the mount. `negated` turns what it leads to into the rest of D."""

    def __init__(self, scope: Scope, path: str, open_scope: Callable[[Scope, str], Node], *, negated: bool) -> None:
        """`scope` is D's; `open_scope(scope, path)` makes the directory of a narrower one."""
        self.scope = scope
        self.path = path
        self.open_scope = open_scope
        self.negated = negated

    def attributes(self) -> Attributes:
        """See `Node`."""
        return made_directory(self.scope.dataset, self.path)

    def names(self) -> Iterable[str]:
        """Return the values that this folder lists."""
        return ()

    @property
    def leads_to(self) -> int:
        """The file type of what is listed."""
        return stat.S_IFDIR

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        return [DirectoryEntry(name, virtual_inode(f"{self.path}/{name}"), self.leads_to) for name in self.names()]

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        raise self.missing(name)

    def child_path(self, name: str) -> str:
        """Return the path in the mount of a name here."""
        return f"{self.path}/{name}"

    def missing(self, name: str) -> NotFound:
        """Return the error of a name that is not here."""
        return NotFound(f"{self.child_path(name)}: nothing here has this value")

    def narrowed(self, name: str, query: Query) -> Node:
        """Return the directory of what satisfies `query`, or of the rest."""
        scope = self.scope.narrow(Not(query) if self.negated else query)
        return self.open_scope(scope, self.child_path(name))

    def occurring(self, table: dict[str, BitMap]) -> Iterable[str]:
        """Return the keys of an index table that occur in D."""
        here = self._rows()
        return [key for key, rows in list(table.items()) if rows.intersect(here)]

    def occurs(self, table: dict[str, BitMap], keys: Sequence[str]) -> bool:
        """Say whether there are keys and each of them occurs in D."""
        here = self._rows()
        return bool(keys) and all(key in table and table[key].intersect(here) for key in keys)

    def _rows(self) -> BitMap:
        self.scope.settle()
        return self.index.select(self.scope.folder, self.scope.queries)

    @property
    def index(self) -> Index:
        """The dataset's index."""
        return self.scope.dataset.index


class ByLabel(View):
    """`by-label/<label>[,<label>...]/`."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        return _encoded(self.occurring(self.index.by_label), encode_name)

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        labels = alternatives(name)
        if not self.occurs(self.index.by_label, labels):
            raise self.missing(name)
        return self.narrowed(name, HasLabel(frozenset(labels)))


class ByExtension(View):
    """`by-ext/<extension>[,...]/`."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        return _encoded(self.occurring(self.index.by_extension), encode_extension)

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        extensions = [decode_extension(part) for part in name.split(",") if part]
        if not self.occurs(self.index.by_extension, extensions):
            raise self.missing(name)
        return self.narrowed(name, HasExtension(frozenset(extensions)))


class ByTag(View):
    """`by-tag/`: the keys that occur."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        here = self._rows()
        return sorted(
            key
            for key, table in list(self.index.by_tag.items())
            if len(key) <= NAME_MAX and any(rows.intersect(here) for rows in list(table.values()))
        )

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        table = self.index.by_tag.get(name)
        if table is None or not self.occurring(table):
            raise self.missing(name)
        return ByTagValue(self.scope, self.child_path(name), self.open_scope, negated=self.negated, key=name)


class ByTagValue(View):
    """`by-tag/<key>/<value>[,...]/`."""

    def __init__(
        self, scope: Scope, path: str, open_scope: Callable[[Scope, str], Node], *, negated: bool, key: str
    ) -> None:
        super().__init__(scope, path, open_scope, negated=negated)
        self.key = key

    def names(self) -> Iterable[str]:
        """See `View`."""
        return _encoded(self.occurring(self.index.by_tag.get(self.key, {})), encode_name)

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        values = alternatives(name)
        if not self.occurs(self.index.by_tag.get(self.key, {}), values):
            raise self.missing(name)
        return self.narrowed(name, HasTag(self.key, frozenset(values)))


class ByDate(View):
    """`by-date/<YYYY>/<MM>/<DD>/`, one class for the three levels: `chosen` holds the levels above."""

    def __init__(
        self,
        scope: Scope,
        path: str,
        open_scope: Callable[[Scope, str], Node],
        *,
        negated: bool,
        chosen: tuple[frozenset[int], ...] = (),
    ) -> None:
        super().__init__(scope, path, open_scope, negated=negated)
        self.chosen = chosen

    def _dates(self) -> Iterable[date]:
        here = self._rows()
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
        return ByDate(self.scope, self.child_path(name), self.open_scope, negated=self.negated, chosen=chosen)


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
                table.setdefault(datafile.id, []).append(datafile)
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
        return self.open_scope(self.scope.ordered(order), self.child_path(name))


class NotView(View):
    """`not/<view>/...`; lists nothing."""

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        kind = NEGATABLE.get(name)
        if kind is None:
            raise NotFound(f"{self.child_path(name)}: `not` is followed by one of {', '.join(NEGATABLE)}")
        return kind(self.scope, self.child_path(name), self.open_scope, negated=not self.negated)


def _encoded(values: Iterable[str], encode: Callable[[str], str | None]) -> list[str]:
    return sorted(name for value in values if (name := encode(value)) is not None)


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
