"""Label errors are found: some labels are made wrong on purpose and looked for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.labels import flip, found
from pipeline import params
from pipeline.data.datasets import urbansound8k
from pipeline.data.source import generate
from pipeline.evaluation import label_errors
from pipeline.sound import decoding
from pipeline.sound.features import extract, make_spec, windows

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml")
LABELS = ["bark", "horn", "rain"]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, np.ndarray]:
    """Half of foley: its clips table, and a few numbers about the spectrum of each clip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("foley"))
        folder = generate(SETTINGS.dataset.foley.model_copy(update={"folds": 5})).absolute()
    table = urbansound8k.read(folder, SETTINGS.dataset)
    spec = make_spec(SETTINGS.features, 4.0)
    numbers = []
    for path in table["path"]:
        bands = extract(windows(decoding.load(folder / path, spec.sample_rate), spec)[0], spec)
        changes = np.abs(np.diff(bands, axis=1)).mean(axis=1)
        numbers.append(np.concatenate([bands.mean(axis=1), bands.std(axis=1), changes]))
    return table, np.array(numbers)


@pytest.mark.parametrize("seed", [1, 2])
def test_most_of_the_flipped_labels_of_foley_are_found_among_few_others(
    described: tuple[pd.DataFrame, np.ndarray], seed: int
) -> None:
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    table, numbers = described
    labels = sorted(table["label"].unique())
    flipped = flip(table, labels, 0.05, seed)
    # a fast classifier instead of the networks; it learns from the wrong labels as they do
    probabilities = cross_val_predict(
        ExtraTreesClassifier(300, random_state=seed, n_jobs=1),
        numbers,
        flipped["label"],
        groups=flipped["fold"],
        cv=LeaveOneGroupOut(),
        method="predict_proba",
    )
    columns = [f"p_{label}" for label in labels]
    predictions = flipped.join(pd.DataFrame(probabilities, columns=columns, index=flipped.index))
    figures = found(predictions, table, labels)
    assert figures["flipped"] == round(0.05 * len(table))
    assert figures["recall"] >= 0.8
    # It contradicts more correct labels than the networks do; docs/how-to/fix-label-errors.md
    # has the figures of bench.labels for the networks themselves.
    assert figures["precision"] > 3 * 0.05


def judged(labels: list[str], suggested: list[str], sure: float = 0.9) -> pd.DataFrame:
    """Return predictions for clips with these labels."""
    rows = [
        {
            "path": f"{number:03}.wav",
            "label": label,
            "fold": 1 + number % 3,
            "recording": f"{number:03}",
            **{f"p_{name}": sure if name == predicted else (1 - sure) / 2 for name in LABELS},
        }
        for number, (label, predicted) in enumerate(zip(labels, suggested, strict=True))
    ]
    return pd.DataFrame(rows)


def test_a_contradicted_label_is_listed_with_a_suggestion() -> None:
    right = LABELS * 20
    predictions = judged(["rain", *right], ["horn", *right])
    (row,) = label_errors.find(predictions, LABELS).to_dict("records")
    assert (row["path"], row["label"], row["suggested"]) == ("000.wav", "rain", "horn")
    assert row["probability"] == pytest.approx(0.9)
    assert row["probability_of_label"] == pytest.approx(0.05)


def test_predictions_of_several_seeds_are_averaged() -> None:
    right = LABELS * 20
    one, other = (judged(["rain", *right], ["horn", *right], sure=0.8) for _ in range(2))
    chances = [f"p_{label}" for label in LABELS]
    one.loc[0, chances] = [0.01, 0.98, 0.01]
    other.loc[0, chances] = [0.0, 0.92, 0.08]
    (row,) = label_errors.find(pd.concat([one, other]), LABELS).to_dict("records")
    assert row["probability"] == pytest.approx(0.95)
    assert row["probability_of_label"] == pytest.approx(0.045)


def test_labels_that_nothing_contradicts_are_not_listed() -> None:
    assert label_errors.find(judged(LABELS * 20, LABELS * 20), LABELS).empty


def test_flipping_changes_the_share_that_was_asked_for_and_each_to_another_label() -> None:
    index = judged(LABELS * 40, LABELS * 40)
    flipped = flip(index, LABELS, 0.05, seed=3)
    assert (flipped["label"] != index["label"]).sum() == 6
    assert set(flipped["label"]) <= set(LABELS)
    assert flip(index, LABELS, 0.05, seed=3).equals(flipped)
