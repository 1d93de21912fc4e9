"""Count requests, predictions, rejected inputs and drift for Prometheus.

Evidently would report the same drift as pages of HTML, but would add pandas, scikit-learn and
plotly to an image that has to stay small.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.serving.psi import ENOUGH, Drift, Values

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BUCKETS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper limits of the bins of the latency histogram, in seconds; the target is 7 ms for a short
clip."""

REASONS = ("form", "size", "files", "format", "length", "silence", "slow", "query", "busy")
"""Reasons for rejecting an input. The list is closed because each one is a time series."""


class Metrics:
    """The metrics; each one says what it counts.

    Parameters
    ----------
    reference : dict
    size : int
        Both as for :class:`pipeline.serving.psi.Drift`.
    registry : CollectorRegistry, optional
        Where to register the metrics; the process's own registry if left out.
    """

    def __init__(
        self,
        reference: Mapping[str, Mapping[str, Any]],
        size: int,
        registry: CollectorRegistry | None = None,
    ) -> None:
        # Not at the top: with several workers, their shared folder has to be in the environment
        # before prometheus_client is imported.
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        home = registry or REGISTRY
        gauge = partial(Gauge, registry=home, multiprocess_mode="livemostrecent")
        reserve_space()
        self.drift = Drift(reference, size)
        self._lock = threading.Lock()
        self._requests = Counter(
            "sound_requests", "Requests that were answered.", ["endpoint", "status"], registry=home
        )
        self._seconds = Histogram(
            "sound_request_seconds",
            "Seconds from the end of a request's header to its answer.",
            ["endpoint"],
            buckets=BUCKETS,
            registry=home,
        )
        self._predictions = Counter(
            "sound_predictions", "Clips that were classified.", ["label"], registry=home
        )
        self._confidence = Histogram(
            "sound_confidence",
            "Probability of the most probable label.",
            buckets=[tenth / 10 for tenth in range(1, 11)],
            registry=home,
        )
        self._rejected = Counter(
            "sound_rejected", "Inputs that were rejected.", ["reason"], registry=home
        )
        self._log_failures = Counter(
            "sound_log_failures", "Predictions that could not be logged.", registry=home
        )
        self._psi = gauge(
            "sound_drift_psi",
            "Population stability index of the latest predictions against the reference.",
            ["quantity"],
        )
        self._drift_size = gauge(
            "sound_drift_predictions",
            "Number of latest predictions that the index is based on.",
        )
        self._drift_since = gauge(
            "sound_drift_since_seconds",
            "Time of the oldest of these predictions, in seconds since 1970.",
        )
        for reason in REASONS:  # from the start, so that the first rejection shows in a rate
            self._rejected.labels(reason)
        reserve_space()

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a rejected input; `reason` is one of :data:`REASONS`."""
        self._rejected.labels(reason).inc()

    def log_failed(self) -> None:
        """Count a prediction that could not be logged."""
        self._log_failures.inc()

    def prediction(self, values: Values) -> None:
        """Count a prediction and update the drift."""
        self._predictions.labels(values["label"]).inc()
        self._confidence.observe(float(values["confidence"]))
        with self._lock:
            self.drift.add(values)
            self._drift_size.set(len(self.drift))
            self._drift_since.set(self.drift.since)
            if len(self.drift) >= ENOUGH:
                for name, index in self.drift.psi().items():
                    self._psi.labels(name).set(index)


def reserve_space() -> None:
    """Reserve the disk space for this process's metrics, if several processes share theirs.

    prometheus_client maps sparse files into memory. If the disk is full when a new time series
    needs the next page of a file, the process is killed.

    Raises
    ------
    UserError
        If there is not enough space.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None or not hasattr(os, "posix_fallocate"):
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:  # for files that do not exist yet
            os.posix_fallocate(probe.fileno(), 0, 1 << 18)
        for file in Path(folder).glob(f"*_{os.getpid()}.db"):
            with file.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): free some space, or set"
            " PROMETHEUS_MULTIPROC_DIR to another folder."
        ) from None


def exposition(registry: CollectorRegistry | None = None) -> tuple[bytes, str]:
    """Return all metrics in Prometheus's text format; those of all workers if there are several.

    Returns
    -------
    content : bytes
    media_type : str
    """
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    if registry is None and "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry or REGISTRY), CONTENT_TYPE_LATEST
