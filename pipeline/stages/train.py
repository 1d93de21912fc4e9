"""Stage ``train``: the network with the best parameters of the search, and its run on record."""

import json
import time

import mlflow

from pipeline import params, paths
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.tracking import provenance, runs, store
from pipeline.training import calibration, fit
from pipeline.training.search import read as read_best


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

    client = store.connect()
    experiment_id = store.experiment(client, card["name"])
    store.close_dead_runs(client, experiment_id)
    name = f"train {chosen.network} on {card['name']}"
    tags = {
        store.STAGE: "train",
        **provenance.of_dataset(card),
        "split.test_fold": str(folds.test_fold),
        "split.validation_fold": str(folds.validation_fold),
        "split.train_folds": ",".join(map(str, folds.train_folds)),
        "tune.study": best.study or "none",
        "tune.trial": "none" if best.trial is None else str(best.trial),
        "tune.run_id": best.run_id or "none",
        **provenance.lineage(),
    }
    logged = store.flatten(
        {
            "features": data.spec.to_dict(),
            "split": settings.split.model_dump(),
            "train": chosen.model_dump(),
        }
    )
    line = ""
    try:
        with store.run(experiment_id, name, tags) as run_id:
            mlflow.log_params(logged)
            started, cpu_started = time.monotonic(), time.process_time()
            fitted = fit.fit(data, chosen, "train", store.curve())
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
            tags[runs.MODEL_HASH] = runs.model_hash(fitted.model)
            record = runs.Record(run_id, card["name"], name, logged, metrics, tags)
            record.write()
            line = _line(fitted, chosen.ensemble, seconds)
            runs.log_missing(client, run_id, record, fitted.model)
    except Exception as error:
        # once all is saved, whoever needs the run tells a store that has come back
        if not (line and store.store_failed(error)):
            raise
        line += f"; the MLflow store failed ({store.reason(error)}): the next stage tells it"
    return line


def _line(fitted: fit.Fitted, ensemble: int, seconds: float) -> str:
    epochs, best = len(fitted.history), fitted.best
    accuracy = f"validation accuracy {best['val_accuracy']:.1%}"
    if ensemble > 1:
        return (
            f"{ensemble} networks in {seconds:.0f} s, averaged: {accuracy}; the first took"
            f" {epochs} epochs, and its best is epoch {best['epoch']:.0f}"
        )
    return f"{epochs} epochs in {seconds:.0f} s; best is epoch {best['epoch']:.0f} with {accuracy}"
