"""Stage ``tune``: an Optuna study on the validation fold, resumable, every trial an MLflow run."""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pandas as pd
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState
from tqdm.auto import tqdm

from pipeline import augment, fit, model, params, paths, split, stage, tracking
from pipeline.errors import UserError
from pipeline.featurize import read as read_features
from pipeline.params import Choices, Range, TrainParams, TuneParams

DEFAULT_STORAGE = "sqlite:///optuna.db"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STUDY, RUN, SECONDS = "pipeline.study", "mlflow_run_id", "seconds"


def main() -> str:
    """Run the trials that are missing and write the best one's parameters.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    for file in (paths.BEST_PARAMS, paths.TRIALS):
        file.parent.mkdir(parents=True, exist_ok=True)
    if not settings.tune.trials:
        write(Best(), table([]))
        return "no search, for tune.trials is 0; training takes `train` as it is"
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    featurized = read_features()
    folds = split.by_fold(featurized.index, settings.split.test_fold)
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, folds, card["labels"])
    study = open_study(study_name(settings.tune, settings.train, settings.split.test_fold))
    if not study.get_trials(deepcopy=False):
        enqueue_defaults(study, settings.train, settings.tune)
    close_dead_trials(study)
    known = len(finished(study))
    missing = max(settings.tune.trials - known, 0)

    client = tracking.connect()
    experiment_id = tracking.experiment(client, card["name"])
    tracking.close_dead_runs(client, experiment_id)
    parent = study_run(client, experiment_id, study.study_name)
    tags = {
        tracking.STAGE: "tune",
        STUDY: study.study_name,
        "dataset.name": card["name"],
        "split.test_fold": str(folds.test_fold),
        "split.validation_fold": str(folds.validation_fold),
    }
    with (
        tracking.run(experiment_id, f"search on {card['name']}", tags, resume=parent) as run_id,
        tqdm(total=missing, desc="tune", unit="trial", disable=None) as bar,
    ):
        while (done := len(finished(study))) < settings.tune.trials:
            study.sampler = sampler(settings.tune.seed + done, settings.tune.trials)
            trial = study.ask()
            trial.set_user_attr(tracking.PROCESS, tracking.this_process())
            value = run_trial(trial, data, settings.train, settings.tune, experiment_id, run_id)
            state = TrialState.PRUNED if value is None else TrialState.COMPLETE
            study.tell(trial, value, state=state)
            bar.update()
        best = study.best_trial
        mlflow.log_metrics({"best_" + fit.BEST: best.value, "best_trial": best.number})
    write(
        Best(study.study_name, best.number, best.value, run_id, best.params),
        table(finished(study)),
    )
    pruned = len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
    return (
        f"{missing} trials run, {known} known before, {pruned} pruned; best is trial"
        f" {best.number} with validation log loss {best.value:.3f}: "
        + ", ".join(f"{key} {_short(value)}" for key, value in best.params.items())
    )


@dataclass(frozen=True)
class Best:
    """What the search found, as the train stage reads it; without values where none ran."""

    study: str | None = None
    trial: int | None = None
    value: float | None = None
    run_id: str | None = None
    params: dict[str, Any] = field(default_factory=dict)


def read() -> Best:
    """Read what the stage left."""
    return Best(**json.loads(paths.BEST_PARAMS.read_text(encoding="utf-8")))


def write(best: Best, trials: pd.DataFrame) -> None:
    """Write the stage's outputs."""
    paths.BEST_PARAMS.write_text(json.dumps(asdict(best), indent=2) + "\n", encoding="utf-8")
    trials.to_csv(paths.TRIALS, index=False)


