"""Requests to Google Cloud Storage: the connection, the tries, and the wait of the thread that asks.

`gcs.py` reads through gcsfs's own calls (`_json`, `_start`); `gcs_uploads` and `gcs_writing` change things through
`_ask`, which sends one `Request` over gcsfs's session with its credentials, again where a failure may pass. Any
thread may call; requests run on fsspec's event loop, on a thread of its own. Every failure leaves as one of ours.
"""

import asyncio
import concurrent.futures
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from octuefs.errors import BadValue, NameTooLong, OctuefsError, StoreUnavailable
from octuefs.model.paths import CloudLocation, Location
from octuefs.stores.base import Access, Kind, ObjectInfo, Ownership
from octuefs.stores.gcs_connect import CONNECT_SECONDS, TRIES, connect, endpoint_url, is_google
from octuefs.stores.gcs_failures import Unreachable, failure, passes, refusal
from octuefs.stores.gcs_pieces import Pieces
from octuefs.stores.gcs_resource import describe, inode_of, problem_with_name

_LOG = logging.getLogger(__name__)

SILENCE_SECONDS = 30
"""How long a server may say nothing before a request counts as failed (and is tried again)."""
WORK_SECONDS = 120
"""The same where the server has work to do first: copying, joining, taking in what was sent last."""
_REQUEST_SECONDS = 180
"""How long one request without much content may take, all its tries included."""
_GONE_SECONDS = 3.0
"""How long after all tries to connect have failed further requests fail at once: the kernel asks twice."""

_PAYER = "userProject"
"""The parameter of every request that names the project which pays for it."""

