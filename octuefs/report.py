"""What went wrong, in plain words, for `.octuefs/errors`, `.octuefs/status` and the log.

Anyone may note; nothing here waits. A *problem* stands for as long as its subject (a path) has it; a
*failure* happened once. Each is logged once, when it is new.
"""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_KEPT_PROBLEMS = 10_000
_KEPT_FAILURES = 500
_QUERY = re.compile(r"(?i)(https?:/{1,2}[^\s?'\"]*)\?[^\s'\"]*")
"""A slash may be lost where a link was taken for a path."""


class Report:
    """The standing problems of a mount, or of one of its datasets, and its recent failures."""

    def __init__(self, place: str = "") -> None:
        """`place` is the dataset's path in the mount, told with all that is noted."""
        self._place = place
        self._lock = threading.Lock()
        self._parts: list[Report] = []
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
            logger.warning("%s: %s", self._shown(subject), problem)

    def problems(self) -> dict[str, list[str]]:
        """Return all that is wrong now, by subject."""
        with self._lock:
            return {subject: list(texts) for subject, texts in self._problems.items()}

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
        logger.warning("%s is skipped: %s", self._shown(name), reason)

    def replace_skipped(self, skipped: dict[str, str]) -> None:
        """Say anew all that a complete scan had to skip."""
        with self._lock:
            for name in set(self.skipped) - set(skipped):
                del self.skipped[name]
        for name, reason in skipped.items():
            self.skip(name, reason)

    def failure(self, text: str) -> None:
        """Note something that failed just now."""
        text = printable(f"{self._place}: {text}" if self._place else text)
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

    def of(self, place: str) -> "Report":
        """Return a report for one of several datasets, whose words come with this one's."""
        part = Report(place)
        with self._lock:
            self._parts.append(part)
        return part

    def _shown(self, subject: str) -> str:
        return printable(f"{self._place}/{subject}".rstrip("/") if self._place else subject)

    def standing(self) -> list[str]:
        """Return a line for each standing problem and each name that is skipped."""
        with self._lock:
            problems = [
                f"{self._shown(subject)}: {text}" for subject, texts in self._problems.items() for text in texts
            ]
            skipped = [f"{self._shown(name)} is skipped: {reason}" for name, reason in self.skipped.items()]
        return problems + skipped

    def failures(self) -> list[tuple[float, str]]:
        """Return the recent failures with their times (seconds since the epoch), the latest last."""
        with self._lock:
            return list(self._failures)

    def with_parts(self) -> "list[Report]":
        """Return this report and those of its datasets."""
        with self._lock:
            return [self, *self._parts]

    def text(self) -> str:
        """Return all of it, and of its datasets, as lines; the latest failure stands last, and empty all is well."""
        reports = self.with_parts()
        standing = [line for report in reports for line in report.standing()]
        failures = sorted(failure for report in reports for failure in report.failures())
        told = [f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))} {text}" for when, text in failures]
        return "".join(f"{line}\n" for line in standing + told)


def printable(name: str) -> str:
    """Return a name so that it can be shown: control characters and raw bytes escaped, links without their query.

    What stands in the query of a link authorises whoever has it, and a link may stand where nobody expected one.
    """
    if "?" in name:
        name = _QUERY.sub(r"\1", name)
    return name if name.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    is_raw_byte = "\udc80" <= char <= "\udcff"
    data = char.encode("utf-8", "surrogateescape" if is_raw_byte else "surrogatepass")
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")
