"""What the exceptions of gcsfs and of the libraries below it, and the server's refusals, mean to us.

The GCS store calls `failure` with whatever a request raised, and `refusal` with an answer that tells of a failure;
one of `octuefs.errors` leaves. This is the only place that knows those exceptions, by type, and their modules are
imported with the first failure.
"""

import concurrent.futures
import importlib
import json
import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from octuefs.errors import (
    AlreadyExists,
    BadValue,
    ChecksumMismatch,
    Conflict,
    NotFound,
    OctuefsError,
    Overloaded,
    PermissionRefused,
    StoreUnavailable,
    TimedOut,
    TooBig,
)

_REFUSED_CREDENTIALS = (
    "Google refuses these credentials; run `gcloud auth application-default login` again, "
    "or check GOOGLE_APPLICATION_CREDENTIALS"
)


class Unreachable(StoreUnavailable):
    """No connection to the store can be had, or kept."""


def passes(error: OctuefsError) -> bool:
    """Say whether a request that failed so is worth another try."""
    return isinstance(error, Unreachable | Overloaded | TimedOut)


def may_pass(error: Exception, failed: OctuefsError) -> bool:
    """Say the same of what a library raised, and of ours for it: credentials that ran out just now are had anew."""
    return passes(failed) or bool(importlib.import_module("gcsfs.retry").is_retriable(error))


def failure(error: BaseException, subject: str, endpoint: str = "") -> OctuefsError:
    """Return our exception for one of gcsfs or of a library below it, naming `subject` (a gs:// path).

    The words are ours: a vendor's text may hold URLs with query strings.
    """
    if isinstance(error, OctuefsError):
        return error
    for kind, make in _failures():
        if isinstance(error, kind):
            return make(error, subject, _server(endpoint))
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
        (msgspec.DecodeError, lambda error, subject, server: StoreUnavailable(f"{subject}: {server} {_NOT_GCS}")),
        (UnicodeDecodeError, lambda error, subject, server: StoreUnavailable(f"{subject}: {server} {_NOT_GCS}")),
        (KeyError, lambda error, subject, server: StoreUnavailable(f"{subject}: {server} {_NOT_GCS}")),
        (ValueError, lambda error, subject, server: _refusal(400, _below_first_line(error), subject, server, _READING)),
        (OSError, _refused_or_broken),
    )


_NOT_GCS = "does not answer as Google Cloud Storage does; check the endpoint"
_BAD_REQUEST = "the store refuses the request as invalid; check the bucket's name"
_READING = "storage.objects.list and storage.objects.get"
_LONGEST_MESSAGE = 1 << 16

_TOO_MUCH_METADATA = re.compile(r"metadata.*(too (large|big|long)|exceed|maximum)|MetadataTooLarge", re.I | re.S)
_OTHER_CHECKSUM = re.compile(r"(crc32c|md5).*(match|calculated)", re.I | re.S)
_RATE = re.compile(r"(user)?rateLimitExceeded|quotaExceeded", re.I)
_SCOPES = re.compile(r"insufficient authentication scopes|SCOPE_INSUFFICIENT|insufficientScopes?", re.I)
_PERMISSION = re.compile(r"\bstorage\.[a-zA-Z]+\.[a-zA-Z]+\b")
_KEPT = (
    (re.compile(r"temporary.?hold", re.I), "a temporary hold keeps it as it is"),
    (re.compile(r"event.?based.?hold", re.I), "an event-based hold keeps it as it is"),
    (re.compile(r"ActiveHold|\bhold\b", re.I), "a hold keeps it as it is"),
    (re.compile(r"retention", re.I), "a retention policy keeps it as it is"),
)
"""What may keep an object, by the server's words."""
_CUSTOMERS_KEY = re.compile(r"CustomerEncryptionKey|customer-supplied encryption key", re.I)
_PAYERS = (
    (
        re.compile(r"requester.?pays|user.?project.?missing", re.I),
        "whoever asks has to pay; name the project that is to pay with --billing-project",
    ),
    (
        re.compile(r"user.?project.{0,40}invalid", re.I),
        "there is no project of the name that is to pay; check --billing-project",
    ),
    (
        re.compile(r"serviceusage\.services\.use|user.?project.?denied", re.I),
        "this account may not let the project of --billing-project pay; it needs serviceusage.services.use there "
        "(the role Service Usage Consumer)",
    ),
    (
        re.compile(r"user.?project.?account.?problem", re.I),
        "the project of --billing-project cannot pay; check its billing account",
    ),
)
"""Why nobody pays for a request, by the server's words."""


