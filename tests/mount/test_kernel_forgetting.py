"""What the kernel forgets the driver forgets too, to the last look-up."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.datasets import walk
from mount.kernel_mounts import TRANSPORTS, Native, eventually, native, needs_root

FILES = int(os.environ.get("OCTUEFS_SOAK_FILES", "5000"))
"""100,000 in a soak."""
PATIENCE = 20 + FILES / 1000
HANDFUL = 20

pytestmark = [needs_root, pytest.mark.timeout(180 + FILES // 50)]  # only root may say that caches are to be dropped

_DROP = Path("/proc/sys/vm/drop_caches")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "dataset"
    for number in range(50):
        (folder / f"d{number:02}").mkdir(parents=True)
        for inner in range(FILES // 50):
            (folder / f"d{number:02}" / f"{inner:05}.{'csv' if inner % 2 else 'txt'}").touch()
    return folder


@pytest.fixture(params=TRANSPORTS)
def io_uring(request: pytest.FixtureRequest) -> str:
    word: str = request.param
    return word


@pytest.fixture(params=["writable", "read-only"])
def mount(source: Path, io_uring: str, request: pytest.FixtureRequest) -> Iterator[Native]:
    options = ["--read-only"] if request.param == "read-only" else []
    with native(source, *options, io_uring=io_uring) as it:
        yield it


def forgets_all(mount: Native) -> bool:
    _DROP.write_text("2")
    nodes: int = mount.status()["nodes"]
    return nodes <= HANDFUL


def test_all_that_was_looked_up_is_forgotten_with_the_kernels_caches(mount: Native) -> None:
    for _ in range(2):
        assert sum(not folder for folder in walk(mount.root).values()) == FILES
        empty = mount / "filter" / "size_bytes__equals=0"
        for command in (["ls", "-lR", mount / "by-ext"], ["find", empty, "-ls"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert mount.status()["nodes"] >= FILES
        eventually(lambda: forgets_all(mount), PATIENCE)
    assert (mount / "d00" / "00000.txt").read_bytes() == b""


def test_what_is_in_use_is_known_until_it_is_not(mount: Native) -> None:
    with (mount / "d01" / "00001.csv").open("rb") as file:
        folder = os.open(mount / "d02", os.O_RDONLY)
        try:
            for _ in range(3):
                eventually(lambda: forgets_all(mount))
                assert os.fstat(file.fileno()).st_size == 0
                assert "00001.csv" in os.listdir(folder)
                assert os.stat("00001.csv", dir_fd=folder).st_size == 0
        finally:
            os.close(folder)


def test_files_that_come_and_go_leave_nothing(source: Path) -> None:
    with native(source) as mount:
        eventually(lambda: forgets_all(mount))
        before = mount.status()["nodes"]
        for number in range(300):
            path = mount / f"new-{number}.txt"
            path.write_text("x")
            path.rename(mount / f"moved-{number}.txt")
            (mount / "by-ext" / "txt" / f"moved-{number}.txt").stat()
            (mount / f"moved-{number}.txt").unlink()
        eventually(lambda: forgets_all(mount) and mount.status()["nodes"] <= before + 5)
        assert mount.passed_through == 0
