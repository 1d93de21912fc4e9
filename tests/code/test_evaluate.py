from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import params
from pipeline.evaluation import metrics
from pipeline.training.predictions import by_clip

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml").evaluate
LABELS = ["bark", "horn", "siren"]


def predictions(right: list[bool], recordings: list[str] | None = None) -> pd.DataFrame:
    """Return clips labelled bark, predicted as bark if right and as horn if not."""
    index = pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(len(right))],
            "label": "bark",
            "fold": 1,
            "recording": recordings or [str(i) for i in range(len(right))],
        }
    )
    probabilities = np.array([[0.8, 0.1, 0.1] if hit else [0.2, 0.7, 0.1] for hit in right])
    return by_clip(index, probabilities, LABELS)


def test_windows_of_a_clip_are_averaged() -> None:
    index = pd.DataFrame(
        {"path": ["a", "a", "b"], "label": "bark", "fold": 1, "recording": "r"},
    )
    clips = by_clip(index, np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), LABELS)
    assert clips["path"].tolist() == ["a", "b"]
    assert clips["predicted"].tolist() == ["horn", "siren"]
    assert clips.loc[0, "p_bark"] == pytest.approx(0.45)


def test_figures_of_known_predictions() -> None:
    figures = metrics.main_figures(predictions([True, True, True, False]), LABELS, SETTINGS)
    assert figures["accuracy"] == 0.75
    assert figures["clips"] == 4
    assert figures["log_loss"] == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)
    # precision 1, recall 3/4; labels without clips do not count
    assert figures["macro_f1"] == pytest.approx(6 / 7)
    assert figures["accuracy_low"] < 0.75 < figures["accuracy_high"]


def test_balanced_accuracy_and_the_lowest_recall_show_a_class_that_is_never_found() -> None:
    clips = pd.DataFrame(
        {
            "label": ["bark"] * 200 + ["horn"] * 5,
            "predicted": "bark",
            "recording": [*range(200), 1000, 1000, 1001, 1001, 1001],
        }
    )
    everything = pd.DataFrame({"label": ["horn"] * 9, "recording": range(9)})
    classes = metrics.per_class(clips, LABELS, everything)
    assert classes["recordings"].tolist() == [200, 2, 0]
    assert classes["recordings_in_all"].tolist() == [0, 9, 0]
    figures = metrics.class_figures(classes)
    # siren does not occur, so it does not count
    assert figures["balanced_accuracy"] == 0.5
    assert (figures["worst_recall"], figures["worst_class"]) == (0, "horn")


def test_with_one_class_in_the_test_fold_balanced_accuracy_is_its_recall() -> None:
    figures = metrics.main_figures(predictions([True, True, False, True]), LABELS, SETTINGS)
    assert figures["balanced_accuracy"] == figures["worst_recall"] == figures["accuracy"] == 0.75
    assert figures["worst_class"] == "bark"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        right = rng.random(100) < 0.8
        low, high = metrics.interval(right, np.arange(100), SETTINGS)
        hits += low <= 0.8 <= high
    assert 0.89 <= hits / 200 <= 0.99


@pytest.mark.parametrize("truth", [0.9, 0.95])
def test_the_interval_of_twenty_clips_is_wide_enough(truth: float) -> None:
    rng = np.random.default_rng(0)
    hits = bare = 0
    for _ in range(400):
        right = rng.random(20) < truth
        low, high = metrics.interval(right, np.arange(20), SETTINGS)
        hits += low <= truth <= high
        low, high = metrics.bootstrap_interval(right, np.arange(20), SETTINGS)
        bare += low <= truth <= high
    assert hits / 400 >= 0.94
    assert bare / 400 < 0.9, "resampling alone would be enough, so the score interval could go"


