"""The options that commands share, how far a dataset goes and with what rights buckets are asked; and the driver's.

`cli.py` and the modules beside this one annotate their parameters with these types and make an
`Access` of them with `access_of`.
"""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from octuefs.config import DRIVER_VARIABLE, Driver, IoUring, Opens
from octuefs.errors import BadValue
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
