"""Connecting to Google Cloud Storage: which server, with which credentials, and gcsfs as we need it.

`gcs.py` calls; gcsfs, which takes a second to import, comes with the first connection.
"""

import importlib
import json
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from octuefs.errors import OctuefsError, PermissionRefused
from octuefs.stores.gcs_failures import failure

_LOG = logging.getLogger(__name__)

_SCOPE = "https://www.googleapis.com/auth/devstorage."

CONNECT_SECONDS = 10
TRIES = 5
"""Tries of a request that can be tried again, with 1, 2, 4 and 8 seconds and some chance between them."""

_NO_CREDENTIALS = (
    "no Google credentials found; run `gcloud auth application-default login`, "
    "set GOOGLE_APPLICATION_CREDENTIALS, or use --anonymous for a public bucket"
)


def connect(
    subject: str, endpoint: str, *, anonymous: bool, read_only: bool, key_file: str | None, silence: float
) -> Any:
    """Return a gcsfs file system of our own; `silence` is how many seconds a server may say nothing.

    Its credentials may do no more than read where `read_only`; they are those of `key_file` where one is given.

    :raise OctuefsError: naming `subject`; PermissionRefused where credentials are needed and there are none
    """
    gcsfs = _gcsfs()
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence)
    access = "read_only" if read_only else "read_write"
    try:
        return _patient(gcsfs)(
            token="anon" if anonymous else _credentials(access, key_file),
            access=access,
            endpoint_url=endpoint or None,
            requests_timeout=timeout,
            session_kwargs={
                "auto_decompress": False,
                "headers": {"Accept-Encoding": "identity"},
                "trust_env": not endpoint,  # a proxy on the way to Google, never to an emulator
            },
            skip_instance_cache=True,
            use_listings_cache=False,
        )
    except OctuefsError:
        raise
    except Exception as error:
        raise failure(error, subject) from error


def endpoint_url(given: str | None) -> str:
    """Return the server's URL without a slash at its end, "" for Google's own."""
    text = given or os.environ.get("STORAGE_EMULATOR_HOST", "")
    if text in ("", "default"):
        return ""
    if "://" not in text:
        text = f"http://{text}"
    return text.rstrip("/").removesuffix("/storage/v1")


def is_google(endpoint: str) -> bool:
    """Say whether credentials may go there: to Google's own names over https only."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return not endpoint or (parts.scheme == "https" and (host == "googleapis.com" or host.endswith(".googleapis.com")))


def _gcsfs() -> Any:
    """Import gcsfs so that it neither asks each bucket's type over gRPC nor writes tracebacks to the terminal."""
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")  # 3 s, not 12, to learn that we are not on GCE
    module = importlib.import_module("gcsfs")
    for name in ("gcsfs", "gcsfs.credentials", "google.auth._default", "google.auth.compute_engine._metadata"):
        logger = logging.getLogger(name)
        if _only_for_debugging not in logger.filters:
            logger.addFilter(_only_for_debugging)
    return module


def _patient(gcsfs: Any) -> Any:
    """Return gcsfs's file system with a bound on its patience that suits somebody who waits for a read."""
    retry = importlib.import_module("gcsfs.retry")
    plain = getattr(gcsfs.GCSFileSystem._request, "__wrapped__", None)
    if plain is None:
        return gcsfs.GCSFileSystem
    request = retry.retry_request(retries=TRIES)(plain)
    return type("PatientFileSystem", (gcsfs.GCSFileSystem,), {"_request": request})


def _only_for_debugging(record: logging.LogRecord) -> bool:
    """Make a vendor's complaint a debug line: what failed after all is raised, and logged by us once."""
    if record.levelno > logging.DEBUG:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        record.exc_info = None
    return _LOG.isEnabledFor(logging.DEBUG)


def _credentials(access: str = "read_only", key_file: str | None = None) -> Any:
    """Return the credentials of `key_file`, the Application Default Credentials without; never starts a browser.

    :raise PermissionRefused: where there are none, or they cannot be read
    """
    if key_file is not None:
        return _credentials_of_file(key_file, access)
    auth = importlib.import_module("google.auth")
    exceptions = importlib.import_module("google.auth.exceptions")
    try:
        return auth.default(scopes=[_SCOPE + access])[0]
    except (exceptions.DefaultCredentialsError, OSError, ValueError, AttributeError) as error:
        file = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if file:
            text = f"the credentials that GOOGLE_APPLICATION_CREDENTIALS names cannot be used: {file}"
            raise PermissionRefused(f"{text} ({'not usable' if os.path.exists(file) else 'no such file'})") from error
        raise PermissionRefused(_NO_CREDENTIALS) from error


def _credentials_of_file(path: str, access: str) -> Any:
    """Return the credentials in a service account's key, or in what `gcloud auth application-default login` wrote.

    A user's credentials have the scopes that were granted at that login. Other kinds (of which some name programs to
    run and servers to ask) are for GOOGLE_APPLICATION_CREDENTIALS alone.
    """
    subject = f"the key file {path} cannot be used"
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise PermissionRefused(f"{subject}: {os.strerror(error.errno) if error.errno else 'not readable'}") from error
    except ValueError as error:
        raise PermissionRefused(f"{subject}: it is not JSON") from error
    kind = content.get("type") if isinstance(content, dict) else None
    try:
        if kind == "service_account":
            service_account = importlib.import_module("google.oauth2.service_account")
            return service_account.Credentials.from_service_account_info(content, scopes=[_SCOPE + access])
        if kind == "authorized_user":
            user = importlib.import_module("google.oauth2.credentials")
            return user.Credentials.from_authorized_user_info(content)
    except Exception:  # its words may hold a part of the key, and its types are many
        raise PermissionRefused(f"{subject}: it is damaged; download a new key") from None
    raise PermissionRefused(f"{subject}: it is neither a service account's key nor a user's credentials")
