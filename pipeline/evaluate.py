"""Stage ``evaluate``: the trained network on the test fold, which nothing before has seen."""

import json
from math import sqrt
from statistics import NormalDist

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from pipeline import (
    calibration,
    examples,
    fit,
    params,
    paths,
    plots,
    runs,
    split,
    stage,
    tracking,
)
from pipeline.backend import keras
from pipeline.features import FeatureSpec
from pipeline.featurize import read as read_features
from pipeline.params import EvaluateParams


def main() -> str:
    """Predict the test clips, write figures and pictures, add them to the training run.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    labels = card["labels"]
    record = runs.read()
    featurized = read_features()
    folds = split.by_fold(featurized.index, int(record.tags["split.test_fold"]))
    network = keras.saving.load_model(paths.MODEL)
    spec = FeatureSpec.load(paths.MODEL_SPEC)

    def predict(rows: np.ndarray) -> np.ndarray:
        inputs = fit.network_input(featurized.array[rows], spec)
        return np.asarray(network.predict(inputs, batch_size=64, verbose=0))

    probabilities = predict(folds.test)
    index = featurized.index.iloc[folds.test]
    predictions = by_clip(index, probabilities, labels)
    temperature = record.metrics["temperature"]
    before = by_clip(index, calibration.soften(probabilities, 1 / temperature), labels)
    validation = by_clip(featurized.index.iloc[folds.validation], predict(folds.validation), labels)
    threshold = calibration.threshold(confidence(validation, labels), settings.evaluate.coverage)
    classes = per_class(predictions, labels)
    bins = reliability(predictions, labels)
    figures = {
        **metrics(predictions, labels, settings.evaluate),
        "temperature": temperature,
        "calibration_error": calibration.calibration_error(bins),
        "calibration_error_before": calibration.calibration_error(reliability(before, labels)),
        "log_loss_before": metrics(before, labels, settings.evaluate)["log_loss"],
        **answered(predictions, labels, threshold),
    }
    right = (predictions["label"] == predictions["predicted"]).to_numpy()
    trade_off = calibration.trade_off(confidence(predictions, labels), right)

    predictions.to_csv(paths.PREDICTIONS, index=False, float_format="%.6f")
    classes.to_csv(paths.PER_CLASS, index=False, float_format="%.6f")
    bins.to_csv(paths.RELIABILITY, index=False, float_format="%.6f")
    trade_off.to_csv(paths.ABSTENTION, index=False, float_format="%.6f")
    examples.save(paths.EXAMPLES, predictions, spec.sample_rate)
    paths.METRICS.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    matrix = confusion_matrix(predictions["label"], predictions["predicted"], labels=labels)
    title = f"Test fold {folds.test_fold}: {figures['accuracy']:.1%} of {len(predictions)} clips"
    plots.save(plots.confusion(matrix, labels, title), paths.CONFUSION_PLOT)
    history = pd.read_csv(paths.HISTORY)
    plots.save(plots.learning_curves(history, fit.BEST), paths.LEARNING_CURVES)
    plots.save(plots.per_class(classes), paths.PER_CLASS_PLOT)
    title = f"Reliability on test fold {folds.test_fold}"
    plots.save(plots.reliability(bins, title), paths.RELIABILITY_PLOT)
    title = f"Only the surest answers, test fold {folds.test_fold}"
    plots.save(plots.abstention(trade_off, title), paths.ABSTENTION_PLOT)
    trials = pd.read_csv(paths.TRIALS)
    plots.save(plots.search_history(trials, fit.BEST), paths.SEARCH_PLOT)

    client = tracking.connect()
    runs.log_evaluation(client, runs.ensure(client, record))
    return (
        f"accuracy {figures['accuracy']:.1%} on {len(predictions)} clips of test fold"
        f" {folds.test_fold} ({settings.evaluate.confidence:.0%} interval"
        f" {figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}),"
        f" macro F1 {figures['macro_f1']:.3f}, calibration error"
        f" {figures['calibration_error']:.3f}"
    )


def by_clip(index: pd.DataFrame, probabilities: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Average the windows of every clip and name the most probable label.

    Parameters
    ----------
    index : DataFrame
        A row a window: ``path``, ``label``, ``fold``, ``recording``.
    probabilities : (rows, classes)
    labels : list of str

    Returns
    -------
    DataFrame
        A row a clip: ``path``, ``label``, ``fold``, ``recording``, ``predicted``, and the
        probability of every label in a column ``p_<label>``.
    """
    columns = [f"p_{label}" for label in labels]
    windows = pd.DataFrame(probabilities, columns=columns, index=index.index)
    keys = ["path", "label", "fold", "recording"]
    clips = pd.concat([index[keys], windows], axis=1).groupby(keys, sort=True).mean().reset_index()
    most_probable = clips[columns].to_numpy().argmax(axis=1)
    clips.insert(len(keys), "predicted", [labels[i] for i in most_probable])
    return clips


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


if __name__ == "__main__":
    stage.run("evaluate", tracking.guarded(main))
