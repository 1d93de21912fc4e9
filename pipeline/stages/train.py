"""Train the network with the best parameters of the search, and log the run.

    python -m pipeline train

The epoch with the lowest validation log loss is kept, and the network is calibrated on the
validation fold. The model is written to ``models/``. Its MLflow run records what it was made from.
"""

import mlflow

from pipeline import params, paths, tables
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.tracking import failures, provenance, runs, store
from pipeline.training import final, fit
from pipeline.training.trials import read_best


def main() -> str:
    """Train, save and log the network; return the closing line."""
    settings = params.load()
    best = read_best()
    chosen = params.with_values(settings.train, best.params)
    card = tables.read_json(paths.DATASET)
    featurized = read_features()
    folds = split.by_fold(featurized.index, settings.split.test_fold)
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, folds, card["labels"])

    client = store.connect()
    experiment_id = store.experiment(client, card["name"])
    store.close_dead_runs(client, experiment_id)
    name = f"train {chosen.network} on {card['name']}"
    tags = final.tags(card, folds, best)
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
            trained = final.train(data, chosen)
            final.save(trained, data)
            network = trained.fitted.model
            tags[runs.MODEL_HASH] = runs.model_hash(network)
            file_hash = provenance.sha256(paths.MODEL)
            record = runs.Record(
                run_id, card["name"], name, logged, trained.metrics, tags, file_hash
            )
            record.write()
            line = _line(trained, chosen.ensemble)
            runs.log_missing(client, run_id, record, network)
    except Exception as error:
        # everything is saved by then, and the next stage completes the run
        if not (line and failures.store_failed(error)):
            raise
        line += (
            f"; the MLflow store failed ({failures.reason(error)}): the next stage logs the rest"
        )
    return line


def _line(trained: final.Trained, ensemble: int) -> str:
    epochs, best = len(trained.fitted.history), trained.fitted.best
    seconds = trained.metrics["train_seconds"]
    accuracy = f"validation accuracy {best['val_accuracy']:.1%}"
    if ensemble > 1:
        return (
            f"{ensemble} networks in {seconds:.0f} s, averaged: {accuracy}; the first ran"
            f" {epochs} epochs, and epoch {best['epoch']:.0f} was its best"
        )
    return f"{epochs} epochs in {seconds:.0f} s; best is epoch {best['epoch']:.0f} with {accuracy}"
