from dataclasses import replace

import pandas as pd

from pipeline.registry import modelcard
from pipeline.registry.modelcard import Facts

LABELS = ["drilling", "siren|horn"]
PREDICTIONS = pd.DataFrame(
    {
        "path": ["a.wav", "b.wav", "c.wav", "d.wav"],
        "label": ["drilling", "drilling", "siren|horn", "siren|horn"],
        "predicted": ["drilling", "siren|horn", "drilling", "drilling"],
        "p_drilling": [0.9, 0.3, 0.6, 0.8],
        "p_siren|horn": [0.1, 0.7, 0.4, 0.2],
    }
)
CLASSES = pd.DataFrame(
    {
        "label": LABELS,
        "precision": [1 / 3, 0.0],
        "recall": [0.5, 0.0],
        "f1": [0.4, 0.0],
        "clips": [2, 2],
        "recordings": [2, 1],
        "recordings_in_all": [20, 20],
    }
)
FACTS = Facts(
    model="foley-classifier version 3",
    params={
        "train.network": "cnn",
        "train.epochs": 30,
        "features.kind": "logmel",
        "features.seconds": 4.0,
    },
    training_metrics={
        "train_seconds": 61.2,
        "train_cpu_seconds": 99.7,
        "parameters": 100698.0,
        "best_epoch": 12.0,
    },
    tags={
        "dataset.name": "foley",
        "split.test_fold": "1",
        "split.validation_fold": "2",
        "split.train_folds": "3,4",
        "tune.trial": "5",
        "tune.study": "abc",
        "lineage.git_commit": "0123abc",
        "lineage.machine": "Linux x86_64, a processor, 2 cores",
        "pipeline.process": "not a fact of the model",
    },
    dataset={
        "title": "Foley",
        "license": "CC BY 4.0",
        "homepage": "https://example.org/foley",
        "labels": LABELS,
        "clips": 8,
        "recordings": 6,
        "rejected": 1,
    },
    metrics={
        "accuracy": 0.25,
        "accuracy_low": 0.1,
        "accuracy_high": 0.4,
        "accuracy_confidence": 0.9,
        "balanced_accuracy": 0.3,
        "worst_recall": 0.0,
        "worst_class": "siren|horn",
        "macro_f1": 0.2,
        "log_loss": 1.234,
        "clips": 4,
        "recordings": 3,
    },
    classes=CLASSES,
    predictions=PREDICTIONS,
    decision="version 3 is better",
    table="| clips | right |\n|---|---|\n| **new** | 1 |",
    links={"the training run": "#/experiments/1/runs/abc"},
    champion={
        "accuracy": 0.2,
        "accuracy_low": 0.05,
        "accuracy_high": 0.5,
        "accuracy_confidence": 0.95,
    },
)


def test_the_card_has_purpose_data_metrics_cost_and_decision() -> None:
    card = modelcard.render(FACTS)
    for text in (
        "# foley-classifier version 3",
        "Decision: version 3 is better.",
        "| **new** | 1 |",
        "| candidate | 25.0% | 10.0% to 40.0% (90%) |",
        "| champion at that time | 20.0% | 5.0% to 50.0% (95%) |",
        "[the training run](#/experiments/1/runs/abc)",
        "not for decisions on which safety",
        "`drilling`, `siren|horn`",
        "License: CC BY 4.0",
        "https://example.org/foley",
        "rejected as unusable: 1.",
        "Trained on folds 3,4, epoch chosen on fold 2, tested on fold 1",
        "Quote figures from cross-validation",
        "kind logmel",
        "accuracy 25.0% (10.0% to 40.0%) on 4 clips from 3 recordings of test fold 1,"
        " balanced accuracy 30.0%, lowest recall 0.0% (siren|horn). The interval is wide because"
        " the 4 clips come from only 3 recordings. No class has 4 test recordings",
        "| 25.0% | 10.0% to 40.0% | 30.0% | 0.0% (siren\\|horn) | 0.200 | 1.234 | 4 | 3 |",
        "90% interval",
        "| drilling | 0.333 | 0.500 | 0.400 | 2 | 2 |",
        "61 s (100 s of CPU) on Linux x86_64, a processor, 2 cores",
        "100,698 parameters",
        "trial 5 of study abc",
        "| git_commit | 0123abc |",
    ):
        assert text in card
    assert "pipeline.process" not in card


