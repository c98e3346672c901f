"""The life of a mount, from load to unmount: `serve`, in the calling thread, until it is unmounted.

What it is made of comes from `wiring.py`; what it is while it runs stands in `mounting.py`. What was written and is not
stored yet when the mount ends is stored before `serve` returns, or stays in the journal where that cannot be, or where
`octuefs unmount --force` says so.
"""

import gc
import io
import logging
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octuefs import places
from octuefs.config import MountConfig, Opens
from octuefs.control import Command, ControlServer
from octuefs.errors import ReadOnly, from_os_error
from octuefs.fetches import Fetches
from octuefs.model.manifest import DatasetEntry, Manifest
from octuefs.mounting import Announce, Mount, OneDataset, SeveralDatasets
from octuefs.operations import Operations
from octuefs.recoveries import Recoveries
from octuefs.report import printable
from octuefs.sources import find_manifest, manifest_instead
from octuefs.tree.located import datafiles_at, dataset_at

if TYPE_CHECKING:
    from octuefs.metrics import MetricsServer

logger = logging.getLogger(__name__)

_SHOWN_SHADOWED = 100
_LOG_BYTES = 1 << 20
_SMALL_BYTES = 256 << 10
"""Files up to this size are read faster where the kernel opens them itself, from the second or third reading on: the
first one copies what passthrough would not. Of 1 MiB it takes three or four readings, of 4 MiB ten."""


def serve(config: MountConfig, announce: Announce) -> None:
    """Mount and answer until unmounted, or told to end by a signal.

    :raise OctuefsError: where the source cannot be read or the mount not be made
    """
    with ExitStack() as stack:
        metrics = _metrics(config, stack)
        with _kept_for_good():
            mount = _make(config, announce, stack)
        if metrics is not None:
            metrics.serve(mount.traffic)
            mount.metrics_port = metrics.port
        tree = mount.tree()
        for path in islice(tree.shadowed_paths(), _SHOWN_SHADOWED):
            logger.warning("the dataset's own %s hides the virtual name", printable(path))
        fetches = Fetches(partial(datafiles_at, tree), mount.resources.reading)
        control = ControlServer(places.control_socket(config.mount_point), _commands(mount, fetches))
        stack.callback(control.close)
        stack.callback(fetches.close)
        os.umask(0)  # the kernel has applied the caller's to every mode that it sends
        read_only = config.read_only or (isinstance(mount, OneDataset) and mount.dataset.writer is None)
        (_serve_natively if config.takes_kernel_driver else _serve_by_libfuse)(
            mount, Operations(tree, mount.report), announce, read_only=read_only
        )
        mount.wait_until_stored()
    logger.info("unmounted %s", config.mount_point)


def _metrics(config: MountConfig, stack: ExitStack) -> "MetricsServer | None":
    """Take the port at which the figures are to be served, before anything else is done; None where they are not."""
    if config.metrics_port is None:
        return None
    from octuefs.metrics import MetricsServer

    server = MetricsServer(config.metrics_port)
    stack.callback(server.close)
    return server


@contextmanager
def _kept_for_good() -> Iterator[None]:
    """Let what is made in this context be no matter of garbage collection, neither now nor later.

    The facts of 100,000 files are a million objects, and each look through them all would find nothing to free.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _make(config: MountConfig, announce: Announce, stack: ExitStack) -> Mount:
    """Return the mount of what the source turns out to be; what is to be closed comes onto the stack."""
    found = find_manifest(config)
    if isinstance(found, Manifest):
        return SeveralDatasets(config, found, announce, stack)
    return _one_dataset(config, found, announce, stack)


def _serve_natively(mount: Mount, operations: Operations, announce: Announce, *, read_only: bool) -> None:
    from octuefs.drivers.kernel.device import MountOptions
    from octuefs.drivers.kernel.driver import KernelDriver

    config = mount.config
    options = MountOptions(config.shown_source, read_only, config.allow_other)
    driver = KernelDriver(
        operations, config.mount_point, options, config.io_uring, kernel_opens=read_only and _kernel_opens(mount)
    )

    def mounted() -> None:
        mount.driver_status = driver.status
        announce({"mounted": mount.summary()})

    driver.serve(mounted)


def _kernel_opens(mount: Mount) -> bool:
    """Say whether the kernel is to answer opens itself: on a mount that is only read, and mostly of small files."""
    if mount.config.opens != Opens.AUTO:
        return mount.config.opens == Opens.KERNEL
    sizes = [size for it in mount.mounted() for size in it.dataset.index.sizes()]
    return bool(sizes) and statistics.median(sizes) <= _SMALL_BYTES


def _serve_by_libfuse(mount: Mount, operations: Operations, announce: Announce, *, read_only: bool) -> None:
    from octuefs.drivers import libfuse

    libfuse.serve(
        operations,
        mount.config.mount_point,
        source_name=mount.config.shown_source,
        read_only=read_only,
        allow_other=mount.config.allow_other,
        kernel_seconds=mount.kernel_seconds(),
        mounted=lambda: announce({"mounted": mount.summary()}),
    )


def _one_dataset(config: MountConfig, entry: DatasetEntry, announce: Announce, stack: ExitStack) -> Mount:
    """Return the mount of a dataset, or of the manifest that was meant where nothing is in it."""
    with ExitStack() as own:
        mount = OneDataset(config, entry, announce, own)
        manifest = manifest_instead(config.source, mount.dataset)
        if manifest is None:
            stack.push(own.pop_all())
            return mount
    return SeveralDatasets(config, manifest, announce, stack)


def _commands(mount: Mount, fetches: Fetches) -> dict[str, Command]:
    def give_up() -> dict[str, Any]:
        mount.given_up.set()
        return {}

    def recoveries() -> Recoveries:
        if mount.config.read_only:
            raise ReadOnly(f"{mount.config.mount_point} is mounted read-only; nothing is kept or restored there")
        return mount.recovered

    def recovered() -> dict[str, Any]:
        return {
            "entries": [
                {"name": it.name, "path": it.path, "when": it.when, "reason": it.reason, "size": it.size}
                for it in recoveries().entries()
            ]
        }

    def restore(name: str) -> dict[str, Any]:
        entry = recoveries().entry(name)
        recoveries().restore(name)
        return {"path": entry.path}

    def discard(name: str) -> dict[str, Any]:
        recoveries().discard(name)
        return {}

    return {
        "refresh": mount.refresh,
        "status": mount.status,
        "pending": mount.pending,
        "sync": mount.sync,
        "give_up": give_up,
        "recovered": recovered,
        "restore": restore,
        "discard": discard,
        "dataset_at": partial(dataset_at, mount.tree()),
        "fetch": lambda path, pin: fetches.begin(path, pin=pin),
        "fetch_state": fetches.state,
        "fetch_cancel": fetches.cancel,
        "unpin": fetches.release,
    }


class _PrivateLog(RotatingFileHandler):
    """A log of four files at most, each 0600; none of its records is lost for a name that is not UTF-8."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> io.TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


def start_logging(path: Path | None, level: str) -> None:
    """Log to a file (0600), or to stderr where `path` is None; other libraries' noise only from warnings on.

    :raise OctuefsError: where the file cannot be written
    """
    try:
        handler: logging.Handler = _PrivateLog(path) if path else logging.StreamHandler()
    except OSError as error:
        raise from_os_error(error, f"the log {path}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("octuefs").setLevel(level)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs what it raises; our stores say it in words
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)  # it logs whole URLs, with what authorises them
