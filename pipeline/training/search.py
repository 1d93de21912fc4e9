"""Stage ``tune``: an Optuna study on the validation fold, resumable, every trial an MLflow run.

Trials run in waves, one in each of some processes. What a wave tries and what ends a trial early
depends on the waves before it alone, not on which of its trials is faster, so that the same search
on the same number of processes finds the same.
"""

import hashlib
import json
import math
import os
import time
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import optuna
import pandas as pd
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState
from tqdm.auto import tqdm

from pipeline import params, paths
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.errors import UserError
from pipeline.params import Choices, Range, TrainParams, TuneParams
from pipeline.sound import augment, networks
from pipeline.tracking import provenance, store
from pipeline.training import fit, workers
from pipeline.training.objective import BEST

if TYPE_CHECKING:
    pass

DEFAULT_STORAGE = "sqlite:///optuna.db"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
STUDY, RUN, SECONDS = "pipeline.study", "mlflow_run_id", "seconds"
PARAMETERS = "parameters"
"""Of a complete trial's network, their number."""

EPOCHS = "epochs"
"""Of a finished trial, how many it ran."""

ENDED = "values"
"""Of a trial: what came out, written as it ends, before the study is told."""

REASON = "reason"
"""Of a trial that could not be trained, why."""


@dataclass(frozen=True)
class Where:
    """What a trial needs to know beside its parameters."""

    test_fold: int
    labels: list[str]
    experiment_id: str
    run_id: str
    """Of the study."""


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
        Neither the number of trials nor the time counts: raising them goes on with the same
        study. Nor does how many run at a time, what it is warmed up with, nor which one is
        chosen in the end.
    train : TrainParams
        Of which what is not searched counts, less ``epochs``, ``patience`` and ``ensemble``, and
        what is searched only where :func:`first_trial` takes it: a study that is gone on with
        would not try another one.
    test_fold : int
        Decides the folds that train and validate.

    Returns
    -------
    str
        Twelve hexadecimal digits.
    """
    facts = {
        "tune": tune.model_dump(exclude={"trials", "timeout", "workers", "warm_start"})
        | {"parameters_within": tune.parameters_within is not None},
        "train": {
            name: value
            for name, value in store.flatten(
                train.model_dump(exclude={"epochs", "patience", "ensemble"})
            ).items()
            if name not in tune.space
        },
        "first": first_trial(train, tune),
        "test_fold": test_fold,
        "features": provenance.sha256(paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC),
        "code": provenance.sha256(
            *(Path(str(module.__file__)) for module in (augment, fit, networks))
        ),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def open_study(name: str, tune: TuneParams) -> optuna.Study:
    """Open the study called `name` in the store, or make it there.

    Raises
    ------
    UserError
        When the store cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if tune.prune:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    try:
        return optuna.create_study(
            storage=storage(),
            study_name=name,
            directions=["minimize"] * (1 if tune.parameters_within is None else 2),
            load_if_exists=True,
            pruner=pruner,
        )
    except ImportError as error:
        where = f"the Optuna store at {store.without_password(storage())}"
        raise UserError(store.no_driver(where, error)) from None
    except Exception as error:  # Optuna passes on whatever its database driver raises
        raise UserError(
            f"the Optuna store at {store.without_password(storage())} does not answer"
            f" ({store.reason(error)}): check OPTUNA_STORAGE, or unset it for the local store."
        ) from None


def storage() -> str:
    """Address of the Optuna store: ``OPTUNA_STORAGE``, else a local SQLite file."""
    return os.environ.get("OPTUNA_STORAGE") or DEFAULT_STORAGE


def search(study: optuna.Study, train: TrainParams, tune: TuneParams, where: Where) -> None:
    """Run the trials that `study` lacks, in waves, until all have run or the time is up.

    Parameters
    ----------
    study : optuna.Study
    train : TrainParams
        What is not searched.
    tune : TuneParams
    where : Where
    """
    missing = tune.trials - len(finished(study))
    if missing <= 0:
        return
    deadline = time.monotonic() + (tune.timeout or float("inf"))
    processes = workers.size(tune.workers, missing)
    with (
        workers.workers(processes) as executor,
        tqdm(total=missing, desc="tune", unit="trial", disable=None) as bar,
    ):
        while (done := len(finished(study))) < tune.trials:
            wave = []
            for place in range(min(processes, tune.trials - done)):
                study.sampler = sampler(tune.seed + done + place, tune.trials)
                trial = study.ask()
                trial.set_user_attr(store.PROCESS, store.this_process())
                suggested = {key: suggest(trial, key, at) for key, at in tune.space.items()}
                wave.append((trial, suggested))
            jobs = [
                executor.submit(run_trial, trial, suggested, train, tune, where)
                for trial, suggested in wave
            ]
            for _ in as_completed(jobs):
                bar.update()
            for (trial, _), job in zip(wave, jobs, strict=True):
                finish(study, trial.number, job.result())
            if time.monotonic() > deadline:
                return


