"""Where octuefs keeps what is its own, by user: cache, logs, the control sockets and what waits to be stored.

All private (0700), whatever the umask.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import platformdirs

from octuefs.errors import OctuefsError

_APPLICATION = "octuefs"
_LONGEST_SOCKET_PATH = 103
"""In bytes: 104 with its final zero on macOS, 108 on Linux."""


def _private(base: str, variable: str, *names: str) -> Path:
    """Return a private folder below a user folder that `variable` sets, made where it is not there.

    :raise OctuefsError: where it cannot be
    """
    path = Path(base, *names)
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)  # not `parents`, which the umask makes
        for folder in (Path(base), path):
            os.chmod(folder, 0o700)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OctuefsError(f"{path} cannot be used: {reason}; make it yours, or set {variable} elsewhere") from error
    return path


def _state(*names: str) -> Path:
    return _private(_user_folder(platformdirs.user_state_dir), "XDG_STATE_HOME", *names)


def _user_folder(find: Callable[[str], str]) -> str:
    try:
        return find(_APPLICATION)
    except RuntimeError:  # pathlib's, of `~`
        raise OctuefsError("this user has no home folder; set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME") from None


def _temporary() -> Path:
    """Return a folder of this user's own where everybody may write.

    :raise OctuefsError: where what stands there may be somebody else's
    """
    folder = Path(tempfile.gettempdir()) / f"{_APPLICATION}-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise OctuefsError(f"{folder} cannot be used: {os.strerror(error.errno or 0)}") from error
    if found.st_uid != os.getuid() or found.st_mode != stat.S_IFDIR | 0o700:
        raise OctuefsError(f"{folder} is not a private folder of yours (mode 0700); remove it, or set TMPDIR elsewhere")
    return folder


def _slug(mount_point: str) -> str:
    real = os.path.join(os.path.realpath(os.path.dirname(mount_point)), os.path.basename(mount_point))
    if os.path.islink(real):  # otherwise nothing touches the mount itself, which may be a dead one
        real = os.path.realpath(real)
    return blake2b(os.fsencode(real), digest_size=8).hexdigest()


def user_cache() -> str:
    """Return the user's cache folder; nothing is made there.

    :raise OctuefsError: where this user has none
    """
    return _user_folder(platformdirs.user_cache_dir)


def block_cache(folder: str | None) -> Path:
    """Return the folder where blocks of cloud objects are kept: a given one, else one in the user's cache folder.

    :raise OctuefsError: where it cannot be used
    """
    if folder is None:
        return _private(user_cache(), "XDG_CACHE_HOME", "blocks")
    path = Path(folder)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as error:
        raise OctuefsError(f"--cache-dir {folder}: {os.strerror(error.errno or 0)}; give a folder of yours") from error
    return path


def hash_cache() -> Path:
    """Return the file that remembers hashes of local files."""
    return _private(user_cache(), "XDG_CACHE_HOME") / "hashes.sqlite"


def facts_file(source_key: str) -> Path:
    """Return the file that remembers what is in a bucket; the key is `writing.sessions.describe_source`'s, and more."""
    name = blake2b(source_key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return _private(_user_folder(platformdirs.user_cache_dir), "XDG_CACHE_HOME", "facts") / f"{name}.sqlite"


def writing_folder(source_key: str) -> Path:
    """Return the folder of a source's journals and staged files; the key is `writing.sessions.describe_source`'s."""
    return _state("writing", blake2b(source_key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest())


def log_file(mount_point: str) -> Path:
    """Return the log of the mounts at a mount point."""
    readable = "".join(char if char.isalnum() else "-" for char in os.path.basename(mount_point))[:40]
    return _state("log") / f"{readable}-{_slug(mount_point)}.log"


def control_socket(mount_point: str) -> Path:
    """Return the socket on which the daemon of a mount point listens; its path is short enough for one.

    Not in XDG_RUNTIME_DIR, which a login has and a cron job has not.

    :raise OctuefsError: where there is no place for it
    """
    path = _state("run") / f"{_slug(mount_point)}.sock"
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        path = _temporary() / path.name
    return path
