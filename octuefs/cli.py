"""The command line: parse into a config, call mount or the dataset, say what happened.

Exit codes: 0 done; 1 it failed, with one line on stderr that says why and what to do; 2 wrong use.
Imports that cost time stay inside the commands, so `octuefs --help` answers at once.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octuefs import __version__
from octuefs.cli_transfer import add_transfer_commands
from octuefs.config import DEFAULT_METADATA_TTL, MountConfig, SourceConfig, check_mount
from octuefs.errors import BadValue, OctuefsError
from octuefs.report import printable
from octuefs.stores.base import Access
from octuefs.terminal import counting, failing_in_words, opened

if TYPE_CHECKING:
    from octuefs.launch import Left
    from octuefs.stores.base import Ownership

app = typer.Typer(
    name="octuefs",
    help="Mount Octue datasets, local or in Google Cloud Storage, and use them with any program.",
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
KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="A file of Google credentials to use instead of the default ones.")
]


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
    """Mount Octue datasets, local or in Google Cloud Storage, and use them with any program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# --- mounting


@app.command()
def mount(
    source: SourceArgument,
    mount_point: MountPointArgument,
    recursive: RecursiveOption = True,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change (EROFS).")] = False,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    write_back: Annotated[
        bool,
        typer.Option("--write-back", help="Let close return when the file is durable on this disk; upload behind."),
    ] = False,
    compose: Annotated[
        bool, typer.Option("--compose/--no-compose", help="Append to large objects by joining parts in the bucket.")
    ] = True,
    uid: Annotated[int | None, typer.Option(help="Owner of what is in a bucket.")] = None,
    gid: Annotated[int | None, typer.Option(help="Group of what is in a bucket.")] = None,
    file_mode: Annotated[
        str | None, typer.Option(help="Permissions, octal, of objects that have none stored, e.g. 640.")
    ] = None,
    dir_mode: Annotated[
        str | None, typer.Option(help="Permissions, octal, of folders that have none stored, e.g. 750.")
    ] = None,
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
    with failing_in_words():
        config = MountConfig(
            source=SourceConfig(
                _absolute(source), recursive, metadata_ttl, Access(anonymous, _absolute_file(key_file))
            ),
            mount_point=os.path.abspath(mount_point),
            read_only=read_only,
            allow_other=allow_other,
            views=views,
            list_views=list_views,
            log_level=log_level.name,
            write_back=write_back,
            compose=compose,
            ownership=_ownership(uid, gid, file_mode, dir_mode),
        )
        check_mount(config)
        if foreground:
            from octuefs.daemon import raise_file_limit
            from octuefs.mount import serve, start_logging

            raise_file_limit()
            start_logging(None, config.log_level)
            code = 1
            try:
                with failing_in_words():
                    serve(config, _announce_in_foreground)
                    code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)  # a reading of the source that is under way must not hold the end up
        else:
            from octuefs.launch import launch

            with counting("reading, files:") as progress:
                summary = launch(config, progress)
            _print_summary(summary)


def _absolute(source: str) -> str:
    from octuefs.model.paths import parse_location

    return str(parse_location(source))


def _absolute_file(path: Path | None) -> str | None:
    return os.path.abspath(path) if path is not None else None


def _ownership(uid: int | None, gid: int | None, file_mode: str | None, dir_mode: str | None) -> "Ownership | None":
    """Return what the options say, None where none is given."""
    from octuefs.stores.base import Ownership

    usual = Ownership()
    given = Ownership(
        usual.uid if uid is None else uid,
        usual.gid if gid is None else gid,
        usual.file_mode if file_mode is None else _octal("--file-mode", file_mode),
        usual.dir_mode if dir_mode is None else _octal("--dir-mode", dir_mode),
    )
    return None if given == usual else given


