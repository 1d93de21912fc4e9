"""Who was champion when, by whom and why: a log from which the alias follows.

MLflow moves an alias without a trace, and of two people who move it at once the slower one wins
in silence. So every move is first written as a tag of its own on the registered model, which
nobody overwrites, and then the alias is set to what the log says.
"""

import getpass
import json
import random
import re
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.tracking import store

CHAMPION, CHALLENGER = "champion", "challenger"

PREFIX = "champion."
"""Of the tags that are the log; the time of the move follows."""

LONGEST_REASON = 2000
"""Characters; a tag of a registered model holds 5,000."""

BACKOFF = 0.5
"""Seconds at most before somebody tries again who withdrew: not all at the same moment."""

SETTLING = 3
"""Seconds that somebody else has between writing the log and setting the alias."""


@dataclass(frozen=True)
class Move:
    """One move of the alias."""

    at: str
    """Universal time in ISO 8601, to the microsecond; later moves are later."""
    version: str
    before: str | None
    """The champion that was to be replaced."""
    by: str
    reason: str
    rollback: bool = False


def read(client: MlflowClient, name: str) -> list[Move]:
    """Read the log, the oldest move first."""
    model = store.if_there(lambda: client.get_registered_model(name))
    tags = model.tags if model else {}
    moves = [Move(**json.loads(value)) for key, value in tags.items() if key.startswith(PREFIX)]
    return sorted(moves, key=lambda move: (move.at, int(move.version)))


def line(moves: list[Move]) -> list[str]:
    """Versions that stand behind the champion, itself last: what a rollback goes down.

    Examples
    --------
    >>> moves = [Move(str(i), v, None, "ann", "-") for i, v in enumerate("123")]
    >>> line(moves)
    ['1', '2', '3']
    >>> line([*moves, Move("3", "2", "3", "ann", "-", rollback=True)])
    ['1', '2']
    """
    versions: list[str] = []
    for move in moves:
        if move.rollback and move.version in versions:
            last = len(versions) - versions[::-1].index(move.version)
            del versions[last:]
        elif versions[-1:] != [move.version]:
            versions.append(move.version)
    return versions


def champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Find the version with the alias, if there is one."""
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        # an alias that is not there is an invalid parameter to MLflow
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None


def find(client: MlflowClient, name: str, wanted: str) -> ModelVersion:
    """Find a version by its number or its alias.

    Raises
    ------
    UserError
        When the registry has none.
    """
    try:
        # a number of more digits is none of a database either
        if re.fullmatch("[0-9]{1,9}", wanted):
            return client.get_model_version(name, wanted)
        return client.get_model_version_by_alias(name, wanted)
    except MlflowException as error:
        if store.store_failed(error):
            raise
    known = client.search_model_versions(f"name = '{name}'")
    if not known:
        raise UserError(
            f"the registry at {store.address()} has no model {name}: run `make run` first."
        )
    numbers = ", ".join(sorted((str(v.version) for v in known), key=int))
    what = f"version {wanted}" if wanted.isdigit() else f"version with the alias {wanted}"
    raise UserError(f"{name} has no {what} at {store.address()}: its versions are {numbers}.")


def move(
    client: MlflowClient, name: str, version: str, reason: str, *, rollback: bool = False
) -> str | None:
    """Make a version the champion.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Of the registered model.
    version : str
    reason : str
    rollback : bool
        Whether what has been champion since `version` is to be forgotten by later rollbacks.

    Returns
    -------
    str or None
        The champion that it replaced: another one than expected where somebody else was faster.
    """
    current, moves = _whole(client, name)
    mine, _ = _append(client, name, moves, Move("", version, current, _user(), reason, rollback))
    _settle(client, name)
    earlier = [known for known in read(client, name) if known.at < mine.at]
    # where nobody has written meanwhile the alias says it better: it may have been taken away
    return line(earlier)[-1] if len(earlier) > len(moves) else current


def replace(
    client: MlflowClient, name: str, version: str, expected: str | None, reason: str
) -> str | None:
    """Make a version the champion, unless the champion is not the one that it was compared with.

    MLflow has no such operation. A move during which somebody else has written one is therefore
    withdrawn: of several at once at most one stays, and the others see it.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Of the registered model.
    version : str
    expected : str or None
        The champion that it was compared with; None where there was none.
    reason : str

    Returns
    -------
    str or None
        The champion now: `version`, or what it has to be compared with first.
    """
    current, moves = _whole(client, name)
    if current != expected:
        return current
    mine, key = _append(client, name, moves, Move("", version, current, _user(), reason))
    if any(known not in (*moves, mine) for known in read(client, name)):
        client.delete_registered_model_tag(name, key)
        time.sleep(random.uniform(0, BACKOFF))  # noqa: S311
        if not champion(client, name):
            return None  # what the log names may have been deleted, or has its alias in a moment
    _settle(client, name)
    found = champion(client, name)
    return str(found.version) if found else None


def _whole(client: MlflowClient, name: str) -> tuple[str | None, list[Move]]:
    """Read the champion and the log, in which a champion that was set by hand is then as well."""
    current, moves = _settled(client, name)
    top = line(moves)[-1] if moves else None
    if current and current != top:
        # set in the UI, say; rolling back has to know of it
        by_hand = Move("", current, top, "unknown", "found as the champion")
        moves = [*moves, _append(client, name, moves, by_hand)[0]]
    return current, moves


def _settled(client: MlflowClient, name: str) -> tuple[str | None, list[Move]]:
    """Read alias and log when they agree; after some seconds somebody has set the alias by hand."""
    deadline = time.monotonic() + SETTLING
    while True:
        # In this order: a move of somebody else is in the log before it is in the alias.
        found = champion(client, name)
        current = str(found.version) if found else None
        moves = read(client, name)
        if not moves or current == line(moves)[-1] or time.monotonic() > deadline:
            return current, moves
        time.sleep(0.2)


def _append(client: MlflowClient, name: str, moves: list[Move], new: Move) -> tuple[Move, str]:
    """Write a move behind the others, whatever the clocks of their machines said.

    Returns
    -------
    tuple of Move and str
        What was written, and the tag's name.
    """
    now = datetime.now(UTC)
    if moves:
        now = max(now, datetime.fromisoformat(moves[-1].at) + timedelta(microseconds=1))
    at = now.isoformat(timespec="microseconds")
    written = Move(**{**asdict(new), "at": at, "reason": new.reason[:LONGEST_REASON]})
    # a colon is not allowed everywhere, and two may write in the same microsecond
    key = f"{PREFIX}{at.replace(':', '-').replace('+00-00', '')}.{secrets.token_hex(2)}"
    client.set_registered_model_tag(name, key, json.dumps(asdict(written), ensure_ascii=False))
    return written, key


def _settle(client: MlflowClient, name: str) -> None:
    """Set the alias to what the log says, until nobody has written meanwhile.

    Whoever sets it last has read the log last, so all end on the same version.
    """
    wanted = None
    while (versions := line(read(client, name))) and versions[-1] != wanted:
        wanted = versions[-1]
        client.set_registered_model_alias(name, CHAMPION, wanted)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without user names
        return "unknown"
