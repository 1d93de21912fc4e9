"""Split windows into training, validation and test by the dataset's own folds, never randomly."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """The rows and folds of the three parts of a split.

    Attributes
    ----------
    train, validation, test : array, shape (rows,), int
        Row numbers of the index in rising order. Each row is in one of the three.
    train_folds : tuple of int
    validation_fold : int or None
        None where no fold validates and all but the test fold train.
    test_fold : int
    """

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]
    train_folds: tuple[int, ...]
    validation_fold: int | None
    test_fold: int


def by_fold(index: pd.DataFrame, test_fold: int, validate: bool = True) -> Split:
    """Use one fold to test, the next one (cyclically) to validate and the others to train.

    Parameters
    ----------
    index : DataFrame
        One row per window, with the columns `label`, `fold` and `recording`.
    test_fold : int
        The fold that results are reported for. Nothing is chosen by its results.
    validate : bool
        Whether to keep a fold for validation. If not, that fold trains too.

    Returns
    -------
    Split

    Raises
    ------
    UserError
        When the test fold does not exist, when there are fewer than three folds, when a recording
        is in two parts, or when a label has no clip to train on.
    """
    folds = folds_with(index, test_fold)
    if len(folds) < 3:
        raise UserError(
            f"The dataset has {len(folds)} folds, and three are needed to train, validate and test:"
            " divide the clips into more folds."
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


def folds_with(index: pd.DataFrame, test_fold: int) -> list[int]:
    """Return the folds of a dataset, in order, if the test fold is one of them.

    Parameters
    ----------
    index : DataFrame
        With the column `fold`.
    test_fold : int

    Returns
    -------
    list of int

    Raises
    ------
    UserError
        When the test fold does not exist.
    """
    folds = sorted({int(fold) for fold in index["fold"]})
    if test_fold not in folds:
        known = ", ".join(map(str, folds))
        raise UserError(f"split.test_fold is {test_fold}: the dataset's folds are {known}.")
    return folds


def merged(index: pd.DataFrame, most: int) -> pd.DataFrame:
    """Join neighbouring folds until there are at most `most`, which makes cross-validation quicker.

    A recording stays in one fold, so nothing leaks.

    Parameters
    ----------
    index : DataFrame
        As for :func:`by_fold`.
    most : int
        Maximum number of folds.

    Returns
    -------
    DataFrame
        `index` itself if it has at most `most` folds; otherwise a copy with folds 1 to `most`.
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
                f"The recording {name!r} is in two parts of the split, in the folds"
                f" {', '.join(map(str, where))}: put all its clips into one fold."
            )


def _refuse_unknown_labels(index: pd.DataFrame, split: Split) -> None:
    labels = index["label"].to_numpy()
    if missing := sorted(set(labels) - set(labels[split.train])):
        folds = ", ".join(map(str, split.train_folds))
        raise UserError(
            f"The label {missing[0]!r} has no clip to train on in the folds {folds}: choose"
            " another split.test_fold, or add clips of this label."
        )
