"""Runners that start with nothing and share a remote of DVC."""

import shutil
from pathlib import Path

import pytest

from .conftest import ROOT, Repository

pytestmark = pytest.mark.scenario


def test_a_runner_takes_from_the_remote_what_another_one_made(
    finished: Repository, fresh: Repository, tmp_path: Path
) -> None:
    used = finished.copy(tmp_path / "other")
    for repository in (used, fresh):
        shutil.copytree(ROOT / "deploy", repository.folder / "deploy")
    remote = {"DVC_REMOTE": str(tmp_path / "remote")}
    assert "outputs and the store of MLflow ->" in used.ok("python -m deploy.team push", **remote)
    said = fresh.ok("python -m deploy.team pull", **remote)
    assert "is at hand, with the store of MLflow" in said
    printed = fresh.ok("dvc repro --pull")
    for stage in ("download", "featurize", "tune", "train", "evaluate"):
        assert f"Stage '{stage}' is cached" in printed
    assert "sound-classifier version 1 is there already" in printed


def test_without_a_remote_nothing_is_shared_and_nothing_fails(fresh: Repository) -> None:
    shutil.copytree(ROOT / "deploy", fresh.folder / "deploy")
    assert "nothing is pulled" in fresh.ok("python -m deploy.team pull")
    assert "nothing is pushed" in fresh.ok("python -m deploy.team push")
    assert not (fresh.folder / ".dvc" / "config.local").exists()


def test_a_remote_that_cannot_be_reached_is_named_in_one_sentence(fresh: Repository) -> None:
    shutil.copytree(ROOT / "deploy", fresh.folder / "deploy")
    done = fresh.run("python -m deploy.team push", DVC_REMOTE="nonsense://bucket")
    assert done.returncode == 1
    assert done.stdout.startswith("team: error: `dvc ")
    assert "Traceback" not in done.stdout


def test_a_pull_request_is_compared_with_what_it_starts_from(used: Repository) -> None:
    shutil.copytree(ROOT / "deploy", used.folder / "deploy")
    used.set(train__epochs=4)
    used.ok("git -c user.name=t -c user.email=t@example.org commit -qam longer")
    used.ok("dvc repro")
    table = used.ok("bash deploy/compare.sh HEAD~1").splitlines()
    (row,) = (line for line in table if "train.epochs" in line)
    assert [cell.strip() for cell in row.split("|")][3:5] == ["3", "4"]
    assert any("log_loss" in line and "reports/metrics.json" in line for line in table)
    assert (used.folder / "build" / "plots" / "index.html").is_file()
    assert "build/base" not in used.ok("git worktree list")
