"""CRC32C as Octue writes it."""

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octuefs.errors import BadValue
from octuefs.model.hashes import (
    EMPTY_HASH,
    combine_crc32c,
    decode_crc32c,
    encode_crc32c,
    extend_crc32c,
    from_url_safe,
    hash_of_manifest,
    hash_of_set,
    hash_of_text,
    url_safe,
)

checksums = st.integers(0, 2**32 - 1)


def test_no_bytes_have_the_empty_hash() -> None:
    assert encode_crc32c(extend_crc32c(0, b"")) == EMPTY_HASH == hash_of_text("")


def test_the_check_value_of_crc32c_is_that_of_its_definition() -> None:
    assert encode_crc32c(extend_crc32c(0, b"123456789")) == encode_crc32c(0xE3069283)


@given(checksums)
def test_a_checksum_survives_its_text(value: int) -> None:
    assert decode_crc32c(encode_crc32c(value)) == value


@given(checksums)
def test_a_hash_survives_as_a_folder_name(value: int) -> None:
    name = url_safe(encode_crc32c(value))
    assert "/" not in name
    assert "+" not in name
    assert from_url_safe(name) == encode_crc32c(value)


def test_a_plus_in_a_folder_name_is_read_too() -> None:
    assert from_url_safe("+_AAAA==") == from_url_safe("-_AAAA==") == "+/AAAA=="


@pytest.mark.parametrize(
    "text", ["", "AAAAAA", "AAAAAA=", "AAAAAB==", "AAAA", "AAAAAAA=", "AAA AA==", "äAAAAA==", "by-id"]
)
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        decode_crc32c(text)
    with pytest.raises(BadValue):
        from_url_safe(text)


@given(st.binary(), st.binary())
def test_a_checksum_grows_with_its_bytes_whatever_holds_them(first: bytes, second: bytes) -> None:
    whole = google_crc32c.value(first + second)
    for kind in (bytes, bytearray, memoryview):
        assert extend_crc32c(extend_crc32c(0, kind(first)), kind(second)) == whole


@given(st.binary(), st.binary(max_size=5000))
def test_checksums_combine_as_their_bytes_do(first: bytes, second: bytes) -> None:
    combined = combine_crc32c(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert combined == google_crc32c.value(first + second)


@given(checksums, checksums, checksums, st.integers(0, 1 << 43), st.integers(0, 1 << 43))
def test_combining_is_associative_over_lengths_of_terabytes(a: int, b: int, c: int, m: int, n: int) -> None:
    left = combine_crc32c(combine_crc32c(a, b, m), c, n)
    assert left == combine_crc32c(a, combine_crc32c(b, c, n), m + n)


def test_combining_over_a_gigabyte_is_right() -> None:
    block = bytes(1 << 20)
    zeros = 0
    for _ in range(1 << 10):
        zeros = google_crc32c.extend(zeros, block)
    value = google_crc32c.value(b"x")
    whole = value
    for _ in range(1 << 10):
        whole = google_crc32c.extend(whole, block)
    assert combine_crc32c(value, zeros, 1 << 30) == whole


def test_an_empty_set_and_an_empty_manifest_hash_the_text_of_an_empty_list() -> None:
    assert hash_of_set([]) == hash_of_manifest([]) == hash_of_text("[]")


def test_a_set_hashes_the_sorted_list_of_its_hashes_with_repeats() -> None:
    assert hash_of_set(iter(["b", "a", "a"])) == hash_of_text("['a', 'a', 'b']")


def test_a_manifest_hashes_its_sorted_pairs() -> None:
    assert hash_of_manifest([("ü'", "x"), ("a", "y")]) == hash_of_text("[('a', 'y'), (\"ü'\", 'x')]")


def test_any_text_has_a_hash() -> None:
    assert hash_of_text("\udcff")
