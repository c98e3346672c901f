"""The socket between the commands and a daemon."""

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from octuefs.control import ControlServer, ask
from octuefs.errors import BadValue, NotFound, OctuefsError


@pytest.fixture
def path() -> Iterator[Path]:
    folder = tempfile.mkdtemp(prefix="octuefs-control-")  # pytest's own may be too long for a socket
    yield Path(folder) / "x.sock"
    shutil.rmtree(folder)


def failing_with(error: Exception) -> Callable[[], dict[str, Any]]:
    def command() -> dict[str, Any]:
        raise error

    return command


@pytest.mark.expected_logs("the command .* failed")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BadValue("the store is gone"), "^the store is gone$"),
        (KeyError("x"), r"^refresh failed unexpectedly: KeyError\('x'\)$"),
        (TypeError("odd"), "^refresh failed unexpectedly: .*odd"),
    ],
)
def test_a_failing_command_is_answered_in_words(error: Exception, words: str, path: Path) -> None:
    with closing(ControlServer(path, {"refresh": failing_with(error)})), pytest.raises(OctuefsError, match=words):
        ask(path, "refresh", timeout=10)


@pytest.mark.parametrize(
    "request_", [b"{}", b"[]", b"x", b"\xff", b'{"command": []}', b'{"command": "?"}', b"[" * 9999]
)
def test_what_is_no_request_is_said_to_be_no_command(request_: bytes, path: Path) -> None:
    with closing(ControlServer(path, {})), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(request_ + b"\n")
        answer = json.loads(connection.makefile("rb").readline())
    assert answer == {"ok": False, "error": "not a command of this daemon"}


def test_an_answer_may_name_a_hundred_thousand_files(path: Path) -> None:
    files = [f"gs://bucket/a/rather/long/folder/{number:06}/data.csv" for number in range(100_000)]
    with closing(ControlServer(path, {"dataset_at": lambda: {"files": files}})):
        assert ask(path, "dataset_at", timeout=60)["files"] == files


def test_a_server_that_ends_leaves_the_socket_of_the_one_that_replaced_it(path: Path) -> None:
    old = ControlServer(path, {"who": lambda: {"name": "old"}})
    new = ControlServer(path, {"who": lambda: {"name": "new"}})
    old.close()
    assert ask(path, "who", timeout=10) == {"name": "new"}
    new.close()
    assert not path.exists()
    with pytest.raises(NotFound):
        ask(path, "who")


def test_a_place_for_no_socket_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OctuefsError, match=f"the control socket {path}"):
        ControlServer(path, {})