def test_twenty_correct_clips_do_not_prove_an_accuracy_of_one() -> None:
    low, high = metrics.interval(np.ones(20, bool), np.arange(20), SETTINGS)
    assert 0.8 < low < 0.87
    assert high == 1
    # five recordings prove less
    assert metrics.interval(np.ones(20, bool), np.arange(20) // 4, SETTINGS)[0] < 0.6


def test_clips_of_one_recording_widen_the_interval() -> None:
    right = np.repeat(np.arange(20) % 4 > 0, 5)
    low, high = metrics.interval(right, np.arange(100), SETTINGS)
    grouped_low, grouped_high = metrics.interval(right, np.repeat(np.arange(20), 5), SETTINGS)
    assert grouped_high - grouped_low > 1.5 * (high - low)


def test_a_label_without_clips_or_predictions_scores_zero_not_nan() -> None:
    classes = metrics.per_class(predictions([True]), LABELS)
    assert classes["clips"].tolist() == [1, 0, 0]
    assert classes["f1"].tolist() == [1.0, 0.0, 0.0]


def test_reliability_compares_confidence_with_accuracy() -> None:
    predictions = pd.DataFrame(
        {
            "label": ["a", "b", "a", "a"],
            "predicted": ["a", "a", "a", "a"],
            "p_a": [0.62, 0.68, 0.95, 1.0],
            "p_b": [0.38, 0.32, 0.05, 0.0],
        }
    )
    bins = metrics.reliability(predictions, ["a", "b"])
    assert bins["clips"].tolist() == [2, 2]
    assert bins["accuracy"].tolist() == [0.5, 1.0]
    assert bins["confidence"].tolist() == pytest.approx([0.65, 0.975])


def test_a_clip_below_the_threshold_is_rejected() -> None:
    clips = predictions([True, True, False])
    figures = metrics.abstention_figures(clips, LABELS, 0.75)
    assert figures == {"threshold": 0.75, "coverage": pytest.approx(2 / 3), "accuracy_answered": 1}
    assert metrics.abstention_figures(clips, LABELS, 0.0)["accuracy_answered"] == pytest.approx(
        2 / 3
    )
    nothing = metrics.abstention_figures(clips, LABELS, 0.99)
    assert (nothing["coverage"], nothing["accuracy_answered"]) == (0, 0)


def test_figures_of_the_test_fold_compare_before_and_after_calibration() -> None:
    clips = predictions([True, True, True, False])
    sharper = clips.copy()
    sharper.loc[:2, ["p_bark", "p_horn", "p_siren"]] = [0.98, 0.01, 0.01]
    figures = metrics.test_figures(clips, sharper, clips, LABELS, SETTINGS, temperature=1.5)
    assert figures["accuracy"] == 0.75
    assert figures["temperature"] == 1.5
    # three clips at 0.8 that are right, one at 0.7 that is wrong
    assert figures["calibration_error"] == pytest.approx((3 * 0.2 + 0.7) / 4)
    assert figures["calibration_error_before"] == pytest.approx((3 * 0.02 + 0.7) / 4)
    assert figures["log_loss_before"] == pytest.approx(-(3 * np.log(0.98) + np.log(0.2)) / 4)
    assert figures["coverage"] >= SETTINGS.coverage


@pytest.mark.parametrize("seeds", [1, 2])
def test_figures_of_a_cross_validation_are_means_over_seeds_and_folds(seeds: int) -> None:
    rights = {1: [True, True, True, False], 2: [True, True, False, False]}
    clips = pd.concat([predictions(rights[seed]).assign(seed=seed) for seed in range(1, seeds + 1)])
    units = pd.DataFrame(
        {
            "fold": [1, 2] * seeds,
            "seed": np.repeat(np.arange(1, seeds + 1), 2),
            "accuracy": [1.0, 0.5, 0.5, 0.5][: 2 * seeds],
            "clips": 2,
            "cpu_seconds": 3.0,
            "parameters": 9,
        }
    )
    figures = metrics.crossval_figures(clips, units, LABELS, SETTINGS)
    assert figures["accuracy"] == (0.75 if seeds == 1 else 0.625)
    assert (figures["clips"], figures["seeds"], figures["parameters"]) == (4, seeds, 9)
    assert (figures["recordings"], figures["worst_class"]) == (4, "bark")
    assert figures["balanced_accuracy"] == figures["accuracy"]
    assert ("std_over_seeds" in figures) == (seeds == 2)
    of_folds = [1.0, 0.5] if seeds == 1 else [0.75, 0.5]
    assert figures["std_over_folds"] == pytest.approx(np.std(of_folds, ddof=1))
