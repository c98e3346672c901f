"""The content of an upload, handed to aiohttp piece by piece: read in other threads, the next while one is sent.

`gcs_requests` sends what `gcs_uploads` makes. A failure to read is kept, as aiohttp would blame the connection.
"""

import asyncio
from collections.abc import AsyncIterator

from octuefs.errors import LocalFailure
from octuefs.stores.traffic import Traffic
from octuefs.stores.writing import Body

PIECE = 1 << 20
"""Bytes that are read, held and sent at once."""

_PIECE_SECONDS = 60.0
"""How long the network may take for one piece."""


def read_all(body: Body, start: int, end: int, subject: str) -> bytes:
    """Return bytes `start` to `end`, all of them.

    :raise LocalFailure: where there are fewer
    """
    parts = []
    while start < end:
        try:
            part = body(start, min(end - start, PIECE))
        except OSError as error:
            raise LocalFailure(f"{subject}: what is to be sent cannot be read ({error.strerror})") from error
        if not part:
            raise LocalFailure(f"{subject}: what is to be sent ends {end - start} bytes early")
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def paced(data: bytes, traffic: Traffic) -> AsyncIterator[bytes]:
    """Yield bytes in slices, each when the upload rate allows it; all at once where there is none."""
    step = traffic.sent_at_once or len(data)
    for start in range(0, len(data), step or 1):
        part = data[start : start + step]
        if seconds := traffic.sending(len(part)):
            await asyncio.sleep(seconds)
        yield part


class Pieces:
    """Bytes `start` to `end` of a body, between `before` and `after`; may be sent more than once."""

    def __init__(self, subject: str, body: Body, start: int, end: int, before: bytes = b"", after: bytes = b"") -> None:
        self.size = len(before) + end - start + len(after)
        self.error: Exception | None = None
        """Why the last sending came to no end."""
        self._subject = subject
        self._body = body
        self._start = start
        self._end = end
        self._before = before
        self._after = after

    def __len__(self) -> int:
        return self.size

    async def sending(self, limit: asyncio.Timeout, traffic: Traffic) -> AsyncIterator[bytes]:
        """Yield all pieces, at the rate of `traffic`.

        `limit` runs while the network takes one, and not while one is read or waits, or after the last.
        """
        loop = asyncio.get_running_loop()
        self.error = None
        following = self._read(loop, self._start)
        try:
            async for part in paced(self._before, traffic):
                yield part
            for start in range(self._start, self._end, PIECE):
                assert following is not None
                piece = await following
                following = self._read(loop, start + PIECE)
                async for part in paced(piece, traffic):
                    limit.reschedule(loop.time() + _PIECE_SECONDS)
                    yield part
                    limit.reschedule(None)
            async for part in paced(self._after, traffic):
                yield part
        except Exception as error:
            self.error = error
            raise
        finally:
            if following is not None:
                following.cancel()

    def _read(self, loop: asyncio.AbstractEventLoop, start: int) -> "asyncio.Future[bytes] | None":
        """Begin to read the piece at `start`; None at the end."""
        if start >= self._end:
            return None
        end = min(start + PIECE, self._end)
        return loop.run_in_executor(None, read_all, self._body, start, end, self._subject)
