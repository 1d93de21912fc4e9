"""Make folds of clips that have none."""

import pandas as pd

from pipeline import evidence
from pipeline.errors import UserError

FEWEST = 3
"""Smallest number of folds: one each to test, validate and train."""

TRIES = 20
"""Number of shuffled assignments to try when the first one leaves a label out of a fold."""


def make(clips: pd.DataFrame, folds: int, by: str) -> pd.Series:
    """Spread whole recordings or groups over folds, with each label as evenly as possible.

    Parameters
    ----------
    clips : DataFrame
        ``label`` and ``recording``.
    folds : int
        Number of folds.
    by : str
        What clips are grouped by, as :func:`pipeline.data.datasets.grouping.named` returns it.

    Returns
    -------
    Series of int
        Folds from 1. The same clips always get the same ones.

    Raises
    ------
    UserError
        When there are fewer recordings or groups than folds, in all or of one label.
    """
    _refuse_too_few(clips, folds, by)
    best = _assign(clips, folds, None)
    # Groups that cross labels may leave a label out of a fold; a recording of one label never does.
    for seed in range(TRIES):
        if not _gaps(clips, best):
            break
        best = min(best, _assign(clips, folds, seed), key=lambda one: _gaps(clips, one))
    return best


def _assign(clips: pd.DataFrame, folds: int, seed: int | None) -> pd.Series:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=seed is not None, random_state=seed)
    assigned = pd.Series(0, index=clips.index, dtype="Int64")
    split = splitter.split(clips, clips["label"], clips["recording"])
    for number, (_, rows) in enumerate(split, start=1):
        assigned.iloc[rows] = number
    return assigned


def _gaps(clips: pd.DataFrame, assigned: pd.Series) -> int:
    """Count the pairs of a label and a fold that have no clip."""
    return int((pd.crosstab(clips["label"], assigned) == 0).to_numpy().sum())


def _refuse_too_few(clips: pd.DataFrame, folds: int, by: str) -> None:
    own = by in ("file", "recording")
    units, more = ("recordings", "add recordings") if own else (f"groups by {by}", "add groups")
    names = sorted(clips["recording"].unique())
    if len(names) < folds and not own:
        raise UserError(
            f"Grouping by {by} gives {evidence.count(len(names), 'group')}"
            f" ({evidence.listed(names, folds)}) for {folds} folds: {_remedy(len(names), more)}."
        )
    counts = clips.groupby("label")["recording"].nunique()
    few = counts[counts < folds].sort_values(kind="stable")
    if len(few):
        others = list(few.index[1:])
        also = f" The same is true of {evidence.listed(others, 5)}." if others else ""
        raise UserError(
            f"The label {few.index[0]} has too few {units} ({few.iloc[0]}) for {folds} folds:"
            f" {_remedy(few.iloc[0], more)}.{also}"
        )


def _remedy(count: int, more: str) -> str:
    if count < FEWEST:
        return f"{more}, because training, validation and test need one each"
    return f"{more}, or lower dataset.folder.folds to {count}"
