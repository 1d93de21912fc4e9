import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import paths
from pipeline.evaluation import players, report, templating

LABELS = ["<b>bold</b>", "{{ 7 * 7 }}", "plain_one"]


def facts() -> dict[str, Any]:
    """What the report needs to know, with plain values."""
    tags = dict.fromkeys(
        ("lineage.git_commit", "lineage.git_dirty", "lineage.features_md5", "dataset.name",
         "dataset.sha256", "tune.study", "model_sha256", "split.test_fold",
         "split.validation_fold"), "none",
    )  # fmt: skip
    return {
        "card": {"title": "t", "name": "n", "license": "l", "homepage": "", "source": "local",
                 "labels": LABELS, "folds": [1, 2, 3], "rejected": 0},
        "record": {"name": "n", "experiment": "n", "tags": tags,
                   "params": {"train.network": "cnn", "features.kind": "mfcc"},
                   "metrics": {"best_epoch": 1.0, "parameters": 9.0}},
        "run_id": "r", "registration": None, "comparison": None, "sides": [], "pictures": {},
        "figures": {"accuracy": 1 / 3, "accuracy_low": 0.0, "accuracy_high": 1.0,
                    "accuracy_confidence": 0.95,
                    "macro_f1": 0.1, "log_loss": 1.0, "clips": 3, "recordings": 3,
                    "balanced_accuracy": 0.2, "worst_recall": 0.0, "worst_class": LABELS[0]},
        "unit": "recording",
        "remarks": [f"Not in the test fold: {LABELS[0]}.", "Run `dvc repro`."],
    }  # fmt: skip


def test_a_label_or_file_name_in_the_report_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sound.decoding.load", lambda *_, **__: np.zeros(3200, np.float32))
    predictions = pd.DataFrame(
        {
            "path": ['"><script>alert(1)</script>.wav', "b.wav", "c.wav"],
            "label": [LABELS[0], LABELS[1], LABELS[2]],
            "predicted": [LABELS[1], LABELS[2], LABELS[2]],
            **{f"p_{label}": [0.2, 0.3, 0.5] for label in LABELS},
        }
    )
    found = report.mistakes(predictions, LABELS)
    assert [clip["path"] for clip in found] == ["b.wav", predictions["path"][0]]
    page = templating.render("report.html", **facts(), mistakes=found)
    assert "<script" not in page
    assert "<b>bold</b>" not in page
    assert "{{ 7 * 7 }}" in page
    assert "not registered" in page
    assert "Run <code>dvc repro</code>." in page


def test_a_caption_or_file_name_in_a_notebook_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sound.decoding.load", lambda *_, **__: np.zeros(3200, np.float32))
    shown = players.html([("<script>.wav", "{{ 1 }} <b>dog_bark")])
    assert "&lt;script&gt;.wav" in shown
    assert "{{ 1 }} &lt;b&gt;dog bark" in shown
    assert players.html([]) == ""


@pytest.mark.parametrize("command", ["report", "label_errors", "leakcheck"])
def test_a_command_that_trains_nothing_does_not_load_tensorflow(command: str) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, pipeline.evaluation.{command}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert f"pipeline.evaluation.{command}" in loaded
    assert not {"tensorflow", "keras"} & set(loaded)


def test_our_accuracy_is_drawn_among_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "METRICS", tmp_path / "metrics.json")
    monkeypatch.setattr(paths, "CROSSVAL", tmp_path / "none.json")
    paths.METRICS.write_text('{"accuracy": 0.812, "accuracy_low": 0.7, "accuracy_high": 0.9}')
    beside = report.comparison({"name": "esc10"}, pd.DataFrame({"path": []}))
    assert beside is not None
    for text in ("81.2%", "96.7%", "ACDNet", "human listeners", "this model, one test fold"):
        assert text in beside.picture
    assert report.comparison({"name": "foley"}, pd.DataFrame({"path": []})) is None
