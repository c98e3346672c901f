"""What a store is whose dataset is a list of files, wherever they are: places in the dataset, and who reads them.

`listed.py` and `signed_url.py` say which members there are, and how one is described and opened; this module makes
a `Store` of it. Folders are implied by the places. Nothing can be changed through such a store.
"""

import stat
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar

from octuefs.errors import (
    Conflict,
    IsADirectory,
    NotFound,
    OctuefsError,
    PermissionRefused,
    StoreUnavailable,
    TimedOut,
)
from octuefs.model.paths import GS_SCHEME, Location, parent_of, path_bytes, problem_with_path
from octuefs.stores.base import ByteSource, Kind, ObjectInfo, Ownership, Skipped, StreamSource
from octuefs.stores.plain import PlainStore

WORKERS = 32
"""How many requests for facts are under way at once."""

Member = TypeVar("Member")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Links(Protocol):
    """Reads objects by URLs that may be signed, which it never shows."""

    def describe(self, url: str, path: str) -> ObjectInfo:
        """Return what stands at a URL now, under its `path` in a dataset.

        :raise NotFound: where nothing does; PermissionRefused where the link expired or is refused
        """
        ...

    def open(self, url: str, info: ObjectInfo) -> ByteSource:
        """Return a source of the version that `info` describes; nothing is asked."""
        ...

    def close(self) -> None:
        """Give back the connections; a later use makes new ones."""
        ...


