"""Log the training run, and log it again if the MLflow store does not have it.

DVC may restore the training stage from its cache, and the store may have been deleted or replaced
since the last time. Therefore everything that the run records is also a stage output, and code
that needs the run calls :func:`ensure`.
"""

import hashlib
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
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
from pipeline.errors import UserError
from pipeline.tracking import failures, provenance, store

if TYPE_CHECKING:
    import keras

FILES = (paths.MODEL_SPEC, paths.HISTORY, paths.PARAMS, paths.CLIPS, paths.REJECTED, paths.LOCK)
"""Files that training logs besides the model; ``dvc.lock`` has the hashes of the data."""

SUMMARY = "model_summary.txt"
"""Artifact with the network's layers as Keras prints them."""

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
"""Files that the evaluation logs."""

MODEL_HASH = "model_sha256"
"""Tag of runs and versions that identifies the model: a hash of its weights and feature spec."""

WORST_CLASS = "worst_class"
"""Name of the class with the lowest recall among the figures, which MLflow keeps as a tag."""

TEST_PREFIX = "test_"
"""Prefix of the metrics of a run, and of the tags of a version, that come from the evaluation."""

RESTORED_FROM = "pipeline.restored_from"
"""Tag of a run that was logged again: the id of the original run."""


@dataclass(frozen=True)
class Record:
    """The content of the training run, except for curves, files and the model."""

    run_id: str
    experiment: str
    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    tags: dict[str, str]
    file_sha256: str = ""
    """Hash of ``models/model.keras``; empty in records of earlier releases."""

    def write(self, path: Path = paths.RUN) -> None:
        """Write the record as JSON."""
        tables.write_json(path, asdict(self))


def read(path: Path = paths.RUN) -> Record:
    """Read the record that :meth:`Record.write` wrote."""
    return Record(**tables.read_json(path))


def ensure(client: MlflowClient, record: Record) -> str:
    """Make sure that the store has the complete training run, without training again.

    A missing run is logged again from the stage's outputs. A run that was interrupted, or has lost
    artifacts, gets what it lacks.

    Parameters
    ----------
    client : MlflowClient
        From :func:`pipeline.tracking.store.connect`.
    record : Record

    Returns
    -------
    str
        The run's id in this store: the recorded one, unless the run was logged again.

    Raises
    ------
    UserError
        When the model's file is not the one that the training wrote.
    """
    if record.file_sha256 not in ("", provenance.sha256(paths.MODEL)):
        raise UserError(
            f"{paths.MODEL} is not the file that the stage train wrote: restore it with"
            f" `dvc checkout --force {paths.MODEL}`, or train again with `dvc repro --force train`."
        )
    experiment_id = store.experiment(client, record.experiment)
    store.close_dead_runs(client, experiment_id)
    run = find(client, experiment_id, record)
    if run and is_complete(client, run):
        return str(run.info.run_id)
    tags = record.tags
    if run is None or run.info.run_id != record.run_id:
        tags = {**tags, RESTORED_FROM: record.run_id}
    resumed = run.info.run_id if run else None
    with store.run(experiment_id, record.name, tags, resume=resumed) as run_id:
        log_missing(client, run_id, record)
    return run_id


def find(client: MlflowClient, experiment_id: str, record: Record) -> Run | None:
    """Find the recorded run, or the one that was logged again from the record."""
    run = store.if_exists(lambda: get_undeleted(client, record.run_id))
    if run:
        return run
    restored = client.search_runs(
        [experiment_id], f"tags.`{RESTORED_FROM}` = '{record.run_id}'", max_results=1
    )
    return restored[0] if restored else None


def get_undeleted(client: MlflowClient, run_id: str) -> Run:
    """Get a run; a deleted one is restored."""
    run = client.get_run(run_id)
    if run.info.lifecycle_stage == "deleted":
        client.restore_run(run_id)
    return run


def is_complete(client: MlflowClient, run: Run) -> bool:
    """Whether a run has finished and still has its files and its model."""
    files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    return (
        run.info.status == "FINISHED"
        and files.issuperset(file.name for file in existing(FILES))
        and has_files(client, model_of(run))
    )


