"""The training run on record: a stage output from which any MLflow store can be told again.

DVC may restore the training stage from its cache, and the store may have been deleted or be
another one than last time. So all that the run says is written beside the model, and whoever
needs the run asks :func:`ensure` for it.
"""

import json
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

from pipeline import paths, tracking

if TYPE_CHECKING:
    import keras

REPORTS = (
    paths.LEARNING_CURVES,
    paths.PREDICTIONS,
    paths.PER_CLASS,
    paths.CONFUSION_PLOT,
    paths.PER_CLASS_PLOT,
    paths.RELIABILITY,
    paths.RELIABILITY_PLOT,
    paths.SEARCH_PLOT,
)
"""What the evaluation adds to the run."""

FINGERPRINT = "model_sha256"
"""Tag of runs and versions by which the very same model is known again."""

RESTORED_FROM = "pipeline.restored_from"


@dataclass(frozen=True)
class Record:
    """What the training run says, but for its curves, its model and its pictures."""

    run_id: str
    experiment: str
    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    tags: dict[str, str]

    def write(self, path: Path = paths.RUN) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read(path: Path = paths.RUN) -> Record:
    """Read what :meth:`Record.write` wrote."""
    return Record(**json.loads(path.read_text(encoding="utf-8")))


def ensure(client: MlflowClient, record: Record) -> str:
    """Find the training run in the store, or write it there again from the stage's outputs.

    Parameters
    ----------
    client : MlflowClient
        As :func:`pipeline.tracking.connect` gives it.
    record : Record

    Returns
    -------
    str
        The run's id in this store; the recorded one, unless the run had to be restored.
    """
    try:
        if client.get_run(record.run_id).info.lifecycle_stage == "active":
            return record.run_id
    except MlflowException:
        pass  # not in this store
    experiment_id = tracking.experiment(client, record.experiment)
    restored = client.search_runs(
        [experiment_id],
        f"tags.`{RESTORED_FROM}` = '{record.run_id}' and attributes.status = 'FINISHED'",
        max_results=1,
    )
    if restored:
        return str(restored[0].info.run_id)
    from pipeline.backend import keras

    tags = {**record.tags, RESTORED_FROM: record.run_id}
    with tracking.run(experiment_id, record.name, tags) as run_id:
        mlflow.log_params(record.params)
        history = pd.read_csv(paths.HISTORY)
        for row in history.to_dict("records"):
            epoch = int(row.pop("epoch"))
            mlflow.log_metrics({str(k): float(v) for k, v in row.items()}, step=epoch)
        log_training(record, keras.saving.load_model(paths.MODEL))
    return run_id


def log_training(record: Record, network: "keras.Model") -> None:
    """Log to the active run what is known when training has ended.

    Parameters
    ----------
    record : Record
    network : keras.Model
        Logged as ``model``, with signature and input example.
    """
    from pipeline.backend import keras

    mlflow.log_metrics(record.metrics)
    for file in (paths.MODEL_SPEC, paths.HISTORY, paths.PARAMS):
        mlflow.log_artifact(str(file))
    # a recording named 007 and a label named None are what they are
    clips = pd.read_csv(paths.CLIPS, keep_default_na=False, dtype={"recording": str})
    for context, folds in (("training", "train_folds"), ("validation", "validation_fold")):
        wanted = [int(fold) for fold in record.tags[f"split.{folds}"].split(",")]
        with warnings.catch_warnings():
            # on what a schema could be for a file with gaps; ours has none
            warnings.simplefilter("ignore", UserWarning)
            dataset = mlflow.data.from_pandas(
                clips[clips["fold"].isin(wanted)],
                source=str(paths.CLIPS),
                targets="label",
                name=record.tags["dataset.name"],
            )
            mlflow.log_input(dataset, context=context)
    keras.utils.disable_interactive_logging()  # MLflow tries the example, with a bar of its own
    example = np.zeros((1, *network.input_shape[1:]), np.float32)
    mlflow.tensorflow.log_model(
        network,
        name="model",
        signature=infer_signature(example, network.predict(example, verbose=0)),
        input_example=example,
        # with these the version needs nothing else to answer for a waveform
        extra_files=[str(paths.MODEL_SPEC), str(paths.DATASET)],
        # Stated, for finding them out takes MLflow a second process and half a minute.
        pip_requirements=[
            f"{library}=={version(library)}" for library in ("keras", "mlflow", "numpy")
        ]
        + [f"tensorflow=={_tensorflow_version()}"],
    )


def log_evaluation(client: MlflowClient, run_id: str) -> None:
    """Add the test fold's figures and pictures to the training run, unless they are there.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
    """
    figures = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    metrics = {f"test_{key}": value for key, value in figures.items()}
    logged = client.get_run(run_id).data.metrics
    if all(logged.get(key) == value for key, value in metrics.items()):
        return
    with tracking.resume(run_id):
        for file in REPORTS:
            mlflow.log_artifact(str(file))
        mlflow.log_metrics(metrics)


def _tensorflow_version() -> str:
    """Version of TensorFlow, whichever of its packages is installed."""
    import tensorflow as tf

    return str(tf.__version__)
