"""The bytes of objects in Google Cloud Storage, over connections of our own: twice as fast as by way of gcsfs.

The content layer calls, on any thread. gcsfs says where the server is and with which credentials it is asked, no more.
Every read is pinned to one generation, and gets the bytes as they are stored: "Accept-Encoding: gzip" keeps Google from
unpacking what is stored packed. A connection that breaks off is taken up again where it broke.
"""

import http.client
import os
import time
from collections.abc import Hashable, Iterator
from hashlib import sha256
from urllib.parse import quote, urlencode

from octuefs.errors import Conflict, NotFound, OctuefsError, PermissionRefused, StoreUnavailable, TimedOut
from octuefs.stores.base import ObjectInfo
from octuefs.stores.gcs_connect import TRIES, pause
from octuefs.stores.gcs_failures import Unreachable, failure, passes, refusal
from octuefs.stores.gcs_requests import GONE_SECONDS, PAYER, SILENCE_SECONDS, GcsRequests
from octuefs.stores.http_connections import Connections

PIECE_BYTES = 1 << 20
"""So much of a body is received, and handed on, at once."""
_LONGEST_REFUSAL = 1 << 16
_NEEDS = "storage.objects.get"
"""The permission that reading takes."""


class _CredentialsRanOut(PermissionRefused):
    """HTTP 401: new credentials may do, which the next try asks for."""


