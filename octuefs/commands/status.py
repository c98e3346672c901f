"""`octuefs status`: what `.octuefs/status` says of a mount, as people read it, once or each second.

`cli.py` adds the command to its own. What is shown is made by `status_text.py`.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from octuefs.commands.terminal import failing_in_words

_WATCH_SECONDS = 1.0
_PATIENCE_SECONDS = 30.0
"""How long a daemon may take to answer."""


def add_status_command(app: typer.Typer) -> None:
    """Let a command line have this command."""
    app.command()(status)


def status(
    mount_point: Annotated[Path, typer.Argument(help="Where it is mounted.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew each second, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --watch a line each second.")] = False,
) -> None:
    """Say how a mount is: files, problems, what is not stored yet, requests, cache, prefetch."""
    with failing_in_words():
        place = os.path.abspath(mount_point)
        now = _ask(place)
        if as_json:
            _print_json(place, now, watch=watch)
        elif sys.stdout.isatty():
            _show(place, now, watch=watch)
        else:
            _print_text(place, now, watch=watch)


def _ask(place: str) -> dict[str, Any]:
    from octuefs.launch import ask_daemon

    return {**ask_daemon(place, "status", timeout=_PATIENCE_SECONDS), "asked": time.monotonic()}


def _print_json(place: str, now: dict[str, Any], *, watch: bool) -> None:
    try:
        while True:
            del now["asked"]
            print(json.dumps(now, indent=None if watch else 2), flush=True)
            if not watch:
                return
            time.sleep(_WATCH_SECONDS)
            now = _ask(place)
    except KeyboardInterrupt:
        return


def _print_text(place: str, now: dict[str, Any], *, watch: bool) -> None:
    from octuefs.commands.status_text import plain_text

    before = None
    try:
        while True:
            print(plain_text(now, before), flush=True)
            if not watch:
                return
            time.sleep(_WATCH_SECONDS)
            before, now = now, _ask(place)
            print()
    except KeyboardInterrupt:
        return


def _show(place: str, now: dict[str, Any], *, watch: bool) -> None:
    """Show it on a terminal."""
    from rich.console import Console
    from rich.live import Live

    from octuefs.commands.status_text import rich_text

    console = Console()
    if not watch:
        console.print(rich_text(now, None))
        return
    try:
        with Live(rich_text(now, None), console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(_WATCH_SECONDS)
                before, now = now, _ask(place)
                live.update(rich_text(now, before), refresh=True)
    except KeyboardInterrupt:
        console.print(rich_text(now, None))
