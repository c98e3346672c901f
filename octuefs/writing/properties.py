"""What is stored along with an object's bytes, as the writers make it: Octue's metadata, mode and mtime.

Pure: mappings in, mappings out. The custom metadata of a file that is not stored yet is kept as the object is to have
it, foreign keys included.
"""

import mimetypes
import stat
from collections.abc import Mapping
from decimal import Decimal

from octuefs.errors import TooBig
from octuefs.model.changes import MetadataChange, difference, first_record, merge
from octuefs.model.metadata import DatafileMetadata, custom_metadata_patch, decode_custom_metadata

CONTENT_TYPE = "contentType"
MODE_KEY = "goog-reserved-posix-mode"
MTIME_KEY = "goog-reserved-file-mtime"

_LARGEST_CUSTOM_METADATA = 8 << 10
_NANOSECONDS = 1_000_000_000

Custom = Mapping[str, str]


def guessed_type(path: str) -> str:
    """Return the content type that a new object gets from its name, as the SDK gives it."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def metadata_in(custom: Custom) -> DatafileMetadata:
    """Return the metadata of a datafile that custom metadata hold."""
    return decode_custom_metadata(custom)[0] or DatafileMetadata()


def with_change(custom: Custom, change: MetadataChange, full_path: str, own_id: str) -> dict[str, str]:
    """Return custom metadata after a change; a first record gets `own_id`, and our version.

    Where nothing is left, not even an ID, all of Octue's goes.

    :raise TooBig: where it is more than an object can have
    """
    old = metadata_in(custom)
    new = change.apply(old)
    if new not in (old, DatafileMetadata()):
        new = first_record(new, own_id)
    return checked(patched(custom, custom_metadata_patch(custom, old, new)), full_path)


def is_to_be_stored(mode: int, shown: int, usual: int) -> bool:
    """Say whether the permission bits of something new are to be stored along.

    They are not where what has none stored shows them in this mount (`shown`), and in others (`usual`).
    """
    return not stat.S_IMODE(mode) == shown == usual


def with_attributes(custom: Custom, *, mode: int | None = None, mtime_ns: int | None = None) -> dict[str, str]:
    """Return custom metadata with permission bits and an mtime."""
    attributes = {}
    if mode is not None:
        attributes[MODE_KEY] = format(stat.S_IMODE(mode), "o")
    if mtime_ns is not None:
        attributes[MTIME_KEY] = _seconds(mtime_ns)
    return {**custom, **attributes}


def after_write(custom: Custom) -> Custom:
    """Return what is left once the content was written: the mtime that was set no longer counts, nor do setuid bits."""
    mode = custom.get(MODE_KEY)
    special = mode is not None and permissions(mode, 0) & (stat.S_ISUID | stat.S_ISGID)
    if not special and MTIME_KEY not in custom:
        return custom
    left = {key: value for key, value in custom.items() if key != MTIME_KEY}
    if mode is not None and special:
        left[MODE_KEY] = format(permissions(mode, 0) & ~(stat.S_ISUID | stat.S_ISGID), "o")
    return left


def merged(base: Custom, ours: Custom, theirs: Custom) -> dict[str, str]:
    """Return `theirs` with what `ours` changed in `base`: metadata field by field, mode and mtime as we have them.

    :raise Conflict: where both changed the same field
    """
    before, present = metadata_in(base), metadata_in(theirs)
    wanted = merge(before, difference(before, metadata_in(ours)), present)
    custom = patched(theirs, custom_metadata_patch(theirs, present, wanted))
    for key in (MODE_KEY, MTIME_KEY):
        if ours.get(key) != base.get(key):
            custom.pop(key, None)
            if key in ours:
                custom[key] = ours[key]
    return custom


def patch_between(present: Custom, wanted: Custom) -> dict[str, str | None]:
    """Return what makes `wanted` of the custom metadata that are there; None removes a key."""
    patch: dict[str, str | None] = {key: value for key, value in wanted.items() if present.get(key) != value}
    patch.update(dict.fromkeys(present.keys() - wanted.keys()))
    return patch


def patched(custom: Custom, patch: Mapping[str, str | None]) -> dict[str, str]:
    """Return custom metadata after a patch."""
    return {key: value for key, value in {**custom, **patch}.items() if value is not None}


def checked(custom: dict[str, str], subject: str) -> dict[str, str]:
    """Return custom metadata if an object can have so much.

    :raise TooBig: where it cannot
    """
    size = sum(len(text.encode("utf-8", "surrogateescape")) for item in custom.items() for text in item)
    if size > _LARGEST_CUSTOM_METADATA:
        raise TooBig(f"{subject}: {size} bytes of metadata; an object can have {_LARGEST_CUSTOM_METADATA}")
    return custom


def permissions(text: str | None, usual: int) -> int:
    """Return the permission bits that a stored mode stands for, `usual` where it is none."""
    try:
        return int(text, 8) & 0o7777 if text else usual
    except ValueError:
        return usual


def stored_mtime(custom: Custom) -> int | None:
    """Return the mtime (ns) that was set and is stored along, None where none is."""
    text = custom.get(MTIME_KEY)
    try:
        return int(Decimal(text) * _NANOSECONDS) if text else None
    except (ArithmeticError, ValueError):
        return None


def _seconds(nanoseconds: int) -> str:
    """Return a time as gsutil and rclone store it: seconds, with a fraction where there is one."""
    sign, whole = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    seconds, fraction = divmod(whole, _NANOSECONDS)
    return f"{sign}{seconds}" + (f".{fraction:09d}".rstrip("0") if fraction else "")
