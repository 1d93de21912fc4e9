"""What a closing line says about a test with few recordings, small classes or missing ones."""

from typing import Any

import pandas as pd
import pytest

from pipeline import evidence


def classes(tested: dict[str, int], in_all: int = 50) -> pd.DataFrame:
    """Return a table with so many test recordings of each label, two clips each."""
    counts = list(tested.values())
    table = pd.DataFrame({"label": list(tested), "recordings": counts})
    return table.assign(clips=2 * table["recordings"], recordings_in_all=in_all)


def figures(low: float, high: float, clips: int, recordings: int) -> dict[str, Any]:
    return {"accuracy_low": low, "accuracy_high": high, "clips": clips, "recordings": recordings}


ENOUGH = classes({"bark": 20, "horn": 4})
NARROW = figures(0.8, 0.9, 200, 100)


def test_a_test_with_enough_recordings_needs_no_remark() -> None:
    assert evidence.remarks(NARROW, ENOUGH) == []
    assert evidence.lines("accuracy 85.0%", []) == "accuracy 85.0%"


def test_clips_grouped_by_speaker_are_counted_in_groups_and_not_in_recordings() -> None:
    unit = evidence.unit({"grouped_by": "speaker"})
    assert evidence.tested({"clips": 80, "recordings": 2}, unit) == "80 clips from 2 groups"
    found = evidence.remarks(figures(0.1, 0.3, 80, 2), classes({"bark": 2, "horn": 2}), unit=unit)
    assert "only 2 groups" in found[0]
    assert "recording" not in " ".join(found)
    assert {evidence.unit({"grouped_by": by}) for by in ("file", "recording")} == {"recording"}


@pytest.mark.parametrize(
    ("measured", "remark"),
    [
        ((0.136, 0.991, 500, 1), "is wide because the 500 clips come from only 1 recording."),
        ((0.5, 0.9, 40, 12), "is wide because the 40 clips come from only 12 recordings."),
        ((0.5, 0.9, 12, 12), "is wide because there are only 12 recordings."),
        (
            (0.84, 0.86, 500, 9),
            "is not reliable because the 500 clips come from only 9 recordings.",
        ),
    ],
)
def test_an_interval_from_few_recordings_is_explained(
    measured: tuple[float, float, int, int], remark: str
) -> None:
    found = evidence.remarks(figures(*measured), ENOUGH)
    assert found == [
        f"The interval {remark}",
        "`dvc repro crossval/dvc.yaml` tests every recording once.",
    ]
    (interval, advice) = evidence.remarks(figures(*measured), ENOUGH, all_folds=True)
    assert interval == found[0]
    assert advice == "More recordings would make it narrower."


def test_small_and_missing_classes_are_named() -> None:
    table = classes({"bark": 20, "horn": 3, "siren": 0, "a": 1, "b": 1, "c": 1})
    table.loc[table["label"] == "horn", "recordings_in_all"] = 9
    assert evidence.remarks(NARROW, table) == [
        "Not in the test fold, so not counted: siren.",
        "Too few test recordings (fewer than 4) to judge horn, a, b and 1 more.",
        "`dvc repro crossval/dvc.yaml` tests every recording once.",
        "Record more of horn: it has fewer than 10 recordings.",
    ]
    assert "horn, a, b and c." in evidence.remarks(NARROW, table, most=9)[1]


def test_if_no_class_can_be_judged_none_is_named() -> None:
    found = evidence.remarks(NARROW, classes({"bark": 3, "horn": 3, "siren": 0}))
    assert found[1] == "No class has 4 test recordings, the fewest that can judge one."
