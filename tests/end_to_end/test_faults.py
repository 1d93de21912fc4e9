"""Faults that are really injected in the middle of the stages, and what they may not cost."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from .conftest import Repository, checkout
from .servers import Line, faulty_line, mlflow_server

pytestmark = [pytest.mark.scenario, pytest.mark.filterwarnings("ignore")]

QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
}
"""The waiting of a minute, shortened."""

POINTS = {"tune": 17, "train": 6, "evaluate": 12, "register": 20}
"""Requests of a stage that pass before the fault: all are in its middle."""


@pytest.fixture(scope="module")
def featurized(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone with features, so that only stages that speak with MLflow are left."""
    repository = checkout(tmp_path_factory.mktemp("faults") / "clone")
    repository.ok("dvc repro featurize")
    return repository


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A real MLflow server behind a line that can fail."""
    (tmp_path / "server").mkdir()
    store = f"sqlite:///{tmp_path}/server/mlflow.db"
    with (
        mlflow_server(store, str(tmp_path / "server" / "artifacts"), tmp_path / "log") as url,
        faulty_line(url) as line,
    ):
        yield line


def direct(line: Line) -> MlflowClient:
    """A client that is not behind the line."""
    return MlflowClient(f"http://127.0.0.1:{line.server_port}")


def start(repository: Repository, command: str, line: Line) -> "subprocess.Popen[str]":
    return repository.start(command, MLFLOW_TRACKING_URI=line.url, **QUICK)


@pytest.mark.parametrize("fault", ["gone", "slow", "error", "kill"])
def test_a_fault_in_the_middle_of_any_stage_loses_nothing(
    featurized: Repository, tmp_path: Path, line: Line, fault: str
) -> None:
    repository = featurized.copy(tmp_path / "clone")
    for stage, after in POINTS.items():
        process = start(repository, f"dvc repro {stage}", line)
        line.break_(fault, after, partial(os.killpg, process.pid, signal.SIGKILL))
        output, _ = process.communicate(timeout=300)
        assert line.struck, f"{stage} had ended before the fault"
        assert "Traceback" not in output, output
        if fault == "kill":
            assert process.returncode == -signal.SIGKILL
        elif stage == "train":
            # hours of training do not hang on a server: the next stage logs the rest
            assert process.returncode == 0, output
            assert "the MLflow store failed" in output
        else:
            assert process.returncode != 0
            assert f"{stage}: error: the MLflow store at {line.url} " in output
        line.heal()
        again = start(repository, f"dvc repro {stage}", line)
        output, _ = again.communicate(timeout=300)
        assert again.returncode == 0, output
        if stage == "tune":
            assert " 0 already in the study" not in output or "2 trials run" in output
    check_nothing_is_lost(repository, direct(line), trained=2 if fault == "kill" else 1)


def check_nothing_is_lost(repository: Repository, client: MlflowClient, trained: int) -> None:
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    record = json.loads((repository.folder / "models/run.json").read_text())
    of_training = [r for r in runs if r.data.tags["pipeline.stage"] == "train"]
    assert len(of_training) == trained
    (whole,) = (r for r in of_training if r.info.status == "FINISHED")
    assert whole.info.run_id == record["run_id"]
    assert len(whole.data.params) == len(record["params"])
    curve = client.get_metric_history(record["run_id"], "val_log_loss")
    assert [point.step for point in curve] == [1, 2, 3]
    figures = json.loads((repository.folder / "reports/metrics.json").read_text())
    assert whole.data.metrics["test_accuracy"] == figures["accuracy"]
    files = {entry.path for entry in client.list_artifacts(record["run_id"])}
    assert files >= {"params.yaml", "clips.csv", "dvc.lock", "predictions.csv", "model_card.md"}
    (model,) = whole.outputs.model_outputs
    within = {e.path for e in client.list_logged_model_artifacts(model.model_id, "data")}
    assert "data/model.keras" in within
    (version,) = client.search_model_versions("name = 'foley-classifier'")
    assert client.get_model_version_by_alias("foley-classifier", "champion").version == "1"
    assert version.tags["decision"] == "first version: there was no champion to compare with"
    assert "## Test figures" in version.description
    trials = [r for r in runs if r.data.tags["pipeline.stage"] == "trial"]
    assert sum(run.info.status == "FINISHED" for run in trials) >= 2


def test_a_full_disk_costs_no_training_and_is_made_good_when_there_is_room(
    featurized: Repository, tmp_path: Path
) -> None:
    repository = featurized.copy(tmp_path / "clone")
    artifacts = repository.folder / "mlruns"
    artifacts.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(artifacts)]
    if shutil.which("mount") is None or subprocess.run(small, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        repository.set(tune__trials=0)
        output = repository.ok("dvc repro train")
        assert "the MLflow store failed (the disk is full): the next stage logs the rest" in output
        done = repository.run("dvc repro")
        assert done.returncode != 0
        assert "no space left on device; free some space and run it again" in done.stdout
        assert "Traceback" not in done.stdout
        subprocess.run(["mount", "-o", "remount,size=64m", str(artifacts)], check=True)
        output = repository.ok("dvc repro")
        assert "Running stage 'train'" not in output
        assert "version 1 registered, alias champion" in output
        snapshot = shutil.copy(repository.folder / "mlflow.db", tmp_path / "snapshot.db")
        check = MlflowClient(f"sqlite:///{snapshot}")
        runs = check.search_runs([e.experiment_id for e in check.search_experiments()])
        assert [run.info.status for run in runs] == ["FINISHED"]
        repository.ok("python -m pipeline package")
    finally:
        subprocess.run(["umount", str(artifacts)], check=False)


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_a_search_is_stopped_by_one_press_of_the_keys(
    featurized: Repository, tmp_path: Path, epochs: int
) -> None:
    repository = featurized.copy(tmp_path / "clone")
    repository.set(tune__trials=50)
    process = repository.start("dvc repro tune")
    study = repository.folder / "optuna.db"
    deadline = time.monotonic() + 240
    while not study.exists() or reported(study) < epochs:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode
    assert "tune: stopped; run it again to continue." in output
    assert "tune: 50 trials" not in output


def reported(study: Path) -> int:
    """Count the epochs that the trials of a study have reported."""
    with contextlib.closing(sqlite3.connect(study)) as database:
        try:
            counted = database.execute("SELECT count(*) FROM trial_intermediate_values").fetchone()
        except sqlite3.OperationalError:  # it is being made
            return -1
    return int(counted[0])
