"""Tags by dotted keys, as `by-tag` names them: `a.b` is the entry `b` of the object that the tag `a` is.

The inverse of `viewnames.tag_entries`: within a key's part percent-encoding counts, so `a.b%2Ec` is the entry `b.c`.
Tags are never changed in place; what is returned shares with what was given all that stayed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from octuefs.errors import BadValue, NotPermitted
from octuefs.model.fields import check_tag_key
from octuefs.model.viewnames import decode_name

TagPath = tuple[str, ...]
"""A tag's key, and the keys of the objects within it."""


def tag_path(dotted: str) -> TagPath:
    """Return the keys that a dotted key is made of.

    :raise BadValue: where the first is no tag's key, or one of them is missing
    """
    parts = dotted.split(".")
    check_tag_key(parts[0])
    if not all(parts):
        raise BadValue(f"{dotted!r} lacks a key beside a dot; an empty key is written %")
    return (parts[0], *map(decode_name, parts[1:]))


def is_within(inner: TagPath, outer: TagPath) -> bool:
    """Say whether one path is the other or leads into what stands there."""
    return inner[: len(outer)] == outer


def with_tag(tags: Mapping[str, Any], path: TagPath, value: Any) -> dict[str, Any]:
    """Return tags with a value set, in its present place or at the end; objects on the way are made.

    :raise NotPermitted: where something that is no object stands on the way
    """
    return _with(tags, path, value, 1)


def _with(tags: Mapping[str, Any], path: TagPath, value: Any, depth: int) -> dict[str, Any]:
    key = path[depth - 1]
    if depth == len(path):
        return {**tags, key: value}
    inner = tags.get(key, {})
    if not isinstance(inner, Mapping):
        raise NotPermitted(
            f"the tag {'.'.join(path)} cannot be set: {'.'.join(path[:depth])} is no object; remove that one first"
        )
    return {**tags, key: _with(inner, path, value, depth + 1)}


def without_tag(tags: Mapping[str, Any], path: TagPath) -> Mapping[str, Any]:
    """Return tags without what stands at a path; nothing there is as well. Emptied objects stay."""
    key, rest = path[0], path[1:]
    if key not in tags:
        return tags
    if not rest:
        return {other: value for other, value in tags.items() if other != key}
    inner = tags[key]
    return {**tags, key: without_tag(inner, rest)} if isinstance(inner, Mapping) else tags


def without_empty(tags: Mapping[str, Any], path: TagPath) -> Mapping[str, Any]:
    """Return tags without the objects on the way to a path that hold nothing, so that no trace of a tag is left."""
    key, rest = path[0], path[1:]
    inner = tags.get(key)
    if not rest or not isinstance(inner, Mapping):
        return tags
    inner = without_empty(inner, rest)
    return {**tags, key: inner} if inner else without_tag(tags, path[:1])


def arranged(tags: Mapping[str, Any], like: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return tags with their keys, those within them too, in the order that they have in `like`, and new ones last."""
    return {key: _arranged(tags[key], like.get(key)) for key in _ordered(tags, like)} if tags and like else tags


def _arranged(value: Any, like: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(like, Mapping):
        return {key: _arranged(value[key], like.get(key)) for key in _ordered(value, like)}
    if isinstance(value, list) and isinstance(like, list) and len(value) == len(like):
        return [_arranged(*pair) for pair in zip(value, like, strict=True)]
    return value


def _ordered(keys: Collection[str], like: Collection[str]) -> Iterable[str]:
    return dict.fromkeys((*(key for key in like if key in keys), *keys))


class TagEdits:
    """Changes of single tags while they are put together: what is removed first, and what is set then."""

    def __init__(self) -> None:
        self._removed: dict[TagPath, str] = {}
        self._assigned: dict[TagPath, tuple[str, Any]] = {}
        """By path the dotted key and the value; none lies within another."""

    def removed(self) -> frozenset[str]:
        """Return the dotted keys to remove."""
        return frozenset(self._removed.values())

    def assigned(self) -> dict[str, Any]:
        """Return the values to set by dotted key."""
        return dict(self._assigned.values())

    def add(self, removed: Collection[str], assigned: Mapping[str, Any]) -> None:
        """Add the removal of some tags and the setting of others, in this order, to what is to be done.

        :raise NotPermitted: where a value that is being set is no object, but is to hold a nested one
        """
        taken = [path for key in removed if self._take(path := tag_path(key), key)]
        for key, value in assigned.items():
            self._put(tag_path(key), key, value)
        for path in taken:
            if not any(is_within(path, tag_path(key)) for key in assigned):
                self._clear(path)
        self._removed = {
            path: key
            for path, key in self._removed.items()
            if path in self._assigned or not any(is_within(path, above) for above in self._assigned)
        }

    def _take(self, path: TagPath, key: str) -> bool:
        """Remove a tag, and say whether it was out of a value that is being set."""
        if (holder := self._holder(path)) is not None:
            self._edit(holder, path, without_tag)
            return True
        self._assigned = {other: entry for other, entry in self._assigned.items() if not is_within(other, path)}
        self._removed[path] = key
        return False

    def _put(self, path: TagPath, key: str, value: Any) -> None:
        if (holder := self._holder(path)) is not None:
            self._edit(holder, path, lambda tags, within: with_tag(tags, within, value))
            return
        # In the place of the first that it takes the place of: there it stands in the tags, too.
        assigned: dict[TagPath, tuple[str, Any]] = {}
        for other, entry in self._assigned.items():
            if is_within(other, path):
                assigned[path] = (key, value)
            else:
                assigned[other] = entry
        assigned[path] = (key, value)
        self._assigned = assigned

    def _clear(self, path: TagPath) -> None:
        """Forget the objects on the way to a path that are left empty; where that is all, the tag is removed."""
        if (holder := self._holder(path)) is not None:
            key = self._assigned[holder][0]
            self._edit(holder, path, without_empty)
            if holder not in self._assigned:
                self._removed[holder] = key

    def _holder(self, path: TagPath) -> TagPath | None:
        """Return the path of the value being set that holds what stands at `path`."""
        return next((path[:length] for length in range(1, len(path)) if path[:length] in self._assigned), None)

    def _edit(
        self, holder: TagPath, path: TagPath, edit: Callable[[Mapping[str, Any], TagPath], Mapping[str, Any]]
    ) -> None:
        key, value = self._assigned[holder]
        edited = edit({key: value}, (key, *path[len(holder) :]))
        if key in edited:
            self._assigned[holder] = (key, edited[key])
        else:
            del self._assigned[holder]
