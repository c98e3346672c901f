"""Where octuefs keeps what is its own, and what it says where it cannot."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from octuefs import places
from octuefs.errors import OctuefsError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder for state; its own name is short enough, however long pytest's are."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(places, "_LONGEST_SOCKET_PATH", len(os.fsencode(tmp_path)) + 40)
    return tmp_path


def test_the_socket_is_the_same_with_and_without_a_login(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    at_login = places.control_socket("/m")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert places.control_socket("/m") == at_login
    assert at_login.parent == state / "octuefs" / "run"


def test_a_long_path_of_the_state_puts_the_socket_into_a_private_folder(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    monkeypatch.setenv("XDG_STATE_HOME", str(state / ("x" * 100)))
    folder = tmp_path / "t" / f"octuefs-{os.getuid()}"
    assert places.control_socket("/m").parent == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(OctuefsError, match="not a private folder of yours"):
        places.control_socket("/m")
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OctuefsError, match="not a private folder of yours"):
        places.control_socket("/m")


def test_a_folder_that_cannot_be_used_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, "/dev/null")
    for place in (lambda: places.log_file("/m"), lambda: places.control_socket("/m")):
        with pytest.raises(OctuefsError, match=r"^/dev/null/octuefs/.*XDG_STATE_HOME"):
            place()
    with pytest.raises(OctuefsError, match=r"^/dev/null/octuefs.*XDG_CACHE_HOME"):
        places.hash_cache()
