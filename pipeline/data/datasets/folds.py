"""Make folds of clips that have none."""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import evidence
from pipeline.errors import UserError

FEWEST = 3
"""Smallest number of folds: one each to test, validate and train."""

SWAPPED = 100
"""Maximum number of groups of which pairs are swapped; all pairs of more would take too long."""


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
    from sklearn.model_selection import StratifiedGroupKFold

    _refuse_too_few(clips, folds, by)
    assigned = pd.Series(0, index=clips.index, dtype="Int64")
    split = StratifiedGroupKFold(folds).split(clips, clips["label"], clips["recording"])
    for number, (_, rows) in enumerate(split, start=1):
        assigned.iloc[rows] = number
    # Groups that cross labels may leave a label out of a fold; a recording of one label never does.
    if (pd.crosstab(clips["label"], assigned) == 0).to_numpy().any():
        counts = pd.crosstab(clips["recording"], clips["label"])
        of_group = assigned.groupby(clips["recording"]).first().reindex(counts.index) - 1
        start = of_group.to_numpy(dtype=np.int64)
        better = _with_fewer_gaps(counts.to_numpy(), start, folds)
        assigned = clips["recording"].map(pd.Series(better + 1, index=counts.index)).astype("Int64")
    return assigned


def _with_fewer_gaps(
    counts: NDArray[np.integer], start: NDArray[np.integer], folds: int
) -> NDArray[np.integer]:
    """Move or swap groups while a label has no clip in some fold and the best change helps.

    Parameters
    ----------
    counts : array, shape (groups, labels), int
        Number of clips.
    start : array, shape (groups,), int
        Fold of each group, from 0.
    folds : int
        Number of folds.

    Returns
    -------
    array, shape (groups,), int
    """
    of_group = start.copy()
    held = np.stack([counts[of_group == fold].sum(axis=0) for fold in range(folds)])
    best = _badness(held)
    while best[0]:
        changes = list(_changes(of_group, folds))
        badness = [_badness(_changed(held, counts, of_group, change)) for change in changes]
        place = min(range(len(changes)), key=badness.__getitem__)
        if badness[place] >= best:
            break
        best = badness[place]
        held = _changed(held, counts, of_group, changes[place])
        for group, fold in changes[place]:
            of_group[group] = fold
    return of_group


Change = tuple[tuple[int, int], ...]
"""Groups, each with the fold that it moves to."""


def _changes(of_group: NDArray[np.integer], folds: int) -> Iterator[Change]:
    fold_of = of_group.tolist()
    for group, fold in product(range(len(fold_of)), range(folds)):
        if fold != fold_of[group]:
            yield ((group, fold),)
    if len(fold_of) <= SWAPPED:
        for one, other in combinations(range(len(fold_of)), 2):
            if fold_of[one] != fold_of[other]:
                yield (one, fold_of[other]), (other, fold_of[one])


def _changed(
    held: NDArray[np.integer],
    counts: NDArray[np.integer],
    of_group: NDArray[np.integer],
    change: Change,
) -> NDArray[np.integer]:
    """Return the clips per fold and label after a change."""
    after = held.copy()
    for group, fold in change:
        after[of_group[group]] -= counts[group]
        after[fold] += counts[group]
    return after


def _badness(held: NDArray[np.integer]) -> tuple[int, float]:
    """Return the number of folds without clips of a label, summed over labels, and unevenness."""
    shares = held / held.sum(axis=0)
    return int((held == 0).sum()), float(((shares - 1 / len(held)) ** 2).sum())


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
