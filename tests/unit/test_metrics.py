"""The figures as Prometheus reads them."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from octuefs.errors import BadValue
from octuefs.metrics import MetricsServer
from octuefs.stores.figures import COUNTERS
from octuefs.stores.traffic import Traffic

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with closing(MetricsServer(0)) as server:
        yield server


def scraped(port: int) -> dict[str, float]:
    """What Prometheus reads: values by name, with the labels that are given."""
    with _OPENER.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sample.labels.items()): sample.value
        for sample in samples
    }


def test_all_figures_are_served_as_they_are_now(server: MetricsServer) -> None:
    traffic = Traffic()
    server.serve(traffic)
    before = scraped(server.port)
    assert all(before[f"octuefs_{name}_total"] == 0 for name in COUNTERS)
    assert "octuefs_cache_bytes" not in before
    with traffic.request("read"):
        traffic.received(1000)
        traffic.count("prefetch_files", 3)
    traffic.gauge("cache_bytes", lambda: 77)
    now = scraped(server.port)
    assert now["octuefs_received_bytes_total"] == 1000
    assert now["octuefs_prefetch_files_total"] == 3
    assert now["octuefs_cache_bytes"] == 77
    assert now["octuefs_places"] == 64
    assert now["octuefs_request_seconds_count,kind=read"] == 1
    assert now["octuefs_request_seconds_bucket,kind=read,le=+Inf"] == 1
    assert now["octuefs_requests_failed_total,kind=list"] == 0


def test_buckets_only_grow_with_their_bounds(server: MetricsServer) -> None:
    traffic = Traffic()
    for seconds in (0.0001, 0.003, 0.003, 5.0, 5000.0):
        traffic.figures_of_mount.ended("list", seconds, failed=False)
    server.serve(traffic)
    buckets = [value for name, value in scraped(server.port).items() if "seconds_bucket,kind=list" in name]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-2], buckets[-1]) == (1, 4, 5)


def test_it_listens_on_this_machine_alone_and_no_longer_than_it_is_open() -> None:
    with closing(MetricsServer(0)) as server:
        server.serve(Traffic())
        assert server._server.server_address[0] == "127.0.0.1"
        assert scraped(server.port)
    with pytest.raises(urllib.error.URLError):
        scraped(server.port)


def test_one_that_never_served_is_closed(server: MetricsServer) -> None:
    server.close()


def test_a_port_that_somebody_has_is_refused_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BadValue, match=f"^--metrics-port {port}: something else listens there; choose another one"):
            MetricsServer(port)


def test_a_client_that_goes_away_is_no_failure(server: MetricsServer) -> None:
    server.serve(Traffic())
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n")
    assert scraped(server.port)
