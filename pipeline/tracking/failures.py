"""Recognise failures of a store (MLflow, a database, S3) and describe them in a few words."""

import errno
import re

from mlflow.exceptions import MlflowException

TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "IO_ERROR"}
"""MLflow's codes for failures of the store; an error without a code has the first one."""

REFUSED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
"""MLflow's codes for a user who may not do what was requested."""

STORE_LIBRARIES = (
    "sqlalchemy",
    "requests",
    "urllib3",
    "botocore",
    "boto3",
    "psycopg2",
    "sqlite3",
)
"""Libraries whose exceptions mean that a store has failed."""

REASONS = (
    ("Connection refused", "connection refused"),
    ("Name or service not known", "no such host"),
    ("nodename nor servname", "no such host"),
    ("WRONG_VERSION_NUMBER", "it uses http, not https"),
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
)
"""Parts of error messages, and their meaning."""


def store_failed(error: BaseException) -> bool:
    """Whether an error is a failure of the store (gone, slow, full, faulty), not a bug of ours."""
    if isinstance(error, MlflowException):
        return error.error_code in TRANSIENT | REFUSED
    return disk_full(error) or type(error).__module__.partition(".")[0] in STORE_LIBRARIES


def refused(error: BaseException) -> bool:
    """Whether the store refused the request because of the user's rights."""
    return isinstance(error, MlflowException) and error.error_code in REFUSED


def disk_full(error: BaseException) -> bool:
    """Whether an error means that the file system has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def reason(error: BaseException) -> str:
    """Describe in a few words what is wrong with the store."""
    text = f"{type(error).__name__} {error}"
    for part, meaning in REASONS:
        if part in text:
            return meaning
    status = re.search(r"error code (\d{3})|too many (\d{3}) error", text)
    if status:
        return f"it answers with status {status[1] or status[2]}"
    return type(error).__name__


def no_driver(what: str, error: ImportError) -> str:
    """Name the missing package that a database needs, in one sentence."""
    name = error.name or getattr(error.__cause__, "name", None) or "for its database"
    return (
        f"{what} needs the Python package {name}, which is not installed: install it, or name"
        " another driver in the address, for example postgresql+psycopg2://."
    )


def without_password(text: str) -> str:
    """Replace the passwords in the addresses of a text, so that it can be shown.

    Examples
    --------
    >>> without_password("at postgresql://ann:secret@db/mlflow")
    'at postgresql://ann:***@db/mlflow'
    """
    return re.sub(r"(\w://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)
