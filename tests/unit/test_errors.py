"""The one table that turns failures into errno."""

import errno
import os

import pytest

from octuefs import errors
from octuefs.errors import LocalFailure, NotFound, OctuefsError, from_os_error, to_errno

OURS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OctuefsError)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (errors.NotFound, errno.ENOENT),
        (errors.AlreadyExists, errno.EEXIST),
        (errors.PermissionRefused, errno.EACCES),
        (errors.NotPermitted, errno.EPERM),
        (errors.ReadOnly, errno.EROFS),
        (errors.Conflict, errno.ESTALE),
        (errors.NotUnique, errno.ENOTUNIQ),
        (errors.NoAttribute, errno.ENODATA),
        (errors.BadValue, errno.EINVAL),
        (errors.Unsupported, errno.ENOTSUP),
        (errors.StoreUnavailable, errno.EIO),
        (errors.TimedOut, errno.ETIMEDOUT),
        (errors.ChecksumMismatch, errno.EIO),
    ],
)
def test_our_failures_have_the_errno_of_the_design(kind: type[OctuefsError], number: int) -> None:
    assert to_errno(kind("why")) == number


@pytest.mark.parametrize("kind", OURS)
def test_every_failure_of_ours_has_a_positive_errno_and_keeps_its_text(kind: type[OctuefsError]) -> None:
    assert to_errno(kind("gs://b/o: why")) > 0
    assert to_errno(kind("x")) != errno.ENOSYS
    assert str(kind("gs://b/o: why")) == "gs://b/o: why"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_an_os_error_keeps_its_errno(number: int) -> None:
    assert to_errno(OSError(number, os.strerror(number))) == number


@pytest.mark.parametrize(
    "error",
    [
        OSError("Forbidden: no errno"),
        FileNotFoundError("no errno either"),
        OSError(-5, "negative"),
        ValueError("x"),
        KeyError("x"),
        RuntimeError(),
        KeyboardInterrupt(),
        NotImplementedError(),
    ],
)
def test_whatever_else_happens_is_an_io_error(error: BaseException) -> None:
    assert to_errno(error) == errno.EIO


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOSPC, errno.EBADF, errno.ELOOP])
def test_a_local_failure_names_its_subject_and_keeps_its_errno(number: int) -> None:
    failure = from_os_error(OSError(number, os.strerror(number)), "/data/f")
    assert str(failure) == f"/data/f: {os.strerror(number)}"
    assert to_errno(failure) == number


def test_local_failures_with_a_class_of_ours_get_it() -> None:
    assert type(from_os_error(FileNotFoundError(errno.ENOENT, "x"), "/f")) is NotFound
    assert type(from_os_error(OSError(errno.ENOSPC, "x"), "/f")) is LocalFailure


def test_one_local_failure_does_not_change_the_errno_of_another() -> None:
    first = from_os_error(OSError(errno.ENOSPC, "x"), "/f")
    from_os_error(OSError(errno.EMFILE, "x"), "/g")
    assert to_errno(first) == errno.ENOSPC
    assert to_errno(LocalFailure("x")) == errno.EIO


def test_an_os_error_without_an_errno_is_an_io_error_with_its_text() -> None:
    failure = from_os_error(OSError("something"), "/f")
    assert str(failure) == "/f: something"
    assert to_errno(failure) == errno.EIO
