"""Open, name and resume the Optuna study of a search."""

import hashlib
import json
import os
from typing import Any

import optuna
from mlflow import MlflowClient
from optuna.trial import TrialState

from pipeline import params, paths
from pipeline.errors import UserError
from pipeline.params import Choices, Range, TrainParams, TuneParams
from pipeline.tracking import failures, provenance, store
from pipeline.tracking.processes import PROCESS, is_dead
from pipeline.training import code_hash, trials
from pipeline.training.trial import RUN, VALUES

DEFAULT_STORAGE = "sqlite:///optuna.db"

STUDY = "pipeline.study"
"""Tag of the MLflow run of a search: the name of its study."""


def start(train: TrainParams, tune: TuneParams, dataset: str, test_fold: int) -> optuna.Study:
    """Open the study of a search, new or resumed, ready to suggest trials.

    A new study first tries the values of `train` and, with ``tune.warm_start``, the best trial of
    the last search on the same dataset and test fold. In a resumed study, the trials of processes
    that were killed are closed.

    Parameters
    ----------
    train : TrainParams
    tune : TuneParams
    dataset : str
        The dataset's name.
    test_fold : int

    Returns
    -------
    optuna.Study

    Raises
    ------
    UserError
        When the Optuna store cannot be reached.
    """
    study = open_study(study_name(tune, train, test_fold), tune)
    about = {"dataset": dataset, "test_fold": test_fold}
    if not about.keys() <= study.user_attrs.keys():
        enqueue_defaults(study, train, tune)
        if tune.warm_start:
            enqueue_last(study, about, tune)
        for key, value in about.items():  # last, because they show that the rest is complete
            study.set_user_attr(key, value)
    close_dead_trials(study, tune)
    return study


def study_name(tune: TuneParams, train: TrainParams, test_fold: int) -> str:
    """Name a study by everything that its trials depend on, so that only the same one is resumed.

    Parameters
    ----------
    tune : TuneParams
        The number of trials, the timeout, the number of workers, the warm start and the share
        ``parameters_within`` do not count: changing them continues the same study.
    train : TrainParams
        ``epochs``, ``patience`` and ``ensemble`` do not count, because trials have their own.
        Searched keys count only if :func:`first_trial` takes their values, because a resumed study
        would not try another first trial.
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
        "code": code_hash.of("pipeline.training.trial"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def open_study(name: str, tune: TuneParams) -> optuna.Study:
    """Open the study called `name` in the Optuna store; create it if it does not exist.

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
        where = f"the Optuna store at {failures.without_password(storage())}"
        raise UserError(failures.no_driver(where, error)) from None
    except Exception as error:  # Optuna passes on whatever its database driver raises
        raise UserError(
            f"the Optuna store at {failures.without_password(storage())} does not answer"
            f" ({failures.reason(error)}): check OPTUNA_STORAGE, or unset it for the local store."
        ) from None


def storage() -> str:
    """Return the address of the Optuna store: ``OPTUNA_STORAGE``, or else a local SQLite file."""
    return os.environ.get("OPTUNA_STORAGE") or DEFAULT_STORAGE


def enqueue_defaults(study: optuna.Study, train: TrainParams, tune: TuneParams) -> None:
    """Make the values of `train` the first trial, so that a search cannot make them worse."""
    defaults = first_trial(train, tune)
    if defaults is not None:
        study.enqueue_trial(defaults, skip_if_exists=True)


def first_trial(train: TrainParams, tune: TuneParams) -> dict[str, Any] | None:
    """Return the values that `train` has for the searched keys.

    None if they are outside the space, because Optuna suggests only what is inside.
    """
    defaults = {name: params.value_of(train, name) for name in tune.space}
    inside = all(contains(domain, defaults[name]) for name, domain in tune.space.items())
    return defaults if inside else None


def contains(domain: Range | Choices, value: Any) -> bool:
    """Whether a search of `domain` can suggest `value`."""
    if isinstance(domain, Choices):
        return value in domain.choices
    return value is not None and domain.low <= value <= domain.high


def enqueue_last(study: optuna.Study, about: dict[str, Any], tune: TuneParams) -> None:
    """Try the best trial of the last search on the same dataset and test fold early.

    A search with another test fold does not count: it has trained or validated on the fold that
    is the test fold now.
    """
    earlier = [
        other
        for other in optuna.get_all_study_summaries(storage())
        if other.study_name != study.study_name
        and {key: other.user_attrs.get(key) for key in about} == about
        and other.datetime_start is not None
    ]
    if not earlier:
        return
    last = max(earlier, key=lambda other: (other.datetime_start, other.study_name))
    complete = optuna.load_study(study_name=last.study_name, storage=storage()).get_trials(
        deepcopy=False, states=(TrialState.COMPLETE,)
    )
    if complete:
        best = min(complete, key=lambda trial: trials.outcome(trial)[0]).params
        valid = {k: v for k, v in best.items() if k in tune.space and contains(tune.space[k], v)}
        study.enqueue_trial(valid, skip_if_exists=True)


def close_dead_trials(study: optuna.Study, tune: TuneParams) -> None:
    """Close the running trials of processes on this machine that no longer exist.

    A trial that has written its values counts. Any other has failed, and its parameters are queued
    again. If it did not get all of them, only those that were fixed beforehand are queued: the
    sampler suggests the others once more, and as it would have without the interruption.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not is_dead(trial.user_attrs.get(PROCESS, "")):
            continue
        if VALUES in trial.user_attrs:
            trials.finish(study, trial.number, trial.user_attrs[VALUES])
        else:
            study.tell(trial.number, state=TrialState.FAIL)
            complete = trial.params.keys() == tune.space.keys()
            study.enqueue_trial(
                trial.params if complete else trial.system_attrs.get("fixed_params", {})
            )


def resumed_run(client: MlflowClient, experiment_id: str, study: optuna.Study) -> str | None:
    """Return the MLflow run of an earlier start of the search; None if this store has none.

    The runs of its trials that count, but were still open when the store or the search failed, are
    marked as finished.
    """
    found = client.search_runs(
        [experiment_id],
        f"tags.`{STUDY}` = '{study.study_name}' and tags.`{store.STAGE}` = 'tune'",
        max_results=1,
    )
    if not found:
        return None
    parent = str(found[0].info.run_id)
    close_ended_runs(client, experiment_id, parent, study)
    return parent


def close_ended_runs(
    client: MlflowClient, experiment_id: str, parent: str, study: optuna.Study
) -> None:
    """Mark the MLflow runs of trials that count as finished, if they are not marked yet."""
    counted = study.get_trials(deepcopy=False, states=trials.FINISHED)
    ended = {trial.user_attrs.get(RUN) for trial in counted}
    nested = client.search_runs(
        [experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status != 'FINISHED'",
    )
    for run in nested:
        if run.info.run_id in ended:
            client.set_terminated(run.info.run_id, "FINISHED")
