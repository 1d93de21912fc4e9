"""Measure the cost of tracking a training, and the time that register and lineage take.

    python -m bench.registry

Run it in a repository in which the pipeline has run. Trainings with and without tracking alternate
in one process; those with tracking use a temporary store.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import params, paths, stage, tables
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.tracking import runs, store
from pipeline.training import fit
from pipeline.training.trials import read_best

ROUNDS = 3


def main() -> str:
    """Measure and print a table.

    Returns
    -------
    str
        The closing line.
    """
    commands = {
        name: min(seconds(lambda name=name: run(name)) for _ in range(ROUNDS))  # type: ignore[misc]
        for name in ("register", "lineage")
    }
    settings = params.load()
    card = tables.read_json(paths.DATASET)
    record = runs.read()
    featurized = read_features()
    folds = split.by_fold(featurized.index, settings.split.test_fold)
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, folds, card["labels"])
    chosen = params.with_values(settings.train, read_best().params)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        client = store.connect()
        experiment_id = client.create_experiment("bench", artifact_location=f"{folder}/artifacts")

        def without() -> None:
            fit.fit(data, chosen, "without")

        def tracked() -> None:
            with store.run(experiment_id, "bench", record.tags) as run_id:
                fitted = fit.fit(data, chosen, "with", store.epoch_logger())
                runs.log_missing(client, run_id, record, fitted.model)

        without()  # compiles and fills caches
        pairs = [(seconds(without), seconds(tracked)) for _ in range(ROUNDS)]
    bare, full = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{'register, nothing to do':40} {commands['register']:6.1f} s")
    print(f"{'lineage of the champion':40} {commands['lineage']:6.1f} s")
    print(f"{f'training, {chosen.epochs} epochs, without tracking':40} {bare:6.1f} s")
    print(f"{'training, with tracking':40} {full:6.1f} s")
    ratios = ", ".join(f"{tracked / bare:.3f}" for bare, tracked in pairs)
    return f"training takes {full / bare:.3f} times as long with tracking (rounds: {ratios})"


def run(name: str) -> None:
    """Run a command of the pipeline as a user does."""
    command = [sys.executable, "-m", "pipeline", name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path.cwd())


def seconds(work: Callable[[], object]) -> float:
    """Measure how long `work` takes, in seconds."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    stage.run("bench", main)
