"""The commands that transfer whole datasets and prove them: `upload`, `download`, `verify`.

`cli.py` adds them to its own with `add_transfer_commands`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from octuefs.commands.options import AnonymousOption, BillingProjectOption, ImpersonateOption, KeyFileOption, access_of
from octuefs.commands.terminal import TransferBar, failing_in_words, opened
from octuefs.config import SourceConfig, check_source
from octuefs.errors import BadValue, OctuefsError, from_os_error
from octuefs.model.listed_files import is_url
from octuefs.model.paths import GS_SCHEME
from octuefs.mounts import mount_above
from octuefs.report import printable

if TYPE_CHECKING:
    from octuefs.dataset import Dataset
    from octuefs.stores.writing import DiskStore, ObjectStore
    from octuefs.transfer.jobs import Outcome


def add_transfer_commands(app: typer.Typer) -> None:
    """Let a command line have these commands."""
    for command in (upload, download, verify):
        app.command()(command)


def upload(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A local folder.")],
    target: Annotated[str, typer.Argument(metavar="gs://BUCKET/PATH", help="Where the dataset is to be.")],
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
) -> None:
    """Store a local dataset, with its metadata, in a bucket.

    What is there already with the same bytes is not sent again, so an upload that was interrupted is resumed by running
    it once more. Nothing in the bucket is removed; an object that others change meanwhile is not overwritten.
    """
    with failing_in_words():
        if source.startswith(GS_SCHEME) or not target.startswith(GS_SCHEME):
            raise BadValue("upload takes a local folder and gs://bucket/path, in this order")
        access = access_of(anonymous, key_file, billing_project, impersonate)
        with (
            opened(SourceConfig(source), quiet=True) as dataset,
            _bucket(SourceConfig(target, access=access)) as store,
        ):
            from octuefs.transfer.jobs import Outcome
            from octuefs.transfer.upload import upload as upload_now

            outcome = Outcome()
            with TransferBar("storing") as bar, _resumable("upload"):
                upload_now(dataset, store, outcome, bar)
            _print_outcome(dataset, outcome, "stored in the bucket", "in the bucket")


def download(
    source: Annotated[str, typer.Argument(metavar="gs://BUCKET/PATH", help="A dataset in a bucket.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A folder; made where it is not there.")],
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
) -> None:
    """Write a dataset in a bucket, with its metadata, into a local folder.

    As with cp, what stands there under the same names is replaced, unless it has the same bytes: that is not fetched
    again, so a download that was interrupted is resumed by running it once more. Nothing in the folder is removed.
    """
    with failing_in_words():
        if not source.startswith(GS_SCHEME) or str(target).startswith(("gs:", "http:", "https:")):
            raise BadValue("download takes gs://bucket/path and a local folder, in this order")
        config = SourceConfig(source, access=access_of(anonymous, key_file, billing_project, impersonate))
        place = SourceConfig(os.path.abspath(target))
        with opened(config, quiet=True) as dataset:
            _make_folder(place)
            with opened(place, quiet=True) as folder:
                from octuefs.transfer.download import download as download_now
                from octuefs.transfer.jobs import Outcome

                outcome = Outcome()
                with TransferBar("fetching") as bar, _resumable("download"):
                    download_now(dataset, folder, cast("DiskStore", folder.store), outcome, bar)
            _print_outcome(dataset, outcome, f"written to {place.source}", "in the folder")


def verify(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A local folder, or gs://bucket/path.")],
    hashes: Annotated[
        str | None,
        typer.Argument(
            metavar="[HASHES]",
            help="Lines as in .hashes: a file, or - for standard input; or another dataset, to compare with.",
        ),
    ] = None,
    anonymous: AnonymousOption = False,
    key_file: KeyFileOption = None,
    billing_project: BillingProjectOption = None,
    impersonate: ImpersonateOption = None,
) -> None:
    """Prove the bytes of a dataset.

    With HASHES each file is compared with its line there, and what is missing or too much is named; the bytes of local
    files are read, and for an object the checksum counts that the server proved when it was stored. Without HASHES
    every byte is read: of objects, and compared with the bucket's checksums; of local files, and compared with the
    hashes that octuefs remembers of just these versions, so that what a disk has spoilt is found.
    """
    with failing_in_words():
        access = access_of(anonymous, key_file, billing_project, impersonate)
        with opened(SourceConfig(source, access=access)) as dataset:
            from octuefs.transfer.jobs import Outcome

            outcome = Outcome()
            if hashes is None:
                unknown = _verify_bytes(dataset, outcome)
            else:
                unknown = 0
                _verify_hashes(dataset, hashes, SourceConfig(hashes, access=access), outcome)
        _print_verdict(outcome, unknown)


# --- places


@contextmanager
def _bucket(config: SourceConfig) -> Iterator["ObjectStore"]:
    """Give the store of a place in a bucket that is to be written to."""
    from octuefs.wiring import open_store

    store = open_store(config, read_only=False)
    try:
        yield cast("ObjectStore", store)
    finally:
        store.close()


def _make_folder(place: SourceConfig) -> None:
    """Make the folder of a download where it is not there.

    :raise BadValue: where it cannot be one
    """
    parent = place.source
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if (above := mount_above(parent)) is not None and above.is_ours:
        check_source(SourceConfig(parent))  # which refuses it
    if parent == place.source:
        check_source(place)
        return
    try:
        os.makedirs(place.source, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, place.source) from error


@contextmanager
def _resumable(command: str) -> Iterator[None]:
    """Say on Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise OctuefsError(f"interrupted; what is done stays, run the same {command} again to go on") from None


