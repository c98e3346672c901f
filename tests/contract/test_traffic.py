"""Requests to a bucket, and to what is shared by links, keep to the limits of a mount and are counted."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import google_crc32c
import pytest

from octuefs.errors import Overloaded
from octuefs.model.paths import CloudLocation
from octuefs.stores import gcs_listing, gcs_pieces, gcs_requests, gcs_uploads
from octuefs.stores.base import ObjectInfo
from octuefs.stores.gcs import GcsStore
from octuefs.stores.rates import BURST_SECONDS
from octuefs.stores.signed_http import SignedLinks
from octuefs.stores.traffic import Traffic
from octuefs.stores.writing import ObjectProperties, Precondition
from support.gcs import Bucket
from support.strict_gcs import StrictGcs

KIB, MIB = 1 << 10, 1 << 20
PATIENCE = 20.0


class Clock:
    """Time that goes on only when somebody sleeps, in whatever way."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


class Asyncio:
    """The module, with another `sleep`."""

    def __init__(self, clock: Clock) -> None:
        async def sleep(seconds: float) -> None:
            clock.sleep(seconds)

        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gcs_pieces, "asyncio", Asyncio(clock))
    return clock


Opened = Callable[[Traffic], GcsStore]


@pytest.fixture
def opened(strict_bucket: Bucket) -> Iterator[Opened]:
    """Gives a store of `d/` whose requests are those of a `Traffic`."""
    with ExitStack() as stack:

        def open_store(traffic: Traffic) -> GcsStore:
            location = CloudLocation(strict_bucket.name, "d")
            store = GcsStore(location, endpoint=strict_bucket.environment["STORAGE_EMULATOR_HOST"], traffic=traffic)
            stack.callback(store.close)
            return store

        yield open_store


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_requests, "pause", lambda number: 0)


def upload(store: GcsStore, path: str, data: bytes) -> ObjectInfo:
    return store.upload(
        path,
        lambda offset, size: data[offset : offset + size],
        len(data),
        google_crc32c.value(data),
        ObjectProperties(),
        Precondition(),
    )


def send_in_a_session(store: GcsStore, path: str, data: bytes) -> ObjectInfo:
    session = store.begin_upload(path, ObjectProperties(), Precondition(0))
    state = store.send(path, session, lambda offset, size: data[offset : offset + size], 0, len(data), total=len(data))
    assert state.done is not None
    return state.done


def counted(traffic: Traffic) -> dict[str, int]:
    return {kind: it["count"] for kind, it in traffic.figures()["requests"].items() if it["count"]}


# --- figures


def test_each_request_is_counted_by_its_kind(opened: Opened, strict_bucket: Bucket, strict_gcs: StrictGcs) -> None:
    for number in range(3):
        strict_bucket.put(f"d/{number}", b"12345")
    traffic = Traffic()
    store = opened(traffic)
    strict_gcs.forget_requests()
    infos = [info for info in store.scan() if isinstance(info, ObjectInfo)]
    assert counted(traffic) == {"list": 1}
    store.stat("1")
    assert store.open(infos[0]).read(0, 5) == b"12345"
    upload(store, "new", b"new")
    store.patch("new", {"a": "b"}, Precondition())
    store.delete("new", Precondition())
    by_kind = counted(traffic)
    assert (by_kind["list"], by_kind["read"], by_kind["upload"]) == (1, 1, 1)
    assert sum(counted(traffic).values()) == len(strict_gcs.requests)
    figures = traffic.figures()
    assert (figures["in_flight"], figures["waiting"]) == (0, 0)
    assert figures["received_bytes"] > 5
    assert 3 < figures["sent_bytes"] < 2000


def test_a_listing_that_is_left_early_gives_its_place_back(
    opened: Opened, strict_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_listing, "PAGE_SIZE", 1)
    for number in range(4):
        strict_bucket.put(f"d/{number}", b"")
    traffic = Traffic(most_requests=2)
    store = opened(traffic)
    for _ in range(5):
        listing = iter(store.scan())
        next(listing)
        listing.close()  # type: ignore[attr-defined]
    assert len(list(store.scan())) == 4
    assert traffic.figures()["in_flight"] == 0
    assert traffic.figures()["requests"]["list"]["failed"] == 0


def test_what_is_behind_links_is_counted_too(strict_bucket: Bucket) -> None:
    strict_bucket.put("f", b"12345")
    traffic = Traffic()
    links = SignedLinks(traffic=traffic)
    url = f"{strict_bucket.environment['STORAGE_EMULATOR_HOST']}/{strict_bucket.name}/f"
    try:
        info = links.describe(url, "f")
        assert links.open(url, info).read(1, 3) == b"234"
    finally:
        links.close()
    assert counted(traffic) == {"read": 1, "stat": 1}
    assert traffic.figures()["received_bytes"] == 3


# --- places


