"""Runners that share a remote of DVC, where there is none; with one, see test_workflows.py."""

import shutil

from .conftest import ROOT, Repository


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
