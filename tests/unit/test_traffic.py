"""What a mount may ask of its stores at once and how fast, and what it counts of that."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from octuefs.errors import NotFound, Overloaded, StoreUnavailable
from octuefs.stores.figures import BOUNDS, COUNTERS, Figures, Latencies
from octuefs.stores.rates import BURST_SECONDS, Rate
from octuefs.stores.room import Manner, Room
from octuefs.stores.traffic import Traffic

PATIENCE = 10.0


class Clock:
    """Time that goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def waited_for(room: Room, waiting: int) -> None:
    """Return when so many wait for a place."""
    deadline = time.monotonic() + PATIENCE
    while room.state()["waiting"] != waiting:
        assert time.monotonic() < deadline, room.state()
        threading.Event().wait(0.002)


# --- rates


def test_without_a_rate_nobody_waits() -> None:
    assert Rate(None).take(1 << 40) == 0


def test_a_burst_goes_at_once_and_the_rest_at_the_rate(clock: Clock) -> None:
    rate = Rate(1000, clock)
    assert rate.take(int(1000 * BURST_SECONDS)) == 0
    assert rate.take(500) == pytest.approx(0.5)
    assert rate.take(500) == pytest.approx(1.0)
    clock.now += 1.0
    assert rate.take(0) == 0
    assert rate.take(100) == pytest.approx(0.1)


def test_a_pause_earns_no_more_than_a_burst(clock: Clock) -> None:
    rate = Rate(1000, clock)
    clock.now += 3600
    assert rate.take(1250) == pytest.approx(1.0)


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_over_any_time_the_rate_holds(clock: Clock, size: int) -> None:
    traffic = Traffic(download_rate=1000, clock=clock, sleep=clock.sleep)
    began = clock.now
    for _ in range(20_000 // size):
        traffic.received(size)
    assert 20_000 / 1000 - BURST_SECONDS - 0.01 <= clock.now - began <= 20_000 / 1000


def test_what_is_sent_waits_as_the_upload_rate_asks_and_not_the_other(clock: Clock) -> None:
    traffic = Traffic(upload_rate=1000, clock=clock, sleep=clock.sleep)
    traffic.received(1 << 20)
    assert clock.slept == []
    assert traffic.sending(1250) == pytest.approx(1.0)
    assert clock.slept == []
    assert (traffic.sent_at_once, traffic.received_at_once) == (4096, None)


def test_long_answers_begin_when_earlier_ones_are_paid_for_and_short_ones_need_not_wait(clock: Clock) -> None:
    traffic = Traffic(download_rate=1000, clock=clock, sleep=clock.sleep)
    traffic.arrived(2250)
    for kind in ("stat", "change", "upload"):
        with traffic.request(kind):
            pass
    assert clock.slept == []
    with traffic.request("list"):
        pass
    assert clock.slept == [pytest.approx(2.0)]


# --- places


def test_no_more_requests_are_under_way_than_there_are_places() -> None:
    traffic, most, lock, now = Traffic(most_requests=4), 0, threading.Lock(), 0

    def ask(_: int) -> None:
        nonlocal most, now
        with traffic.request("read"):
            with lock:
                now += 1
                most = max(most, now)
            threading.Event().wait(0.001)
            with lock:
                now -= 1

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(ask, range(400)))
    assert most == 4
    assert traffic.figures()["requests"]["read"]["count"] == 400
    assert (traffic.figures()["in_flight"], traffic.figures()["waiting"]) == (0, 0)


def test_who_waits_gets_the_place_that_is_given_back() -> None:
    room = Room(1)
    room.enter(Manner.AWAITED)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(room.enter, Manner.AWAITED)
        waited_for(room, 1)
        room.leave(Manner.AWAITED)
        waiting.result(PATIENCE)
    assert room.state() == {"in_flight": 1, "waiting": 0, "places": 1}


def test_what_nobody_waits_for_leaves_places_for_the_rest() -> None:
    room = Room(8)
    for _ in range(6):
        room.enter(Manner.BACKGROUND)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(room.enter, Manner.BACKGROUND)
        waited_for(room, 1)
        room.enter(Manner.AWAITED)
        room.enter(Manner.AWAITED)
        assert room.state() == {"in_flight": 8, "waiting": 1, "places": 8}
        room.leave(Manner.AWAITED)
        room.leave(Manner.AWAITED)
        assert not waiting.done()
        room.leave(Manner.BACKGROUND)
        waiting.result(PATIENCE)


def test_uploads_leave_places_for_reading_what_they_send() -> None:
    room = Room(4)
    for _ in range(3):
        room.enter(Manner.UPLOAD)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(room.enter, Manner.UPLOAD)
        waited_for(room, 1)
        room.enter(Manner.AWAITED)
        room.leave(Manner.AWAITED)
        assert not waiting.done()
        room.leave(Manner.UPLOAD)
        waiting.result(PATIENCE)


def test_all_come_to_their_turn_whatever_their_manners() -> None:
    room, order = Room(6), random.Random(7)
    manners = [order.choice(list(Manner)) for _ in range(3000)]

    def ask(manner: Manner) -> int:
        room.enter(manner)
        taken = room.state()["in_flight"]
        if order.random() < 0.01:
            room.lower()
        room.leave(manner)
        return taken

    with ThreadPoolExecutor(24) as threads:
        assert max(threads.map(ask, manners, timeout=60)) <= 6
    assert (room.state()["in_flight"], room.state()["waiting"]) == (0, 0)


