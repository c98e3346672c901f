"""The native driver for an ordinary user, who mounts by fusermount3: the same files, without what takes root.

Nobody mounts here, in a mount namespace of its own, where everybody may open /dev/fuse or, as on some systems, only
root may. It goes with its last process, and the mounts in it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mount.kernel_mounts import needs_root

from support.mounting import INSTALLED, ROOT, environment_for

pytestmark = [
    needs_root,
    pytest.mark.skipif(not (shutil.which("fusermount3") and shutil.which("setpriv")), reason="fuse3 is not installed"),
]

NAMESPACE = """
    set -e
    python=$1 project=$2 mode=$3
    shift 3
    mount -t tmpfs -o mode=755 none /mnt
    mkdir /mnt/python /mnt/project /mnt/user /mnt/point
    mount --bind "$python" /mnt/python
    mount --bind "$project" /mnt/project
    if ! setpriv --reuid=65534 --regid=65534 --clear-groups ls "$python" "$project" > /dev/null 2>&1; then
        mount -t tmpfs -o mode=755 none "/$(echo "$python" | cut -d/ -f2)"
        mkdir -p "$python" "$project"
        mount --bind /mnt/python "$python"
        mount --bind /mnt/project "$project"
    fi
    mknod /mnt/fuse c 10 229
    chmod "$mode" /mnt/fuse
    mount --bind /mnt/fuse /dev/fuse
    chown 65534:65534 /mnt/user /mnt/point
    cd /mnt/user
    exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""
"""A place where nobody may run Python and octuefs, wherever these lie."""

WORK = """
import json, os, pathlib, subprocess, sys
octuefs, *options = sys.argv[1:]
source, point = pathlib.Path("/mnt/user/dataset"), pathlib.Path("/mnt/point")
(source / "sub").mkdir(parents=True)
data = bytes(range(256)) * 1000
(source / "a.bin").write_bytes(data)
done = subprocess.run([octuefs, "mount", "--driver", "kernel", *options, source, point], capture_output=True, text=True)
if done.returncode:
    print(json.dumps({"failure": done.stderr}))
    sys.exit()
try:
    seen = {"user": os.getuid()}
    assert (point / "a.bin").read_bytes() == data
    with (point / "a.bin").open("r+b", buffering=0) as file, (point / "a.bin").open("rb", buffering=0) as reader:
        file.write(b"written")
        assert reader.read(10) == b"written" + data[7:10]
        seen["open"] = json.loads((point / ".octuefs" / "status").read_bytes())["kernel"]
    (point / "new.bin").write_bytes(data)
    (point / "new.bin").rename(point / "sub" / "moved.bin")
    assert (source / "sub" / "moved.bin").read_bytes() == (point / "sub" / "moved.bin").read_bytes() == data
    os.setxattr(point / "a.bin", "user.octue.labels", b"mine")
    assert (point / "by-label" / "mine" / "a.bin").read_bytes() == b"written" + data[7:]
    assert os.getxattr(point / "sub" / "moved.bin", "user.octue.hash")
    assert (source / "a.bin").read_bytes() == b"written" + data[7:]
    (point / "a.bin").unlink()
    assert "a.bin" not in os.listdir(source)
    seen["kernel"] = json.loads((point / ".octuefs" / "status").read_bytes())["kernel"]
finally:
    ended = subprocess.run([octuefs, "unmount", point], capture_output=True, text=True)
seen["unmounted"] = [ended.returncode, os.path.ismount(point)]
print(json.dumps(seen))
"""


def as_nobody(mode: str, *options: str) -> dict[str, Any]:
    """Mount, work and unmount as nobody; return what was seen."""
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"), "/mnt/user")
    places = (sys.base_prefix, os.fspath(ROOT), mode)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", *places, sys.executable, "-c", WORK, INSTALLED, *options],
        env={**environment_for(), **home, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.parametrize("io_uring", ["off", "on"])
def test_an_ordinary_user_reads_and_writes_and_is_told_what_takes_root(io_uring: str) -> None:
    seen = as_nobody("666", "--io-uring", io_uring)
    assert seen["user"] != 0
    assert seen["open"]["files_passed_through"] == 0
    assert seen["open"]["passthrough"].startswith("no: ")
    assert "root" in seen["open"]["passthrough"]
    assert seen["open"]["read_ahead"] == "as the kernel has it"
    # Switched on by root before, it is for everybody; nobody can switch it on.
    switched_on = Path("/sys/module/fuse/parameters/enable_uring")
    if io_uring == "off" or not (switched_on.exists() and switched_on.read_text().strip() in ("Y", "1")):
        assert seen["kernel"]["io_uring"].startswith("no: ")
    assert seen["unmounted"] == [0, False]


def test_an_ordinary_user_who_may_not_open_the_device_is_told_the_remedy() -> None:
    failure = as_nobody("600")["failure"]
    assert "/dev/fuse may not be opened by this user" in failure
    assert "chmod 0666 /dev/fuse" in failure
    assert "Traceback" not in failure