def finish(study: optuna.Study, number: int, values: list[float] | None) -> None:
    """Tell `study` how a trial ended; None: it was pruned, no values: it failed."""
    if values:
        study.tell(number, values)
    else:
        study.tell(number, state=TrialState.PRUNED if values is None else TrialState.FAIL)


def choose(trials: list[FrozenTrial], tune: TuneParams) -> FrozenTrial:
    """Choose the trial with the least validation log loss.

    With ``tune.parameters_within`` it is the one with the fewest parameters of those whose log
    loss is at most that share above the least.

    Raises
    ------
    UserError
        When none could be trained.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        raise UserError(
            f"none of the {len(trials)} trials could be trained; of the first:"
            f" {trials[0].user_attrs[REASON]}"
        )
    best = min(complete, key=lambda trial: outcome(trial)[0])
    if tune.parameters_within is None:
        return best
    limit = outcome(best)[0] * (1 + tune.parameters_within)
    enough = [trial for trial in complete if outcome(trial)[0] <= limit]
    return min(enough, key=lambda trial: (outcome(trial)[1], outcome(trial)[0]))


def outcome(trial: FrozenTrial) -> list[float]:
    """Give what a complete trial came to: log loss, and parameters where they count."""
    if trial.state != TrialState.COMPLETE:
        return []
    return list(trial.values)


def enqueue_last(study: optuna.Study, about: dict[str, Any], tune: TuneParams) -> None:
    """Let a trial be the best one of the last search on the same dataset and test fold.

    One with another test fold has seen, in its validation fold or among those that trained, the
    fold that this one's result is scored on.
    """
    before = [
        other
        for other in optuna.get_all_study_summaries(storage())
        if other.study_name != study.study_name
        and {key: other.user_attrs.get(key) for key in about} == about
        and other.datetime_start is not None
    ]
    if not before:
        return
    last = max(before, key=lambda other: (other.datetime_start, other.study_name))
    trials = optuna.load_study(study_name=last.study_name, storage=storage()).get_trials(
        deepcopy=False, states=(TrialState.COMPLETE,)
    )
    if trials:
        best = min(trials, key=lambda trial: outcome(trial)[0]).params
        known = {k: v for k, v in best.items() if k in tune.space and contains(tune.space[k], v)}
        study.enqueue_trial(known, skip_if_exists=True)


def enqueue_defaults(study: optuna.Study, train: TrainParams, tune: TuneParams) -> None:
    """Let the first trial be what `train` says, so that a search ends no worse than none."""
    defaults = first_trial(train, tune)
    if defaults is not None:
        study.enqueue_trial(defaults)


def first_trial(train: TrainParams, tune: TuneParams) -> dict[str, Any] | None:
    """Give what `train` says of the keys that are searched.

    None where it lies outside the space: Optuna suggests from it alone.
    """
    defaults = {name: params.value_of(train, name) for name in tune.space}
    inside = all(contains(where, defaults[name]) for name, where in tune.space.items())
    return defaults if inside else None


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
    """Trials that another start would not run again, in the order in which they were begun.

    They ran to their end, were pruned, or cannot be trained. What was killed is not among them.
    """
    trials = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.FAIL))
    ended = [t for t in trials if t.state in FINISHED or t.user_attrs.get(ENDED) == []]
    return sorted(ended, key=lambda trial: trial.number)


def close_dead_trials(study: optuna.Study) -> None:
    """Settle the trials whose process on this machine is gone.

    What had ended counts, though the study was not told any more; the others have failed and are
    queued again.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not store.is_dead(trial.user_attrs.get(store.PROCESS, "")):
            continue
        if ENDED in trial.user_attrs:
            finish(study, trial.number, trial.user_attrs[ENDED])
        else:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)


