"""Octue's hashes: CRC32C in base64, of bytes and of the texts that stand for sets of things (DESIGN 2.4).

Pure functions. A checksum of content is carried as an `int` while it grows and becomes text at the edge.
"""

import base64
import binascii
from collections.abc import Iterable
from functools import cache, lru_cache

import google_crc32c

from octuefs.errors import BadValue

EMPTY_HASH = "AAAAAA=="
"""The hash of no bytes."""

_CRC_BYTES = 4


def encode_crc32c(value: int) -> str:
    """Return a checksum as Octue and GCS write it: base64 of its 4 big-endian bytes."""
    return base64.b64encode(value.to_bytes(_CRC_BYTES, "big")).decode("ascii")


def decode_crc32c(text: str) -> int:
    """Return the checksum that a text of `encode_crc32c` stands for.

    :raise BadValue: for every other text, one with stray bits in its last digit included
    """
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) == _CRC_BYTES:
        value = int.from_bytes(digest, "big")
        if encode_crc32c(value) == text:
            return value
    raise BadValue(f"{text!r} is no CRC32C in base64")


def extend_crc32c(crc: int, data: bytes | bytearray | memoryview) -> int:
    """Return the checksum of some bytes followed by `data`, given that of the bytes before (0 for none)."""
    # google_crc32c takes nothing but read-only bytes; `bytes` of bytes is no copy.
    extended: int = google_crc32c.extend(crc, bytes(data))
    return extended


def combine_crc32c(first: int, second: int, second_length: int) -> int:
    """Return the checksum of some bytes followed by others, given that of each and the number of the latter.

    What follows multiplies a checksum, a polynomial over GF(2), by x for each of its bits.
    """
    return _multiply(_power_of_x_to_bytes(second_length), first) ^ second


_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, the lowest power of x in the highest bit, x^32 left out."""
_ONE = 1 << 31
_X = 1 << 30


def _multiply(a: int, b: int) -> int:
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@cache
def _power_of_x(exponent: int) -> int:
    """Return x to the power of 2^`exponent`."""
    if exponent == 0:
        return _X
    root = _power_of_x(exponent - 1)
    return _multiply(root, root)


@lru_cache(64)
def _power_of_x_to_bytes(length: int) -> int:
    """Return x to the power of the bits in `length` bytes."""
    power, exponent = _ONE, 3
    while length:
        if length & 1:
            power = _multiply(_power_of_x(exponent), power)
        length >>= 1
        exponent += 1
    return power


def hash_of_text(text: str) -> str:
    """Return the hash of a text's UTF-8 bytes."""
    return encode_crc32c(google_crc32c.value(text.encode("utf-8", "surrogatepass")))


def hash_of_set(hashes: Iterable[str]) -> str:
    """Return the hash of a set of datafiles, given the hash of each (two equal ones count twice)."""
    return hash_of_text(str(sorted(hashes)))


def hash_of_manifest(datasets: Iterable[tuple[str, str]]) -> str:
    """Return the hash of a manifest, given the (name, hash) of each dataset."""
    return hash_of_text(str(sorted(datasets)))


def url_safe(hash_value: str) -> str:
    """Return a hash as the name of a folder: in the URL-safe alphabet."""
    return hash_value.replace("+", "-").replace("/", "_")


def from_url_safe(text: str) -> str:
    """Return the hash that a folder's name stands for; the plain alphabet is read as well.

    :raise BadValue: where the text is no hash
    """
    hash_value = text.replace("-", "+").replace("_", "/")
    decode_crc32c(hash_value)
    return hash_value
