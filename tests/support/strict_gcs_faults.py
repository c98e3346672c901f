"""What a test may do to the requests that pass a `StrictGcs`: note them, delay them, stop them, make them fail."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

When = Callable[["Request"], bool] | None
"""Which requests are meant; None: all."""


@dataclass(eq=False)
class Request:
    """A request as it came by."""

    method: str
    path: str
    """Without the query, percent-decoded."""
    query: dict[str, str]
    kind: str
    """list, get, media, upload, start, send, cancel, patch, update, delete, rewrite, compose, bucket, folder, other."""
    bucket: str
    name: str
    """The object (of a rewrite or compose: the target; of an upload whose name stands in its body: "")."""
    source: tuple[str, str]
    """Bucket and name of a rewrite's source; ("", "") in other requests."""
    headers: Mapping[str, str]
    target: str
    """Path and query as they were sent."""
    size: int = 0
    """Bytes in the body: at first those announced, later those that arrived."""
    status: int | None = None
    """What was answered; None until then, and where the connection was closed instead."""

    def __str__(self) -> str:
        return f"{self.method} {self.target}"

    def holds(self, text: str) -> bool:
        """Say whether a text is part of "METHOD /path?query", as it was sent or percent-decoded."""
        return text in str(self) or text in unquote(str(self))


class Failed(Exception):
    """The test wants this answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Dropped(Exception):
    """The connection is to be closed without an answer."""


@dataclass(eq=False)
class Rule:
    """Something that happens to requests; `remove()` ends it."""

    stage: str
    """receiving, before (the effect), after (the effect), keeping, answering."""
    when: When
    times: int | None
    act: Callable[[Request], Awaitable[None]] | None = None
    limit: int = 0
    """A number of bytes, for the stages that count them."""
    hits: int = 0
    """How many requests it has met."""
    removed: bool = False

    def remove(self) -> None:
        self.removed = True


@dataclass(eq=False)
class Held:
    """A request that was stopped: `arrived` is set when there is one, `release()` lets it go on."""

    arrived: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def stop(self, request: Request) -> None:
        event = asyncio.Event()
        with self._lock:
            if self._released.is_set():
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        self.arrived.set()
        await event.wait()

    def release(self) -> None:
        with self._lock:
            self._released.set()
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)
            self._waiting.clear()


class Faults:
    """The rules in force, in the order in which they were made. Any thread may make and remove them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()  # guards _rules, and each rule's hits
        self._rules: list[Rule] = []
        self._held: list[Held] = []
        self.errors: list[BaseException] = []
        """What callbacks of the test raised."""

    # --- for tests

    def fail(self, status: int, when: When, times: int | None, after_effect: bool) -> Rule:
        async def act(request: Request) -> None:
            raise Failed(status)

        return self.add(Rule("after" if after_effect else "before", when, times, act))

    def drop(self, when: When, times: int | None, after_effect: bool) -> Rule:
        async def act(request: Request) -> None:
            raise Dropped

        return self.add(Rule("after" if after_effect else "before", when, times, act))

    def delay(self, seconds: float, when: When, times: int | None) -> Rule:
        return self.add(Rule("before", when, times, lambda request: asyncio.sleep(seconds)))

    def hold(self, when: When, times: int | None, after_effect: bool) -> Held:
        held = Held()
        with self._lock:
            self._held.append(held)
        self.add(Rule("after" if after_effect else "before", when, times, held.stop))
        return held

    def call(self, stage: str, when: When, callback: Callable[[], Any], times: int | None) -> Rule:
        async def act(request: Request) -> None:
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, callback)
            except BaseException as error:
                self.errors.append(error)
                raise Failed(500) from error

        return self.add(Rule(stage, when, times, act))

    def add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Remove all rules and let all requests go on."""
        with self._lock:
            for rule in self._rules:
                rule.remove()
            self._rules.clear()
            held, self._held = self._held, []
        for each in held:
            each.release()

    # --- for the front

    async def meet(self, stage: str, request: Request) -> None:
        """Do to a request what the rules for this stage say; raises Failed or Dropped where one says so."""
        for rule in self._of(stage):
            if self._takes(rule, request) and rule.act is not None:
                await rule.act(request)

    def limit(self, stage: str, request: Request) -> int | None:
        """The number of bytes after which something happens to this request."""
        return next((rule.limit for rule in self._of(stage) if self._takes(rule, request)), None)

    def _of(self, stage: str) -> list[Rule]:
        with self._lock:
            self._rules = [rule for rule in self._rules if not rule.removed]
            return [rule for rule in self._rules if rule.stage == stage]

    def _takes(self, rule: Rule, request: Request) -> bool:
        try:
            if rule.when is not None and not rule.when(request):
                return False
        except Exception as error:
            self.errors.append(error)
            return False
        with self._lock:
            if rule.removed or (rule.times is not None and rule.hits >= rule.times):
                return False
            rule.hits += 1
            return True
