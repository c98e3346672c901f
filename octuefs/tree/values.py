"""The index folders whose values are ours to set: `by-label/` and `by-tag/<key>/`.

A folder that is made in them is a value that files may get, a folder that is renamed gives its files another value.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyroaring import BitMap

from octuefs.datafile import Datafile
from octuefs.dataset import Queries
from octuefs.errors import AlreadyExists, BadValue, CrossDevice, NotEmpty, NotPermitted
from octuefs.index import Query
from octuefs.model.changes import MetadataChange
from octuefs.model.fields import parse_labels
from octuefs.model.paths import NAME_MAX
from octuefs.model.tagpaths import TagPath, tag_path
from octuefs.model.viewnames import alternatives, decode_name, encode_name
from octuefs.tree.context import Context
from octuefs.tree.membership import check_settable, describe_all, joining, tag_value
from octuefs.tree.node import Moving, Node
from octuefs.tree.queries import HasLabel, HasTag
from octuefs.tree.scope import Scope
from octuefs.tree.view import View, encoded
from octuefs.writing.base import Caller


class _Settable(View[str]):
    """What changes in such folders, and in `by-tag/`, have in common."""

    def check_changeable(self) -> None:
        """Refuse changes where the views on the way are not all single labels or values of tags."""
        if self.negated:
            raise NotPermitted(f"{self.path}: what a view leaves out cannot be changed there")
        check_settable(self.scope, self.path)

    def check_same_folder(self, moving: Moving, name: str) -> None:
        """Refuse what does not come from this very folder."""
        if moving.dataset is not self.scope.dataset:
            raise CrossDevice(f"{self.child_path(name)}: it belongs to another dataset, so it can only be copied")
        source = moving.index_folder
        if not (isinstance(source, type(self)) and source.place == self.place):
            raise NotPermitted(
                f"{self.child_path(name)}: only values stand here; make the folder and move files into it"
            )

    @property
    def place(self) -> tuple[object, ...]:
        """What tells this folder from others of its kind: the same values of the same files have one."""
        return (self.scope.folder, self.scope.queries)

    def check_free(self, name: str, *, has_files: bool, shows: bool, replace: bool) -> None:
        """Refuse a name that is taken, as rename(2) does."""
        if has_files and replace:
            raise NotEmpty(f"{self.child_path(name)}: files have this value already; move them one by one")
        if (has_files or shows) and not replace:
            raise AlreadyExists(f"{self.child_path(name)} is there already")


class _Values(_Settable):
    """A folder of values."""

    @property
    @abstractmethod
    def table(self) -> dict[str, BitMap]:
        """The rows of each value."""

    @abstractmethod
    def condition(self, values: Iterable[str]) -> Query:
        """Return the condition to have one of these values."""

    @abstractmethod
    def check(self, value: str) -> None:
        """Refuse what no file can have.

        :raise BadValue: with the reason
        """

    @abstractmethod
    def replacement(self, old: str, new: str) -> MetadataChange:
        """Return what gives a file that has a value another one."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        return encoded({*self.occurring(self.table), *self._remembered()}, encode_name)

    def _remembered(self) -> Iterable[str]:
        if self.negated:
            return ()
        further = self.context.shown.further(self.scope.queries, self.scope.folder)
        return [value for query in further if (value := self.value_of(query)) is not None]

    @abstractmethod
    def value_of(self, query: Query) -> str | None:
        """Return the value that a condition of this folder asks for, None where it is not of this folder."""

    @classmethod
    def values(cls, name: str) -> Sequence[str]:
        """See `View`."""
        return alternatives(name)

    def present(self, values: Sequence[str]) -> Sequence[str]:
        """See `View`."""
        occurring = self.among(self.table, values)
        return values if not occurring and len(values) == 1 and self._shows(values[0]) else occurring

    def chosen(self, name: str, values: Sequence[str]) -> Node:
        """See `View`."""
        return self.narrowed(name, self.condition(values))

    def _occurs(self, value: str) -> bool:
        return bool(self.among(self.table, [value]))

    def _queries(self, value: str) -> Queries:
        return (*self.scope.queries, self.condition([value]))

    def _shows(self, value: str) -> bool:
        return not self.negated and self.context.shown.shows(self._queries(value), self.scope.folder)

    def _single(self, name: str) -> str:
        if "," in name:
            raise NotPermitted(f"{self.child_path(name)}: several values are not one folder; name one")
        return decode_name(name)

    def _new(self, name: str) -> str:
        value = self._single(name)
        if encode_name(value) is None:
            raise BadValue(f"{self.child_path(name)}: written out, the name is too long")
        self.check(value)
        joining(self._queries(value))
        return value

    def make_folder(self, name: str, mode: int, caller: Caller) -> None:
        """See `Node`: the value is shown from now on."""
        self.check_changeable()
        value = self._new(name)
        if self._occurs(value) or self._shows(value):
            raise AlreadyExists(f"{self.child_path(name)} is there already")
        self.context.shown.add(self._queries(value), self.scope.folder)

    def remove_folder(self, name: str) -> None:
        """See `Node`: the value is shown no more."""
        self.check_changeable()
        value, shown = self._single(name), self.context.shown
        if self._occurs(value) or shown.below(self._queries(value), self.scope.folder):
            raise NotEmpty(f"{self.child_path(name)}: files have this value")
        if not self._shows(value):
            raise self.missing(name)
        shown.remove(self._queries(value), self.scope.folder)

    def give(self, name: str) -> Moving:
        """See `Node`."""
        self.check_changeable()
        value = self._single(name)
        if not self._occurs(value) and not self._shows(value):
            raise self.missing(name)
        return Moving(self.scope.dataset, self.scope.folder, index_folder=self, value=value)

    def take(self, moving: Moving, name: str, *, replace: bool) -> None:
        """See `Node`: the files that have one value get another."""
        self.check_changeable()
        self.check_same_folder(moving, name)
        scope, shown = self.scope, self.context.shown
        old, new = moving.value, self._new(name)
        if old == new:
            return
        has_files = self._occurs(new) or bool(shown.below(self._queries(new), scope.folder))
        self.check_free(name, has_files=has_files, shows=self._shows(new), replace=replace)
        members = self.index.members(scope.folder, self._queries(old))
        change = self.replacement(old, new)
        describe_all(scope.dataset, {it.path: change for it in members})
        shown.move(self._queries(old), scope.folder, self._queries(new), scope.folder)


