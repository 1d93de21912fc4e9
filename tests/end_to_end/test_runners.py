"""Runners without a DVC remote, or with an unreachable one; test_workflows.py has a working one."""

import shutil

from .conftest import ROOT, Repository


def test_without_a_remote_push_and_pull_do_nothing(fresh: Repository) -> None:
    shutil.copytree(ROOT / "deploy", fresh.folder / "deploy")
    assert "nothing to pull" in fresh.ok("python -m deploy.team pull")
    assert "nothing to push" in fresh.ok("python -m deploy.team push")
    assert not (fresh.folder / ".dvc" / "config.local").exists()


def test_an_unreachable_remote_gives_one_error_sentence(fresh: Repository) -> None:
    shutil.copytree(ROOT / "deploy", fresh.folder / "deploy")
    done = fresh.run("python -m deploy.team push", DVC_REMOTE="nonsense://bucket")
    assert done.returncode == 1
    assert done.stdout.startswith("team: error: `dvc ")
    assert "Traceback" not in done.stdout
