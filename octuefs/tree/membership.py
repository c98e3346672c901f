"""What it means for a file to come into a view or to leave it, as changes of its metadata.

A view can be written where each of its conditions is a single label, or a single value of a tag: then a file that is
made there gets them all, and one that is removed from there loses the innermost.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from octuefs.datafile import NO_METADATA
from octuefs.dataset import Dataset, Queries
from octuefs.errors import NotPermitted, OctuefsError
from octuefs.index import Query
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata
from octuefs.model.values import check_portable
from octuefs.model.viewnames import scalar_text, tag_entries
from octuefs.tree.queries import HasLabel, HasTag
from octuefs.tree.scope import Scope
from octuefs.writing.base import NO_CHANGE

_AT_ONCE = 16
"""Changes of metadata under way at the same time in the cloud."""


def is_settable(query: Query) -> bool:
    """Say whether a file can be made to satisfy a condition: it names one label, or one value of a tag."""
    return (isinstance(query, HasLabel) and len(query.labels) == 1) or (
        isinstance(query, HasTag) and len(query.values) == 1
    )


def check_settable(scope: Scope, path: str) -> None:
    """Refuse to change which files a view shows, where that is not ours to set; `path` names the view.

    :raise NotPermitted: with the reason
    """
    if scope.order is not None:
        raise NotPermitted(f"{path}: an order is shown there; make or remove files in the folder itself")
    if not all(map(is_settable, scope.queries)):
        raise NotPermitted(
            f"{path}: which files show there follows from what they are; only in by-label/<label> and "
            "by-tag/<key>/<value>, one value each, can files be made, moved and removed"
        )


def tag_value(text: str) -> object:
    """Return the value of a tag that shows as `text`: a JSON scalar where that shows so again, else the text."""
    try:
        value = json.loads(text)
        if not isinstance(value, str) and scalar_text(value) == text:
            check_portable(value)
            return value
    except (ValueError, RecursionError):  # BadValue is one
        pass
    return text


def satisfies(metadata: DatafileMetadata, query: Query) -> bool:
    """Say whether a file with this metadata satisfies a settable condition."""
    if isinstance(query, HasLabel):
        return bool(query.labels & metadata.labels)
    assert isinstance(query, HasTag), "nothing else is settable"
    return any(key == query.key and text in query.values for key, text in tag_entries(metadata.tags))


def joining(queries: Queries, metadata: DatafileMetadata = NO_METADATA) -> MetadataChange:
    """Return what makes a file with this metadata show in a view of settable conditions.

    :raise NotPermitted: where no file can satisfy all of them
    """
    change = NO_CHANGE
    for query in queries:
        if not satisfies(metadata, query):
            change = change.then(_setting(query))
    changed = change.apply(metadata)
    if not all(satisfies(changed, query) for query in queries):
        raise NotPermitted("no file can show there: a tag has one value")
    return change


def _setting(query: Query) -> MetadataChange:
    if isinstance(query, HasLabel):
        return MetadataChange(labels_added=query.labels)
    assert isinstance(query, HasTag), "nothing else is settable"
    (text,) = query.values
    return MetadataChange(tags_set={query.key: tag_value(text)})


def leaving(query: Query) -> MetadataChange:
    """Return what takes a file out of a view of one settable condition."""
    if isinstance(query, HasLabel):
        return MetadataChange(labels_removed=query.labels)
    assert isinstance(query, HasTag), "nothing else is settable"
    return MetadataChange(tags_removed=frozenset({query.key}))


def given_by(queries: Queries, metadata: DatafileMetadata) -> MetadataChange:
    """Return what takes labels or tags from a file that has no others than a view of settable conditions gave it."""
    labels = frozenset(label for query in queries if isinstance(query, HasLabel) for label in query.labels)
    keys = frozenset(query.key for query in queries if isinstance(query, HasTag))
    taken = MetadataChange(labels_removed=labels if metadata.labels <= labels else frozenset())
    without = MetadataChange(tags_removed=keys).apply(metadata)
    if keys and not without.tags:
        taken = taken.then(MetadataChange(tags_removed=keys))
    return taken if taken.apply(metadata) != metadata else NO_CHANGE


def crossing(left: Queries, entered: Queries, metadata: DatafileMetadata) -> MetadataChange:
    """Return what takes a file out of one view, of which it loses the innermost condition, and lets it show in another.

    A condition of both views is not lost.
    """
    lost = next((query for query in reversed(left) if query not in entered), None)
    change = leaving(lost) if lost is not None else NO_CHANGE
    return change.then(joining(entered, change.apply(metadata)))


def describe_all(dataset: Dataset, changes: Mapping[str, MetadataChange]) -> None:
    """Change the metadata of many files, by path; in the cloud, where each takes a request, many at once.

    All are tried; each failure is reported, and the first one raised.
    """
    writer, report = dataset.writing, dataset.keeper.report

    def describe(path: str) -> OctuefsError | None:
        try:
            writer.describe(path, changes[path])
        except OctuefsError as error:
            return error
        return None

    paths = [path for path, change in changes.items() if change]
    if dataset.in_cloud and len(paths) > 1:
        with ThreadPoolExecutor(min(_AT_ONCE, len(paths)), "describe") as threads:
            failures = list(threads.map(describe, paths))
    else:
        failures = list(map(describe, paths))
    failed = [(path, error) for path, error in zip(paths, failures, strict=True) if error is not None]
    if len(failed) > 1:
        for path, error in failed:
            report.failure(f"{path}: its metadata was not changed: {error}")
    if failed:
        raise failed[0][1]