class ByLabel(_Values):
    """`by-label/<label>[,<label>...]/`."""

    @property
    def table(self) -> dict[str, BitMap]:
        """See `_Values`."""
        return self.index.by_label

    def condition(self, values: Iterable[str]) -> Query:
        """See `_Values`."""
        return HasLabel(frozenset(values))

    def value_of(self, query: Query) -> str | None:
        """See `_Values`."""
        return next(iter(query.labels)) if isinstance(query, HasLabel) else None

    def check(self, value: str) -> None:
        """See `_Values`."""
        if parse_labels([value]) != {value}:
            raise BadValue(f"{value!r} is no label: it has spaces at its ends")

    def replacement(self, old: str, new: str) -> MetadataChange:
        """See `_Values`."""
        return MetadataChange(labels_added=frozenset({new}), labels_removed=frozenset({old}))


class ByTag(_Settable):
    """`by-tag/`: the keys that occur."""

    def names(self) -> Iterable[str]:
        """See `View`."""
        here = self.rows()
        occurring = {
            key
            for key, table in list(self.index.by_tag.items())
            if len(key) <= NAME_MAX and any(rows.intersect(here) for rows in list(table.values()))
        }
        return sorted(occurring | self._remembered())

    def _remembered(self) -> set[str]:
        return set() if self.negated else self.context.shown.keys(self.scope.queries, self.scope.folder)

    def _occurs(self, key: str) -> bool:
        table = self.index.by_tag.get(key)
        return table is not None and bool(self.occurring(table))

    @classmethod
    def values(cls, name: str) -> Sequence[str]:
        """See `View`: the name is the key."""
        return [name]

    def present(self, values: Sequence[str]) -> Sequence[str]:
        """See `View`."""
        return [key for key in values if self._occurs(key) or key in self._remembered()]

    def chosen(self, name: str, values: Sequence[str]) -> Node:
        """See `View`."""
        return ByTagValue(self.scope, self.child_path(name), self.context, negated=self.negated, key=name)

    def _check_key(self, name: str) -> TagPath:
        path = tag_path(name)
        first, *inner = path
        shown = ".".join([first, *((encode_name(key) or "").replace(".", "%2E") for key in inner)])
        if shown != name:
            raise BadValue(f"{self.child_path(name)}: a tag's key is written differently; write {shown}")
        return path

    def make_folder(self, name: str, mode: int, caller: Caller) -> None:
        """See `Node`: the key is shown from now on."""
        self.check_changeable()
        self._check_key(name)
        if self._occurs(name) or name in self._remembered():
            raise AlreadyExists(f"{self.child_path(name)} is there already")
        self.context.shown.add_key(self.scope.queries, self.scope.folder, name)

    def remove_folder(self, name: str) -> None:
        """See `Node`: the key is shown no more."""
        self.check_changeable()
        scope, shown = self.scope, self.context.shown
        if self._occurs(name) or any(query.key == name for query in self._values_shown()):
            raise NotEmpty(f"{self.child_path(name)}: it has values")
        if name not in self._remembered():
            raise self.missing(name)
        shown.remove_key(scope.queries, scope.folder, name)

    def _values_shown(self) -> list[HasTag]:
        further = self.context.shown.further(self.scope.queries, self.scope.folder)
        return [query for query in further if isinstance(query, HasTag)]

    def give(self, name: str) -> Moving:
        """See `Node`."""
        self.check_changeable()
        if not self._occurs(name) and name not in self._remembered():
            raise self.missing(name)
        return Moving(self.scope.dataset, self.scope.folder, index_folder=self, value=name)

    def take(self, moving: Moving, name: str, *, replace: bool) -> None:
        """See `Node`: the tag of the files that have one gets another key."""
        self.check_changeable()
        self.check_same_folder(moving, name)
        scope, shown = self.scope, self.context.shown
        old, new = tag_path(moving.value), self._check_key(name)
        if old == new:
            return
        has_files = self._occurs(name) or any(query.key == name for query in self._values_shown())
        self.check_free(name, has_files=has_files, shows=name in self._remembered(), replace=replace)
        members = self._members(moving.value)
        if taken := [it.path for it in members if _tag_at(it.tags, new) is not _NOTHING]:
            raise NotEmpty(f"{self.child_path(name)}: {taken[0]} has something else in this tag")
        describe_all(
            scope.dataset,
            {
                it.path: MetadataChange(tags_set={name: _tag_at(it.tags, old)}, tags_removed=frozenset({moving.value}))
                for it in members
            },
        )
        for query in self._values_shown():
            if query.key == moving.value:
                shown.remove((*scope.queries, query), scope.folder)
        shown.remove_key(scope.queries, scope.folder, moving.value)
        if not members:
            shown.add_key(scope.queries, scope.folder, name)

    def _members(self, key: str) -> list[Datafile]:
        with self.index.lock:
            tables = list(self.index.by_tag.get(key, {}).values())
            return self.index.resolve(self.rows() & BitMap.union(*tables)) if tables else []


