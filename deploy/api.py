"""Call AWS: clients that retry, and polling with a time limit."""

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import boto3
from botocore.config import Config
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from pipeline.errors import UserError

T = TypeVar("T")

TIME_LIMIT = 20 * 60
"""Maximum time to wait for a scan or a deployment, in seconds."""


def client(service: str) -> Any:
    """Return a client that retries throttled calls with increasing delays."""
    # eight attempts: a deployment takes minutes anyway
    return boto3.client(service, config=Config(retries={"mode": "standard", "max_attempts": 8}))


def poll_seconds() -> float:
    """Return the seconds between two polls: ``AWS_POLL_SECONDS``, or 10."""
    return float(os.environ.get("AWS_POLL_SECONDS", "10"))


def poll(read: Callable[[], T | None], complaint: str) -> T:
    """Call a function until it returns something.

    Parameters
    ----------
    read : callable
        Returns None as long as there is nothing to return.
    complaint : str
        Beginning of the error sentence.

    Raises
    ------
    UserError
        If it still returns None after 20 minutes.
    """

    def give_up(_: RetryCallState) -> None:
        raise UserError(f"{complaint} within {TIME_LIMIT // 60} minutes.")

    polling = Retrying(
        retry=retry_if_result(lambda found: found is None),
        wait=wait_fixed(poll_seconds()),
        stop=stop_after_delay(TIME_LIMIT),
        retry_error_callback=give_up,
    )
    return cast("T", polling(read))
