from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline import params
from pipeline.registry import gate
from pipeline.registry.gate import EvaluatedModel, IncomparableError

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml").register_


def evaluated(name: str, right: list[bool], clips_per_recording: int = 1) -> EvaluatedModel:
    predictions = pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(len(right))],
            "label": "siren",
            "recording": [f"{i // clips_per_recording:04}" for i in range(len(right))],
            "predicted": ["siren" if hit else "drilling" for hit in right],
        }
    )
    return EvaluatedModel(name, "hash", ("drilling", "siren"), "1", predictions)


CHAMPION = evaluated("version 1", [True] * 50 + [False] * 50)


def test_a_clearly_better_candidate_is_promoted_and_the_reason_has_the_figures() -> None:
    new = evaluated("the candidate", [True] * 80 + [False] * 20)
    decision = gate.decide(new, CHAMPION, SETTINGS)
    assert decision.promote
    assert decision.reason == (
        "the candidate is better: it is right on 80.0% of the 100 test clips, version 1 on 50.0%;"
        " of 100 recordings the candidate is better on 30 and version 1 on 0 (two-sided"
        " permutation test over recordings, p = 1.86e-09)"
    )
    assert "| **the candidate right** | 50 | 30 |" in decision.table
    assert "| **the candidate wrong** | 0 | 20 |" in decision.table


@pytest.mark.parametrize("hits", [30, 50, 51, 53])
def test_a_worse_equal_or_luckily_better_candidate_is_not_promoted(hits: int) -> None:
    new = evaluated("the candidate", [True] * hits + [False] * (100 - hits))
    assert not gate.decide(new, CHAMPION, SETTINGS).promote


def test_many_better_clips_of_few_recordings_do_not_promote() -> None:
    right = [True] * 80 + [False] * 20
    champion = evaluated("version 1", [True] * 50 + [False] * 50, clips_per_recording=10)
    decision = gate.decide(evaluated("the candidate", right, 10), champion, SETTINGS)
    assert not decision.promote
    assert "of 10 recordings the candidate is better on 3 and version 1 on 0" in decision.reason
    assert "p = 0.25" in decision.reason


def test_predictions_of_the_champion_need_no_recordings() -> None:
    older = replace(CHAMPION, predictions=CHAMPION.predictions.drop(columns="recording"))
    new = evaluated("the candidate", [True] * 80 + [False] * 20)
    assert gate.decide(new, older, SETTINGS) == gate.decide(new, CHAMPION, SETTINGS)


def test_both_models_are_judged_by_the_labels_of_the_candidate() -> None:
    relabelled = CHAMPION.predictions.assign(label="drilling")
    new = evaluated("the candidate", [True] * 100)
    decision = gate.decide(new, replace(CHAMPION, predictions=relabelled), SETTINGS)
    assert decision.reason == gate.decide(new, CHAMPION, SETTINGS).reason


def test_a_significant_gain_below_the_minimum_does_not_promote() -> None:
    new = evaluated("the candidate", [True] * 60 + [False] * 40)
    assert gate.decide(new, CHAMPION, SETTINGS).promote
    demanding = SETTINGS.model_copy(update={"min_gain": 0.2})
    decision = gate.decide(new, CHAMPION, demanding)
    assert not decision.promote
    assert "register.min_gain" in decision.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": "other"}, "other clips"),
        ({"labels": ("siren",)}, "other labels"),
        ({"test_fold": "2"}, "was trained on clips of the candidate's test fold"),
        ({"predictions": CHAMPION.predictions.head(3)}, "same clips"),
        ({"trained_on": frozenset({"1.wav", "2.wav", "x.wav"})}, "on 2 of the candidate's 100"),
        ({"trained_on": frozenset({"1.wav"}), "dataset": "other"}, "among them 1 with the same"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    change: dict[str, object], reason: str
) -> None:
    with pytest.raises(IncomparableError, match=reason):
        gate.decide(evaluated("the candidate", [True] * 100), replace(CHAMPION, **change), SETTINGS)  # type: ignore[arg-type]


@given(st.integers(0, 60), st.integers(0, 60))
def test_with_one_clip_per_recording_the_test_is_the_exact_mcnemar_test(
    only_candidate: int, only_champion: int
) -> None:
    differences = np.repeat([1, -1, 0], [only_candidate, only_champion, 5])
    assert gate.sign_flip_test(differences) == pytest.approx(mcnemar(differences))


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_p_value_is_what_trying_every_sign_pattern_gives(values: list[int]) -> None:
    differences = np.array(values, dtype=int)
    signs = 1 - 2 * (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1)
    expected = (abs(signs @ differences) >= abs(differences.sum())).mean()
    assert gate.sign_flip_test(differences) == pytest.approx(expected)


def mcnemar(differences: np.ndarray) -> float:
    """The exact two-sided McNemar test, which takes every clip for independent."""
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def test_equal_models_are_promoted_no_more_often_than_the_level_although_clips_cluster() -> None:
    # The accuracy of either model varies from recording to recording, by the same law.
    trials, recordings, clips = 500, 40, 4
    rng = np.random.default_rng(0)
    accuracy = rng.beta(1.2, 0.4, size=(trials, 2, recordings, 1))
    right = rng.random((trials, 2, recordings, clips)) < accuracy
    promoted = by_mcnemar = 0
    for candidate, champion in right:
        decision = gate.decide(
            evaluated("the candidate", list(candidate.ravel()), clips),
            evaluated("version 1", list(champion.ravel()), clips),
            SETTINGS,
        )
        promoted += decision.promote
        p = mcnemar(candidate.ravel().astype(int) - champion.ravel())
        by_mcnemar += p <= SETTINGS.significance and candidate.sum() > champion.sum()
    # two-sided: half of the significant differences are in favour of the candidate
    level = SETTINGS.significance / 2
    assert binomtest(promoted, trials, level, alternative="greater").pvalue > 0.05
    # the simulation has clusters that deceive a test on clips
    assert binomtest(by_mcnemar, trials, 2 * level, alternative="greater").pvalue < 0.01
