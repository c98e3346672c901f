"""Connections to one HTTP server, kept open for the threads that take turns with them.

The byte path of a store asks through these: the standard library's client costs a quarter of what others cost for each
request, and hands bytes on without another copy. Any thread may call; no lock is held across a request.
"""

import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 10
_IDLE_SECONDS = 50.0
"""Servers close connections that nobody uses after a minute or so."""
_MOST_IDLE = 64

_CLOSED_MEANWHILE = (http.client.RemoteDisconnected, http.client.BadStatusLine, ConnectionError, ssl.SSLEOFError)
"""What a connection says that the server closed while it was idle."""


class Connections:
    """Connections to the server of `url` (scheme, host and port); with `proxied`, by the environment's proxy."""

    def __init__(self, url: str, *, silence: float, proxied: bool) -> None:
        """`silence` is how many seconds the server may say nothing."""
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._silence = silence
        self._proxy = _proxy(parts.scheme, self._host) if proxied else None
        self._context = ssl.create_default_context() if self._secure else None
        self._lock = threading.Lock()  # guards what follows, for memory work alone
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []
        self._used: set[http.client.HTTPConnection] = set()
        self._closings = 0
        self._process = os.getpid()

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Send a GET and give the answer, whose connection serves others once all of it was read.

        An answer that is not read to its end costs the connection.

        :raise OSError: where no connection can be had, or it breaks off
        :raise http.client.HTTPException: where the server does not speak HTTP
        """
        connection, response = self._ask(path, headers)
        try:
            yield response
        except BaseException:
            self._drop(connection)
            raise
        if response.isclosed() and not response.will_close:
            self._give_back(connection)
        else:
            self._drop(connection)

    def _ask(
        self, path: str, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask by a connection that was idle, and by a new one where the server has closed that meanwhile."""
        closings = self._closings
        connection = self._take()
        if connection is not None:
            try:
                return connection, _asked(connection, path, headers)
            except _CLOSED_MEANWHILE:
                self._drop(connection)
                if self._closings != closings:  # it was closed here
                    raise
            except BaseException:
                self._drop(connection)
                raise
        connection = self._connect()
        try:
            return connection, _asked(connection, path, headers)
        except BaseException:
            self._drop(connection)
            raise

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._proxy or (self._host, self._port)
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        if self._proxy is not None:
            connection.set_tunnel(self._host, self._port)
        connection.connect()
        connection.sock.settimeout(self._silence)
        with self._lock:
            self._used.add(connection)
        return connection

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            if self._process != os.getpid():  # a fork shares sockets, which two processes cannot
                self._idle, self._used, self._process = [], set(), os.getpid()
            if not self._idle:
                return None
            since, connection = self._idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS:
                self._used.add(connection)
                return connection
            outdated, self._idle = self._idle, []  # all others are idle for longer
        for _, other in outdated:
            other.close()
        connection.close()
        return None

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._used.discard(connection)
            if self._process == os.getpid() and len(self._idle) < _MOST_IDLE:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._used.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close all connections: who waits for an answer fails at once. A later use makes new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
            used = list(self._used)
            self._closings += 1
        for _, connection in idle:
            connection.close()
        for connection in used:
            with suppress(OSError, AttributeError):  # it ended just now
                connection.sock.shutdown(socket.SHUT_RDWR)


def _asked(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    connection.putrequest("GET", path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def _proxy(scheme: str, host: str) -> tuple[str, int | None] | None:
    """Return the host and port of the proxy that the environment names for a server, None where it names none."""
    named = "" if proxy_bypass(host) else getproxies().get(scheme, "")
    parts = urlsplit(named if "://" in named else f"http://{named}")
    return (parts.hostname, parts.port) if named and parts.hostname else None
