"""What could not be stored of all datasets of a mount, as `.octuefs/recovered/` and `octuefs recover` show it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b

from octuefs.errors import NotFound
from octuefs.model.paths import NAME_MAX, path_bytes
from octuefs.mounted import MountedDataset
from octuefs.stores.base import ByteSource
from octuefs.writing.recovered import Recovered, RecoveredEntry


class Recoveries:
    """The entries of all datasets; of several datasets a name begins with its dataset's, and is never another's."""

    def __init__(self, mounted: Callable[[], Mapping[str, MountedDataset]]) -> None:
        """`mounted` gives the datasets in reach by their names in the mount."""
        self._mounted = mounted

    def _all(self) -> dict[str, tuple[RecoveredEntry, Recovered, str]]:
        """Return by name here: the entry, whose it is, and its name there."""
        found: dict[str, tuple[RecoveredEntry, Recovered, str]] = {}
        for dataset, mounted in self._mounted().items():
            if mounted.changes is None:
                continue
            for entry in mounted.changes.recovered.entries():
                name = _name(dataset, entry.name)
                path = f"{dataset}/{entry.path}" if dataset else entry.path
                found[name] = replace(entry, name=name, path=path), mounted.changes.recovered, entry.name
        return found

    def entries(self) -> list[RecoveredEntry]:
        """Return all that is kept, the oldest first."""
        return sorted((entry for entry, _, _ in self._all().values()), key=lambda it: it.when)

    def entry(self, name: str) -> RecoveredEntry:
        """Return the entry of a name.

        :raise NotFound: where there is none
        """
        return self._find(name)[0]

    def _find(self, name: str) -> tuple[RecoveredEntry, Recovered, str]:
        found = self._all().get(name)
        if found is None:
            raise NotFound(f"{name}: nothing of this name is kept under recovered/")
        return found

    def open(self, name: str) -> ByteSource:
        """Open an entry for reading."""
        _, recovered, its_name = self._find(name)
        return recovered.open(its_name)

    def restore(self, name: str) -> None:
        """Store an entry at its path; see `Recovered.restore`."""
        _, recovered, its_name = self._find(name)
        recovered.restore(its_name)

    def discard(self, name: str) -> None:
        """Let go of an entry for ever."""
        _, recovered, its_name = self._find(name)
        recovered.discard(its_name)


def _name(dataset: str, name: str) -> str:
    """Return the name of a dataset's entry among those of all; of one that is too long a digest stands in front."""
    whole = f"{dataset}:{name}" if dataset else name
    if len(path_bytes(whole)) <= NAME_MAX:
        return whole
    digest = blake2b(path_bytes(whole), digest_size=8).hexdigest()
    rest = path_bytes(name)[: NAME_MAX - len(digest) - 1].decode("utf-8", "surrogateescape")
    return f"{digest}:{rest}"
