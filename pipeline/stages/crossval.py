"""Stage ``crossval``: every official fold as the test fold once."""

import json
from dataclasses import asdict
from typing import Any

import mlflow
import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline import drawing, params, paths
from pipeline.evaluation import metrics, plots
from pipeline.params import Params
from pipeline.sound.features import FeatureSpec
from pipeline.tracking import provenance, store
from pipeline.training import folds


def main() -> str:
    """Train the units that are missing and report over all of them.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    units = [folds.Unit(fold, seed) for seed in settings.crossval.seeds for fold in card["folds"]]
    missing, results = folds.run(units, settings.train, settings.crossval, card["labels"])
    predictions = folds.by_clip(units, results)
    scores = folds.by_unit(units, results)
    classes = metrics.per_class(predictions, card["labels"])
    figures = metrics.crossval_figures(predictions, scores, card["labels"], settings.evaluate)

    paths.CROSSVAL.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    scores.to_csv(paths.CROSSVAL_FOLDS, index=False, float_format="%.6f")
    classes.to_csv(paths.CROSSVAL_CLASSES, index=False, float_format="%.6f")
    predictions.to_csv(paths.CROSSVAL_PREDICTIONS, index=False, float_format="%.6f")
    matrix = metrics.confusion(predictions, card["labels"])
    title = (
        f"{figures['accuracy']:.1%} over {len(card['folds'])} folds and {figures['seeds']}"
        f" {'seed' if figures['seeds'] == 1 else 'seeds'}"
    )
    drawing.save(plots.confusion(matrix, card["labels"], title), paths.CROSSVAL_CONFUSION)
    log(card, settings, figures, units, results)
    over_seeds = (
        f" and ± {figures['std_over_seeds']:.1%} over {figures['seeds']} seeds"
        if "std_over_seeds" in figures
        else ""
    )
    return (
        f"accuracy {figures['accuracy']:.1%} ({figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%}), ± {figures['std_over_folds']:.1%} over folds"
        f"{over_seeds}; {missing} of {len(units)} units trained now"
    )


def protocol(validate: bool) -> str:
    """Say which folds do what."""
    others = (
        "the next fold (cyclically) chooses the epoch, and the others train"
        if validate
        else "all others train, and the last epoch counts, so that nothing is chosen"
    )
    return f"Every official fold is scored once with each seed: {others}."


def log(
    card: dict[str, Any],
    settings: Params,
    figures: dict[str, float],
    units: list[folds.Unit],
    results: list[dict[str, Any]],
) -> None:
    """Write one MLflow run with a nested run a unit.

    Parameters
    ----------
    card : dict
        The dataset's.
    settings : Params
        Of which ``train`` and ``crossval`` are read.
    figures : dict
        Over all units.
    units : list of Unit
    results : list of dict
        As :func:`run_unit` wrote them, in the order of `units`.
    """
    client = store.connect()
    experiment_id = store.experiment(client, card["name"])
    tags = {
        store.STAGE: "crossval",
        MLFLOW_RUN_NOTE: protocol(settings.crossval.validate_),
        **provenance.of_dataset(card),
        **provenance.lineage(),
    }
    logged = store.flatten(
        {
            # how many trained at a time changes nothing
            "crossval": settings.crossval.model_dump(
                mode="json", by_alias=True, exclude={"workers"}
            ),
            "features": FeatureSpec.load(paths.FEATURE_SPEC).to_dict(),
            "train": settings.train.model_dump(exclude={"seed"}),
        }
    )
    name = f"crossval {settings.train.network} on {card['name']}"
    with store.run(experiment_id, name, tags) as parent:
        mlflow.log_params(logged)
        mlflow.log_metrics(figures)
        for file in (
            paths.CROSSVAL_FOLDS,
            paths.CROSSVAL_CLASSES,
            paths.CROSSVAL_PREDICTIONS,
            paths.CROSSVAL_CONFUSION,
        ):
            mlflow.log_artifact(str(file))
        accuracies = folds.by_unit(units, results)["accuracy"].tolist()
        for unit, result, accuracy in zip(units, results, accuracies, strict=True):
            nested = {store.STAGE: "crossval unit", "split.test_fold": str(unit.fold)}
            with store.run(
                experiment_id, f"fold {unit.fold}, seed {unit.seed}", nested, parent=parent
            ):
                log_unit(unit, result, accuracy)


def log_unit(unit: folds.Unit, result: dict[str, Any], accuracy: float) -> None:
    """Write what a unit was, what it gave and its curves to the active run."""
    validated = result.get("validation_fold") is not None
    mlflow.log_params(
        asdict(unit) | ({"validation_fold": result["validation_fold"]} if validated else {})
    )
    figures = {"test_accuracy": accuracy}
    figures |= {key: result[key] for key in ("cpu_seconds", "parameters") if key in result}
    # where nothing validates the last epoch counts, be it the best or not
    if validated and "epoch" in result:
        figures["best_epoch"] = result["epoch"]
    mlflow.log_metrics(figures)
    for epoch in pd.DataFrame(result["history"]).to_dict("records"):
        step = int(epoch.pop("epoch"))
        mlflow.log_metrics({str(k): float(v) for k, v in epoch.items()}, step=step)
