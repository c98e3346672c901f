"""Requests to Google Cloud Storage: the connection, the tries, and the wait of the thread that asks.

`gcs.py` asks for facts through gcsfs's own request (`_json`, `_start`); `gcs_uploads` and `gcs_writing` change things
through `_ask`, which sends one `Request` over gcsfs's session with its credentials, again where a failure may pass. Any
thread may call, and waits there for a place of `Traffic`; requests run on fsspec's event loop, on a thread of its own.
Every failure leaves as one of ours.
"""

import asyncio
import concurrent.futures
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from octuefs.errors import BadValue, NameTooLong, StoreUnavailable
from octuefs.model.paths import CloudLocation, Location
from octuefs.stores.base import Access, Kind, ObjectInfo, Ownership
from octuefs.stores.gcs_connect import TRIES, connect, endpoint_url, is_google, pause, single_request
from octuefs.stores.gcs_failures import Unreachable, failure, may_pass, refusal
from octuefs.stores.gcs_pieces import Pieces, paced
from octuefs.stores.gcs_resource import describe, inode_of, problem_with_name
from octuefs.stores.http_connections import CONNECT_SECONDS
from octuefs.stores.traffic import Ticket, Traffic

_LOG = logging.getLogger(__name__)

SILENCE_SECONDS = 30
"""How long a server may say nothing before a request counts as failed (and is tried again)."""
WORK_SECONDS = 120
"""The same where the server has work to do first: copying, joining, taking in what was sent last."""
_REQUEST_SECONDS = 180
"""How long one request without much content may take, all its tries included."""
GONE_SECONDS = 3.0
"""How long after all tries to connect have failed further requests fail at once: the kernel asks twice."""

PAYER = "userProject"
"""The parameter of every request that names the project which pays for it."""

LONGEST_NAME = 1024
"""Bytes in the name of an object."""


