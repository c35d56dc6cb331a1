"""What a broker counts, in Prometheus's format. Names no dataset, owner or client: anybody may read it.

Threading: safe.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)  # seconds


class Metrics:
    """The counters of one broker.

    Args:
        sessions: Returns how many sessions are open.
    """

    def __init__(self, sessions: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "sealfs_broker_requests", "Requests answered", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "sealfs_broker_request_seconds",
            "Time to answer a request",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._limited = Counter("sealfs_broker_limited", "Requests over the rate limit", registry=self._registry)
        gauge = Gauge("sealfs_broker_sessions", "Open sessions", registry=self._registry)
        gauge.set_function(sessions)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_limited(self) -> None:
        """Count a request over the rate limit."""
        self._limited.inc()

    def exposition(self) -> bytes:
        """Return all of it as text."""
        return generate_latest(self._registry)
