"""The commands that look at datasets without mounting them: `info`, `hash`, `ls`.

`cli.py` adds them to its own with `add_look_commands`. A source may be a manifest: all its datasets are meant then.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from octuefs.commands.options import (
    AnonymousOption,
    BillingProjectOption,
    ImpersonateOption,
    KeyFileOption,
    RecursiveOption,
    access_of,
)
from octuefs.commands.terminal import counting, failing_in_words, opened_all
from octuefs.config import SourceConfig
from octuefs.report import printable

if TYPE_CHECKING:
    from octuefs.datafile import Datafile
    from octuefs.dataset import Dataset
    from octuefs.model.ordering import Ordering

_Source = Annotated[str, typer.Argument(help="A local folder, gs://bucket/path, a manifest, or a shared dataset.")]


def add_look_commands(app: typer.Typer) -> None:
    """Let a command line have these commands."""
    app.command()(info)
    app.command("hash")(hash_command)
    app.command("ls")(list_command)


def info(
    source: Annotated[str, typer.Argument(help="As for mount, or a path in a mount.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
) -> None:
    """Say what a dataset is: name, ID, counts, labels, tags, hash. In a mount: every attribute of a path."""
    with failing_in_words():
        from octuefs.commands.inspect import (
            dataset_facts,
            facts_text,
            manifest_facts,
            manifest_text,
            mounted_attributes,
        )

        facts = mounted_attributes(source)
        text = facts_text
        if facts is None:
            access = access_of(anonymous, key_file, billing_project, impersonate)
            with (
                opened_all(SourceConfig(source, recursive, access=access)) as (manifest, datasets),
                counting("hashing, files:") as progress,
            ):
                if manifest is None:
                    facts = dataset_facts(datasets[""], progress)
                else:
                    facts, text = manifest_facts(manifest, datasets, progress), manifest_text
        for line in (json.dumps(facts, indent=2) if as_json else text(facts)).split("\n"):
            print(printable(line))


def hash_command(
    source: Annotated[str, typer.Argument(help="As for mount, or a path in a mount.")],
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
) -> None:
    """Print the hash of a dataset or a manifest, as the SDK computes it."""
    with failing_in_words():
        from octuefs.commands.inspect import mounted_hash
        from octuefs.model.hashes import hash_of_manifest

        if (value := mounted_hash(source)) is not None:
            print(value)
            return
        config = SourceConfig(source, recursive, access=access_of(anonymous, key_file, billing_project, impersonate))
        with opened_all(config) as (manifest, datasets), counting("hashing, files:") as progress:
            hashes = {name: dataset.set_hash("", (), progress) for name, dataset in datasets.items()}
        print(hashes[""] if manifest is None else hash_of_manifest(hashes.items()))


def list_command(
    source: _Source,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="e.g. labels__contains=a; several must all hold.")
    ] = None,
    order_by: Annotated[str | None, typer.Option("--order-by", help="e.g. name, -size_bytes, tags.height.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")] = False,
    recursive: RecursiveOption = True,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
) -> None:
    """List datafiles: size, path, labels."""
    with failing_in_words():
        from octuefs.commands.inspect import datafile_facts, datafile_line, select_datafiles
        from octuefs.model.filters import parse_filter
        from octuefs.model.ordering import parse_ordering

        conditions = tuple(parse_filter(text) for text in filters or ())
        order = parse_ordering(order_by) if order_by else None
        config = SourceConfig(source, recursive, access=access_of(anonymous, key_file, billing_project, impersonate))
        with opened_all(config) as (_, datasets):
            selected = {name: select_datafiles(it, conditions, order) for name, it in datasets.items()}
            for name, datafile in _in_order(datasets, selected, order):
                if as_json:
                    line = json.dumps(datafile_facts(datasets[name], datafile, name))
                else:
                    line = datafile_line(datafile, name)
                sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
        sys.stdout.flush()


def _in_order(
    datasets: Mapping[str, "Dataset"], selected: Mapping[str, Sequence["Datafile"]], order: "Ordering | None"
) -> list[tuple[str, "Datafile"]]:
    """Return the datafiles of all datasets with the names of these: one dataset after the other, or in an order."""
    from octuefs.model.paths import join, path_bytes

    rows = [(name, datafile) for name in datasets for datafile in selected[name]]
    if order is None or len(datasets) < 2:
        return rows
    names = {id(datafile): name for name, datafile in rows}
    ordered = order.sort([it for _, it in rows], lambda it: path_bytes(join(names[id(it)], it.path)))
    return [(names[id(datafile)], datafile) for datafile in ordered]
