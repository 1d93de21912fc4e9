"""Which windows train, validate and test: the dataset's own folds, never a random split."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """The three sides of a split.

    Attributes
    ----------
    train, validation, test : array of int
        Row numbers of the index, rising; each row is on one side.
    train_folds : tuple of int
    validation_fold : int or None
        None where nothing validates and that fold trains too.
    test_fold : int
    """

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]
    train_folds: tuple[int, ...]
    validation_fold: int | None
    test_fold: int


def by_fold(index: pd.DataFrame, test_fold: int, validate: bool = True) -> Split:
    """Take one fold for the test, the next one (cyclically) to validate, the others to train.

    Parameters
    ----------
    index : DataFrame
        A row for a window, with the columns `label`, `fold` and `recording`.
    test_fold : int
        The fold that is reported and that nothing is chosen on.
    validate : bool
        Whether to keep a fold to validate; if not, it trains too.

    Returns
    -------
    Split

    Raises
    ------
    UserError
        When there is no such fold, when there are fewer than three, when a recording stands on
        two sides, or when a label has no clip to train on.
    """
    folds = sorted({int(fold) for fold in index["fold"]})
    if test_fold not in folds:
        known = ", ".join(map(str, folds))
        raise UserError(f"split.test_fold is {test_fold}: the dataset's folds are {known}.")
    if len(folds) < 3:
        raise UserError(
            f"split.test_fold needs three folds, to train, validate and test: the dataset has"
            f" {len(folds)}."
        )
    validation_fold = folds[(folds.index(test_fold) + 1) % len(folds)]
    held_out = (validation_fold, test_fold) if validate else (test_fold,)
    train_folds = tuple(fold for fold in folds if fold not in held_out)

    def rows(*wanted: int) -> NDArray[np.intp]:
        return np.flatnonzero(index["fold"].isin(wanted))

    split = Split(
        rows(*train_folds), rows(*held_out[:-1]), rows(test_fold),
        train_folds, validation_fold if validate else None, test_fold,
    )  # fmt: skip
    _refuse_leaks(index, split)
    _refuse_unknown_labels(index, split)
    return split


def merged(index: pd.DataFrame, most: int) -> pd.DataFrame:
    """Put neighbouring folds together until there are no more than `most`.

    A recording stays in one fold, so this is as honest as the folds are, and quicker to go through.

    Parameters
    ----------
    index : DataFrame
        As for :func:`by_fold`.
    most : int

    Returns
    -------
    DataFrame
        `index` itself where it has no more folds; else with the folds 1 to `most`.
    """
    folds = sorted({int(fold) for fold in index["fold"]})
    if len(folds) <= most:
        return index
    larger = {fold: place * most // len(folds) + 1 for place, fold in enumerate(folds)}
    return index.assign(fold=index["fold"].map(larger))


def _refuse_leaks(index: pd.DataFrame, split: Split) -> None:
    recording = index["recording"].to_numpy()
    sides = [set(recording[rows]) for rows in (split.train, split.validation, split.test)]
    for one, other in combinations(sides, 2):
        if both := one & other:
            name = min(both, key=str)
            where = sorted({int(fold) for fold in index.loc[recording == name, "fold"]})
            raise UserError(
                f"The recording {name!r} stands on two sides of the split, in the folds"
                f" {', '.join(map(str, where))}: its clips have to be in one fold."
            )


def _refuse_unknown_labels(index: pd.DataFrame, split: Split) -> None:
    labels = index["label"].to_numpy()
    if missing := sorted(set(labels) - set(labels[split.train])):
        folds = ", ".join(map(str, split.train_folds))
        raise UserError(
            f"The label {missing[0]!r} has no clip to train on, in the folds {folds}: choose"
            " another split.test_fold, or give it more clips."
        )
