"""Splits use the official folds, and nothing of the test fold trains or chooses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.split import by_fold, merged
from pipeline.errors import UserError
from pipeline.sound.features import statistics


def index_of(folds: list[int]) -> pd.DataFrame:
    """Return an index with two recordings of two windows per label and fold."""
    rows = [
        (f"{fold}-{label}-{n}.wav", window, label, fold, f"{fold}-{label}-{n}")
        for fold in folds
        for label in ("dog", "rain")
        for n in range(2)
        for window in range(2)
    ]
    return pd.DataFrame(rows, columns=["path", "window", "label", "fold", "recording"])


@pytest.mark.parametrize(("test", "validation"), [(1, 2), (4, 7), (7, 1)])
def test_the_fold_after_the_test_fold_validates(test: int, validation: int) -> None:
    index = index_of([7, 4, 2, 1])
    split = by_fold(index, test)
    assert (split.test_fold, split.validation_fold) == (test, validation)
    assert set(index.fold.iloc[split.test]) == {test}
    assert set(index.fold.iloc[split.validation]) == {validation}
    assert set(index.fold.iloc[split.train]) == {1, 2, 4, 7} - {test, validation}
    assert split.train_folds == tuple(sorted({1, 2, 4, 7} - {test, validation}))


@pytest.mark.parametrize(("folds", "most"), [(10, 5), (7, 4), (4, 5)])
def test_merged_folds_keep_every_recording_in_one_fold(folds: int, most: int) -> None:
    index = index_of(list(range(1, folds + 1)))
    fewer = merged(index, most)
    assert sorted(fewer.fold.unique()) == list(range(1, min(folds, most) + 1))
    assert fewer.groupby("recording").fold.nunique().max() == 1
    assert index.fold[fewer.fold == 1].unique().tolist() == [1, 2][: 1 + (folds > most)]


@given(st.sets(st.integers(1, 20), min_size=3, max_size=10), st.data())
def test_every_row_and_every_recording_is_on_one_side(folds: set[int], data: st.DataObject) -> None:
    index = index_of(sorted(folds))
    split = by_fold(index, data.draw(st.sampled_from(sorted(folds))))
    sides = [split.train, split.validation, split.test]
    np.testing.assert_array_equal(np.sort(np.concatenate(sides)), np.arange(len(index)))
    recordings = [set(index.recording.iloc[side]) for side in sides]
    assert sum(map(len, recordings)) == index.recording.nunique()


def test_row_numbers_do_not_depend_on_the_index_labels() -> None:
    index = index_of([1, 2, 3])
    split = by_fold(index.set_index(np.arange(len(index))[::-1] + 100), 2)
    np.testing.assert_array_equal(split.test, np.flatnonzero(index.fold == 2))


def test_an_unknown_fold_is_named_with_the_folds_there_are() -> None:
    with pytest.raises(UserError, match=r"split\.test_fold is 9: .* folds are 1, 2, 3\."):
        by_fold(index_of([1, 2, 3]), 9)


def test_two_folds_are_too_few() -> None:
    with pytest.raises(UserError, match="has 2 folds, and three are needed"):
        by_fold(index_of([1, 2]), 1)


@pytest.mark.parametrize("fold", [2, 3])
def test_a_recording_on_two_sides_is_refused_and_named(fold: int) -> None:
    index = index_of([1, 2, 3, 4])
    row = index.index[index.fold == fold][0]
    index.loc[row, "recording"] = "1-dog-0"
    with pytest.raises(UserError, match=rf"'1-dog-0' is in two parts .* folds 1, {fold}:"):
        by_fold(index, 1)


def test_a_recording_in_two_training_folds_leaks_nothing() -> None:
    index = index_of([1, 2, 3, 4])
    index.loc[index.index[index.fold == 3][0], "recording"] = "4-dog-0"
    assert by_fold(index, 1).train.size == 16


def test_a_label_without_training_clips_is_named() -> None:
    index = index_of([1, 2, 3])
    index.loc[index.fold == 1, "label"] = "siren"
    with pytest.raises(UserError, match="label 'siren' has no clip to train on in the folds 3"):
        by_fold(index, 1)


def test_statistics_do_not_know_the_test_and_validation_folds() -> None:
    index = index_of([1, 2, 3, 4])
    split = by_fold(index, 2)
    array = np.random.default_rng(0).normal(size=(len(index), 5, 6)).astype(np.float32)
    before = statistics(array, split.train)
    array[np.concatenate([split.test, split.validation])] = 1e6
    np.testing.assert_array_equal(statistics(array, split.train), before)
    array[split.train[0]] = 1e6
    assert not np.array_equal(statistics(array, split.train), before)
