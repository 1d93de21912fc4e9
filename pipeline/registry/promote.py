"""Make a version the champion by hand, or go back to the one before.

    python -m pipeline promote VERSION --reason "what the gate could not know"
    python -m pipeline promote --rollback --reason "what went wrong"

The reason stays on the version, and in the alias's history, which
:mod:`pipeline.registry.lineage` shows.
"""

import argparse
import re

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline import params
from pipeline.errors import UserError
from pipeline.registry import champions
from pipeline.tracking import store

PROMOTED, REPLACED = "promoted", "replaced"
"""Tags of a version: why it was made champion by hand, and why it is champion no more."""


def main(wanted: str | None, reason: str) -> str:
    """Move the alias and leave the reason on both versions and in the history.

    Parameters
    ----------
    wanted : str or None
        Number or alias of the version; None: the champion before the present one.
    reason : str

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When there is no such version, nothing to go back to, or no reason that can be kept.
    """
    reason = one_line(reason)
    if not reason:
        raise UserError('a reason is needed, which stays on the version: --reason "...".')
    if len(reason) > champions.LONGEST_REASON:
        raise UserError(
            f"the reason has {len(reason):,} characters, and at most"
            f" {champions.LONGEST_REASON:,} can be kept: shorten it."
        )
    name = params.load().register_.name
    client = store.connect()
    number = previous(client, name) if wanted is None else find(client, name, wanted)
    champion = champions.champion(client, name)
    if champion and str(champion.version) == number:
        return f"{name} version {number} is the champion already; nothing was changed"
    replaced = champions.move(client, name, number, reason, rollback=wanted is None)
    client.set_model_version_tag(name, number, PROMOTED, reason)
    if replaced is not None and exists(client, name, replaced):
        client.set_model_version_tag(name, replaced, REPLACED, f"by version {number}: {reason}")
    now = champions.champion(client, name)
    if now and str(now.version) != number:
        return (
            f"{name} version {number} was champion for a moment; somebody else has promoted version"
            f" {now.version} since: see `python -m pipeline lineage {champions.CHAMPION}`"
        )
    if now and champions.CHALLENGER in now.aliases:
        client.delete_registered_model_alias(name, champions.CHALLENGER)
    return f"{name} version {number} is champion" + (
        f" in place of version {replaced}" if replaced else ""
    )


def one_line(text: str) -> str:
    r"""Make control characters, ends of lines and bytes that are no text into spaces.

    Examples
    --------
    >>> one_line(" deaf to\nsirens ")
    'deaf to sirens'
    """
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", text).strip()


def find(client: MlflowClient, name: str, wanted: str) -> str:
    """Find the number of a version by its number or its alias."""
    return str(champions.find(client, name, wanted).version)


def previous(client: MlflowClient, name: str) -> str:
    """Find the version that a rollback goes to: the last champion before that still exists.

    Raises
    ------
    UserError
        When there was none.
    """
    champion = champions.champion(client, name)
    now = str(champion.version) if champion else None
    before = [number for number in champions.line(champions.read(client, name)) if number != now]
    for number in reversed(before):
        if exists(client, name, number):
            return number
    raise UserError(f"{name} has no champion before the present one to go back to.")


def exists(client: MlflowClient, name: str, number: str) -> bool:
    """Whether the registry still has a version."""
    try:
        client.get_model_version(name, number)
    except MlflowException as error:
        if store.store_failed(error):
            raise
        return False
    return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline promote``."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("version", nargs="?", help="a version's number or alias")
    which.add_argument("--rollback", action="store_true", help="to the champion before")
    parser.add_argument("--reason", required=True, help="stays on the version")


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(None if options.rollback else options.version, options.reason)
