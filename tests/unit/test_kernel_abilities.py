"""What a kernel can do for us, judged from what it says of itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from octuefs.drivers.kernel import abilities
from octuefs.drivers.kernel.abilities import is_admin, version_of, why_no_io_uring, why_no_passthrough

ROOT = "Name:\tpython\nCapPrm:\t000001fffeffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n"
DOCKER = "Name:\tpython\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n"
USER = "Name:\tpython\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n"
WHOLE_SYSTEM = "         0          0 4294967295\n"
NAMESPACE = "         0       1000          1\n"


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44-fc-v657", (6, 18)),
        ("5.4.0-216-generic", (5, 4)),
        ("6.9", (6, 9)),
        ("6.1.0+", (6, 1)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15)),
        ("", (0, 0)),
        ("unknown", (0, 0)),
    ],
)
def test_the_version_is_read_from_any_release(release: str, version: tuple[int, int]) -> None:
    assert version_of(release) == version


@pytest.mark.parametrize(
    ("status", "users", "admin"),
    [
        (ROOT, WHOLE_SYSTEM, True),
        (ROOT, "", True),
        (ROOT, NAMESPACE, False),
        (ROOT, NAMESPACE + "         1     100000      65536\n", False),
        (DOCKER, WHOLE_SYSTEM, False),
        (USER, WHOLE_SYSTEM, False),
        ("", WHOLE_SYSTEM, False),
    ],
)
def test_root_of_the_whole_system_is_told_from_root_of_a_container(status: str, users: str, admin: bool) -> None:
    assert is_admin(status, users) is admin


def test_files_are_passed_through_from_linux_6_9_on_for_root() -> None:
    assert why_no_passthrough("6.9.0", admin=True) == ""
    assert why_no_passthrough("10.0.1", admin=True) == ""
    assert why_no_passthrough("6.8.12", admin=True) == "it takes Linux 6.9, and this is 6.8"
    assert "root" in why_no_passthrough("6.18.1", admin=False)


@pytest.mark.parametrize(
    ("release", "parameter", "disabled", "admin", "words"),
    [
        ("6.14.0", "Y\n", "0\n", False, ""),
        ("6.14.0", "1\n", "0\n", False, ""),
        ("6.14.0", "Y\n", "1\n", True, ""),
        ("6.13.9", "Y\n", "0\n", True, "it takes Linux 6.14, and this is 6.13"),
        ("6.14.0", None, "0\n", True, "sudo modprobe fuse"),
        ("6.14.0", "N\n", "0\n", True, "echo Y | sudo tee /sys/module/fuse/parameters/enable_uring"),
        ("6.14.0", "Y\n", "1\n", False, "sudo sysctl kernel.io_uring_disabled=0"),
        ("6.14.0", "Y\n", "2\n", True, "sudo sysctl kernel.io_uring_disabled=0"),
    ],
)
def test_io_uring_is_there_or_the_one_command_is_told(
    release: str, parameter: str | None, disabled: str, admin: bool, words: str
) -> None:
    why = why_no_io_uring(release, parameter, disabled, admin=admin)
    assert words in why
    assert bool(why) == bool(words)


def test_io_uring_is_switched_on_where_that_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = tmp_path / "enable_uring"
    parameter.write_text("N\n")
    monkeypatch.setattr(abilities, "_PARAMETER", parameter)
    abilities.switch_uring_on()
    assert parameter.read_text() == "Y"
    monkeypatch.setattr(abilities, "_PARAMETER", tmp_path / "no module" / "enable_uring")
    abilities.switch_uring_on()
    assert abilities.find_abilities().io_uring


def test_what_was_found_is_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"_STATUS": ROOT, "_USERS": WHOLE_SYSTEM, "_PARAMETER": "N\n", "_DISABLED": "0\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(abilities, name, tmp_path / name)
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(release="6.18.1"))
    assert abilities.find_abilities() == abilities.Abilities(
        passthrough="", io_uring=f"it is switched off; switch it on with: {abilities.ENABLE_COMMAND}"
    )
    (tmp_path / "_STATUS").write_text(USER)
    (tmp_path / "_PARAMETER").write_text("Y\n")
    (tmp_path / "_DISABLED").unlink()
    found = abilities.find_abilities()
    assert "root" in found.passthrough
    assert found.io_uring == ""
