"""fio's own verification through the native driver: what it writes, in many ways, is what it reads."""

import shutil
import subprocess
from pathlib import Path

import pytest
from mount.kernel_mounts import by_each_transport, native

pytestmark = pytest.mark.skipif(shutil.which("fio") is None, reason="there is no fio here: apt-get install fio")

SIZE = 8 << 20
COMMON = (
    f"--size={SIZE}",
    "--numjobs=3",
    "--verify=crc32c",
    "--do_verify=1",
    "--verify_fatal=1",
    "--end_fsync=1",
    "--thread",
)
JOBS = {
    "in order": ("--rw=write", "--bs=128k", "--ioengine=psync"),
    "at random, small and large": ("--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned", "--ioengine=psync"),
    "reading and writing": ("--rw=randrw", "--bs=4k", "--ioengine=psync"),
    "through a mapping": ("--rw=randwrite", "--bs=4k", "--ioengine=mmap"),
    "past the page cache": ("--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=8"),
    "appended to holes": ("--rw=write:64k", "--bs=4k", "--ioengine=pvsync2", "--fallocate=none"),
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("folder", ["", "by-ext/dat"])
@by_each_transport
def test_fio_reads_what_it_has_written(tmp_path: Path, io_uring: str, folder: str, job: str) -> None:
    source = tmp_path / "dataset"
    source.mkdir()
    with native(source, io_uring=io_uring) as mount:
        if folder:  # a view shows files that are there, and fio makes those anew that are not as long as it wants them
            for number in range(3):
                (mount / f"{number}.dat").write_bytes(bytes(SIZE))
        command = ("fio", "--name=job", f"--directory={mount / folder}", "--filename_format=$jobnum.dat", *COMMON)
        done = subprocess.run([*command, *JOBS[job]], capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        for number in range(3):
            name = f"{number}.dat"
            assert (mount / name).read_bytes() == (source / name).read_bytes() == (mount / folder / name).read_bytes()
            assert (mount / name).stat().st_size == (source / name).stat().st_size > SIZE * 9 // 10
