"""Connecting to Google Cloud Storage: which server, with which credentials, and gcsfs as we need it.

`gcs.py` calls; gcsfs, which takes a second to import, comes with the first connection.
"""

import functools
import importlib
import logging
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from octuefs.errors import OctuefsError
from octuefs.stores.base import Access
from octuefs.stores.gcs_failures import failure
from octuefs.stores.http_connections import CONNECT_SECONDS

_LOG = logging.getLogger(__name__)

TRIES = 5
"""Tries of a request that can be tried again, with `pause` between them."""


def connect(subject: str, endpoint: str, *, access: Access, read_only: bool, silence: float) -> Any:
    """Return a gcsfs file system of our own; `silence` is how many seconds a server may say nothing.

    Its credentials are those of `access`, and may do no more than read where `read_only`. Where a project pays,
    gcsfs's own requests name it.

    :raise OctuefsError: naming `subject`; PermissionRefused where credentials are needed and there are none
    """
    gcsfs = _gcsfs()
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence)
    try:
        return gcsfs.GCSFileSystem(
            token=_token(access, read_only),
            access="read_only" if read_only else "read_write",
            requester_pays=access.billing_project or False,
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


def _token(access: Access, read_only: bool) -> Any:
    if access.anonymous:
        return "anon"
    from octuefs.stores.gcs_credentials import READING, WRITING, credentials

    return credentials(access, READING if read_only else WRITING)


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
    quiet_vendors()
    return importlib.import_module("gcsfs")


def quiet_vendors() -> None:
    """Keep Google's libraries from writing to the terminal, and from asking long whether Google runs this machine."""
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")  # 3 s, not 12, to learn that we are not on GCE
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)  # it logs whole URLs, signatures included
    for name in ("gcsfs", "gcsfs.credentials", "google.auth._default", "google.auth.compute_engine._metadata"):
        logger = logging.getLogger(name)
        if _only_for_debugging not in logger.filters:
            logger.addFilter(_only_for_debugging)


def pause(number: int) -> float:
    """Return how many seconds to wait before try `number`, 1 being the second: by chance, at most 2, 4, 8, 16.

    All the time is left to chance ("full jitter"), so that those who were refused together do not come back together.
    """
    return random.uniform(0, 2**number)


def single_request(filesystem: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return gcsfs's own request without the tries that it makes itself, whose pauses nobody can hear of."""
    request: Any = getattr(type(filesystem)._request, "__wrapped__", type(filesystem)._request)
    return functools.partial(request, filesystem)


def _only_for_debugging(record: logging.LogRecord) -> bool:
    """Make a vendor's complaint a debug line: what failed after all is raised, and logged by us once."""
    if record.levelno > logging.DEBUG:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        record.exc_info = None
    return _LOG.isEnabledFor(logging.DEBUG)
