"""Make a version the champion by hand, or go back to the previous champion.

    python -m pipeline promote VERSION --reason "why this version is better"
    python -m pipeline promote --rollback --reason "what went wrong"

The reason is kept with the version and in the history of the alias, which `lineage` shows.
"""

import argparse
import re

from mlflow import MlflowClient

from pipeline import params
from pipeline.errors import UserError
from pipeline.registry import champions, names
from pipeline.tracking import store

PROMOTED, REPLACED = "promoted", "replaced"
"""Tags of a version: why it was made champion by hand, and why it is no longer champion."""


def main(wanted: str | None, reason: str) -> str:
    """Move the alias, and record the reason on both versions and in the history.

    Parameters
    ----------
    wanted : str or None
        Number or alias of the version; None for the previous champion.
    reason : str

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When there is no such version, no previous champion, or no reason that can be stored.
    """
    reason = one_line(reason)
    if not reason:
        raise UserError('a reason is needed and is kept with the version: --reason "...".')
    if len(reason) > champions.LONGEST_REASON:
        raise UserError(
            f"the reason has {len(reason):,} characters, and at most"
            f" {champions.LONGEST_REASON:,} can be stored: shorten it."
        )
    settings = params.load()
    client = store.connect()
    name = names.configured(client, settings)
    if wanted is None:
        number = previous(client, name)
    else:
        number = str(champions.find(client, name, wanted).version)
    champion = champions.champion(client, name)
    if champion and str(champion.version) == number:
        return f"{name} version {number} is the champion already; nothing was changed"
    replaced = champions.set_champion(client, name, number, reason, rollback=wanted is None)
    client.set_model_version_tag(name, number, PROMOTED, reason)
    if replaced is not None and exists(client, name, replaced):
        client.set_model_version_tag(name, replaced, REPLACED, f"by version {number}: {reason}")
    champion = champions.champion(client, name)
    if champion and str(champion.version) != number:
        return (
            f"{name} version {number} became champion, but somebody else has since promoted"
            f" version {champion.version}: see `python -m pipeline lineage {champions.CHAMPION}`"
        )
    if champion and champions.CHALLENGER in champion.aliases:
        client.delete_registered_model_alias(name, champions.CHALLENGER)
    return f"{name} version {number} is champion" + (
        f" in place of version {replaced}" if replaced else ""
    )


def one_line(text: str) -> str:
    r"""Replace line ends, control characters and undecodable bytes by spaces.

    Examples
    --------
    >>> one_line(" deaf to\nsirens ")
    'deaf to sirens'
    """
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", text).strip()


def previous(client: MlflowClient, name: str) -> str:
    """Find the version that a rollback restores: the last earlier champion that still exists.

    Raises
    ------
    UserError
        When there is none.
    """
    champion = champions.champion(client, name)
    current = str(champion.version) if champion else None
    earlier = champions.succession(champions.history(client, name))
    for number in reversed(earlier):
        if number != current and exists(client, name, number):
            return number
    raise UserError(
        f"{name} has no earlier champion to go back to: promote a version by its number."
    )


def exists(client: MlflowClient, name: str, number: str) -> bool:
    """Whether the registry still has a version."""
    return store.if_exists(lambda: client.get_model_version(name, number)) is not None


def run(options: argparse.Namespace) -> str:
    """Run the command with its options and return the closing line."""
    return main(None if options.rollback else options.version, options.reason)
