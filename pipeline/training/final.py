"""Train the network that is evaluated and registered: fit it, calibrate it, save it."""

import time
from dataclasses import dataclass
from typing import Any

from pipeline import paths, tables
from pipeline.data.split import Split
from pipeline.params import TrainParams
from pipeline.tracking import provenance, store
from pipeline.training import calibration, fit
from pipeline.training.trials import Best


@dataclass(frozen=True)
class Trained:
    """A calibrated network and the figures of its training."""

    fitted: fit.Fitted
    metrics: dict[str, float]


def train(data: fit.Data, params: TrainParams) -> Trained:
    """Train a network and build the temperature of the validation fold into it.

    Every epoch is logged to the active MLflow run as long as the store answers.

    Parameters
    ----------
    data : fit.Data
        With a validation fold.
    params : TrainParams

    Returns
    -------
    Trained
    """
    started, cpu_started = time.monotonic(), time.process_time()
    fitted = fit.fit(data, params, "train", store.epoch_logger())
    seconds = time.monotonic() - started
    clips, targets = data.validation
    temperature = calibration.fit_temperature(
        fit.predict(fitted.model, clips, data.spec), targets.argmax(axis=1)
    )
    calibration.build_in(fitted.model, temperature)
    metrics = {
        "best_epoch": float(fitted.best["epoch"]),
        "best_val_accuracy": float(fitted.best["val_accuracy"]),
        "best_val_log_loss": float(fitted.best["val_log_loss"]),
        "parameters": float(fitted.model.count_params()),
        "train_seconds": seconds,
        "train_cpu_seconds": time.process_time() - cpu_started,
        "temperature": temperature,
    }
    return Trained(fitted, metrics)


def save(trained: Trained, data: fit.Data) -> None:
    """Save the network, its feature spec and the history of its training."""
    paths.MODEL.parent.mkdir(parents=True, exist_ok=True)
    trained.fitted.model.save(paths.MODEL)
    data.spec.save(paths.MODEL_SPEC)
    tables.write(paths.HISTORY, trained.fitted.history)


def tags(card: dict[str, Any], folds: Split, best: Best) -> dict[str, str]:
    """Return the tags of the training run: dataset, folds, search and lineage.

    Parameters
    ----------
    card : dict
        The dataset's card.
    folds : Split
    best : Best
        The trial that the parameters come from.
    """
    return {
        store.STAGE: "train",
        **provenance.dataset_tags(card),
        "split.test_fold": str(folds.test_fold),
        "split.validation_fold": str(folds.validation_fold),
        "split.train_folds": ",".join(map(str, folds.train_folds)),
        "tune.study": best.study or "none",
        "tune.trial": "none" if best.trial is None else str(best.trial),
        "tune.run_id": best.run_id or "none",
        **provenance.lineage_tags(),
    }
