"""The training run on record: a stage output from which any MLflow store can be told again.

DVC may restore the training stage from its cache, and the store may have been deleted or be
another one than last time. So all that the run says is written beside the model, and whoever
needs the run asks :func:`ensure` for it.
"""

import hashlib
import json
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import FileInfo, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

from pipeline import paths, tables
from pipeline.tracking import provenance, store

if TYPE_CHECKING:
    import keras

FILES = (paths.MODEL_SPEC, paths.HISTORY, paths.PARAMS, paths.CLIPS, paths.REJECTED, paths.LOCK)
"""What the training adds to the run, beside the model; ``dvc.lock`` names the data by hash."""

SUMMARY = "model_summary.txt"
"""The network's layers as Keras prints them, in the run beside the model."""

REPORTS = (
    paths.LEARNING_CURVES,
    paths.PREDICTIONS,
    paths.PER_CLASS,
    paths.CONFUSION_PLOT,
    paths.PER_CLASS_PLOT,
    paths.RELIABILITY,
    paths.RELIABILITY_PLOT,
    paths.ABSTENTION,
    paths.ABSTENTION_PLOT,
    paths.SEARCH_PLOT,
    paths.EXAMPLES,
)
"""What the evaluation adds to the run."""

MODEL_HASH = "model_sha256"
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
    """Make sure that the store has the training run, whole, without training again.

    A run that is not there is written anew from the stage's outputs; one that was left in the
    middle, or has lost its artifacts, gets what it lacks.

    Parameters
    ----------
    client : MlflowClient
        As :func:`pipeline.tracking.store.connect` gives it.
    record : Record

    Returns
    -------
    str
        The run's id in this store; the recorded one, unless the run had to be restored.
    """
    experiment_id = store.experiment(client, record.experiment)
    store.close_dead_runs(client, experiment_id)
    run = find(client, experiment_id, record)
    if run and not lacking(client, run):
        return str(run.info.run_id)
    tags = record.tags
    if run is None or run.info.run_id != record.run_id:
        tags = {**tags, RESTORED_FROM: record.run_id}
    known = run.info.run_id if run else None
    with store.run(experiment_id, record.name, tags, resume=known) as run_id:
        log_missing(client, run_id, record)
    return run_id


def find(client: MlflowClient, experiment_id: str, record: Record) -> Run | None:
    """Find the recorded run, or the one that was restored from the record."""
    run = store.if_there(lambda: active(client, record.run_id))
    if run:
        return run
    restored = client.search_runs(
        [experiment_id], f"tags.`{RESTORED_FROM}` = '{record.run_id}'", max_results=1
    )
    return restored[0] if restored else None


def active(client: MlflowClient, run_id: str) -> Run:
    """Get a run, out of the bin if it is there."""
    run = client.get_run(run_id)
    if run.info.lifecycle_stage == "deleted":
        client.restore_run(run_id)
    return run


def lacking(client: MlflowClient, run: Run) -> bool:
    """Whether a run has not ended well, or has lost files."""
    files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    return (
        run.info.status != "FINISHED"
        or not files.issuperset(file.name for file in existing(FILES))
        or not has_files(client, model_of(run))
    )


def existing(files: Iterable[Path]) -> list[Path]:
    """Those that are there: a stage run by hand, without DVC, has no ``dvc.lock``."""
    return [file for file in files if file.exists()]


def model_of(run: Run) -> str | None:
    """Id of the model that the run logged."""
    logged = run.outputs.model_outputs if run.outputs else []
    return str(logged[-1].model_id) if logged else None


def has_files(client: MlflowClient, model_id: str | None) -> bool:
    """Whether a logged model is complete and its files are where the store says."""
    if model_id is None:
        return False
    logged = store.if_there(lambda: client.get_logged_model(model_id))
    if logged is None or logged.status != LoggedModelStatus.READY:
        return False
    within = {e.path for path in (None, "data") for e in _list(client, model_id, path)}
    return within >= {"MLmodel", "data/model.keras"}


def _list(client: MlflowClient, model_id: str, path: str | None) -> list[FileInfo]:
    try:
        return list(client.list_logged_model_artifacts(model_id, path))
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and "Unable to list" not in str(error):
            raise
        return []  # its folder is gone