LONGEST_NAME = 1024
"""Bytes in the name of an object."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that changes something.

    `url` is complete, or begins below `/storage/v1/` and has a {} for each of `names`. `needs` are the permissions
    to name where they lack; `silence` is how many seconds the server may say nothing after all was sent.
    """

    method: str
    url: str
    subject: str
    needs: str
    names: tuple[str, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    data: "bytes | Pieces" = b""
    accepted: frozenset[int] = frozenset((200, 201, 204))
    silence: float = SILENCE_SECONDS


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class GcsRequests:
    """The part of the store that talks: one gcsfs file system per process, made with the first request.

    :param access: with what rights, and who pays
    :param endpoint: the server instead of Google's; STORAGE_EMULATOR_HOST where None. Credentials are only
        ever sent to Google
    :param read_only: ask for credentials that may do no more
    """

    def __init__(
        self,
        location: CloudLocation,
        *,
        access: Access | None = None,
        endpoint: str | None = None,
        read_only: bool = False,
        ownership: Ownership | None = None,
    ) -> None:
        self.location: Location = location
        self._place = location
        self.endpoint = endpoint_url(endpoint)
        access = access or Access()
        self._access = access if is_google(self.endpoint) else Access(True, billing_project=access.billing_project)
        self._read_only = read_only
        self.ownership = ownership or Ownership()
        self._made_ns = time.time_ns()
        self._lock = threading.Lock()  # guards _filesystem and _process
        self._filesystem: Any = None
        self._process = 0
        self._gone: tuple[Exception | None, float] = (None, 0.0)
        """Why no connection could be had of late, and until when that counts."""

    def _describe(self, path: str, kind: Kind, resource: Mapping[str, Any]) -> ObjectInfo:
        """Return what a resource of Google's says of what stands at `path`."""
        return describe(self._place, path, kind, resource, self.ownership)

    def inode_of(self, path: str) -> int:
        """Return the number of what stands at `path`, or is to."""
        return inode_of(self._place, path)

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        with self._lock:
            filesystem, self._filesystem = self._filesystem, None
        if filesystem is None or self._process != os.getpid() or filesystem.session is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(filesystem.session.close(), filesystem.loop).result(5)
        except (concurrent.futures.TimeoutError, RuntimeError):
            _LOG.debug("the connections to %s did not close in time", self.endpoint or "Google")

    def _connected(self) -> Any:
        """Return the gcsfs file system of this process (a fork takes neither threads nor connections along)."""
        with self._lock:
            if self._filesystem is None or self._process != os.getpid():
                self._filesystem = connect(
                    f"gs://{self._place.bucket}",
                    self.endpoint,
                    access=self._access,
                    read_only=self._read_only,
                    silence=SILENCE_SECONDS,
                )
                self._process = os.getpid()
            return self._filesystem

    def _name(self, path: str) -> str:
        """Return the name of the object at `path`, which is to be written; one slash at its end is a folder's marker.

        :raise BadValue: where no object can have it
        """
        name = self._place.object_prefix + path
        problem = problem_with_name(path.removesuffix("/"))
        if problem:
            raise BadValue(f"{self._place.of(path)}: no object can have this name: {problem}")
        if len(name.encode()) > LONGEST_NAME:
            raise NameTooLong(f"{self._place.of(path)}: the names of objects have at most {LONGEST_NAME} bytes")
        return name

    # ---- reading, with gcsfs's own calls and tries

    def _json(self, subject: str, path: str, *names: str, **params: Any) -> Any:
        return self._wait(self._connected()._call("GET", path, *names, json_out=True, **params), subject)

    def _start(self, path: str, *names: str, **params: Any) -> "concurrent.futures.Future[Any]":
        """Begin to ask for JSON; `_result` waits for it."""
        filesystem = self._connected()
        request = filesystem._call("GET", path, *names, json_out=True, **params)
        return asyncio.run_coroutine_threadsafe(request, filesystem.loop)

    # ---- changing

    def _ask(self, request: Request, *, tries: int = TRIES) -> Answer:
        """Send a request, up to `tries` times where its failure may pass, and return its answer."""

        async def ask(filesystem: Any) -> Answer:
            return await self._patiently(lambda: self._send_once(filesystem, request), request.subject, tries)

        seconds = None if isinstance(request.data, Pieces) else _REQUEST_SECONDS + request.silence
        filesystem = self._connected()
        answer: Answer = self._wait(ask(filesystem), request.subject, seconds=seconds, remember=tries > 1)
        return answer

    def _ask_json(self, request: Request, *, tries: int = TRIES) -> Any:
        return parsed(self._ask(request, tries=tries), request.subject)

    async def _patiently(self, attempt: Callable[[], Coroutine[Any, Any, Answer]], subject: str, tries: int) -> Answer:
        """Try with 1, 2, 4 and 8 seconds and some chance in between.

        A connection that broke off is tried again at once, as the server may have closed one that was idle.
        """
        failed: OctuefsError | None = None
        for number in range(tries):
            if number:
                idle = number == 1 and isinstance(failed, Unreachable)
                await asyncio.sleep(0 if idle else random.random() + 2 ** (number - 1))
            try:
                return await attempt()
            except Exception as error:
                failed = failure(error, subject, self.endpoint)
                if number == tries - 1 or not passes(failed):
                    raise failed from error
        raise AssertionError

    async def _send_once(self, filesystem: Any, request: Request) -> Answer:
        """Send a request over gcsfs's session, with its credentials; nothing is followed and nothing guessed."""
        import aiohttp
        import yarl

        await filesystem._set_session()
        url = filesystem._format_path(request.url, request.names)
        params = {**request.params, **self._payer(url)}
        if params:
            url += ("&" if "?" in url else "?") + urlencode(params)
        headers = filesystem._get_headers(request.headers)
        pieces = request.data if isinstance(request.data, Pieces) else None
        if pieces is not None:
            headers["Content-Length"] = str(pieces.size)
        try:
            async with (
                asyncio.timeout(None) as limit,
                filesystem.session.request(
                    request.method,
                    yarl.URL(url, encoded=True),
                    headers=headers,
                    data=request.data if pieces is None else pieces.sending(limit),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=request.silence),
                    allow_redirects=False,
                    skip_auto_headers=("Content-Type",),
                    middlewares=(_no_second_try,),
                ) as reply,
            ):
                answer = Answer(reply.status, reply.headers, await reply.read())
        except Exception:
            if pieces is not None and pieces.error is not None:
                raise pieces.error from None  # what was to be sent could not be read: the connection is not to blame
            raise
        if answer.status not in request.accepted:
            raise refusal(answer.status, answer.content, request.subject, self.endpoint, request.needs)
        return answer

    def _payer(self, url: str) -> dict[str, str]:
        """Return the parameter that names who pays, unless the URL has it (a session's may)."""
        project = self._access.billing_project
        if not project or _PAYER in dict(parse_qsl(urlsplit(url).query)):
            return {}
        return {_PAYER: project}

    # ---- waiting

    def _wait(
        self,
        request: Coroutine[Any, Any, Any],
        subject: str,
        *,
        seconds: float | None = _REQUEST_SECONDS,
        remember: bool = True,
    ) -> Any:
        gone, until = self._gone
        if gone is not None and time.monotonic() < until:
            request.close()
            raise failure(gone, subject, self.endpoint) from gone
        future = asyncio.run_coroutine_threadsafe(request, self._connected().loop)
        return self._result(future, subject, seconds, remember=remember)

    def _result(
        self,
        future: "concurrent.futures.Future[Any]",
        subject: str,
        seconds: float | None = _REQUEST_SECONDS,
        *,
        remember: bool = True,
    ) -> Any:
        """Wait for a request and return its result; every failure leaves as ours.

        Where no connection could be had after all tries, that is remembered for a moment.
        """
        try:
            gone, until = self._gone
            if gone is not None and time.monotonic() < until:
                raise gone
            return future.result(seconds)
        except Exception as error:
            future.cancel()
            failed = failure(error, subject, self.endpoint)
            if remember and isinstance(failed, Unreachable) and error is not self._gone[0]:
                self._gone = (error, time.monotonic() + _GONE_SECONDS)
            raise failed from error


async def _no_second_try(request: Any, send: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Keep aiohttp from sending PUT and DELETE again by itself: what it read of the body is gone; tries are ours."""
    import aiohttp

    try:
        return await send(request)
    except aiohttp.ClientConnectorError:  # nothing was sent, and it does not try again
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError("broken off") from error


def parsed(answer: Answer, subject: str) -> Any:
    """Return the JSON object of an answer.

    :raise StoreUnavailable: where it is none
    """
    try:
        value = json.loads(answer.content)
    except ValueError as error:
        raise failure(error, subject) from error
    if not isinstance(value, dict):
        raise StoreUnavailable(
            f"{subject}: the server does not answer as Google Cloud Storage does; check the endpoint"
        )
    return value
