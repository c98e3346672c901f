"""The figures of a mount for Prometheus: http://127.0.0.1:PORT/metrics, where `--metrics-port` asks for it.

`mount.py` takes the port before it makes the mount, and serves when that is made. Every answer is computed from
`Traffic.figures()` when it is asked for; only programs of this machine can ask.
"""

import errno
import logging
import os
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import MetricsHandler
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from octuefs import __version__
from octuefs.errors import BadValue
from octuefs.stores.figures import COUNTERS, GAUGES
from octuefs.stores.traffic import Traffic

logger = logging.getLogger(__name__)

_ADDRESS = "127.0.0.1"
_PATIENCE_SECONDS = 10.0
"""How long whoever has connected may say nothing."""

_STATE = {
    "in_flight": "Requests that are under way.",
    "waiting": "Requests that wait for a place.",
    "places": "Requests that may be under way at once now.",
    "most_places": "The same where the store is at ease.",
}


class TrafficCollector(Collector):
    """Turns the figures into metrics, each named `octuefs_` and as in `.octuefs/status`."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def collect(self) -> Iterator[Metric]:
        """Return all of them as they are now."""
        figures = self._traffic.figures()
        yield InfoMetricFamily("octuefs", "What serves these figures.", {"version": __version__})
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"octuefs_{name}", text, figures[name])
        for name, text in {**GAUGES, **_STATE}.items():
            if name in figures:
                yield GaugeMetricFamily(f"octuefs_{name}", text, figures[name])
        yield from self._requests(figures["requests"])

    def _requests(self, requests: dict[str, dict[str, Any]]) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            "octuefs_request_seconds", "How long requests took, all tries included.", labels=["kind"]
        )
        for kind, (buckets, count, total) in self._traffic.latencies().items():
            bounds = [(f"{bound:.6g}", float(below)) for bound, below in buckets]
            seconds.add_metric([kind], [*bounds, ("+Inf", float(count))], total)
        yield seconds
        failed = CounterMetricFamily("octuefs_requests_failed", "Requests that failed for good.", labels=["kind"])
        retried = CounterMetricFamily("octuefs_requests_retried", "Tries after the first one.", labels=["kind"])
        for kind, figures in requests.items():
            failed.add_metric([kind], figures["failed"])
            retried.add_metric([kind], figures["retried"])
        yield failed
        yield retried


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Make what breaks off a line for debugging; whoever asked has gone."""
        logger.debug("a request for metrics broke off", exc_info=True)


class MetricsServer:
    """Holds a port of this machine, and answers there once there are figures to tell."""

    def __init__(self, port: int) -> None:
        """Take a port; any free one where it is 0.

        :raise BadValue: where somebody else has it
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        handler = type("Handler", (MetricsHandler.factory(self._registry),), {"timeout": _PATIENCE_SECONDS})
        try:
            self._server = _Server((_ADDRESS, port), handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadValue(
                    f"--metrics-port {port}: something else listens there; choose another one, or 0 for any free one"
                ) from None
            raise BadValue(f"--metrics-port {port} cannot be had: {os.strerror(error.errno or 0)}") from None
        self.port: int = self._server.server_address[1]
        self._thread: threading.Thread | None = None

    def serve(self, traffic: Traffic) -> None:
        """Answer from now on, on threads of its own."""
        self._registry.register(TrafficCollector(traffic))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and give the port back."""
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()
