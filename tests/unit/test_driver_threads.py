"""Python's state of threads that it did not make."""

import ctypes
import sys
import threading
import weakref

import pytest

from octuefs.drivers.threads import keep_state

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the state is kept where glibc tells of a thread's end")


class Mark:
    """Something that a thread holds on to."""


def test_the_state_of_a_foreign_thread_goes_when_the_thread_ends() -> None:
    libc = ctypes.CDLL(None)
    start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    libc.pthread_create.argtypes = (ctypes.c_void_p, ctypes.c_void_p, start, ctypes.c_void_p)
    libc.pthread_join.argtypes = (ctypes.c_ulong, ctypes.c_void_p)
    local = threading.local()
    marks: list[weakref.ref[Mark]] = []

    def run(_: object) -> None:
        keep_state()
        keep_state()
        local.mark = Mark()
        marks.append(weakref.ref(local.mark))

    routine = start(run)
    for _ in range(100):
        thread = ctypes.c_ulong()
        assert libc.pthread_create(ctypes.byref(thread), None, routine, None) == 0
        assert libc.pthread_join(thread, None) == 0
    assert len(marks) == 100
    assert [mark() for mark in marks] == [None] * 100


def test_a_thread_of_pythons_own_ends_as_ever() -> None:
    marks = []

    def run() -> None:
        keep_state()
        marks.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert marks
    assert not thread.is_alive()
