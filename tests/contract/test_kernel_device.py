"""/dev/fuse and io_uring as the native driver uses them, on the kernel that runs here.

Nothing here answers more than the kernel's first request, so no path in a mount may be touched. What an ordinary user
may do is tried by nobody, in a mount namespace of its own, with a /dev/fuse that everybody may open; it goes with its
last process, and the mounts in it.
"""

import contextlib
import errno
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octuefs.drivers.kernel import device as devices
from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.device import Device, MountOptions
from octuefs.drivers.kernel.negotiation import Feature, Session, agree, init_reply
from octuefs.drivers.kernel.ring import ENTRY_BYTES, FIXED_FILE, OP_READ, SQE, Ring, address_of
from octuefs.errors import OctuefsError
from octuefs.mounts import Mount, mounts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the native driver is for Linux")
root_only = pytest.mark.skipif(os.getuid() != 0, reason="mount(2) is for root")

PLAIN = MountOptions("/data", read_only=False, allow_other=False)
NAMES = [
    "a,suid",
    "a\\,suid",
    "with space",
    "tab\tand\nline",
    "back\\slash\\",
    "é",
    "raw\udcff",
    "#hash",
    "gs://b/c=d,e",
]


NONE = Feature(0)


def mount_at(point: str) -> Mount | None:
    """Return what is mounted at a place; the mount is asked nothing, as nobody would answer."""
    return next((it for it in mounts() if it.mount_point == point), None)


@pytest.fixture
def point(tmp_path: Path) -> Iterator[str]:
    """An empty folder; what is mounted on it is unmounted."""
    folder = tmp_path / "point"
    folder.mkdir()
    yield str(folder)
    while mount_at(str(folder)) is not None:
        subprocess.run(["umount", "-l", folder], check=True, timeout=10)


@contextlib.contextmanager
def mounted(point: str, options: MountOptions = PLAIN) -> Iterator[Device]:
    device = devices.mount(point, options)
    try:
        yield device
    finally:
        devices.unmount(point, privileged=device.privileged)
        device.close()


def line_of(point: str) -> tuple[Mount, list[str], str]:
    """What the system says of a mount: itself, the options of its file system, and its device number."""
    mount = mount_at(point)
    assert mount is not None
    (line,) = [line for line in Path("/proc/self/mountinfo").read_bytes().splitlines() if f" {point} ".encode() in line]
    fields = line.decode(errors="surrogateescape").split(" ")
    return mount, fields[-1].split(","), fields[2]


def begin(device: Device, wanted: Feature = NONE, stack_depth: int = 0) -> Session:
    """Answer the kernel's first request."""
    message = os.read(device.descriptor, devices.REQUEST_BYTES)
    unique = requests.HEADER.unpack_from(message)[2]
    session = agree(requests.init_request(message[requests.HEADER.size :]), wanted, stack_depth)
    send(device.descriptor, unique, init_reply(session))
    return session


def send(descriptor: int, unique: int, body: bytes) -> None:
    os.write(descriptor, replies.head(unique, body) + body)


# --- mounting by mount(2)


@root_only
@pytest.mark.parametrize(("read_only", "word"), [(False, "rw"), (True, "ro")])
@pytest.mark.parametrize("allow_other", [False, True])
def test_root_mounts_by_mount_2_and_safely(read_only: bool, word: str, allow_other: bool, point: str) -> None:
    with mounted(point, MountOptions("/data", read_only, allow_other)) as device:
        assert device.privileged
        assert not os.get_inheritable(device.descriptor)
        mount, options, _ = line_of(point)
        assert mount.is_ours
        assert (mount.file_system, mount.source) == ("fuse.octuefs", "/data")
        assert {word, "nosuid", "nodev"} <= set(mount.options.split(","))
        assert {"default_permissions", "user_id=0", "group_id=0"} <= set(options)
        assert ("allow_other" in options) is allow_other
    assert mount_at(point) is None


