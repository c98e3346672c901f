"""What the store lists: folders page by page, and all below one in parallel.

The keeper, the writers and the transfers call `scan`; facts leave. A page is asked for in one place, `_start_page`,
over gcsfs's session and with its tries. Which range of names each request asks for is decided in `gcs_listing_ranges`;
the threads that ask, decode and describe away from the caller's are those of `gcs_listing_threads`.
"""

import concurrent.futures
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from octuefs.errors import NotFound
from octuefs.model.paths import GS_SCHEME
from octuefs.stores.base import Kind, ObjectInfo, Skipped
from octuefs.stores.gcs_failures import failure
from octuefs.stores.gcs_listing_ranges import Range, Ranges
from octuefs.stores.gcs_listing_threads import Underway, in_parallel
from octuefs.stores.gcs_requests import GcsRequests
from octuefs.stores.gcs_resource import FIELDS, Describer, Resource, problem_with_name

LIST_FIELDS = f"nextPageToken,prefixes,items({FIELDS})"
"""What is asked for of a page."""

PAGE_SIZE = 1000
"""How many objects a page has at most; Google gives no more."""

_Found = ObjectInfo | Skipped
_Asked = concurrent.futures.Future[bytes]


class Page(msgspec.Struct, gc=False):
    """What Google answers."""

    items: list[Resource] = []
    prefixes: list[str] = []
    nextPageToken: str | None = None


_PAGES = msgspec.json.Decoder(Page, strict=False)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which page is wanted: of the names that begin with `prefix`, from `start` to before `end`."""

    prefix: str
    delimiter: str | None = None
    start: str | None = None
    end: str | None = None
    token: str | None = None


class GcsListing(GcsRequests):
    """The part of the store that lists."""

    def scan(self, folder: str = "", *, recursive: bool = True) -> Iterator[_Found]:
        """Yield the objects in `folder`, in the order of their names; all below it too where `recursive`, in any order.

        An object whose name ends in "/" is a folder. Folders that exist only through the objects below them
        are yielded where not `recursive`, and left to the caller where it is. The next pages (several where
        `recursive`) are under way while one is yielded; none is any more when the iterator was closed.

        :raise NotFound: with the first item, where nothing stands in a `folder` other than the dataset's root
        """
        if folder and problem_with_name(folder):
            raise NotFound(f"{self._place.of(folder)}: no folder can have this name")
        prefix = self._place.object_prefix + (f"{folder}/" if folder else "")
        found = False
        for items in self._scan_below(prefix) if recursive else self._scan_folder(prefix):
            found = True
            yield from items
        if folder and not found:
            raise NotFound(f"{self._place.of(folder)}: no such folder")

    def _scan_below(self, prefix: str) -> Iterator[list[_Found]]:
        """Yield page by page the objects whose names begin with `prefix`, without that of just this name."""

        def ask(taken: Range, underway: Underway) -> Page:
            asked = self._start_page(_Wanted(prefix, None, taken.start, taken.asked_end, taken.token))
            with underway(asked):
                return self._page(asked, prefix)

        def describe(resources: Sequence[Resource]) -> list[_Found]:
            return [self._described(resource) for resource in resources if resource.name != prefix]

        return in_parallel(Ranges(prefix, PAGE_SIZE), ask, describe)

    def _scan_folder(self, prefix: str) -> Iterator[list[_Found]]:
        """Yield page by page what stands directly in the folder whose objects' names begin with `prefix`."""
        asked: _Asked | None = self._start_page(_Wanted(prefix, "/"))
        try:
            while asked is not None:
                page = self._page(asked, prefix)
                token = page.nextPageToken
                asked = self._start_page(_Wanted(prefix, "/", token=token)) if token else None
                found = [self._described(resource) for resource in page.items if resource.name != prefix]
                found.extend(map(self._implied, page.prefixes))
                if page.items or page.prefixes:
                    yield found
        finally:
            if asked is not None:
                asked.cancel()

    def _start_page(self, wanted: _Wanted) -> _Asked:
        """Begin to ask for a page: the one place where that is done; `_page` waits for it."""
        return self._start(
            "b/{}/o",
            self._place.bucket,
            prefix=wanted.prefix,
            delimiter=wanted.delimiter,
            startOffset=wanted.start,
            endOffset=wanted.end,
            pageToken=wanted.token,
            maxResults=PAGE_SIZE,
            fields=LIST_FIELDS,
            prettyPrint="false",
        )

    def _page(self, asked: _Asked, prefix: str) -> Page:
        """Wait for a page that was asked for.

        :raise StoreUnavailable: where the answer is none
        """
        subject = f"{GS_SCHEME}{self._place.bucket}/{prefix}".rstrip("/")
        content = self._result(asked, subject)
        try:
            return _PAGES.decode(content)
        except ValueError as error:
            raise failure(error, subject, self.endpoint) from error

    def _described(self, resource: Resource) -> _Found:
        """Describe a listed object, or say why it cannot be shown."""
        path = resource.name[len(self._place.object_prefix) :]
        kind = Kind.FOLDER if path.endswith("/") else Kind.FILE
        place = path.removesuffix("/")
        problem = problem_with_name(place)
        return Skipped(path, problem) if problem else self._describer.describe(place, kind, resource)

    def _implied(self, name: str) -> _Found:
        """Describe a folder that objects below it imply, by what their names begin with."""
        path = name[len(self._place.object_prefix) : -1]
        problem = problem_with_name(path)
        return Skipped(path + "/", problem) if problem else self._describer.describe(path, Kind.FOLDER, Resource())

    @cached_property
    def _describer(self) -> Describer:
        return Describer(self._place, self.ownership)
