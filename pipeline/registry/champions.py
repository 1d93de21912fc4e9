"""Find and change the champion of a registered model, and keep the history of the alias.

MLflow keeps no history of an alias, and if two people set it at once the later one silently
overwrites the earlier. Here every change is first recorded as a tag of its own on the registered
model, which is never overwritten; then the alias is set as the recorded changes require.
"""

import getpass
import json
import random
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from time import sleep

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from tenacity import (
    Retrying,
    retry,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    wait_fixed,
)

from pipeline.errors import UserError
from pipeline.tracking import failures, store

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases: the version that is served, and the latest version that was not good enough."""

PREFIX = "champion."
"""Prefix of the tags that record the changes; the time of the change follows."""

LONGEST_REASON = 2000
"""Maximum length of a reason, in characters; a tag of a registered model holds 5,000."""

BACKOFF = 0.5
"""Maximum pause before somebody who withdrew a change tries again, in seconds.

The pause is random, so that not all try again at the same moment.
"""

CHECKS, CHECK_INTERVAL = 16, 0.2
"""Number of times, and seconds between them, that alias and history are read until they agree.

That is the time that somebody else has between recording a change and setting the alias.
"""


@dataclass(frozen=True)
class AliasChange:
    """One change of the alias ``champion``, with the fields of its tag."""

    at: str
    """Universal time in ISO 8601, to the microsecond; a later change has a later time."""
    version: str
    """The new champion."""
    before: str | None
    """The previous champion."""
    by: str
    reason: str
    rollback: bool = False


@dataclass(frozen=True)
class _State:
    """The champion and the history, as read one after the other."""

    champion: str | None
    changes: list[AliasChange]

    @property
    def recorded(self) -> str | None:
        """Return the champion according to the history."""
        return succession(self.changes)[-1] if self.changes else None


def history(client: MlflowClient, name: str) -> list[AliasChange]:
    """Read all changes of the champion of a registered model, the oldest first."""
    model = store.if_exists(lambda: client.get_registered_model(name))
    tags = model.tags if model else {}
    changes = [
        AliasChange(**json.loads(value)) for key, value in tags.items() if key.startswith(PREFIX)
    ]
    return sorted(changes, key=lambda change: (change.at, int(change.version)))


def succession(changes: list[AliasChange]) -> list[str]:
    """List the versions that successive rollbacks would go through; the last one is the champion.

    Examples
    --------
    >>> changes = [AliasChange(str(i), v, None, "ann", "-") for i, v in enumerate("123")]
    >>> succession(changes)
    ['1', '2', '3']
    >>> succession([*changes, AliasChange("3", "2", "3", "ann", "-", rollback=True)])
    ['1', '2']
    """
    versions: list[str] = []
    for change in changes:
        if change.rollback and change.version in versions:
            last = len(versions) - versions[::-1].index(change.version)
            del versions[last:]
        elif versions[-1:] != [change.version]:
            versions.append(change.version)
    return versions


def champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Find the version with the alias ``champion``; None if there is none."""
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        # to MLflow an alias that does not exist is an invalid parameter
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None


def find(client: MlflowClient, name: str, wanted: str) -> ModelVersion:
    """Find a version by its number or its alias.

    Raises
    ------
    UserError
        When the registry has no such version.
    """
    try:
        # no database has a number with more digits
        if re.fullmatch("[0-9]{1,9}", wanted):
            return client.get_model_version(name, wanted)
        return client.get_model_version_by_alias(name, wanted)
    except MlflowException as error:
        if failures.store_failed(error):
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    if not versions:
        others = sorted(model.name for model in client.search_registered_models())
        hint = f" It has {', '.join(others)}: dataset.name and register.name choose one."
        raise UserError(
            f"the registry at {store.address()} has no model {name}: run `make run` first."
            f"{hint if others else ''}"
        )
    numbers = ", ".join(sorted((str(v.version) for v in versions), key=int))
    missing = f"version {wanted}" if wanted.isdigit() else f"version with the alias {wanted}"
    raise UserError(f"{name} has no {missing} at {store.address()}: its versions are {numbers}.")


def set_champion(
    client: MlflowClient, name: str, version: str, reason: str, *, rollback: bool = False
) -> str | None:
    """Make a version the champion.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Name of the registered model.
    version : str
    reason : str
    rollback : bool
        Whether later rollbacks skip the versions that have been champion since `version`.

    Returns
    -------
    str or None
        The champion that it replaced. This is another one than expected if somebody else changed
        the champion at the same time.
    """
    state = _recorded_state(client, name)
    change = AliasChange("", version, state.champion, _user(), reason, rollback)
    change, _ = _record(client, name, state.changes, change)
    _set_alias(client, name)
    earlier = [other for other in history(client, name) if other.at < change.at]
    if len(earlier) > len(state.changes):  # somebody else was faster
        return succession(earlier)[-1]
    return state.champion