@root_only
@pytest.mark.parametrize("name", NAMES)
def test_a_source_is_shown_by_its_name_and_adds_no_option(name: str, point: str) -> None:
    with mounted(point, MountOptions(name, read_only=False, allow_other=False)):
        mount, options, _ = line_of(point)
        assert mount.source == name
        assert "nosuid" in mount.options.split(",")
        assert "suid" not in options + mount.options.split(",")


@root_only
def test_a_long_name_is_shown_as_far_as_it_goes(point: str) -> None:
    with mounted(point, MountOptions("x" * 5000, read_only=False, allow_other=False)):
        assert line_of(point)[0].source == "x" * 1000


@root_only
def test_where_nothing_can_be_mounted_the_place_is_named_and_nothing_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OctuefsError, match="nowhere"):
        devices.mount(str(tmp_path / "nowhere"), PLAIN)
    assert len(os.listdir("/proc/self/fd")) == before


@root_only
def test_what_is_in_use_is_unmounted_all_the_same(point: str) -> None:
    code = f"import os, time; os.open({point!r}, os.O_PATH); print('open', flush=True); time.sleep(60)"
    with mounted(point) as device:
        begin(device)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as user:
            assert user.stdout is not None
            assert user.stdout.readline() == b"open\n"
            devices.unmount(point, privileged=True)
            assert mount_at(point) is None
            user.kill()


def answer_attributes(descriptor: int, most: int) -> None:
    """Say that the root is an empty directory, at most so often."""
    attributes = struct.pack("=QII", 0, 0, 0) + struct.pack("=QQQqqqIIIIIIIIII", 1, *[0] * 8, 0o40755, 2, *[0] * 5)
    for _ in range(most):
        message = os.read(descriptor, devices.REQUEST_BYTES)
        _, opcode, unique, *_ = requests.HEADER.unpack_from(message)
        if opcode in (requests.FORGET, requests.BATCH_FORGET, requests.INTERRUPT):
            continue
        assert opcode == requests.GETATTR, opcode
        send(descriptor, unique, attributes)


@root_only
def test_after_the_end_nothing_can_be_read_any_more(point: str) -> None:
    with mounted(point) as device:
        begin(device)
        devices.unmount(point, privileged=True)
        with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
            os.read(device.descriptor, devices.REQUEST_BYTES)


