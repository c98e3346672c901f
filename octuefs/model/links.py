"""What a signed URL tells of itself: until when it may be used. Pure; nothing here shows a URL's query."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

_COMPACT = "%Y%m%dT%H%M%SZ"
"""The dates of version 4 signatures."""


def expiry_of(url: str) -> datetime | None:
    """Return when a signed URL expires (UTC), None where it does not say so.

    Version 4 signatures have X-Goog-Date and X-Goog-Expires (seconds from then; X-Amz-... in HMAC-signed ones),
    version 2 has Expires (seconds since the epoch).
    """
    try:
        query = {key.lower(): value for key, value in parse_qsl(urlsplit(url).query)}
        for prefix in ("x-goog-", "x-amz-"):
            if f"{prefix}expires" in query:
                begins = datetime.strptime(query[f"{prefix}date"], _COMPACT).replace(tzinfo=UTC)
                return begins + timedelta(seconds=int(query[f"{prefix}expires"]))
        if "expires" in query:
            return datetime.fromtimestamp(int(query["expires"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        pass
    return None


def refusal_of(url: str, now: datetime) -> str:
    """Return why a server refuses a URL (HTTP 400, 401 and 403) at a moment, as one who was given it is told."""
    expires = expiry_of(url)
    if expires is not None and expires <= now:
        return f"the link expired on {expires:%Y-%m-%d %H:%M} UTC; ask for a new one"
    return "the link was refused (it was revoked, or is not meant for this); ask for a new one"
