"""MLflow: where runs go, what they carry, and how to find them again."""

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import mlflow
import psutil  # type: ignore[import-untyped]
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.tracking import relocate

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"

STAGE, PROCESS = "pipeline.stage", "pipeline.process"
"""Tags of every run: the stage that made it, and the process, so that a dead one is noticed."""


PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "AWS_MAX_ATTEMPTS": "5",
    "PGCONNECT_TIMEOUT": "10",
}
"""How long a server that has answered before is waited for, unless the user has set it: about a
minute. MLflow's own are four minutes, and two a request."""

NO_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""The same before a server has answered, or after it has failed."""

TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "IO_ERROR"}
"""MLflow's names for failures that are the store's, not ours; what has no name has the first."""

REFUSED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}

OF_STORES = ("sqlalchemy", "requests", "urllib3", "botocore", "boto3", "psycopg2", "sqlite3")
"""Libraries whose exceptions mean that a store has failed."""


def uri() -> str:
    """Address of the MLflow store: ``MLFLOW_TRACKING_URI``, else a local SQLite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def without_password(text: str) -> str:
    """Blank the passwords of the addresses in `text`, so that it can be shown.

    Examples
    --------
    >>> without_password("at postgresql://ann:secret@db/mlflow")
    'at postgresql://ann:***@db/mlflow'
    """
    return re.sub(r"(\w://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)


def address() -> str:
    """Return the store's address as it may be shown."""
    return without_password(uri())


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
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    _check_scheme()
    try:
        if not uri().startswith(("http", "databricks")):
            # MLflow tries for two minutes, and prints what the driver says every time
            sqlalchemy.create_engine(uri(), poolclass=sqlalchemy.NullPool).connect().close()
        mlflow.set_tracking_uri(uri())
        with impatient():
            client = MlflowClient()
            client.search_experiments(max_results=1)
    except ModuleNotFoundError as error:
        raise UserError(no_driver(f"the MLflow store at {address()}", error)) from None
    except Exception as error:  # SQLAlchemy's, requests' and MLflow's own have no common base
        raise UserError(
            f"the MLflow store at {address()} does not answer ({reason(error)}): check"
            " MLFLOW_TRACKING_URI, or unset it for the local store."
        ) from None
    file = database()
    if file is not None and file.parent == Path.cwd() and file.is_file():
        relocate.mend(file)
    return client


def database() -> Path | None:
    """File of the store, where it is SQLite's."""
    parts = urlsplit(uri())
    # a fourth slash makes the path absolute
    return Path(unquote(parts.path[1:])).absolute() if parts.scheme == "sqlite" else None


def _check_scheme() -> None:
    """Refuse what MLflow would take for a folder of files, a store that it has given up."""
    scheme = (urlsplit(uri()).scheme or uri()).partition("+")[0]
    known = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
    if scheme not in known:
        what = f"of the scheme {scheme}" if "://" in uri() else "a folder"
        raise UserError(
            f"MLFLOW_TRACKING_URI is {address()}, {what}: it has to be http(s)://, sqlite:/// or"
            " another database's; unset it for the local store."
        )


@contextmanager
def impatient() -> Iterator[None]:
    """Do not wait for a server that is not there, for the while."""
    before = {name: os.environ.get(name) for name in NO_PATIENCE}
    # a user's own setting that is still shorter holds
    os.environ |= {
        name: str(min(int(value), int(before[name] or value)))
        for name, value in NO_PATIENCE.items()
    }
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def store_failed(error: BaseException) -> bool:
    """Whether `error` is the store's: gone, slow, full or out of order, not a mistake of ours."""
    if isinstance(error, MlflowException):
        return error.error_code in TRANSIENT | REFUSED
    if disk_full(error):
        return True
    return type(error).__module__.partition(".")[0] in OF_STORES


def if_there(get: Callable[[], T]) -> T | None:
    """Ask the store for what may not be there, or no more.

    Parameters
    ----------
    get : callable
        Asks for one thing by its name or id.

    Returns
    -------
    object or None
        None where the store says that it has none.
    """
    try:
        return get()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def disk_full(error: BaseException) -> bool:
    """Whether `error` is the file system's, which has no room for more."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def reason(error: BaseException) -> str:
    """Say in a few words what is wrong with the store."""
    text = f"{type(error).__name__} {error}"
    for sign, words in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "no such host"),
        ("nodename nor servname", "no such host"),
        ("WRONG_VERSION_NUMBER", "it speaks http and not https"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
        ("imed out", "timed out"),
        ("timeout", "timed out"),
        ("password authentication failed", "the user or the password is wrong"),
        ("no password supplied", "a password is needed"),
        ("does not exist", "there is no such database or user"),
        ("file is not a database", "the file is damaged or not a database"),
        ("malformed", "the file is damaged"),
        ("unable to open database file", "the file cannot be opened"),
        ("database or disk is full", "the disk is full"),
        ("No space left", "the disk is full"),
        ("readonly database", "the file cannot be written"),
        ("database is locked", "the file is locked"),
        ("out-of-date database schema", "its schema is another release's: `mlflow db upgrade`"),
    ):
        if sign in text:
            return words
    answered = re.search(r"error code (\d{3})|too many (\d{3}) error", text)
    if answered:
        return f"it answers with status {answered[1] or answered[2]}"
    return type(error).__name__


def no_driver(what: str, error: ImportError) -> str:
    """Name the package that a database needs and that is not installed."""
    name = error.name or getattr(error.__cause__, "name", None) or "of its database"
    return (
        f"{what} needs the Python package {name}, which is not installed: install it in the"
        " environment, or name another driver in the address, as in postgresql+psycopg2://."
    )


def guarded(main: Callable[[], str]) -> Callable[[], str]:
    """Let a stage end with one sentence when the store fails in its middle.

    What a stage has finished stays: trials in the study, outputs in the workspace.
    """

    @wraps(main)
    def run_main() -> str:
        try:
            return main()
        except Exception as error:
            # a full disk may be any file's, and whoever runs the stage says which
            if not store_failed(error) or disk_full(error):
                raise
            refused = isinstance(error, MlflowException) and error.error_code in REFUSED
            raise UserError(
                f"the MLflow store at {address()} "
                + (
                    "refuses what was asked: check the user and its rights."
                    if refused
                    else f"failed ({reason(error)}): what is finished is kept; start again when it"
                    " is back."
                )
            ) from error

    return run_main


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
    active = mlflow.start_run(
        run_id=resume,
        experiment_id=experiment_id,
        run_name=name,
        nested=parent is not None,
        parent_run_id=parent,
        tags={**tags, PROCESS: this_process()},
        log_system_metrics=False,
    )
    try:
        yield active.info.run_id
    except BaseException as error:
        # Where the store is gone the run stays open; the next start knows it by its process.
        with impatient(), suppress(Exception):
            mlflow.end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    mlflow.end_run()


def curve() -> Callable[[int, dict[str, float]], None]:
    """Make a callback that logs an epoch's metrics to the active run while the store answers.

    A training is dearer than its curve, so it goes on without;
    :func:`pipeline.tracking.runs.log_missing` knows
    the epochs that are missing.
    """
    gone = False

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        nonlocal gone
        if gone:
            return
        try:
            mlflow.log_metrics(metrics, step=epoch)
        except Exception as error:
            if not store_failed(error):
                raise
            gone = True

    return on_epoch


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
    name, _, number = process.rpartition(":")
    host, _, started = name.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        # numbers are given again, so the time of the start belongs to the name; clocks are set
        return bool(abs(psutil.Process(int(number)).create_time() - float(started)) > 5)
    except psutil.NoSuchProcess:
        return True


def this_process() -> str:
    """Name this process as runs and trials are tagged with it: host, start in seconds, number."""
    return f"{socket.gethostname()}:{psutil.Process().create_time():.0f}:{os.getpid()}"


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
