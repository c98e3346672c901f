"""The device /dev/fuse: a mount is made with it, requests come out of it and answers go into it.

`mount` uses mount(2) where this process may, else the fusermount3 program, which hands the descriptor over a socket.
The mounted path itself is never touched here, as that would be a question to ourselves.
"""

import array
import ctypes
import errno
import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from octuefs.drivers.kernel import replies
from octuefs.drivers.kernel.negotiation import IO_BYTES
from octuefs.errors import OctuefsError, from_os_error

DEVICE = "/dev/fuse"
REQUEST_BYTES = IO_BYTES + 4096
"""Room for the longest request: a write, and what stands before its bytes."""

_TYPE = b"fuse.octuefs"
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_DETACH = 2
_NAME_BYTES = 1000
"""How much of its source's name a mount shows: fusermount3 does not unmount what has a longer line than a page."""
_UMOUNT_NOFOLLOW = 8
_FUSE_DEVICE = os.makedev(10, 229)
"""As Documentation/admin-guide/devices.txt has it."""

_IOC_CLONE = 0x8004E500
_IOC_BACKING_OPEN = 0x4010E501
_IOC_BACKING_CLOSE = 0x4004E502
_BACKING_MAP = struct.Struct("=iIQ")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a mount is made; nosuid, nodev and default_permissions always hold."""

    source_name: str
    read_only: bool
    allow_other: bool

    @property
    def shown_name(self) -> bytes:
        """The name as far as it is shown."""
        return self.source_name.encode("utf-8", "surrogateescape")[:_NAME_BYTES]


class Device:
    """One open descriptor of a connection; clones serve the same connection."""

    def __init__(self, descriptor: int, *, privileged: bool) -> None:
        """`privileged` says whether mount(2) made the mount: only then may files be passed through to."""
        self.descriptor = descriptor
        self.privileged = privileged

    def clone(self) -> int:
        """Return another descriptor of the connection; what is read from one is answered by it."""
        clone = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(clone, _IOC_CLONE, array.array("I", [self.descriptor]))
        except BaseException:
            os.close(clone)
            raise
        return clone

    def open_backing(self, descriptor: int) -> int:
        """Return the number under which the kernel passes reads and writes through to an open file.

        :raise OSError: EPERM without CAP_SYS_ADMIN; ENOTTY before Linux 6.9; EOPNOTSUPP, ELOOP for some file systems
        """
        # Of bytes that may not be written ioctl() would return a copy, and not the number.
        number: int = fcntl.ioctl(self.descriptor, _IOC_BACKING_OPEN, bytearray(_BACKING_MAP.pack(descriptor, 0, 0)))
        return number

    def close_backing(self, number: int) -> None:
        """End that; opens that use it go on."""
        with suppress(OSError):  # the connection has ended
            fcntl.ioctl(self.descriptor, _IOC_BACKING_CLOSE, array.array("I", [number]))

    def notify(self, code: int, body: bytes) -> None:
        """Tell the kernel that something has changed.

        :raise OSError: ENOENT where it knows nothing of what is named, which is as good
        """
        os.writev(self.descriptor, (replies.HEADER.pack(replies.HEADER.size + len(body), code, 0), body))

    def close(self) -> None:
        """Give the descriptor back."""
        with suppress(OSError):
            os.close(self.descriptor)


# --- mounting


def mount(mount_point: str, options: MountOptions) -> Device:
    """Mount, and return the device that the mount's requests come from.

    :param mount_point: without symbolic links in it, which `unmount` does not follow
    :raise OctuefsError: where neither mount(2) nor fusermount3 can do it, naming what to install
    """
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _no_device(error) from error
    try:
        if _mount_directly(mount_point, options, descriptor):
            return Device(descriptor, privileged=True)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return Device(_mount_by_helper(mount_point, options), privileged=False)


def _no_device(error: OSError) -> OctuefsError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return OctuefsError(
            f"there is no {DEVICE}: load the module (sudo modprobe fuse), or give the container --device {DEVICE}"
        )
    if error.errno == errno.EACCES:
        return OctuefsError(f"{DEVICE} may not be opened by this user: sudo chmod 0666 {DEVICE}")
    return from_os_error(error, DEVICE)


def _mount_directly(mount_point: str, options: MountOptions, descriptor: int) -> bool:
    """Mount by mount(2); False where this process may not."""
    data = [
        f"fd={descriptor}",
        f"rootmode={0o40000:o}",
        f"user_id={os.getuid()}",
        f"group_id={os.getgid()}",
        "default_permissions",
        *(["allow_other"] if options.allow_other else []),
    ]
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if options.read_only else 0)
    if _libc.mount(options.shown_name, os.fsencode(mount_point), _TYPE, flags, ",".join(data).encode()) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EPERM:
        return False
    if number == errno.EINVAL and not _is_fuse(descriptor):
        raise OctuefsError(f"could not mount on {mount_point}: {DEVICE} is no FUSE device; see `octuefs doctor`")
    raise from_os_error(OSError(number, os.strerror(number)), f"could not mount on {mount_point}")


def _is_fuse(descriptor: int) -> bool:
    facts = os.fstat(descriptor)
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == _FUSE_DEVICE


def _mount_by_helper(mount_point: str, options: MountOptions) -> int:
    """Mount by fusermount3 (or fusermount), which may, and return the descriptor that it opened."""
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if helper is None:
        raise OctuefsError(
            "to mount without being root takes fusermount3, which is not installed; on Debian and Ubuntu: "
            "sudo apt-get install fuse3"
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        result = subprocess.run(
            [helper, "-o", b",".join(_helper_options(options)), "--", mount_point],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if result.returncode != 0:
            words = result.stderr.decode(errors="replace").strip()
            raise OctuefsError(f"{os.path.basename(helper)} could not mount on {mount_point}: {words}")
        theirs.close()  # so that nothing is waited for where nothing was sent
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise OctuefsError(f"{os.path.basename(helper)} gave no descriptor of the mount on {mount_point}")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def _helper_options(options: MountOptions) -> Sequence[bytes]:
    # Backslashes first, or a name such as `a\,suid` would add an option of its own.
    name = options.shown_name.replace(b"\\", b"\\\\").replace(b",", b"\\,")
    return [
        b"fsname=" + name,
        b"subtype=octuefs",
        b"nosuid",
        b"nodev",
        b"default_permissions",
        *([b"allow_other"] if options.allow_other else []),
        *([b"ro"] if options.read_only else []),
    ]


def unmount(mount_point: str, *, privileged: bool) -> None:
    """Take the mount away from its place at once; programs that use it go on until they let go."""
    if privileged:
        _libc.umount2(os.fsencode(mount_point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        return
    if helper := shutil.which("fusermount3") or shutil.which("fusermount"):
        subprocess.run([helper, "-u", "-z", "-q", "--", mount_point], capture_output=True, check=False)


def raise_readahead(device_number: str, kibibytes: int) -> bool:
    """Let the kernel read so far ahead in this mount; say whether it may be set.

    :param device_number: `major:minor` of the mount, as /proc/self/mountinfo has it
    """
    try:
        Path(f"/sys/class/bdi/{device_number}/read_ahead_kb").write_text(f"{kibibytes}\n")
    except OSError:
        return False
    return True
