"""The files of one folder of a bucket, packed: columns of bytes, some 100 to 200 for each object with all its facts.

Datafiles come first, each part sorted by name. What is wanted of an object is unpacked when it is asked for.
"""

import stat
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from octuefs.facts.templates import (
    ID,
    NO_TEXTS,
    OWN_KEYS,
    TIMESTAMP,
    TIMESTAMP_BEGIN,
    TIMESTAMP_END,
    Template,
    Templates,
    Texts,
    plain_id_or_none,
    plain_timestamp_value,
)
from octuefs.model.metadata import DatafileMetadata
from octuefs.model.paths import Location, join
from octuefs.stores.base import Kind, ObjectInfo, Ownership

_RECORD = struct.Struct("=qqqqqIIIII")
"""Size, generation, mtime and ctime (ns), inode, metageneration, checksum of the metadata, crc32c, template, flags."""
_PLACE = struct.Struct("=32xq16xI")
"""Of these the inode and the flags."""
_SIZE_WORD, _CRC_WORD, _TEMPLATE_WORD, _WORDS = 0, 12, 13, 15
"""Where these stand, counted in words of 4 bytes, and how many words there are."""
_END, _ENDS = struct.Struct("=I"), struct.Struct("=II")
"""Where the texts of one object end, and of two neighbours."""
_HEAD = struct.Struct("=IIIII")
"""How many objects, how many of them datafiles, how many bytes of names, and of texts; whether names are ordinary."""

_HAS_CRC, _HAS_MODE = 1, 2
_HAS_OWN = (4, 8, 16)
"""Flags: which of OWN_KEYS an object has."""
_HAS_ANY_OWN = 28
_SHORT_ID, _SHORT_TIMESTAMP = 32, 64
"""Flags: the ID stands as its 16 bytes, before all others, and the timestamp without what all have around it."""
_ID_BYTES = 16
_MODE_SHIFT = 16

Version = tuple[int, int, int]


class Bucket(NamedTuple):
    """What the objects of one dataset have in common besides their templates."""

    location: Location
    ownership: Ownership
    inode_of: Callable[[str], int]
    """The inode number of a path."""
    templates: Templates


Packed = bytes
"""One object: its record, and its own texts."""


def is_ordinary(name: str) -> bool:
    """Say whether a name has an extension and is not hidden: most files' have, and none that is of our making."""
    return name.find(".", 1) > 0 and name[0] != "."


def is_packable(info: ObjectInfo) -> bool:
    """Say whether an object is described as a bucket's: with its generation."""
    version = info.version
    return (
        isinstance(version, tuple)
        and len(version) == 3
        and all(isinstance(it, int) for it in version)
        and info.origin is None
        and bool(version[0])
    )


def pack(info: ObjectInfo, templates: Templates) -> Packed:
    """Pack what a bucket says of an object."""
    custom = info.custom_metadata or {}
    flags, own = 0, b""
    if custom:
        custom, flags, own = _split(custom, info.mode)
    if info.crc32c is not None:
        flags |= _HAS_CRC
    version = info.version
    assert isinstance(version, tuple)
    record = _RECORD.pack(
        info.size,
        version[0],
        info.mtime_ns,
        info.ctime_ns,
        info.inode,
        version[1] & 0xFFFFFFFF,
        version[2],
        info.crc32c or 0,
        templates.number(custom, info.properties),
        flags,
    )
    return record + own