class ByTagValue(_Values):
    """`by-tag/<key>/<value>[,...]/`."""

    def __init__(self, scope: Scope, path: str, context: Context, *, negated: bool, key: str) -> None:
        super().__init__(scope, path, context, negated=negated)
        self.key = key

    @property
    def place(self) -> tuple[object, ...]:
        """See `_Settable`."""
        return (*super().place, self.key)

    @property
    def table(self) -> dict[str, BitMap]:
        """See `_Values`."""
        return self.index.by_tag.get(self.key, {})

    def condition(self, values: Iterable[str]) -> Query:
        """See `_Values`."""
        return HasTag(self.key, frozenset(values))

    def value_of(self, query: Query) -> str | None:
        """See `_Values`."""
        return next(iter(query.values)) if isinstance(query, HasTag) and query.key == self.key else None

    def check(self, value: str) -> None:
        """See `_Values`: every text is a value."""

    def replacement(self, old: str, new: str) -> MetadataChange:
        """See `_Values`."""
        return MetadataChange(tags_set={self.key: tag_value(new)})

    def remove_folder(self, name: str) -> None:
        """See `Node`; its key stays shown, though that was the last value."""
        super().remove_folder(name)
        self.context.shown.add_key(self.scope.queries, self.scope.folder, self.key)


_NOTHING = object()


def _tag_at(tags: Mapping[str, Any], path: TagPath) -> Any:
    """Return what stands at a path in tags."""
    value: Any = tags
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return _NOTHING
        value = value[key]
    return value
