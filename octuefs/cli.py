"""The command line: parse into a config, call mount or the dataset, say what happened.

Exit codes: 0 done; 1 it failed, with one line on stderr that says why and what to do; 2 wrong use.
Imports that cost time stay inside the commands, so `octuefs --help` answers at once.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octuefs import __version__
from octuefs.config import DEFAULT_METADATA_TTL, MountConfig, SourceConfig, check_mount, check_source
from octuefs.errors import OctuefsError
from octuefs.report import printable

if TYPE_CHECKING:
    from octuefs.dataset import Dataset

app = typer.Typer(
    name="octuefs",
    help="Mount Octue datasets, local or in Google Cloud Storage, and read them with any program.",
    epilog="Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class LogLevel(StrEnum):
    """How much the log tells."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


SourceArgument = Annotated[str, typer.Argument(help="A local folder, or gs://bucket/path.")]
MountPointArgument = Annotated[Path, typer.Argument(help="An empty folder.")]
RecursiveOption = Annotated[
    bool, typer.Option("--recursive/--no-recursive", help="Take the files in sub-folders too, as the SDK does.")
]
AnonymousOption = Annotated[bool, typer.Option("--anonymous", help="Read a public bucket without credentials.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"octuefs {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Mount Octue datasets, local or in Google Cloud Storage, and read them with any program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _failing_in_words() -> Iterator[None]:
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
def _progress(text: str) -> Iterator[Callable[[int], None]]:
    """Give a callback for counts; a line with the count appears on a terminal once this takes over a second."""
    import time

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(text, total=None)
    started = time.monotonic()
    showing = False

    def count(number: int) -> None:
        nonlocal showing
        if not showing and time.monotonic() - started > 1:
            showing = True
            progress.start()
        progress.update(task, completed=number)

    try:
        yield count
    finally:
        if showing:
            progress.stop()


@contextmanager
def _opened(config: SourceConfig) -> Iterator["Dataset"]:
    """Give the loaded dataset of a source, with its warnings on stderr."""
    check_source(config)
    from octuefs.mount import open_dataset, start_logging
    from octuefs.report import Report

    start_logging(None, "ERROR")
    report = Report()
    with ExitStack() as stack:
        with _progress("reading, files:") as progress:
            dataset = stack.enter_context(open_dataset(config, report, progress))
        yield dataset
        if text := report.text():
            print(text, end="", file=sys.stderr)


# --- mounting


@app.command()
def mount(
    source: SourceArgument,
    mount_point: MountPointArgument,
    recursive: RecursiveOption = True,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change (EROFS).")] = False,
    anonymous: AnonymousOption = False,
    metadata_ttl: Annotated[
        float, typer.Option(help="Seconds after which a cloud dataset is listed again; 0: every open asks.")
    ] = DEFAULT_METADATA_TTL,
    views: Annotated[bool, typer.Option("--views/--no-views", help="Answer the virtual names.")] = True,
    list_views: Annotated[bool, typer.Option("--list-views", help="List the views in the dataset's root.")] = False,
    allow_other: Annotated[bool, typer.Option("--allow-other", help="Let other users in.")] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C, log to stderr.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much the log tells.")] = LogLevel.INFO,
) -> None:
    """Mount a dataset; returns when the mount answers, leaving a daemon."""
    with _failing_in_words():
        config = MountConfig(
            source=SourceConfig(_absolute(source), recursive, anonymous, metadata_ttl),
            mount_point=os.path.abspath(mount_point),
            read_only=read_only,
            allow_other=allow_other,
            views=views,
            list_views=list_views,
            log_level=log_level.name,
        )
        check_mount(config)
        if foreground:
            from octuefs.daemon import raise_file_limit
            from octuefs.mount import serve, start_logging

            raise_file_limit()
            start_logging(None, config.log_level)
            code = 1
            try:
                with _failing_in_words():
                    serve(config, _announce_in_foreground)
                    code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)  # a reading of the source that is under way must not hold the end up
        else:
            from octuefs.launch import launch

            with _progress("reading, files:") as progress:
                summary = launch(config, progress)
            _print_summary(summary)


def _absolute(source: str) -> str:
    from octuefs.model.paths import parse_location

    return str(parse_location(source))


def _announce_in_foreground(message: dict[str, Any]) -> None:
    if "mounted" in message:
        _print_summary(message["mounted"])
        print("Press Ctrl-C to unmount.", flush=True)


def _print_summary(summary: dict[str, Any]) -> None:
    from octuefs.launch import counted, paths_to_try, size_text

    labels = [printable(label) for label in summary["labels"]]
    place = printable(summary["mount_point"])
    print(f"{printable(summary['source'])} is mounted on {place} (read-only)")
    shown = f": {' '.join(labels[:8])}{' ...' if len(labels) > 8 else ''}" if labels else ""
    files, size = counted(summary["files"], "file"), size_text(summary["bytes"])
    print(f"  {files}, {size}, {counted(len(labels), 'label')}{shown}")
    if not summary["files"]:
        print("  there are no files in it (yet); is the source right?")
    if summary["problems"]:
        number = counted(summary["problems"], "thing")
        print(f"  {number} could not be taken as stored: cat {place}/.octuefs/errors")
    print("Try:")
    for path in paths_to_try(summary):
        print(f"  {printable(path)}")
    sys.stdout.flush()


@app.command()
def unmount(
    mount_point: Annotated[Path, typer.Argument(help="Where it is mounted.")],
    lazy: Annotated[bool, typer.Option("--lazy", help="Unmount although files are open; they stay readable.")] = False,
) -> None:
    """Unmount, and wait until the daemon has ended."""
    with _failing_in_words():
        from octuefs.launch import unmount as unmount_now

        unmount_now(os.path.abspath(mount_point), lazy=lazy)


@app.command()
def refresh(mount_point: Annotated[Path, typer.Argument(help="Where it is mounted.")]) -> None:
    """Read the store again now, and show what changed underneath."""
    with _failing_in_words():
        from octuefs.launch import ask_daemon

        with _progress("re-reading"):
            status = ask_daemon(os.path.abspath(mount_point), "refresh")
        print(f"{printable(status['source'])} read again: {status['counts']['files']:,} files")


# --- looking without mounting


@app.command()
def info(
    source: Annotated[str, typer.Argument(help="A local folder, gs://bucket/path, or a path in a mount.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
) -> None:
    """Say what a dataset is: name, ID, counts, labels, tags, hash. In a mount: every attribute of a path."""
    with _failing_in_words():
        from octuefs.inspect import dataset_facts, facts_text, mounted_attributes

        facts = mounted_attributes(source)
        if facts is None:
            with (
                _opened(SourceConfig(source, recursive, anonymous)) as dataset,
                _progress("hashing, files:") as progress,
            ):
                facts = dataset_facts(dataset, progress)
        for line in (json.dumps(facts, indent=2) if as_json else facts_text(facts)).split("\n"):
            print(printable(line))


@app.command("hash")
def hash_command(
    source: SourceArgument,
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
) -> None:
    """Print the dataset's hash, as the SDK computes it."""
    config = SourceConfig(source, recursive, anonymous)
    with _failing_in_words():
        with _opened(config) as dataset, _progress("hashing, files:") as progress:
            value = dataset.set_hash("", (), progress)
        print(value)


@app.command("ls")
def list_command(
    source: SourceArgument,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="e.g. labels__contains=a; several must all hold.")
    ] = None,
    order_by: Annotated[str | None, typer.Option("--order-by", help="e.g. name, -size_bytes, tags.height.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")] = False,
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
) -> None:
    """List datafiles: size, path, labels."""
    with _failing_in_words():
        from octuefs.inspect import datafile_facts, datafile_line, select_datafiles
        from octuefs.model.filters import parse_filter
        from octuefs.model.ordering import parse_ordering

        conditions = tuple(parse_filter(text) for text in filters or ())
        order = parse_ordering(order_by) if order_by else None
        with _opened(SourceConfig(source, recursive, anonymous)) as dataset:
            for datafile in select_datafiles(dataset, conditions, order):
                line = json.dumps(datafile_facts(datafile)) if as_json else datafile_line(datafile)
                sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
        sys.stdout.flush()


@app.command()
def doctor() -> None:
    """Check what octuefs needs on this machine, in words."""
    from octuefs.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok     ' if finding.good else 'MISSING' if finding.needed else 'note   '} {printable(finding.text)}")
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
