from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline import params
from pipeline.registry import gate
from pipeline.registry.gate import IncomparableError, Scored

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml").register_


def scored(name: str, right: list[bool]) -> Scored:
    predictions = pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(len(right))],
            "label": "siren",
            "predicted": ["siren" if hit else "drilling" for hit in right],
        }
    )
    return Scored(name, "hash", ("drilling", "siren"), "1", predictions)


OLD = scored("version 1", [True] * 50 + [False] * 50)


def test_a_clearly_better_candidate_is_promoted_and_the_reason_has_the_figures() -> None:
    new = scored("the candidate", [True] * 80 + [False] * 20)
    decision = gate.decide(new, OLD, SETTINGS)
    assert decision.promote
    for text in ("80.0%", "50.0%", "100 clips", "it alone is right on 30"):
        assert text in decision.reason
    assert "| **the candidate right** | 50 | 30 |" in decision.table


@pytest.mark.parametrize("hits", [30, 50, 51, 53])
def test_a_worse_equal_or_luckily_better_candidate_is_not(hits: int) -> None:
    new = scored("the candidate", [True] * hits + [False] * (100 - hits))
    assert not gate.decide(new, OLD, SETTINGS).promote


def test_a_significant_gain_below_the_minimum_is_not_enough() -> None:
    new = scored("the candidate", [True] * 60 + [False] * 40)
    assert gate.decide(new, OLD, SETTINGS).promote
    demanding = SETTINGS.model_copy(update={"min_gain": 0.2})
    decision = gate.decide(new, OLD, demanding)
    assert not decision.promote
    assert "register.min_gain" in decision.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": "other"}, "other clips"),
        ({"labels": ("siren",)}, "other labels"),
        ({"test_fold": "2"}, "has trained on clips of the candidate's test fold"),
        ({"predictions": OLD.predictions.head(3)}, "same clips"),
        ({"trained_on": frozenset({"1.wav", "2.wav", "x.wav"})}, "on 2 of the candidate's 100"),
        ({"trained_on": frozenset({"1.wav"}), "dataset": "other"}, "1 of the 100 test clips by"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    change: dict[str, object], said: str
) -> None:
    with pytest.raises(IncomparableError, match=said):
        gate.decide(scored("the candidate", [True] * 100), replace(OLD, **change), SETTINGS)  # type: ignore[arg-type]


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_test_is_the_exact_binomial_one(only_new: int, only_old: int) -> None:
    expected = 1.0
    if only_new + only_old:
        expected = binomtest(only_new, only_new + only_old).pvalue
    assert gate.mcnemar(only_new, only_old) == pytest.approx(expected)
