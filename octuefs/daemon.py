"""The daemon's side of `octuefs mount`: `python -m octuefs.daemon` with the config as JSON on stdin.

What it has to say to the command goes to stdout, one JSON line each: `{"seen": n}`, then `{"mounted": ...}`
or `{"error": "..."}`. After that it keeps no terminal, no pipe and no folder of the command.
"""

import json
import logging
import os
import resource
import sys
from contextlib import suppress
from typing import Any, NoReturn

from octuefs import places
from octuefs.config import MountConfig
from octuefs.errors import OctuefsError
from octuefs.report import printable

logger = logging.getLogger("octuefs.daemon")  # this module's own __name__ is "__main__", which no level is set for


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        if "seen" in message:
            raise OctuefsError("the command that was to mount has gone") from None


def _let_go() -> None:
    """Give up the command's pipes: stdout to nowhere, stderr to the log file."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it: each file open in the mount is one here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Serve the mount; return the exit code."""
    from octuefs.mount import serve, start_logging

    config = MountConfig.from_json(json.load(sys.stdin))
    raise_file_limit()
    try:
        log = places.log_file(config.mount_point)
        start_logging(log, config.log_level)
    except OctuefsError as error:
        _say({"error": str(error)})
        return 1
    os.chdir("/")

    def announce(message: dict[str, Any]) -> None:
        _say(message)
        if "mounted" in message:
            logger.info("mounted %s on %s", printable(config.shown_source), printable(config.mount_point))
            log_descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(log_descriptor, 2)
            os.close(log_descriptor)
            _let_go()

    try:
        serve(config, announce)
    except OctuefsError as error:
        logger.error("%s", printable(str(error)))
        _say({"error": str(error)})
        return 1
    except Exception as error:
        logger.exception("the daemon failed")
        _say({"error": f"unexpected failure: {error}; see {log}"})
        return 1
    return 0


def run() -> NoReturn:
    """Run `main` and leave at once: a request on its way to a store that is gone must not hold the end up."""
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
