"""What the commands share: a dataset opened for one, failures in one line, and how far it is.

Imports that cost time stay inside the functions.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from octuefs.config import SourceConfig, check_source
from octuefs.errors import OctuefsError
from octuefs.report import printable

if TYPE_CHECKING:
    from octuefs.dataset import Dataset
    from octuefs.model.manifest import Manifest
    from octuefs.report import Report

T = TypeVar("T")

_SHOW_SECONDS = 1.0
"""What takes no longer shows no bar."""


@contextmanager
def failing_in_words() -> Iterator[None]:
    """Turn our errors into one line on stderr and exit code 1."""
    try:
        yield
    except OctuefsError as error:
        print(f"octuefs: {printable(str(error))}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("octuefs: interrupted", file=sys.stderr)
        raise typer.Exit(1) from None


@contextmanager
def counting(text: str) -> Iterator[Callable[[int], None]]:
    """Give a callback for counts; a line with the count appears on a terminal once this takes over a second."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True)
    task = progress.add_task(text, total=None)
    started = time.monotonic()
    showing = False

    def count(number: int) -> None:
        nonlocal showing
        if not showing and time.monotonic() - started > _SHOW_SECONDS:
            showing = True
            progress.start()
        progress.update(task, completed=number)

    try:
        yield count
    finally:
        if showing:
            progress.stop()


@contextmanager
def opened(config: SourceConfig, *, quiet: bool = False) -> Iterator["Dataset"]:
    """Give the loaded dataset of a source, with its warnings on stderr unless `quiet`."""
    check_source(config)
    from octuefs.sources import open_dataset

    with _told(open_dataset, config, quiet=quiet) as dataset:
        yield dataset


@contextmanager
def opened_all(config: SourceConfig) -> Iterator[tuple["Manifest | None", dict[str, "Dataset"]]]:
    """Give the manifest that a source is, with its datasets by name; for a dataset None and itself under ""."""
    check_source(config, manifest=True)
    from octuefs.sources import open_datasets

    with _told(open_datasets, config, quiet=False) as opened:
        yield opened


@contextmanager
def _told(
    open_now: Callable[[SourceConfig, "Report", Callable[[int], None]], AbstractContextManager[T]],
    config: SourceConfig,
    *,
    quiet: bool,
) -> Iterator[T]:
    """Give what `open_now` opens, with a count while it reads, and tell what is wrong with it in the end."""
    from octuefs.mount import start_logging
    from octuefs.report import Report

    start_logging(None, "ERROR")
    report = Report()
    with ExitStack() as stack:
        with counting("reading, files:") as progress:
            opened = stack.enter_context(open_now(config, report, progress))
        try:
            yield opened
        finally:
            if (text := report.text()) and not quiet:
                print(text, end="", file=sys.stderr)


class TransferBar:
    """A bar on stderr with files, bytes and rate: shown on a terminal, once a transfer takes over a second."""

    def __init__(self, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (
            TextColumn("{task.description} {task.fields[done]:,}/{task.fields[files]:,} files"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
        )
        console = Console(stderr=True)
        self._bar = Progress(*columns, console=console, transient=True)
        self._can_show = console.is_terminal
        self._task: Any = self._bar.add_task(text, total=0, done=0, files=0)
        self._lock = threading.Lock()  # guards what follows
        self._started = time.monotonic()
        self._showing = False
        self._files = self._done = self._total = 0

    def __enter__(self) -> "TransferBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._showing:
            self._bar.stop()

    def expect(self, files: int, size: int) -> None:
        """See `transfer.jobs.Progress`."""
        with self._lock:
            self._files += files
            self._total += size
            self._bar.update(self._task, files=self._files, total=self._total)

    def moved(self, size: int) -> None:
        """See `transfer.jobs.Progress`."""
        self._bar.update(self._task, advance=size)
        self._show()

    def skipped(self, size: int) -> None:
        """See `transfer.jobs.Progress`: what is there already counts in no rate."""
        with self._lock:
            self._total -= size
            self._bar.update(self._task, total=self._total)

    def finished(self) -> None:
        """See `transfer.jobs.Progress`."""
        with self._lock:
            self._done += 1
            self._bar.update(self._task, done=self._done)
        self._show()

    def _show(self) -> None:
        with self._lock:
            if self._can_show and not self._showing and time.monotonic() - self._started > _SHOW_SECONDS:
                self._showing = True
                self._bar.start()
