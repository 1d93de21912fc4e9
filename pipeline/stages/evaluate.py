"""Stage ``evaluate``: the trained model on the untouched test fold."""

import json

import numpy as np

from pipeline import drawing, params, paths, tables
from pipeline.backend import keras
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import metrics, plots, search_plots
from pipeline.sound import examples
from pipeline.sound.features import FeatureSpec
from pipeline.tracking import runs, store
from pipeline.training import calibration, fit
from pipeline.training.predictions import by_clip


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
    classes = metrics.per_class(predictions, labels)
    bins = metrics.reliability(predictions, labels)
    figures = metrics.test_figures(
        predictions, before, validation, labels, settings.evaluate, temperature
    )
    trade_off = metrics.trade_off(predictions, labels)

    predictions.to_csv(paths.PREDICTIONS, index=False, float_format="%.6f")
    classes.to_csv(paths.PER_CLASS, index=False, float_format="%.6f")
    bins.to_csv(paths.RELIABILITY, index=False, float_format="%.6f")
    trade_off.to_csv(paths.ABSTENTION, index=False, float_format="%.6f")
    examples.save(paths.EXAMPLES, predictions, spec.sample_rate)
    paths.METRICS.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    matrix = metrics.confusion(predictions, labels)
    title = (
        f"Accuracy {figures['accuracy']:.1%} on {len(predictions)} clips of test fold"
        f" {folds.test_fold}"
    )
    drawing.save(plots.confusion(matrix, labels, title), paths.CONFUSION_PLOT)
    history = tables.read(paths.HISTORY)
    drawing.save(plots.learning_curves(history), paths.LEARNING_CURVES)
    drawing.save(plots.per_class(classes), paths.PER_CLASS_PLOT)
    title = f"Reliability diagram, test fold {folds.test_fold}"
    drawing.save(plots.reliability(bins, title), paths.RELIABILITY_PLOT)
    title = f"Accuracy against coverage, test fold {folds.test_fold}"
    drawing.save(plots.abstention(trade_off, title), paths.ABSTENTION_PLOT)
    trials = tables.read(paths.TRIALS)
    drawing.save(search_plots.history(trials), paths.SEARCH_PLOT)

    client = store.connect()
    runs.log_evaluation(client, runs.ensure(client, record))
    return (
        f"accuracy {figures['accuracy']:.1%} on {len(predictions)} clips of test fold"
        f" {folds.test_fold} ({settings.evaluate.confidence:.0%} interval"
        f" {figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}),"
        f" macro F1 {figures['macro_f1']:.3f}, calibration error"
        f" {figures['calibration_error']:.3f}"
    )
