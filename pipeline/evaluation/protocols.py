"""Measure how much a random split would overstate accuracy.

The network of ``train`` is trained twice with the same parameters and seeds: on the dataset's folds
and on folds into which the clips were shuffled. This is the only random split in the project.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import params, paths
from pipeline.data.feature_store import read as read_features
from pipeline.data.split import by_fold
from pipeline.evaluation import metrics
from pipeline.params import EvaluateParams, Params

if TYPE_CHECKING:
    from pipeline.training import folds

MEASURED_BATCHES = 16
"""Number of batches that are trained to estimate the time of a whole training."""


def shuffled(index: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Shuffle clips into the same number of folds, ignoring which recording they come from.

    This is the mistake that the project guards against, made on purpose. Each label is spread
    evenly over the folds.

    Parameters
    ----------
    index : DataFrame
        One row per window: ``path``, ``label``, ``fold``, ``recording``.
    seed : int

    Returns
    -------
    DataFrame
        `index` with the new folds. Each clip is named as a recording of its own, so that
        :func:`pipeline.data.split.by_fold` accepts the folds.
    """
    rng = np.random.default_rng(seed)
    names = np.sort(index["fold"].unique())
    clips = index[["path", "label"]].drop_duplicates("path")
    # deal the clips of each label out like cards
    order = clips.iloc[rng.permutation(len(clips))].sort_values("label", kind="stable")
    dealt = pd.Series(names[np.arange(len(order)) % len(names)], order["path"])
    return index.assign(fold=index["path"].map(dealt), recording=index["path"])


def _trainings(
    settings: Params, index: pd.DataFrame
) -> Iterator[tuple[str, list["folds.Unit"], pd.DataFrame]]:
    """Yield each protocol with its units of one seed and the folds that they use."""
    from pipeline.training import folds

    numbers = sorted({int(fold) for fold in index["fold"]})
    for seed in settings.crossval.seeds:
        units = [folds.Unit(fold, seed) for fold in numbers]
        yield "folds of the dataset", units, index
        yield "random split", units, shuffled(index, seed)


def missing(settings: Params) -> int:
    """Count the networks that :func:`train` would train, without those that are kept."""
    from pipeline.training import folds

    count = 0
    for _, units, used in _trainings(settings, read_features().index):
        key = folds.unit_key(settings.train, settings.crossval.validate_, used)
        files = [folds.unit_file(paths.CROSSVAL_UNITS / key, unit) for unit in units]
        count += sum(not file.is_file() for file in files)
    return count


def estimate(settings: Params, labels: list[str], networks: int) -> float:
    """Estimate how long it takes to train networks, from a few batches in as many processes.

    Parameters
    ----------
    settings : Params
        ``train`` and ``crossval`` are used.
    labels : list of str
    networks : int

    Returns
    -------
    float
        Seconds.
    """
    from pipeline.training import workers

    processes = workers.process_count(settings.crossval.workers, networks)
    with workers.pool(processes) as executor:
        jobs = [executor.submit(_seconds_per_network, settings, labels) for _ in range(processes)]
        slowest = max(job.result() for job in jobs)
    return slowest * math.ceil(networks / processes)


def _seconds_per_network(settings: Params, labels: list[str]) -> float:
    """Train a few batches twice; the first time includes what is done once per network."""
    from pipeline.training import fit

    started = time.monotonic()
    featurized = read_features()
    fold = int(featurized.index["fold"].min())
    split = by_fold(featurized.index, fold, settings.crossval.validate_)
    steps = math.ceil(len(split.train) / settings.train.batch_size)
    measured = min(steps, MEASURED_BATCHES)
    few = replace(split, train=split.train[: measured * settings.train.batch_size])
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, few, labels)
    short = params.with_values(settings.train, {"epochs": 2, "ensemble": 1})
    ends: list[float] = []
    fit.fit(data, short, "measure", lambda _epoch, _metrics: ends.append(time.monotonic()))
    first, second = ends
    step = (second - first) / measured
    once = max(0.0, first - started - (second - first))
    return settings.train.ensemble * (once + step * steps * settings.train.epochs)


def train(settings: Params, labels: list[str], index: pd.DataFrame | None = None) -> pd.DataFrame:
    """Train and score the same networks on the dataset's folds and on shuffled ones.

    Parameters
    ----------
    settings : Params
        ``train`` and ``crossval`` are used.
    labels : list of str
    index : DataFrame, optional
        See :func:`pipeline.training.folds.run_units`.

    Returns
    -------
    DataFrame
        One row per clip, seed and protocol: ``protocol``, ``seed``, ``path``, ``label``,
        ``predicted``, ``recording`` (from the dataset), ``fold`` (in which it was scored).
    """
    from pipeline.training import folds  # here, because it loads Keras

    index = read_features().index if index is None else index
    predictions = []
    for protocol, units, used in _trainings(settings, index):
        _, results = folds.run(units, settings.train, settings.crossval, labels, used)
        predictions.append(folds.by_clip(units, results).assign(protocol=protocol))
    columns = ["protocol", "seed", "path", "label", "predicted", "fold"]
    recordings = index.drop_duplicates("path").set_index("path")["recording"]
    table = pd.concat(predictions, ignore_index=True)[columns]
    return table.assign(recording=table["path"].map(recordings))


def compare(predictions: pd.DataFrame, settings: EvaluateParams) -> pd.DataFrame:
    """Compare the accuracy of the protocols on the same clips.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`train`.
    settings : EvaluateParams

    Returns
    -------
    DataFrame
        One row per protocol: ``protocol``; ``accuracy`` with its interval, from
        ``accuracy_low`` to ``accuracy_high``; ``gain`` over the first protocol on the same
        clips, with ``gain_low`` and ``gain_high``.
    """
    right = (
        predictions.assign(right=predictions["label"] == predictions["predicted"])
        .pivot_table(index=["seed", "path"], columns="protocol", values="right", sort=False)
        .astype(float)
    )
    first, *_ = right.columns
    recordings = predictions.drop_duplicates("path").set_index("path")["recording"]
    recording = recordings.loc[right.index.get_level_values("path")].to_numpy()
    rows = []
    for protocol in right.columns:
        hits = right[protocol].to_numpy()
        gain = hits - right[first].to_numpy()
        low, high = metrics.interval(hits, recording, settings)
        gain_low, gain_high = metrics.bootstrap_interval(gain, recording, settings)
        rows.append(
            {
                "protocol": protocol,
                "accuracy": hits.mean(),
                "accuracy_low": low,
                "accuracy_high": high,
                "gain": gain.mean(),
                "gain_low": gain_low,
                "gain_high": gain_high,
            }
        )
    return pd.DataFrame(rows)
