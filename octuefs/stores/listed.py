"""The store of a dataset that names its files one by one: on disks, in buckets, behind URLs, each wherever it is.

Such a list comes from a manifest, or from a stored record that names files outside of its folder. The keeper calls
for facts and the content layer for bytes, on any thread. The metadata of each file are those that are stored with
it (in the `.octue` of a disk's folder, with an object), and per field what the list gives where nothing is stored;
both come out as an object's custom metadata. The stores of folders and buckets are made by callables of the wiring.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice

from octuefs.errors import IsADirectory, NotFound, OctuefsError, PermissionRefused
from octuefs.model.given import with_given
from octuefs.model.listed_files import FileEntry, is_cloud, is_url
from octuefs.model.paths import GS_SCHEME, CloudLocation, LocalLocation, Location, bucket_and_name, parent_of
from octuefs.stores.base import ByteSource, Kind, ObjectInfo, Ownership, Store, StreamSource
from octuefs.stores.listed_on_disk import DiskFiles, Folder
from octuefs.stores.members import Contents, Links, MemberObject, MemberSource, MemberStore, in_parallel, number_of

_LISTED_FROM = 64
"""From so many members in one folder of a bucket on, the folder is listed instead of asking for each."""
_LISTED_FOR_ONE = 50
"""So many names of others a list of a folder may have for each member, before the members are asked for."""
_LOOKED_AT = 16
"""So many members are looked at before a dataset counts as gone."""


class ListedStore(MemberStore[FileEntry]):
    """A store of the listed files; what is changed underneath shows with the next scan."""

    def __init__(
        self,
        location: Location,
        placed: Iterable[tuple[str, FileEntry]],
        *,
        open_folder: Callable[[LocalLocation], Store],
        open_bucket: Callable[[CloudLocation], Store],
        open_links: Callable[[], Links],
        avoid: str | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        """`placed` are the files with their places (`place_files`), `avoid` is the mount point, never looked into.

        The stores and links that are opened are closed with this one. `location` is the dataset's own path, which
        need not be there.
        """
        super().__init__(location, ownership)
        self._listed: Contents[FileEntry] = Contents.of(placed)
        self._disk = DiskFiles(open_folder, avoid)
        self._buckets = _Buckets(open_bucket)
        self._open_links = open_links
        self._opened_links: Links | None = None

    def check(self) -> None:
        """Raise where none of the first files is there, or none may be read; the dataset's path itself need not be."""
        failure: OctuefsError | None = None
        for place, member in list(self._listed.members.items())[:_LOOKED_AT]:
            try:
                self._describe(place, member)
                return
            except OctuefsError as error:
                failure = failure or error
        if isinstance(failure, NotFound):
            raise NotFound(f"{failure}; none of the files that the dataset lists is there")
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Give back descriptors and connections; a later use opens them again."""
        with self._lock:
            links, self._opened_links = self._opened_links, None
        if links is not None:
            links.close()
        self._disk.close()
        self._buckets.close()

    def _links(self) -> Links:
        with self._lock:
            if self._opened_links is None:
                self._opened_links = self._open_links()
            return self._opened_links

    def _read_contents(self) -> Contents[FileEntry]:
        return self._listed

    def _describe(self, place: str, member: FileEntry) -> ObjectInfo:
        if member.path.startswith(GS_SCHEME):
            return _as_member(self._buckets.describe(member.path), place, member)
        if is_url(member.path):
            return _as_member(self._links().describe(member.path, place), place, member)
        return self._disk.describe(place, member, {})

    def _describe_all(self, members: Mapping[str, FileEntry]) -> Iterator[tuple[str, ObjectInfo | OctuefsError]]:
        """Yield those on disks first, which are no requests, then those in folders of buckets that can be listed."""
        seen: dict[str, Folder] = {}
        on_disk = {place: it for place, it in members.items() if not is_cloud(it.path)}
        for place, member in on_disk.items():
            try:
                yield place, self._disk.describe(place, member, seen)
            except OctuefsError as error:
                yield place, error
        rest = {place: member for place, member in members.items() if place not in on_disk}
        listed = self._buckets.listed(it.path for it in rest.values() if it.path.startswith(GS_SCHEME))
        for place, member in list(rest.items()):
            if (found := listed.get(member.path)) is not None:
                yield place, _as_member(found, place, member)
                del rest[place]
        yield from in_parallel(lambda place: self._describe(place, rest[place]), rest)

    def _open(self, member: FileEntry, info: ObjectInfo) -> ByteSource:
        if member.path.startswith(GS_SCHEME):
            return self._buckets.open(member.path, info)
        if is_url(member.path):
            return self._links().open(member.path, info)
        return self._disk.open(member, info)


def _as_member(found: ObjectInfo, place: str, member: FileEntry) -> ObjectInfo:
    """Return an object under its place, with the metadata that the list gives it besides."""
    if found.kind is not Kind.FILE:
        raise IsADirectory(f"{member.path}: a folder, where an object is listed")
    origin = found.origin or member.path
    custom = with_given(found.custom_metadata or {}, member.given)
    return found._replace(path=place, origin=origin, inode=number_of(origin), custom_metadata=custom)


class _Buckets:
    """The objects that are listed by their gs:// paths, through one store for each bucket."""

    def __init__(self, open_bucket: Callable[[CloudLocation], Store]) -> None:
        self._open_bucket = open_bucket
        self._lock = threading.Lock()  # guards _stores
        self._stores: dict[str, Store] = {}

    def close(self) -> None:
        with self._lock:
            stores, self._stores = self._stores, {}
        for store in stores.values():
            store.close()

    def _store(self, bucket: str) -> Store:
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = self._open_bucket(CloudLocation(bucket, ""))
            return self._stores[bucket]

    def describe(self, path: str) -> ObjectInfo:
        """Return what stands at a gs:// path, under its name in the bucket."""
        bucket, name = bucket_and_name(path)
        return self._store(bucket).stat(name)

    def open(self, path: str, info: ObjectInfo) -> ByteSource:
        """Return a source of the generation that `info` describes."""
        bucket, name = bucket_and_name(path)
        source = self._store(bucket).open(info._replace(path=name))
        return MemberObject(source, info) if isinstance(source, StreamSource) else MemberSource(source, info)

    def listed(self, paths: Iterable[str]) -> dict[str, ObjectInfo]:
        """Return by gs:// path what lists of whole folders tell, where many of the paths lie in one folder.

        What is not returned is yet to be asked for, one by one.
        """
        folders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for path in paths:
            bucket, name = bucket_and_name(path)
            folders[bucket, parent_of(name)].add(name)
        found = {}
        for (bucket, folder), names in folders.items():
            if len(names) < _LISTED_FROM:
                continue
            with suppress(NotFound, PermissionRefused):
                listing = self._store(bucket).scan(folder, recursive=False)
                for item in islice(listing, _LISTED_FOR_ONE * len(names)):
                    if isinstance(item, ObjectInfo) and item.kind is Kind.FILE and item.path in names:
                        found[f"{GS_SCHEME}{bucket}/{item.path}"] = item
        return found
