"""Python's state of the threads that libfuse makes, kept from one request to the next.

For each call that comes from a thread which Python did not make, ctypes makes a state and destroys it after, and with
it maps and unmaps the memory of its stack: about a quarter of what a small request takes, and other threads wait for
it too. `keep_state` keeps it for as long as the thread lives.
"""

import ctypes
import sys
import threading
from typing import Any

_LOCKED = 0
"""PyGILState_LOCKED: the thread had the interpreter's lock before, and has it after."""

_this_thread = threading.local()


def keep_state() -> None:
    """Keep the state of the thread that calls until it ends; on systems that do not say when that is, do nothing.

    The main thread's is kept anyway, and ends after Python itself.
    """
    if hasattr(_this_thread, "kept"):
        return
    _this_thread.kept = True
    if _at_thread_exit is None or threading.get_ident() == threading.main_thread().ident:
        return
    # The last argument names the library that must stay loaded until then, by an address in it: any will do but none.
    if _at_thread_exit(_give_back, None, ctypes.cast(_at_thread_exit, ctypes.c_void_p)) == 0:
        ctypes.pythonapi.PyGILState_Ensure()


def _end(_: Any) -> None:
    """End what `keep_state` began; the state goes when this call is over, as after any other.

    A thread that Python made has lost its state by now, and this call has one of its own.
    """
    if hasattr(_this_thread, "kept"):
        ctypes.pythonapi.PyGILState_Release(_LOCKED)


_give_back = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_end)


def _exit_hook() -> Any:
    """Return glibc's function that has another called at the end of a thread, None where there is none.

    A destructor of a key (pthread_key_create) would come too late: Python finds its state by an older key.
    """
    if sys.platform != "linux":
        return None
    hook = getattr(ctypes.CDLL(None), "__cxa_thread_atexit_impl", None)
    if hook is not None:
        hook.argtypes = (type(_give_back), ctypes.c_void_p, ctypes.c_void_p)
        hook.restype = ctypes.c_int
    return hook


_at_thread_exit = _exit_hook()
ctypes.pythonapi.PyGILState_Ensure.argtypes = ()
ctypes.pythonapi.PyGILState_Ensure.restype = ctypes.c_int
ctypes.pythonapi.PyGILState_Release.argtypes = (ctypes.c_int,)
ctypes.pythonapi.PyGILState_Release.restype = None
