"""Requests to URLs that may be signed: facts by HEAD, bytes by ranged GET, with tries where a failure may pass.

The stores of shared and of listed datasets call, on any thread. A URL is a credential: no message and no log shows its
query, and what the HTTP library raises is never kept, not even as the cause of what we raise, as its texts hold whole
URLs. Redirects of objects are not followed, as a signature is meant for one server. Importing this module is cheap.
"""

import importlib
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from octuefs.errors import (
    BadValue,
    Conflict,
    NotFound,
    OctuefsError,
    Overloaded,
    PermissionRefused,
    StoreUnavailable,
    TimedOut,
)
from octuefs.model.links import expiry_of, refusal_of
from octuefs.model.paths import UrlLocation, parse_source
from octuefs.stores.base import ObjectInfo, Ownership
from octuefs.stores.members import WORKERS
from octuefs.stores.signed_headers import NO_GENERATION, generation_of, info_of, lowered, range_of, size_of
from octuefs.stores.traffic import Traffic

_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between tries on the average: each is left to chance, up to twice as long."""
_FEW_PAUSES = (0.5, 1.0)
"""The same where somebody waits at a terminal."""
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
_PIECE_BYTES = 8 << 20
_LONGEST_REFUSAL = 1 << 16
_HERE = ("localhost", "127.0.0.1", "::1")

_ELSEWHERE = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_REFUSED = (400, 401, 403)
_HEAD_REFUSED = (*_REFUSED, 405, 501)
"""What a server answers to HEAD where the link is for GET alone."""
_EXPIRED = re.compile(r"<Code>ExpiredToken</Code>")
_EXPIRED_AT = re.compile(r"expired at:?\s*(\d{4}-\d\d-\d\d[T ]\d\d:\d\d)", re.I)

Result = TypeVar("Result")
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Where a server redirects."""

    url: str = field(repr=False)


class _Passing(StoreUnavailable):
    """A failure that may have passed with the next try."""