def _split(custom: Mapping[str, str], mode: int) -> tuple[Mapping[str, str], int, bytes]:
    """Return what custom metadata have in common with others', the flags of what is an object's own, and that."""
    flags, own, common = 0, [], dict(custom)
    short_id = b""
    for key, flag in zip(OWN_KEYS, _HAS_OWN, strict=True):
        text = common.get(key)
        if text is None or "\0" in text:
            continue
        flags |= flag
        del common[key]
        if key == ID and (plain := plain_id_or_none(text)) is not None:
            flags |= _SHORT_ID
            short_id = bytes.fromhex(plain.replace("-", ""))
            continue
        if key == TIMESTAMP and (value := plain_timestamp_value(text)) is not None:
            flags |= _SHORT_TIMESTAMP
            text = value
        own.append(text)
    if "goog-reserved-posix-mode" in common:
        flags |= _HAS_MODE | stat.S_IMODE(mode) << _MODE_SHIFT
    return common, flags, short_id + "\0".join(own).encode("utf-8", "surrogatepass")


class Pack:
    """The packed files of the folder at `folder`. Never changed."""

    __slots__ = (
        "_ends",
        "_records",
        "_texts",
        "bucket",
        "count",
        "datafiles",
        "first_row",
        "folder",
        "has_ordinary_names",
        "names_text",
    )

    def __init__(
        self,
        bucket: Bucket,
        folder: str,
        datafiles: int,
        names: bytes,
        records: bytes,
        ends: bytes,
        texts: bytes,
        *,
        has_ordinary_names: bool,
    ) -> None:
        """The columns are those of a `Draft`; the first `datafiles` objects are datafiles."""
        self.has_ordinary_names = has_ordinary_names
        """True where all names are such, see `is_ordinary`."""
        self.bucket = bucket
        self.folder = folder
        self.datafiles = datafiles
        self.names_text = names
        self.count = len(records) // _RECORD.size
        self.first_row = 0
        """The row of the first datafile in the index that the pack belongs to."""
        self._records = records
        self._ends = ends
        self._texts = texts

    def to_bytes(self) -> bytes:
        """Return all of it but for the folder."""
        sizes = len(self.names_text), len(self._texts)
        head = _HEAD.pack(self.count, self.datafiles, *sizes, self.has_ordinary_names)
        return b"".join((head, self.names_text, self._records, self._ends, self._texts))

    @classmethod
    def of_bytes(cls, bucket: Bucket, folder: str, data: bytes) -> "Pack":
        """Return what `to_bytes` told of.

        :raise ValueError: where it is no such thing
        """
        try:
            count, datafiles, names, texts, ordinary = _HEAD.unpack_from(data)
        except struct.error as error:
            raise ValueError("it is no pack") from error
        begin = _HEAD.size
        records = begin + names
        ends = records + count * _RECORD.size
        rest = ends + count * _END.size
        if len(data) != rest + texts or datafiles > count:
            raise ValueError("it is no whole pack")
        return cls(
            bucket,
            folder,
            datafiles,
            data[begin:records],
            data[records:ends],
            data[ends:rest],
            data[rest:],
            has_ordinary_names=bool(ordinary),
        )

    def names(self) -> list[str]:
        """Return the names of all objects in order."""
        return self.names_text.decode("utf-8", "surrogatepass").split("\0") if self.count else []

    def named(self) -> Iterator[tuple[int, str]]:
        """Yield the place and the name of each object in order."""
        return enumerate(self.names())

    def versions(self) -> Iterator[Version]:
        """Yield the version of each object in order."""
        for _, generation, _, _, _, metageneration, checksum, _, _, _ in _RECORD.iter_unpack(self._records):
            yield generation, metageneration, checksum

    def checksums(self) -> "array[int]":
        """Return the CRC32C of each datafile in order, 0 where it is not told."""
        return self._column(_CRC_WORD)

    def template_numbers(self) -> "array[int]":
        """Return the number of each datafile's template in order."""
        return self._column(_TEMPLATE_WORD)

    def _column(self, word: int) -> "array[int]":
        words = array("I")
        words.frombytes(self._records[: self.datafiles * _RECORD.size])
        return words[word::_WORDS]

    def ids(self) -> Iterator[str]:
        """Yield the IDs that are stored with datafiles."""
        for at in range(self.datafiles):
            template, flags = self._template(at)
            if flags & _SHORT_ID and template.is_plain:
                yield _id_text(self._own(at))
                continue
            metadata = self.metadata(at)
            stored_id = metadata.id if metadata is not None else None
            if stored_id is not None:
                yield stored_id

    def sizes(self) -> Sequence[int]:
        """Return the size of each datafile in order."""
        first, second = self._column(_SIZE_WORD), self._column(_SIZE_WORD + 1)
        low, high = (first, second) if sys.byteorder == "little" else (second, first)
        return [it + (more << 32) for it, more in zip(low, high, strict=True)] if any(high) else low

    # --- of the object at a place in the order

    def size(self, at: int) -> int:
        """Return the size in bytes."""
        size: int = _RECORD.unpack_from(self._records, at * _RECORD.size)[0]
        return size

    def crc32c(self, at: int) -> int | None:
        """Return the CRC32C, None where the bucket does not tell it."""
        record = _RECORD.unpack_from(self._records, at * _RECORD.size)
        return record[7] if record[9] & _HAS_CRC else None

    def texts(self, at: int, flags: int | None = None) -> Texts:
        """Return the values of OWN_KEYS; `flags` are those of the object, where they are at hand."""
        if flags is None:
            flags = _RECORD.unpack_from(self._records, at * _RECORD.size)[9]
        if not flags & _HAS_ANY_OWN:
            return NO_TEXTS
        data = self._own(at)
        id_text = None
        if flags & _SHORT_ID:
            id_text, data = f'"{_id_text(data)}"', data[_ID_BYTES:]
        found = iter(data.decode("utf-8", "surrogatepass").split("\0"))
        if id_text is None and flags & _HAS_OWN[0]:
            id_text = next(found)
        timestamp = None
        if flags & _SHORT_TIMESTAMP:
            timestamp = f"{TIMESTAMP_BEGIN}{next(found)}{TIMESTAMP_END}"
        elif flags & _HAS_OWN[1]:
            timestamp = next(found)
        return id_text, timestamp, next(found) if flags & _HAS_OWN[2] else None

    def _own(self, at: int) -> bytes:
        """Return what an object has for itself, as it is packed."""
        if at:
            begin, end = _ENDS.unpack_from(self._ends, (at - 1) * _END.size)
        else:
            begin, end = 0, _END.unpack_from(self._ends)[0]
        return self._texts[begin:end]

    def metadata(self, at: int) -> DatafileMetadata | None:
        """Return the metadata of a datafile, None where there are none of Octue's."""
        return self.decoded(at)[0]

    def decoded(self, at: int) -> tuple[DatafileMetadata | None, list[str]]:
        """Return the metadata of a datafile, None where there are none of Octue's, and what is wrong with them."""
        template, flags = self._template(at)
        return template.metadata(self.texts(at, flags))

    def timestamp(self, at: int) -> datetime | None:
        """Return the timestamp of a datafile."""
        template, flags = self._template(at)
        if flags & _SHORT_TIMESTAMP and flags & (_SHORT_ID | _HAS_OWN[0]) != _HAS_OWN[0] and template.is_plain:
            data = self._own(at)[_ID_BYTES if flags & _SHORT_ID else 0 :]
            return datetime.fromisoformat(data.partition(b"\0")[0].decode())
        return template.timestamp(self.texts(at, flags))

    def common(self, at: int) -> DatafileMetadata | None:
        """Return metadata of a datafile that have its labels and tags, if not its ID and timestamp."""
        template, _ = self._template(at)
        return template.decoded[0] if template.is_plain else self.metadata(at)

    def _template(self, at: int) -> tuple[Template, int]:
        record = _RECORD.unpack_from(self._records, at * _RECORD.size)
        return self.bucket.templates.all[record[8]], record[9]

    def info(self, at: int, name: str) -> ObjectInfo:
        """Describe an object, whose name is `name`, as the store does."""
        size, generation, mtime_ns, ctime_ns, inode, metageneration, checksum, crc32c, template, flags = (
            _RECORD.unpack_from(self._records, at * _RECORD.size)
        )
        bucket = self.bucket
        common = bucket.templates.all[template]
        return ObjectInfo(
            join(self.folder, name),
            Kind.FILE,
            size,
            mtime_ns,
            ctime_ns,
            stat.S_IFREG | (flags >> _MODE_SHIFT if flags & _HAS_MODE else bucket.ownership.file_mode),
            bucket.ownership.uid,
            bucket.ownership.gid,
            inode,
            1,
            (generation, metageneration, checksum),
            crc32c if flags & _HAS_CRC else None,
            CustomMetadata(self, at, common) if flags & _HAS_ANY_OWN else common.custom,
            0,
            None,
            common.properties,
        )

    def place(self, at: int) -> tuple[int, int]:
        """Return the inode and the mode of an object."""
        inode, flags = _PLACE.unpack_from(self._records, at * _RECORD.size)
        return inode, stat.S_IFREG | (flags >> _MODE_SHIFT if flags & _HAS_MODE else self.bucket.ownership.file_mode)


