"""The jobs of `ci.yml` and `train.yml`, and packaging in `deploy.yml`: their own steps, in order.

What the rest of the suite runs anyway is left out by name; the suite's own list of targets is held
against it. `deploy.yml` goes on in tests/delivery/test_rehearsal.py, with images and environments.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from ruamel.yaml import YAML

from tests.delivery import workflow
from tests.delivery.workflow import Job

from .conftest import ROOT, Repository, checkout

WORKFLOWS = ROOT / ".github" / "workflows"
IDENTITY = "-c user.name=t -c user.email=t@example.org"
SUITE = ("make lint", "make lint-deploy", "make test", "make test-image")
"""What `.ci/run` runs, this very test among it."""


def with_targets(repository: Repository) -> Repository:
    """Add what make needs; the environment is installed already."""
    shutil.copytree(ROOT / "deploy", repository.folder / "deploy", dirs_exist_ok=True)
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, repository.folder)
    os.utime(repository.folder / "requirements.lock", (0, 0))
    (repository.folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    repository.ok(f"git {IDENTITY} add -A")
    repository.ok(f"git {IDENTITY} commit -q -m targets")
    return repository


def run(
    repository: Repository,
    file: str,
    job: str,
    left_out: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    **context: Any,
) -> Job:
    """Run a job; steps that are left out do nothing and succeed."""
    done = workflow.run(
        WORKFLOWS / file,
        job,
        repository.folder,
        {"secrets": {}, "vars": {}, **context},
        environment or {},
        {
            "actions/checkout": lambda *_: {},
            "actions/setup-python": lambda *_: {},
            "actions/upload-artifact": uploaded,
            "aws-actions/configure-aws-credentials": lambda *_: {},
            "aws-actions/amazon-ecr-login": lambda *_: {"registry": "registry.example.org"},
        },
        {},
        dict.fromkeys(left_out, lambda: None),
    )
    logs = [step.log for step in done.steps.values() if step.outcome == "failure"]
    assert not done.failed, logs
    return done


def uploaded(job: Job, inputs: dict[str, str]) -> dict[str, str]:
    """Every path has to be there."""
    for path in inputs["path"].split():
        assert list(job.folder.glob(path.rstrip("/"))), path
    return {}


def with_github(folder: Path) -> dict[str, str]:
    """An environment in which GitHub's program writes into `folder` what it is asked for."""
    (folder / "gh").write_text(f'#!/bin/sh\necho "$@" > {folder}/said\n')
    (folder / "gh").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def pull_request(head: str) -> dict[str, Any]:
    """What GitHub tells of a pull request to someone/sounds that comes from `head`."""
    event = {"pull_request": {"number": 12, "head": {"repo": {"full_name": head}}}}
    return {
        "github": {
            "event_name": "pull_request",
            "event": event,
            "repository": "someone/sounds",
            "ref": "refs/pull/12/merge",
            "token": "a token",
        }
    }


def test_what_is_left_out_here_is_what_the_suite_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make ")] == list(SUITE)


def test_a_change_of_anything_in_the_image_is_deployed() -> None:
    yaml = YAML(typ="safe")
    included = yaml.load((ROOT / "bentofile.yaml").read_text())["include"]
    paths = yaml.load((WORKFLOWS / "deploy.yml").read_text())["on"]["push"]["paths"]
    code = {name for name in included if name.startswith("pipeline/")}
    assert {path.removesuffix("**") for path in paths if path.startswith("pipeline/")} == code


def test_ci_needs_no_secrets_and_no_variables() -> None:
    text = (WORKFLOWS / "ci.yml").read_text()
    assert "secrets." not in text
    assert "vars." not in text


@pytest.mark.parametrize("job", ["test", "image"])
def test_ci_runs_the_suite(job: str, tmp_path: Path) -> None:
    apart = (*SUITE, "Install nginx and a registry of images")
    run(Repository(tmp_path), "ci.yml", job, apart, **pull_request("someone/sounds"))


