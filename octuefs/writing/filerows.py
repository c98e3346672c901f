"""What the journal says of a cloud file that is not stored: the rows of kind "file", one for each staged content.

A row's state is `open` (being written), `closed` (to be stored), `stored` (only its metadata are still to be) or
`failed` (kept under `recovered/`). The staged bytes lie beside the journal under the row's key; small ones that must be
durable stand in the row too, which takes one commit where files take two more waits for the disk.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octuefs.model.changes import MetadataChange, difference
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import ObjectProperties
from octuefs.writing.cloud_facts import generation_of
from octuefs.writing.contents import Content
from octuefs.writing.properties import metadata_in

FILE = "file"
"""The kind of these rows."""

Row = Mapping[str, Any]

Sum = tuple[int, int]
"""Size and CRC32C of a content."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Content that could not be stored: where it was meant for, since when (seconds), why, and how long it is.

    Of what was appended to an object only the new bytes are kept: those from `first` on.
    """

    id: str
    path: str
    when: float
    reason: str
    size: int
    first: int = 0


def row_of(
    path: str,
    base: ObjectInfo | None,
    properties: ObjectProperties,
    content: Content | None,
    state: str,
    *,
    reason: str = "",
    sent: Sequence[Sum] = (),
) -> dict[str, Any]:
    """Return a row; `content` is None for what is stored but for its metadata.

    :param sent: contents that may have been stored in the place of `base` meanwhile
    """
    row: dict[str, Any] = {
        "path": path,
        "state": state,
        "number": content.number if content is not None else 0,
        "when": content.when if content is not None else time.time(),
        "custom": dict(properties.custom_metadata),
        "fixed": dict(properties.fixed),
        "base": _json_of(base),
        "base_generation": generation_of(base) if base is not None else 0,
    }
    if content is not None:
        row["size"] = content.size
        if state == "closed":
            row["crc32c"] = content.crc32c()
            if content.in_journal:
                row["data"] = base64.b64encode(content.staged.read(0, content.size)).decode()
        if content.first:
            row["appended_to"], row["crc32c_before"] = content.first, content.crc32c_before
        if content.session is not None:
            row["session"], row["offset"] = content.session, content.sent
    if sent:
        row["sent"] = [list(it) for it in sent]
    if reason:
        row["reason"] = reason
    return row


def recovered_entry(id: str, row: Row, size: int) -> Recovered:
    """Return what is told of a row of state `failed`; `size` is that of the file."""
    first = int(row.get("appended_to", 0))
    reason = str(row.get("reason", "it could not be stored"))
    if first:
        reason += f" (these are the bytes that were appended at {first})"
    return Recovered(id, str(row["path"]), float(row["when"]), reason, max(size - first, 0), first)


def small_data(row: Row) -> bytes | None:
    """Return the bytes of a content that the row itself holds, None where it does not."""
    text = row.get("data")
    return base64.b64decode(text) if text is not None else None


def base_of(row: Row) -> ObjectInfo | None:
    """Return the object that a content was made from, as the row has it."""
    stored = row["base"]
    if stored is None:
        return None
    fields = {**stored, "kind": Kind.FILE, "path": row["path"], "version": tuple(stored["version"])}
    return ObjectInfo(links=1, **fields)


def changed_in(row: Row) -> MetadataChange:
    """Return what was changed in the metadata of a content's object, but for what belongs to that very object."""
    base = (row.get("base") or {}).get("custom_metadata", {})
    change = difference(metadata_in(base), metadata_in(row.get("custom", {})))
    return replace(change, fields={key: value for key, value in change.fields.items() if key not in _IDENTITY})


_IDENTITY = ("id", "sdk_version")
_BASE_FIELDS = ("size", "mtime_ns", "ctime_ns", "mode", "uid", "gid", "inode", "crc32c")


def _json_of(base: ObjectInfo | None) -> dict[str, Any] | None:
    if base is None:
        return None
    version = base.version
    stored: dict[str, Any] = {name: getattr(base, name) for name in _BASE_FIELDS}
    stored["version"] = list(version) if isinstance(version, tuple) else []
    stored["custom_metadata"] = dict(base.custom_metadata or {})
    stored["properties"] = dict(base.properties)
    return stored
