"""A GCS server as strict as Google's, whose failures a test commands: a front for fake-gcs-server.

    with StrictGcs(gcs_server.environment) as gcs:
        ...  # programs find it by gcs.environment
        gcs.fail(503, when=lambda request: request.kind == "upload")
        assert gcs.count("PATCH") == 1

It enforces every precondition on every call, compares announced checksums with the bytes, counts metagenerations,
limits custom metadata to 8 KiB and keeps resumable sessions itself. It runs on a thread of the calling process; all of
its methods may be called from any thread, also before a client connects.

Requests reach the stages where rules apply in this order: the body arrives ("cut_body"), then delays, holds, callbacks
and failures in the order in which they were made, then the effect, then those with `after_effect`, then the answer.
Rules live for `times` requests (None: until removed), and each returned rule has `.hits` and `.remove()`.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from support.gcs import Bucket, GcsServer
from support.strict_gcs_faults import Dropped, Failed, Faults, Held, Request, Rule, When
from support.strict_gcs_front import OF_THE_CONNECTION, Answer, Front, describe
from support.strict_gcs_objects import PIECE, Blob, Refused

__all__ = ["Held", "Request", "Rule", "StrictGcs"]

_PATIENCE = 20.0
"""Seconds for starting and for stopping."""


class _ServerBy(GcsServer):
    """A server that runs already, spoken to by its environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        self._environment = dict(environment)
        self._port = urlsplit(environment["STORAGE_EMULATOR_HOST"]).port or 0

    @property
    def environment(self) -> dict[str, str]:
        return dict(self._environment)

    def start(self) -> None:
        raise RuntimeError("this server belongs to somebody else")

    stop = start


