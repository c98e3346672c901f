"""What is to be done to records of a `.octue` file: as values, as JSON for the journal, and done to a document.

Also what of it a crash left in the journal, as far as it is still meant for what stands there.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from octuefs.errors import NotADirectory, NotFound, OctuefsError
from octuefs.model.changes import MetadataChange, first_record, merged_document
from octuefs.model.metadata import DatafileMetadata, OctueDocument, decode_octue, encode_octue
from octuefs.model.paths import Location, derived_id, join, name_of, parent_of
from octuefs.stores.writing import DiskStore
from octuefs.writing.journal import Journal
from octuefs.writing.sessions import DISPLACED

KIND = "pending"
"""The kind of the journal's entries."""
OTHERWISE = "otherwise"
"""In the journal: what counts where an announced rename was not made."""

_NO_CHANGE = MetadataChange()
_NAME = "record"


@dataclass(frozen=True, slots=True)
class PendingRecord:
    """What is to be done to one record: a change of what is stored, or another record in its place (None for none).

    `inode` is of the file that it is meant for, 0 where it is meant for no file being there: after a crash it counts
    only where that is so. `own_id` is what a first record gets for its ID, "" for the one that the location has.
    """

    change: MetadataChange = _NO_CHANGE
    inode: int = 0
    replaces: bool = False
    record: DatafileMetadata | None = None
    own_id: str = ""

    def then(self, change: MetadataChange, inode: int, own_id: str) -> "PendingRecord":
        """Return this with a later change; `own_id` is the ID of a file without a stored one.

        :raise NotPermitted: where the change cannot be made after this
        """
        if not self.replaces:
            return PendingRecord(self.change.then(change), inode, own_id=self.own_id or own_id)
        record = first_record(change.apply(self.record or DatafileMetadata()), own_id)
        return PendingRecord(_NO_CHANGE, inode, True, record)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON for the journal."""
        if not self.replaces:
            return {"change": self.change.to_json(), "inode": self.inode, "id": self.own_id}
        document = OctueDocument({_NAME: self.record} if self.record is not None else {})
        return {"document": encode_octue(document).decode("ascii"), "inode": self.inode}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "PendingRecord":
        """Return what `to_json` was asked for."""
        if "document" not in stored:
            return cls(MetadataChange.from_json(stored["change"]), stored["inode"], own_id=stored.get("id", ""))
        document, _ = decode_octue(stored["document"].encode("ascii"))
        return cls(_NO_CHANGE, stored["inode"], True, document.datafiles.get(_NAME))


def merged(
    document: OctueDocument, folder: str, pending: Mapping[str, PendingRecord], location: Location
) -> tuple[OctueDocument, dict[str, OctuefsError]]:
    """Return a folder's document with what is pending done to it, and by name what could not be done.

    `pending` is by basename; what stands under "" is of the dataset itself.
    """
    try:
        return _merged(document, folder, pending, location), {}
    except OctuefsError:
        pass  # one of them is impossible now, for what another stored meanwhile; the others are not
    impossible: dict[str, OctuefsError] = {}
    for name, item in pending.items():
        try:
            document = _merged(document, folder, {name: item}, location)
        except OctuefsError as error:
            impossible[name] = error
    return document, impossible


def _merged(
    document: OctueDocument, folder: str, pending: Mapping[str, PendingRecord], location: Location
) -> OctueDocument:
    replaced = {name: item.record for name, item in pending.items() if item.record is not None}
    changes = {name: item.change for name, item in pending.items() if item.change and name}
    dataset = pending.get("")
    return merged_document(
        replace(document, datafiles={**document.datafiles, **replaced}),
        changes,
        dataset.change if dataset is not None else None,
        ids={name: pending[name].own_id or derived_id(location.of(join(folder, name))) for name in changes},
        dataset_id=derived_id(str(location)),
        removed=[name for name, item in pending.items() if item.replaces and item.record is None],
    )


def is_malformed(document: OctueDocument, problems: list[str]) -> bool:
    """Say whether a text was no document at all, from what was read of it."""
    return bool(problems) and not (document.datafiles or document.unread or document.dataset is not None)


def place_of(path: str) -> tuple[str, str]:
    """Return the folder and basename of a path; the dataset's own record stands under ("", "")."""
    return parent_of(path), name_of(path)


# --- after a crash


def take_up(journal: Journal, store: DiskStore) -> tuple[dict[str, PendingRecord | None], list[str]]:
    """Return by path what the journal has and is meant for what stands there now, None for what is not.

    The other is the keys of what earlier mounts had displaced: it comes first, and goes with the rest.
    """
    displaced = {key: it for key, it in journal.items(DISPLACED).items() if it["kind"] == KIND}
    rows = [(it["key"], it["value"]) for it in displaced.values()] + list(journal.items(KIND).items())
    found: dict[str, PendingRecord | None] = {}
    for path, row in rows:
        stored: Mapping[str, Any] | None = row
        while stored is not None and not _is_meant(store, path, stored):
            stored = stored.get(OTHERWISE)
        if stored is None:
            found.setdefault(path, None)
            continue
        pending = PendingRecord.from_json(stored)
        earlier = found.get(path)
        if earlier is not None and not pending.replaces:
            with suppress(OctuefsError):
                own_id = pending.own_id or derived_id(store.location.of(path))
                pending = earlier.then(pending.change, pending.inode, own_id)
        found[path] = pending
    return found, list(displaced)


def _is_meant(store: DiskStore, path: str, row: Mapping[str, Any]) -> bool:
    if not path:
        return True
    try:
        inode = store.stat(path).inode
    except (NotFound, NotADirectory):
        inode = 0
    except OctuefsError:
        return True  # who knows
    return bool(inode == row["inode"])
