"""The promotion gate: a candidate has to beat the champion on the same test clips."""

from dataclasses import dataclass
from math import comb

import pandas as pd

from pipeline.params import RegisterParams


@dataclass(frozen=True)
class Scored:
    """A model version with what it said of the test clips."""

    name: str
    """How the decision calls it: ``version 3``, ``the candidate``."""
    dataset: str
    """Hash of the clips it was trained and tested on."""
    labels: tuple[str, ...]
    test_fold: str
    predictions: pd.DataFrame
    """Columns ``path``, ``label``, ``predicted``."""
    trained_on: frozenset[str] = frozenset()
    """Paths of the clips that trained it or chose its epoch, as far as they are known."""


@dataclass(frozen=True)
class Decision:
    """Whether a candidate becomes champion, and why, for the version's page."""

    promote: bool
    reason: str
    """One sentence."""
    table: str = ""
    """The contingency table in Markdown, where there was a comparison."""
    against: str | None = None
    """Number of the version that was the champion."""


class IncomparableError(Exception):
    """Why two versions cannot be compared, in one clause."""


def decide(candidate: Scored, champion: Scored, settings: RegisterParams) -> Decision:
    """Compare by the exact McNemar test on the clips.

    Parameters
    ----------
    candidate, champion : Scored
    settings : RegisterParams
        ``significance``, ``min_gain`` and ``on_incomparable`` other than ``fail``, which is the
        caller's.

    Returns
    -------
    Decision

    Raises
    ------
    IncomparableError
        When the two did not answer for the same clips, or one was trained on the other's.
    """
    _check(candidate, champion)
    both = candidate.predictions.merge(champion.predictions, on="path", suffixes=("", "_champion"))
    new = both["predicted"] == both["label"]
    old = both["predicted_champion"] == both["label"]
    only_new, only_old = int((new & ~old).sum()), int((old & ~new).sum())
    p = mcnemar(only_new, only_old)
    gain = float(new.mean() - old.mean())
    promote = gain > 0 and gain >= settings.min_gain and p <= settings.significance
    if promote:
        verdict = "better"
    elif gain <= 0:
        verdict = "not better"
    elif gain < settings.min_gain:
        verdict = f"better by less than register.min_gain = {settings.min_gain:g}"
    else:
        verdict = f"not significantly better (register.significance = {settings.significance:g})"
    reason = (
        f"{candidate.name} is {verdict}: {new.mean():.1%} against {old.mean():.1%} of"
        f" {champion.name} on the same {len(both)} clips; it alone is right on {only_new}, the"
        f" champion alone on {only_old} (exact McNemar, p = {p:.3g})"
    )
    table = (
        f"| clips | {champion.name} right | {champion.name} wrong |\n|---|---|---|\n"
        f"| **{candidate.name} right** | {int((new & old).sum())} | {only_new} |\n"
        f"| **{candidate.name} wrong** | {only_old} | {int((~new & ~old).sum())} |\n"
    )
    return Decision(promote, reason, table)


def mcnemar(only_new: int, only_old: int) -> float:
    """Exact two-sided McNemar test (binomial with 1/2; McNemar 1947, Edwards 1948).

    Parameters
    ----------
    only_new, only_old : int
        Clips that one of the two alone has right.

    Returns
    -------
    float
        Probability of a difference as large or larger, were both equally good.

    Examples
    --------
    >>> mcnemar(5, 0)
    0.0625
    """
    discordant = only_new + only_old
    tail = sum(comb(discordant, k) for k in range(min(only_new, only_old) + 1))
    return float(min(1.0, 2 * tail / 2**discordant))


def _check(candidate: Scored, champion: Scored) -> None:
    clips = set(candidate.predictions["path"])
    seen = len(clips & champion.trained_on)
    if candidate.dataset != champion.dataset:
        names = f", and {seen} of the {len(clips)} test clips by their names" if seen else ""
        raise IncomparableError(f"{champion.name} was trained and tested on other clips{names}")
    if seen:
        raise IncomparableError(
            f"{champion.name} has trained on {seen} of the candidate's {len(clips)} test clips"
        )
    if candidate.labels != champion.labels:
        raise IncomparableError(f"{champion.name} knows other labels")
    if candidate.test_fold != champion.test_fold:
        raise IncomparableError(
            f"{champion.name} was tested on fold {champion.test_fold}, so it has trained on clips"
            f" of the candidate's test fold {candidate.test_fold}"
        )
    if clips != set(champion.predictions["path"]):
        raise IncomparableError(f"{champion.name} has no answers for the same clips")
