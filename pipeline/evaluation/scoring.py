"""Score a trained network on the test fold, which was not used to train or choose anything."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline import drawing, paths, tables
from pipeline.data.feature_store import Features
from pipeline.data.split import Split
from pipeline.evaluation import metrics, plots, search_plots
from pipeline.params import EvaluateParams
from pipeline.sound.features import FeatureSpec, Rows
from pipeline.tracking import runs
from pipeline.training import calibration
from pipeline.training.predictions import by_clip

Predict = Callable[[np.ndarray], np.ndarray]
"""Takes row numbers of the features; returns array, shape (rows, classes), float32."""


@dataclass(frozen=True)
class Scored:
    """The predictions on the test fold, and the tables and figures computed from them."""

    predictions: pd.DataFrame
    classes: pd.DataFrame
    bins: pd.DataFrame
    trade_off: pd.DataFrame
    figures: dict[str, Any]


def predictor(features: Features, spec: FeatureSpec) -> Predict:
    """Return a function that predicts rows of the features with the trained network.

    Parameters
    ----------
    features : Features
    spec : FeatureSpec
        The network's own, with statistics.
    """
    from pipeline.backend import keras
    from pipeline.training import fit

    network = keras.saving.load_model(paths.MODEL)

    def predict(rows: np.ndarray) -> np.ndarray:
        return fit.predict(network, Rows(features.array, rows), spec)

    return predict


def score(
    predict: Predict,
    index: pd.DataFrame,
    folds: Split,
    labels: list[str],
    temperature: float,
    settings: EvaluateParams,
) -> Scored:
    """Predict the test fold and compute its figures.

    Parameters
    ----------
    predict : callable
        As :func:`predictor` makes it.
    index : DataFrame
        One row per window.
    folds : Split
    labels : list of str
        In the order of the network's outputs.
    temperature : float
        The one that is built into the network; the figures compare with the uncalibrated network.
    settings : EvaluateParams

    Returns
    -------
    Scored
    """
    probabilities = predict(folds.test)
    test = index.iloc[folds.test]
    predictions = by_clip(test, probabilities, labels)
    uncalibrated = by_clip(test, calibration.soften(probabilities, 1 / temperature), labels)
    validation = by_clip(index.iloc[folds.validation], predict(folds.validation), labels)
    return Scored(
        predictions,
        metrics.per_class(predictions, labels, index),
        metrics.reliability(predictions, labels),
        metrics.trade_off(predictions, labels),
        metrics.test_figures(predictions, uncalibrated, validation, labels, settings, temperature),
    )


def write(scored: Scored, model_sha256: str) -> None:
    """Write the tables, and the figures with the hash of the model that they are for."""
    tables.write(paths.PREDICTIONS, scored.predictions, digits=6)
    tables.write(paths.PER_CLASS, scored.classes, digits=6)
    tables.write(paths.RELIABILITY, scored.bins, digits=6)
    tables.write(paths.ABSTENTION, scored.trade_off, digits=6)
    tables.write_json(paths.METRICS, scored.figures | {runs.MODEL_HASH: model_sha256})


def draw(scored: Scored, labels: list[str], test_fold: int) -> None:
    """Draw the pictures of the test fold, of the training and of the search."""
    predictions, accuracy = scored.predictions, scored.figures["accuracy"]
    matrix = metrics.confusion(predictions, labels)
    title = f"Accuracy {accuracy:.1%} on {len(predictions)} clips of test fold {test_fold}"
    drawing.save(plots.confusion(matrix, labels, title), paths.CONFUSION_PLOT)
    drawing.save(plots.per_class(scored.classes), paths.PER_CLASS_PLOT)
    title = f"Reliability diagram, test fold {test_fold}"
    drawing.save(plots.reliability(scored.bins, title), paths.RELIABILITY_PLOT)
    title = f"Accuracy against coverage, test fold {test_fold}"
    drawing.save(plots.abstention(scored.trade_off, title), paths.ABSTENTION_PLOT)
    drawing.save(plots.learning_curves(tables.read(paths.HISTORY)), paths.LEARNING_CURVES)
    drawing.save(search_plots.history(tables.read(paths.TRIALS)), paths.SEARCH_PLOT)