def replace_champion(
    client: MlflowClient, name: str, version: str, expected: str | None, reason: str
) -> str | None:
    """Make a version the champion if the present champion is still the expected one.

    MLflow has no such operation. So a change is withdrawn if somebody else records one at the same
    time: at most one of several simultaneous changes remains, and the other callers learn of it.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Name of the registered model.
    version : str
    expected : str or None
        The champion that `version` was compared with; None if there was none.
    reason : str

    Returns
    -------
    str or None
        The champion now: `version`, or the version that it has to be compared with first.
    """
    state = _recorded_state(client, name)
    if state.champion != expected:
        return state.champion
    change = AliasChange("", version, state.champion, _user(), reason)
    change, key = _record(client, name, state.changes, change)
    if any(other not in (*state.changes, change) for other in history(client, name)):
        client.delete_registered_model_tag(name, key)
        sleep(random.uniform(0, BACKOFF))  # noqa: S311
        if not champion(client, name):
            # the recorded champion may have been deleted, or is about to get the alias
            return None
    _set_alias(client, name)
    now = champion(client, name)
    return str(now.version) if now else None


def _lost_race(error: BaseException) -> bool:
    return isinstance(error, MlflowException) and error.error_code == "BAD_REQUEST"


retry_lost_race = retry(
    retry=retry_if_exception(_lost_race), stop=stop_after_attempt(3), reraise=True
)
"""Try again if somebody else has set the same alias or tag at the same moment.

MLflow inserts what does not exist yet. If two people do so at once, one of them gets an error; the
second attempt finds it and updates it."""


@retry_lost_race
def set_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Set an alias of a registered model."""
    client.set_registered_model_alias(name, alias, version)


def _recorded_state(client: MlflowClient, name: str) -> _State:
    """Read champion and history; record the champion if somebody set the alias by hand.

    Otherwise a rollback would not know of a champion that was set in the MLflow UI.
    """
    state = _consistent_state(client, name)
    if state.champion in (None, state.recorded):
        return state
    by_hand = AliasChange("", state.champion, state.recorded, "unknown", "found as the champion")
    by_hand, _ = _record(client, name, state.changes, by_hand)
    return _State(state.champion, [*state.changes, by_hand])


def _consistent_state(client: MlflowClient, name: str) -> _State:
    """Read champion and history until they agree, or until it is clear that they never will."""

    def read() -> _State:
        # In this order, because everybody records a change before setting the alias.
        version = champion(client, name)
        return _State(str(version.version) if version else None, history(client, name))

    reading = Retrying(
        retry=retry_if_result(lambda state: state.changes and state.champion != state.recorded),
        stop=stop_after_attempt(CHECKS),
        wait=wait_fixed(CHECK_INTERVAL),
        sleep=sleep,
        retry_error_callback=lambda last: last.outcome and last.outcome.result(),
    )
    state: _State = reading(read)
    return state


def _record(
    client: MlflowClient, name: str, changes: list[AliasChange], new: AliasChange
) -> tuple[AliasChange, str]:
    """Record a change after the others, even if the clocks of the machines disagree.

    Returns
    -------
    tuple of AliasChange and str
        The change as recorded, with its time, and the name of its tag.
    """
    now = datetime.now(UTC)
    if changes:
        now = max(now, datetime.fromisoformat(changes[-1].at) + timedelta(microseconds=1))
    at = now.isoformat(timespec="microseconds")
    change = AliasChange(**{**asdict(new), "at": at, "reason": new.reason[:LONGEST_REASON]})
    # not every store allows a colon, and two people may write in the same microsecond
    key = f"{PREFIX}{at.replace(':', '-').replace('+00-00', '')}.{secrets.token_hex(2)}"
    client.set_registered_model_tag(name, key, json.dumps(asdict(change), ensure_ascii=False))
    return change, key


def _set_alias(client: MlflowClient, name: str) -> None:
    """Set the alias to the last recorded champion, until no new change has been recorded.

    Whoever sets the alias last has read the history last, so all end with the same version.
    """
    current = None
    while (versions := succession(history(client, name))) and versions[-1] != current:
        current = versions[-1]
        set_alias(client, name, CHAMPION, current)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without user names
        return "unknown"
