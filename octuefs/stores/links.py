"""Where a symbolic link of a dataset leads, found without ever touching our own mount.

A daemon that looks at a path inside its own mount waits for itself. realpath(3) and stat(2) would do so for a
link that leads there, so the way is walked here one component at a time, and stops before the mount point.
"""

import errno
import os
import stat

_MOST_LINKS = 40
"""As many links as Linux follows in one path (path_resolution(7))."""


def real_path(path: str, avoid: str | None) -> tuple[str, os.stat_result]:
    """Return the absolute path without links that `path` (absolute) leads to, and what stands there.

    `avoid` is an absolute path without links, at which and below which nothing is touched.

    :raise OSError: ENOENT and the like where it leads nowhere, ELOOP for too many links, EDEADLK where it leads
        to `avoid`
    """
    pending = path.split("/")[::-1]
    current = "/"
    facts = os.lstat(current)
    links = 0
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if name == "..":
            current = os.path.dirname(current)
            facts = os.lstat(current)
            continue
        candidate = os.path.join(current, name)
        if avoid is not None and candidate == avoid:
            raise OSError(errno.EDEADLK, "it leads into this mount", candidate)
        if not stat.S_ISDIR(facts.st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), current)
        facts_there = os.lstat(candidate)
        if not stat.S_ISLNK(facts_there.st_mode):
            current, facts = candidate, facts_there
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(candidate)
        if target.startswith("/"):
            current = "/"
            facts = os.lstat(current)
        pending.extend(target.split("/")[::-1])
    return current, facts
