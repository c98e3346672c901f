"""Changes of the same path follow each other; those of others do not wait."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from octuefs.writing.ordering import PathLocks


def waits(lock: AbstractContextManager[None]) -> bool:
    """Whether it is to be waited for; if so, it comes in the end or not, which is the caller's to see."""
    came = threading.Event()

    def take() -> None:
        with lock:
            came.set()

    threading.Thread(target=take, daemon=True).start()
    return not came.wait(0.1)


def test_the_same_path_waits_and_others_do_not() -> None:
    locks = PathLocks()
    with locks.hold("d/a", "b"):
        assert waits(locks.hold("b"))
        assert waits(locks.hold("x", "d/a"))
        assert not waits(locks.hold("d"))
        assert not waits(locks.hold("d/a/x"))
        assert not waits(locks.hold("d/ab"))


@pytest.mark.parametrize("path", ["d", "d/a", "d/a/b", "to/x"])
def test_a_folder_is_held_with_all_below(path: str) -> None:
    locks = PathLocks()
    with locks.hold_folders("d", "to"):
        assert waits(locks.hold(path))
        assert not waits(locks.hold("d2"))
    with locks.hold(path):
        assert waits(locks.hold_folders("d", "to"))
    assert not waits(locks.hold(path))


def test_who_comes_first_goes_first() -> None:
    locks = PathLocks()
    order: list[str] = []

    def take(name: str, lock: AbstractContextManager[None]) -> None:
        with lock:
            order.append(name)

    with ThreadPoolExecutor(4) as executor:
        with locks.hold("d/a"):
            futures = []
            for name, lock in (("folder", locks.hold_folders("d")), ("b", locks.hold("d/b")), ("a", locks.hold("d/a"))):
                futures.append(executor.submit(take, name, lock))
                time.sleep(0.05)
            assert order == []
        for future in futures:
            future.result(5)
    assert order[0] == "folder", "a folder does not starve"


def test_one_at_a_time_from_many_threads() -> None:
    locks = PathLocks()
    inside = 0

    def take(number: int) -> None:
        nonlocal inside
        with locks.hold("a", f"b{number % 3}"):
            inside += 1
            assert inside == 1
            inside -= 1

    with ThreadPoolExecutor(16) as executor:
        list(executor.map(take, range(500)))