def study_name(tune: TuneParams, train: TrainParams, test_fold: int) -> str:
    """Name a study by all that its trials depend on, so that only a true repeat is resumed.

    Parameters
    ----------
    tune : TuneParams
        The number of trials does not count: raising it goes on with the same study.
    train : TrainParams
        Of which what is not searched counts, less ``epochs`` and ``patience``.
    test_fold : int
        Decides the folds that train and validate.

    Returns
    -------
    str
        Twelve hexadecimal digits.
    """
    facts = {
        "tune": tune.model_dump(exclude={"trials"}),
        "train": train.model_dump(exclude={"epochs", "patience"}),
        "test_fold": test_fold,
        "features": tracking.sha256(paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC),
        "code": tracking.sha256(*(Path(str(module.__file__)) for module in (augment, fit, model))),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def open_study(name: str) -> optuna.Study:
    """Open the study called `name` in the store, or make it there.

    Raises
    ------
    UserError
        When the store cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = os.environ.get("OPTUNA_STORAGE") or DEFAULT_STORAGE
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
        )
    except ImportError as error:
        where = f"the Optuna store at {tracking.without_password(storage)}"
        raise UserError(tracking.no_driver(where, error)) from None
    except Exception as error:  # Optuna passes on whatever its database driver raises
        raise UserError(
            f"the Optuna store at {tracking.without_password(storage)} does not answer"
            f" ({tracking.reason(error)}): check OPTUNA_STORAGE, or unset it for the local store."
        ) from None


def enqueue_defaults(study: optuna.Study, train: TrainParams, tune: TuneParams) -> None:
    """Let the first trial be what `train` says, so that a search ends no worse than none.

    Where `train` lies outside the space that is not possible: Optuna suggests from it alone.
    """
    defaults = {name: params.value_of(train, name) for name in tune.space}
    if all(contains(where, defaults[name]) for name, where in tune.space.items()):
        study.enqueue_trial(defaults)


def contains(where: Range | Choices, value: Any) -> bool:
    """Whether a search through `where` could come upon `value`."""
    if isinstance(where, Choices):
        return value in where.choices
    return value is not None and where.low <= value <= where.high


def sampler(seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Make the sampler of the next trial.

    It is seeded anew for every trial, so that a resumed study asks what an uninterrupted one
    would have asked.
    """
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, trials // 3))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ran to their end or were pruned."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def close_dead_trials(study: optuna.Study) -> None:
    """Mark as failed the trials whose process on this machine is gone, and queue them again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if tracking.is_dead(trial.user_attrs.get(tracking.PROCESS, "")):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)


def study_run(client: MlflowClient, experiment_id: str, study: str) -> str | None:
    """Id of the MLflow run of an earlier start of `study`, if this store has it."""
    found = client.search_runs(
        [experiment_id],
        f"tags.`{STUDY}` = '{study}' and tags.`{tracking.STAGE}` = 'tune'",
        max_results=1,
    )
    return found[0].info.run_id if found else None


def run_trial(
    trial: optuna.Trial,
    data: fit.Data,
    train: TrainParams,
    tune: TuneParams,
    experiment_id: str,
    parent: str,
) -> float | None:
    """Train with parameters that `trial` suggests, as an MLflow run nested under `parent`.

    Parameters
    ----------
    trial : optuna.Trial
        Told the validation log loss of every epoch.
    data : Data
    train : TrainParams
        What is not searched.
    tune : TuneParams
    experiment_id : str
    parent : str
        Id of the study's run.

    Returns
    -------
    float or None
        The least validation log loss; None when the trial was pruned.
    """
    suggested = {key: suggest(trial, key, where) for key, where in tune.space.items()}
    fixed = {"epochs": tune.epochs, "patience": None}
    chosen = params.with_values(train, {**fixed, **suggested})
    tags = {tracking.STAGE: "trial", "pipeline.trial": str(trial.number)}
    started = time.monotonic()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        mlflow.log_metrics(metrics, step=epoch)
        trial.report(metrics[fit.BEST], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    with tracking.run(experiment_id, f"trial {trial.number}", tags, parent=parent) as run_id:
        mlflow.log_params(tracking.flatten({"train": chosen.model_dump()}))
        trial.set_user_attr(RUN, run_id)
        try:
            fitted = fit.fit(data, chosen, f"trial {trial.number}", on_epoch)
            return float(fitted.best[fit.BEST])
        except optuna.TrialPruned:
            mlflow.set_tag("pipeline.pruned", "true")
            return None
        finally:
            trial.set_user_attr(SECONDS, time.monotonic() - started)


def suggest(trial: optuna.Trial, name: str, where: Range | Choices) -> Any:
    """Ask `trial` for a value of the parameter `name`."""
    if isinstance(where, Choices):
        return trial.suggest_categorical(name, where.choices)
    if params.is_integer(name):
        return trial.suggest_int(name, int(where.low), int(where.high), log=where.log)
    return trial.suggest_float(name, where.low, where.high, log=where.log)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(trials: list[FrozenTrial]) -> pd.DataFrame:
    """Tabulate finished trials: a row each, with the best value so far."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            fit.BEST: min(trial.intermediate_values.values()),
            "epochs": len(trial.intermediate_values),
            **trial.params,
        }
        for trial in trials
    ]
    frame = pd.DataFrame(rows, columns=None if rows else ["trial", "state", fit.BEST, "epochs"])
    frame.insert(3, "best_so_far", frame[fit.BEST].cummin())
    return frame


if __name__ == "__main__":
    stage.run("tune", tracking.guarded(main))
