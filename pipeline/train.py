"""Stage ``train``: the network with the best parameters of the search, and its run on record."""

import hashlib
import json
import time

import mlflow
import numpy as np

from pipeline import calibration, fit, params, paths, runs, split, stage, tracking
from pipeline.backend import keras
from pipeline.featurize import read as read_features
from pipeline.tune import read as read_best


def main() -> str:
    """Train, keep the best epoch on the validation fold, log the run.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    best = read_best()
    chosen = params.with_values(settings.train, best.params)
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    featurized = read_features()
    folds = split.by_fold(featurized.index, settings.split.test_fold)
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, folds, card["labels"])

    client = tracking.connect()
    experiment_id = tracking.experiment(client, card["name"])
    tracking.close_dead_runs(client, experiment_id)
    name = f"train {chosen.network} on {card['name']}"
    tags = {
        tracking.STAGE: "train",
        **tracking.of_dataset(card),
        "split.test_fold": str(folds.test_fold),
        "split.validation_fold": str(folds.validation_fold),
        "split.train_folds": ",".join(map(str, folds.train_folds)),
        "tune.study": best.study or "none",
        "tune.trial": "none" if best.trial is None else str(best.trial),
        "tune.run_id": best.run_id or "none",
        **tracking.lineage(),
    }
    logged = tracking.flatten(
        {
            "features": data.spec.to_dict(),
            "split": settings.split.model_dump(),
            "train": chosen.model_dump(),
        }
    )
    line = ""
    try:
        with tracking.run(experiment_id, name, tags) as run_id:
            mlflow.log_params(logged)
            started, cpu_started = time.monotonic(), time.process_time()
            fitted = fit.fit(data, chosen, "train", tracking.curve())
            seconds = time.monotonic() - started
            inputs, targets = data.validation
            temperature = calibration.fit_temperature(
                fitted.model.predict(inputs, batch_size=64, verbose=0), targets.argmax(axis=1)
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
            for folder in (paths.MODEL.parent, paths.HISTORY.parent):
                folder.mkdir(parents=True, exist_ok=True)
            fitted.model.save(paths.MODEL)
            data.spec.save(paths.MODEL_SPEC)
            fitted.history.to_csv(paths.HISTORY, index=False)
            tags[runs.FINGERPRINT] = fingerprint(fitted.model)
            record = runs.Record(run_id, card["name"], name, logged, metrics, tags)
            record.write()
            line = _line(fitted, chosen.ensemble, seconds)
            runs.tell(client, run_id, record, fitted.model)
    except Exception as error:
        # once all is saved, whoever needs the run tells a store that has come back
        if not (line and tracking.store_failed(error)):
            raise
        line += f"; the MLflow store failed ({tracking.reason(error)}): the next stage tells it"
    return line


def fingerprint(network: keras.Model) -> str:
    """Hash a model's weights and its feature spec as saved.

    The saved model would not do: its archive holds the time at which it was written.

    Parameters
    ----------
    network : keras.Model

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256(tracking.sha256(paths.MODEL_SPEC).encode())
    for weights in network.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def _line(fitted: fit.Fitted, ensemble: int, seconds: float) -> str:
    epochs, best = len(fitted.history), fitted.best
    accuracy = f"validation accuracy {best['val_accuracy']:.1%}"
    if ensemble > 1:
        return (
            f"{ensemble} networks in {seconds:.0f} s, averaged: {accuracy}; the first took"
            f" {epochs} epochs, and its best is epoch {best['epoch']:.0f}"
        )
    return f"{epochs} epochs in {seconds:.0f} s; best is epoch {best['epoch']:.0f} with {accuracy}"


if __name__ == "__main__":
    stage.run("train", tracking.guarded(main))
