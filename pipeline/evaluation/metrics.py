"""Compute figures from predictions: accuracy with its interval, per class, reliability."""

from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from pipeline.params import EvaluateParams
from pipeline.training import calibration


def test_figures(
    predictions: pd.DataFrame,
    uncalibrated: pd.DataFrame,
    validation: pd.DataFrame,
    labels: list[str],
    settings: EvaluateParams,
    temperature: float,
) -> dict[str, Any]:
    """Compute the figures of the test fold, as ``reports/metrics.json`` holds them.

    Parameters
    ----------
    predictions : DataFrame
        The model's predictions for the test fold, from
        :func:`pipeline.training.predictions.by_clip`.
    uncalibrated : DataFrame
        The same at temperature 1.
    validation : DataFrame
        The model's predictions for the validation fold, which set the threshold.
    labels : list of str
        In the model's order.
    settings : EvaluateParams
    temperature : float
        The temperature built into the model.

    Returns
    -------
    dict
        What :func:`main_figures` and :func:`abstention_figures` return, ``temperature``,
        ``calibration_error``, and ``calibration_error_before`` and ``log_loss_before`` of the
        uncalibrated predictions.
    """
    threshold = calibration.threshold(confidence(validation, labels), settings.coverage)
    return {
        **main_figures(predictions, labels, settings),
        "temperature": temperature,
        "calibration_error": calibration.calibration_error(reliability(predictions, labels)),
        "calibration_error_before": calibration.calibration_error(
            reliability(uncalibrated, labels)
        ),
        "log_loss_before": log_loss(uncalibrated, labels),
        **abstention_figures(predictions, labels, threshold),
    }


def crossval_figures(
    predictions: pd.DataFrame, scores: pd.DataFrame, labels: list[str], settings: EvaluateParams
) -> dict[str, Any]:
    """Compute the figures of a cross-validation, as ``reports/crossval.json`` holds them.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`pipeline.training.folds.by_clip`.
    scores : DataFrame
        From :func:`pipeline.training.folds.by_unit`.
    labels : list of str
    settings : EvaluateParams

    Returns
    -------
    dict
        ``accuracy`` (mean over the seeds) with the bounds and the level of its interval,
        ``std_over_folds``, ``std_over_seeds`` if there are several seeds, what
        :func:`class_figures` returns, and the numbers of ``clips``, ``recordings``, ``seeds``,
        ``cpu_seconds_per_unit`` and ``parameters``.
    """
    right = predictions["label"] == predictions["predicted"]
    low, high = interval(right.to_numpy(), predictions["recording"].to_numpy(), settings)
    seeds = right.groupby(predictions["seed"]).mean()
    return {
        "accuracy": float(seeds.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_confidence": settings.confidence,
        "std_over_folds": float(scores.groupby("fold")["accuracy"].mean().std(ddof=1)),
        # with one seed the spread is unknown, which is not the same as zero
        **({"std_over_seeds": float(seeds.std(ddof=1))} if len(seeds) > 1 else {}),
        **class_figures(per_class(predictions, labels)),
        "clips": int(scores.groupby("seed")["clips"].sum().iloc[0]),
        "recordings": int(predictions["recording"].nunique()),
        "seeds": len(seeds),
        "cpu_seconds_per_unit": float(scores["cpu_seconds"].mean()),
        "parameters": int(scores["parameters"].iloc[0]),
    }


def main_figures(
    predictions: pd.DataFrame, labels: list[str], settings: EvaluateParams
) -> dict[str, Any]:
    """Compute the main figures of a set of predictions.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`pipeline.training.predictions.by_clip`.
    labels : list of str
    settings : EvaluateParams

    Returns
    -------
    dict
        ``accuracy`` with the bounds and the level of its interval, what :func:`class_figures`
        returns, ``log_loss`` in nats, and the number of ``clips`` and ``recordings``.
    """
    right = (predictions["label"] == predictions["predicted"]).to_numpy()
    low, high = interval(right, predictions["recording"].to_numpy(), settings)
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_confidence": settings.confidence,
        **class_figures(per_class(predictions, labels)),
        "log_loss": log_loss(predictions, labels),
        "clips": len(predictions),
        "recordings": int(predictions["recording"].nunique()),
    }


def log_loss(predictions: pd.DataFrame, labels: list[str]) -> float:
    """Compute the mean negative log probability of the true label, in nats."""
    codes = predictions["label"].map({label: i for i, label in enumerate(labels)}).to_numpy()
    columns = [f"p_{label}" for label in labels]
    true_probabilities = predictions[columns].to_numpy()[np.arange(len(codes)), codes]
    return float(-np.log(np.maximum(true_probabilities, 1e-7)).mean())


def interval(
    right: np.ndarray, recordings: np.ndarray, settings: EvaluateParams
) -> tuple[float, float]:
    """Compute an interval for an accuracy: the wider bounds of a bootstrap and a score interval.

    The bootstrap resamples recordings. Alone it is too narrow for few clips: if all of twenty
    clips are right, every resample is right too, and the interval is a single point. Wilson's
    score interval (1927) does not have this fault. It uses an effective sample size: the number
    of independent clips that would vary as much as these clips do within their recordings (Korn
    and Graubard 1998).

    Parameters
    ----------
    right : array, shape (clips,), bool
    recordings : array, shape (clips,), str
    settings : EvaluateParams

    Returns
    -------
    low, high : float
    """
    low, high = bootstrap_interval(right, recordings, settings)
    score_low, score_high = _score_interval(right, recordings, settings.confidence)
    return min(low, score_low), max(high, score_high)


