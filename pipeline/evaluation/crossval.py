"""Log a cross-validation: one MLflow run with one nested run per unit."""

from dataclasses import asdict
from typing import Any

import mlflow
import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline import paths
from pipeline.params import CrossvalParams, TrainParams
from pipeline.sound.features import FeatureSpec
from pipeline.tracking import provenance, runs, store
from pipeline.training import folds


def protocol(validate: bool) -> str:
    """Describe which folds do what."""
    others = (
        "the next fold (cyclically) chooses the epoch, and the others train"
        if validate
        else "all others train, and the last epoch counts, so that nothing is chosen"
    )
    return f"Every official fold is scored once with each seed: {others}."


def log(
    card: dict[str, Any],
    train: TrainParams,
    crossval: CrossvalParams,
    figures: dict[str, Any],
    units: list[folds.Unit],
    results: list[dict[str, Any]],
) -> None:
    """Log one MLflow run, with one nested run per unit.

    Parameters
    ----------
    card : dict
        The dataset's card.
    train : TrainParams
    crossval : CrossvalParams
    figures : dict
        From :func:`pipeline.evaluation.metrics.crossval_figures`.
    units : list of Unit
    results : list of dict
        As :func:`pipeline.training.folds.run_unit` writes them, in the order of `units`.
    """
    client = store.connect()
    experiment_id = store.experiment(client, card["name"])
    store.close_dead_runs(client, experiment_id)
    tags = {
        store.STAGE: "crossval",
        MLFLOW_RUN_NOTE: protocol(crossval.validate_),
        **provenance.dataset_tags(card),
        **provenance.lineage_tags(),
    }
    # the number of workers changes no figure
    settings = crossval.model_dump(mode="json", by_alias=True, exclude={"workers"})
    logged = {
        "crossval": settings,
        "features": FeatureSpec.load(paths.FEATURE_SPEC).to_dict(),
        "train": train.model_dump(exclude={"seed"}),
    }
    name = f"crossval {train.network} on {card['name']}"
    with store.run(experiment_id, name, tags) as parent:
        mlflow.log_params(store.flatten(logged))
        mlflow.log_metrics(runs.numbers(figures))
        mlflow.set_tag(runs.WORST_CLASS, figures["worst_class"])
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
            unit_name = f"fold {unit.fold}, seed {unit.seed}"
            with store.run(experiment_id, unit_name, nested, parent=parent):
                log_unit(unit, result, accuracy)


def log_unit(unit: folds.Unit, result: dict[str, Any], accuracy: float) -> None:
    """Log the parameters, the figures and the curves of a unit to the active run."""
    validated = result.get("validation_fold") is not None
    mlflow.log_params(
        asdict(unit) | ({"validation_fold": result["validation_fold"]} if validated else {})
    )
    figures = {"test_accuracy": accuracy}
    figures |= {key: result[key] for key in ("cpu_seconds", "parameters") if key in result}
    # without validation the last epoch counts, whether it is the best or not
    if validated and "epoch" in result:
        figures["best_epoch"] = result["epoch"]
    mlflow.log_metrics(figures)
    for epoch in pd.DataFrame(result["history"]).to_dict("records"):
        step = int(epoch.pop("epoch"))
        mlflow.log_metrics({str(k): float(v) for k, v in epoch.items()}, step=step)
