"""Which names of a local dataset lead to the same bytes: symbolic links by the file they lead to, and hard links.

The keeper enters what it classifies; who changes a file asks which other names are to be looked at. What is found may
have ceased to be so: it is looked at, not believed.
"""

import threading

from octuefs.stores.base import ObjectInfo


class OtherNames:
    """Symbolic and hard links to datafiles. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below, for memory work alone
        self._targets: dict[str, str | None] = {}
        """Where each symbolic link leads, None where it is broken."""
        self._links: dict[str, set[str]] = {}
        """The symbolic links that lead to a path."""
        self._hard: dict[int, set[str]] = {}
        """The names by inode of files that have several."""

    def add_link(self, path: str, target: str | None) -> None:
        """Note that a symbolic link leads to a file, or that it is broken (None)."""
        with self._lock:
            self._discard(path)
            self._targets[path] = target
            if target is not None:
                self._links.setdefault(target, set()).add(path)

    def add_hard_link(self, path: str, inode: int) -> None:
        """Note that a file, which has several names, stands at a path."""
        with self._lock:
            self._hard.setdefault(inode, set()).add(path)

    def discard_link(self, path: str) -> None:
        """Forget a symbolic link."""
        with self._lock:
            self._discard(path)

    def _discard(self, path: str) -> None:
        target = self._targets.pop(path, None)
        if target is not None:
            links = self._links[target]
            links.discard(path)
            if not links:
                del self._links[target]

    def is_link(self, path: str) -> bool:
        """Say whether a symbolic link is known at a path."""
        return path in self._targets

    def links(self) -> list[str]:
        """Return the symbolic links, sorted."""
        if not self._targets:
            return []
        with self._lock:
            return sorted(self._targets)

    @property
    def has_broken(self) -> bool:
        """True where a symbolic link leads to nothing, and may lead to what is made next."""
        if not self._targets:
            return False
        with self._lock:
            return None in self._targets.values()

    def of(self, info: ObjectInfo) -> list[str]:
        """Return the other names of a file."""
        if not (self._targets or self._hard):
            return []
        with self._lock:
            found = set(self._links.get(info.path, ()))
            if info.inode in self._hard:
                found |= self._hard[info.inode]
                if info.links < 2:  # the last that is left
                    del self._hard[info.inode]
        found.discard(info.path)
        return sorted(found)

    def leading_below(self, folder: str) -> list[str]:
        """Return the symbolic links that lead to something in or below a folder."""
        if not self._targets:
            return []
        with self._lock:
            found = [links for target, links in self._links.items() if target.startswith(f"{folder}/")]
            return sorted(set().union(*found))
