"""Every official fold as the test fold once: the figure that a reviewer asks for.

Not part of ``dvc repro``, for it trains as many networks as there are folds and seeds:
``dvc repro crossval/dvc.yaml``, or ``python -m pipeline.crossval``. In every unit, one fold and
one seed, all other folds train, with the parameters of ``train`` as they stand: no search, and the
last epoch counts, so that nothing is chosen. With ``crossval.validate`` the next fold (cyclically)
chooses the epoch instead of training. Either way nothing is chosen on a fold that is scored.
"""

import hashlib
import json
import time
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from sklearn.metrics import confusion_matrix
from tqdm.auto import tqdm

from pipeline import (
    augment,
    evaluate,
    fit,
    model,
    params,
    paths,
    plots,
    pool,
    split,
    stage,
    tracking,
)
from pipeline.featurize import read as read_features
from pipeline.params import CrossvalParams, TrainParams


@dataclass(frozen=True)
class Unit:
    """One training: which fold is scored and which seed starts it."""

    fold: int
    seed: int


def main() -> str:
    """Train the units that are missing and report over all of them.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    units = [Unit(fold, seed) for seed in settings.crossval.seeds for fold in card["folds"]]
    missing, results = run(units, settings.train, settings.crossval, card["labels"])
    predictions = by_clip(units, results)
    folds = by_unit(units, results)
    classes = evaluate.per_class(predictions, card["labels"])
    right = predictions["label"] == predictions["predicted"]
    low, high = evaluate.interval(
        right.to_numpy(), predictions["recording"].to_numpy(), settings.evaluate
    )
    seeds = right.groupby(predictions["seed"]).mean()
    figures = {
        "accuracy": float(seeds.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "std_over_folds": float(folds.groupby("fold")["accuracy"].mean().std(ddof=1)),
        "std_over_seeds": float(seeds.std(ddof=1)) if len(seeds) > 1 else 0.0,
        "macro_f1": float(classes["f1"].mean()),
        "clips": int(folds.groupby("seed")["clips"].sum().iloc[0]),
        "seeds": len(seeds),
        "cpu_seconds_per_unit": float(folds["cpu_seconds"].mean()),
        "parameters": int(folds["parameters"].iloc[0]),
    }

    paths.CROSSVAL.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    folds.to_csv(paths.CROSSVAL_FOLDS, index=False, float_format="%.6f")
    classes.to_csv(paths.CROSSVAL_CLASSES, index=False, float_format="%.6f")
    predictions.to_csv(paths.CROSSVAL_PREDICTIONS, index=False, float_format="%.6f")
    matrix = confusion_matrix(predictions["label"], predictions["predicted"], labels=card["labels"])
    title = (
        f"{figures['accuracy']:.1%} over {len(card['folds'])} folds and {len(seeds)}"
        f" {'seed' if len(seeds) == 1 else 'seeds'}"
    )
    plots.save(plots.confusion(matrix, card["labels"], title), paths.CROSSVAL_CONFUSION)
    log(card["name"], settings.train, figures, units, results)
    return (
        f"accuracy {figures['accuracy']:.1%} ({low:.1%} to {high:.1%}), ±"
        f" {figures['std_over_folds']:.1%} over folds and ± {figures['std_over_seeds']:.1%} over"
        f" {len(seeds)} seeds; {missing} of {len(units)} units trained now"
    )


def run(
    units: list[Unit],
    train: TrainParams,
    crossval: CrossvalParams,
    labels: list[str],
    index: pd.DataFrame | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """Train the units that are missing and read the results of all.

    Parameters
    ----------
    units : list of Unit
    train : TrainParams
        But for the seed, which is the unit's.
    crossval : CrossvalParams
        Of which ``validate`` and ``workers`` are read.
    labels : list of str
    index : DataFrame, optional
        See :func:`run_units`.

    Returns
    -------
    missing : int
        How many were trained now.
    results : list of dict
        As :func:`run_unit` wrote them, in the order of `units`.
    """
    folder = paths.CROSSVAL_UNITS / unit_key(train, crossval.validate_, index)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [unit for unit in units if not unit_file(folder, unit).exists()]
    run_units(missing, train, labels, folder, crossval, index)
    files = [unit_file(folder, unit) for unit in units]
    return len(missing), [json.loads(file.read_text(encoding="utf-8")) for file in files]


def unit_key(train: TrainParams, validate: bool, index: pd.DataFrame | None = None) -> str:
    """Name a set of units by all that they depend on, so that only true repeats are skipped."""
    facts: dict[str, Any] = {
        "train": train.model_dump(exclude={"seed"}),
        "validate": validate,
        "features": tracking.sha256(paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC),
        "code": tracking.sha256(*(Path(str(module.__file__)) for module in (augment, fit, model))),
    }
    if index is not None and not index.equals(read_features().index):
        facts["index"] = index.to_csv()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def unit_file(folder: Path, unit: Unit) -> Path:
    """Where the result of `unit` is kept."""
    return folder / f"fold{unit.fold}-seed{unit.seed}.json"


def run_units(
    units: list[Unit],
    train: TrainParams,
    labels: list[str],
    folder: Path,
    crossval: CrossvalParams,
    index: pd.DataFrame | None = None,
) -> None:
    """Train `units`, several at a time, each with its share of the cores.

    Parameters
    ----------
    units : list of Unit
    train : TrainParams
        But for the seed, which is the unit's.
    labels : list of str
    folder : Path
        Gets a file a unit, written when it has finished.
    crossval : CrossvalParams
        Of which ``validate`` and ``workers`` are read.
    index : DataFrame, optional
        What the rows of the features are, if not what their own index says.
    """
    if not units:
        return
    with (
        pool.workers(pool.size(crossval.workers, len(units))) as executor,
        tqdm(total=len(units), desc="crossval", unit="unit", disable=None) as bar,
    ):
        jobs = [
            executor.submit(run_unit, unit, train, labels, folder, crossval.validate_, index)
            for unit in units
        ]
        for job in as_completed(jobs):
            job.result()
            bar.update()


def run_unit(
    unit: Unit,
    train: TrainParams,
    labels: list[str],
    folder: Path,
    validate: bool,
    index: pd.DataFrame | None = None,
) -> None:
    """Train and score one unit; its file appears when all is in it.

    Parameters
    ----------
    unit : Unit
    train : TrainParams
    labels : list of str
    folder : Path
    validate : bool
        Whether the next fold chooses the epoch; if not, it trains too.
    index : DataFrame, optional
        See :func:`run_units`.
    """
    featurized = read_features()
    index = featurized.index if index is None else index
    folds = split.by_fold(index, unit.fold, validate)
    data = fit.prepare(featurized.array, index, featurized.spec, folds, labels)
    # Not wall time, which says more about what else runs.
    started = time.process_time()
    chosen = params.with_values(train, {"seed": unit.seed})
    fitted = fit.fit(data, chosen, f"fold {unit.fold}, seed {unit.seed}")
    cpu_seconds = time.process_time() - started
    probabilities = fitted.model.predict(
        fit.network_input(featurized.array[folds.test], data.spec), batch_size=64, verbose=0
    )
    predictions = evaluate.by_clip(index.iloc[folds.test], probabilities, labels)
    result = {
        **asdict(unit),
        "validation_fold": folds.validation_fold,
        **{
            key: float(fitted.best[key]) for key in (fit.BEST, "val_accuracy") if key in fitted.best
        },
        "epoch": int(fitted.best["epoch"]),
        "cpu_seconds": cpu_seconds,
        "parameters": int(fitted.model.count_params()),
        "history": fitted.history.to_dict("list"),
        "predictions": predictions.to_dict("list"),
    }
    file = unit_file(folder, unit)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(file)


def by_clip(units: list[Unit], results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the predictions of all units: a row a clip and seed."""
    return pd.concat(
        [
            pd.DataFrame(result["predictions"]).assign(seed=unit.seed)
            for unit, result in zip(units, results, strict=True)
        ]
    )


