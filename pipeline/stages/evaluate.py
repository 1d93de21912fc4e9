"""Score the trained network on the test fold.

    python -m pipeline evaluate

The figures are written to ``reports/metrics.json``, with the predictions, tables and pictures
beside them. All of it is added to the MLflow run of the training.
"""

from pipeline import evidence, params, paths, tables
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import scoring
from pipeline.sound import examples
from pipeline.sound.features import FeatureSpec
from pipeline.tracking import runs, store


def main() -> str:
    """Score, write and log the test fold; return the closing line."""
    settings = params.load()
    card = tables.read_json(paths.DATASET)
    labels = card["labels"]
    record = runs.read()
    runs.check_clips(record, card)
    features = read_features()
    folds = split.by_fold(features.index, int(record.tags["split.test_fold"]))
    spec = FeatureSpec.load(paths.MODEL_SPEC)

    predict = scoring.predictor(features, spec)
    temperature = record.metrics["temperature"]
    scored = scoring.score(predict, features.index, folds, labels, temperature, settings.evaluate)
    scoring.write(scored, record.tags[runs.MODEL_HASH])
    examples.save(paths.EXAMPLES, scored.predictions, spec.sample_rate)
    scoring.draw(scored, labels, folds.test_fold)

    client = store.connect()
    runs.log_evaluation(client, runs.ensure(client, record))
    return _line(scored, folds.test_fold, evidence.unit(card))


def _line(scored: scoring.Scored, fold: int, unit: str) -> str:
    figures = scored.figures
    first = (
        f"accuracy {figures['accuracy']:.1%} on {evidence.tested(figures, unit)} of test fold"
        f" {fold} ({figures['accuracy_confidence']:.0%} interval {figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%}), {evidence.by_class(figures)},"
        f" calibration error {figures['calibration_error']:.3f}"
    )
    return evidence.lines(first, evidence.remarks(figures, scored.classes, unit=unit))
