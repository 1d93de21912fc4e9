"""Stages that are killed at random moments and started again, and what that may not change.

Each stage is started as a user would start it, as a new process group, and killed with SIGKILL at
moments spread over the time that it took in an uninterrupted run. In the end, all results must be
those of that uninterrupted run, in every digit.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from mlflow import MlflowClient

from .conftest import Repository, checkout

pytestmark = pytest.mark.filterwarnings("ignore")

STAGES = ("download", "featurize", "tune", "train", "evaluate", "register", "crossval")

KILLS = 3
"""Kills per stage and dataset: 42 in all if every one strikes before the stage ends."""

SAME = (
    "data/clips.csv",
    "data/dataset.json",
    "data/rejected.csv",
    "data/summary.json",
    "features/features.npy",
    "features/index.csv",
    "reports/trials.csv",
    "reports/history.csv",
    "reports/metrics.json",
    "reports/predictions.csv",
    "reports/per_class.csv",
    "reports/crossval.json",
    "reports/crossval_classes.csv",
    "reports/crossval_predictions.csv",
)
"""Files that do not depend on times, process ids or ids of runs."""


@dataclass
class Killer:
    """Starts stages in a clone, kills them, and counts the kills that struck."""

    repository: Repository
    seconds: dict[str, float]
    """How long every stage took without interruption."""
    rng: random.Random
    killed: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def kill(self, stage: str, share: float, command: str) -> None:
        """Start a stage and kill it after a share of its usual time, unless it has ended."""
        process = self.repository.start(command)
        try:
            process.communicate(timeout=share * self.seconds[stage])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            assert "Traceback" not in output, output
            self.killed[stage] = self.killed.get(stage, 0) + 1
            self.log.append(f"{command} killed after {share * self.seconds[stage]:.2f} s")

    def run(self, stage: str, kills: int) -> None:
        """Kill a stage `kills` times, at moments spread over its duration, and then let it end."""
        for number in range(kills):
            # not at the very end, or a stage that is faster this time ends before it is killed
            share = 0.85 * (number + self.rng.random()) / kills
            self.kill(stage, share, self.rng.choice(commands(stage)))
        self.repository.ok(commands(stage)[0])


def commands(stage: str) -> tuple[str, str]:
    """Return the two ways to start a stage: by DVC and directly."""
    by_dvc = "crossval/dvc.yaml" if stage == "crossval" else stage
    return f"dvc repro {by_dvc}", f"python -m pipeline {stage}"


def archive(file: Path) -> Path:
    """Write a zip with a small folder dataset: two labels, and several formats."""
    rng = np.random.default_rng(1)
    folder = file.with_suffix("")
    for label, pitch in (("low", 300), ("high", 2_000)):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            rate = (8_000, 22_050, 44_100)[number % 3]
            moments = np.arange(rate) / rate
            wave = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.2) * moments)
            wave += 0.05 * rng.standard_normal(rate)
            ending = ("wav", "flac", "ogg")[number % 3]
            soundfile.write(folder / label / f"{label}_{number}.{ending}", wave, rate)
    with zipfile.ZipFile(file, "w") as packed:
        for path in sorted(folder.rglob("*.*")):
            packed.write(path, path.relative_to(folder))
    shutil.rmtree(folder)
    return file


@pytest.fixture(params=["foley", "folder"])
def clone(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """A clone in which nothing has run, with one of two small datasets."""
    repository = checkout(tmp_path / "clone")
    if request.param == "folder":
        source = str(archive(tmp_path / "sounds.zip"))
        repository.set(dataset__name="folder", dataset__source=source, dataset__folder__folds=3)
    return repository


def uninterrupted(
    repository: Repository, stages: tuple[str, ...], directly: bool = False
) -> dict[str, float]:
    """Run the stages and measure how long each takes in a new process."""
    seconds = {}
    for stage in stages:
        started = time.monotonic()
        process = repository.start(commands(stage)[directly])
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        seconds[stage] = time.monotonic() - started
    return seconds


@pytest.mark.scenario
@pytest.mark.parametrize("seed", [int(os.environ.get("KILL_SEED", "1"))])
def test_stages_that_were_killed_at_random_moments_give_the_same_results(
    clone: Repository, tmp_path: Path, seed: int
) -> None:
    reference = clone.copy(tmp_path / "reference")
    seconds = uninterrupted(reference, STAGES)
    killer = Killer(clone, seconds, random.Random(seed))
    for stage in STAGES:
        killer.run(stage, KILLS)
    print(*killer.log, sep="\n")
    assert killer.killed.keys() == set(STAGES), killer.killed
    assert sum(killer.killed.values()) >= 15, killer.killed
    check_files(clone, reference)
    check_search(clone, reference)
    check_registry(clone, reference)
    check_crossval(clone)
    status = clone.ok("dvc status")
    assert "changed outs" not in status
    assert "changed deps" not in status


@pytest.mark.parametrize("clone", ["folder"], indirect=True)
def test_clips_and_features_are_whole_after_kills(clone: Repository, tmp_path: Path) -> None:
    reference = clone.copy(tmp_path / "reference")
    stages = STAGES[:2]
    killer = Killer(clone, uninterrupted(reference, stages, directly=True), random.Random(1))
    for stage in stages:
        for share in (0.7, 0.9):
            killer.kill(stage, share, commands(stage)[1])
        clone.ok(commands(stage)[1])
    check_files(clone, reference)


def check_files(repository: Repository, reference: Repository) -> None:
    """Check that the files are those of a run that nobody interrupted, and that none is left."""
    for name in SAME:
        assert (repository.folder / name).exists() == (reference.folder / name).exists(), name
        if (reference.folder / name).exists():
            assert digest(repository, name) == digest(reference, name), name
    assert not list(leftovers(repository.folder))


def check_search(repository: Repository, reference: Repository) -> None:
    best, expected = (
        json.loads((clone.folder / "models/best_params.json").read_text())
        for clone in (repository, reference)
    )
    assert (best["params"], best["value"], best["trial"] is None) == (
        expected["params"],
        expected["value"],
        expected["trial"] is None,
    )


def check_crossval(repository: Repository) -> None:
    parent, *_ = finished_runs(repository, "crossval")
    units = finished_runs(repository, "crossval unit")
    of_parent = [u for u in units if u.data.tags["mlflow.parentRunId"] == parent.info.run_id]
    assert len(of_parent) == 3


def digest(repository: Repository, name: str) -> str:
    """Hash a file, without what depends on times and on the numbers of trials."""
    file = repository.folder / name
    if name == "reports/crossval.json":
        figures = json.loads(file.read_text())
        assert figures.pop("cpu_seconds_per_unit") > 0
        return json.dumps(figures)
    if name == "reports/trials.csv":
        table = pd.read_csv(file).drop(columns="trial")  # trials that were killed have numbers too
        return str(table.to_csv(index=False))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def leftovers(folder: Path) -> Iterator[Path]:
    """Find unfinished files and folders that the stages made."""
    for suite in ("data", "features", "models", "reports", "crossval"):
        for pattern in ("*.part", "*.unfinished"):
            yield from (folder / suite).rglob(pattern)


def check_registry(repository: Repository, reference: Repository) -> None:
    clients = [client(clone) for clone in (repository, reference)]
    ((name, version), (expected_name, expected)) = (only_version(each) for each in clients)
    assert name == expected_name
    assert int(version.version) == int(expected.version) == 1
    assert version.aliases == expected.aliases == ["champion"]
    assert version.tags.keys() == expected.tags.keys()
    # the run's id and its times are those of each store
    differ = {key for key in version.tags if version.tags[key] != expected.tags[key]}
    assert not {key for key in differ if key.startswith(("test_", "decision", "model_", "split"))}
    assert "## Test figures" in version.description
    run = clients[0].get_run(version.run_id)
    assert run.info.status == "FINISHED"
    of_reference = clients[1].get_run(expected.run_id)
    assert run.data.params == of_reference.data.params
    assert run.data.metrics.keys() == of_reference.data.metrics.keys()
    files = [
        {entry.path for entry in each.list_artifacts(of.info.run_id)}
        for each, of in zip(clients, (run, of_reference), strict=True)
    ]
    assert files[0] == files[1]
    curve = clients[0].get_metric_history(version.run_id, "val_log_loss")
    assert [point.step for point in curve] == [1, 2, 3]
    everything = clients[0].search_runs([e.experiment_id for e in clients[0].search_experiments()])
    assert not [run.info.run_name for run in everything if run.info.status == "RUNNING"]


def client(repository: Repository) -> MlflowClient:
    return MlflowClient(f"sqlite:///{repository.folder}/mlflow.db")


def only_version(client: MlflowClient) -> tuple[str, Any]:
    (model,) = client.search_registered_models()
    (found,) = client.search_model_versions(f"name = '{model.name}'")
    return model.name, client.get_model_version(model.name, found.version)


def finished_runs(repository: Repository, stage: str) -> list[Any]:
    store = client(repository)
    experiments = [e.experiment_id for e in store.search_experiments()]
    found = store.search_runs(experiments, f"tags.`pipeline.stage` = '{stage}'")
    return [run for run in found if run.info.status == "FINISHED"]
