"""Every official fold as the test fold once: the figure that a reviewer asks for.

Not part of ``dvc repro``, for it trains as many networks as there are folds and seeds:
``dvc repro crossval/dvc.yaml``, or ``python -m pipeline crossval``. In every unit, one fold and
one seed, all other folds train, with the parameters of ``train`` as they stand: no search, and the
last epoch counts, so that nothing is chosen. With ``crossval.validate`` the next fold (cyclically)
chooses the epoch instead of training. Either way nothing is chosen on a fold that is scored.
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

from pipeline import params, paths
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.params import CrossvalParams, TrainParams
from pipeline.sound import augment, networks
from pipeline.tracking import provenance
from pipeline.training import fit, workers
from pipeline.training.objective import BEST
from pipeline.training.predictions import by_clip as tabulate


@dataclass(frozen=True)
class Unit:
    """One training: which fold is scored and which seed starts it."""

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
    known = {unit: found for unit in units if (found := read_unit(folder, unit)) is not None}
    missing = [unit for unit in units if unit not in known]
    run_units(missing, train, labels, folder, crossval, index)
    for unit in missing:
        known[unit] = json.loads(unit_file(folder, unit).read_text(encoding="utf-8"))
    return len(missing), [known[unit] for unit in units]


def unit_key(train: TrainParams, validate: bool, index: pd.DataFrame | None = None) -> str:
    """Name a set of units by all that they depend on, so that only true repeats are skipped."""
    facts: dict[str, Any] = {
        "train": train.model_dump(exclude={"seed"}),
        "validate": validate,
        "features": provenance.sha256(paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC),
        "code": provenance.sha256(
            *(Path(str(module.__file__)) for module in (augment, fit, networks))
        ),
    }
    if index is not None and not index.equals(read_features().index):
        facts["index"] = index.to_csv()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def unit_file(folder: Path, unit: Unit) -> Path:
    """Where the result of `unit` is kept."""
    return folder / f"fold{unit.fold}-seed{unit.seed}.json"


def read_unit(folder: Path, unit: Unit) -> dict[str, Any] | None:
    """Read the result of `unit`; None where there is none, or a damaged one, and says so."""
    file = unit_file(folder, unit)
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:  # neither JSON nor, it may be, UTF-8
        result = None
    if isinstance(result, dict) and isinstance(result.get("predictions"), dict):
        return result
    print(f"crossval: {file} is damaged: the unit is trained again", file=sys.stderr, flush=True)
    return None


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
        workers.workers(workers.size(crossval.workers, len(units))) as executor,
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
    predictions = tabulate(index.iloc[folds.test], probabilities, labels)
    result = {
        **asdict(unit),
        "validation_fold": folds.validation_fold,
        **{key: float(fitted.best[key]) for key in (BEST, "val_accuracy") if key in fitted.best},
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
