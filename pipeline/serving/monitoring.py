"""What the service is asked and what it answers, in numbers: Prometheus, a log, and drift.

Drift is the population stability index of a few quantities: sum of (o - e) ln(o / e) over bins,
with the shares `e` of the reference in the bundle and `o` of the latest predictions (Siddiqi,
Credit Risk Scorecards, 2006). Below 0.1 is called stable, above 0.25 changed; what chance alone
would give is stated beside it. Evidently would draw the same numbers as pages of HTML, at the
price of pandas, scikit-learn and plotly in an image that has to stay small; so it is a plain table:

    python -m pipeline drift predictions/sound-classifier/data/*.log*
"""

from __future__ import annotations

import contextvars
import logging
import math
import os
import tempfile
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger("bentoml.sound")

Values = Mapping[str, float | str]
"""What is known of a prediction: its quantities by name; ``label`` is text."""

BINS = 10
ENOUGH = 50
"""Predictions below which drift is not stated: it would be chance."""

BUCKETS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds of the latency histogram; the target for a short clip is 7 ms."""

REASONS = ("form", "size", "files", "format", "length", "silence", "slow", "query", "busy")
"""Why an input is rejected; a closed list, for each is a time series."""


def histogram(values: Sequence[float]) -> dict[str, list[float]]:
    """Bin a quantity so that its bins are equally full, about ten values in each or more.

    Returns
    -------
    dict
        ``edges`` between the bins, rising, and ``counts``, one more than edges.
    """
    ordered = sorted(values)
    bins = max(2, min(BINS, len(ordered) // 10))
    cuts = {ordered[len(ordered) * i // bins] for i in range(1, bins)}
    edges = sorted(cuts - {ordered[0]})  # a bin below the lowest value would be empty
    counts = [0] * (len(edges) + 1)
    for value in ordered:
        counts[bisect_right(edges, value)] += 1
    return {"edges": edges, "counts": [float(count) for count in counts]}


def shares(predicted: Iterable[str], labels: Sequence[str]) -> dict[str, list[Any]]:
    """Count labels; ``labels`` and ``counts``."""
    counts = dict.fromkeys(labels, 0.0)
    for label in predicted:
        counts[label] += 1
    return {"labels": list(labels), "counts": list(counts.values())}


def psi(expected: Sequence[float], observed: Sequence[float]) -> float:
    """Give the population stability index of two histograms.

    Half a count is added to each bin, so that an empty one is unlikely but not impossible.

    Parameters
    ----------
    expected, observed : sequence of float
        Counts in the same bins.

    Returns
    -------
    float
        0 for equal shares, without an upper bound.

    Examples
    --------
    >>> round(psi([50, 50], [5, 5]), 3)
    0.0
    >>> round(psi([50, 50], [10, 0]), 1)
    1.4
    """
    bins = len(expected)
    e_total, o_total = sum(expected) + bins / 2, sum(observed) + bins / 2
    total = 0.0
    for e_count, o_count in zip(expected, observed, strict=True):
        e, o = (e_count + 0.5) / e_total, (o_count + 0.5) / o_total
        total += (o - e) * math.log(o / e)
    return total


def by_chance(expected: Sequence[float], observed: Sequence[float]) -> float:
    """Mean index of two samples of one population (Yurdakul 2018): (bins - 1) (1/n + 1/m)."""
    return (len(expected) - 1) * (1 / max(1, sum(expected)) + 1 / max(1, sum(observed)))


class Drift:
    """Distance of the latest predictions from the reference.

    Parameters
    ----------
    reference : dict
        Histograms by quantity, of :func:`histogram` and :func:`shares`.
    size : int
        Number of predictions that are compared; older ones are forgotten.
    """

    def __init__(self, reference: Mapping[str, Mapping[str, Any]], size: int) -> None:
        self.reference = reference
        self.counts = {name: [0.0] * len(h["counts"]) for name, h in reference.items()}
        self._latest: deque[tuple[float, dict[str, int]]] = deque()
        self._size = size

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def since(self) -> float:
        """When the oldest prediction that counts was made, in seconds since 1970."""
        return self._latest[0][0] if self._latest else math.nan

    def add(self, values: Values) -> None:
        """Count a prediction; a quantity that it lacks or that is new to the reference is not."""
        places = {}
        for name, held in self.reference.items():
            place = _place(held, values.get(name))
            if place is not None:
                places[name] = place
                self.counts[name][place] += 1
        self._latest.append((time.time(), places))
        if len(self._latest) > self._size:
            for name, place in self._latest.popleft()[1].items():
                self.counts[name][place] -= 1

    def psi(self) -> dict[str, float]:
        """Index of each quantity."""
        return {name: psi(h["counts"], self.counts[name]) for name, h in self.reference.items()}


def _place(held: Mapping[str, Any], value: float | str | None) -> int | None:
    if isinstance(value, str):
        return held["labels"].index(value) if value in held.get("labels", ()) else None
    return None if value is None or "edges" not in held else bisect_right(held["edges"], value)


class Metrics:
    """What Prometheus is told; see the documentation of each metric.

    Parameters
    ----------
    reference : dict
        Of :class:`Drift`.
    size : int
        Of :class:`Drift`.
    registry : CollectorRegistry, optional
        Instead of the process's own.
    """

    def __init__(
        self,
        reference: Mapping[str, Mapping[str, Any]],
        size: int,
        registry: CollectorRegistry | None = None,
    ) -> None:
        # Here and not above, for with several workers its folder has to be in the environment.
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        home = registry or REGISTRY
        reserve()
        self.drift = Drift(reference, size)
        self._lock = threading.Lock()
        self._requests = Counter(
            "sound_requests", "Requests answered.", ["endpoint", "status"], registry=home
        )
        self._seconds = Histogram(
            "sound_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["endpoint"],
            buckets=BUCKETS,
            registry=home,
        )
        self._predictions = Counter(
            "sound_predictions", "Clips classified.", ["label"], registry=home
        )
        self._confidence = Histogram(
            "sound_confidence",
            "Probability of the most probable label.",
            buckets=[tenth / 10 for tenth in range(1, 11)],
            registry=home,
        )
        self._rejected = Counter(
            "sound_rejected", "Inputs that were not classified.", ["reason"], registry=home
        )
        self._log_failures = Counter(
            "sound_log_failures", "Predictions that could not be logged.", registry=home
        )
        self._psi = Gauge(
            "sound_drift_psi",
            "Population stability index of the latest predictions against the reference.",
            ["quantity"],
            registry=home,
            multiprocess_mode="livemostrecent",
        )
        self._drift_size = Gauge(
            "sound_drift_predictions",
            "Predictions that the index is taken over.",
            registry=home,
            multiprocess_mode="livemostrecent",
        )
        self._drift_since = Gauge(
            "sound_drift_since_seconds",
            "When the oldest of them was made, in seconds since 1970.",
            registry=home,
            multiprocess_mode="livemostrecent",
        )
        for reason in REASONS:  # so that a rate can be taken from the first one on
            self._rejected.labels(reason)
        reserve()

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count an input that was not classified; `reason` is one of :data:`REASONS`."""
        self._rejected.labels(reason).inc()

    def log_failed(self) -> None:
        """Count a prediction that could not be logged."""
        self._log_failures.inc()

    def prediction(self, values: Values) -> None:
        """Count a prediction and state the drift that it leaves."""
        self._predictions.labels(values["label"]).inc()
        self._confidence.observe(float(values["confidence"]))
        with self._lock:
            self.drift.add(values)
            self._drift_size.set(len(self.drift))
            self._drift_since.set(self.drift.since)
            if len(self.drift) >= ENOUGH:
                for name, index in self.drift.psi().items():
                    self._psi.labels(name).set(index)