def bootstrap_interval(
    values: np.ndarray, recordings: np.ndarray, settings: EvaluateParams
) -> tuple[float, float]:
    """Compute the bootstrap interval of a mean over clips by resampling recordings.

    Clips of one recording are alike, so they are drawn together. Drawing single clips would give
    a narrower interval than the data supports (cluster bootstrap; Field and Welsh 2007).

    Parameters
    ----------
    values : array, shape (clips,), bool or float
    recordings : array, shape (clips,), str
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
    # if all clips are right or all are wrong, the data cannot show how alike the clips of one
    # recording are, so each recording counts once
    size = min(accuracy * (1 - accuracy) / variance, right.size) if variance else clips.size
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (accuracy + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * sqrt(accuracy * (1 - accuracy) / size + (z / (2 * size)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def class_figures(classes: pd.DataFrame) -> dict[str, Any]:
    """Compute the figures in which every class counts alike, however few clips it has.

    Parameters
    ----------
    classes : DataFrame
        From :func:`per_class`. Labels without clips are left out.

    Returns
    -------
    dict
        ``balanced_accuracy``, the mean of the recalls (Brodersen et al., "The balanced accuracy and
        its posterior distribution", ICPR 2010); ``worst_recall``, the lowest of them, and
        ``worst_class``, its label; and ``macro_f1``.
    """
    tested = classes[classes["clips"] > 0]
    worst = tested.sort_values("recall", kind="stable").iloc[0]
    return {
        "balanced_accuracy": float(tested["recall"].mean()),
        "worst_recall": float(worst["recall"]),
        "worst_class": str(worst["label"]),
        "macro_f1": float(tested["f1"].mean()),
    }


def per_class(
    predictions: pd.DataFrame, labels: list[str], everything: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compute precision, recall and F1 of each label, and count its clips and recordings.

    Parameters
    ----------
    predictions : DataFrame
        ``label``, ``predicted`` and ``recording`` of each clip.
    labels : list of str
    everything : DataFrame, optional
        ``label`` and ``recording`` of all clips of the dataset; if left out, the predictions are
        for all of them.

    Returns
    -------
    DataFrame
        Columns ``label``, ``precision``, ``recall``, ``f1``, ``clips`` and ``recordings`` of the
        predictions, and ``recordings_in_all``. A score that would divide by zero is 0.
    """
    precision, recall, f1, clips = precision_recall_fscore_support(
        predictions["label"], predictions["predicted"], labels=labels, zero_division=0.0
    )

    def recordings(clips: pd.DataFrame) -> np.ndarray:
        counts = clips.groupby("label")["recording"].nunique()
        return counts.reindex(labels, fill_value=0).to_numpy()

    return pd.DataFrame(
        {
            "label": labels,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "clips": clips,
            "recordings": recordings(predictions),
            "recordings_in_all": recordings(predictions if everything is None else everything),
        }
    )


def confusion(predictions: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Count the clips of each true label (rows) per predicted label (columns).

    Returns
    -------
    array, shape (classes, classes), int64
    """
    counts: np.ndarray = confusion_matrix(
        predictions["label"], predictions["predicted"], labels=labels
    )
    return counts


def reliability(predictions: pd.DataFrame, labels: list[str], bins: int = 10) -> pd.DataFrame:
    """Tabulate accuracy against confidence, the numbers behind a reliability diagram.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`pipeline.training.predictions.by_clip`.
    labels : list of str
    bins : int
        Number of bins of equal width (DeGroot and Fienberg 1983).

    Returns
    -------
    DataFrame
        One row per bin that is not empty: mean ``confidence``, ``accuracy`` and the number of
        ``clips``.
    """
    sure = confidence(predictions, labels)
    right = predictions["label"] == predictions["predicted"]
    places = pd.Series(sure * bins, predictions.index).astype(int).clip(upper=bins - 1)
    table = pd.DataFrame({"confidence": sure, "accuracy": right, "clips": 1})
    how = {"confidence": "mean", "accuracy": "mean", "clips": "sum"}
    return table.groupby(places).agg(how).reset_index(drop=True)


def confidence(predictions: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Return the highest probability of each clip: array, shape (clips,), float."""
    highest: np.ndarray = predictions[[f"p_{label}" for label in labels]].to_numpy().max(axis=1)
    return highest


def trade_off(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Tabulate coverage and accuracy at every threshold.

    See :func:`pipeline.training.calibration.trade_off`.
    """
    right = (predictions["label"] == predictions["predicted"]).to_numpy()
    return calibration.trade_off(confidence(predictions, labels), right)


def abstention_figures(
    predictions: pd.DataFrame, labels: list[str], threshold: float
) -> dict[str, float]:
    """Compute the figures of a model that abstains below a threshold.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`pipeline.training.predictions.by_clip`.
    labels : list of str
    threshold : float

    Returns
    -------
    dict
        ``threshold``; ``coverage``, the share of clips that are classified; and
        ``accuracy_answered``, the accuracy on these clips, which is 0 if there are none.
    """
    kept = confidence(predictions, labels) >= threshold
    right = (predictions["label"] == predictions["predicted"]).to_numpy()
    return {
        "threshold": threshold,
        "coverage": float(kept.mean()),
        "accuracy_answered": float(right[kept].mean()) if kept.any() else 0.0,
    }