def _below_first_line(error: ValueError) -> str:
    """Return what the server said: gcsfs's first line names the object, whose name may hold any words."""
    first, _, rest = str(error).partition("\n")
    return rest or first


def _http_failure(error: Any, subject: str, server: str) -> OctuefsError:
    code = int(error.code) if str(error.code or "").isdigit() else 0
    return _refusal(code, str(error.message), subject, server, _READING)


def refusal(status: int, content: bytes, subject: str, endpoint: str, needs: str) -> OctuefsError:
    """Return our exception for an answer of the server that tells of a failure.

    :param needs: the permissions that the request needs
    """
    return _refusal(status, _message(content), subject, _server(endpoint), needs)


def _message(content: bytes) -> str:
    """Return the server's words and reasons, to look into and never to show."""
    text = content[:_LONGEST_MESSAGE].decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        return f"{error['message']} {[item.get('reason') for item in error.get('errors', ())]}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return text


def _refusal(status: int, message: str, subject: str, server: str, needs: str) -> OctuefsError:
    if who_pays := payer_refusal(status, message, subject):
        return who_pays
    if status in (401, 403):
        return _forbidden(status, message, subject, server, needs)
    if status in (404, 410):
        return NotFound(f"{subject}: no such object or bucket")
    if status == 409:
        return AlreadyExists(f"{subject}: something stands there already (HTTP 409)")
    if status == 412:
        return Conflict(f"{subject}: another version stands there (412)")
    if status == 400 and _CUSTOMERS_KEY.search(message):
        return PermissionRefused(f"{subject}: it is stored under a customer's own key, which octuefs does not have")
    if status == 413 or (status == 400 and _TOO_MUCH_METADATA.search(message)):
        return TooBig(f"{subject}: more metadata than an object may have, or too much content")
    if status == 400 and _OTHER_CHECKSUM.search(message):
        return ChecksumMismatch(f"{subject}: other bytes arrived at {server} than were sent; nothing was stored")
    if status == 400:
        return BadValue(f"{subject}: {_BAD_REQUEST}")
    if status in (408, 504):
        return TimedOut(f"{subject}: {server} did not answer in time")
    text = f"{subject}: {server} fails (HTTP {status or 'error'}), tries included; try again later"
    return Overloaded(text) if status in (0, 429) or status >= 500 else StoreUnavailable(text)


def payer_refusal(status: int, message: str, subject: str) -> PermissionRefused | None:
    """Return what keeps a project from paying for a request, by the server's words; None where that is not it."""
    for regex, what in _PAYERS if status in (400, 403) else ():
        if regex.search(message):
            return PermissionRefused(f"{subject}: {what}")
    return None


def _forbidden(status: int, message: str, subject: str, server: str, needs: str) -> OctuefsError:
    """Say what keeps us from it: credentials, a hold or retention on the object, or a permission, by its name."""
    if status == 401 and "Invalid Credentials" in message:
        return PermissionRefused(_REFUSED_CREDENTIALS)
    if _RATE.search(message):
        return Overloaded(f"{subject}: {server} is asked too often (HTTP {status}), tries included; try again later")
    if _SCOPES.search(message):
        return PermissionRefused(
            f"{subject}: access is refused; these credentials were granted for less (their scopes)"
        )
    named = _PERMISSION.search(message)
    for regex, what in () if named else _KEPT:
        if regex.search(message):
            return PermissionRefused(f"{subject}: {what}; it cannot be replaced or removed (HTTP {status})")
    return PermissionRefused(
        f"{subject}: access is refused; this account needs {named[0] if named else needs} here (HTTP {status})"
    )


def _server(endpoint: str) -> str:
    return urlsplit(endpoint).netloc.rpartition("@")[2] or "Google Cloud Storage"


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
        return _refusal(403, str(error).partition("\n")[2], subject, server, _READING)
    return _broken_off(error, subject, server)
