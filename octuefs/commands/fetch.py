"""The commands that fetch a part of a mount into its disk cache on purpose: `prefetch` and `pin`.

`cli.py` adds them to its own. The mount's daemon does the work (`fetches.py`); they show how it gets on.
"""

import sys
from typing import Annotated, Any

import typer

from octuefs.commands.terminal import TransferBar, failing_in_words
from octuefs.errors import BadValue, OctuefsError
from octuefs.report import printable

_LOOK_SECONDS = 0.25

_Paths = Annotated[
    list[str], typer.Argument(metavar="PATH", help="A file, folder or view in a mount: MOUNTPOINT/by-label/a.")
]


def add_fetch_commands(app: typer.Typer) -> None:
    """Let a command line have these commands."""
    app.command()(prefetch)
    app.command()(pin)


def prefetch(paths: _Paths) -> None:
    """Fetch files of a bucket into the disk cache now, so that reading them waits for nothing later."""
    with failing_in_words():
        _fetch(paths, pin=False)


def pin(
    paths: _Paths,
    release: Annotated[bool, typer.Option("--release", help="Let them go as all others from now on.")] = False,
) -> None:
    """Fetch files of a bucket, and keep them in the disk cache whatever else is read, over mounts too."""
    with failing_in_words():
        if not release:
            _fetch(paths, pin=True)
            return
        from octuefs.launch import ask_daemon
        from octuefs.model.sizes import counted

        files = 0
        for mount_point, path in _places(paths):
            files += ask_daemon(mount_point, "unpin", path=path)["files"]
        print(f"{counted(files, 'file')} are kept no longer than others")


def _places(paths: list[str]) -> list[tuple[str, str]]:
    """Return the mount point of each path, and the path below it."""
    from octuefs.commands.mounted_datasets import find_in_mount

    found = []
    for path in paths:
        place = find_in_mount(path)
        if place is None:
            raise BadValue(f"{path} is in no octuefs mount; give a path like MOUNTPOINT/by-label/a")
        found.append((place.mount_point, place.path))
    return found


def _fetch(paths: list[str], *, pin: bool) -> None:
    from octuefs.launch import ask_daemon
    from octuefs.model.sizes import counted, size_text

    places = _places(paths)
    failed: dict[str, str] = {}
    files = size = failures = 0
    with TransferBar("fetching") as bar:
        for mount_point, path in places:
            job = ask_daemon(mount_point, "fetch", path=path, pin=pin)
            bar.expect(job["files"], job["bytes"])
            state = _followed(mount_point, job, bar)
            failed |= state["failed"]
            failures += state["failed_count"]
            files += state["done_files"]
            size += state["done_bytes"]
    for name, reason in failed.items():
        print(f"{printable(name)}: {printable(reason)}" if name else printable(reason), file=sys.stderr)
    if failures:
        raise OctuefsError(f"{counted(failures, 'file')} of {files} could not be fetched")
    print(f"{counted(files, 'file')}, {size_text(size)}, {'pinned' if pin else 'in the disk cache'}")


def _followed(mount_point: str, job: dict[str, Any], bar: TransferBar) -> dict[str, Any]:
    """Show how a job gets on until it has ended; whoever interrupts this cancels it."""
    from octuefs.launch import ask_daemon

    files = size = 0
    try:
        while True:
            state = ask_daemon(mount_point, "fetch_state", job=job["job"], seconds=_LOOK_SECONDS)
            bar.moved(state["done_bytes"] - size)
            for _ in range(state["done_files"] - files):
                bar.finished()
            files, size = state["done_files"], state["done_bytes"]
            if state["ended"]:
                return state
    except KeyboardInterrupt:
        ask_daemon(mount_point, "fetch_cancel", job=job["job"])
        raise
