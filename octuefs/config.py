"""What a mount is to be, parsed and checked before anything is touched.

`check_mount` looks at the places that the config names and refuses, in one line with the remedy, what cannot
work. It runs in the command, not in the daemon.
"""

import errno
import os
import platform
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from octuefs import places
from octuefs.disks import check_cache_apart, check_cache_folder
from octuefs.errors import BadValue
from octuefs.model.paths import LocalLocation, Source, parse_source
from octuefs.mounts import check_alive, mount_above, mount_at
from octuefs.stores.base import Access, Ownership

DEFAULT_METADATA_TTL = 60.0
DEFAULT_READ_AHEAD = 64 << 20
DEFAULT_MEMORY_LIMIT = 512 << 20
LEAST_MEMORY = 32 << 20
"""Bytes of buffers without which reading from a bucket gets nowhere."""
_LONGEST_SHOWN = 1000
"""Characters that the kernel, which has a page for all options of a mount, is told of its source."""


class Driver(StrEnum):
    """What speaks to the kernel: our own driver for Linux, or libfuse, which other systems have too."""

    AUTO = "auto"
    KERNEL = "kernel"
    LIBFUSE = "libfuse"


DRIVER_VARIABLE = "OCTUEFS_DRIVER"
"""The variable of the environment that says which driver is taken where no option does."""


def takes_kernel_driver(driver: str) -> bool:
    """Say whether a word of `Driver` means our own one here: on Linux, unless libfuse was asked for."""
    return driver == Driver.KERNEL or (driver == Driver.AUTO and platform.system() == "Linux")


