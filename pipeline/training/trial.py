"""Run one trial of a search: train with suggested parameters and log it as an MLflow run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlflow
import optuna

from pipeline import params
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.errors import UserError
from pipeline.params import Choices, Range, TrainParams, TuneParams
from pipeline.tracking import store
from pipeline.training.objective import BEST

if TYPE_CHECKING:
    from pipeline.training import fit

EPOCHS = "epochs"
PARAMETERS = "parameters"
REASON = "reason"
RUN = "mlflow_run_id"
SECONDS = "seconds"
VALUES = "values"
"""User attributes of a trial: how many epochs it ran, how many parameters its network has, why it
failed, its MLflow run, how long it took, and its values. It writes its values before it ends, so
that they count even if the search is killed before it updates the study."""

OnEpoch = Callable[[int, dict[str, float]], None]
"""Called with the number of an epoch, from 1, and its metrics."""


@dataclass(frozen=True)
class Context:
    """The facts that all trials of a search share, besides their fixed parameters."""

    test_fold: int
    labels: list[str]
    experiment_id: str
    run_id: str
    """The MLflow run of the search."""


def run(
    trial: optuna.Trial,
    suggested: dict[str, Any],
    train: TrainParams,
    tune: TuneParams,
    context: Context,
) -> list[float] | None:
    """Train with suggested parameters, as an MLflow run nested under that of the search.

    Parameters
    ----------
    trial : optuna.Trial
        Receives the validation log loss of every epoch.
    suggested : dict
        Keys of `train` and their values.
    train : TrainParams
        The parameters that are not searched.
    tune : TuneParams
    context : Context

    Returns
    -------
    list of float, or None
        The lowest validation log loss, and the number of parameters if it is an objective; None if
        the trial was pruned; empty if its network cannot be built or does not learn.
    """
    # only the processes that train load TensorFlow
    from pipeline.training import fit

    featurized = read_features()
    folds = split.by_fold(featurized.index, context.test_fold)
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, folds, context.labels)
    fixed = {"epochs": tune.epochs, "patience": None, "ensemble": 1}
    chosen = params.with_values(train, {**fixed, **suggested})
    tags = {store.STAGE: "trial", "pipeline.trial": str(trial.number)}
    name = f"trial {trial.number}"

    def train_network(on_epoch: OnEpoch) -> "fit.Fitted":
        def logged(epoch: int, metrics: dict[str, float]) -> None:
            mlflow.log_metrics(metrics, step=epoch)
            on_epoch(epoch, metrics)

        return fit.fit(data, chosen, name, logged)

    store.connect()
    with store.run(context.experiment_id, name, tags, parent=context.run_id) as run_id:
        mlflow.log_params(store.flatten({"train": chosen.model_dump()}))
        trial.set_user_attr(RUN, run_id)
        values = attempt(trial, train_network, tune)
        if values is None:
            mlflow.set_tag("pipeline.pruned", "true")
        elif not values:
            mlflow.set_tag("pipeline.failed", trial.user_attrs[REASON])
            mlflow.end_run("FAILED")
    return values


def attempt(
    trial: optuna.Trial, train_network: "Callable[[OnEpoch], fit.Fitted]", tune: TuneParams
) -> list[float] | None:
    """Train a network, report every epoch to a trial, and record how the trial ended.

    Parameters
    ----------
    trial : optuna.Trial
        Receives the log loss of every epoch, and finally its values as a user attribute.
    train_network : callable
        Trains and calls the function that it is given after every epoch.
    tune : TuneParams
        Only ``epochs`` and ``parameters_within`` are read.

    Returns
    -------
    list of float, or None
        As for :func:`run`.
    """
    two_objectives = tune.parameters_within is not None
    started = time.monotonic()
    epochs = 0

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        nonlocal epochs
        epochs = epoch
        if two_objectives:
            return  # Optuna prunes only a search with one objective
        trial.report(metrics[BEST], epoch)
        # pruning after the last epoch would save no time and lose the result
        if epoch < tune.epochs and trial.should_prune():
            raise optuna.TrialPruned

    values: list[float] | None = None
    try:
        fitted = train_network(on_epoch)
        values = [float(fitted.best[BEST])]
        trial.set_user_attr(PARAMETERS, int(fitted.model.count_params()))
        if two_objectives:
            values.append(float(fitted.model.count_params()))
    except optuna.TrialPruned:
        pass
    except UserError as error:  # this network cannot be trained; others may be
        values = []
        trial.set_user_attr(REASON, str(error))
    trial.set_user_attr(EPOCHS, epochs)
    trial.set_user_attr(SECONDS, time.monotonic() - started)
    trial.set_user_attr(VALUES, values)
    return values


def suggest(trial: optuna.Trial, name: str, domain: Range | Choices) -> Any:
    """Ask `trial` for a value of the parameter `name`."""
    if isinstance(domain, Choices):
        return trial.suggest_categorical(name, domain.choices)
    if params.is_integer(name):
        return trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