def test_a_card_of_averaged_networks_says_so() -> None:
    both = replace(FACTS, params={**FACTS.params, "train.ensemble": 2})
    assert modelcard.brief(both).startswith("2 cnn networks averaged on foley: accuracy 25.0%")
    assert "the best of the first network was 12" in modelcard.render(both)


def test_confusions_are_sorted_by_frequency_with_the_most_certain_mistake() -> None:
    found = modelcard.confusions(PREDICTIONS)
    assert found.to_dict("records") == [
        {"label": "siren|horn", "predicted": "drilling", "clips": 2, "path": "d.wav",
         "probability": 0.8},
        {"label": "drilling", "predicted": "siren|horn", "clips": 1, "path": "b.wav",
         "probability": 0.7},
    ]  # fmt: skip
    assert len(modelcard.confusions(PREDICTIONS, most=1)) == 1


def test_a_label_with_a_bar_does_not_break_the_table() -> None:
    rows = [line for line in modelcard.render(FACTS).splitlines() if line.startswith("| siren")]
    assert rows[0] == "| siren\\|horn | 0.000 | 0.000 | 0.000 | 2 | 1 |"


def test_a_model_without_mistakes_has_a_card_that_says_so() -> None:
    right = PREDICTIONS.assign(predicted=PREDICTIONS["label"])
    assert "None on the test fold" in modelcard.render(replace(FACTS, predictions=right))


def test_the_description_fits_into_mlflows_column_and_points_to_the_card() -> None:
    labels = [f"a rather long label of a sound, number {i}" for i in range(200)]
    many = replace(FACTS, dataset={**FACTS.dataset, "labels": labels})
    description = modelcard.brief(many)
    assert len(description) <= modelcard.LONGEST
    assert description.startswith("cnn on foley: accuracy 25.0% (10.0% to 40.0%)")
    assert "Decision: version 3 is better." in description
    assert "`model_card.md`" in description
    assert len(modelcard.render(many)) > modelcard.LONGEST


def test_the_description_names_the_worst_classes_only() -> None:
    classes = pd.concat([CLASSES.assign(label=f"{i}", recall=i / 9) for i in range(9)])
    description = modelcard.brief(replace(FACTS, classes=classes))
    assert "| 0&emsp; | 0.333&emsp; |" in description
    assert "| 8&emsp; | 0.333&emsp; |" not in description
    assert "| 8 | 0.333 |" in modelcard.render(replace(FACTS, classes=classes))


def test_labels_that_look_like_numbers_stay_as_they_are_written() -> None:
    numbers = PREDICTIONS.rename(columns={"p_drilling": "p_007", "p_siren|horn": "p_042"})
    numbers = numbers.replace({"drilling": "007", "siren|horn": "042"})
    found = modelcard.confusions(numbers)
    assert list(found["label"] + found["predicted"]) == ["042007", "007042"]


def test_a_model_without_a_search_says_so() -> None:
    tags = {**FACTS.tags, "tune.study": "none", "tune.trial": "none"}
    card = modelcard.render(replace(FACTS, tags=tags))
    assert "Hyper-parameters: those of `train`, without a search." in card


def test_the_card_says_what_clips_were_grouped_by() -> None:
    assert "8 clips of 6 recordings;" in modelcard.render(FACTS)
    grouped = {**FACTS.dataset, "grouped_by": "speaker"}
    card = modelcard.render(replace(FACTS, dataset=grouped))
    assert "8 clips of 6 groups by speaker;" in card