# --- verifying


def _verify_bytes(dataset: "Dataset", outcome: "Outcome") -> int:
    import sqlite3

    from octuefs import places
    from octuefs.content.hashing import HashCache
    from octuefs.transfer.verify import remembered_in, verify_bytes

    cache = None
    if not dataset.location.in_cloud:
        with suppress(OSError, OctuefsError, sqlite3.Error):  # then nothing is remembered, which the outcome says
            cache = HashCache(places.hash_cache())
    try:
        with TransferBar("reading") as bar:
            return verify_bytes(dataset, remembered_in(cache), outcome, bar)
    finally:
        if cache is not None:
            cache.close()


def _verify_hashes(dataset: "Dataset", hashes: str, other: SourceConfig, outcome: "Outcome") -> None:
    from octuefs.transfer.verify import hashes_of, is_datafile_everywhere, parse_hashes, verify_hashes

    with TransferBar("reading") as bar:
        if hashes != "-" and (hashes.startswith(GS_SCHEME) or is_url(hashes) or os.path.isdir(hashes)):
            with opened(other) as theirs:
                expected = hashes_of(theirs, outcome, bar)
                differ = theirs.in_cloud != dataset.in_cloud
            verify_hashes(dataset, expected, outcome, bar, matters=is_datafile_everywhere if differ else None)
            return
        try:
            text = sys.stdin.buffer.read() if hashes == "-" else Path(hashes).read_bytes()
        except OSError as error:
            raise from_os_error(error, hashes) from error
        verify_hashes(dataset, parse_hashes(text, "standard input" if hashes == "-" else hashes), outcome, bar)


# --- what is said


def _print_outcome(dataset: "Dataset", outcome: "Outcome", done: str, place: str) -> None:
    """Say what came of a transfer.

    :raise OctuefsError: where something failed
    """
    from octuefs.model.sizes import counted, size_text

    told = tuple(f"{printable(path)}: " for path in (*outcome.notes, *outcome.failures))
    for line in dataset.keeper.report.text().splitlines():
        if not line.startswith(told):
            print(line, file=sys.stderr)
    _print_reasons(outcome.notes, "left out: ")
    _print_reasons(outcome.failures)
    parts = [f"{counted(outcome.moved, 'file')} {done} ({size_text(outcome.moved_bytes)})"]
    if outcome.same:
        parts.append(f"{outcome.same:,} there already")
    if outcome.described:
        parts.append(f"metadata alone of {outcome.described:,}")
    if outcome.others:
        parts.append(f"{counted(outcome.others, 'other file')} {place} left as they are")
    print(printable("; ".join(parts)), flush=True)
    if not len(dataset.index.datafiles):
        print(f"there are no files in {printable(str(dataset.location))}; is it right?", flush=True)
    if outcome.failures:
        raise OctuefsError(f"{counted(len(outcome.failures), 'file')} failed (see above); run the command again")


def _print_verdict(outcome: "Outcome", unknown: int) -> None:
    """Say what came of a verification: a line per failure on stdout, and a summary.

    :raise OctuefsError: where something is not as it should be
    """
    from octuefs.model.sizes import counted, size_text

    _print_reasons(outcome.failures, to_stdout=True)
    print(f"{counted(outcome.moved, 'file')} verified ({size_text(outcome.moved_bytes)})")
    if unknown:
        print(f"no hash was remembered of {unknown:,} of them: they could be read, and that is all that is known")
    sys.stdout.flush()
    if outcome.failures:
        raise OctuefsError(f"{counted(len(outcome.failures), 'file')} could not be verified")


def _print_reasons(reasons: dict[str, str], mark: str = "", *, to_stdout: bool = False) -> None:
    for path in sorted(reasons):
        line = f"{mark}{path}: {reasons[path].removeprefix(f'{path}: ')}"
        print(printable(line), file=sys.stdout if to_stdout else sys.stderr)