def close_ended_runs(
    client: MlflowClient, experiment_id: str, parent: str, study: optuna.Study
) -> None:
    """Mark as finished the runs of trials that count, though the store was not told any more."""
    ended = {
        trial.user_attrs.get(RUN) for trial in study.get_trials(deepcopy=False, states=FINISHED)
    }
    nested = client.search_runs(
        [experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status != 'FINISHED'",
    )
    for run in nested:
        if run.info.run_id in ended:
            client.set_terminated(run.info.run_id, "FINISHED")


def study_run(client: MlflowClient, experiment_id: str, study: str) -> str | None:
    """Id of the MLflow run of an earlier start of `study`, if this store has it."""
    found = client.search_runs(
        [experiment_id],
        f"tags.`{STUDY}` = '{study}' and tags.`{store.STAGE}` = 'tune'",
        max_results=1,
    )
    return found[0].info.run_id if found else None


def run_trial(
    trial: optuna.Trial,
    suggested: dict[str, Any],
    train: TrainParams,
    tune: TuneParams,
    where: Where,
) -> list[float] | None:
    """Train with suggested parameters, as an MLflow run nested under the study's.

    Parameters
    ----------
    trial : optuna.Trial
        Told the validation log loss of every epoch.
    suggested : dict
        Keys of `train` and their values.
    train : TrainParams
        What is not searched.
    tune : TuneParams
    where : Where

    Returns
    -------
    list of float, or None
        The least validation log loss, and the number of parameters if that counts; None when the
        trial was pruned; nothing in it when its network cannot be built or learns nothing.
    """
    featurized = read_features()
    folds = split.by_fold(featurized.index, where.test_fold)
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, folds, where.labels)
    fixed = {"epochs": tune.epochs, "patience": None, "ensemble": 1}
    chosen = params.with_values(train, {**fixed, **suggested})
    tags = {store.STAGE: "trial", "pipeline.trial": str(trial.number)}
    several = tune.parameters_within is not None
    started = time.monotonic()
    epochs = 0

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        nonlocal epochs
        epochs = epoch
        mlflow.log_metrics(metrics, step=epoch)
        if several:
            return  # Optuna prunes by one objective alone
        trial.report(metrics[BEST], epoch)
        # After the last epoch there is nothing to save, but a result to lose.
        if epoch < chosen.epochs and trial.should_prune():
            raise optuna.TrialPruned

    store.connect()
    with store.run(
        where.experiment_id, f"trial {trial.number}", tags, parent=where.run_id
    ) as run_id:
        mlflow.log_params(store.flatten({"train": chosen.model_dump()}))
        trial.set_user_attr(RUN, run_id)
        values: list[float] | None = None
        try:
            fitted = fit.fit(data, chosen, f"trial {trial.number}", on_epoch)
            values = [float(fitted.best[BEST])]
            trial.set_user_attr(PARAMETERS, int(fitted.model.count_params()))
            if several:
                values.append(float(fitted.model.count_params()))
        except optuna.TrialPruned:
            mlflow.set_tag("pipeline.pruned", "true")
        except UserError as error:  # of this network: the others may do
            values = []
            trial.set_user_attr(REASON, str(error))
            mlflow.set_tag("pipeline.failed", str(error))
            mlflow.end_run("FAILED")
        trial.set_user_attr(EPOCHS, epochs)
        trial.set_user_attr(SECONDS, time.monotonic() - started)
        trial.set_user_attr(ENDED, values)
        return values


def suggest(trial: optuna.Trial, name: str, where: Range | Choices) -> Any:
    """Ask `trial` for a value of the parameter `name`."""
    if isinstance(where, Choices):
        return trial.suggest_categorical(name, where.choices)
    if params.is_integer(name):
        return trial.suggest_int(name, int(where.low), int(where.high), log=where.log)
    return trial.suggest_float(name, where.low, where.high, log=where.log)


def short(value: Any) -> str:
    """Write a value for the closing line."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(trials: list[FrozenTrial]) -> pd.DataFrame:
    """Tabulate finished trials: a row each, with the best value so far.

    A complete trial's value is its outcome, a pruned one's the least that it came to; one that
    failed has none.

    Where their networks are of several sizes, also the number of ``parameters`` of the complete
    ones, and whether a trial is on the Pareto front: no other one is as good in both and better
    in one.
    """
    rows = []
    several = len({size(trial) for trial in trials} - {None}) > 1
    for trial in trials:
        losses = outcome(trial)[:1]
        if trial.state == TrialState.PRUNED:
            losses = [loss for loss in trial.intermediate_values.values() if math.isfinite(loss)]
        row = {
            "trial": trial.number,
            "state": STATES[trial.state],
            BEST: min(losses, default=math.nan),
            EPOCHS: trial.user_attrs.get(EPOCHS),
            **trial.params,
        }
        if several:
            row |= {PARAMETERS: size(trial), "pareto": on_front(trial, trials)}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=None if rows else ["trial", "state", BEST, EPOCHS])
    frame.insert(3, "best_so_far", frame[BEST].cummin().ffill())
    return frame.astype({PARAMETERS: "Int64"}) if several else frame


def size(trial: FrozenTrial) -> int | None:
    """Give the number of parameters of a complete trial's network; None where it is not known."""
    if len(outcome(trial)) > 1:
        return int(outcome(trial)[1])
    return trial.user_attrs.get(PARAMETERS) if outcome(trial) else None


def on_front(trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
    """Whether no other complete trial is at least as good in loss and size and better in one."""

    def both(of: FrozenTrial) -> tuple[float, int] | None:
        parameters = size(of)
        return None if parameters is None else (outcome(of)[0], parameters)

    mine = both(trial)
    others = {pair for pair in map(both, trials) if pair is not None} - {mine}
    return mine is not None and not any(
        loss <= mine[0] and parameters <= mine[1] for loss, parameters in others
    )
