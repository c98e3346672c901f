"""The SDK's side of the interop tests: runs in .venv-sdk, answers a list of questions as JSON.

`argv[1]` is a file of [function, keyword arguments] pairs. A value that JSON lacks travels as in `.octue` files. What
the functions say is the SDK's own word; where DESIGN 2.5 reads a filter's value differently from what a caller of the
SDK would write in Python (texts, datetimes), `value_for` reads it so, by what the SDK says the attribute is.
"""

import copy
import functools
import json
import os
import sys
from datetime import UTC, datetime, time

from octue.mixins.filterable import INTERFACE_FILTERS, TYPE_FILTERS
from octue.mixins.hashable import Hashable
from octue.resources import Datafile, Dataset, Manifest
from octue.resources.label import LabelSet
from octue.utils.decoders import OctueJSONDecoder
from octue.utils.encoders import OctueJSONEncoder
from octue.utils.metadata import load_local_metadata_file
from octue.utils.objects import get_nested_attribute


class SortedLabels(set):
    """Labels that print in order: of the texts that a LabelSet may print in some process, the one that is ours."""

    def __repr__(self):
        return f"LabelSet({{{', '.join(map(repr, sorted(self)))}}})" if self else "LabelSet()"


# --- writing


def write(path, dataset, files):
    """Store the metadata of files that are there, and of the dataset itself where some is given."""
    for name, metadata in files.items():
        Datafile(path=os.path.join(path, name), **metadata).update_local_metadata()
    if dataset is not None:
        Dataset(path=path, **dataset).update_local_metadata()


def upload(path, to, with_record):
    Dataset(path=path).upload(to, update_cloud_metadata=with_record)


def download(path, to):
    load(path).download(to)


# --- what the SDK says of a dataset


@functools.cache
def load(path, recursive=True):
    return Dataset(path=path, recursive=recursive)


def describe(path, recursive=True):
    dataset = load(path, recursive)
    return {
        "id": stored_record(dataset).get("id"),
        "stored_name": dataset._name,
        "name": dataset.name,
        "labels": sorted(map(str, dataset.labels)),
        "tags": text_of(dict(dataset.tags)),
        "hash": dataset.hash_value,
        "metadata_hash": metadata_hash(dataset),
        "files": {relative(dataset, file): describe_file(file) for file in dataset.files},
    }


def describe_file(file):
    return {
        "id": stored_record(file).get("id"),
        "name": file.name,
        "extension": file.extension,
        "labels": sorted(map(str, file.labels)),
        "tags": text_of(dict(file.tags)),
        "timestamp": file.timestamp and file.timestamp.isoformat(),
        "size_bytes": file.size_bytes,
        "hash": file.hash_value,
        "metadata_hash": metadata_hash(file),
    }


def stored_record(thing):
    """What is stored of a dataset or datafile; the SDK invents an ID where there is none."""
    is_file = isinstance(thing, Datafile)
    if thing.exists_in_cloud:
        return thing._cloud_metadata.get("custom_metadata", {}) if is_file else thing._cloud_metadata
    records = load_local_metadata_file(thing)
    return (records.get("datafiles", {}).get(thing.name) if is_file else records.get("dataset")) or {}


def metadata_hash(thing):
    """The SDK's value where it is always the same, else the one of its values that has the labels in order."""
    options = {"use_octue_namespace": False} if isinstance(thing, Datafile) else {}
    metadata = thing.metadata(include_id=False, include_sdk_version=False, **options)
    in_order = Hashable.hash_non_class_object({**metadata, "labels": SortedLabels(map(str, metadata["labels"]))})
    if len(thing.labels) < 2:
        assert in_order == thing.metadata_hash_value
    return in_order


def relative(dataset, file):
    path = file.cloud_path if file.exists_in_cloud else file._local_path
    root = dataset.path if file.exists_in_cloud else os.path.abspath(dataset.path)
    assert path.startswith(root + "/"), (path, root)
    return path[len(root) + 1 :]


def text_of(value):
    return json.dumps(value, cls=OctueJSONEncoder)


# --- manifests


