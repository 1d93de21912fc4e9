"""MLflow: where runs go, what they carry, and how to find them again."""

import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.errors import UserError

DEFAULT_URI = "sqlite:///mlflow.db"
LIBRARIES = ("keras", "librosa", "mlflow", "numpy", "optuna", "scipy", "soxr")

STAGE, PROCESS = "pipeline.stage", "pipeline.process"
"""Tags of every run: the stage that made it, and the process, so that a dead one is noticed."""


def uri() -> str:
    """Address of the MLflow store: ``MLFLOW_TRACKING_URI``, else a local SQLite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def connect() -> MlflowClient:
    """Point MLflow at the store and make sure that it answers.

    Returns
    -------
    MlflowClient

    Raises
    ------
    UserError
        When the store cannot be reached or read.
    """
    mlflow.set_tracking_uri(uri())
    client = MlflowClient()
    try:
        client.search_experiments(max_results=1)
    except Exception as error:  # SQLAlchemy's, requests' and MLflow's own have no common base
        raise UserError(
            f"the MLflow store at {uri()} does not answer ({type(error).__name__}): check"
            " MLFLOW_TRACKING_URI, or unset it for the local store."
        ) from error
    return client


def experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment called `name`, made when it is not there.

    Raises
    ------
    UserError
        When it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            # without it the UI shows what it has for language models
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, tags=kind))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment {name} is deleted: restore it with"
            f" `mlflow experiments restore --experiment-id {found.experiment_id}`."
        )
    return str(found.experiment_id)


@contextmanager
def run(
    experiment_id: str,
    name: str,
    tags: dict[str, str],
    resume: str | None = None,
    parent: str | None = None,
) -> Iterator[str]:
    """Make a run the active one; it ends finished, or failed where an exception passes.

    Parameters
    ----------
    experiment_id : str
    name : str
        The run's name in the UI.
    tags : dict
    resume : str, optional
        Id of a run to open again instead of a new one.
    parent : str, optional
        Id of the run to nest it under.

    Yields
    ------
    str
        The run's id.
    """
    with mlflow.start_run(
        run_id=resume,
        experiment_id=experiment_id,
        run_name=name,
        nested=parent is not None,
        parent_run_id=parent,
        tags={**tags, PROCESS: this_process()},
        log_system_metrics=False,
    ) as active:
        yield active.info.run_id


@contextmanager
def resume(run_id: str) -> Iterator[None]:
    """Make a finished run the active one again, to add to it."""
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        yield


def close_dead_runs(client: MlflowClient, experiment_id: str) -> int:
    """Mark as killed the runs whose process on this machine is gone.

    Returns
    -------
    int
        How many there were.
    """
    dead = [
        r.info.run_id
        for r in client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
        if is_dead(r.data.tags.get(PROCESS, ""))
    ]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    return len(dead)


def is_dead(process: str) -> bool:
    """Whether `process`, as tagged on a run, ran on this machine and does no more."""
    host, _, number = process.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def this_process() -> str:
    """Name this process as runs and trials are tagged with it: host and number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys.

    Examples
    --------
    >>> flatten({"train": {"epochs": 3}})
    {'train.epochs': 3}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def lineage() -> dict[str, str]:
    """Tags that tell what a run was made from: code, data, features, libraries.

    Returns
    -------
    dict
        ``lineage.git_commit`` and ``lineage.git_dirty`` (``dvc.lock`` does not count: it is the
        pipeline's own output), ``lineage.<output>`` with the MD5 that ``dvc.lock`` states for the
        clips and the features, ``lineage.python`` and ``lineage.<library>``. A fact that cannot be
        found is stated as ``unknown``.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":!dvc.lock")
    hashes = _locked_hashes()
    return {
        "lineage.git_commit": commit or "unknown",
        "lineage.git_dirty": "unknown" if changes is None else str(bool(changes)).lower(),
        "lineage.audio_md5": hashes.get(str(paths.AUDIO), "unknown"),
        "lineage.clips_md5": hashes.get(str(paths.CLIPS), "unknown"),
        "lineage.features_md5": hashes.get(str(paths.FEATURES), "unknown"),
        "lineage.python": platform.python_version(),
        **{f"lineage.{library}": version(library) for library in LIBRARIES},
    }


def sha256(*files: Path) -> str:
    """Hex digest over the contents of `files`, in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _locked_hashes() -> dict[str, str]:
    """MD5 of every stage output by its path, as ``dvc.lock`` states them."""
    try:
        lock = YAML(typ="safe").load(Path("dvc.lock").read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    outputs = [out for entry in lock.get("stages", {}).values() for out in entry.get("outs", [])]
    return {out["path"]: out["md5"] for out in outputs if "md5" in out}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # fixed arguments, no shell
            ["git", *arguments],  # noqa: S607  # the git on the user's path
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
