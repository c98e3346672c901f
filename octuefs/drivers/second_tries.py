"""The kernel's second try of a call by path: on ESTALE it looks the path up anew and calls again (retry_estale in
linux/namei.h), before the program hears of anything.

That is right where a name leads to something else by now. It is wrong where a change was refused because another was
first: the first try has had the store looked at, so the second would change, unseen, what another stored.
"""

import threading
import time
from collections.abc import Hashable

from octuefs.errors import OctuefsError, to_errno

_SECONDS = 1.0
_MOST = 16_384


class SecondTries:
    """Calls that have just failed in a way in which the second try must end. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[Hashable, tuple[OctuefsError, float]] = {}

    def note(self, call: Hashable, error: OctuefsError) -> None:
        """Take note that a call has failed; its name tells who called, too."""
        with self._lock:
            self._errors[call] = (error, time.monotonic() + _SECONDS)
            if len(self._errors) > _MOST:
                del self._errors[next(iter(self._errors))]

    def __bool__(self) -> bool:
        """Say whether any call has failed so of late: else nobody need name theirs."""
        return bool(self._errors)

    def refuse(self, call: Hashable) -> None:
        """Refuse a call that failed a moment ago, once, for the same reason.

        :raise OSError: with its errno
        """
        with self._lock:
            error, until = self._errors.pop(call, (None, 0.0))
        if error is not None and until > time.monotonic():
            raise OSError(to_errno(error), str(error))


class Once:
    """What is done once, and not again at the second try. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[Hashable, float] = {}

    def is_first(self, call: Hashable) -> bool:
        """Say whether this is the first try of a call: the next within a second is the second one."""
        now = time.monotonic()
        with self._lock:
            if self._until.pop(call, 0.0) > now:
                return False
            self._until[call] = now + _SECONDS
            if len(self._until) > _MOST:
                del self._until[next(iter(self._until))]
        return True

    def forget(self, call: Hashable) -> None:
        """Take note that there will be no second try."""
        with self._lock:
            self._until.pop(call, None)

    def __bool__(self) -> bool:
        """Say whether any call may be tried again."""
        return bool(self._until)