class StrictGcs:
    """A context manager around the front of the server that an environment names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.backdoor: GcsServer = _ServerBy(environment)
        """The plain server, for writers that nobody knows of: `.environment`, `.endpoint`, `.put(...)` and so on."""
        self._requests: list[Request] = []
        self._lock = threading.Lock()  # guards _requests
        self._executor = ThreadPoolExecutor(16, thread_name_prefix="strict-gcs")
        self._faults = Faults(self._executor)
        self._thread = threading.Thread(target=self._run, name="strict-gcs", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._port = 0

    # --- where it is

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a program through the front."""
        return {**self.backdoor.environment, "STORAGE_EMULATOR_HOST": self.endpoint}

    def bucket(self, name: str) -> Bucket:
        """A bucket whose `.environment`, `.put(...)` and so on lead through the front."""
        return Bucket(_ServerBy(self.environment), name)

    # --- what came by

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of their arrival."""
        with self._lock:
            return list(self._requests)

    def count(self, method: str | None = None, contains: str = "", kind: str | None = None) -> int:
        """How many requests there were: of this method, of this kind, with this text in "METHOD /path?query"."""
        return sum(
            (method is None or request.method == method)
            and (kind is None or request.kind == kind)
            and request.holds(contains)
            for request in self.requests
        )

    def forget_requests(self) -> None:
        """Count from here on."""
        with self._lock:
            self._requests.clear()

    # --- faults

    def fail(self, status: int = 503, when: When = None, times: int | None = 1, *, after_effect: bool = False) -> Rule:
        """Answer with this status: without effect, or (`after_effect`) in the place of the true answer."""
        return self._faults.fail(status, when, times, after_effect)

    def drop(self, when: When = None, times: int | None = 1, *, after_effect: bool = False) -> Rule:
        """Close the connection without an answer, before or after the effect."""
        return self._faults.drop(when, times, after_effect)

    def delay(self, seconds: float, when: When = None, times: int | None = None) -> Rule:
        """Let requests wait before they have an effect."""
        return self._faults.delay(seconds, when, times)

    def hold(self, when: When = None, times: int | None = 1, *, after_effect: bool = False) -> Held:
        """Stop a request before or after its effect; `.arrived` is set then, and `.release()` lets it go on."""
        return self._faults.hold(when, times, after_effect)

    def before(self, when: When, callback: Callable[[], Any], times: int | None = 1) -> Rule:
        """Call from a thread before a request has its effect; what the callback raises is raised at the end."""
        return self._faults.call("before", when, callback, times)

    def after(self, when: When, callback: Callable[[], Any], times: int | None = 1) -> Rule:
        """Call from a thread after a request had its effect, before it is answered."""
        return self._faults.call("after", when, callback, times)

    def cut_body(self, when: When, after_bytes: int, times: int | None = 1) -> Rule:
        """Break the connection when this much of a body has arrived; a session keeps of it what Google would."""
        return self._faults.add(Rule("receiving", when, times, limit=after_bytes))

    def keep_less(self, when: When, size: int, times: int | None = 1) -> Rule:
        """Keep only so much (in units of 256 KiB) of a session's chunk that is not the last, and say so."""
        return self._faults.add(Rule("keeping", when, times, limit=size))

    def cut_answer(self, when: When, after_bytes: int, times: int | None = 1) -> Rule:
        """Break the connection when this much of an answer's body has been sent."""
        return self._faults.add(Rule("answering", when, times, limit=after_bytes))

    def clear(self) -> None:
        """Remove all faults, and let go what is held."""
        self._faults.clear()

    # --- peculiarities

    def enable_folders(self) -> None:
        """Have a hierarchical namespace in all buckets, with `folders` and their renaming."""
        self._call(lambda: setattr(self._front.peculiarities, "has_folders", True))

    def bucket_answer(self, answer: Mapping[str, Any]) -> None:
        """What GET b/{bucket} says in addition (retentionPolicy, storageClass, ...)."""
        self._call(lambda: self._front.peculiarities.bucket.update(answer))

    def rewrite_in_steps(self, calls: int) -> None:
        """Let a rewriteTo be done with this call of a loop over its token only."""
        self._call(lambda: setattr(self._front.peculiarities, "rewrite_calls", calls))

    def requester_pays(self, project: str | None) -> None:
        """Answer only requests that name this project as the one that pays (None: all)."""
        self._call(lambda: setattr(self._front.peculiarities, "payer", project))

    def encrypt(self, bucket: str, name: str) -> None:
        """Have an object under a customer's key: described without checksums, and refused to who has not the key."""
        self._call(lambda: self._front.peculiarities.encrypted.add((bucket, name)))

    def forget_sessions(self) -> None:
        """End all resumable sessions, as a week does."""
        self._call(self._front.uploads.forget_sessions)

    def stop_listening(self) -> None:
        """Refuse new connections, and close those that are open."""
        self._faults.clear()
        asyncio.run_coroutine_threadsafe(self._stop_listening(), self._loop).result(_PATIENCE)

    # --- its thread

    def __enter__(self) -> "StrictGcs":
        self._thread.start()
        if not self._started.wait(_PATIENCE) or self._failure is not None:
            raise RuntimeError("the front of the GCS server does not start") from self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._faults.clear()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE)
        self._executor.shutdown()
        if kind is None:
            if self._thread.is_alive() or self._failure is not None:
                raise RuntimeError("the front of the GCS server did not end in order") from self._failure
            if self._faults.errors:
                raise self._faults.errors[0]

    def _call(self, what: Callable[[], None]) -> None:
        async def call() -> None:
            what()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(_PATIENCE)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, read_bufsize=PIECE
        ) as session:
            self._runner = web.ServerRunner(
                web.Server(self._handle, access_log=None, read_bufsize=PIECE, keepalive_timeout=600),
                handle_signals=False,
                shutdown_timeout=0.1,
            )
            await self._runner.setup()
            site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=256)
            await site.start()
            self._port = self._runner.addresses[0][1]
            self._front = Front(session, self.backdoor.endpoint, self.endpoint, self._faults)
            self._started.set()
            try:
                await self._stop.wait()
            finally:
                await self._runner.cleanup()
                self._front.close()

    async def _stop_listening(self) -> None:
        await self._runner.cleanup()

    # --- a request

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        request = describe(incoming.method, incoming.raw_path, incoming.headers)
        with self._lock:
            self._requests.append(request)
        blob = Blob()
        try:
            await self._receive(incoming, request, blob)
            await self._faults.meet("before", request)
            answer = await self._answer(request, blob)
            try:
                await self._faults.meet("after", request)
            except BaseException:
                answer.discard()
                raise
        except Failed as failed:
            answer = _refusal(Refused(failed.status, "backendError", "made to fail"))
        except Dropped:
            return self._drop(incoming)
        finally:
            blob.close()
        request.status = answer.status
        return await self._send(incoming, request, answer)

    async def _receive(self, incoming: web.BaseRequest, request: Request, blob: Blob) -> None:
        """Take the body; where it breaks off, a session keeps what came."""
        if incoming.headers.get("Expect", "").lower() == "100-continue" and incoming.transport is not None:
            incoming.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        limit = self._faults.limit("receiving", request) if incoming.body_exists else None
        try:
            async for piece in incoming.content.iter_any():
                blob.append(piece if limit is None else piece[: limit - blob.size])
                if limit is not None and blob.size >= limit:
                    raise Dropped
        except Exception as error:
            if request.kind == "send":
                with contextlib.suppress(Refused):
                    await self._front.uploads.take_rest(request, blob)
            raise Dropped from error
        request.size = blob.size

    async def _answer(self, request: Request, blob: Blob) -> Answer:
        try:
            return await self._front.answer(request, blob)
        except Refused as refused:
            return _refusal(refused)

    async def _send(self, incoming: web.BaseRequest, request: Request, answer: Answer) -> web.StreamResponse:
        headers = {key: value for key, value in answer.headers.items() if key.lower() not in OF_THE_CONNECTION}
        limit = self._faults.limit("answering", request)
        if answer.stream is None:
            if answer.body:
                headers["Content-Type"] = "application/json; charset=UTF-8"
            if limit is None:
                return web.Response(status=answer.status, headers=headers, body=answer.body or None)
        response = web.StreamResponse(status=answer.status, headers=headers)
        length = len(answer.body) if answer.stream is None else answer.stream.content_length
        response.content_length = length
        try:
            await response.prepare(incoming)
            sent = 0
            async for piece in _pieces(answer):
                if limit is not None and sent + len(piece) >= limit:
                    await response.write(piece[: limit - sent])
                    return self._drop(incoming)
                await response.write(piece)
                sent += len(piece)
            await response.write_eof()
        except (aiohttp.ClientError, OSError):
            return self._drop(incoming)
        finally:
            answer.discard()
        return response

    def _drop(self, incoming: web.BaseRequest) -> web.StreamResponse:
        if incoming.transport is not None:
            incoming.transport.close()
        return web.Response(status=503)  # to nobody


async def _pieces(answer: Answer) -> Any:
    if answer.stream is None:
        yield answer.body
    else:
        async for piece in answer.stream.content.iter_any():
            yield piece


def _refusal(refused: Refused) -> Answer:
    return Answer(refused.status, {}, b"" if refused.status == 304 else refused.body)
