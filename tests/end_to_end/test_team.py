"""A team's servers: MLflow on PostgreSQL, artifacts and data on S3, studies in a database."""

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from pipeline.registry import versions

from . import servers
from .conftest import Repository, checkout
from .test_registry import another_model

pytestmark = pytest.mark.filterwarnings("ignore")

NAME = "foley-classifier"
SECRET = "known to MLflow and to the receiver"


@dataclass(frozen=True)
class Team:
    """Addresses of the shared servers."""

    mlflow: str
    optuna: str
    s3: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            **servers.S3_KEYS,
            "MLFLOW_TRACKING_URI": self.mlflow,
            "OPTUNA_STORAGE": self.optuna,
        }

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.mlflow)

    def objects(self, prefix: str) -> set[str]:
        import boto3

        keys = {k.lower(): v for k, v in servers.S3_KEYS.items() if "REGION" not in k}
        s3 = boto3.client("s3", endpoint_url=self.s3, region_name="us-east-1", **keys)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=servers.BUCKET, Prefix=prefix)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The servers of ``compose.yaml``."""
    programs = servers.postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("team")
    with ExitStack() as running:
        database = running.enter_context(servers.postgres(programs, ("mlflow", "optuna")))
        s3 = running.enter_context(servers.s3(folder / "s3.log"))
        mlflow = running.enter_context(
            servers.mlflow_server(
                f"{database}/mlflow",
                f"s3://{servers.BUCKET}/mlflow",
                folder / "mlflow.log",
                {**servers.S3_KEYS, "MLFLOW_S3_ENDPOINT_URL": s3},
            )
        )
        yield Team(mlflow, f"{database}/optuna", s3)


@pytest.fixture(scope="module")
def first(team: Team, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A colleague's clone, from which everything is pushed."""
    repository = checkout(tmp_path_factory.mktemp("first") / "clone")
    repository.ok(f"dvc remote add --default shared s3://{servers.BUCKET}/dvc")
    repository.ok(f"dvc remote modify shared endpointurl {team.s3}")
    output = repository.ok("dvc repro", **team.environment)
    assert "version 1 registered, alias champion" in output
    repository.ok("git add dvc.lock .dvc/config")
    repository.ok("git -c user.name=t -c user.email=t@e commit -q -m results")
    repository.ok("dvc push", **team.environment)
    return repository


def cloned(first: Repository, folder: Path, team: Team) -> Repository:
    """Clone the repository for another colleague, and pull the data."""
    first.ok(f"git clone -q {first.folder} {folder}")
    repository = Repository(folder)
    repository.ok("dvc pull dvc.yaml", **team.environment)
    return repository


