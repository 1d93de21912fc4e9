from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import paths
from pipeline.evaluation import report

LABELS = ["<b>bold</b>", "{{ 7 * 7 }}", "plain_one"]


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
    tags = dict.fromkeys(
        ("lineage.git_commit", "lineage.git_dirty", "lineage.features_md5", "dataset.name",
         "dataset.sha256", "tune.study", "model_sha256", "split.test_fold",
         "split.validation_fold"), "none",
    )  # fmt: skip
    page = report.render(
        {
            "card": {"title": "t", "name": "n", "license": "l", "homepage": "", "source": "local",
                     "labels": LABELS, "folds": [1, 2, 3], "rejected": 0},
            "record": {"name": "n", "experiment": "n", "tags": tags,
                       "params": {"train.network": "cnn", "features.kind": "mfcc"},
                       "metrics": {"best_epoch": 1.0, "parameters": 9.0}},
            "run_id": "r", "registration": None, "comparison": None, "sides": [], "pictures": {},
            "figures": {"accuracy": 1 / 3, "accuracy_low": 0.0, "accuracy_high": 1.0,
                        "accuracy_confidence": 0.95,
                        "macro_f1": 0.1, "log_loss": 1.0, "clips": 3, "recordings": 3},
            "mistakes": found,
        }
    )  # fmt: skip
    assert "<script" not in page
    assert "<b>bold</b>" not in page
    assert "{{ 7 * 7 }}" in page
    assert "not registered" in page


def test_ours_stands_among_the_published_figures_with_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "METRICS", tmp_path / "metrics.json")
    monkeypatch.setattr(paths, "CROSSVAL", tmp_path / "none.json")
    paths.METRICS.write_text('{"accuracy": 0.812, "accuracy_low": 0.7, "accuracy_high": 0.9}')
    beside = report.comparison({"name": "esc10"}, pd.DataFrame({"path": []}))
    assert beside is not None
    for text in ("81.2%", "96.7%", "ACDNet", "human listeners", "ours, one test fold"):
        assert text in beside.picture
    assert report.comparison({"name": "foley"}, pd.DataFrame({"path": []})) is None