@dataclass(frozen=True, slots=True)
class Contents(Generic[Member]):
    """The members by place, sorted by it, the folders that their places imply, and what cannot be shown."""

    members: Mapping[str, Member]
    folders: frozenset[str]
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(cls, placed: Iterable[tuple[str, Member]]) -> "Contents[Member]":
        """Sort members; those whose place cannot be a path are skipped, and all but the first at one place."""
        members: dict[str, Member] = {}
        skipped = []
        for place, member in placed:
            if (problem := problem_with_path(place)) is not None:
                skipped.append(Skipped(place or "a listed file", problem))
            elif place in members:
                skipped.append(Skipped(place, "two of the listed files have this place"))
            else:
                members[place] = member
        folders = set()
        for place in members:
            while (place := parent_of(place)) and place not in folders:
                folders.add(place)
        ordered = {place: members[place] for place in sorted(members, key=path_bytes)}
        return cls(ordered, frozenset(folders), tuple(skipped))


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS
) -> Iterator[tuple[Item, Result | OctuefsError]]:
    """Yield each item with what `function` returns for it, or with its failure, in their order.

    A few are ahead of what is yielded, so that a million items do not wait in memory.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="describe")
    ahead: deque[tuple[Item, Future[Result | OctuefsError]]] = deque()
    try:
        for item in items:
            ahead.append((item, pool.submit(_outcome, function, item)))
            if len(ahead) > 4 * workers:
                first, future = ahead.popleft()
                yield first, future.result()
        for item, future in ahead:
            yield item, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _outcome(function: Callable[[Item], Result], item: Item) -> Result | OctuefsError:
    try:
        return function(item)
    except OctuefsError as error:
        return error


def number_of(origin: str) -> int:
    """Return a stable inode number of 63 bits for what lives at `origin`; an object has that of its own bucket."""
    name = origin.removeprefix(GS_SCHEME).encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 1


class MemberSource:
    """A `ByteSource` over an open file that goes by its place in a dataset: it is what `info` describes."""

    def __init__(self, source: ByteSource, info: ObjectInfo) -> None:
        self._source = source
        self._info = info

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        return self._source.read(offset, size)

    def version(self) -> Hashable:
        """Return the version that is pinned: it stands, or reading fails."""
        return self._info.version

    def identity(self) -> Hashable:
        """See `ByteSource`."""
        return self._source.identity()

    def info(self) -> ObjectInfo | None:
        """Return what was opened; nothing is asked."""
        return self._info

    def close(self) -> None:
        """See `ByteSource`."""
        self._source.close()


class MemberObject(MemberSource):
    """A `StreamSource` that goes by its place in a dataset."""

    def __init__(self, source: StreamSource, info: ObjectInfo) -> None:
        super().__init__(source, info)
        self._object = source

    def stream(self, offset: int, end: int, *, background: bool = False) -> Iterator[bytes]:
        """See `StreamSource`."""
        return self._object.stream(offset, end, background=background)

    def cache_key(self) -> str | None:
        """See `StreamSource`."""
        return self._object.cache_key()


class MemberStore(PlainStore, Generic[Member]):
    """A `Store` over a list of files; it has metadata with each of them, as a bucket has."""

    def __init__(self, location: Location, ownership: Ownership | None = None) -> None:
        self.location = location
        self.ownership = ownership or Ownership()
        self._made_ns = time.time_ns()
        self._lock = threading.Lock()  # guards _contents
        self._contents: Contents[Member] | None = None

    # --- what the kinds of such stores differ in

    @abstractmethod
    def _read_contents(self) -> Contents[Member]:
        """Return the members as they are listed now.

        :raise OctuefsError: where the list cannot be read
        """

    @abstractmethod
    def _describe(self, place: str, member: Member) -> ObjectInfo:
        """Return what a member is now, with its `origin`.

        :raise OctuefsError: where it is not there, or may not be read
        """

    @abstractmethod
    def _describe_all(self, members: Mapping[str, Member]) -> Iterator[tuple[str, ObjectInfo | OctuefsError]]:
        """Yield the places of many, in their order, with what each member is or why that cannot be said."""

    @abstractmethod
    def _open(self, member: Member, info: ObjectInfo) -> ByteSource:
        """Open a member in the version that `info` describes."""

    @abstractmethod
    def check(self) -> None:
        """See `Store`."""

    @abstractmethod
    def close(self) -> None:
        """See `Store`."""

    # --- facts

    def _known(self, *, anew: bool) -> Contents[Member]:
        """Return the members, from the list as it is now where that is asked for or was never read."""
        with self._lock:
            known = self._contents
        if known is None or anew:
            known = self._read_contents()
            with self._lock:
                self._contents = known
        return known

    def scan(self, folder: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo | Skipped]:
        """Yield the files in `folder`, and below it where `recursive`, by their places as bytes.

        Folders are yielded where not `recursive`. For the whole dataset the list is read anew, too. A member that is
        not there, or that alone may not be read, is skipped with the reason.

        :raise NotFound: where no listed file has its place in the folder
        :raise PermissionRefused: where none of the files may be read
        :raise StoreUnavailable: where one cannot be described for now: it is not to vanish for that
        """
        contents = self._known(anew=not folder)
        if folder and folder not in contents.folders:
            raise NotFound(f"{self.location.of(folder)}: no such folder")
        prefix = f"{folder}/" if folder else ""
        wanted: dict[str, Member] = {}
        below: dict[str, None] = {}
        for place, member in contents.members.items():
            if not place.startswith(prefix):
                continue
            child, slash, _ = place[len(prefix) :].partition("/")
            if recursive or not slash:
                wanted[place] = member
            else:
                below[prefix + child] = None
        yield from (self._folder(path) for path in below)
        yield from (it for it in contents.skipped if it.name.startswith(prefix))
        yield from self._scan_members(wanted)

    def _scan_members(self, members: Mapping[str, Member]) -> Iterator[ObjectInfo | Skipped]:
        refused: list[tuple[str, OctuefsError]] = []
        any_other = False
        for place, found in self._describe_all(members):
            if isinstance(found, ObjectInfo):
                any_other = True
                yield found
            elif isinstance(found, PermissionRefused):
                refused.append((place, found))
            elif isinstance(found, StoreUnavailable | TimedOut | Conflict):
                raise found
            else:
                any_other = True
                yield Skipped(place, str(found))
        if refused and not any_other:
            raise refused[0][1]
        yield from (Skipped(place, str(error)) for place, error in refused)

    def stat(self, path: str) -> ObjectInfo:
        """Return what stands at `path` now: a member, or the folder that places of members imply.

        :raise NotFound: where nothing does
        """
        if not path:
            return self._folder("")
        contents = self._known(anew=False)
        if path in contents.members:
            return self._describe(path, contents.members[path])
        if path in contents.folders:
            return self._folder(path)
        raise NotFound(f"{self.location.of(path)}: no such file or folder")

    def _folder(self, path: str) -> ObjectInfo:
        made_ns = 0 if path else self._made_ns
        return ObjectInfo(
            path=path,
            kind=Kind.FOLDER,
            size=0,
            mtime_ns=made_ns,
            ctime_ns=made_ns,
            mode=stat.S_IFDIR | self.ownership.dir_mode,
            uid=self.ownership.uid,
            gid=self.ownership.gid,
            inode=number_of(f"{self.location}/{path}"),
            links=1,
            version=(0, 0, 0),
            custom_metadata={},
        )

    # --- bytes

    def open(self, info: ObjectInfo) -> ByteSource:
        """Open the version that `info` describes (of a disk's file: what stands there now).

        :raise NotFound: where no member has this place any more
        """
        if info.kind is not Kind.FILE:
            raise IsADirectory(f"{self.location.of(info.path)}: is a folder")
        member = self._known(anew=False).members.get(info.path)
        if member is None:
            raise NotFound(f"{self.location.of(info.path)}: it is not listed any more")
        return self._open(member, info)
