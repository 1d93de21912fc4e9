"""Decide whether a candidate model replaces the champion, by a paired test on the same clips."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.params import RegisterParams


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with its predictions for the test clips."""

    name: str
    """Its name in the decision: ``version 3``, ``the candidate``."""
    dataset: str
    """Hash of the clips that it was trained and tested on."""
    labels: tuple[str, ...]
    test_fold: str
    predictions: pd.DataFrame
    """Columns ``path``, ``label``, ``predicted`` and, for the candidate, ``recording``."""
    trained_on: frozenset[str] = frozenset()
    """Paths of the clips that trained it or chose its epoch; empty if there is no record."""


@dataclass(frozen=True)
class Decision:
    """Whether a candidate becomes champion, and why; shown on the version's page."""

    promote: bool
    reason: str
    """One sentence."""
    table: str = ""
    """The contingency table in Markdown, if there was a comparison."""
    against: str | None = None
    """Number of the champion at the time."""


class IncomparableError(Exception):
    """Two models cannot be compared; the message gives the reason in one clause."""


def decide(
    candidate: EvaluatedModel, champion: EvaluatedModel, settings: RegisterParams
) -> Decision:
    """Compare two models by a paired permutation test over the recordings of the test clips.

    Labels and recordings are those of the candidate's table: both models are judged by the labels
    that are valid now.

    Parameters
    ----------
    candidate, champion : EvaluatedModel
    settings : RegisterParams
        ``significance`` and ``min_gain``.

    Returns
    -------
    Decision

    Raises
    ------
    IncomparableError
        When the two were not tested on the same clips, or one was trained on test clips of the
        other.
    """
    _check_comparable(candidate, champion)
    both = candidate.predictions.merge(
        champion.predictions[["path", "predicted"]], on="path", suffixes=("", "_champion")
    )
    right = both["predicted"] == both["label"]
    champion_right = both["predicted_champion"] == both["label"]
    differences = (right.astype(int) - champion_right).groupby(both["recording"]).sum().to_numpy()
    p = sign_flip_test(differences)
    gain = float(right.mean() - champion_right.mean())
    promote = gain > 0 and gain >= settings.min_gain and p <= settings.significance
    if promote:
        verdict = "better"
    elif gain <= 0:
        verdict = "not better"
    elif gain < settings.min_gain:
        verdict = f"better, but by less than register.min_gain = {settings.min_gain:g}"
    else:
        verdict = f"not significantly better (register.significance = {settings.significance:g})"
    reason = (
        f"{candidate.name} is {verdict}: it is right on {right.mean():.1%} of the {len(both)} test"
        f" clips, {champion.name} on {champion_right.mean():.1%}; of {len(differences)} recordings"
        f" the candidate is better on {(differences > 0).sum()} and {champion.name} on"
        f" {(differences < 0).sum()} (two-sided permutation test over recordings, p = {p:.3g})"
    )
    return Decision(promote, reason, _contingency(candidate.name, right, champion, champion_right))


def sign_flip_test(differences: np.ndarray) -> float:
    """Return the exact two-sided p-value of a paired permutation test over recordings.

    If both models are equally good, swapping their predictions for all clips of a recording is as
    likely as not, so every difference could as well have the other sign. Clips of one recording
    are alike and are therefore swapped together: treating them as independent, as McNemar's test
    does, promotes equal models far too often. With one clip per recording the two tests are the
    same.

    All sign patterns are counted, not a sample of them: the distribution of the sum is built up
    one recording at a time (Fisher 1935; Pagano and Tritchler 1983).

    Parameters
    ----------
    differences : array, shape (recordings,), int
        Per recording, the clips that the candidate has right minus those that the champion has.

    Returns
    -------
    float
        Probability that the sum of the differences is at least as far from zero as observed.

    Examples
    --------
    >>> sign_flip_test(np.array([1, 1, 1, 1, 1, 0]))
    0.0625
    >>> sign_flip_test(np.array([5, 0]))  # five clips, but of one recording
    1.0
    """
    steps = np.abs(differences[differences != 0])
    reach = int(steps.sum())
    # probability of every sum from -reach to reach
    probability = np.zeros(2 * reach + 1)
    probability[reach] = 1
    for step in steps:
        probability = (np.roll(probability, step) + np.roll(probability, -step)) / 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(probability[sums >= abs(differences.sum())].sum()))


def _contingency(
    name: str, right: pd.Series, champion: EvaluatedModel, champion_right: pd.Series
) -> str:
    """Tabulate in Markdown on how many clips both, one or none of the models are right."""
    return (
        f"| clips | {champion.name} right | {champion.name} wrong |\n|---|---|---|\n"
        f"| **{name} right** | {(right & champion_right).sum()} |"
        f" {(right & ~champion_right).sum()} |\n"
        f"| **{name} wrong** | {(~right & champion_right).sum()} |"
        f" {(~right & ~champion_right).sum()} |\n"
    )


def _check_comparable(candidate: EvaluatedModel, champion: EvaluatedModel) -> None:
    clips = set(candidate.predictions["path"])
    trained_on = len(clips & champion.trained_on)
    if candidate.dataset != champion.dataset:
        same_names = (
            f", among them {trained_on} with the same names as test clips of the candidate"
            if trained_on
            else ""
        )
        raise IncomparableError(
            f"{champion.name} was trained and tested on other clips{same_names}"
        )
    if trained_on:
        raise IncomparableError(
            f"{champion.name} was trained on {trained_on} of the candidate's {len(clips)} test"
            " clips"
        )
    if candidate.labels != champion.labels:
        raise IncomparableError(f"{champion.name} has other labels")
    if candidate.test_fold != champion.test_fold:
        raise IncomparableError(
            f"{champion.name} was tested on fold {champion.test_fold}, so it was trained on clips"
            f" of the candidate's test fold {candidate.test_fold}"
        )
    if clips != set(champion.predictions["path"]):
        raise IncomparableError(f"{champion.name} has no predictions for the same clips")