def _octal(option: str, text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise BadValue(f"{option} {text}: write permissions in octal, from 0 to 777")
    return mode


def _announce_in_foreground(message: dict[str, Any]) -> None:
    if "mounted" in message:
        _print_summary(message["mounted"])
        print("Press Ctrl-C to unmount.", flush=True)


def _print_summary(summary: dict[str, Any]) -> None:
    from octuefs.launch import counted, paths_to_try, size_text

    labels = [printable(label) for label in summary["labels"]]
    place = printable(summary["mount_point"])
    print(f"{printable(summary['source'])} is mounted on {place}{' (read-only)' if summary['read_only'] else ''}")
    shown = f": {' '.join(labels[:8])}{' ...' if len(labels) > 8 else ''}" if labels else ""
    files, size = counted(summary["files"], "file"), size_text(summary["bytes"])
    print(f"  {files}, {size}, {counted(len(labels), 'label')}{shown}")
    if not summary["files"]:
        print("  there are no files in it (yet); is the source right?")
    if summary["problems"]:
        number = counted(summary["problems"], "thing")
        print(f"  {number} could not be taken as stored: cat {place}/.octuefs/errors")
    for line in summary["notes"]:
        print(f"  {printable(line)}")
    print("Try:")
    for path in paths_to_try(summary):
        print(f"  {printable(path)}")
    sys.stdout.flush()


@app.command()
def unmount(
    mount_point: Annotated[Path, typer.Argument(help="Where it is mounted.")],
    lazy: Annotated[bool, typer.Option("--lazy", help="Unmount although files are open; they stay usable.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait for uploads: the next mount of the source makes them.")
    ] = False,
) -> None:
    """Unmount, and wait until everything is stored and the daemon has ended."""
    with failing_in_words():
        from octuefs.launch import unmount as unmount_now

        with _storing() as progress:
            unmount_now(os.path.abspath(mount_point), lazy=lazy, force=force, progress=progress)


@app.command()
def sync(mount_point: Annotated[Path, typer.Argument(help="Where it is mounted.")]) -> None:
    """Wait until everything that was written is stored."""
    with failing_in_words():
        from octuefs.launch import counted
        from octuefs.launch import sync as sync_now

        with _storing() as progress:
            outcome = sync_now(os.path.abspath(mount_point), progress)
        for path, reason in outcome["failed"].items():
            print(f"{printable(path)}: {printable(reason)}", file=sys.stderr)
        if outcome["failed"]:
            number = counted(len(outcome["failed"]), "file")
            raise OctuefsError(f"{number} could not be stored; octuefs recover {mount_point} lists what is kept")
        print("everything is stored")


@app.command()
def recover(
    mount_point: Annotated[Path, typer.Argument(help="Where it is mounted.")],
    restore: Annotated[
        list[str] | None, typer.Option("--restore", help="Write this one (a name of the list) back to its place.")
    ] = None,
    discard: Annotated[list[str] | None, typer.Option("--discard", help="Throw this one away.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List what could not be stored, and write it back or throw it away; .octuefs/recovered/ has the files."""
    with failing_in_words():
        from octuefs.launch import ask_daemon, size_text

        place = os.path.abspath(mount_point)
        for name in restore or ():
            path = ask_daemon(place, "restore", name=name)["path"]
            print(f"{printable(name)} is stored again as {printable(path)}")
        for name in discard or ():
            ask_daemon(place, "discard", name=name)
            print(f"{printable(name)} is thrown away")
        if restore or discard:
            return
        entries = ask_daemon(place, "recovered")["entries"]
        if as_json:
            print(json.dumps(entries))
            return
        for entry in entries:
            print(f"{printable(entry['name'])}  {size_text(entry['size'])}  {printable(entry['reason'])}")
        if not entries:
            print("nothing is waiting: everything that was written is stored")


@contextmanager
def _storing() -> Iterator[Callable[["Left"], None]]:
    """Give a callback for what is still to be stored; a bar appears with its first call."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("storing {task.fields[files]:,} files"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("storing", total=None, files=0)
    most = 0

    def show(left: "Left") -> None:
        nonlocal most
        if left.files and not most:
            bar.start()
        most = max(most, left.bytes)
        bar.update(task, files=left.files, total=most, completed=most - left.bytes)

    try:
        yield show
    finally:
        if most:
            bar.stop()


@app.command()
def refresh(mount_point: Annotated[Path, typer.Argument(help="Where it is mounted.")]) -> None:
    """Read the store again now, and show what changed underneath."""
    with failing_in_words():
        from octuefs.launch import ask_daemon

        with counting("re-reading"):
            status = ask_daemon(os.path.abspath(mount_point), "refresh")
        print(f"{printable(status['source'])} read again: {status['counts']['files']:,} files")


# --- looking without mounting


@app.command()
def info(
    source: Annotated[str, typer.Argument(help="A local folder, gs://bucket/path, or a path in a mount.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
) -> None:
    """Say what a dataset is: name, ID, counts, labels, tags, hash. In a mount: every attribute of a path."""
    with failing_in_words():
        from octuefs.inspect import dataset_facts, facts_text, mounted_attributes

        facts = mounted_attributes(source)
        if facts is None:
            with (
                opened(SourceConfig(source, recursive, access=Access(anonymous, _absolute_file(key_file)))) as dataset,
                counting("hashing, files:") as progress,
            ):
                facts = dataset_facts(dataset, progress)
        for line in (json.dumps(facts, indent=2) if as_json else facts_text(facts)).split("\n"):
            print(printable(line))


@app.command("hash")
def hash_command(
    source: SourceArgument,
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
) -> None:
    """Print the dataset's hash, as the SDK computes it."""
    config = SourceConfig(source, recursive, access=Access(anonymous, _absolute_file(key_file)))
    with failing_in_words():
        with opened(config) as dataset, counting("hashing, files:") as progress:
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
    key_file: KeyFileOption = None,
) -> None:
    """List datafiles: size, path, labels."""
    with failing_in_words():
        from octuefs.inspect import datafile_facts, datafile_line, select_datafiles
        from octuefs.model.filters import parse_filter
        from octuefs.model.ordering import parse_ordering

        conditions = tuple(parse_filter(text) for text in filters or ())
        order = parse_ordering(order_by) if order_by else None
        with opened(SourceConfig(source, recursive, access=Access(anonymous, _absolute_file(key_file)))) as dataset:
            for datafile in select_datafiles(dataset, conditions, order):
                line = json.dumps(datafile_facts(dataset, datafile)) if as_json else datafile_line(datafile)
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


add_transfer_commands(app)


if __name__ == "__main__":
    app()
