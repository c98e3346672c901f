"""The index folders of directories over several datasets: `/by-label/` of a mounted manifest, and all others.

One asks each dataset's own index folder. A value exists where it occurs in one of the datasets, so `by-label/a,b/` does
where one has `a` and another `b`; what it leads to is what each dataset's own leads to, taken together.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from octuefs.errors import BadValue, NotEmpty, NotFound, NotUnique
from octuefs.model.ordering import Ordering
from octuefs.tree.combined import Combining, OverAll
from octuefs.tree.directory import ScopeDirectory
from octuefs.tree.node import DirectoryEntry, Node
from octuefs.tree.portions import Portion, Portions
from octuefs.tree.view import View
from octuefs.tree.views import NEGATABLE, ById, NotView, OrderView

AnyView = View[Any]


class CombinedView(OverAll):
    """An index folder over several datasets; `views` are the datasets' own ones, by the datasets' names."""

    def __init__(
        self,
        context: Combining,
        kind: type[AnyView],
        views: Mapping[str, AnyView],
        path: str,
        *,
        order: Ordering | None,
    ) -> None:
        """`kind` is of what kind all `views` are, and `order` that of the directory that it stands in."""
        super().__init__(context, path)
        self._kind = kind
        self._views = views
        self._order = order

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        found: dict[str, DirectoryEntry] = {}
        for view in self._views.values():
            for entry in view.entries():
                found.setdefault(entry.name, entry)
        return [found[name] for name in sorted(found)]

    def _present(self, values: Sequence[Any]) -> dict[str, set[Any]]:
        """Return by dataset which of some values exist in it."""
        return {dataset: set(view.present(values)) for dataset, view in self._views.items()}

    def _exist(self, values: Sequence[Any], present: Mapping[str, set[Any]]) -> bool:
        """Say whether there are values, and each of them exists in one of the datasets."""
        return bool(values) and (self._kind.open_ended or set(values) <= set().union(*present.values()))

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        path = f"{self.path}/{name}"
        try:
            values = self._kind.values(name)
        except BadValue as error:
            raise NotFound(f"{path}: {error}") from None
        present = self._present(values)
        if not self._exist(values, present):
            if path in self.context.vanishing:
                return self.context.directory(Portions([], self._order), path)
            raise NotFound(f"{path}: nothing here has this value")
        if issubclass(self._kind, ById):
            return self._only_file(name, values, [dataset for dataset, found in present.items() if found])
        return self._combined(name, values, path)

    def _only_file(self, name: str, values: Sequence[Any], holders: Sequence[str]) -> Node:
        if len(holders) > 1:
            raise NotUnique(f"{self.path}/{name}: datafiles of {len(holders)} datasets have this ID")
        return self._views[holders[0]].chosen(name, values)

    def _combined(self, name: str, values: Sequence[Any], path: str) -> Node:
        """Return what a name leads to: the index folders or directories of all datasets as one."""
        chosen = {dataset: view.chosen(name, values) for dataset, view in self._views.items()}
        views = {dataset: node for dataset, node in chosen.items() if isinstance(node, View)}
        if views or issubclass(self._kind, NotView):
            kind = NEGATABLE[values[0]] if issubclass(self._kind, NotView) else type(next(iter(views.values())))
            return CombinedView(self.context, kind, views, path, order=self._order)
        order = values[0] if issubclass(self._kind, OrderView) else self._order
        portions = [
            Portion(dataset, node.context, node.scope)
            for dataset, node in chosen.items()
            if isinstance(node, ScopeDirectory)
        ]
        return self.context.directory(Portions(portions, order), path)

    def remove_folder(self, name: str) -> None:
        """See `Node`: what has vanished with the last dataset's folder in it goes, so that `rm -r` ends well."""
        path = f"{self.path}/{name}"
        if path not in self.context.vanishing:
            raise self.refusal(name)
        values = self._kind.values(name)
        if self._exist(values, self._present(values)):
            raise NotEmpty(f"{path}: files have this value")
        self.context.vanishing.forget(path)


def view_over(context: Combining, kind: type[AnyView], portions: Portions, path: str) -> CombinedView:
    """Return the index folder of a kind in the directory of some portions; `path` is its own in the mount."""
    views = {it.name: kind(it.scope, path, it.context, negated=False) for it in portions}
    return CombinedView(context, kind, views, path, order=portions.order)
