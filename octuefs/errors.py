"""Every failure of octuefs, and the one table that turns it into an errno.

Stores turn their vendor's exceptions into these at their edge; `to_errno` is called once, around every
operation, and decides by type. Nothing else in the package knows errno numbers of failures.
"""

import errno
import os


class OctuefsError(Exception):
    """The root of all failures that octuefs raises on purpose; its text names thing, reason and remedy."""

    errno = errno.EIO


class NotFound(OctuefsError):
    """No such file, folder, object or bucket."""

    errno = errno.ENOENT


class AlreadyExists(OctuefsError):
    """Something stands where a new thing was to be."""

    errno = errno.EEXIST


class HiddenHere(AlreadyExists):
    """Something stands in the dataset under a name that a view does not show."""


class NotEmpty(OctuefsError):
    """A folder that was to be removed or replaced still holds something."""

    errno = errno.ENOTEMPTY


class CrossDevice(OctuefsError):
    """It cannot be renamed from here to there; programs copy it then, and remove the old one."""

    errno = errno.EXDEV


class TooBig(OctuefsError):
    """A value, or all metadata of an object together, is longer than the store keeps."""

    errno = errno.E2BIG


class NotADirectory(OctuefsError):
    """A path goes through something that is no directory."""

    errno = errno.ENOTDIR


class IsADirectory(OctuefsError):
    """A file was asked for where a directory stands."""

    errno = errno.EISDIR


class NotALink(OctuefsError):
    """readlink(2) on something that is no symbolic link."""

    errno = errno.EINVAL


class PermissionRefused(OctuefsError):
    """The store or the file system refuses access (EACCES, HTTP 401 and 403)."""

    errno = errno.EACCES


class NotPermitted(OctuefsError):
    """The operation is never allowed here, whoever asks."""

    errno = errno.EPERM


class ReadOnly(OctuefsError):
    """A change was asked of a read-only mount."""

    errno = errno.EROFS


class Conflict(OctuefsError):
    """The stored version is no longer the one that was seen (HTTP 412, a generation that is gone)."""

    errno = errno.ESTALE


class StaleNode(OctuefsError):
    """The kernel names what is not there any more; it looks again."""

    errno = errno.ESTALE


class NotUnique(OctuefsError):
    """A name that must stand for one datafile stands for several."""

    errno = getattr(errno, "ENOTUNIQ", errno.EEXIST)  # macOS has no such number


class NoAttribute(OctuefsError):
    """The extended attribute is not set."""

    errno = getattr(errno, "ENOATTR", errno.ENODATA)  # macOS has a number of its own for it


class BadValue(OctuefsError, ValueError):
    """A value that cannot be taken: a malformed label, filter, path, option."""

    errno = errno.EINVAL


class NameTooLong(OctuefsError):
    """A name or path beyond the system's limit."""

    errno = errno.ENAMETOOLONG


class Unsupported(OctuefsError):
    """The store cannot hold or do this."""

    errno = errno.ENOTSUP


class StoreUnavailable(OctuefsError):
    """The store failed after all retries (HTTP 429, 5xx, a broken connection)."""

    errno = errno.EIO


class Overloaded(StoreUnavailable):
    """The store says that it cannot do it now (HTTP 429 and 5xx)."""


class TimedOut(OctuefsError):
    """The store did not answer in time."""

    errno = errno.ETIMEDOUT


class ChecksumMismatch(OctuefsError):
    """Bytes arrived that do not have the checksum the store promises; they are never served."""

    errno = errno.EIO


def to_errno(error: BaseException) -> int:
    """Return the errno of any exception.

    Ours carry their own by type; an OSError keeps a positive one; everything else, an OSError without an
    errno included, is EIO (never ENOSYS, after which the kernel would stop asking).
    """
    if isinstance(error, OctuefsError):
        return error.errno
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno > 0:
        return error.errno
    return errno.EIO


def again(error: OctuefsError, text: str = "", kind: type[OctuefsError] | None = None) -> OctuefsError:
    """Return the same failure to be raised once more, by another thread maybe; with another text or of another kind."""
    copy = (kind or type(error))(text or str(error))
    copy.errno = error.errno
    return copy


def from_os_error(error: OSError, subject: str) -> OctuefsError:
    """Return our exception for an OSError of the local file system, naming `subject` (a path) in its text.

    Kinds without a class of their own become a `LocalFailure` that keeps the errno.
    """
    text = f"{subject}: {os.strerror(error.errno) if error.errno else error}"
    for kind in (
        NotFound,
        AlreadyExists,
        NotEmpty,
        TooBig,
        NotADirectory,
        IsADirectory,
        PermissionRefused,
        NotPermitted,
        ReadOnly,
        Conflict,
        NoAttribute,
        NameTooLong,
        Unsupported,
        TimedOut,
    ):
        if error.errno == kind.errno:
            return kind(text)
    failure = LocalFailure(text)
    failure.errno = error.errno or errno.EIO
    return failure


class LocalFailure(OctuefsError):
    """A failure of the local file system that has no class of its own; `errno` is the system's."""
