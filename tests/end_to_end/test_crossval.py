import json
import os
import signal
import subprocess
import time

import pandas as pd

from .conftest import Repository


def test_every_fold_is_scored_once_by_networks_that_did_not_see_it(used: Repository) -> None:
    used.set(crossval__seeds=[1, 2])
    output = used.ok("dvc repro crossval/dvc.yaml")
    assert "6 of 6 units trained now" in output
    folds = pd.read_csv(used.folder / "reports/crossval_folds.csv")
    assert sorted(zip(folds["seed"], folds["fold"], strict=True)) == [
        (seed, fold) for seed in (1, 2) for fold in (1, 2, 3)
    ]
    assert (folds["validation_fold"] == folds["fold"] % 3 + 1).all()
    clips = pd.read_csv(used.folder / "data/clips.csv")
    predictions = pd.read_csv(used.folder / "reports/crossval_predictions.csv")
    for _, of_seed in predictions.groupby("seed"):
        assert sorted(of_seed["path"]) == sorted(clips["path"])
    figures = json.loads((used.folder / "reports/crossval.json").read_text())
    right = predictions["label"] == predictions["predicted"]
    assert abs(figures["accuracy"] - right.mean()) < 1e-9
    assert folds["epoch"].between(1, 3).all()
    assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]


def test_without_validation_all_other_folds_train_and_the_last_epoch_counts(
    used: Repository,
) -> None:
    used.set(crossval__validate=False)
    used.ok("dvc repro crossval/dvc.yaml")
    folds = pd.read_csv(used.folder / "reports/crossval_folds.csv")
    assert (folds["epoch"] == 3).all()
    assert "val_log_loss" not in folds
    used.set(train__patience=1)
    refused = used.run("python -m pipeline.crossval")
    assert refused.returncode == 1
    assert "train.patience needs crossval.validate" in refused.stdout


def test_a_cross_validation_killed_in_the_middle_trains_only_what_is_missing(
    used: Repository,
) -> None:
    used.set(crossval__workers=1)
    with (used.folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            ["python", "-m", "pipeline.crossval"],
            cwd=used.folder,
            env=used.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while not (done := list(used.folder.glob("crossval/units/*/*.json"))):
            assert process.poll() is None, (used.folder / "killed.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    output = used.ok("python -m pipeline.crossval")
    assert f"{3 - len(done)} of 3 units trained now" in output