@root_only
def test_the_mount_of_a_daemon_that_was_killed_gives_an_error_and_hangs_nobody(point: str) -> None:
    code = f"""
        import time
        from octuefs.drivers.kernel import device
        held = device.mount({point!r}, device.MountOptions("x", read_only=False, allow_other=False))
        print("mounted", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"mounted\n"
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(10)
    done = subprocess.run(["stat", point], capture_output=True, text=True, check=False, timeout=10)
    assert "not connected" in done.stderr
    devices.unmount(point, privileged=True)
    assert mount_at(point) is None


@root_only
def test_where_there_is_no_device_what_to_do_is_said(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DEVICE", "/dev/no-such-device")
    with pytest.raises(OctuefsError, match="sudo modprobe fuse"):
        devices.mount(point, PLAIN)


# --- the device


@root_only
def test_a_clone_brings_and_answers_requests_of_the_same_mount(point: str) -> None:
    with mounted(point) as device:
        begin(device)
        clone = device.clone()
        try:
            assert not os.get_inheritable(clone)
            asked = subprocess.Popen(["stat", "-c", "%F", point], stdout=subprocess.PIPE, text=True)
            answer_attributes(clone, 1)
            assert asked.communicate(timeout=10)[0] == "directory\n"
        finally:
            os.close(clone)


@root_only
def test_a_clone_of_nothing_fails_and_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as nothing, pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        Device(nothing.fileno(), privileged=True).clone()
    assert len(os.listdir("/proc/self/fd")) == before


@root_only
def test_files_to_be_passed_through_to_get_numbers(tmp_path: Path, point: str) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"x")
    with mounted(point) as device, contextlib.ExitStack() as stack:
        session = begin(device, Feature.PASSTHROUGH, 2)
        files = [stack.enter_context(path.open("rb")) for path in paths]
        if not session.has(Feature.PASSTHROUGH):
            with pytest.raises(OSError, match=f"{os.strerror(errno.EPERM)}|{os.strerror(errno.ENOTTY)}"):
                device.open_backing(files[0].fileno())
            return
        numbers = [device.open_backing(file.fileno()) for file in files]
        assert all(number > 0 for number in numbers)
        assert len(set(numbers)) == 2
        for number in numbers:
            device.close_backing(number)
        device.close_backing(numbers[0])  # no more than once, which is no failure of ours
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            device.open_backing(9999)


@root_only
def test_notifications_of_what_the_kernel_does_not_know_are_answered_with_enoent(point: str) -> None:
    with mounted(point) as device:
        session = begin(device)
        with pytest.raises(FileNotFoundError):
            device.notify(replies.INVAL_INODE, replies.forget_inode(4711))
        if session.knows_epochs:
            device.notify(replies.INC_EPOCH, b"")


@root_only
def test_the_kernel_takes_notifications_of_what_it_knows(point: str) -> None:
    with mounted(point) as device:
        begin(device)
        device.notify(replies.INVAL_INODE, replies.forget_inode(requests.ROOT_ID))
        device.notify(replies.INVAL_INODE, replies.forget_inode(requests.ROOT_ID, -1))


@root_only
def test_the_kernel_reads_as_far_ahead_as_it_is_told(point: str) -> None:
    with mounted(point):
        _, _, number = line_of(point)
        assert devices.raise_readahead(number, 1024)
        assert Path(f"/sys/class/bdi/{number}/read_ahead_kb").read_text() == "1024\n"
    assert not devices.raise_readahead("0:987654", 1024)


# --- mounting as an ordinary user

NAMESPACE = """
    set -e
    mount -t tmpfs none /mnt
    mknod /mnt/fuse c 10 229
    chmod 666 /mnt/fuse
    mount --bind /mnt/fuse /dev/fuse
    if [ -e /etc/fuse.conf ]; then mount --bind /dev/null /etc/fuse.conf; fi
    mkdir /mnt/point /mnt/bin
    chown -R 65534:65534 /mnt/point /mnt/bin
    exec "$@"
"""
"""A place where nobody may mount, in a mount namespace of its own."""

PROLOGUE = """
import errno, json, os, pathlib, signal, subprocess, sys, time
from octuefs.drivers.kernel import device as devices
from octuefs.drivers.kernel.device import MountOptions
from octuefs.errors import OctuefsError
from octuefs.mounts import mounts

POINT = sys.argv[1]
PLAIN = MountOptions("/data", read_only=False, allow_other=False)
if os.getuid() == 0:  # now that all is imported, which may lie where nobody may look
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)

def mount_at(point):
    return next((it for it in mounts() if it.mount_point == point), None)  # which asks the mount nothing

def tell(value):
    print(json.dumps(value))

def line():
    text = pathlib.Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return next((line.split(" ") for line in text.splitlines() if f" {POINT} " in line), None)