class GcsObject:
    """A `StreamSource` over one generation of one object. It holds nothing open, and reads what is asked for."""

    def __init__(self, store: "GcsBytes", info: ObjectInfo, generation: int) -> None:
        self._store = store
        self._info = info
        self._generation = generation

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the object.

        :raise Conflict: where this generation is gone
        """
        return b"".join(self.stream(offset, offset + size))

    def stream(self, offset: int, end: int, *, background: bool = False) -> Iterator[bytes]:
        """See `StreamSource`."""
        return self._store.stream_range(
            self._info, self._generation, offset, min(end, self._info.size), background=background
        )

    def cache_key(self) -> str:
        """See `StreamSource`: the SHA-256 of endpoint, paying project, bucket, name and generation."""
        return self._store.cache_key(self._info, self._generation)

    def version(self) -> Hashable:
        """Return the version that is pinned: it stands, or reading fails."""
        return self._info.version

    def identity(self) -> Hashable:
        """Return the inode and the generation: its bytes never change."""
        return (self._info.inode, self._generation)

    def info(self) -> ObjectInfo:
        """Return what was opened; nothing is asked."""
        return self._info

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


class GcsBytes(GcsRequests):
    """The part of the store that reads content."""

    _connections: Connections | None = None

    def stream_range(
        self, info: ObjectInfo, generation: int, offset: int, end: int, *, background: bool
    ) -> Iterator[bytes]:
        """Yield the stored bytes from `offset` to before `end` (at most the size) of one generation, all of them.

        :raise Conflict: where that generation is gone
        """
        subject = self._place.of(info.path)
        gone, until = self._gone
        if offset < end and gone is not None and time.monotonic() < until:
            raise failure(gone, subject, self.endpoint) from gone
        failed = 0
        while offset < end:
            ticket = self._traffic.begin("read", background=background)
            try:
                for piece in self._stream_once(subject, info, generation, offset, end):
                    failed = 0
                    offset += len(piece)
                    yield piece
            except OctuefsError as error:
                failed += 1
                may_pass = passes(error) or isinstance(error, _CredentialsRanOut)
                if may_pass and failed < TRIES and not self._closed.is_set():
                    ticket.retried(error)
                    ticket.end()
                else:
                    ticket.end(error)
                    raise self._final(error, subject) from error
                if failed > 1 or not isinstance(error, Unreachable):
                    self._closed.wait(pause(failed))
            except BaseException as error:  # who receives has enough
                ticket.end(None if isinstance(error, GeneratorExit) else error)
                raise
            else:
                ticket.end()

    def _final(self, error: OctuefsError, subject: str) -> OctuefsError:
        """Return what a failure means after all tries."""
        if isinstance(error, NotFound | Conflict):
            return Conflict(f"{subject}: the version that was opened was replaced or removed since")
        if isinstance(error, Unreachable):
            self._gone = (error, time.monotonic() + GONE_SECONDS)
        return error

    def _stream_once(self, subject: str, info: ObjectInfo, generation: int, offset: int, end: int) -> Iterator[bytes]:
        """Ask once; every failure leaves as one of ours."""
        filesystem = self._connected()
        try:
            headers = filesystem._get_headers({"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "gzip"})
            path = self._media_path(info.path, generation)
            with self._server(filesystem).get(path, headers) as response:
                yield from self._received(response, subject, info, generation, offset, end)
        except OctuefsError:
            raise
        except TimeoutError as error:
            raise TimedOut(f"{subject}: the server did not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{subject}: {_why(error)}") from error
        except Exception as error:  # of credentials that are to be renewed
            raise failure(error, subject, self.endpoint) from error

    def _received(
        self,
        response: http.client.HTTPResponse,
        subject: str,
        info: ObjectInfo,
        generation: int,
        offset: int,
        end: int,
    ) -> Iterator[bytes]:
        if response.status not in (200, 206):
            content = response.read(_LONGEST_REFUSAL)
            if response.status == 401:
                raise _CredentialsRanOut(str(refusal(401, content, subject, self.endpoint, _NEEDS)))
            raise refusal(response.status, content, subject, self.endpoint, _NEEDS)
        served = response.getheader("x-goog-generation")
        if served is not None and served != str(generation):
            raise Conflict(f"{subject}: the version that was opened was replaced since")
        if response.status == 200:  # the range was ignored, or it is all of the object
            _skip(response, offset)
        elif not (response.getheader("Content-Range") or "").startswith(f"bytes {offset}-"):
            raise StoreUnavailable(f"{subject}: other bytes arrived than were asked for")
        while offset < end:
            piece = response.read(min(end - offset, self._traffic.received_at_once or PIECE_BYTES, PIECE_BYTES))
            if not piece:
                raise Unreachable(f"{subject}: the connection broke off after {offset} bytes of {info.size}")
            offset += len(piece)
            self._traffic.received(len(piece))
            yield piece
        if response.chunked and response.status == 206:
            response.read()  # the mark of its end, without which the connection is of no more use

    def _media_path(self, path: str, generation: int) -> str:
        params = {"alt": "media", "generation": generation}
        if self._access.billing_project:
            params[PAYER] = self._access.billing_project
        name = quote(self._place.object_prefix + path, safe="")
        return f"/download/storage/v1/b/{quote(self._place.bucket, safe='')}/o/{name}?{urlencode(params)}"

    def _server(self, filesystem: object) -> Connections:
        """Return the connections to the server, which are made with the first use."""
        connections = self._connections
        if connections is None:
            base: str = filesystem.base.removesuffix("/storage/v1/")  # type: ignore[attr-defined]
            with self._lock:
                connections = self._connections
                if connections is None:
                    connections = Connections(base, silence=SILENCE_SECONDS, proxied=not self.endpoint)
                    self._connections = connections
        return connections

    def cache_key(self, info: ObjectInfo, generation: int) -> str:
        """Return what stands for one generation of an object in a cache, 64 digits that tell nothing of it."""
        place = (self.endpoint, self._access.billing_project or "", self._place.bucket)
        name = self._place.object_prefix + info.path
        return sha256("\0".join((*place, name, str(generation))).encode()).hexdigest()

    def close(self) -> None:
        """Close the connections: who reads fails at once. A later use opens new ones, and makes no second tries."""
        self._closed.set()
        if self._connections is not None:
            self._connections.close()
        super().close()


def _why(error: Exception) -> str:
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__
    return f"the server cannot be reached, or broke off ({reason}); check the network"


def _skip(response: http.client.HTTPResponse, count: int) -> None:
    while count and (piece := response.read(min(count, PIECE_BYTES))):
        count -= len(piece)
