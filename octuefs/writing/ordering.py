"""How changes that come from many threads are put in order, path by path, and run side by side."""

import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from octuefs.errors import OctuefsError

T = TypeVar("T", bound=Hashable)


@dataclass(eq=False, slots=True)
class _Claim:
    paths: tuple[str, ...]
    with_all_below: bool

    def excludes(self, other: "_Claim") -> bool:
        return any(
            mine == theirs
            or (self.with_all_below and theirs.startswith(f"{mine}/"))
            or (other.with_all_below and mine.startswith(f"{theirs}/"))
            for mine in self.paths
            for theirs in other.paths
        )


class PathLocks:
    """Lets changes of the same path follow each other, in the order in which they came.

    A path is held across requests, so only changes of names, metadata and attributes of that very path wait for it:
    never what reads, and never what holds one already. Lock order: these come first, all of a change at once.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: list[_Claim] = []
        """Those that are held, and those that wait for an earlier one, in their order."""

    def hold(self, *paths: str) -> AbstractContextManager[None]:
        """Be the only one who changes what stands at these paths."""
        return self._hold(_Claim(paths, with_all_below=False))

    def hold_folders(self, *paths: str) -> AbstractContextManager[None]:
        """Be the only one who changes what stands at these paths, or anywhere below them."""
        return self._hold(_Claim(paths, with_all_below=True))

    @contextmanager
    def _hold(self, claim: _Claim) -> Iterator[None]:
        with self._changed:
            self._claims.append(claim)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._may_go(claim))
            yield
        finally:
            with self._changed:
                self._claims.remove(claim)
                self._changed.notify_all()

    def _may_go(self, claim: _Claim) -> bool:
        return not any(it.excludes(claim) for it in itertools.takewhile(lambda it: it is not claim, self._claims))


def failures_of(executor: Executor, act: Callable[[T], object], items: Iterable[T]) -> dict[T, OctuefsError]:
    """Run `act` on all items side by side and return those that failed; each is tried, whatever becomes of others."""
    futures = {item: executor.submit(act, item) for item in items}
    failures: dict[T, OctuefsError] = {}
    for item, future in futures.items():
        try:
            future.result()
        except OctuefsError as error:
            failures[item] = error
    return failures
