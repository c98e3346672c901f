"""A network that takes its time: HAProxy on a port of this machine, which holds each request back for a while."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.gcs import GcsServer, free_port

_SCRIPT = """core.register_action("hold_back", {{"http-req"}}, function() core.msleep({milliseconds}) end)
"""
_CONFIGURATION = """global
    lua-load {script}
defaults
    mode http
    timeout connect 10s
    timeout client 10m
    timeout server 10m
    http-reuse always
frontend clients
    bind 127.0.0.1:{front}
    http-request lua.hold_back
    default_backend server
backend server
    server gcs 127.0.0.1:{back}
"""


class HaproxyMissing(Exception):
    """HAProxy is not installed; the text says how to change that."""


def haproxy() -> str:
    """Return where HAProxy is.

    :raise HaproxyMissing: where it is not
    """
    # Debian's package puts it where only root's PATH leads.
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise HaproxyMissing("haproxy is not installed; on Debian and Ubuntu: sudo apt-get install haproxy")
    return found


@contextlib.contextmanager
def gcs_behind(milliseconds: int) -> Iterator[GcsServer]:
    """Run a GCS server each request to which takes so much longer; with 0, one without anything in front of it."""
    if not milliseconds:
        with GcsServer() as server:
            yield server
        return
    command = haproxy()
    front = free_port()
    with GcsServer(public_port=front) as server, tempfile.TemporaryDirectory(prefix="octuefs-haproxy-") as name:
        script, configuration, log = (Path(name) / part for part in ("hold_back.lua", "haproxy.cfg", "log"))
        script.write_text(_SCRIPT.format(milliseconds=milliseconds))
        configuration.write_text(_CONFIGURATION.format(script=script, front=front, back=server.port))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [command, "-db", "-f", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 15
            while not _listens(front):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"haproxy does not answer on port {front}; it said: {log.read_text()}")
                time.sleep(0.02)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
