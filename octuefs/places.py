"""Where octuefs keeps what is its own, by user: cache, logs and the control sockets. All private (0700)."""

import os
from hashlib import blake2b
from pathlib import Path

import platformdirs

_APPLICATION = "octuefs"


def _private(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path, 0o700)
    return path


def _slug(mount_point: str) -> str:
    real = os.path.join(os.path.realpath(os.path.dirname(mount_point)), os.path.basename(mount_point))
    if os.path.islink(real):  # otherwise nothing touches the mount itself, which may be a dead one
        real = os.path.realpath(real)
    return blake2b(os.fsencode(real), digest_size=8).hexdigest()


def hash_cache() -> Path:
    """Return the file that remembers hashes of local files."""
    return _private(Path(platformdirs.user_cache_dir(_APPLICATION))) / "hashes.sqlite"


def log_file(mount_point: str) -> Path:
    """Return the log of the mounts at a mount point."""
    folder = _private(Path(platformdirs.user_state_dir(_APPLICATION))) / "log"
    readable = "".join(char if char.isalnum() else "-" for char in os.path.basename(mount_point))[:40]
    return _private(folder) / f"{readable}-{_slug(mount_point)}.log"


def control_socket(mount_point: str) -> Path:
    """Return the socket on which the daemon of a mount point listens; its path is short enough for one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / _APPLICATION if runtime else Path(platformdirs.user_state_dir(_APPLICATION)) / "run"
    return _private(folder) / f"{_slug(mount_point)}.sock"
