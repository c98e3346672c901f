"""The beginning of a session: what the kernel offers, what we take of it, and what that means. Pure.

Flags are those of include/uapi/linux/fuse.h up to protocol 7.45; those above bit 31 stand in the second word of an
extended INIT.
"""

import mmap
import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from octuefs.drivers.kernel.requests import InitRequest

MAJOR: Final = 7
MINOR: Final = 45
_EPOCH_MINOR: Final = 44
"""From this one on FUSE_NOTIFY_INC_EPOCH is known (Linux 6.16)."""

IO_BYTES: Final = 1 << 20
"""The largest read and write."""
_OLD_IO_BYTES: Final = 128 << 10
_BACKGROUND: Final = 64
"""How many requests nobody waits for (reading ahead) the kernel has under way at once."""
_CONGESTED: Final = 48

_INIT_OUT: Final = struct.Struct("=IIIIHHIIHHIIH22x")


class Feature(IntFlag):
    """What INIT negotiates."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37
    OVER_IO_URING = 1 << 41


ALWAYS: Final = (
    Feature.ASYNC_READ
    | Feature.AUTO_INVAL_DATA
    | Feature.ATOMIC_O_TRUNC
    | Feature.BIG_WRITES
    | Feature.DO_READDIRPLUS
    | Feature.READDIRPLUS_AUTO
    | Feature.ASYNC_DIO
    | Feature.PARALLEL_DIROPS
    | Feature.MAX_PAGES
    | Feature.CACHE_SYMLINKS
    | Feature.HANDLE_KILLPRIV_V2
    | Feature.INIT_EXT
)
"""What every mount takes where it is offered."""


OPENS: Final = Feature.NO_OPEN_SUPPORT | Feature.NO_OPENDIR_SUPPORT
"""What lets the kernel answer opens itself, from the first that is answered with ENOSYS on."""


@dataclass(frozen=True, slots=True)
class Session:
    """What was agreed upon."""

    minor: int
    features: Feature
    readahead_bytes: int
    write_bytes: int
    """The longest write, and, in pages, the longest read."""
    stack_depth: int

    @property
    def knows_epochs(self) -> bool:
        """Say whether all names can be made stale with one notification."""
        return self.minor >= _EPOCH_MINOR

    def has(self, feature: Feature) -> bool:
        """Say whether a feature was agreed upon."""
        return self.features & feature == feature


def agree(offer: InitRequest, wanted: Feature, stack_depth: int = 0) -> Session:
    """Return what comes of an offer, where `wanted` is taken besides `ALWAYS`.

    :param stack_depth: how many file systems may be stacked for passthrough, this one included (1 or 2); 0 for none
    """
    features = Feature(offer.flags & (ALWAYS | wanted))
    if not features & Feature.INIT_EXT:
        features = Feature(features & 0xFFFF_FFFF)
    if not stack_depth:
        features &= ~Feature.PASSTHROUGH
    if features & Feature.PASSTHROUGH:
        features &= ~Feature.WRITEBACK_CACHE  # the kernel has but one of them, and would say nothing
    else:
        stack_depth = 0
    return Session(
        minor=min(offer.minor, MINOR),
        features=features,
        readahead_bytes=min(offer.max_readahead, IO_BYTES),
        write_bytes=IO_BYTES if features & Feature.MAX_PAGES else _OLD_IO_BYTES,
        stack_depth=stack_depth,
    )


def init_reply(session: Session) -> bytes:
    """Return the body that answers INIT."""
    return _INIT_OUT.pack(
        MAJOR,
        session.minor,
        session.readahead_bytes,
        session.features & 0xFFFF_FFFF,
        _BACKGROUND,
        _CONGESTED,
        session.write_bytes,
        1,  # times are exact to the nanosecond
        session.write_bytes // mmap.PAGESIZE,
        0,
        session.features >> 32,
        session.stack_depth,
        0,  # no time limit for requests of ours
    )
