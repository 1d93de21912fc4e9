"""Run the steps of `ci.yml` and `train.yml`, and those of `deploy.yml` that package the model.

Steps that `.ci/run` runs anyway are left out by name. tests/delivery/test_rehearsal.py runs the
rest of `deploy.yml`, with images and environments.
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
"""The make targets that `.ci/run` runs, including this test."""


def with_targets(repository: Repository) -> Repository:
    """Add the files that make needs, with the environment that is already installed."""
    shutil.copytree(ROOT / "deploy", repository.folder / "deploy", dirs_exist_ok=True)
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, repository.folder)
    os.utime(repository.folder / "requirements.lock", (0, 0))
    programs = repository.folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for program in Path(sys.executable).parent.iterdir():
        (programs / program.name).symlink_to(program)
    (programs / "python").unlink()
    (programs / "python").symlink_to(str(shutil.which("python", path=repository.warm_path())))
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
    """Run a job; steps that are left out succeed without doing anything."""
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
    """Check that every path of the artifact exists."""
    for path in inputs["path"].split():
        assert list(job.folder.glob(path.rstrip("/"))), path
    return {}


def with_github(folder: Path) -> dict[str, str]:
    """Return an environment in which `gh` writes its arguments to a file in `folder`."""
    (folder / "gh").write_text(f'#!/bin/sh\necho "$@" > {folder}/said\n')
    (folder / "gh").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def pull_request(head: str) -> dict[str, Any]:
    """Return GitHub's context of a pull request from `head` to someone/sounds."""
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


def test_the_targets_left_out_here_are_those_that_ci_runs() -> None:
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
    apart = (*SUITE, "Install nginx and an image registry")
    run(Repository(tmp_path), "ci.yml", job, apart, **pull_request("someone/sounds"))


def test_ci_compares_a_pull_request_with_main_and_comments(
    used: Repository, tmp_path: Path
) -> None:
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
    left_out += ("make run", "Compare with main")  # they have run
    run(used, "ci.yml", "compare", left_out, environment, **pull_request("fork/sounds"))
    assert not (tmp_path / "said").exists()  # the token of a fork cannot write


@pytest.fixture
def shared(tmp_path: Path) -> Iterator["Shared"]:
    """Return GitHub's context of main, and a runner's environment with an S3 on this machine."""
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
    bucket = tmp_path.name.replace("_", "-")  # moto keeps its buckets when its server stops
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
    """Return a function that makes a fresh checkout at the same path, as on GitHub's runners.

    The embedded store names its artifacts by absolute paths.
    """

    def fresh() -> Repository:
        shutil.rmtree(tmp_path / "runner", ignore_errors=True)
        return with_targets(checkout(tmp_path / "runner"))

    return fresh


Shared = tuple[dict[str, Any], dict[str, str]]


def train_once(finished: Repository, first: Repository, shared: Shared) -> None:
    """Run `train.yml` with the cached outputs of another checkout, so that it does not train."""
    context, environment = shared
    shutil.copytree(finished.folder / ".dvc" / "cache", first.folder / ".dvc" / "cache")
    shutil.copy(finished.folder / "dvc.lock", first.folder)
    run(first, "train.yml", "train", (), environment, **context)


def test_a_runner_packages_what_another_one_trained_without_its_data(
    finished: Repository, runner: Callable[[], Repository], shared: Shared, tmp_path: Path
) -> None:
    train_once(finished, runner(), shared)
    started = "workflow run deploy.yml --repo someone/sounds --field version=1"
    assert (tmp_path / "said").read_text() == f"{started} --field model=foley-classifier\n"
    context, environment = shared
    other = runner()
    build = other.folder / "build"
    build.mkdir()
    # tests/delivery/ builds, pushes and scans an image; these are the files that it would write
    apart = ("Build the image", "Push the image", "Scan the image")
    (build / "image.txt").write_text("sound-classifier:foley-classifier-v1-0123456789ab\n")
    (build / "sbom.cdx.json").write_text("{}")
    done = run(other, "deploy.yml", "build", apart, environment, **context)
    assert done.outputs == {"label": "foley-classifier-v1-0123456789ab"}
    assert not (other.folder / "data" / "audio").exists()
    card = json.loads((other.folder / "bundle" / "card.json").read_text())
    assert card["examples"]
    expected = json.loads((build / "smoke" / "expected.json").read_text())
    files = {example["file"] for example in card["examples"]}
    assert set(expected["clips"]) == {*files, "noise.flac", "sweep.wav"}
    predicted = {clip: one["label"] for clip, one in expected["clips"].items()}
    for example in card["examples"]:
        assert predicted[example["file"]] == example["label"]


@pytest.mark.scenario
def test_a_runner_does_not_train_again_what_another_one_trained(
    finished: Repository, runner: Callable[[], Repository], shared: Shared, tmp_path: Path
) -> None:
    train_once(finished, runner(), shared)
    (tmp_path / "said").unlink()
    context, environment = shared
    done = run(runner(), "train.yml", "train", (), environment, **context)
    said = "".join(step.log for step in done.steps.values())
    for stage in ("download", "featurize", "tune", "train", "evaluate"):
        assert f"Stage '{stage}' is cached" in said
    assert "foley-classifier version 1 is already registered" in said
    assert not (tmp_path / "said").exists()  # the champion has not changed
