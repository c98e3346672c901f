"""The command that shares a dataset by a link: `share`.

`cli.py` adds it to its own with `add_share_command`.
"""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from octuefs.commands.options import BillingProjectOption, ImpersonateOption, KeyFileOption, access_of
from octuefs.commands.terminal import counting, failing_in_words, opened
from octuefs.config import SourceConfig
from octuefs.model.paths import CloudLocation

if TYPE_CHECKING:
    from octuefs.stores.writing import ObjectStore


def add_share_command(app: typer.Typer) -> None:
    """Let a command line have this command."""
    app.command()(share)


def share(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="gs://bucket/path, or in a mount a dataset, a folder or a view.")
    ],
    expires: Annotated[str, typer.Option(help="How long the link lasts: 7d (the most), 12h, 30m, 3600s.")] = "7d",
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
) -> None:
    """Print a link by which anybody can read a dataset for a while; the SDK and `octuefs mount` take it.

    A service account signs: that of --key-file, of --impersonate, or of the machine (Compute Engine). With
    --billing-project that project pays for what the link's readers ask. The files are those of now.
    """
    with failing_in_words():
        from octuefs.commands.sharing import (
            SURE_BY_GOOGLE,
            find_source,
            parse_lifetime,
            shared_dataset,
            shared_in_mount,
        )
        from octuefs.commands.sharing import share as share_now
        from octuefs.model.sizes import counted
        from octuefs.wiring import open_signer, open_store

        lifetime = parse_lifetime(expires)
        access = access_of(False, key_file, billing_project, impersonate)
        place = find_source(source)
        found = place if isinstance(place, CloudLocation) else shared_in_mount(place)
        signer = open_signer(access)
        if isinstance(found, CloudLocation):
            with opened(SourceConfig(str(found), access=access), quiet=True) as dataset:
                found = shared_dataset(dataset)
        store = cast("ObjectStore", open_store(SourceConfig(found.path, access=access), read_only=False))
        try:
            with counting("signing, files:") as progress:
                link = share_now(found, store, signer, lifetime, progress)
        finally:
            store.close()
        until = datetime.now(UTC) + lifetime
        print(f"{counted(len(found.files), 'file')} shared until {until:%Y-%m-%d %H:%M} UTC", file=sys.stderr)
        if signer.asks and lifetime > SURE_BY_GOOGLE:
            print("note: signed by a key that Google keeps and changes, it may end after 12 hours", file=sys.stderr)
        print(link, flush=True)