def test_ci_compares_a_pull_request_with_main_and_says_so(used: Repository, tmp_path: Path) -> None:
    with_targets(used)
    used.ok("git update-ref refs/remotes/origin/main HEAD")
    used.set(train__epochs=4)
    used.ok(f"git {IDENTITY} commit -qam longer")
    environment = with_github(tmp_path)
    # the notebooks are run by tests/end_to_end/test_notebooks.py
    left_out: tuple[str, ...] = ("make notebooks",)
    (used.folder / "reports" / "01_data_exploration.html").touch()
    run(used, "ci.yml", "compare", left_out, environment, **pull_request("someone/sounds"))
    table = (used.folder / "github-summary").read_text().splitlines()
    (row,) = (line for line in table if "train.epochs" in line)
    assert [cell.strip() for cell in row.split("|")][3:5] == ["3", "4"]
    assert any("log_loss" in line and "reports/metrics.json" in line for line in table)
    assert "build/base" not in used.ok("git worktree list")
    said = (tmp_path / "said").read_text()
    assert said.startswith("pr comment 12 --repo someone/sounds --body-file build/compare.md")

    (tmp_path / "said").unlink()
    left_out += ("make run", "Compare")  # they have run
    run(used, "ci.yml", "compare", left_out, environment, **pull_request("fork/sounds"))
    assert not (tmp_path / "said").exists()  # a fork's token cannot write


@pytest.fixture
def shared(tmp_path: Path) -> Iterator["Shared"]:
    """What GitHub tells of main, and the environment of a runner, with an S3 on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "eu-west-1",
        **with_github(tmp_path),
    }
    s3 = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
                      aws_access_key_id="x", aws_secret_access_key="x")  # fmt: skip
    bucket = tmp_path.name.replace("_", "-")  # moto's memory outlives its server
    s3.create_bucket(Bucket=bucket)
    variables = {
        "DVC_REMOTE": f"s3://{bucket}/dvc",
        "AWS_TRAIN_ROLE": "arn:aws:iam::123456789012:role/train",
        "AWS_DEPLOY_ROLE": "arn:aws:iam::123456789012:role/deploy",
        "AWS_REGION": "eu-west-1",
    }
    try:
        github = {"ref": "refs/heads/main", "event": {}, "repository": "someone/sounds"}
        yield {"github": github, "vars": variables}, environment
    finally:
        server.stop()


@pytest.fixture
def runner(tmp_path: Path) -> Callable[[], Repository]:
    """Gives a fresh checkout, always at one place, as a runner of GitHub's is.

    The embedded store names its artifacts by that place.
    """

    def fresh() -> Repository:
        shutil.rmtree(tmp_path / "runner", ignore_errors=True)
        return with_targets(checkout(tmp_path / "runner"))

    return fresh


Shared = tuple[dict[str, Any], dict[str, str]]


def train_once(finished: Repository, first: Repository, shared: Shared) -> None:
    """Run `train.yml` where the outputs are known already, for the suite has trained elsewhere."""
    context, environment = shared
    shutil.copytree(finished.folder / ".dvc" / "cache", first.folder / ".dvc" / "cache")
    shutil.copy(finished.folder / "dvc.lock", first.folder)
    run(first, "train.yml", "train", (), environment, **context)


def test_what_one_runner_trained_another_one_packages_without_any_of_its_data(
    finished: Repository, runner: Callable[[], Repository], shared: Shared, tmp_path: Path
) -> None:
    train_once(finished, runner(), shared)
    started = "workflow run deploy.yml --repo someone/sounds --field version=1\n"
    assert (tmp_path / "said").read_text() == started
    context, environment = shared
    other = runner()
    build = other.folder / "build"
    build.mkdir()
    # tests/delivery/ builds, pushes and scans an image; these files are what that would leave
    apart = ("Build the image", "Push the image", "Scan the image")
    (build / "image.txt").write_text("sound-classifier:v1-0123456789ab\n")
    (build / "sbom.cdx.json").write_text("{}")
    done = run(other, "deploy.yml", "build", apart, environment, **context)
    assert done.outputs == {"label": "v1-0123456789ab"}
    assert not (other.folder / "data" / "audio").exists()
    card = json.loads((other.folder / "bundle" / "card.json").read_text())
    assert card["examples"]
    expected = json.loads((build / "smoke" / "expected.json").read_text())
    files = {example["file"] for example in card["examples"]}
    assert set(expected["clips"]) == {*files, "noise.flac", "sweep.wav"}
    answers = {clip: answer["label"] for clip, answer in expected["clips"].items()}
    for example in card["examples"]:
        assert answers[example["file"]] == example["label"]


@pytest.mark.scenario
def test_a_runner_trains_nothing_that_another_one_trained(
    finished: Repository, runner: Callable[[], Repository], shared: Shared, tmp_path: Path
) -> None:
    train_once(finished, runner(), shared)
    (tmp_path / "said").unlink()
    context, environment = shared
    done = run(runner(), "train.yml", "train", (), environment, **context)
    said = "".join(step.log for step in done.steps.values())
    for stage in ("download", "featurize", "tune", "train", "evaluate"):
        assert f"Stage '{stage}' is cached" in said
    assert "sound-classifier version 1 is already registered" in said
    assert not (tmp_path / "said").exists()  # the champion is the one that it was
