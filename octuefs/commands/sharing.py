"""Sharing a dataset by a link, as the SDK's `Dataset.generate_signed_url` does it.

The command calls with what is to be shared; every file gets a signed link of its own, a document that lists them is
stored under a name that nobody guesses, and the signed link of that document leaves. Whoever has it can read the
files until it expires; so it is given back and never logged, and no error tells it.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import google_crc32c

from octuefs.commands.mounted_datasets import MountedPath, ask_for_dataset, find_in_mount
from octuefs.errors import BadValue
from octuefs.model.manifest import dataset_dictionary
from octuefs.model.paths import (
    GS_SCHEME,
    SIGNED_METADATA_NAME,
    CloudLocation,
    UrlLocation,
    bucket_and_name,
    parse_location,
    parse_source,
)
from octuefs.model.values import stored_form
from octuefs.stores.writing import ObjectProperties, Precondition

if TYPE_CHECKING:
    from octuefs.dataset import Dataset
    from octuefs.stores.base import LinkSigner
    from octuefs.stores.writing import ObjectStore

LONGEST = timedelta(days=7)
"""The longest life of a v4 signature."""
SURE_BY_GOOGLE = timedelta(hours=12)
"""How long a signature by a key that Google keeps is sure to hold: these keys change."""

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_AT_ONCE = 16
"""Signatures that are asked for at once."""
_NEW = Precondition(0)

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Shared:
    """What is to be shared: a dataset's own facts, as JSON values, and the gs:// paths of the files it is to have."""

    path: str
    id: str
    name: str
    tags: Mapping[str, Any]
    labels: Sequence[str]
    files: Sequence[str]


def parse_lifetime(text: str) -> timedelta:
    """Return how long a link is to last: 7d, 12h, 30m or 3600s.

    :raise BadValue: for another text, for no time at all, and for more than Google's signatures last
    """
    match = re.fullmatch(r"([0-9]{1,9})([dhms])", text.strip())
    if match is None:
        raise BadValue(f"--expires {text}: write a number and d, h, m or s, e.g. 7d, 12h, 30m or 3600s")
    lifetime = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if not timedelta() < lifetime <= LONGEST:
        raise BadValue(f"--expires {text}: a link lasts at least a second and at most 7 days (7d)")
    return lifetime


def find_source(source: str) -> CloudLocation | MountedPath:
    """Return the place in a bucket that a source is, or the path in a mount of ours.

    :raise BadValue: for anything else: only what lies in a bucket can be shared
    """
    location = parse_source(source)
    if isinstance(location, UrlLocation):
        raise BadValue("this is a link already; share gs://bucket/path, or a path in a mount")
    if isinstance(location, CloudLocation):
        return location
    place = find_in_mount(source)
    if place is None:
        raise BadValue(_not_in_bucket(location.path))
    return place


def shared_in_mount(place: MountedPath) -> Shared | CloudLocation:
    """Return what a path in a mount of ours stands for: the files of a view, or the place of a dataset or folder.

    :raise OctuefsError: where its files do not lie in a bucket, or what was written could not be stored there
    """
    answer = ask_for_dataset(place)
    location = parse_location(answer["path"])
    if not isinstance(location, CloudLocation):
        raise BadValue(_not_in_bucket(location.path))
    if answer["files"] is None:
        return location
    return Shared(str(location), answer["id"], answer["name"], answer["tags"], answer["labels"], answer["files"])


def shared_dataset(dataset: "Dataset") -> Shared:
    """Return what a whole dataset is."""
    stored = dataset.metadata
    return Shared(
        str(dataset.location),
        dataset.id,
        dataset.name,
        stored_form(stored.tags) if stored else {},
        sorted(stored.labels) if stored else (),
        [datafile.full_path for datafile in dataset.index.members("", ())],
    )


def share(what: Shared, store: "ObjectStore", signer: "LinkSigner", lifetime: timedelta, progress: Progress) -> str:
    """Sign links to all files, store the document with them in the dataset's folder, and return the link to it.

    :param store: of the dataset's own place
    :param progress: told how many links are signed
    :raise BadValue: where there are no files (readers would take that for the whole folder), or one is no object
    """
    if not what.files:
        raise BadValue(f"{what.path}: there are no files in it, and a link to none would show the whole folder")
    objects = [_object_of(file) for file in sorted(what.files)]

    def sign(place: tuple[str, str]) -> str:
        return signer.link(place[0], place[1], lifetime)

    links = [sign(objects[0])]  # alone: what is refused is refused once
    signer.check(links[0], min(what.files))
    progress(1)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            for link in threads.map(sign, objects[1:]):
                links.append(link)
                progress(len(links))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    document = dataset_dictionary(what.path, links, id=what.id, name=what.name, tags=what.tags, labels=what.labels)
    data = json.dumps(document).encode()
    place = f"{SIGNED_METADATA_NAME}/{secrets.token_hex(16)}"
    properties = ObjectProperties(fixed={"contentType": "application/json"})
    store.upload(
        place, lambda offset, size: data[offset : offset + size], len(data), google_crc32c.value(data), properties, _NEW
    )
    location = store.location
    assert isinstance(location, CloudLocation)
    return signer.link(location.bucket, location.object_prefix + place, lifetime)


def _object_of(path: str) -> tuple[str, str]:
    """Return the bucket and the name of an object.

    :raise BadValue: for what lies elsewhere
    """
    bucket, name = bucket_and_name(path)
    if not path.startswith(GS_SCHEME) or not name:
        raise BadValue(_not_in_bucket(path))
    return bucket, name


def _not_in_bucket(path: str) -> str:
    if "://" in path:
        return "a part of this dataset was shared with you by links; only what lies in a bucket of yours can be shared"
    return f"{path} is not in a bucket; upload it first: octuefs upload {path} gs://bucket/path"
