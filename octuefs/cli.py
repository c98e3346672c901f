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
from typer.core import TyperGroup

from octuefs import __version__
from octuefs.commands.fetch import add_fetch_commands
from octuefs.commands.look import add_look_commands
from octuefs.commands.manifest import add_manifest_command
from octuefs.commands.options import (
    AnonymousOption,
    BillingProjectOption,
    BwlimitOption,
    CacheDirOption,
    CacheSizeOption,
    DriverOption,
    ImpersonateOption,
    IoUringOption,
    KeyFileOption,
    MemoryLimitOption,
    MetricsPortOption,
    OpensOption,
    ReadAheadOption,
    RecursiveOption,
    access_of,
    limits_of,
)
from octuefs.commands.share import add_share_command
from octuefs.commands.status import add_status_command
from octuefs.commands.terminal import counting, failing_in_words
from octuefs.commands.transfer import add_transfer_commands
from octuefs.config import DEFAULT_METADATA_TTL, Driver, IoUring, MountConfig, Opens, SourceConfig, check_mount
from octuefs.errors import BadValue, OctuefsError
from octuefs.model.paths import parse_source, whole
from octuefs.report import printable

if TYPE_CHECKING:
    from octuefs.launch import Left
    from octuefs.stores.base import Ownership

_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""click's UsageError, wherever Typer has it from."""


class _Commands(TyperGroup):
    """The commands; what they say of wrong use shows no query of a link that was given in the wrong place."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command`."""
        with _usage_without_queries():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """See `click.Group`; the commands' own arguments are read here."""
        with _usage_without_queries():
            return super().invoke(ctx)


@contextmanager
def _usage_without_queries() -> Iterator[None]:
    try:
        yield
    except _USAGE_ERROR as error:
        error.message = printable(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="octuefs",
    cls=_Commands,
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


MountPointArgument = Annotated[Path, typer.Argument(help="An empty folder.")]


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
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="A folder, gs://bucket/path, a manifest, the link of a shared dataset (in quotes);"
            " or several, each as NAME=SOURCE.",
            show_default=False,
        ),
    ],
    mount_point: MountPointArgument,
    recursive: RecursiveOption = True,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change (EROFS).")] = False,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
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
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to mount where one of several datasets cannot be reached.")
    ] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C, log to stderr.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much the log tells.")] = LogLevel.INFO,
    driver: DriverOption = Driver.AUTO,
    io_uring: IoUringOption = IoUring.AUTO,
    opens: OpensOption = Opens.AUTO,
    cache_dir: CacheDirOption = None,
    cache_size: CacheSizeOption = None,
    read_ahead: ReadAheadOption = "64M",
    memory_limit: MemoryLimitOption = "512M",
    bwlimit: BwlimitOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Mount a dataset, or several; returns when the mount answers, leaving a daemon."""
    with failing_in_words():
        named = _named(sources)
        access = access_of(anonymous, key_file, billing_project, impersonate)
        config = MountConfig(
            source=SourceConfig("" if named else whole(parse_source(sources[0])), recursive, metadata_ttl, access),
            named=named,
            strict=strict,
            mount_point=os.path.abspath(mount_point),
            read_only=read_only,
            allow_other=allow_other,
            views=views,
            list_views=list_views,
            log_level=log_level.name,
            write_back=write_back,
            compose=compose,
            ownership=_ownership(uid, gid, file_mode, dir_mode),
            driver=driver.value,
            io_uring=io_uring.value,
            opens=opens.value,
            metrics_port=metrics_port,
            **limits_of(cache_dir, cache_size, read_ahead, memory_limit, bwlimit)._asdict(),
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


def _named(sources: list[str]) -> dict[str, str]:
    """Return the sources by name, none where there is a single one without a name."""
    from octuefs.commands.named_sources import is_named, parse_named

    if len(sources) == 1 and not is_named(sources[0]):
        return {}
    if nameless := [source for source in sources if "=" not in source]:
        raise typer.BadParameter(f"several sources have a name each, NAME=SOURCE; {printable(nameless[0])} has none")
    return parse_named(sources)


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
    from octuefs.launch import paths_to_try
    from octuefs.model.sizes import counted, size_text

    labels = [printable(label) for label in summary["labels"]]
    place = printable(summary["mount_point"])
    print(f"{printable(summary['source'])} is mounted on {place}{' (read-only)' if summary['read_only'] else ''}")
    shown = f": {' '.join(labels[:8])}{' ...' if len(labels) > 8 else ''}" if labels else ""
    datasets = f"{counted(len(summary['datasets']), 'dataset')}, " if "datasets" in summary else ""
    files, size = counted(summary["files"], "file"), size_text(summary["bytes"])
    print(f"  {datasets}{files}, {size}, {counted(len(labels), 'label')}{shown}")
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
        from octuefs.launch import sync as sync_now
        from octuefs.model.sizes import counted

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
        from octuefs.launch import ask_daemon
        from octuefs.model.sizes import size_text

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
    """Give a callback for what is still to be stored; on a terminal a bar appears with its first call."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
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


@app.command()
def doctor() -> None:
    """Check what octuefs needs on this machine, in words."""
    from octuefs.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok     ' if finding.good else 'MISSING' if finding.needed else 'note   '} {printable(finding.text)}")
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


add_fetch_commands(app)
add_status_command(app)
add_look_commands(app)
add_transfer_commands(app)
add_manifest_command(app)
add_share_command(app)


if __name__ == "__main__":
    app()