def _id_text(data: bytes) -> str:
    """Return the ID that begins packed texts."""
    text = data[:_ID_BYTES].hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class CustomMetadata(Mapping[str, str]):
    """The custom metadata of one object, put together when they are looked into, as they seldom are."""

    __slots__ = ("_at", "_found", "_pack", "_template")

    def __init__(self, pack: Pack, at: int, template: Template) -> None:
        self._pack = pack
        self._at = at
        self._template = template
        self._found: Mapping[str, str] | None = None

    def _all(self) -> Mapping[str, str]:
        if self._found is None:
            self._found = self._template.custom_metadata(self._pack.texts(self._at))
        return self._found

    def __getitem__(self, key: str) -> str:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


class Draft:
    """A pack in the making."""

    __slots__ = ("_names", "_packed", "others")

    def __init__(self) -> None:
        self._names: list[str] = []
        self._packed: list[Packed] = []
        self.others: dict[str, Packed] = {}
        """What is no datafile, by name."""

    def add(self, name: str, packed: Packed) -> None:
        """Take in a datafile."""
        self._names.append(name)
        self._packed.append(packed)

    def take(self, names: Mapping[str, object]) -> dict[str, Packed]:
        """Take out the datafiles of these names, and return them."""
        if not any(name in names for name in self._names):
            return {}
        found = {name: packed for name, packed in zip(self._names, self._packed, strict=True) if name in names}
        kept = [it for it in zip(self._names, self._packed, strict=True) if it[0] not in names]
        self._names, self._packed = [name for name, _ in kept], [packed for _, packed in kept]
        return found

    def finish(self, bucket: Bucket, folder: str) -> Pack:
        """Return the pack."""
        datafiles = dict(zip(self._names, self._packed, strict=True))  # what came twice counts as it came last
        names = sorted(datafiles)
        objects = [datafiles[name] for name in names]
        others = sorted(self.others)
        objects += [self.others[name] for name in others]
        ends, end = array("I"), 0
        for packed in objects:
            end += len(packed) - _RECORD.size
            ends.append(end)
        return Pack(
            bucket,
            folder,
            len(names),
            "\0".join([*names, *others]).encode("utf-8", "surrogatepass"),
            b"".join([packed[: _RECORD.size] for packed in objects]),
            ends.tobytes(),
            b"".join([packed[_RECORD.size :] for packed in objects]),
            has_ordinary_names=all(map(is_ordinary, names)) and not others,
        )


def one_pack(bucket: Bucket, folder: str, objects: Mapping[str, Packed]) -> Pack:
    """Return the pack of some objects by name, all of them datafiles."""
    draft = Draft()
    for name, packed in objects.items():
        draft.add(name, packed)
    return draft.finish(bucket, folder)
