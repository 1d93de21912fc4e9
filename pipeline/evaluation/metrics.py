"""Stage ``evaluate``: the trained network on the test fold, which nothing before has seen."""

from math import sqrt
from statistics import NormalDist

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from pipeline.params import EvaluateParams


def metrics(
    predictions: pd.DataFrame, labels: list[str], settings: EvaluateParams
) -> dict[str, float]:
    """Figures of a set of predictions.

    Parameters
    ----------
    predictions : DataFrame
        As :func:`by_clip` makes it.
    labels : list of str
    settings : EvaluateParams

    Returns
    -------
    dict
        ``accuracy`` with the bounds and the level of its interval, ``macro_f1`` over the labels
        that occur, ``log_loss`` in nats, and the number of ``clips`` and ``recordings``.
    """
    right = (predictions["label"] == predictions["predicted"]).to_numpy()
    low, high = interval(right, predictions["recording"].to_numpy(), settings)
    codes = predictions["label"].map({label: i for i, label in enumerate(labels)}).to_numpy()
    columns = [f"p_{label}" for label in labels]
    of_truth = predictions[columns].to_numpy()[np.arange(len(codes)), codes]
    classes = per_class(predictions, labels)
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_confidence": settings.confidence,
        "macro_f1": float(classes.loc[classes["clips"] > 0, "f1"].mean()),
        "log_loss": float(-np.log(np.maximum(of_truth, 1e-7)).mean()),
        "clips": len(predictions),
        "recordings": int(predictions["recording"].nunique()),
    }


def interval(
    right: np.ndarray, recordings: np.ndarray, settings: EvaluateParams
) -> tuple[float, float]:
    """Interval of the accuracy: what resampling recordings gives, or a score interval if wider.

    Resampling alone claims too much of few clips: from twenty that are all right it draws nothing
    but right ones, and its interval is a point. Wilson's score interval (1927) does not have this
    fault. It takes as many clips as would scatter as these do in their recordings, if each were
    of its own (the effective sample size of surveys; Korn and Graubard 1998).

    Parameters
    ----------
    right : (clips,) bool
    recordings : (clips,)
    settings : EvaluateParams

    Returns
    -------
    low, high : float
    """
    low, high = resampled(right, recordings, settings)
    score_low, score_high = _score_interval(right, recordings, settings.confidence)
    return min(low, score_low), max(high, score_high)


def resampled(
    values: np.ndarray, recordings: np.ndarray, settings: EvaluateParams
) -> tuple[float, float]:
    """Bootstrap interval of a mean over clips, resampling recordings.

    Clips of one recording are alike, so they are drawn together: drawing them one by one would
    claim a narrower interval than the data supports (cluster bootstrap; Field and Welsh 2007).

    Parameters
    ----------
    values : (clips,)
    recordings : (clips,)
    settings : EvaluateParams

    Returns
    -------
    low, high : float
        Percentiles of the resampled means.
    """
    _, codes = np.unique(recordings, return_inverse=True)
    clips = np.bincount(codes).astype(float)
    sums = np.bincount(codes, weights=values)
    rng = np.random.default_rng(settings.seed)
    drawn = rng.integers(len(clips), size=(settings.bootstrap, len(clips)))
    means = sums[drawn].sum(axis=1) / clips[drawn].sum(axis=1)
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _score_interval(
    right: np.ndarray, recordings: np.ndarray, confidence: float
) -> tuple[float, float]:
    _, codes = np.unique(recordings, return_inverse=True)
    clips = np.bincount(codes)
    accuracy = float(right.mean())
    scatter = np.bincount(codes, weights=right) - accuracy * clips
    variance = float((scatter**2).sum()) / right.size**2
    # where all are right or all wrong, nothing is known of how alike the clips of a recording are
    size = min(accuracy * (1 - accuracy) / variance, right.size) if variance else clips.size
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (accuracy + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * sqrt(accuracy * (1 - accuracy) / size + (z / (2 * size)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def per_class(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Precision, recall and F1 of every label.

    Returns
    -------
    DataFrame
        Columns ``label``, ``precision``, ``recall``, ``f1``, ``clips``; a figure that would
        divide by zero is 0.
    """
    precision, recall, f1, clips = precision_recall_fscore_support(
        predictions["label"], predictions["predicted"], labels=labels, zero_division=0.0
    )
    return pd.DataFrame(
        {"label": labels, "precision": precision, "recall": recall, "f1": f1, "clips": clips}
    )


def reliability(predictions: pd.DataFrame, labels: list[str], bins: int = 10) -> pd.DataFrame:
    """Tabulate how often the highest probability is right, by how high it is.

    Parameters
    ----------
    predictions : DataFrame
        As :func:`by_clip` makes it.
    labels : list of str
    bins : int
        Of equal width (DeGroot and Fienberg 1983).

    Returns
    -------
    DataFrame
        A row a bin that holds clips: mean ``confidence``, ``accuracy`` and number of ``clips``.
    """
    sure = confidence(predictions, labels)
    right = predictions["label"] == predictions["predicted"]
    places = pd.Series(sure * bins, predictions.index).astype(int).clip(upper=bins - 1)
    table = pd.DataFrame({"confidence": sure, "accuracy": right, "clips": 1})
    how = {"confidence": "mean", "accuracy": "mean", "clips": "sum"}
    return table.groupby(places).agg(how).reset_index(drop=True)


def confidence(predictions: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Highest probability of every clip of :func:`by_clip`, shape (clips,)."""
    highest: np.ndarray = predictions[[f"p_{label}" for label in labels]].to_numpy().max(axis=1)
    return highest


def answered(predictions: pd.DataFrame, labels: list[str], threshold: float) -> dict[str, float]:
    """Figures of a model that gives no answer below a threshold.

    Parameters
    ----------
    predictions : DataFrame
        As :func:`by_clip` makes it.
    labels : list of str
    threshold : float

    Returns
    -------
    dict
        ``threshold``; ``coverage``, the share of clips that get an answer; and
        ``accuracy_answered``, of these, which is 0 where there are none.
    """
    kept = confidence(predictions, labels) >= threshold
    right = (predictions["label"] == predictions["predicted"]).to_numpy()
    return {
        "threshold": threshold,
        "coverage": float(kept.mean()),
        "accuracy_answered": float(right[kept].mean()) if kept.any() else 0.0,
    }
