"""Connect to the MLflow store, and open, log and close its runs."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.tracking import failures, processes, relocate

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"

STAGE = "pipeline.stage"
"""Tag of every run: the stage that made it."""

RETRIES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "AWS_MAX_ATTEMPTS": "5",
    "PGCONNECT_TIMEOUT": "10",
}
"""Settings that give a server that has answered before about a minute to recover.

The user's own settings take precedence. MLflow's defaults are four minutes, and two per request.
"""

FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Settings for a server that has not answered yet, or has already failed."""


def uri() -> str:
    """Return the address of the MLflow store: ``MLFLOW_TRACKING_URI``, or a local SQLite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def address() -> str:
    """Return the store's address without its password, so that it can be shown."""
    return failures.without_password(uri())


def connect() -> MlflowClient:
    """Connect MLflow to the store and make sure that the store answers.

    Returns
    -------
    MlflowClient

    Raises
    ------
    UserError
        When the store cannot be reached or read.
    """
    for name, value in RETRIES.items():
        os.environ.setdefault(name, value)
    _check_scheme()
    try:
        if not uri().startswith(("http", "databricks")):
            # MLflow would try for two minutes and print the driver's error each time.
            sqlalchemy.create_engine(uri(), poolclass=sqlalchemy.NullPool).connect().close()
        mlflow.set_tracking_uri(uri())
        with fail_fast():
            client = MlflowClient()
            client.search_experiments(max_results=1)
    except ModuleNotFoundError as error:
        raise UserError(failures.no_driver(f"the MLflow store at {address()}", error)) from None
    except Exception as error:  # those of SQLAlchemy, requests and MLflow have no common base
        raise UserError(
            f"the MLflow store at {address()} does not answer ({failures.reason(error)}): check"
            " MLFLOW_TRACKING_URI, or unset it to use the local store."
        ) from None
    file = database()
    if file is not None and file.parent == Path.cwd() and file.is_file():
        relocate.update_paths(file)
    return client


def database() -> Path | None:
    """Return the file of an SQLite store; None for any other store."""
    parts = urlsplit(uri())
    # a fourth slash makes the path absolute
    return Path(unquote(parts.path[1:])).absolute() if parts.scheme == "sqlite" else None


def _check_scheme() -> None:
    """Refuse an address that MLflow would read as a folder, which it no longer supports."""
    scheme = (urlsplit(uri()).scheme or uri()).partition("+")[0]
    supported = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
    if scheme not in supported:
        kind = f"an address with the scheme {scheme}" if "://" in uri() else "a folder"
        raise UserError(
            f"MLFLOW_TRACKING_URI is {address()}, {kind}: it must begin with http(s)://, sqlite:///"
            " or the scheme of another database; unset it to use the local store."
        )


@contextmanager
def fail_fast() -> Iterator[None]:
    """Within the context, do not wait for a server that does not answer."""
    previous = {name: os.environ.get(name) for name in FEW_RETRIES}
    # a still lower setting of the user is kept
    os.environ |= {
        name: str(min(int(value), int(previous[name] or value)))
        for name, value in FEW_RETRIES.items()
    }
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def if_exists(get: Callable[[], T]) -> T | None:
    """Get something from the store that may not exist (any more).

    Parameters
    ----------
    get : callable
        Gets one thing by its name or id.

    Returns
    -------
    object or None
        None if the store has no such thing.
    """
    try:
        return get()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def guarded(main: Callable[[], str]) -> Callable[[], str]:
    """Wrap a command so that it ends with one sentence if the store fails while it runs.

    Finished work is kept: trials in the study, outputs in the workspace.
    """

    @wraps(main)
    def run_main() -> str:
        try:
            return main()
        except Exception as error:
            # a full disk may concern any file; `stage.run` names it
            if not failures.store_failed(error) or failures.disk_full(error):
                raise
            if failures.refused(error):
                raise UserError(
                    f"the MLflow store at {address()} refuses the request: check the user and"
                    " its rights."
                ) from error
            raise UserError(
                f"the MLflow store at {address()} failed ({failures.reason(error)}): finished work"
                " is kept; start again when the store is back."
            ) from error

    return run_main


def experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, which is created if necessary.

    Raises
    ------
    UserError
        When the experiment was deleted.
    """
    existing = client.get_experiment_by_name(name)
    if existing is None:
        try:
            # without this tag the UI shows its pages for language models
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, tags=kind))
        except MlflowException:  # another process may have just created it
            existing = client.get_experiment_by_name(name)
            if existing is None:
                raise
    if existing.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment {name} is deleted: restore it with"
            f" `mlflow experiments restore --experiment-id {existing.experiment_id}`."
        )
    return str(existing.experiment_id)


@contextmanager
def run(
    experiment_id: str,
    name: str,
    tags: dict[str, str],
    resume: str | None = None,
    parent: str | None = None,
) -> Iterator[str]:
    """Start a run, or resume one, and make it the active run.

    The run is finished at the end, or marked as failed if there is an exception.

    Parameters
    ----------
    experiment_id : str
    name : str
        The run's name in the UI.
    tags : dict
    resume : str, optional
        Id of a run to resume.
    parent : str, optional
        Id of the parent run.

    Yields
    ------
    str
        The run's id.
    """
    active = mlflow.start_run(
        run_id=resume,
        experiment_id=experiment_id,
        run_name=name,
        nested=parent is not None,
        parent_run_id=parent,
        tags={**tags, processes.PROCESS: processes.this_process()},
        log_system_metrics=False,
    )
    try:
        yield active.info.run_id
    except BaseException as error:
        # If the store is gone, the run stays open until `close_dead_runs` closes it.
        with fail_fast(), suppress(Exception):
            mlflow.end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    mlflow.end_run()


def epoch_logger() -> Callable[[int, dict[str, float]], None]:
    """Return a callback that logs the metrics of every epoch to the active run.

    If the store fails, the training goes on and no more epochs are logged:
    :func:`pipeline.tracking.runs.log_missing` logs them later.
    """
    failed = False

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        nonlocal failed
        if failed:
            return
        try:
            mlflow.log_metrics(metrics, step=epoch)
        except Exception as error:
            if not failures.store_failed(error):
                raise
            failed = True

    return on_epoch


def close_dead_runs(client: MlflowClient, experiment_id: str) -> int:
    """Mark as killed the runs whose process on this machine has ended.

    Returns
    -------
    int
        Number of these runs.
    """
    dead = [
        run.info.run_id
        for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
        if processes.is_dead(run.data.tags.get(processes.PROCESS, ""))
    ]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    return len(dead)


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
