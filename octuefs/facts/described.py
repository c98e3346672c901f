"""Single objects of a bucket as text: the few that are noted one by one, and those of folders."""

import json
import stat

from octuefs.facts.pack import Bucket
from octuefs.stores.base import NO_PROPERTIES, Kind, ObjectInfo

_OWN_MODE = "goog-reserved-posix-mode"


def described(info: ObjectInfo) -> str:
    """Return what a bucket says of an object as text; not whom it belongs to, which each mount says for itself."""
    custom = info.custom_metadata or {}
    return json.dumps(
        [
            info.kind.value,
            info.size,
            info.mtime_ns,
            info.ctime_ns,
            stat.S_IMODE(info.mode) if _OWN_MODE in custom else None,
            info.version,
            info.crc32c,
            dict(custom),
            dict(info.properties),
        ]
    )


def describe_again(path: str, text: str, bucket: Bucket) -> ObjectInfo:
    """Return what `described` told of the object at a path.

    :raise ValueError: where it is no such text
    """
    try:
        kind_text, size, mtime_ns, ctime_ns, mode, version, crc32c, custom, properties = json.loads(text)
        kind = Kind(kind_text)
        own = bucket.ownership
        if mode is None:
            mode = own.dir_mode if kind is Kind.FOLDER else own.file_mode
        generation, metageneration, checksum = map(int, version)
        return ObjectInfo(
            path,
            kind,
            int(size),
            int(mtime_ns),
            int(ctime_ns),
            (stat.S_IFDIR if kind is Kind.FOLDER else stat.S_IFREG) | mode,
            own.uid,
            own.gid,
            bucket.inode_of(path),
            1,
            (generation, metageneration, checksum),
            crc32c,
            custom,
            properties=properties or NO_PROPERTIES,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: it is no object: {error}") from error
