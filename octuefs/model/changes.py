"""Changes of metadata: what is to be different, apart from the record that it is made to.

Whoever changes metadata says so with a `MetadataChange`. Writers publish its effect, keep it in the journal, put
changes of one file together, and make them to what is stored by then, which another may have changed meanwhile.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from octuefs.errors import BadValue, Conflict, NoAttribute, NotPermitted, OctuefsError, Unsupported
from octuefs.model.fields import (
    NO_LABELS,
    NO_TAGS,
    check_tag_key,
    parse_labels,
    parse_name,
    parse_tag_text,
    parse_tags_text,
    parse_timestamp_text,
)
from octuefs.model.metadata import (
    SDK_VERSION,
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    Record,
    updated,
)
from octuefs.model.tagpaths import TagEdits, arranged, is_within, tag_path, with_tag, without_empty, without_tag
from octuefs.model.values import check_depth, from_journal_form, journal_form, same, stored_form


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """What to do to the metadata of a datafile or dataset; what is not named stays.

    Whole fields are set first, then labels and tags are removed, then added or set. Keys of tags are dotted, as
    `by-tag` names them.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    """New values by field: id, name, timestamp, labels, tags, sdk_version; None or an empty one clears."""
    labels_added: frozenset[str] = frozenset()
    labels_removed: frozenset[str] = frozenset()
    tags_set: Mapping[str, Any] = field(default_factory=dict)
    tags_removed: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.fields or self.labels_added or self.labels_removed or self.tags_set or self.tags_removed)

    def apply(self, metadata: Record) -> Record:
        """Return the metadata as it is after the change.

        What is unread of a field goes with the field's old value; to take away single labels or tags, of which a
        field without a sound value has none, leaves it alone.

        :raise NotPermitted: where a nested tag would lie in something that is no object
        :raise BadValue: where tags would be nested too deeply to be read again
        """
        new = dict(self.fields)
        if "labels" in new or self.labels_added or self.labels_removed & metadata.labels:
            new["labels"] = self._labels(new.get("labels", metadata.labels))
        if "tags" in new or self.tags_set or self.tags_removed:
            before = new.get("tags", metadata.tags)
            after = self._tags(before)
            if "tags" in new or self.tags_set or after != before:
                new["tags"] = after
        return updated(metadata, **new) if new else metadata

    def _labels(self, labels: Collection[str] | None) -> frozenset[str]:
        return frozenset(labels or ()) - self.labels_removed | self.labels_added or NO_LABELS

    def _tags(self, before: Mapping[str, Any] | None) -> Mapping[str, Any]:
        tags = before or NO_TAGS
        removed = list(map(tag_path, self.tags_removed))
        assigned = [(tag_path(key), value) for key, value in self.tags_set.items()]
        for path in removed:
            tags = without_tag(tags, path)
        for path, value in assigned:
            tags = with_tag(tags, path, value)
        for path in removed:
            # Not what was set to an empty object on purpose.
            if not any(is_within(path, above) for above, _ in assigned):
                tags = without_empty(tags, path)
        if assigned:
            check_depth(stored_form(tags))
        return tags or NO_TAGS

    def then(self, later: "MetadataChange") -> "MetadataChange":
        """Return one change that does this and then `later`.

        It gives what both give one after the other, but for the place among the others of a tag out of which one
        nested entry is taken and another put in.

        :raise NotPermitted: where `later` could not be made after this one
        """
        both = {**self._whole_fields(), **later.fields}
        if "labels" in both:
            both["labels"] = later._labels(both["labels"])
            added = removed = NO_LABELS
        else:
            added = self.labels_added - later.labels_removed | later.labels_added
            removed = (self.labels_removed | later.labels_removed) - later.labels_added
        tags = TagEdits()
        if "tags" in both:
            both["tags"] = later._tags(both["tags"])
        else:
            tags.add(self.tags_removed, self.tags_set)
            tags.add(later.tags_removed, later.tags_set)
        return MetadataChange(both, added, removed, tags.assigned(), tags.removed())

    def _whole_fields(self) -> dict[str, Any]:
        """Return the fields that are set as a whole, with what is done to them afterwards."""
        whole = dict(self.fields)
        if "labels" in whole:
            whole["labels"] = self._labels(whole["labels"])
        if "tags" in whole:
            whole["tags"] = self._tags(whole["tags"])
        return whole

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON, without what is empty."""
        return {
            part.name: sorted(value) if isinstance(value, frozenset) else journal_form(value)
            for part in fields(self)
            if (value := getattr(self, part.name))
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "MetadataChange":
        """Return the change that `to_json` was asked for."""
        whole = from_journal_form(stored.get("fields", {}))
        if "labels" in whole:
            whole["labels"] = frozenset(whole["labels"] or ())
        return cls(
            whole,
            frozenset(stored.get("labels_added", ())),
            frozenset(stored.get("labels_removed", ())),
            from_journal_form(stored.get("tags_set", {})),
            frozenset(stored.get("tags_removed", ())),
        )


# --- two records, and a change between them

_PARTS = ("labels", "tags")
"""Fields that are compared part by part."""


def _single_fields(record: DatafileMetadata | DatasetMetadata) -> tuple[str, ...]:
    if isinstance(record, DatafileMetadata):
        return ("id", "timestamp", "sdk_version")
    return ("id", "name")


def _value_of(record: DatafileMetadata | DatasetMetadata, name: str) -> Any:
    """Return what is stored of a field: its value, else what is unread of it."""
    return getattr(record, name) or record.unread.get(name)


def difference(old: Record, new: Record) -> MetadataChange:
    """Return the change that makes the fields of `new` out of those of `old`: labels and tags one by one.

    Tags are set as a whole where their order would not come out otherwise.
    """
    changed: dict[str, Any] = {
        name: getattr(new, name) for name in _single_fields(new) if not same(getattr(old, name), getattr(new, name))
    }
    for name in (*_single_fields(new), *_PARTS):
        # A bad value that is to go cannot be told from none by the field.
        if name in old.unread and name not in new.unread and not getattr(old, name) and not getattr(new, name):
            changed[name] = getattr(new, name)
    change = MetadataChange(
        changed,
        new.labels - old.labels,
        old.labels - new.labels,
        {key: value for key, value in new.tags.items() if key not in old.tags or not same(old.tags[key], value)},
        frozenset(old.tags.keys() - new.tags.keys()),
    )
    if list(change._tags(old.tags)) != list(new.tags):
        return replace(change, fields={**changed, "tags": new.tags}, tags_set={}, tags_removed=frozenset())
    return change


def merge(base: Record, change: MetadataChange, theirs: Record) -> Record:
    """Return `theirs` with a change that was made on top of `base`.

    Labels added and removed one by one never collide; tags do by their top-level key, everything set as a whole by
    its field. What both changed to the same value is no conflict.

    :raise Conflict: naming the field that both changed to different values
    """
    mine = change.apply(base)
    for name in _PARTS:
        added_or_set = change.labels_added or change.labels_removed if name == "labels" else change.tags_set
        if added_or_set and not same(base.unread.get(name), theirs.unread.get(name)):
            raise _conflict(name)
    whole = {
        name: value
        for name, value in change.fields.items()
        if _wins(name, *(_value_of(record, name) for record in (base, mine, theirs)))
    }
    left = replace(change, fields=whole)
    if "labels" in change.fields and "labels" not in whole:
        left = replace(left, labels_added=NO_LABELS, labels_removed=NO_LABELS)
    if "tags" in change.fields:
        if "tags" not in whole:
            left = replace(left, tags_set={}, tags_removed=frozenset())
        return left.apply(theirs)
    touched = {tag_path(key)[0] for key in (*change.tags_set, *change.tags_removed)}
    winning = {
        key
        for key in touched
        if _wins(f"tags.{key}", *([r.tags[key]] if key in r.tags else [] for r in (base, mine, theirs)))
    }
    return replace(
        left,
        tags_set={key: value for key, value in left.tags_set.items() if tag_path(key)[0] in winning},
        tags_removed=frozenset(key for key in left.tags_removed if tag_path(key)[0] in winning),
    ).apply(theirs)


def _wins(name: str, base: Any, mine: Any, theirs: Any) -> bool:
    """Say whether our value is to be set: theirs is as it was; False where theirs is the same as ours.

    :raise Conflict: where they differ from what was, and from each other
    """
    if same(base, theirs):
        return True
    if same(mine, theirs):
        return False
    raise _conflict(name)


def _conflict(name: str) -> Conflict:
    return Conflict(f"{name} was changed by another meanwhile, to a different value; look at it and set it again")


def over(source: DatafileMetadata, target: DatafileMetadata) -> DatafileMetadata:
    """Return the metadata of a file that is renamed over another.

    The fields set on the source win, those it lacks are kept from the target; the target's ID stays where it has one,
    and so does the order of its tags, for programs that copy attributes see them sorted.
    """
    new: dict[str, Any] = {}
    unread = {**target.unread, **source.unread}
    for name in (*_single_fields(source), *_PARTS):
        order = (target, source) if name == "id" else (source, target)
        # A bad value counts less than a sound one, and more than none.
        origin = next(
            (record for record in order if getattr(record, name)),
            next((record for record in order if name in record.unread), source),
        )
        new[name] = getattr(origin, name)
        if name == "tags" and origin is source:
            new[name] = arranged(source.tags, target.tags)
        unread.pop(name, None)
        if name in origin.unread:
            unread[name] = origin.unread[name]
    return DatafileMetadata(**new, unread=unread) if unread else DatafileMetadata(**new)


def copied(metadata: DatafileMetadata) -> DatafileMetadata:
    """Return what another name of a file has, or one that is made again: its labels, tags and timestamp."""
    # A number that is stored for the timestamp stays the one that is written.
    unread = {key: value for key, value in metadata.unread.items() if key == "timestamp" and metadata.timestamp}
    return DatafileMetadata(timestamp=metadata.timestamp, tags=metadata.tags, labels=metadata.labels, unread=unread)


# --- records as they are stored


def first_record(metadata: Record, derived_id: str) -> Record:
    """Return metadata as it is stored for the first time: with an ID, and a datafile with our version of the SDK.

    A bad value that stands in either's place stays.
    """
    added = {"id": derived_id}
    if isinstance(metadata, DatafileMetadata):
        added["sdk_version"] = SDK_VERSION
    missing = {
        name: value for name, value in added.items() if getattr(metadata, name) is None and name not in metadata.unread
    }
    return updated(metadata, **missing) if missing else metadata


def merged_document(
    stored: OctueDocument,
    changes: Mapping[str, MetadataChange],
    dataset_change: MetadataChange | None,
    *,
    ids: Mapping[str, str],
    dataset_id: str,
    removed: Collection[str] = (),
) -> OctueDocument:
    """Return what a folder's `.octue` holds after changes of its files' metadata, by basename.

    Records are removed first, so that a name among `removed` and `changes` begins anew. A file without a record gets
    one, with its ID among `ids`, unless the change leaves it without metadata; everything else stays as it is stored.

    :raise NotPermitted: where a change cannot be made to what is stored
    """
    records = {name: record for name, record in stored.datafiles.items() if name not in removed}
    for name, change in changes.items():
        if change and (record := _changed(records.get(name), DatafileMetadata(), change, ids[name])) is not None:
            records[name] = record
    dataset = stored.dataset
    if dataset_change:
        dataset = _changed(dataset, DatasetMetadata(), dataset_change, dataset_id)
    unread = dict(stored.unread)
    if isinstance(strange := unread.get("datafiles"), Mapping):
        # What is no record is in the way of a new one, and goes with a file that is removed.
        left = {name: value for name, value in strange.items() if name not in removed and name not in records}
        unread["datafiles"] = left
        if not left:
            del unread["datafiles"]
    if dataset is not None:
        unread.pop("dataset", None)
    return OctueDocument(records, dataset, unread, stored.order)


def _changed(record: Record | None, nothing: Record, change: MetadataChange, derived_id: str) -> Record | None:
    """Return the record after a change, None where there was and is nothing to store."""
    new = change.apply(nothing if record is None else record)
    if new == nothing and record is None:
        return None
    return first_record(new, derived_id)


# --- as extended attributes

_READ_ONLY = frozenset(
    {
        "id",
        "hash",
        "metadata_hash",
        "cloud_path",
        "local_path",
        "exists_in_cloud",
        "exists_locally",
        "count",
        "size_bytes",
        "sync",
    }
)
"""Names of `user.octue.*` that tell and cannot be told."""

_ATTRIBUTE_PREFIX = "user.octue."
_TAG_PREFIX = "tags."

_OF_DATAFILE = ("labels", "tags", "timestamp")
_OF_DATASET = ("name", "labels", "tags")


def datafile_change(name: str, value: bytes, present: DatafileMetadata | None = None) -> MetadataChange:
    """Return what setting an attribute of a datafile means; `name` is without `user.octue.`.

    Tags that are set as a whole keep the order of those `present`, for the attribute shows them sorted.

    :raise BadValue: where the value cannot be taken
    :raise NotPermitted: for a name that cannot be set
    :raise Unsupported: for a name that means nothing here
    """
    return _set_attribute(name, value, _OF_DATAFILE, present, revive_types=True)


def dataset_change(
    name: str, value: bytes, present: DatasetMetadata | None = None, *, revive_types: bool = True
) -> MetadataChange:
    """Return what setting an attribute of a dataset means, with the same failures.

    `revive_types` is False for a cloud dataset, whose tags are read without (`decode_dataset_record`).
    """
    return _set_attribute(name, value, _OF_DATASET, present, revive_types=revive_types)


def removal_change(name: str, metadata: DatafileMetadata | DatasetMetadata) -> MetadataChange:
    """Return what removing an attribute means.

    :raise NoAttribute: where it is not set
    :raise NotPermitted: for a name that cannot be set
    """
    if name in _READ_ONLY:
        raise _read_only(name)
    if name.startswith(_TAG_PREFIX):
        key = name.removeprefix(_TAG_PREFIX)
        if key in metadata.tags:
            return MetadataChange(tags_removed=frozenset({key}))
    elif name in (_OF_DATAFILE if isinstance(metadata, DatafileMetadata) else _OF_DATASET) and (
        getattr(metadata, name) or name in metadata.unread
    ):
        return MetadataChange({name: _EMPTY.get(name)})
    raise NoAttribute(f"{_ATTRIBUTE_PREFIX}{name} is not set")


_EMPTY = {"labels": NO_LABELS, "tags": NO_TAGS}


def _set_attribute(
    name: str,
    value: bytes,
    known: Collection[str],
    present: DatafileMetadata | DatasetMetadata | None,
    *,
    revive_types: bool,
) -> MetadataChange:
    if name in _READ_ONLY:
        raise _read_only(name)
    if name not in known and not name.startswith(_TAG_PREFIX):
        raise Unsupported(f"{_ATTRIBUTE_PREFIX}{name}: there is no such attribute here; {_listed(known)} can be set")
    try:
        change = _parsed(name, value.decode("utf-8"), revive_types=revive_types)
    except UnicodeDecodeError as error:
        raise BadValue(f"{_ATTRIBUTE_PREFIX}{name}: the value is not UTF-8 (at byte {error.start})") from None
    except BadValue as error:
        raise BadValue(f"{_ATTRIBUTE_PREFIX}{name}: {error}") from None
    if name == "tags" and present is not None:
        return MetadataChange({name: arranged(change.fields[name], present.tags)})
    return change


def _parsed(name: str, text: str, *, revive_types: bool) -> MetadataChange:
    if name == "labels":
        return MetadataChange({name: parse_labels(text)})
    if name == "tags":
        return MetadataChange({name: parse_tags_text(text, revive_types=revive_types)})
    if name == "timestamp":
        return MetadataChange({name: parse_timestamp_text(text)})
    if name == "name":
        return MetadataChange({name: parse_name(text)})
    key = name.removeprefix(_TAG_PREFIX)
    check_tag_key(key)
    return MetadataChange(tags_set={key: parse_tag_text(text, revive_types=revive_types)})


def _listed(known: Iterable[str]) -> str:
    return ", ".join((*known, "tags.<key>"))


def _read_only(name: str) -> OctuefsError:
    return NotPermitted(f"{_ATTRIBUTE_PREFIX}{name} tells what is so and cannot be set")