def by_unit(units: list[Unit], results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the units: a row each, in the order given."""
    rows = []
    for unit, result in zip(units, results, strict=True):
        clips = pd.DataFrame(result["predictions"])
        rows.append(
            {
                **asdict(unit),
                **{k: v for k, v in result.items() if isinstance(v, int | float)},
                "accuracy": float((clips["label"] == clips["predicted"]).mean()),
                "clips": len(clips),
            }
        )
    return pd.DataFrame(rows)


def log(
    dataset: str,
    train: TrainParams,
    figures: dict[str, float],
    units: list[Unit],
    results: list[dict[str, Any]],
) -> None:
    """Write one MLflow run with a nested run a unit."""
    client = tracking.connect()
    experiment_id = tracking.experiment(client, dataset)
    tags = {tracking.STAGE: "crossval", "dataset.name": dataset, **tracking.lineage()}
    table = by_unit(units, results)
    with tracking.run(experiment_id, f"crossval {train.network} on {dataset}", tags) as parent:
        mlflow.log_params(tracking.flatten({"train": train.model_dump(exclude={"seed"})}))
        mlflow.log_metrics(figures)
        for file in (
            paths.CROSSVAL_FOLDS,
            paths.CROSSVAL_CLASSES,
            paths.CROSSVAL_PREDICTIONS,
            paths.CROSSVAL_CONFUSION,
        ):
            mlflow.log_artifact(str(file))
        for row, result in zip(table.to_dict("records"), results, strict=True):
            name = f"fold {row['fold']}, seed {row['seed']}"
            nested = {tracking.STAGE: "crossval unit", "split.test_fold": str(row["fold"])}
            with tracking.run(experiment_id, name, nested, parent=parent):
                mlflow.log_metrics(
                    {"test_accuracy": row["accuracy"], "cpu_seconds": row["cpu_seconds"]}
                )
                history = pd.DataFrame(result["history"])
                for epoch in history.to_dict("records"):
                    step = int(epoch.pop("epoch"))
                    mlflow.log_metrics({str(k): float(v) for k, v in epoch.items()}, step=step)


if __name__ == "__main__":
    stage.run("crossval", tracking.guarded(main))