def log_missing(
    client: MlflowClient, run_id: str, record: Record, network: "keras.Model | None" = None
) -> None:
    """Log to the active run what it lacks of a training's outcome.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
        Of the active run.
    record : Record
    network : keras.Model, optional
        Logged as ``model``, with signature and input example; read from its file where it is
        needed and not given.
    """
    run = client.get_run(run_id)
    if len(run.data.params) < len(record.params):
        mlflow.log_params(record.params)
    client.set_tag(run_id, MODEL_HASH, record.tags[MODEL_HASH])
    epochs = tables.read(paths.HISTORY)
    told = client.get_metric_history(run_id, epochs.columns[-1])
    last = max((point.step for point in told), default=0)
    for row in epochs[epochs["epoch"] > last].to_dict("records"):
        step = int(row.pop("epoch"))
        mlflow.log_metrics({str(k): float(v) for k, v in row.items()}, step=step)
    if not record.metrics.keys() <= run.data.metrics.keys():
        mlflow.log_metrics(record.metrics)
    files = {entry.path for entry in client.list_artifacts(run_id)}
    for file in existing(FILES):
        if file.name not in files:
            mlflow.log_artifact(str(file))
    if not run.inputs.dataset_inputs:
        log_clips(record)
    model_id = model_of(run)
    if not has_files(client, model_id):
        log_model(client, run_id, network, model_id)


def log_clips(record: Record) -> None:
    """Log to the active run, as MLflow datasets, which clips trained and which validated."""
    clips = tables.read(paths.CLIPS)
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


def log_model(
    client: MlflowClient, run_id: str, network: "keras.Model | None", model_id: str | None
) -> None:
    """Log a network to the active run as ``model``, and what its layers are.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
        Of the active run.
    network : keras.Model or None
        None: as the train stage saved it.
    model_id : str or None
        Of a logged model whose files are gone and are written again.
    """
    from pipeline.backend import keras

    if network is None:
        network = keras.saving.load_model(paths.MODEL)
    lines: list[str] = []
    network.summary(line_length=80, expand_nested=True, print_fn=lines.append)
    client.log_text(run_id, "\n".join(lines), SUMMARY)
    keras.utils.disable_interactive_logging()  # MLflow tries the example, with a bar of its own
    example = np.zeros((1, *network.input_shape[1:]), np.float32)
    described = {
        "signature": infer_signature(example, network.predict(example, verbose=0)),
        "input_example": example,
        # with these the version needs nothing else to answer for a waveform
        "extra_files": [str(paths.MODEL_SPEC), str(paths.DATASET)],
        # Stated, for finding them out takes MLflow a second process and half a minute.
        "pip_requirements": [
            f"{library}=={version(library)}" for library in ("keras", "mlflow", "numpy")
        ]
        + [f"tensorflow=={_tensorflow_version()}"],
    }
    if model_id is None:
        mlflow.tensorflow.log_model(network, name="model", **described)
        return
    # `log_model` with an id would tie the model to the run a second time, which fails
    with tempfile.TemporaryDirectory() as folder:
        where = client.get_logged_model(model_id).artifact_location
        ids = Model(artifact_path=where, run_id=run_id, model_id=model_id, model_uuid=model_id)
        mlflow.tensorflow.save_model(network, f"{folder}/model", mlflow_model=ids, **described)
        client.log_model_artifacts(model_id, f"{folder}/model")
    client.finalize_logged_model(model_id, LoggedModelStatus.READY)


def log_evaluation(client: MlflowClient, run_id: str) -> None:
    """Add the test fold's figures and pictures to the training run, unless they are there.

    The run stays finished meanwhile, so that a stop in the middle leaves nothing open.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
    """
    figures = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    metrics = {f"test_{key}": float(value) for key, value in figures.items()}
    logged = client.get_run(run_id).data.metrics
    files = {entry.path for entry in client.list_artifacts(run_id)}
    if all(logged.get(key) == value for key, value in metrics.items()) and files.issuperset(
        file.name for file in REPORTS
    ):
        return
    for file in REPORTS:
        client.log_artifact(run_id, str(file))
    # last, for they say that it is done
    now = int(time.time() * 1000)
    client.log_batch(run_id, [Metric(key, value, now, 0) for key, value in metrics.items()])


def _tensorflow_version() -> str:
    """Version of TensorFlow, whichever of its packages is installed."""
    import tensorflow as tf

    return str(tf.__version__)


def model_hash(network: "keras.Model") -> str:
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
    digest = hashlib.sha256(provenance.sha256(paths.MODEL_SPEC).encode())
    for weights in network.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()