class IoUring(StrEnum):
    """Whether the kernel's requests come over io_uring: where it is switched on, always, or never."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Opens(StrEnum):
    """Who answers open(2): the kernel by itself, or the daemon, which is asked each time."""

    AUTO = "auto"
    KERNEL = "kernel"
    DAEMON = "daemon"


@dataclass(frozen=True)
class SourceConfig:
    """Which dataset, and how it is read. `metadata_ttl` is in seconds."""

    source: str
    recursive: bool = True
    metadata_ttl: float = DEFAULT_METADATA_TTL
    access: Access = field(default_factory=Access)

    @property
    def location(self) -> Source:
        """The parsed source.

        :raise BadValue: where it is none
        """
        return parse_source(self.source)


@dataclass(frozen=True)
class MountConfig:
    """A mount: its source, its place and its ways. `mount_point` is absolute.

    `named` are the sources by name where several datasets are mounted without a manifest; `source.source` is "" then.
    `strict` refuses to mount where one of several datasets cannot be reached. `write_back` lets close(2) return before
    the upload; `compose` lets appends be joined in the bucket; `ownership` says to whom the files of a bucket belong.
    `driver`, `io_uring` and `opens` are words of `Driver`, `IoUring` and `Opens`: how the kernel is spoken to.

    `cache_dir` is where blocks of buckets are kept (None: the user's cache folder), at most `cache_size` bytes of them
    (None: as the free disk allows; 0: no disk cache). `read_ahead` bytes are asked for ahead of one reader, and buffers
    hold at most `memory_limit`. `upload_rate` and `download_rate` are bytes per second. Figures are served at
    `metrics_port` of this machine (0: any port that is free; None: not at all).
    """

    source: SourceConfig
    mount_point: str
    named: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    read_only: bool = False
    allow_other: bool = False
    views: bool = True
    list_views: bool = False
    log_level: str = "INFO"
    write_back: bool = False
    compose: bool = True
    ownership: Ownership | None = None
    driver: str = Driver.AUTO.value
    io_uring: str = IoUring.AUTO.value
    opens: str = Opens.AUTO.value
    cache_dir: str | None = None
    cache_size: int | None = None
    read_ahead: int = DEFAULT_READ_AHEAD
    memory_limit: int = DEFAULT_MEMORY_LIMIT
    upload_rate: float | None = None
    download_rate: float | None = None
    metrics_port: int | None = None

    @property
    def takes_kernel_driver(self) -> bool:
        """True where our own driver is to serve the mount."""
        return takes_kernel_driver(self.driver)

    @property
    def shown_source(self) -> str:
        """What is mounted, in words that hold no secret."""
        if not self.named:
            return str(self.source.location)
        text = " ".join(f"{name}={parse_source(source)}" for name, source in self.named.items())
        return text if len(text) <= _LONGEST_SHOWN else f"{len(self.named)} datasets"

    def to_json(self) -> dict[str, Any]:
        """Return a value that `from_json` understands, for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "MountConfig":
        """Return the config that `to_json` wrote."""
        ownership = Ownership(**value["ownership"]) if value["ownership"] else None
        source = SourceConfig(**{**value["source"], "access": Access(**value["source"]["access"])})
        return cls(**{**value, "source": source, "ownership": ownership})


def check_source(config: SourceConfig, *, manifest: bool = False) -> None:
    """Refuse a source that cannot be read; a cloud one is checked by its store.

    With `manifest` a file may stand where a folder is expected.

    :raise BadValue: with the reason and the remedy
    """
    check_ttl(config)
    location = config.location
    if not isinstance(location, LocalLocation):
        return
    if not (manifest and os.path.isfile(location.path)):  # a manifest is only read, wherever it lies
        check_outside_mounts(location)
    try:
        kind = os.stat(location.path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise BadValue(f"no such folder: {location.path}") from None
        raise BadValue(f"{location.path} cannot be read: {os.strerror(error.errno or 0)}") from None
    if not stat.S_ISDIR(kind.st_mode) and not (manifest and stat.S_ISREG(kind.st_mode)):
        raise BadValue(f"{location.path} is a file; a dataset is a folder")
    if not os.access(location.path, os.R_OK | (os.X_OK if stat.S_ISDIR(kind.st_mode) else 0)):
        raise BadValue(f"no permission to read {location.path}")


def check_ttl(config: SourceConfig) -> None:
    """Refuse what is no time."""
    if not 0 <= config.metadata_ttl < float("inf"):
        raise BadValue("--metadata-ttl is a number of seconds, 0 or more")


def check_outside_mounts(location: LocalLocation) -> None:
    """Refuse a folder or file that is shown by a mount of ours.

    :raise BadValue: naming what to give instead
    """
    above = mount_above(os.path.abspath(location.path))
    if above is not None and above.is_ours:
        check_alive(above)
        raise BadValue(
            f"{location.path} lies in an octuefs mount ({above.mount_point}); mount its source, {above.source}, instead"
        )


def check_mount_point(mount_point: str) -> None:
    """Refuse a mount point that cannot take the mount.

    :raise BadValue: with the reason and the command that mends it
    """
    present = mount_at(mount_point)
    if present is not None:
        check_alive(present)
    try:
        kind = os.stat(mount_point)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise BadValue(f"no such folder: {mount_point}; make it with: mkdir -p {mount_point}") from None
        raise BadValue(f"{mount_point} cannot be used: {os.strerror(error.errno or 0)}") from None
    if present is not None and present.is_ours:
        raise BadValue(f"{mount_point} is busy: {present.source} is mounted there; octuefs unmount {mount_point}")
    if not stat.S_ISDIR(kind.st_mode):
        raise BadValue(f"{mount_point} is no folder; give an empty folder")
    try:
        content = os.listdir(mount_point)
    except OSError as error:
        raise BadValue(f"{mount_point} cannot be read: {os.strerror(error.errno or 0)}") from None
    if content:
        raise BadValue(f"{mount_point} is not empty; choose an empty folder")
    if not os.access(mount_point, os.W_OK | os.X_OK):
        raise BadValue(f"no permission to mount on {mount_point}; choose a folder of yours")


def check_apart(mount_point: str, location: Source) -> None:
    """Refuse a mount point within a folder that is to be mounted, and a folder within the mount point.

    :raise BadValue: naming both
    """
    if not isinstance(location, LocalLocation):
        return
    source, target = os.path.realpath(location.path), os.path.realpath(mount_point)
    if target == source or target.startswith(source.rstrip("/") + "/"):
        raise BadValue(f"the mount point {mount_point} lies in the source {location.path}; choose one outside of it")
    if source.startswith(target.rstrip("/") + "/"):
        raise BadValue(f"the source {location.path} lies in the mount point {mount_point}; choose another")


def check_driver(config: MountConfig) -> None:
    """Refuse a way to speak to the kernel that is none, or cannot be had on this system.

    :raise BadValue: with the reason and the remedy
    """
    choices: tuple[tuple[str, str, type[StrEnum]], ...] = (
        ("--driver", config.driver, Driver),
        ("--io-uring", config.io_uring, IoUring),
        ("--opens", config.opens, Opens),
    )
    for option, word, words in choices:
        if word not in list(words):
            raise BadValue(f"{option} {word}: choose one of {', '.join(words)}")
    system = platform.system()
    if config.driver == Driver.KERNEL and system != "Linux":
        raise BadValue(f"--driver kernel is for Linux, and this is {system}; leave it out, and libfuse is taken")
    if not config.takes_kernel_driver:
        for option, word in (("--io-uring", config.io_uring), ("--opens", config.opens)):
            if word != "auto":
                raise BadValue(f"{option} {word} is for --driver kernel, and this mount takes libfuse; leave it out")
    if config.opens == Opens.KERNEL and not config.read_only:
        raise BadValue("--opens kernel is for mounts that change nothing; add --read-only, or: --opens daemon")


def check_limits(config: MountConfig, locations: Sequence[Source]) -> None:
    """Refuse limits that cannot be, and a place that cannot take the cache.

    The user's own cache folder is looked at where it is sure to be used; a manifest may name no bucket.

    :raise BadValue: with the reason and the remedy
    """
    if config.memory_limit < LEAST_MEMORY:
        raise BadValue(f"--memory-limit: at least {LEAST_MEMORY >> 20}M is needed to read from a bucket")
    if config.cache_dir is not None and config.cache_size == 0:
        raise BadValue("--cache-dir means nothing with --cache-size 0; leave one of them out")
    if config.cache_dir is not None:
        check_cache_folder(config.cache_dir)
        folders = [location.path for location in locations if isinstance(location, LocalLocation)]
        check_cache_apart(config.cache_dir, config.mount_point, folders)
    elif config.cache_size != 0 and any(location.in_cloud for location in locations):
        check_cache_folder(places.user_cache())


def _about_buckets(config: MountConfig) -> list[str]:
    """Return the options that were given and are for buckets alone."""
    plain = MountConfig(config.source, config.mount_point)
    ownership = config.ownership or Ownership()
    given = {
        "--write-back": config.write_back,
        "--uid, --gid, --file-mode and --dir-mode": ownership != Ownership(),
        "--cache-dir": config.cache_dir is not None,
        "--cache-size": config.cache_size is not None,
        "--read-ahead": config.read_ahead != plain.read_ahead,
        "--memory-limit": config.memory_limit != plain.memory_limit,
        "--bwlimit": config.upload_rate is not None or config.download_rate is not None,
    }
    return [option for option, is_given in given.items() if is_given]


def check_mount(config: MountConfig) -> None:
    """Refuse what cannot be mounted; of several datasets each is checked when it is opened.

    :raise BadValue: with the reason and the remedy
    """
    if config.read_only and config.write_back:
        raise BadValue("--write-back means nothing on a --read-only mount; leave one of them out")
    check_driver(config)
    check_ttl(config.source)
    if config.metrics_port is not None and not 0 <= config.metrics_port <= 65535:
        raise BadValue(f"--metrics-port {config.metrics_port}: give a port from 1 to 65535, or 0 for any free one")
    if config.named:
        locations = [parse_source(source) for source in config.named.values()]
    else:
        check_source(config.source, manifest=True)
        locations = [config.source.location]
    if any(it.in_cloud or os.path.isfile(str(it)) for it in locations):  # or a manifest, which may name buckets
        check_limits(config, locations)
    elif given := _about_buckets(config):
        raise BadValue(f"{', '.join(given)}: for gs:// sources; a local folder is read and written as it is")
    for location in locations:
        check_apart(config.mount_point, location)
    check_mount_point(config.mount_point)