def test_an_overload_halves_the_places_and_they_come_back_slowly(clock: Clock) -> None:
    room = Room(64, clock)
    room.lower()
    assert room.state()["places"] == 32
    clock.now += 1
    assert room.state()["places"] == 33
    clock.now += 15
    assert room.state()["places"] == 48
    clock.now += 1000
    assert room.state()["places"] == 64


def test_those_that_are_refused_together_halve_the_places_once(clock: Clock) -> None:
    room = Room(64, clock)
    for _ in range(40):
        room.lower()
    assert room.state()["places"] == 32
    clock.now += 1
    room.lower()
    assert room.state()["places"] == 16


@pytest.mark.parametrize(("most", "least"), [(64, 2), (2, 2), (1, 1)])
def test_some_places_are_always_left(clock: Clock, most: int, least: int) -> None:
    room = Room(most, clock)
    for _ in range(30):
        room.lower()
        assert room.state()["places"] >= least
        clock.now += 1


def test_who_waits_for_places_that_come_back_with_time_gets_one(clock: Clock) -> None:
    room = Room(4, clock)
    for _ in range(4):
        room.enter(Manner.AWAITED)
    room.lower()
    room.leave(Manner.AWAITED)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(room.enter, Manner.AWAITED)
        waited_for(room, 1)
        clock.now += 1000
        waiting.result(PATIENCE)


def test_a_request_that_is_refused_for_overload_lowers_the_places(clock: Clock) -> None:
    traffic = Traffic(clock=clock)
    with pytest.raises(Overloaded), traffic.request("read"):
        raise Overloaded("503")
    assert (traffic.figures()["places"], traffic.figures()["overloads"]) == (32, 1)


def test_a_try_that_is_refused_for_overload_lowers_them_too_and_counts_as_tried_again(clock: Clock) -> None:
    traffic = Traffic(clock=clock)
    with traffic.request("list") as ticket:
        ticket.retried(Overloaded("429"))
        ticket.retried(StoreUnavailable("broken off"))
    figures = traffic.figures()
    assert (figures["places"], figures["overloads"]) == (32, 1)
    requests = figures["requests"]["list"]
    assert (requests["count"], requests["failed"], requests["retried"]) == (1, 0, 2)


# --- figures


@contextmanager
def let_go(traffic: Traffic) -> Iterator[None]:
    with traffic.request("read"):
        yield


def test_only_what_the_store_could_not_do_counts_as_failed(clock: Clock) -> None:
    traffic = Traffic(clock=clock)
    for error in (NotFound("f"), StoreUnavailable("s"), OSError("o")):
        with pytest.raises(type(error)), traffic.request("stat"):
            raise error
    with pytest.raises(GeneratorExit), let_go(traffic):
        raise GeneratorExit
    requests = traffic.figures()["requests"]
    assert (requests["stat"]["count"], requests["stat"]["failed"]) == (3, 2)
    assert (requests["read"]["count"], requests["read"]["failed"]) == (1, 0)


def test_a_request_is_timed_from_the_place_it_got_to_its_end(clock: Clock) -> None:
    traffic = Traffic(clock=clock)
    with traffic.request("read"):
        clock.now += 0.1
    assert traffic.figures()["requests"]["read"]["p50_ms"] == pytest.approx(100, rel=0.2)


def test_percentiles_are_right_to_a_tenth() -> None:
    latencies = Latencies()
    for milliseconds in range(1, 1001):
        latencies.add(milliseconds / 1000)
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        assert latencies.percentile(share) == pytest.approx(share, rel=0.1)
    assert latencies.total_seconds == pytest.approx(500.5)


def test_there_is_no_percentile_of_nothing() -> None:
    assert Latencies().percentile(0.5) is None
    assert Figures().values()["requests"]["read"]["p99_ms"] is None


def test_the_shortest_and_the_longest_are_counted_too() -> None:
    latencies = Latencies()
    for seconds in (0.0, BOUNDS[0], 10_000.0):
        latencies.add(seconds)
    assert latencies.percentile(1.0) == BOUNDS[-1]
    cumulative = latencies.cumulative()
    assert (cumulative[0], cumulative[-1], latencies.count) == ((BOUNDS[0], 2), (BOUNDS[-1], 2), 3)


def test_what_is_counted_is_told_and_begins_at_zero() -> None:
    traffic = Traffic()
    traffic.count("cache_hits")
    traffic.count("cache_hit_bytes", 4096)
    figures = traffic.figures()
    assert (figures["cache_hits"], figures["cache_hit_bytes"]) == (1, 4096)
    assert all(figures[name] == 0 for name in COUNTERS if not name.startswith("cache_hit"))


def test_gauges_are_read_when_somebody_asks_and_missing_ones_are_not_told() -> None:
    traffic, size = Traffic(), 1.0
    assert "cache_bytes" not in traffic.figures()
    traffic.gauge("cache_bytes", lambda: size)
    assert traffic.figures()["cache_bytes"] == 1.0
    size = 2.0
    assert traffic.figures()["cache_bytes"] == 2.0


def test_what_has_no_help_text_cannot_be_counted() -> None:
    with pytest.raises(KeyError):
        Traffic().count("cache_hit")
    with pytest.raises(KeyError):
        Traffic().gauge("cache_hits", lambda: 0)