class SignedLinks:
    """Reads objects by URL; an implementation of `Links`."""

    def __init__(self, *, ownership: Ownership | None = None, traffic: Traffic | None = None) -> None:
        self._ownership = ownership or Ownership()
        self._traffic = traffic or Traffic()
        self._lock = threading.Lock()  # guards _pools and _process
        self._pools: dict[str, Any] = {}
        self._process = 0
        self._only_get = False
        """Whether HEAD was refused where GET was not."""

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        with self._lock:
            pools, self._pools = self._pools, {}
        if self._process == os.getpid():
            for pool in pools.values():
                pool.clear()

    # --- what is asked

    def describe(self, url: str, path: str) -> ObjectInfo:
        """Return what stands at a URL now, under its `path` in a dataset.

        :raise NotFound: where nothing does; PermissionRefused where the link expired or is refused
        """
        return self._tried("stat", url, lambda: info_of(url, path, self._facts(url), self._ownership))

    def open(self, url: str, info: ObjectInfo) -> "SignedObject":
        """Return a source pinned to the generation of `info`; nothing is asked."""
        return SignedObject(self, url, info)

    def fetch(self, url: str, limit: int, *, few_tries: bool = False, redirections: int = 0) -> bytes:
        """Return the whole of a text of at most `limit` bytes, unpacked where the server packed it.

        So many `redirections` are followed, for texts that are no objects of a bucket.

        :raise BadValue: for a longer one
        """

        def take(response: Any) -> bytes | _Elsewhere:
            if redirections and response.status in _ELSEWHERE and response.headers.get("Location"):
                return _elsewhere(url, response.headers["Location"])
            _check(response, url, (200,))
            data = bytearray()
            while chunk := response.read(_CHUNK_BYTES, decode_content=True):
                self._traffic.received(len(chunk))
                data += chunk
                if len(data) > limit:
                    raise BadValue(f"{UrlLocation(url)}: it is larger than {limit} bytes")
            return bytes(data)

        found = self._tried("read", url, lambda: self._exchange("GET", url, {}, take), few_tries=few_tries)
        if isinstance(found, _Elsewhere):
            return self.fetch(found.url, limit, few_tries=few_tries, redirections=redirections - 1)
        return found

    def read_range(self, url: str, info: ObjectInfo, offset: int, end: int) -> bytes:
        """Return the stored bytes from `offset` to before `end`, all of them, of the version that `info` describes.

        :raise Conflict: where that version was replaced or removed
        """
        subject = UrlLocation(url)
        pinned = info.version[0] if isinstance(info.version, tuple) else None

        def take(response: Any) -> bytes:
            if response.status in (*_GONE, 412, 416):
                raise Conflict(f"{subject}: the version that was opened was replaced or removed since")
            _check(response, url, (200, 206))
            headers = lowered(response.headers)
            if generation_of(headers) != pinned:
                raise Conflict(f"{subject}: the version that was opened was replaced since")
            if response.status == 206 and range_of(headers)[0] != offset:
                raise StoreUnavailable(f"{subject}: other bytes arrived than were asked for")
            unwanted = offset if response.status == 200 else 0  # the range was ignored
            while unwanted and (chunk := response.read(min(unwanted, at_once), decode_content=False)):
                self._traffic.received(len(chunk))
                unwanted -= len(chunk)
            data = bytearray()
            while chunk := response.read(min(end - offset - len(data), at_once), decode_content=False):
                self._traffic.received(len(chunk))
                data += chunk
            if len(data) != end - offset:
                raise _Passing(f"{subject}: {len(data)} bytes arrived where {end - offset} were asked for")
            return bytes(data)

        at_once = self._traffic.received_at_once or _CHUNK_BYTES
        headers = {"Range": f"bytes={offset}-{end - 1}"}
        return self._tried("read", url, lambda: self._exchange("GET", url, headers, take))

    def _facts(self, url: str) -> Headers:
        """Return the headers that tell of an object, its size among them where the server tells it."""

        def take(response: Any) -> Headers | None:
            if response.status in _HEAD_REFUSED:
                return None
            _check(response, url, (200,))
            return lowered(response.headers)

        if not self._only_get:
            headers = self._exchange("HEAD", url, {}, take)
            if headers is not None and size_of(headers) is not None:
                return headers
            found = self._facts_by_get(url)
            self._only_get = headers is None
            return found
        return self._facts_by_get(url)

    def _facts_by_get(self, url: str) -> Headers:
        """GET one byte, which tells the same as HEAD; of an empty object there is none, so all of it is asked for."""

        def take(response: Any) -> Headers | None:
            if response.status == 416:
                return None
            _check(response, url, (200, 206))
            return lowered(response.headers)

        first = self._exchange("GET", url, {"Range": "bytes=0-0"}, take)
        found = first if first is not None else self._exchange("GET", url, {}, take)
        if found is None:
            raise StoreUnavailable(f"{UrlLocation(url)}: the server has no bytes of it")
        return found

    # --- how it is asked

    def _tried(self, kind: str, url: str, attempt: Callable[[], Result], *, few_tries: bool = False) -> Result:
        """Make an attempt, and others where a failure may pass; none with a link whose own date is past.

        They are one request of a `kind` of `Traffic`.
        """
        now = datetime.now(UTC)
        expires = expiry_of(url)
        if expires is not None and expires <= now:
            raise PermissionRefused(f"{UrlLocation(url)}: {refusal_of(url, now)}")
        with self._traffic.request(kind) as ticket:
            for pause in (*(_FEW_PAUSES if few_tries else _PAUSES), None):
                try:
                    return attempt()
                except (_Passing, Overloaded, TimedOut) as error:
                    if pause is None:
                        raise
                    ticket.retried(error)
                threading.Event().wait(pause * random.uniform(0, 2))
        raise AssertionError

    def _exchange(self, method: str, url: str, headers: Headers, take: Callable[[Any], Result]) -> Result:
        """Send one request and return what `take` makes of the answer, whose connection is given back.

        What the library raises is left behind before ours is raised: it would be kept as the context otherwise.
        """
        failure: OctuefsError
        errors = importlib.import_module("urllib3.exceptions")
        try:
            response = self._pool(url).request(
                method,
                url,
                headers={"Accept-Encoding": "gzip", **headers},  # so that Google sends bytes as they are stored
                preload_content=False,
                decode_content=False,
                redirect=False,
            )
            try:
                return take(response)
            finally:
                if response.length_remaining == 0:
                    response.drain_conn()  # without a body (HEAD) too, it has its connection until it is read
                else:
                    response.close()  # not read to the end: of no use for another request
                response.release_conn()
        except errors.LocationValueError:
            failure = BadValue(f"{UrlLocation(url)}: it is no complete URL")
        except errors.SSLError:
            failure = StoreUnavailable(f"{UrlLocation(url)}: the server's certificate cannot be verified")
        except errors.NewConnectionError:
            failure = _Passing(f"{UrlLocation(url)}: the server cannot be reached; check the network")
        except errors.TimeoutError:
            failure = TimedOut(f"{UrlLocation(url)}: the server did not answer in time")
        except (errors.HTTPError, OSError, UnicodeError) as error:
            failure = _Passing(f"{UrlLocation(url)}: the connection broke off ({type(error).__name__})")
        raise failure

    def _pool(self, url: str) -> Any:
        """Return the connections of this process, through the proxy that the environment names for the server."""
        urllib3 = importlib.import_module("urllib3")
        parts = urlsplit(url)
        proxy = ""
        if parts.hostname not in _HERE and not proxy_bypass(parts.hostname or ""):
            proxy = getproxies().get(parts.scheme.lower(), "")
        with self._lock:
            if self._process != os.getpid():  # a fork shares sockets, which two processes cannot
                self._pools, self._process = {}, os.getpid()
            if proxy not in self._pools:
                logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)  # it logs whole URLs
                settings = {
                    "maxsize": WORKERS,
                    "retries": False,
                    "timeout": urllib3.Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS),
                }
                self._pools[proxy] = (
                    urllib3.ProxyManager(proxy, **settings) if proxy else urllib3.PoolManager(**settings)
                )
            return self._pools[proxy]


