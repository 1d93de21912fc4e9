"""Compare a training with its repetition: data, weights, predictions, metrics and libraries."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.tracking import provenance

TOLERANCE = 0.05
"""Largest difference on another machine, in a test metric or in the mean probability.

Another processor adds numbers in another order, which changes the last bit of a sum; over the
epochs of a training the difference grows. Trained with other kernels (without oneDNN's), the
default model's accuracy changed by 0.034, its log loss by 0.045, its probabilities by 0.015 on
average.
"""

METRICS = ("accuracy", "macro_f1", "log_loss")
"""The test metrics that are compared; the interval also depends on other settings."""

CLIP_FACTS = ("label", "fold", "recording")
"""Columns that have to be equal for every clip, besides its audio."""


@dataclass(frozen=True, eq=False)
class Training:
    """The results of one training and its evaluation."""

    model_sha256: str
    metrics: Mapping[str, float]
    """Metrics on the test fold."""
    predictions: pd.DataFrame
    """One row per test clip: ``path``, ``predicted`` and ``p_<label>``."""
    clips: pd.DataFrame
    """One row per clip: ``path`` and the columns of :data:`CLIP_FACTS`, as far as recorded."""
    tags: Mapping[str, str]
    """Tags of the run: hashes, libraries, machine."""


@dataclass(frozen=True)
class Comparison:
    """How closely a training has been reproduced."""

    agrees: bool
    lines: tuple[str, ...]
    """Each comparison with its result."""
    verdict: str


def compare(original: Training, repeated: Training) -> Comparison:
    """Compare a training with its repetition.

    Parameters
    ----------
    original, repeated : Training

    Returns
    -------
    Comparison
        They agree if the data are the same and the weights and metrics are bit-identical. On
        another machine or with other libraries it is enough that the metrics and, on average, the
        probabilities differ by at most :data:`TOLERANCE`.
    """
    data = data_differences(original, repeated)
    environment = environment_differences(original.tags, repeated.tags)
    same_weights = original.model_sha256 == repeated.model_sha256
    metrics = {name: (original.metrics[name], repeated.metrics[name]) for name in METRICS}
    same_metrics = all(was == now for was, now in metrics.values())
    both = original.predictions.merge(repeated.predictions, on="path", suffixes=("", "_repeated"))
    columns = [name for name in original.predictions if str(name).startswith("p_")]
    apart = np.abs(both[columns].to_numpy() - both[[f"{c}_repeated" for c in columns]].to_numpy())
    same_labels = int((both["predicted"] == both["predicted_repeated"]).sum())
    lines = (
        f"data         {'; '.join(data) or 'equal'}",
        f"weights      {'bit-identical' if same_weights else 'different'}",
        f"predictions  {same_labels} of {len(both)} test clips get the same label; the"
        f" probabilities differ by {apart.mean():.1e} on average and by at most {apart.max():.1e}",
        *(f"{name:12} {was:.4f} before, {now:.4f} now" for name, (was, now) in metrics.items()),
        f"environment  {'; '.join(environment) or 'same libraries and machine'}",
    )
    if data:
        return Comparison(False, lines, f"the data differ ({'; '.join(data)})")
    if len(both) < len(original.predictions):
        lost = len(original.predictions) - len(both)
        return Comparison(False, lines, f"{lost} test clips have no prediction any more")
    if same_weights and same_metrics:
        return Comparison(True, lines, "weights and metrics are bit-identical")
    if not environment:
        return Comparison(False, lines, "the same machine and libraries gave another result")
    largest = max(float(apart.mean()), *(abs(now - was) for was, now in metrics.values()))
    return Comparison(
        largest <= TOLERANCE,
        lines,
        f"not bit-identical ({'; '.join(environment)}); metrics and probabilities are"
        f" {'within' if largest <= TOLERANCE else 'beyond'} the tolerance of {TOLERANCE:g}",
    )


def data_differences(original: Training, repeated: Training) -> list[str]:
    """List the differences between the clips of two trainings; empty if there are none.

    The hash of the dataset covers the audio files only, so labels, folds and recordings are
    compared clip by clip.
    """
    found = []
    if original.tags["dataset.sha256"] != repeated.tags["dataset.sha256"]:
        found.append("other audio files")
    both = original.clips.merge(repeated.clips, on="path", suffixes=("", "_repeated"))
    missing = len(original.clips) - len(both)
    if missing:
        found.append(f"{missing} clip{'s are' if missing > 1 else ' is'} missing")
    for name in CLIP_FACTS:
        if {name, f"{name}_repeated"} <= set(both):
            changed = int((both[name] != both[f"{name}_repeated"]).sum())
            if changed:
                found.append(f"{changed} clip{'s have' if changed > 1 else ' has'} another {name}")
    return found


def environment_differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List the libraries whose version differs, and the machine if it differs."""
    tags = [f"lineage.{name}" for name in ("machine", "python", *provenance.LIBRARIES)]
    return [
        f"{tag.removeprefix('lineage.')} {before.get(tag, 'unknown')} before,"
        f" {now.get(tag, 'unknown')} now"
        for tag in tags
        if before.get(tag) != now.get(tag)
    ]
