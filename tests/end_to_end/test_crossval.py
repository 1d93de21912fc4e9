import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.training import folds

from .conftest import Repository

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def scored(finished: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone in which every fold was scored with one seed; to look at, not to change."""
    repository = finished.copy(tmp_path_factory.mktemp("scored") / "clone")
    repository.ok("dvc repro crossval/dvc.yaml")
    return repository


def runs(repository: Repository, stage: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{repository.folder}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`pipeline.stage` = '{stage}'")
    return sorted(found, key=lambda run: run.info.start_time)


def test_every_fold_is_scored_once_by_networks_that_did_not_see_it(used: Repository) -> None:
    used.set(crossval__seeds=[1, 2], crossval__workers=2)
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
    spread = predictions.assign(right=right).groupby("seed")["right"].mean().std(ddof=1)
    assert abs(figures["std_over_seeds"] - spread) < 1e-9
    assert f" over folds and ± {spread:.1%} over 2 seeds; " in output


def test_the_leak_check_says_how_long_it_will_train_and_uses_units_that_are_kept(
    scored: Repository, tmp_path: Path
) -> None:
    repository = scored.copy(tmp_path / "clone")
    output = repository.ok("python -m pipeline leakcheck --training")
    # the three units of the dataset's own folds are those of the cross-validation
    announced = re.search(r"now training 3 networks, which will take about \d+ (s|m)", output)
    assert announced, output
    assert announced.start() < output.index("random split")
    again = repository.ok("python -m pipeline leakcheck --training")
    assert "now training" not in again
    assert again.splitlines()[-1].split(" [")[0] == output.splitlines()[-1].split(" [")[0]


def test_without_validation_all_other_folds_train_and_the_last_epoch_counts(
    used: Repository,
) -> None:
    used.set(crossval__validate=False)
    used.ok("dvc repro crossval/dvc.yaml")
    folds = pd.read_csv(used.folder / "reports/crossval_folds.csv")
    assert (folds["epoch"] == 3).all()
    assert "val_log_loss" not in folds
    (parent,) = runs(used, "crossval")
    assert "all others train, and the last epoch counts" in parent.data.tags["mlflow.note.content"]
    for unit in runs(used, "crossval unit"):
        assert unit.data.params.keys() == {"fold", "seed"}
        assert "best_epoch" not in unit.data.metrics
    used.set(train__patience=1)
    refused = used.run("python -m pipeline crossval")
    assert refused.returncode == 1
    assert "train.patience needs a validation fold" in refused.stdout


def test_a_cross_validation_killed_in_the_middle_trains_only_what_is_missing(
    used: Repository,
) -> None:
    with (used.folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            ["python", "-m", "pipeline", "crossval"],
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
    output = used.ok("python -m pipeline crossval")
    assert f"{3 - len(done)} of 3 units trained now" in output


def test_with_one_seed_no_spread_over_seeds_is_reported(scored: Repository, tmp_path: Path) -> None:
    figures = json.loads((scored.folder / "reports/crossval.json").read_text())
    (parent,) = runs(scored, "crossval")
    assert "std_over_folds" in figures
    assert "std_over_seeds" not in figures
    assert "std_over_seeds" not in parent.data.metrics
    again = scored.copy(tmp_path / "again").ok("python -m pipeline crossval")
    assert f"± {figures['std_over_folds']:.1%} over folds; balanced accuracy " in again
    assert "; 0 of 3 units trained now" in again


def test_the_interval_is_reported_with_its_confidence_level(scored: Repository) -> None:
    figures = json.loads((scored.folder / "reports/crossval.json").read_text())
    (parent,) = runs(scored, "crossval")
    assert figures["accuracy_confidence"] == 0.95
    assert parent.data.metrics["accuracy_confidence"] == 0.95


def test_a_damaged_unit_is_trained_again(scored: Repository, tmp_path: Path) -> None:
    damaged = scored.copy(tmp_path / "damaged")
    (file,) = damaged.folder.glob("crossval/units/*/fold3-seed1.json")
    whole = json.loads(file.read_text())
    file.write_bytes(file.read_bytes()[:100])
    output = damaged.ok("python -m pipeline crossval")
    assert "fold3-seed1.json is damaged; this unit is trained again" in output
    assert "1 of 3 units trained now" in output
    assert json.loads(file.read_text())["predictions"]["path"] == whole["predictions"]["path"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\x00", b'{"predictions": null}'])
def test_a_file_that_is_not_a_result_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    unit = folds.Unit(fold=3, seed=1)
    assert folds.read_unit(tmp_path, unit) is None
    folds.unit_file(tmp_path, unit).write_bytes(content)
    assert folds.read_unit(tmp_path, unit) is None


def test_the_run_records_data_parameters_and_protocol(scored: Repository) -> None:
    (parent,) = runs(scored, "crossval")
    card = json.loads((scored.folder / "data/dataset.json").read_text())
    assert (
        parent.data.params.items()
        >= {
            "crossval.seeds": "[1]",
            "crossval.validate": "True",
            "features.kind": "logmel",
            "features.n_mels": "32",
            "train.epochs": "3",
        }.items()
    )
    (trained,) = runs(scored, "train")
    same = {k: v for k, v in trained.data.params.items() if k.startswith("features.")}
    assert same == {k: v for k, v in parent.data.params.items() if k.startswith("features.")}
    about = ("dataset.", "labels.")
    same = {k: v for k, v in trained.data.tags.items() if k.startswith(about)}
    assert same == {k: v for k, v in parent.data.tags.items() if k.startswith(about)}
    assert parent.data.tags["dataset.sha256"] == card["sha256"]
    assert parent.data.tags["mlflow.note.content"] == (
        "Every official fold is scored once with each seed: the next fold (cyclically) chooses the"
        " epoch, and the others train."
    )


def test_the_run_of_a_unit_records_its_folds_and_its_cost(scored: Repository) -> None:
    folds = pd.read_csv(scored.folder / "reports/crossval_folds.csv")
    (parent,) = runs(scored, "crossval")
    units = runs(scored, "crossval unit")
    for unit, row in zip(units, folds.to_dict("records"), strict=True):
        assert unit.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert unit.data.params == {
            key: str(row[key]) for key in ("fold", "seed", "validation_fold")
        }
        assert unit.data.metrics["best_epoch"] == row["epoch"]
        assert unit.data.metrics["parameters"] == row["parameters"]
        assert abs(unit.data.metrics["cpu_seconds"] - row["cpu_seconds"]) < 1e-5
        assert abs(unit.data.metrics["test_accuracy"] - row["accuracy"]) < 1e-5
