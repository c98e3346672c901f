"""What may go wrong on the way from a bucket to who reads: connections that break, servers that refuse, odd objects."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.fetched import (
    KIB,
    MIB,
    content,
    fetch_of,
    fetched_bytes,
    fetches,
    is_content,
    traffic,
    wait_for_rest,
)

from support.gcs import Bucket
from support.mounting import mounted
from support.strict_gcs import StrictGcs

LARGE = content(1, 32 * MIB)
SMALL = content(2, 3 * KIB)


@pytest.fixture
def large(bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path) -> Iterator[Path]:
    """A mount with `large.bin`, of which nothing was read."""
    bucket.put("d/large.bin", LARGE)
    options = ("--cache-dir", tmp_path / "cache")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as mount_point:
        strict_gcs.forget_requests()
        yield mount_point


def test_after_a_connection_breaks_off_the_rest_is_asked_for_and_no_more(large: Path, strict_gcs: StrictGcs) -> None:
    cut = strict_gcs.cut_answer(lambda it: is_content(it) and fetch_of(it).size > 300 * KIB, 200 * KIB, times=6)
    assert (large / "large.bin").read_bytes() == LARGE
    assert cut.hits == 6
    wait_for_rest(large)
    # Of each that broke off, the rest is asked for, beginning where it broke.
    assert len(LARGE) < fetched_bytes(strict_gcs) <= len(LARGE) + 6 * 8 * MIB
    by_end: dict[int, list[int]] = {}
    for fetch in fetches(strict_gcs):
        by_end.setdefault(fetch.end, []).append(fetch.start)
    again = [starts for starts in by_end.values() if len(starts) > 1]
    assert sum(len(starts) - 1 for starts in again) == 6
    assert all(starts == sorted(set(starts)) for starts in again)


def test_an_overloaded_bucket_is_asked_less_and_read_all_the_same(large: Path, strict_gcs: StrictGcs) -> None:
    rules = [strict_gcs.fail(status, is_content) for status in (503, 429)]
    assert (large / "large.bin").read_bytes() == LARGE
    assert [rule.hits for rule in rules] == [1, 1]
    figures = traffic(large)
    assert figures["overloads"] == 2
    assert figures["places"] < figures["most_places"]
    assert figures["requests"]["read"]["retried"] == 2
    wait_for_rest(large)
    assert fetched_bytes(strict_gcs) - sum(it.size for it in fetches(strict_gcs, refused=True)) == len(LARGE)


def test_a_bucket_that_refuses_is_an_error_in_words_and_read_again_later(large: Path, strict_gcs: StrictGcs) -> None:
    rule = strict_gcs.fail(403, is_content, times=None)
    with pytest.raises(PermissionError):
        (large / "large.bin").read_bytes()
    rule.remove()
    assert (large / "large.bin").read_bytes() == LARGE


def test_packed_objects_are_read_as_they_are_stored(bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path) -> None:
    packed = {size: gzip.compress(content(size, size)) for size in (10 * KIB, 3 * MIB)}
    for size, data in packed.items():
        bucket.put(f"d/{size}.txt", data, content_type="text/plain", content_encoding="gzip")
    with mounted(f"{bucket.url}/d", "--cache-dir", tmp_path / "cache", environment=strict_gcs.environment) as root:
        for size, data in packed.items():
            assert (root / f"{size}.txt").stat().st_size == len(data)
            assert (root / f"{size}.txt").read_bytes() == data
    asked = [request for request in strict_gcs.requests if is_content(request)]
    assert asked
    assert {request.headers["Accept-Encoding"] for request in asked} == {"gzip"}


@pytest.mark.parametrize("size", [10 * KIB, 3 * MIB])
def test_an_object_under_a_customers_key_is_listed_and_refused_with_the_reason(
    size: int, bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path
) -> None:
    bucket.put("d/plain.bin", SMALL)
    bucket.put("d/secret.bin", content(5, size))
    strict_gcs.encrypt(bucket.name, "d/secret.bin")
    with mounted(f"{bucket.url}/d", "--cache-dir", tmp_path / "cache", environment=strict_gcs.environment) as root:
        assert (root / "secret.bin").stat().st_size == size
        with pytest.raises(PermissionError):
            (root / "secret.bin").read_bytes()
        assert re.search(r"secret\.bin.*customer", (root / ".octuefs" / "errors").read_text())
        assert (root / "plain.bin").read_bytes() == SMALL
