"""Measure how much a random split would overstate accuracy.

The network of ``train`` is trained twice with the same parameters and seeds: on the dataset's folds
and on folds into which the clips were shuffled. This is the only random split in the project.
"""

import numpy as np
import pandas as pd

from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import metrics
from pipeline.params import EvaluateParams, Params


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
    numbers = sorted({int(fold) for fold in index["fold"]})
    predictions = []
    for seed in settings.crossval.seeds:
        units = [folds.Unit(fold, seed) for fold in numbers]
        for protocol, used in (
            ("folds of the dataset", index),
            ("random split", shuffled(index, seed)),
        ):
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
