"""What operators watch: numbers for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

#: Names the folder in which several processes keep their numbers together.
SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_RESIDUALS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1)


class Metrics:
    """Counters of one application; those of several processes are added up where they are read."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter(
            "palrp_requests", "Answers", ("model", "verb", "status"), registry=own
        )
        self.seconds = Histogram(
            "palrp_request_seconds",
            "From the first byte of a request to the last of its answer",
            ("model", "verb"),
            buckets=_SECONDS,
            registry=own,
        )
        self.waiting = Gauge(
            "palrp_rows_waiting",
            "Rows that wait or run",
            ("model",),
            multiprocess_mode="livesum",
            registry=own,
        )
        self.batch = Histogram(
            "palrp_batch_rows", "Rows in a run", ("model",), buckets=_ROWS, registry=own
        )
        self.run = Histogram(
            "palrp_run_seconds", "Time of a run", ("model",), buckets=_SECONDS, registry=own
        )
        self.residual = Histogram(
            "palrp_residual",
            "|residual| of the ledger as a share of the sum of its entries' magnitudes",
            ("model",),
            buckets=_RESIDUALS,
            registry=own,
        )
        self.reloads = Counter(
            "palrp_reloads", "Files that changed", ("model", "outcome"), registry=own
        )

    def page(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        registry = self._registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
