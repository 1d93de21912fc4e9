"""Train and score every official fold once with each seed.

    dvc repro crossval/dvc.yaml
    python -m pipeline crossval

This is the protocol that published figures use. It is not part of ``dvc repro``, because it takes
long: it trains one network per fold and seed. Each of these trainings is a unit. Finished units are
kept, so a cross-validation that was stopped continues. The figures are written to
``reports/crossval.json``.
"""

from typing import Any

from pipeline import drawing, evidence, params, paths, tables
from pipeline.evaluation import crossval, metrics, plots
from pipeline.training import folds


def main() -> str:
    """Train the missing units, score all and log them; return the closing line."""
    settings = params.load()
    card = tables.read_json(paths.DATASET)
    labels = card["labels"]
    units = [folds.Unit(fold, seed) for seed in settings.crossval.seeds for fold in card["folds"]]
    missing, results = folds.run(units, settings.train, settings.crossval, labels)
    predictions = folds.by_clip(units, results)
    scores = folds.by_unit(units, results)
    classes = metrics.per_class(predictions, labels)
    figures = metrics.crossval_figures(predictions, scores, labels, settings.evaluate)

    tables.write_json(paths.CROSSVAL, figures)
    tables.write(paths.CROSSVAL_FOLDS, scores, digits=6)
    tables.write(paths.CROSSVAL_CLASSES, classes, digits=6)
    tables.write(paths.CROSSVAL_PREDICTIONS, predictions, digits=6)
    matrix = metrics.confusion(predictions, labels)
    seeds = f"{len(settings.crossval.seeds)} seed{'s' if len(settings.crossval.seeds) > 1 else ''}"
    title = f"{figures['accuracy']:.1%} over {len(card['folds'])} folds and {seeds}"
    drawing.save(plots.confusion(matrix, labels, title), paths.CROSSVAL_CONFUSION)
    crossval.log(card, settings.train, settings.crossval, figures, units, results)
    unit = evidence.unit(card)
    first = _line(figures, seeds, f"{missing} of {len(units)} units trained now", unit)
    return evidence.lines(first, evidence.remarks(figures, classes, all_folds=True, unit=unit))


def _line(figures: dict[str, Any], seeds: str, trained: str, unit: str) -> str:
    over_seeds = (
        f" and ± {figures['std_over_seeds']:.1%} over {seeds}"
        if "std_over_seeds" in figures
        else ""
    )
    return (
        f"accuracy {figures['accuracy']:.1%} on {evidence.tested(figures, unit)}"
        f" ({figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}),"
        f" ± {figures['std_over_folds']:.1%} over folds{over_seeds};"
        f" {evidence.by_class(figures)}; {trained}"
    )