"""


def as_user(code: str, *arguments: str, folder: Path) -> Any:
    """Run code with the names above, as an ordinary user; return what it tells last."""
    program = [sys.executable, "-c", PROLOGUE + textwrap.dedent(code)]
    if os.getuid() == 0:
        command = ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", *program, "/mnt/point", *arguments]
    else:
        (folder / "user-point").mkdir()
        command = [*program, str(folder / "user-point"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_user_mounts_by_fusermount3_and_as_safely(tmp_path: Path) -> None:
    told = as_user(
        """
        device = devices.mount(POINT, MountOptions("/data", read_only=True, allow_other=False))
        mount, fields = mount_at(POINT), line()
        before = [mount.file_system, mount.source, mount.options.split(","), fields[-1].split(",")]
        inheritable = os.get_inheritable(device.descriptor)
        devices.unmount(POINT, privileged=False)
        tell([device.privileged, inheritable, before, mount_at(POINT) is None, os.getuid()])
        """,
        folder=tmp_path,
    )
    privileged, inheritable, (kind, source, options, of_file_system), gone, user = told
    assert (privileged, inheritable, kind, source, gone) == (False, False, "fuse.octuefs", "/data", True)
    assert {"ro", "nosuid", "nodev"} <= set(options)
    assert {"default_permissions", f"user_id={user}"} <= set(of_file_system)
    assert user != 0


def test_a_user_may_write_where_the_mount_is_no_read_only_one(tmp_path: Path) -> None:
    options = as_user(
        """
        device = devices.mount(POINT, PLAIN)
        tell(mount_at(POINT).options.split(","))
        devices.unmount(POINT, privileged=False)
        """,
        folder=tmp_path,
    )
    assert {"rw", "nosuid", "nodev"} <= set(options)


def test_the_source_of_a_users_mount_is_shown_by_its_name_and_adds_no_option(tmp_path: Path) -> None:
    told = as_user(
        """
        found = []
        for name in json.loads(sys.argv[2]):
            device = devices.mount(POINT, MountOptions(name, read_only=False, allow_other=False))
            found.append([mount_at(POINT).source, mount_at(POINT).options.split(","), line()[-1].split(",")])
            devices.unmount(POINT, privileged=False)
            device.close()
        tell([found, mount_at(POINT) is None])
        """,
        json.dumps([*NAMES, "x" * 5000, "," * 5000]),
        folder=tmp_path,
    )
    found, gone = told
    assert gone
    assert [source for source, _, _ in found] == [*NAMES, "x" * 1000, "," * 1000]
    for _, options, of_file_system in found:
        assert "nosuid" in options
        assert "suid" not in options + of_file_system


def failure_as_user(code: str, folder: Path) -> str:
    told = as_user(
        f"{code}\n"
        + textwrap.dedent("""
        started = time.monotonic()
        try:
            devices.mount(POINT, OPTIONS)
        except OctuefsError as error:
            assert time.monotonic() - started < 5
            assert mount_at(POINT) is None
            tell(str(error))
        """),
        folder=folder,
    )
    assert isinstance(told, str)
    return told


def test_a_user_without_fusermount3_is_told_what_to_install(tmp_path: Path) -> None:
    words = failure_as_user("OPTIONS = PLAIN; os.environ['PATH'] = '/nonexistent'", tmp_path)
    assert "fusermount3, which is not installed" in words
    assert "sudo apt-get install fuse3" in words


def test_what_fusermount3_says_reaches_the_user(tmp_path: Path) -> None:
    words = failure_as_user("OPTIONS = MountOptions('/data', read_only=False, allow_other=True)", tmp_path)
    assert words.startswith("fusermount3 could not mount on ")
    assert "'user_allow_other' is set in /etc/fuse.conf" in words


def test_a_fusermount3_that_hands_nothing_over_is_waited_for_no_longer_than_it_runs(tmp_path: Path) -> None:
    code = """
        folder = pathlib.Path(POINT).parent / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "fusermount3").write_text("#!/bin/sh\\n")
        (folder / "fusermount3").chmod(0o755)
        os.environ["PATH"] = f"{folder}:/usr/bin:/bin"
        OPTIONS = PLAIN
    """
    assert "gave no descriptor" in failure_as_user(textwrap.dedent(code), tmp_path)


def test_a_device_that_may_not_be_opened_is_named_with_the_remedy(tmp_path: Path) -> None:
    words = failure_as_user("OPTIONS = PLAIN; devices.DEVICE = '/etc/shadow'", tmp_path)
    assert words == "/etc/shadow may not be opened by this user: sudo chmod 0666 /etc/shadow"


def test_a_user_has_clones_but_no_passthrough_and_no_say_in_reading_ahead(tmp_path: Path) -> None:
    told = as_user(
        """
        device = devices.mount(POINT, PLAIN)
        os.close(device.clone())
        with open("/etc/passwd") as file:
            try:
                device.open_backing(file.fileno())
                number = 0
            except OSError as error:
                number = error.errno
        tell([errno.errorcode[number], devices.raise_readahead(line()[2], 1024)])
        devices.unmount(POINT, privileged=False)
        """,
        folder=tmp_path,
    )
    assert told[0] in ("EPERM", "ENOTTY")
    assert told[1] is False


def test_the_mount_of_a_users_daemon_that_was_killed_gives_an_error_and_hangs_nobody(tmp_path: Path) -> None:
    told = as_user(
        """
        if not (daemon := os.fork()):
            held = devices.mount(POINT, PLAIN)
            os.kill(os.getpid(), signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(daemon, 0)[1])
        done = subprocess.run(["stat", POINT], capture_output=True, text=True, timeout=10)
        devices.unmount(POINT, privileged=False)
        tell([ended, done.stderr, mount_at(POINT) is None])
        """,
        folder=tmp_path,
    )
    ended, words, gone = told
    assert (ended, gone) == (-signal.SIGKILL, True)
    assert "not connected" in words


# --- io_uring


def new_ring(entries: int, files: list[int]) -> Ring:
    try:
        return Ring(entries, files)
    except OSError as error:
        # Then the driver does without, and there is nothing else to be tried here.
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ENOMEM):
            raise
        pytest.skip(f"no io_uring here: {error.strerror}")


def submit_nothing(ring: Ring, place: int, mark: int) -> None:
    SQE.pack_into(ring.sqes, place * ENTRY_BYTES, 0, 0, 0, -1, 0, 0, 0, 0, mark, 0)  # a no-op
    ring.submit(place)


def test_what_is_submitted_is_completed_with_its_own_mark() -> None:
    ring = new_ring(4, [])
    try:
        for place, mark in enumerate((7, 1 << 63)):
            submit_nothing(ring, place, mark)
        assert sorted(ring.enter()) == [(7, 0), (1 << 63, 0)]
    finally:
        ring.close()


def test_places_are_used_again_and_again_in_any_order() -> None:
    ring = new_ring(4, [])
    try:
        for turn in range(20):
            places = random.sample(range(4), 3)
            for place in places:
                submit_nothing(ring, place, turn * 4 + place)
            assert ring.pending == 3
            found: list[int] = []
            while len(found) < 3:
                found += [mark for mark, result in ring.enter() if result == 0]
            assert sorted(found) == sorted(turn * 4 + place for place in places)
            assert ring.pending == 0
    finally:
        ring.close()


def test_what_stands_at_a_place_stays_there() -> None:
    ring = new_ring(4, [])
    try:
        submit_nothing(ring, 2, 5)
        assert ring.enter() == [(5, 0)]
        ring.submit(2)
        assert ring.enter() == [(5, 0)]
    finally:
        ring.close()


def test_a_read_waits_in_the_ring_until_another_thread_has_written() -> None:
    reading, writing = os.pipe()
    ring = new_ring(4, [reading])
    try:
        room = mmap.mmap(-1, 4096)
        where = address_of(room)
        SQE.pack_into(ring.sqes, 0, OP_READ, FIXED_FILE, 0, 0, 2**64 - 1, where, 5, 0, 3, 0)
        ring.submit(0)
        writer = threading.Timer(0.2, lambda: os.write(writing, b"hello"))
        writer.start()
        started = time.monotonic()
        assert ring.enter() == [(3, 5)]
        assert time.monotonic() - started > 0.1
        assert room[:5] == b"hello"
        writer.join()
    finally:
        ring.close()
        os.close(reading)
        os.close(writing)


def test_a_ring_that_cannot_be_made_fails_with_an_oserror_and_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for entries, files in ((0, []), (4, [9999])):
        with pytest.raises(OSError, match="io_uring"):
            Ring(entries, files)
    assert len(os.listdir("/proc/self/fd")) == before