Run = Callable[[Ticket], Coroutine[Any, Any, Any]]
"""A request that is to run on the event loop while it holds a place."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that changes something.

    `url` is complete, or begins below `/storage/v1/` and has a {} for each of `names`. `needs` are the permissions
    to name where they lack; `silence` is how many seconds the server may say nothing after all was sent; `kind` is one
    of `figures.KINDS`.
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
    kind: str = "change"


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
    :param traffic: what bounds and counts the requests; one of its own where None
    """

    def __init__(
        self,
        location: CloudLocation,
        *,
        access: Access | None = None,
        endpoint: str | None = None,
        read_only: bool = False,
        ownership: Ownership | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.location: Location = location
        self._place = location
        self.endpoint = endpoint_url(endpoint)
        access = access or Access()
        self._access = access if is_google(self.endpoint) else Access(True, billing_project=access.billing_project)
        self._read_only = read_only
        self.ownership = ownership or Ownership()
        self._traffic = traffic or Traffic()
        self._made_ns = time.time_ns()
        self._closed = threading.Event()
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

    # ---- reading, with gcsfs's own request

    def _json(self, subject: str, path: str, *names: str, **params: Any) -> Any:
        content = self._wait(self._getting(path, names, params), subject, _kind(path, params))
        try:
            return json.loads(content)
        except ValueError as error:
            raise failure(error, subject, self.endpoint) from error

    def _start(self, path: str, *names: str, **params: Any) -> "concurrent.futures.Future[Any]":
        """Begin to ask, when there is a place for it; `_result` waits for the answer, and returns its content."""
        return self._begin(self._getting(path, names, params), _kind(path, params))

    def _getting(self, path: str, names: Sequence[str], params: Mapping[str, Any]) -> Run:
        once = single_request(self._connected())

        async def get(ticket: Ticket) -> bytes:
            _, _, _, content = await self._patiently(lambda: once("GET", path, *names, **params), ticket)
            self._traffic.arrived(len(content))
            return bytes(content)

        return get

    # ---- changing

    def _ask(self, request: Request, *, tries: int = TRIES) -> Answer:
        """Send a request, up to `tries` times where its failure may pass, and return its answer."""
        filesystem = self._connected()

        async def ask(ticket: Ticket) -> Answer:
            answer: Answer = await self._patiently(lambda: self._send_once(filesystem, request), ticket, tries)
            return answer

        takes_long = isinstance(request.data, Pieces) or self._traffic.sent_at_once is not None
        seconds = None if takes_long else _REQUEST_SECONDS + request.silence
        answer: Answer = self._wait(ask, request.subject, request.kind, seconds=seconds, remember=tries > 1)
        return answer

    def _ask_json(self, request: Request, *, tries: int = TRIES) -> Any:
        return parsed(self._ask(request, tries=tries), request.subject)

    async def _patiently(
        self, attempt: Callable[[], Coroutine[Any, Any, Any]], ticket: Ticket, tries: int = TRIES
    ) -> Any:
        """Try several times, with a pause in between, and return what came of it; the last failure is raised as it is.

        A connection that broke off is tried again at once, as the server may have closed one that was idle.
        """
        for number in range(1, tries + 1):
            try:
                return await attempt()
            except Exception as error:
                failed = failure(error, "")
                if number == tries or not may_pass(error, failed):
                    raise
            ticket.retried(failed)
            await asyncio.sleep(0 if number == 1 and isinstance(failed, Unreachable) else pause(number))
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
        if request.data:
            headers["Content-Length"] = str(len(request.data))
        try:
            async with (
                asyncio.timeout(None) as limit,
                filesystem.session.request(
                    request.method,
                    yarl.URL(url, encoded=True),
                    headers=headers,
                    data=self._body(request.data, limit),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=request.silence),
                    allow_redirects=False,
                    skip_auto_headers=("Content-Type",),
                    middlewares=(_no_second_try,),
                ) as reply,
            ):
                answer = Answer(reply.status, reply.headers, await reply.read())
                self._traffic.arrived(len(answer.content))
        except Exception:
            if pieces is not None and pieces.error is not None:
                raise pieces.error from None  # what was to be sent could not be read: the connection is not to blame
            raise
        if answer.status not in request.accepted:
            raise refusal(answer.status, answer.content, request.subject, self.endpoint, request.needs)
        return answer

    def _body(self, data: "bytes | Pieces", limit: asyncio.Timeout) -> "bytes | AsyncIterator[bytes]":
        """Return what aiohttp is to send, at the rate of uploads."""
        if isinstance(data, Pieces):
            return data.sending(limit, self._traffic)
        if data and self._traffic.sent_at_once is not None:
            return paced(data, self._traffic)
        self._traffic.sending(len(data))
        return data

    def _payer(self, url: str) -> dict[str, str]:
        """Return the parameter that names who pays, unless the URL has it (a session's may)."""
        project = self._access.billing_project
        if not project or PAYER in dict(parse_qsl(urlsplit(url).query)):
            return {}
        return {PAYER: project}

    # ---- waiting

    def _wait(
        self,
        run: Run,
        subject: str,
        kind: str,
        *,
        seconds: float | None = _REQUEST_SECONDS,
        remember: bool = True,
    ) -> Any:
        gone, until = self._gone
        if gone is not None and time.monotonic() < until:
            raise failure(gone, subject, self.endpoint) from gone
        return self._result(self._begin(run, kind), subject, seconds, remember=remember)

    def _begin(self, run: Run, kind: str) -> "concurrent.futures.Future[Any]":
        """Begin a request of a kind of `Traffic`, when there is a place for it, which it holds until it ends."""
        loop = self._connected().loop
        ticket = self._traffic.begin(kind)
        future = asyncio.run_coroutine_threadsafe(run(ticket), loop)
        future.add_done_callback(lambda done: ticket.end(_why(done)))
        return future

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
                self._gone = (error, time.monotonic() + GONE_SECONDS)
            raise failed from error


def _kind(path: str, params: Mapping[str, Any]) -> str:
    """Return which kind of `figures.KINDS` a GET of JSON is; to ask for one item is to ask whether there is any."""
    return "list" if path.endswith("/o") and params.get("maxResults") != 1 else "stat"


def _why(done: "concurrent.futures.Future[Any]") -> BaseException | None:
    """Return why a request failed, as ours, None where it did not."""
    error = None if done.cancelled() else done.exception()
    return None if error is None else failure(error, "")


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