def download(client: MlflowClient, run_id: str, name: str, folder: Path) -> Path | None:
    """Download an artifact of a run into a folder; None if the run has none of this name."""
    try:
        return Path(client.download_artifacts(run_id, name, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        if failures.store_failed(error):
            raise
        return None


def existing(files: Iterable[Path]) -> list[Path]:
    """Return the files that exist: without DVC there is no ``dvc.lock``."""
    return [file for file in files if file.exists()]


def model_of(run: Run) -> str | None:
    """Return the id of the model that a run logged; None if it has not logged one."""
    logged = run.outputs.model_outputs if run.outputs else []
    return str(logged[-1].model_id) if logged else None


def has_files(client: MlflowClient, model_id: str | None) -> bool:
    """Whether a logged model is complete and its files exist."""
    if model_id is None:
        return False
    logged = store.if_exists(lambda: client.get_logged_model(model_id))
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
        return []  # the folder does not exist any more


def log_missing(
    client: MlflowClient, run_id: str, record: Record, network: "keras.Model | None" = None
) -> None:
    """Log to the active run whatever it lacks.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
        Id of the active run.
    record : Record
    network : keras.Model, optional
        The model to log; read from its file if left out and needed.
    """
    run = client.get_run(run_id)
    if len(run.data.params) < len(record.params):
        mlflow.log_params(record.params)
    client.set_tag(run_id, MODEL_HASH, record.tags[MODEL_HASH])
    epochs = tables.read(paths.HISTORY)
    logged = client.get_metric_history(run_id, epochs.columns[-1])
    last = max((point.step for point in logged), default=0)
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
    """Log the training and the validation clips to the active run, as MLflow datasets."""
    clips = tables.read(paths.CLIPS)
    for context, folds in (("training", "train_folds"), ("validation", "validation_fold")):
        wanted = [int(fold) for fold in record.tags[f"split.{folds}"].split(",")]
        with warnings.catch_warnings():
            # MLflow warns that whole numbers could be missing; in our table they never are
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
    """Log a network to the active run as ``model``, and a summary of its layers.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
        Id of the active run.
    network : keras.Model or None
        None for the network that the stage ``train`` saved.
    model_id : str or None
        Id of a logged model whose files are lost and are written again.
    """
    from pipeline.backend import keras

    if network is None:
        network = keras.saving.load_model(paths.MODEL)
    lines: list[str] = []
    network.summary(line_length=80, expand_nested=True, print_fn=lines.append)
    client.log_text(run_id, "\n".join(lines), SUMMARY)
    keras.utils.disable_interactive_logging()  # or MLflow's example shows a progress bar
    example = np.zeros((1, *network.input_shape[1:]), np.float32)
    described = {
        "signature": infer_signature(example, network.predict(example, verbose=0)),
        "input_example": example,
        # the files that are needed to predict the label of a waveform
        "extra_files": [str(paths.MODEL_SPEC), str(paths.DATASET)],
        # Given here, because MLflow needs another process and half a minute to find them out.
        "pip_requirements": [
            f"{library}=={version(library)}" for library in ("keras", "mlflow", "numpy")
        ]
        + [f"tensorflow=={_tensorflow_version()}"],
    }
    if model_id is None:
        mlflow.tensorflow.log_model(network, name="model", **described)
        return
    # `log_model` with an id fails, because it would link the model to the run a second time
    with tempfile.TemporaryDirectory() as folder:
        where = client.get_logged_model(model_id).artifact_location
        ids = Model(artifact_path=where, run_id=run_id, model_id=model_id, model_uuid=model_id)
        mlflow.tensorflow.save_model(network, f"{folder}/model", mlflow_model=ids, **described)
        client.log_model_artifacts(model_id, f"{folder}/model")
    client.finalize_logged_model(model_id, LoggedModelStatus.READY)


def log_evaluation(client: MlflowClient, run_id: str) -> None:
    """Log the test metrics, tables and plots to the training run, unless it has them.

    The run remains finished, so that an interruption leaves no open run.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
    """
    measured = tables.read_json(paths.METRICS)
    metrics = {f"{TEST_PREFIX}{key}": value for key, value in numbers(measured).items()}
    logged = client.get_run(run_id).data.metrics
    files = {entry.path for entry in client.list_artifacts(run_id)}
    if all(logged.get(key) == value for key, value in metrics.items()) and files.issuperset(
        file.name for file in REPORTS
    ):
        return
    for file in REPORTS:
        client.log_artifact(run_id, str(file))
    if WORST_CLASS in measured:
        client.set_tag(run_id, f"{TEST_PREFIX}{WORST_CLASS}", measured[WORST_CLASS])
    # last, because they show that the rest is complete
    now = int(time.time() * 1000)
    client.log_batch(run_id, [Metric(key, value, now, 0) for key, value in metrics.items()])


def figures(record: Record) -> dict[str, Any]:
    """Read the figures of the test fold, and check that they are those of the run's model.

    Raises
    ------
    UserError
        When they are missing, or were computed for another model.
    """
    measured: dict[str, Any] = tables.read_json(paths.METRICS)
    if measured.get(MODEL_HASH) != record.tags[MODEL_HASH]:
        raise UserError(
            f"{paths.METRICS} has the figures of another model than {paths.MODEL}: run `dvc repro`"
            " to score this one."
        )
    return measured


def check_clips(record: Record, card: Mapping[str, Any]) -> None:
    """Refuse a model that was trained on other clips than those that are in ``data/``.

    Raises
    ------
    UserError
    """
    if record.tags["dataset.sha256"] != card["sha256"]:
        raise UserError(
            f"{paths.MODEL} was trained on clips of {record.tags['dataset.name']} that differ from"
            f" those of {card['name']} in {paths.AUDIO}: run `dvc repro`."
        )


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return those of the figures that are numbers, which MLflow can keep as metrics."""
    return {key: float(value) for key, value in figures.items() if not isinstance(value, str)}


def evaluation_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that :func:`log_evaluation` logged, sorted and without their prefix."""
    return {
        k.removeprefix(TEST_PREFIX): v
        for k, v in sorted(metrics.items())
        if k.startswith(TEST_PREFIX)
    }


def _tensorflow_version() -> str:
    """Return the version of TensorFlow, whichever of its packages is installed."""
    import tensorflow as tf

    return str(tf.__version__)


def model_hash(network: "keras.Model") -> str:
    """Hash a model's weights and its saved feature spec.

    The saved model itself is no use: its archive contains the time at which it was written.

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
