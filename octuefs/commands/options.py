"""The options that commands share, how far a dataset goes and with what rights buckets are asked; and a mount's ways.

`cli.py` and the modules beside this one annotate their parameters with these types and make an
`Access` of them with `access_of`, and `Limits` with `limits_of`.
"""

import os
import re
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from octuefs.config import DRIVER_VARIABLE, Driver, IoUring, Opens
from octuefs.errors import BadValue
from octuefs.model.sizes import parse_rates, parse_size
from octuefs.stores.base import Access

_PANEL = "Access to buckets"

AnonymousOption = Annotated[
    bool, typer.Option("--anonymous", rich_help_panel=_PANEL, help="Read a public bucket without credentials.")
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        rich_help_panel=_PANEL,
        metavar="FILE",
        help="A file of Google credentials to use instead of the default ones.",
    ),
]
BillingProjectOption = Annotated[
    str | None,
    typer.Option(
        "--billing-project",
        rich_help_panel=_PANEL,
        metavar="PROJECT",
        help="The project that pays for the requests, where a bucket wants its requester to pay.",
    ),
]
ImpersonateOption = Annotated[
    str | None,
    typer.Option(
        "--impersonate",
        rich_help_panel=_PANEL,
        metavar="SERVICE_ACCOUNT",
        help="The e-mail address of a service account to act as.",
    ),
]

RecursiveOption = Annotated[
    bool, typer.Option("--recursive/--no-recursive", help="Take the files in sub-folders too, as the SDK does.")
]

_DRIVER_PANEL = "Driver"

DriverOption = Annotated[
    Driver,
    typer.Option(
        envvar=DRIVER_VARIABLE,
        rich_help_panel=_DRIVER_PANEL,
        help="What speaks to the kernel: kernel, our own driver for Linux, or libfuse; auto: the first that there is.",
    ),
]
IoUringOption = Annotated[
    IoUring,
    typer.Option(
        rich_help_panel=_DRIVER_PANEL,
        help="Take requests over io_uring (Linux 6.14 on): auto, where it is switched on; on switches it on, as root.",
    ),
]
OpensOption = Annotated[
    Opens,
    typer.Option(
        rich_help_panel=_DRIVER_PANEL,
        help="Who answers an open: the kernel by itself (--read-only mounts; best for small files) or the daemon"
        " (best for large ones); auto looks at their sizes.",
    ),
]

_SPEED_PANEL = "Speed, of what is in buckets"

CacheDirOption = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        rich_help_panel=_SPEED_PANEL,
        metavar="FOLDER",
        help="Where blocks of files are kept, over mounts too; on a local disk. Else the user's cache folder.",
    ),
]
CacheSizeOption = Annotated[
    str | None,
    typer.Option(
        "--cache-size",
        rich_help_panel=_SPEED_PANEL,
        metavar="SIZE",
        help="How much of them at most, e.g. 50G; 0: no disk cache. Else 20 % of the free disk, 20 GiB at most.",
    ),
]
ReadAheadOption = Annotated[
    str,
    typer.Option(
        "--read-ahead",
        rich_help_panel=_SPEED_PANEL,
        metavar="SIZE",
        help="How much is asked for ahead of a program that reads a file from front to back; 0: nothing.",
    ),
]
MemoryLimitOption = Annotated[
    str,
    typer.Option(
        "--memory-limit",
        rich_help_panel=_SPEED_PANEL,
        metavar="SIZE",
        help="How much of what is read and written may be in memory at once.",
    ),
]
BwlimitOption = Annotated[
    str | None,
    typer.Option(
        "--bwlimit",
        rich_help_panel=_SPEED_PANEL,
        metavar="RATE",
        help="Bytes per second at most, e.g. 10M; or up:down, e.g. 10M:2M, off:2M.",
    ),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        help="Serve the mount's figures to Prometheus, http://127.0.0.1:PORT/metrics; 0: any free port.",
    ),
]


class Limits(NamedTuple):
    """What the options of speed say, in bytes and bytes per second; the names are those of `MountConfig`."""

    cache_dir: str | None
    cache_size: int | None
    read_ahead: int
    memory_limit: int
    upload_rate: float | None
    download_rate: float | None


def limits_of(
    cache_dir: Path | None, cache_size: str | None, read_ahead: str, memory_limit: str, bwlimit: str | None
) -> Limits:
    """Return what the options say; the cache's folder absolute, as a daemon stands elsewhere.

    :raise BadValue: where a value cannot be one
    """
    upload_rate, download_rate = parse_rates(bwlimit, "--bwlimit") if bwlimit is not None else (None, None)
    return Limits(
        None if cache_dir is None else os.path.abspath(cache_dir),
        None if cache_size is None else parse_size(cache_size, "--cache-size"),
        parse_size(read_ahead, "--read-ahead"),
        parse_size(memory_limit, "--memory-limit"),
        upload_rate,
        download_rate,
    )


_ACCOUNT = re.compile(r"[^@\s/?#%]+@[^@\s/?#%]+\.[^@\s/?#%]+")
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*")


def access_of(
    anonymous: bool = False,
    key_file: Path | None = None,
    billing_project: str | None = None,
    impersonate: str | None = None,
) -> Access:
    """Return what the options say; the path of the key file absolute, as a daemon stands elsewhere.

    :raise BadValue: where they contradict each other, or a value cannot be one
    """
    others = {"--key-file": key_file, "--billing-project": billing_project, "--impersonate": impersonate}
    given = [name for name, value in others.items() if value is not None]
    if anonymous and given:
        raise BadValue(f"--anonymous sends no credentials, and {given[0]} needs some; leave one of them out")
    if billing_project is not None and not _PROJECT.fullmatch(billing_project):
        raise BadValue(f"--billing-project {billing_project}: give the ID of a project, e.g. my-project-123")
    if impersonate is not None and not _ACCOUNT.fullmatch(impersonate):
        raise BadValue(
            f"--impersonate {impersonate}: give the e-mail address of a service account, e.g."
            " name@my-project-123.iam.gserviceaccount.com"
        )
    return Access(anonymous, None if key_file is None else os.path.abspath(key_file), billing_project, impersonate)