def _elsewhere(url: str, location: str) -> _Elsewhere:
    """Return where the server of a URL redirects; `location` is its word for it."""
    try:
        target = urljoin(url, location)
        if isinstance(parse_source(target), UrlLocation):
            return _Elsewhere(target)
    except ValueError:
        pass
    raise StoreUnavailable(f"{UrlLocation(url)}: the server redirects to what is no URL")


def _check(response: Any, url: str, accepted: tuple[int, ...]) -> None:
    """Raise what an answer means that is none of the `accepted` statuses."""
    status = response.status
    if status in accepted:
        return
    subject = UrlLocation(url)
    if status in _GONE:
        raise NotFound(f"{subject}: there is nothing (any more); ask for a new link")
    if status in _REFUSED:
        raise PermissionRefused(f"{subject}: {_reason(response, url)}")
    if status in (408, 429) or status >= 500:
        raise (_Passing if status == 408 else Overloaded)(f"{subject}: the server cannot answer now (HTTP {status})")
    if 300 <= status < 400:
        raise StoreUnavailable(f"{subject}: the server redirects elsewhere, which links to objects do not")
    raise StoreUnavailable(f"{subject}: the server answers HTTP {status}")


def _reason(response: Any, url: str) -> str:
    """Return why a link is refused: by its own date, else by the time that Google names as its end."""
    text = bytes(response.read(_LONGEST_REFUSAL, decode_content=False)).decode("utf-8", "replace")
    now = datetime.now(UTC)
    expires = expiry_of(url)
    if _EXPIRED.search(text) and (expires is None or expires > now):
        when = _EXPIRED_AT.search(text)
        date = f" on {when[1].replace('T', ' ')} UTC" if when else ""
        return f"the link expired{date}; ask for a new one"
    return refusal_of(url, now)


class SignedObject:
    """A `StreamSource` over one generation of one object behind a URL. It holds nothing open."""

    def __init__(self, links: SignedLinks, url: str, info: ObjectInfo) -> None:
        self._links = links
        self._url = url
        self._info = info

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the object.

        :raise Conflict: where this generation is gone
        """
        end = min(offset + size, self._info.size)
        if end <= offset:
            return b""
        return self._links.read_range(self._url, self._info, offset, end)

    def stream(self, offset: int, end: int, *, background: bool = False) -> Iterator[bytes]:
        """See `StreamSource`; each piece is a request."""
        end = min(end, self._info.size)
        while offset < end:
            data = self._links.read_range(self._url, self._info, offset, min(offset + _PIECE_BYTES, end))
            yield data
            offset += len(data)

    def cache_key(self) -> str | None:
        """See `StreamSource`: a SHA-256 of the URL without what authorises it, and of the generation, or the ETag."""
        generation = self._info.version[0] if isinstance(self._info.version, tuple) else None
        if generation in (None, NO_GENERATION):
            return None
        return sha256(f"{UrlLocation(self._url)}\0{generation}\0{self._info.size}".encode()).hexdigest()

    def version(self) -> Hashable:
        """Return the version that is pinned: it stands, or reading fails."""
        return self._info.version

    def identity(self) -> Hashable:
        """Return the inode and the version: its bytes never change."""
        return (self._info.inode, self._info.version)

    def info(self) -> ObjectInfo:
        """Return what was opened; nothing is asked."""
        return self._info

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""
