"""The proof that a dataset's bytes are what they should be.

A local file is read from its disk, whatever is remembered of it. An object in a bucket has a checksum that the server
proved when it was stored: `verify_bytes` reads it back and compares, `verify_hashes` takes the server's word for it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from octuefs.content.hashing import BLOCK_BYTES, HashCache, Version
from octuefs.content.pieces import copy_pieces
from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import BadValue, ChecksumMismatch, LocalFailure
from octuefs.model.hashes import decode_crc32c, encode_crc32c, extend_crc32c
from octuefs.model.paths import METADATA_NAME, SIGNED_METADATA_NAME, path_bytes
from octuefs.transfer.jobs import LARGE_BYTES, PIECES_AT_ONCE, Job, Outcome, Progress, run_jobs

_ESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}

Remembered = Callable[[Datafile], int | None]
"""Returns the hash that is remembered of a file's present version, None where none is."""


def remembered_in(cache: HashCache | None) -> Remembered:
    """Return what asks a cache of hashes."""

    def ask(datafile: Datafile) -> int | None:
        if cache is None or datafile.content is None:
            return None
        version = cast(Version, datafile.content.content_version)
        return cache.get([version]).get(version)

    return ask


def verify_bytes(dataset: Dataset, remembered: Remembered, outcome: Outcome, progress: Progress) -> int:
    """Read every byte, and compare with the checksum that the store, or this machine, has of each file.

    :return: how many local files had none, and could not be compared
    """
    unknown = 0

    def verify(datafile: Datafile) -> None:
        nonlocal unknown
        content = datafile.content
        expected = 0 if content is None else content.crc32c if datafile.in_cloud else remembered(datafile)
        crc32c = _crc32c_of(dataset, datafile, outcome, progress)
        if expected is None:
            with outcome.lock:
                unknown += 1
        elif crc32c != expected:
            where = "the bucket keeps" if datafile.in_cloud else "was remembered of this very version"
            raise ChecksumMismatch(
                f"its bytes have the hash {encode_crc32c(crc32c)}; {encode_crc32c(expected)} {where}"
            )
        outcome.count_moved(datafile.size)

    run_jobs([Job(it.path, it.size, partial(verify, it)) for it in _members(dataset)], outcome, progress)
    return unknown


def verify_hashes(
    dataset: Dataset,
    hashes: Mapping[str, int],
    outcome: Outcome,
    progress: Progress,
    *,
    matters: Callable[[str], bool] | None = None,
) -> None:
    """Compare every file's hash with those given by path; what is missing or too much is a failure.

    The bytes of local files are read; of an object the checksum that the bucket keeps is taken.

    :param matters: which paths count, where not all do
    """

    def verify(datafile: Datafile) -> None:
        expected = hashes[datafile.path]
        crc32c = hash_of(dataset, datafile, outcome, progress)
        if crc32c != expected:
            raise ChecksumMismatch(f"changed: its hash is {encode_crc32c(crc32c)}, not {encode_crc32c(expected)}")
        outcome.count_moved(datafile.size)

    members = _members(dataset)
    run_jobs([Job(it.path, it.size, partial(verify, it)) for it in members if it.path in hashes], outcome, progress)
    present = {it.path for it in members}
    for path in hashes.keys() ^ present:
        if path not in outcome.failures and (matters is None or matters(path)):
            outcome.fail(path, "missing" if path in hashes else "extra: there is no hash for it")


def hashes_of(dataset: Dataset, outcome: Outcome, progress: Progress) -> dict[str, int]:
    """Return the hash of every file of a dataset, as `verify_hashes` takes them."""
    found: dict[str, int] = {}

    def add(datafile: Datafile) -> None:
        found[datafile.path] = hash_of(dataset, datafile, outcome, progress)

    run_jobs([Job(it.path, it.size, partial(add, it)) for it in _members(dataset)], outcome, progress)
    return found


def hash_of(dataset: Dataset, datafile: Datafile, outcome: Outcome, progress: Progress) -> int:
    """Return a hash: of a local file's bytes, read now, or the one that the bucket keeps."""
    if datafile.in_cloud and datafile.content is not None and datafile.content.crc32c is not None:
        progress.skipped(datafile.size)
        return datafile.content.crc32c
    return _crc32c_of(dataset, datafile, outcome, progress)


def parse_hashes(text: bytes, subject: str) -> dict[str, int]:
    """Return the hashes by path that a text of the format of `.hashes` holds.

    :raise BadValue: where a line is none
    """
    found: dict[str, int] = {}
    for number, line in enumerate(text.decode("utf-8", "surrogateescape").split("\n"), 1):
        if not line:
            continue
        is_escaped = line.startswith("\\")
        hash_value, separator, path = line.removeprefix("\\").partition("  ")
        try:
            if not separator or not path:
                raise BadValue("a line is a hash, two spaces and a path")
            path = _unescaped(path) if is_escaped else path
            if path in found:
                raise BadValue(f"{path} has a line already")
            found[path] = decode_crc32c(hash_value)
        except BadValue as error:
            raise BadValue(f"{subject}, line {number}: {error}") from None
    return found


def _unescaped(path: str) -> str:
    parts = iter(path)
    text = ""
    for char in parts:
        if char == "\\":
            escaped = next(parts, "")
            if escaped not in _ESCAPED:
                raise BadValue(f"\\{escaped} is no escape")
            char = _ESCAPED[escaped]
        text += char
    return text


def is_datafile_everywhere(path: str) -> bool:
    """Say whether a path is one of a datafile in a bucket too, where DESIGN 2.3 has other names for metadata."""
    return not path.endswith(METADATA_NAME) and SIGNED_METADATA_NAME not in path


def _members(dataset: Dataset) -> list[Datafile]:
    return sorted(dataset.index.members("", ()), key=lambda datafile: path_bytes(datafile.path))


def _crc32c_of(dataset: Dataset, datafile: Datafile, outcome: Outcome, progress: Progress) -> int:
    """Read all bytes of a file, and return their checksum.

    :raise LocalFailure: where a local file changes meanwhile
    """
    content = datafile.content
    if content is None:
        return 0  # a link to nothing counts as no bytes
    source = dataset.store.open(datafile.info)
    try:
        if datafile.in_cloud:

            def arrived(_offset: int, data: bytes) -> None:
                outcome.check()
                progress.moved(len(data))

            return copy_pieces(source.read, arrived, content.size, PIECES_AT_ONCE if content.size > LARGE_BYTES else 1)
        crc32c = offset = 0
        while data := source.read(offset, BLOCK_BYTES):
            outcome.check()
            progress.moved(len(data))
            crc32c = extend_crc32c(crc32c, data)
            offset += len(data)
        if source.version() != content.version:
            raise LocalFailure(f"{datafile.path}: it changed while it was read; run the command again")
        return crc32c
    finally:
        source.close()
