"""What went wrong, in plain words, for `.octuefs/errors`, `.octuefs/status` and the log.

Anyone may note; nothing here waits. A *problem* stands for as long as its subject (a path) has it; a
*failure* happened once. Each is logged once, when it is new.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_KEPT_PROBLEMS = 10_000
_KEPT_FAILURES = 500


class Report:
    """The standing problems of a mount and its recent failures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problems: dict[str, tuple[str, ...]] = {}
        self._is_full = False
        self._failures: deque[tuple[float, str]] = deque(maxlen=_KEPT_FAILURES)
        self.skipped: dict[str, str] = {}
        """Reasons by name of what the store holds and the mount cannot show."""

    def set_problems(self, subject: str, problems: Sequence[str]) -> None:
        """Say all that is wrong with `subject` now; nothing clears it."""
        texts = tuple(map(printable, problems))
        with self._lock:
            if not texts:
                self._problems.pop(subject, None)
                return
            if self._problems.get(subject) == texts:
                return
            if subject not in self._problems and len(self._problems) >= _KEPT_PROBLEMS:
                if not self._is_full:
                    self._is_full = True
                    logger.warning("over %s things have problems; those of others are not told", _KEPT_PROBLEMS)
                return
            self._problems[subject] = texts
        for problem in texts:
            logger.warning("%s: %s", printable(subject), problem)

    def clear_below(self, path: str) -> None:
        """Forget the problems of what stood at a path and below it, for it has gone."""
        with self._lock:
            for subject in [it for it in self._problems if it == path or it.startswith(path + "/")]:
                del self._problems[subject]

    def skip(self, name: str, reason: str) -> None:
        """Note that something in the store cannot be shown."""
        reason = printable(reason)
        with self._lock:
            if self.skipped.get(name) == reason:
                return
            self.skipped[name] = reason
        logger.warning("%s is skipped: %s", printable(name), reason)

    def replace_skipped(self, skipped: dict[str, str]) -> None:
        """Say anew all that a complete scan had to skip."""
        with self._lock:
            for name in set(self.skipped) - set(skipped):
                del self.skipped[name]
        for name, reason in skipped.items():
            self.skip(name, reason)

    def failure(self, text: str) -> None:
        """Note something that failed just now."""
        text = printable(text)
        with self._lock:
            self._failures.append((time.time(), text))
        logger.warning("%s", text)

    @property
    def problem_count(self) -> int:
        """How many standing problems there are."""
        with self._lock:
            return sum(map(len, self._problems.values()))

    @property
    def failure_count(self) -> int:
        """How many recent failures are remembered."""
        with self._lock:
            return len(self._failures)

    def text(self) -> str:
        """Return all of it as lines for a person, the latest failure last; empty when all is well."""
        with self._lock:
            problems = [f"{printable(subject)}: {text}" for subject, texts in self._problems.items() for text in texts]
            skipped = [f"{printable(name)} is skipped: {reason}" for name, reason in self.skipped.items()]
            failures = [
                f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))} {text}" for when, text in self._failures
            ]
        return "".join(f"{line}\n" for line in problems + skipped + failures)


def printable(name: str) -> str:
    """Return a name so that it fits on one line of any terminal: control characters and raw bytes escaped."""
    return name if name.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    is_raw_byte = "\udc80" <= char <= "\udcff"
    data = char.encode("utf-8", "surrogateescape" if is_raw_byte else "surrogatepass")
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")