def reserve() -> None:
    """Take the room on the disk that this process's figures need, if several processes share them.

    prometheus_client maps sparse files into memory: if the disk is full when a time series needs
    the next page of them, a signal ends the process.

    Raises
    ------
    UserError
        When there is no room.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None or not hasattr(os, "posix_fallocate"):
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as trial:  # for files that are not there yet
            os.posix_fallocate(trial.fileno(), 0, 1 << 18)
        for file in Path(folder).glob(f"*_{os.getpid()}.db"):
            with file.open("r+b") as held:
                os.posix_fallocate(held.fileno(), 0, file.stat().st_size)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from None


def exposition(registry: CollectorRegistry | None = None) -> tuple[bytes, str]:
    """All metrics as Prometheus reads them, of all workers where there are several.

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


class PredictionLog:
    """Every prediction as a line of JSON, written by BentoML's monitor; may fail at will.

    Parameters
    ----------
    folder : Path or None
        Where to write; None writes nothing.
    metrics : Metrics
        Told of failures.
    """

    NAME = "sound-classifier"

    def __init__(self, folder: Path | None, metrics: Metrics) -> None:
        self._folder = folder
        self._metrics = metrics
        self._lock = threading.Lock()
        self._warned = False

    def write(self, values: Values) -> None:
        """Log a prediction; a failure is counted, told once, and nothing else."""
        if self._folder is None:
            return
        try:
            with self._lock:
                # A context of its own: the monitor leaves its state behind in it when it fails.
                contextvars.Context().run(self._write, values)
        except Exception:  # whatever it is, the prediction is more important
            self._metrics.log_failed()
            if not self._warned:
                self._warned = True
                logger.warning("Predictions cannot be logged.", exc_info=True)

    def _write(self, values: Values) -> None:
        import bentoml

        options = {"log_path": str(self._folder), "log_config_file": None}
        with bentoml.monitor(
            self.NAME, monitor_class=_monitor_class(), monitor_options=options
        ) as monitor:
            for name, value in values.items():
                kind = "categorical" if isinstance(value, str) else "numerical"
                role = "prediction" if name in ("label", "confidence") else "feature"
                monitor.log(value, name=name, role=role, data_type=kind)


@cache
def _monitor_class() -> Any:
    """BentoML's monitor, but for a full disk: logging prints that and goes on; it has to be told.

    Made when it is needed, for the drift report needs no BentoML.
    """
    from bentoml._internal.monitoring.default import DefaultMonitor

    class Monitor(DefaultMonitor):
        def _init_logger(self) -> None:
            super()._init_logger()
            made: tuple[Any, ...] = (self.data_logger, self.schema_logger)
            for handler in chain.from_iterable(logger.handlers for logger in made):
                handler.handleError = _raise

    return Monitor


def _raise(_: logging.LogRecord) -> None:
    raise  # what logging is handling  # noqa: PLE0704
