"""Cross-validation: train and score every official fold once with each seed.

One fold and one seed are a unit. All other folds train, with the parameters of ``train`` as they
are: there is no search, and the last epoch counts, so nothing is chosen. With
``crossval.validate``, the next fold (cyclically) chooses the epoch instead of training. Either way
nothing is chosen on a fold that is scored. Finished units are kept, so that a cross-validation that
was stopped trains only the missing ones.
"""

import hashlib
import json
import sys
import time
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from pipeline import params, paths, tables
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.errors import UserError
from pipeline.params import CrossvalParams, TrainParams
from pipeline.sound.features import Rows
from pipeline.tracking import provenance
from pipeline.training import code_hash, workers
from pipeline.training.objective import BEST
from pipeline.training.predictions import by_clip as tabulate


@dataclass(frozen=True)
class Unit:
    """One training: the fold that is scored, and the seed."""

    fold: int
    seed: int


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
        The seed is not read: each unit has its own.
    crossval : CrossvalParams
        Only ``validate`` and ``workers`` are read.
    labels : list of str
        In the order of the network's outputs.
    index : DataFrame, optional
        As for :func:`run_units`.

    Returns
    -------
    missing : int
        Number of units trained now.
    results : list of dict
        As :func:`run_unit` writes them, in the order of `units`.
    """
    folder = paths.CROSSVAL_UNITS / unit_key(train, crossval.validate_, index)
    folder.mkdir(parents=True, exist_ok=True)
    finished = {unit: found for unit in units if (found := read_unit(folder, unit)) is not None}
    missing = [unit for unit in units if unit not in finished]
    run_units(missing, train, labels, folder, crossval, index)
    for unit in missing:
        finished[unit] = tables.read_json(unit_file(folder, unit))
    return len(missing), [finished[unit] for unit in units]


def unit_key(train: TrainParams, validate: bool, index: pd.DataFrame | None = None) -> str:
    """Name a set of units by everything that they depend on, so that only those are reused.

    Returns
    -------
    str
        Twelve hexadecimal digits.
    """
    facts: dict[str, Any] = {
        "train": train.model_dump(exclude={"seed"}),
        "validate": validate,
        "features": provenance.sha256(paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC),
        "code": code_hash.of("pipeline.training.folds"),
    }
    if index is not None and not index.equals(read_features().index):
        facts["index"] = index.to_csv()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def unit_file(folder: Path, unit: Unit) -> Path:
    """Return the file that keeps the result of `unit`."""
    return folder / f"fold{unit.fold}-seed{unit.seed}.json"


def read_unit(folder: Path, unit: Unit) -> dict[str, Any] | None:
    """Read the result of `unit`; None if it is missing or, with a warning, damaged."""
    file = unit_file(folder, unit)
    if not file.is_file():
        return None
    try:
        result = tables.read_json(file)
    except UserError:
        result = None
    if isinstance(result, dict) and isinstance(result.get("predictions"), dict):
        return result
    print(f"crossval: {file} is damaged; this unit is trained again", file=sys.stderr, flush=True)
    return None


def run_units(
    units: list[Unit],
    train: TrainParams,
    labels: list[str],
    folder: Path,
    crossval: CrossvalParams,
    index: pd.DataFrame | None = None,
) -> None:
    """Train `units`, several at a time; the processes share the CPUs.

    Parameters
    ----------
    units : list of Unit
    train : TrainParams
        The seed is not read: each unit has its own.
    labels : list of str
        In the order of the network's outputs.
    folder : Path
        Receives one file per unit when that unit has finished.
    crossval : CrossvalParams
        Only ``validate`` and ``workers`` are read.
    index : DataFrame, optional
        One row per window, instead of the index that was stored with the features: other folds,
        for example.
    """
    if not units:
        return
    with (
        workers.pool(workers.process_count(crossval.workers, len(units))) as executor,
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
    """Train and score one unit, and write its file once everything is in it.

    Parameters
    ----------
    unit : Unit
    train : TrainParams
    labels : list of str
    folder : Path
    validate : bool
        Whether the next fold chooses the epoch; if not, it trains too.
    index : DataFrame, optional
        As for :func:`run_units`.
    """
    # only the processes that train load TensorFlow
    from pipeline.training import fit

    featurized = read_features()
    index = featurized.index if index is None else index
    folds = split.by_fold(index, unit.fold, validate)
    data = fit.prepare(featurized.array, index, featurized.spec, folds, labels)
    # wall time would depend on what else the machine does
    started = time.process_time()
    chosen = params.with_values(train, {"seed": unit.seed})
    fitted = fit.fit(data, chosen, f"fold {unit.fold}, seed {unit.seed}")
    cpu_seconds = time.process_time() - started
    test = Rows(featurized.array, folds.test)
    probabilities = fit.predict(fitted.model, test, data.spec)
    predictions = tabulate(index.iloc[folds.test], probabilities, labels)
    validated = [key for key in (BEST, "val_accuracy") if key in fitted.best]
    result = {
        **asdict(unit),
        "validation_fold": folds.validation_fold,
        **{key: float(fitted.best[key]) for key in validated},
        "epoch": int(fitted.best["epoch"]),
        "cpu_seconds": cpu_seconds,
        "parameters": int(fitted.model.count_params()),
        "history": fitted.history.to_dict("list"),
        "predictions": predictions.to_dict("list"),
    }
    tables.write_json(unit_file(folder, unit), result)


def by_clip(units: list[Unit], results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the predictions of all units, with one row per clip and seed."""
    return pd.concat(
        [
            pd.DataFrame(result["predictions"]).assign(seed=unit.seed)
            for unit, result in zip(units, results, strict=True)
        ]
    )


def by_unit(units: list[Unit], results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the units with their accuracy, one row per unit, in the order given."""
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