def at_once(jobs: list[tuple[Repository, str]], team: Team) -> list[str]:
    """Run commands at the same time; all must succeed."""
    running = [
        subprocess.Popen(
            command.split(),
            cwd=repository.folder,
            env=repository.environment(**team.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for repository, command in jobs
    ]
    outputs = [process.communicate(timeout=600)[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def test_runs_are_in_postgres_and_artifacts_and_data_on_s3_and_nothing_is_local(
    first: Repository, team: Team
) -> None:
    version = team.client.get_model_version_by_alias(NAME, "champion")
    assert "## Test figures" in version.description
    stored = team.objects("mlflow/")
    assert any(key.endswith("data/model.keras") for key in stored)
    assert any(key.endswith(f"{version.run_id}/artifacts/model_card.md") for key in stored)
    assert len(team.objects("dvc/")) > 45
    for local in ("mlruns", "mlflow.db", "optuna.db"):
        assert not (first.folder / local).exists()
    study = json.loads((first.folder / "models/best_params.json").read_text())["study"]
    assert len(optuna.load_study(study_name=study, storage=team.optuna).trials) == 2


def test_a_second_clone_pulls_everything_and_runs_only_register(
    first: Repository, team: Team, tmp_path: Path
) -> None:
    second = cloned(first, tmp_path / "second", team)
    assert (second.folder / "models/model.keras").exists()
    output = second.ok("dvc repro", **team.environment)
    stages = [line.split("'")[1] for line in output.splitlines() if "Running stage" in line]
    assert stages == ["register"]
    assert "version 1 is already registered, alias champion" in output
    second.ok("python -m pipeline package", **team.environment)
    shown = second.ok("python -m pipeline lineage", **team.environment)
    assert "version 1, by" in shown


def test_no_message_contains_a_password(first: Repository, team: Team) -> None:
    wrong = team.optuna.replace("s3cret", "f0rgotten")
    store = wrong.replace("/optuna", "/mlflow")
    for command, settings in (
        ("tune", {"OPTUNA_STORAGE": wrong}),
        ("register", {"MLFLOW_TRACKING_URI": store}),
    ):
        done = first.run(f"python -m pipeline {command}", **{**team.environment, **settings})
        assert done.returncode == 1
        assert "f0rgotten" not in done.stdout
        assert "Traceback" not in done.stdout
        assert ":***@127.0.0.1" in done.stdout
        assert "the user or the password is wrong" in done.stdout


def test_several_registrations_at_once_lose_nothing(
    first: Repository, team: Team, tmp_path: Path
) -> None:
    twins = [first.copy(tmp_path / f"twin{i}") for i in range(2)]
    better, worse = (first.copy(tmp_path / name) for name in ("better", "worse"))
    another_model(better, "right")
    another_model(worse, "wrong")
    everyone = [*twins, better, worse]
    for repository in everyone:
        repository.set(register__name="at-once")
    at_once([(repository, "python -m pipeline register") for repository in everyone], team)
    versions = team.client.search_model_versions("name = 'at-once'")
    tags = sorted(version.tags["model_sha256"] for version in versions)
    assert len(tags) == len(set(tags)) == 3  # the twins are one
    assert all("decision" in version.tags and version.description for version in versions)
    # in whatever order: the model that is always right becomes champion
    champion = team.client.get_model_version_by_alias("at-once", "champion")
    assert champion.tags["model_sha256"] == "the model that is right"
    # registering again changes nothing
    at_once([(repository, "python -m pipeline register") for repository in everyone], team)
    assert len(team.client.search_model_versions("name = 'at-once'")) == 3


def test_a_tag_that_several_set_at_once_is_set(first: Repository, team: Team) -> None:
    mine = team.client.search_model_versions(f"name = '{NAME}'")[0]
    together = threading.Barrier(4, timeout=60)

    def set_all(value: str) -> None:
        for number in range(20):
            together.wait()
            versions.set_tag(team.client, mine, f"tag {number}", value)

    with ThreadPoolExecutor(4) as people:
        list(people.map(set_all, "abcd"))
    tags = team.client.get_model_version(NAME, mine.version).tags
    assert all(tags[f"tag {number}"] in "abcd" for number in range(20))


def test_several_studies_at_once_lose_nothing(
    first: Repository, team: Team, tmp_path: Path
) -> None:
    clones = [first.copy(tmp_path / f"study{seed}") for seed in (11, 12)]
    for seed, repository in zip((11, 12), clones, strict=True):
        repository.set(tune__seed=seed)
    outputs = at_once([(repository, "python -m pipeline tune") for repository in clones], team)
    names = set()
    for repository, output in zip(clones, outputs, strict=True):
        assert "2 trials run, 0 already in the study" in output
        best = json.loads((repository.folder / "models/best_params.json").read_text())
        names.add(best["study"])
        assert len(optuna.load_study(study_name=best["study"], storage=team.optuna).trials) == 2
        nested = team.client.search_runs(
            [team.client.get_run(best["run_id"]).info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{best['run_id']}'",
        )
        assert [run.info.status for run in nested] == ["FINISHED"] * 2
    assert len(names) == 2