def test_requests_beyond_the_places_wait_in_the_threads_that_ask(
    opened: Opened, strict_bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    strict_bucket.put("d/f", b"1")
    traffic = Traffic(most_requests=2)
    store = opened(traffic)
    store.stat("f")
    held = [strict_gcs.hold(lambda request: request.kind == "get") for _ in range(2)]
    with ThreadPoolExecutor(5) as threads:
        asked = [threads.submit(store.stat, "f") for _ in range(5)]
        for one in held:
            assert one.arrived.wait(PATIENCE)
        while traffic.figures()["waiting"] < 3:
            threading.Event().wait(0.005)
        assert traffic.figures()["in_flight"] == 2
        assert strict_gcs.count(kind="get") == 3  # with the first one
        for one in held:
            one.release()
        for one in asked:
            one.result(PATIENCE)
    assert traffic.figures()["in_flight"] == 0


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("status", [429, 503])
def test_what_a_store_refuses_for_overload_is_asked_again_and_less_at_once(
    opened: Opened, strict_bucket: Bucket, strict_gcs: StrictGcs, clock: Clock, status: int
) -> None:
    strict_bucket.put("d/f", b"1")
    traffic = Traffic(clock=clock, sleep=clock.sleep)
    store = opened(traffic)
    strict_gcs.fail(status, lambda request: request.kind == "list", times=2)
    strict_gcs.fail(status, lambda request: request.kind == "upload", times=1)
    assert len(list(store.scan())) == 1
    assert traffic.figures()["places"] == 32
    upload(store, "g", b"2")
    figures = traffic.figures()
    assert (figures["requests"]["list"]["retried"], figures["requests"]["upload"]["retried"]) == (2, 1)
    assert sum(it["failed"] for it in figures["requests"].values()) == 0
    assert figures["overloads"] == 3
    assert figures["places"] == 32  # all in one moment of this clock


@pytest.mark.usefixtures("no_pauses")
def test_what_fails_after_all_tries_counts_as_failed_once(opened: Opened, strict_gcs: StrictGcs) -> None:
    traffic = Traffic()
    store = opened(traffic)
    rule = strict_gcs.fail(503, lambda request: request.kind == "get", times=None)
    with pytest.raises(Overloaded):
        store.stat("f")
    figures = traffic.figures()["requests"]["stat"]
    assert (figures["count"], figures["failed"], figures["retried"], rule.hits) == (1, 1, 4, 5)


# --- rates


@pytest.mark.parametrize("size", [20 * KIB, MIB + 100 * KIB])
@pytest.mark.parametrize("send", [upload, send_in_a_session])
def test_uploads_go_at_the_upload_rate(
    opened: Opened, strict_bucket: Bucket, clock: Clock, size: int, send: Callable[[GcsStore, str, bytes], ObjectInfo]
) -> None:
    rate = 64.0 * KIB
    traffic = Traffic(upload_rate=rate, clock=clock, sleep=clock.sleep)
    store, data = opened(traffic), bytes(range(256)) * (size // 256)
    send(store, "f", data)
    assert strict_bucket.get("d/f") == data
    sent = traffic.figures()["sent_bytes"]
    assert len(data) < sent < len(data) + 4 * KIB
    assert clock.now == pytest.approx(sent / rate - BURST_SECONDS, abs=0.01)


def test_an_upload_that_is_tried_again_pays_again(
    opened: Opened, strict_gcs: StrictGcs, clock: Clock, no_pauses: None
) -> None:
    traffic = Traffic(upload_rate=64.0 * KIB, clock=clock, sleep=clock.sleep)
    store = opened(traffic)
    strict_gcs.fail(503, lambda request: request.kind == "upload")
    upload(store, "f", bytes(128 * KIB))
    assert traffic.figures()["sent_bytes"] > 256 * KIB
    assert clock.now > 3.5


def test_a_slow_rate_is_no_silence(opened: Opened, monkeypatch: pytest.MonkeyPatch, strict_gcs: StrictGcs) -> None:
    monkeypatch.setattr(gcs_uploads, "SILENCE_SECONDS", 0.4)
    upload(opened(Traffic(upload_rate=20.0 * KIB)), "f", bytes(30 * KIB))
    assert strict_gcs.count("POST") == 1


def test_reading_goes_at_the_download_rate(opened: Opened, strict_bucket: Bucket, clock: Clock) -> None:
    data, rate = bytes(range(256)) * 1024, 64.0 * KIB
    strict_bucket.put("d/f", data)
    traffic = Traffic(download_rate=rate, clock=clock, sleep=clock.sleep)
    store = opened(traffic)
    source = store.open(store.stat("f"))
    read = b"".join(source.read(offset, 32 * KIB) for offset in range(0, len(data), 32 * KIB))
    assert read == data
    received = traffic.figures()["received_bytes"]
    assert received >= len(data)
    assert (len(data) - 32 * KIB) / rate - BURST_SECONDS <= clock.now <= received / rate


def test_listings_go_at_the_download_rate_too(
    opened: Opened, strict_bucket: Bucket, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_listing, "PAGE_SIZE", 2)
    for number in range(12):
        strict_bucket.put(f"d/{number}", b"")
    traffic = Traffic(download_rate=4.0 * KIB, clock=clock, sleep=clock.sleep)
    store = opened(traffic)
    assert len(list(store.scan(recursive=False))) == 12  # one page after the other
    received = traffic.figures()["received_bytes"]
    assert received > 3 * KIB
    assert received / (4 * KIB) / 2 < clock.now < received / (4 * KIB)


def test_links_are_read_at_the_download_rate(strict_bucket: Bucket, clock: Clock) -> None:
    data = bytes(256 * KIB)
    strict_bucket.put("f", data)
    links = SignedLinks(traffic=Traffic(download_rate=64.0 * KIB, clock=clock, sleep=clock.sleep))
    url = f"{strict_bucket.environment['STORAGE_EMULATOR_HOST']}/{strict_bucket.name}/f"
    try:
        assert links.open(url, links.describe(url, "f")).read(0, len(data)) == data
    finally:
        links.close()
    assert clock.now == pytest.approx(4 - BURST_SECONDS, abs=0.01)
