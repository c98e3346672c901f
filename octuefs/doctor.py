"""What octuefs needs on a machine, and whether it is there, in words with the remedy."""

import os
import platform
import shutil
from dataclasses import dataclass

from octuefs.config import DRIVER_VARIABLE, Driver, takes_kernel_driver
from octuefs.errors import OctuefsError
from octuefs.mounts import mounts


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is good, whether mounting needs it, and a line of text."""

    good: bool
    needed: bool
    text: str


def examine() -> list[Finding]:
    """Look at everything."""
    return [_device(), *_driver(), _library(), _fusermount(), *_dead_mounts(), _credentials()]


def _device() -> Finding:
    if platform.system() != "Linux":
        return Finding(True, False, "FUSE: provided by macFUSE on this system")
    if not os.path.exists("/dev/fuse"):
        return Finding(False, True, "/dev/fuse is not there; load the module with: sudo modprobe fuse")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return Finding(False, True, "/dev/fuse may not be opened by this user; ask for mode 0666 on it")
    return Finding(True, True, "/dev/fuse is there")


def _driver() -> list[Finding]:
    """Say which driver a mount takes, and what makes it faster here."""
    if not _is_native():
        return [Finding(True, False, "mounts take the driver libfuse")]
    from octuefs.drivers.kernel.abilities import find_abilities

    found = find_abilities()
    findings = [Finding(True, False, "mounts take our own driver for Linux (--driver auto)")]
    if found.passthrough:
        findings.append(Finding(False, False, f"files are not passed through, which is slower: {found.passthrough}"))
    else:
        findings.append(Finding(True, False, "files are passed through: the kernel reads what is on a disk by itself"))
    if found.io_uring:
        findings.append(Finding(False, False, f"requests do not come over io_uring, which is slower: {found.io_uring}"))
    else:
        findings.append(Finding(True, False, "requests come over io_uring"))
    return findings


def _is_native() -> bool:
    return takes_kernel_driver(os.environ.get(DRIVER_VARIABLE) or Driver.AUTO)


def _library() -> Finding:
    needed = not _is_native()
    try:
        from octuefs.drivers.binding import library_version

        text = f"libfuse {library_version()} was found"
        return Finding(True, needed, text if needed else f"{text}, for --driver libfuse")
    except OctuefsError as error:
        return Finding(False, needed, str(error) if needed else f"{error}; only --driver libfuse needs it")


def _fusermount() -> Finding:
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    if tool:
        return Finding(True, True, f"{tool} mounts for users and unmounts")
    return Finding(
        False, os.getuid() != 0, "fusermount3 is not there; on Debian and Ubuntu: sudo apt-get install fuse3"
    )


def _dead_mounts() -> list[Finding]:
    findings = []
    for mount in mounts():
        if mount.is_ours:
            try:
                os.statvfs(mount.mount_point)
            except OSError:
                text = f"{mount.mount_point} holds a dead mount; free it with: fusermount3 -uz {mount.mount_point}"
                findings.append(Finding(False, False, text))
    return findings


def _credentials() -> Finding:
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        return Finding(True, False, f"Google Cloud Storage: the emulator at {emulator} is used, without credentials")
    import google.auth
    import google.auth.exceptions

    # Without a probe of the metadata server, which takes long where there is none.
    os.environ.setdefault("NO_GCE_CHECK", "true")
    try:
        credentials, project = google.auth.default()
    except (google.auth.exceptions.GoogleAuthError, OSError, ValueError, AttributeError):
        if file := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            text = f"Google credentials: GOOGLE_APPLICATION_CREDENTIALS names {file}, which cannot be used"
            return Finding(False, False, f"{text}; correct or unset it")
        return Finding(
            False,
            False,
            "Google credentials: none found (local datasets do not need any; on Google's machines they come by"
            " themselves); gcloud auth application-default login, or --anonymous for public buckets",
        )
    kind = type(credentials).__module__.rpartition(".")[2]
    return Finding(True, False, f"Google credentials were found ({kind}, project {project or 'unknown'})")
