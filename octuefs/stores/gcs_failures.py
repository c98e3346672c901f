"""What the exceptions of gcsfs, and of the libraries below it, mean to us.

The GCS store calls `failure` with whatever a request raised; one of `octuefs.errors` leaves. This is the only
place that knows those exceptions, by type, and their modules are imported with the first failure.
"""

import concurrent.futures
import importlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from octuefs.errors import BadValue, Conflict, NotFound, OctuefsError, PermissionRefused, StoreUnavailable, TimedOut

_REFUSED_CREDENTIALS = (
    "Google refuses these credentials; run `gcloud auth application-default login` again, "
    "or check GOOGLE_APPLICATION_CREDENTIALS"
)


class Unreachable(StoreUnavailable):
    """No connection to the store can be had, or kept."""


def failure(error: BaseException, subject: str, endpoint: str = "") -> OctuefsError:
    """Return our exception for one of gcsfs or of a library below it, naming `subject` (a gs:// path).

    The words are ours: a vendor's text may hold URLs with query strings.
    """
    if isinstance(error, OctuefsError):
        return error
    for kind, make in _failures():
        if isinstance(error, kind):
            return make(error, subject, urlsplit(endpoint).netloc.rpartition("@")[2] or "Google Cloud Storage")
    return StoreUnavailable(f"{subject}: the request failed unexpectedly ({type(error).__name__})")


_Make = Callable[[Any, str, str], OctuefsError]


@lru_cache(maxsize=1)
def _failures() -> tuple[tuple[type[BaseException], _Make], ...]:
    """Return what each exception means, the more special before the more general.

    gcsfs says 404, 403 and 412 by builtin OSErrors without an errno. The libraries' own are OSErrors too.
    """
    aiohttp = importlib.import_module("aiohttp")
    requests = importlib.import_module("requests.exceptions")
    auth = importlib.import_module("google.auth.exceptions")
    retry = importlib.import_module("gcsfs.retry")
    return (
        (retry.HttpError, _http_failure),
        (retry.NonRetryableError, lambda error, subject, server: PermissionRefused(_REFUSED_CREDENTIALS)),
        (auth.TransportError, _unreachable),
        (auth.GoogleAuthError, lambda error, subject, server: PermissionRefused(_REFUSED_CREDENTIALS)),
        (concurrent.futures.TimeoutError, _timed_out),
        (TimeoutError, _timed_out),
        (requests.Timeout, _timed_out),
        (aiohttp.ClientConnectorError, _unreachable),
        (aiohttp.ClientError, _broken_off),
        (requests.RequestException, _broken_off),
        (FileNotFoundError, lambda error, subject, server: NotFound(f"{subject}: no such object or bucket")),
        (FileExistsError, lambda error, subject, server: Conflict(f"{subject}: another version stands there (412)")),
        (json.JSONDecodeError, lambda error, subject, server: StoreUnavailable(f"{subject}: {server} {_NOT_GCS}")),
        (KeyError, lambda error, subject, server: StoreUnavailable(f"{subject}: {server} {_NOT_GCS}")),
        (ValueError, lambda error, subject, server: BadValue(f"{subject}: {_BAD_REQUEST}{_requester(error)}")),
        (OSError, _refused_or_broken),
    )


_NOT_GCS = "does not answer as Google Cloud Storage does; check the endpoint"
_BAD_REQUEST = "the store refuses the request as invalid; check the bucket's name"
_FORBIDDEN = "access is refused; this account needs storage.objects.list and storage.objects.get here"


def _requester(error: ValueError) -> str:
    return " (its requester pays, which octuefs does not support yet)" if "requester pays" in str(error).lower() else ""


def _http_failure(error: Any, subject: str, server: str) -> OctuefsError:
    code = int(error.code) if str(error.code or "").isdigit() else 0
    if code in (401, 403):
        refused = code == 401 and "Invalid Credentials" in str(error.message)
        return PermissionRefused(_REFUSED_CREDENTIALS if refused else f"{subject}: {_FORBIDDEN} (HTTP {code})")
    if code in (404, 410):
        return NotFound(f"{subject}: no such object or bucket")
    if code == 412:
        return Conflict(f"{subject}: another version stands there (412)")
    if code == 400:
        return BadValue(f"{subject}: {_BAD_REQUEST}")
    if code in (408, 504):
        return _timed_out(error, subject, server)
    return StoreUnavailable(f"{subject}: {server} fails (HTTP {code or 'error'}), tries included; try again later")


def _timed_out(error: Any, subject: str, server: str) -> OctuefsError:
    return TimedOut(f"{subject}: {server} did not answer in time")


def _unreachable(error: Any, subject: str, server: str) -> OctuefsError:
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if isinstance(number, int) and number > 0 else "no connection"
    return Unreachable(f"{subject}: cannot reach {server} ({reason}); check the network")


def _broken_off(error: Any, subject: str, server: str) -> OctuefsError:
    return Unreachable(f"{subject}: the connection to {server} broke off ({type(error).__name__})")


def _refused_or_broken(error: Any, subject: str, server: str) -> OctuefsError:
    if str(error).startswith("Forbidden"):
        return PermissionRefused(f"{subject}: {_FORBIDDEN} (HTTP 403)")
    return _broken_off(error, subject, server)
