"""The command that writes a manifest of several datasets: `manifest`.

`cli.py` adds it to its own with `add_manifest_command`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from octuefs.commands.terminal import failing_in_words
from octuefs.errors import BadValue, OctuefsError
from octuefs.report import printable


def add_manifest_command(app: typer.Typer) -> None:
    """Let a command line have this command."""
    app.command()(manifest)


def manifest(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=SOURCE...",
            help="A local folder, gs://bucket/path, a link, or in a mount a dataset, a folder or a view.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file, not to the terminal.")
    ] = None,
) -> None:
    """Write a manifest of datasets, which the SDK loads and an Octue service takes.

    Of a view in a mount the files are listed by where they really are, as they are now.
    """
    with failing_in_words():
        import uuid

        from octuefs.commands.named_sources import parse_named
        from octuefs.model.manifest import manifest_text
        from octuefs.model.sizes import counted

        datasets = {name: _dataset(name, source) for name, source in parse_named(sources).items()}
        text = manifest_text(str(uuid.uuid4()), None, datasets)
        if output is None:
            print(text, flush=True)
        else:
            _write(output, text, private=_has_links(datasets))
            print(f"{counted(len(datasets), 'dataset')} written to {printable(str(output))}", file=sys.stderr)


def _dataset(name: str, source: str) -> str | dict[str, Any]:
    """Return a source as it stands in the manifest: its place, or a dictionary with its files.

    :raise OctuefsError: where it cannot be told, or has no files though it is to have only some
    """
    from octuefs.commands.mounted_datasets import ask_for_dataset, find_in_mount
    from octuefs.config import SourceConfig, check_source

    try:
        place = find_in_mount(source)
        if place is None:
            check_source(SourceConfig(source))
            return source
        found = ask_for_dataset(place)
    except OctuefsError as error:
        raise type(error)(f"{printable(name)}: {error}") from None
    if found["files"] is None:
        path: str = found["path"]
        return path
    if not found["files"]:
        raise BadValue(f"{printable(name)}: there are no files in it, and the SDK would take it for the whole folder")
    return {key: found[key] for key in ("id", "name", "tags", "labels", "path", "files")}


def _has_links(datasets: Mapping[str, Any]) -> bool:
    """Say whether a dataset is named by a URL, which may be signed."""
    from octuefs.model.listed_files import is_url

    return any(isinstance(dataset, str) and is_url(dataset) for dataset in datasets.values())


def _write(path: Path, text: str, *, private: bool) -> None:
    """Let a file have a text, all at once; a `private` one is for its owner alone.

    :raise OctuefsError: where it cannot be written
    """
    import os
    import tempfile

    from octuefs.errors import from_os_error

    target = os.path.realpath(path)
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".octuefs-", dir=os.path.dirname(target))
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            if not private:
                umask = os.umask(0)
                os.umask(umask)
                os.fchmod(descriptor, 0o666 & ~umask)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None and os.path.lexists(temporary):
            os.unlink(temporary)
        raise from_os_error(error, str(path)) from error