def describe_manifest(path):
    """What the SDK says of the manifest in a local file."""
    manifest = Manifest.from_file(path)
    return {
        "id": manifest.id,
        "name": manifest.name,
        "hash": manifest.hash_value,
        "metadata_hash": manifest.metadata_hash_value,
        "serialised": manifest.serialise(),
        "datasets": {
            name: {
                "path": dataset.path,
                "id": dataset.id,
                "name": dataset.name,
                "labels": sorted(map(str, dataset.labels)),
                "tags": text_of(dict(dataset.tags)),
                "hash": dataset.hash_value,
                "files": sorted(file.cloud_path or file.local_path for file in dataset.files),
                "file_labels": sorted({label for file in dataset.files for label in map(str, file.labels)}),
            }
            for name, dataset in manifest.datasets.items()
        },
    }


# --- subsets, filters and orders


def select(path, steps, below=""):
    """The files, and the hash, of the subset that several steps leave: each {"any": [expression, ...], "not": bool}."""
    dataset = load(path)
    chosen = [file for file in dataset.files if relative(dataset, file).startswith(below)]
    for step in steps:
        chosen = [file for file in chosen if any(satisfies(file, it) for it in step["any"]) != step.get("not", False)]
    return {
        "files": sorted(relative(dataset, file)[len(below) :] for file in chosen),
        "hash": hash_of(dataset, chosen),
    }


def hash_of(dataset, files):
    subset = copy.copy(dataset)
    subset.files = type(dataset.files)(files)
    return subset.hash_value


def filter_all(path, expressions):
    """For each expression, the paths of the files that satisfy it."""
    dataset = load(path)
    members = sorted((relative(dataset, file), file) for file in dataset.files)
    return [[name for name, file in members if satisfies(file, expression)] for expression in expressions]


def filter_sets(path, conditions):
    """The same for keyword arguments of the SDK's own `filter`, values as they are."""
    dataset = load(path)
    return [sorted(relative(dataset, file) for file in dataset.files.filter(**condition)) for condition in conditions]


def satisfies(file, expression):
    """Ask the SDK; where it raises for this file, the file does not match."""
    name, _, text = expression.partition("=")
    try:
        value = value_for(file, name, text)
        try:
            return bool(file.satisfies(**{name: value}))
        except TypeError as error:
            if "offset-naive" not in str(error):
                raise
            # On purpose different from the SDK (DESIGN 2.5): the side without an offset is taken as UTC.
            aware = copy.copy(file)
            if name.startswith("timestamp") and not name.endswith("in_time_range"):
                aware.timestamp = as_utc(file.timestamp)
            else:
                aware.tags = {key: as_utc(value) for key, value in file.tags.items()}
            return bool(aware.satisfies(**{name: as_utc(value)}))
    except Exception:
        return False


def as_utc(value):
    if isinstance(value, list):
        return [as_utc(item) for item in value]
    if isinstance(value, (datetime, time)) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def value_for(file, name, text):
    """The Python value that a filter's text stands for, given the attribute that the SDK would compare it with."""
    try:
        value = json.loads(text, cls=OctueJSONDecoder)
    except ValueError:
        value = text
    *names, action = name.split("__")
    try:
        attribute = get_nested_attribute(file, ".".join(names))
        file._get_filter(attribute, action)
    except Exception:
        attribute = get_nested_attribute(file, ".".join((*names, action)))
        action = "equals"
    if isinstance(attribute, (str, LabelSet)):
        return value if isinstance(value, (str, list, set)) else text
    if isinstance(attribute, datetime):
        return moments(value, action)
    return value


def moments(value, action):
    if isinstance(value, list):
        return [moments(item, action) for item in value]
    if not isinstance(value, str):
        return value
    try:
        if action in ("time_equals", "time_in", "in_time_range"):
            return time.fromisoformat(value)
        moment = datetime.fromisoformat(value)
        return moment.date() if action == "in_date_range" else moment
    except ValueError:
        return value


def order(path, attribute, reverse, expressions):
    """[path, value] pairs in the SDK's order, of the files that satisfy all expressions."""
    dataset = load(path)
    chosen = [file for file in dataset.files if all(satisfies(file, expression) for expression in expressions)]
    ordered = type(dataset.files)(chosen).order_by(attribute, reverse=reverse)
    name = ".".join(attribute.split("__"))
    return [[relative(dataset, file), text_of(get_nested_attribute(file, name))] for file in ordered]


def actions():
    """Every action that some attribute has, in the SDK."""
    return sorted({name for table in [*TYPE_FILTERS.values(), *INTERFACE_FILTERS.values()] for name in table})


if __name__ == "__main__":
    with open(sys.argv[1]) as request:
        questions = json.load(request, cls=OctueJSONDecoder)
    json.dump([globals()[function](**arguments) for function, arguments in questions], sys.stdout, cls=OctueJSONEncoder)
