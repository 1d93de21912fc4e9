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
    """Clips labelled bark, predicted bark where right and horn where not."""
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
    figures = metrics.metrics(predictions([True, True, True, False]), LABELS, SETTINGS)
    assert figures["accuracy"] == 0.75
    assert figures["clips"] == 4
    assert figures["log_loss"] == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)
    # precision 1, recall 3/4; the labels that do not occur do not count
    assert figures["macro_f1"] == pytest.approx(6 / 7)
    assert figures["accuracy_low"] < 0.75 < figures["accuracy_high"]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        right = rng.random(100) < 0.8
        low, high = metrics.interval(right, np.arange(100), SETTINGS)
        hits += low <= 0.8 <= high
    assert 0.89 <= hits / 200 <= 0.99


@pytest.mark.parametrize("truth", [0.9, 0.95])
def test_the_interval_of_twenty_clips_is_as_wide_as_so_few_ask_for(truth: float) -> None:
    rng = np.random.default_rng(0)
    hits = bare = 0
    for _ in range(400):
        right = rng.random(20) < truth
        low, high = metrics.interval(right, np.arange(20), SETTINGS)
        hits += low <= truth <= high
        low, high = metrics.resampled(right, np.arange(20), SETTINGS)
        bare += low <= truth <= high
    assert hits / 400 >= 0.94
    assert bare / 400 < 0.9, "resampling alone would do, and the score interval could go"


def test_twenty_clips_that_are_all_right_do_not_make_a_certainty() -> None:
    low, high = metrics.interval(np.ones(20, bool), np.arange(20), SETTINGS)
    assert 0.8 < low < 0.87
    assert high == 1
    # of five recordings, less is known
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


def test_reliability_compares_how_sure_with_how_often_right() -> None:
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


def test_what_is_not_sure_enough_gets_no_answer() -> None:
    clips = predictions([True, True, False])
    figures = metrics.answered(clips, LABELS, 0.75)
    assert figures == {"threshold": 0.75, "coverage": pytest.approx(2 / 3), "accuracy_answered": 1}
    assert metrics.answered(clips, LABELS, 0.0)["accuracy_answered"] == pytest.approx(2 / 3)
    nothing = metrics.answered(clips, LABELS, 0.99)
    assert (nothing["coverage"], nothing["accuracy_answered"]) == (0, 0)
