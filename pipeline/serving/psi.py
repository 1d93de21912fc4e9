"""Measure how far predictions have moved from the reference in the bundle.

The reference has the distribution of labels and confidences on the test clips, and of properties
of the sound in all clips of the dataset. The measure is the population stability index (PSI): the
sum of (o - e) ln(o / e) over bins, where `e` is the expected share of a bin, from the reference,
and `o` the observed one (Siddiqi, Credit Risk Scorecards, 2006). The usual reading is: up to 0.1
stable, up to 0.25 a moderate shift, above 0.25 a large shift. A small sample has a positive PSI by
chance alone, so the verdict is about the PSI minus its expected value by chance.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Values = Mapping[str, float | str]
"""A prediction: its quantities by name; ``label`` is text, the others are numbers."""

MODERATE, LARGE = 0.1, 0.25
"""PSI above which a shift is called moderate or large."""

BINS = 10
ENOUGH = 50
"""Number of predictions needed to report drift; with fewer, chance dominates."""


def histogram(values: Sequence[float]) -> dict[str, list[float]]:
    """Count the values of a quantity in bins that hold equally many, about ten or more each.

    Parameters
    ----------
    values : sequence of float

    Returns
    -------
    dict
        ``edges`` between the bins, ascending, and ``counts``, one more than edges.
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
    """Count how often each label was predicted.

    Returns
    -------
    dict
        ``labels`` and ``counts``.
    """
    counts = dict.fromkeys(labels, 0.0)
    for label in predicted:
        counts[label] += 1
    return {"labels": list(labels), "counts": list(counts.values())}


def psi(expected: Sequence[float], observed: Sequence[float]) -> float:
    """Return the population stability index of two histograms.

    Half a count is added to each bin, so that an empty bin does not make the index infinite.

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
    """Return the mean PSI of two samples of one population: (bins - 1) (1/n + 1/m).

    Source: Yurdakul, Statistical Properties of Population Stability Index, 2018.
    """
    return (len(expected) - 1) * (1 / max(1, sum(expected)) + 1 / max(1, sum(observed)))


def verdict(excess: float) -> str:
    """Name a shift: 'stable', 'moderate' or 'large'.

    Parameters
    ----------
    excess : float
        The PSI minus its expected value by chance.
    """
    return "large" if excess > LARGE else "moderate" if excess > MODERATE else "stable"


class Drift:
    """Compare the latest predictions with the reference.

    Parameters
    ----------
    reference : dict
        Histograms by quantity, made by :func:`histogram` and :func:`shares`.
    size : int
        Number of latest predictions to compare.
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
        """Return the time of the oldest prediction that is compared, in seconds since 1970."""
        return self._latest[0][0] if self._latest else math.nan

    def add(self, values: Values) -> None:
        """Count a prediction; quantities that the reference does not have are ignored."""
        places = {}
        for name, bins in self.reference.items():
            place = _place(bins, values.get(name))
            if place is not None:
                places[name] = place
                self.counts[name][place] += 1
        self._latest.append((time.time(), places))
        if len(self._latest) > self._size:
            for name, place in self._latest.popleft()[1].items():
                self.counts[name][place] -= 1

    def psi(self) -> dict[str, float]:
        """Return the PSI of each quantity."""
        return {name: psi(h["counts"], self.counts[name]) for name, h in self.reference.items()}


def _place(bins: Mapping[str, Any], value: float | str | None) -> int | None:
    if isinstance(value, str):
        return bins["labels"].index(value) if value in bins.get("labels", ()) else None
    return None if value is None or "edges" not in bins else bisect_right(bins["edges"], value)
