"""Rehearse the deployment: run the steps of the workflows against a simulated AWS.

moto simulates S3, ECR, STS and IAM; :mod:`tests.delivery.beanstalk` simulates Elastic Beanstalk and
really runs the source bundle; docker-registry holds the images. The official actions cannot run
here, so stand-ins make the API calls that the actions' documentation and sources describe. A
finished bundle replaces the step that packages the model.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from bench.harness import free_port
from deploy import engine, image
from tests.delivery import workflow
from tests.delivery.beanstalk import Beanstalk, wait_until_ready
from tests.delivery.conftest import ROOT, Image
from tests.delivery.workflow import ActionFailed, Cancelled, Job

pytestmark = pytest.mark.image

NAME = "city-sounds"
"""Differs from the name in deploy/config.yaml, to test that all names follow from it."""

STAGING, PRODUCTION = f"{NAME}-staging", f"{NAME}-production"
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org")
WORKFLOWS = ROOT / ".github" / "workflows"


@dataclass
class Stage:
    """The simulated AWS, and the checkout in which the workflows run."""

    folder: Path
    beanstalk: Beanstalk
    registry: str
    variables: dict[str, str]
    environment: dict[str, str]
    bundle: Path
    base: str
    cancel: bool = False
    """Whether somebody cancels the next deployment after it starts."""

    def run(self, file: str, job: str, **context: Any) -> Job:
        """Run a job with the context that GitHub would give it."""
        given = {
            "vars": self.variables,
            "secrets": {},
            "github": {"ref": "refs/heads/main", "event": {}},
            **context,
        }
        before = {"Scan the image": self._tell_moto}
        instead = {"Package the model": lambda: _copy(self.bundle, self.folder / "bundle")}
        return workflow.run(
            WORKFLOWS / file,
            job,
            self.folder,
            given,
            self.environment,
            self.actions(),
            before,
            instead,
        )

    def deploy(self, label: str, stage: str = "staging") -> Job:
        """Deploy the artifact, which has this label, to a stage."""
        return self.run("deploy-stage.yml", "deploy", inputs={"stage": stage, "label": label})

    def actions(self) -> dict[str, workflow.Action]:
        """Return stand-ins for the actions, by name."""
        return {
            "actions/checkout": lambda *_: {},
            "actions/setup-python": lambda *_: {},
            "actions/upload-artifact": self._upload,
            "actions/download-artifact": self._download,
            "aws-actions/configure-aws-credentials": self._credentials,
            "aws-actions/amazon-ecr-login": lambda *_: {"registry": self.registry},
            "aws-actions/aws-elasticbeanstalk-deploy": self._deploy,
        }

    @property
    def artifact(self) -> Path:
        return self.folder.parent / "artifact"

    def _upload(self, job: Job, inputs: dict[str, str]) -> dict[str, str]:
        shutil.rmtree(self.artifact, ignore_errors=True)
        for name in inputs["path"].split():
            source = job.folder / name
            target = self.artifact / Path(name).relative_to("build")
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        return {}

    def _download(self, job: Job, inputs: dict[str, str]) -> dict[str, str]:
        _copy(self.artifact, job.folder / inputs["path"])
        return {}

    def _credentials(self, job: Job, inputs: dict[str, str]) -> dict[str, str]:
        taken = boto3.client("sts").assume_role_with_web_identity(
            RoleArn=inputs["role-to-assume"],
            RoleSessionName="GitHubActions",
            WebIdentityToken="a token of GitHub",
        )["Credentials"]
        job.environment |= {
            "AWS_ACCESS_KEY_ID": taken["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": taken["SecretAccessKey"],
            "AWS_SESSION_TOKEN": taken["SessionToken"],
            "AWS_REGION": inputs["aws-region"],
            "AWS_DEFAULT_REGION": inputs["aws-region"],
        }
        return {}

    def _deploy(self, job: Job, inputs: dict[str, str]) -> dict[str, str]:
        """Upload, create a version, update, wait for events and health, as the action documents."""
        retries = Config(retries={"mode": "standard", "max_attempts": int(inputs["max-retries"])})
        api = boto3.client("elasticbeanstalk", config=retries)
        application, name = inputs["application-name"], inputs["environment-name"]
        label, bucket = inputs["version-label"], inputs["s3-bucket-name"]
        key = f"{application}/{label}.zip"
        started = time.time()
        try:
            known = api.describe_application_versions(
                ApplicationName=application, VersionLabels=[label]
            )["ApplicationVersions"]
            if not known:
                bundle = job.folder / inputs["deployment-package-path"]
                boto3.client("s3").upload_file(str(bundle), bucket, key)
                api.create_application_version(
                    ApplicationName=application,
                    VersionLabel=label,
                    SourceBundle={"S3Bucket": bucket, "S3Key": key},
                )
            api.update_environment(EnvironmentName=name, VersionLabel=label)
            if self.cancel:
                self.cancel = False
                raise Cancelled
            while True:
                (found,) = api.describe_environments(EnvironmentNames=[name])["Environments"]
                events = api.describe_events(EnvironmentName=name)["Events"]
                errors = [
                    event["Message"]
                    for event in events
                    if event["Severity"] in ("ERROR", "FATAL")
                    and event["EventDate"].timestamp() > started
                ]
                if errors:
                    raise ActionFailed(f"Environment deployment failed: {errors[0]}")
                if found["Status"] == "Ready" and found["Health"] in ("Green", "Yellow"):
                    return {"environment-url": found["CNAME"], "version-label": label}
                time.sleep(0.5)
        except ClientError as error:
            raise ActionFailed(str(error)) from error

    def _tell_moto(self) -> None:
        """Tell moto's ECR, which cannot hold images, what was pushed to the real registry."""
        repository, tag = (self.folder / image.NAME).read_text().strip().split(":")
        manifest = httpx.get(
            f"http://{self.registry}/v2/{repository}/manifests/{tag}",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        ).raise_for_status()
        boto3.client("ecr").put_image(
            repositoryName=repository, imageManifest=manifest.text, imageTag=tag
        )


def change_config(folder: Path, before: str, after: str) -> None:
    """Replace text in the deploy/config.yaml of a checkout."""
    file = folder / "deploy" / "config.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image registry on this machine."""
    folder = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    (folder / "config.yml").write_text(
        json.dumps(
            {
                "version": 0.1,
                "storage": {"filesystem": {"rootdirectory": str(folder)}},
                "http": {"addr": address},
            }
        )
    )
    # Docker trusts local addresses; Podman needs this file
    trusted = folder / "registries.conf"
    trusted.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    os.environ["CONTAINERS_REGISTRIES_CONF"] = str(trusted)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log
        )
    for _ in range(100):
        try:
            httpx.get(f"http://{address}/v2/")
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    yield address
    server.terminate()
    server.wait()
    del os.environ["CONTAINERS_REGISTRIES_CONF"]


@pytest.fixture(scope="module")
def stage(
    image: Image, base_image: str, bundle: Path, registry: str, tmp_path_factory: Any
) -> Iterator[Stage]:
    """The infrastructure of the template, empty environments, and a checkout."""
    folder = tmp_path_factory.mktemp("rehearsal") / "checkout"
    shutil.copytree(image.clone.folder, folder, symlinks=True)
    shutil.rmtree(folder / "build", ignore_errors=True)
    change_config(folder, "name: sound-classifier", f"name: {NAME}")
    change_config(folder, "ready_seconds: 120", "ready_seconds: 60")
    image.clone.ok("git", "-C", str(folder), *IDENTITY, "commit", "-qam", "less patience")
    # the environment is already installed; make must not think that it is out of date
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    os.utime(folder / "requirements.lock", (0, 0))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    beanstalk = Beanstalk([STAGING, PRODUCTION], tmp_path_factory.mktemp("beanstalk"))
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ENDPOINT_URL_ELASTIC_BEANSTALK": beanstalk.url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_POLL_SECONDS": "0.5",
        "BASE": base_image,
    }
    before = dict(os.environ)
    os.environ.update(given)
    try:
        said = image.clone.ok(
            "make", "-C", str(folder), "aws-up", REPOSITORY="someone/sounds", MAIL="me@example.org"
        )
        variables = dict(re.findall(r"^gh variable set (\w+) --body (\S+)$", said, re.MULTILINE))
        yield Stage(folder, beanstalk, registry, variables, given, bundle, base_image)
    finally:
        beanstalk.close()
        server.stop()
        for label in beanstalk.versions:
            for name in (f"{NAME}:{label}", f"{registry}/{NAME}:{label}"):
                if engine.exists(name):
                    engine.run("image", "rm", "--force", name)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def good(stage: Stage) -> str:
    """The label of a version that was built, pushed and scanned, and runs in both stages."""
    started = time.perf_counter()
    built = stage.run("deploy.yml", "build")
    assert not built.failed, [step.log for step in built.steps.values() if step.log]
    label = built.outputs["label"]
    staged = stage.deploy(label)
    seconds = time.perf_counter() - started
    assert not staged.failed, [step.log for step in staged.steps.values() if step.log]
    print(f"from new champion to smoke test passed: {seconds:.0f} s")
    assert not stage.deploy(label, "production").failed
    return label


def serving(stage: Stage, name: str = STAGING) -> str:
    """Return the model version that an environment serves, according to the service."""
    address = stage.beanstalk.environments[name].address
    return str(httpx.get(f"http://{address}/model", timeout=30).json()["version"])


def spoil(stage: Stage, good: str, how: str) -> str:
    """Replace the artifact by a version whose image differs from the good one by `how`."""
    label = f"{good}-{how}"
    folder = stage.folder.parent / how
    folder.mkdir(exist_ok=True)
    lines = [f"FROM {NAME}:{good}"]
    if how == "dead":
        lines.append("CMD trap exit TERM; sleep 600 & wait")
    elif how == "wrong":
        card = json.loads((stage.bundle / "card.json").read_text())
        card["labels"] = [*card["labels"][1:], card["labels"][0]]
        (folder / "card.json").write_text(json.dumps(card))
        lines.append("COPY card.json /srv/bundle/card.json")
    (folder / "Dockerfile").write_text("\n".join(lines))
    engine.run("build", "--tag", f"{NAME}:{label}", str(folder))
    (stage.folder / image.NAME).write_text(f"{NAME}:{label}\n")
    environment = {**os.environ, "REGISTRY": stage.registry}
    environment["PATH"] = f"{stage.folder}/.venv/bin:{environment['PATH']}"
    patience = ("ready_seconds: 60", f"ready_seconds: {10 if how == 'dead' else 60}")
    change_config(stage.folder, *patience)
    for target in ("push", "eb-bundle"):
        subprocess.run(["make", target], cwd=stage.folder, env=environment, check=True)
    change_config(stage.folder, *reversed(patience))
    stage._upload(
        Job(stage.folder, {}, {}), {"path": "build/source-bundle.zip build/image.txt build/smoke/"}
    )
    return label


def test_a_good_version_is_deployed_to_staging_and_production(stage: Stage, good: str) -> None:
    assert serving(stage) == serving(stage, PRODUCTION) == "7"
    assert stage.beanstalk.environments[PRODUCTION].label == good


def test_the_pushed_image_is_small(stage: Stage, good: str) -> None:
    found = boto3.client("ecr").batch_get_image(repositoryName=NAME, imageIds=[{"imageTag": good}])[
        "images"
    ]
    layers = json.loads(found[0]["imageManifest"])["layers"]
    # compressed fast here (see containers.conf); usually it is smaller
    assert 100e6 < sum(layer["size"] for layer in layers) <= 180e6


def test_the_same_version_is_not_deployed_twice(stage: Stage, good: str) -> None:
    updates = stage.beanstalk.environments[STAGING].updates
    job = stage.deploy(good)
    assert not job.failed
    assert job.steps["deploy"].outcome == "skipped"
    assert job.steps["smoke"].outcome == "success"
    assert stage.beanstalk.environments[STAGING].updates == updates


def test_a_version_that_never_becomes_ready_leaves_the_old_one_serving(
    stage: Stage, good: str
) -> None:
    job = stage.deploy(spoil(stage, good, "dead"))
    assert job.failed
    assert job.steps["deploy"].outcome == "failure"
    assert "not ready after" in job.steps["deploy"].log
    assert job.steps["smoke"].outcome == "skipped"
    assert stage.beanstalk.environments[STAGING].label == good
    assert serving(stage) == "7"


def test_a_version_that_predicts_wrongly_is_rolled_back(stage: Stage, good: str) -> None:
    updates = stage.beanstalk.environments[STAGING].updates
    job = stage.deploy(spoil(stage, good, "wrong"))
    assert job.failed
    assert job.steps["deploy"].outcome == "success"
    assert job.steps["smoke"].outcome == "failure"
    assert " predicts " in job.steps["smoke"].log
    assert stage.beanstalk.environments[STAGING].updates == updates + 2
    assert stage.beanstalk.environments[STAGING].label == good
    assert serving(stage) == "7"


@pytest.fixture(scope="module")
def twin(stage: Stage, good: str) -> str:
    """The label of a second good version, which replaces the artifact."""
    return spoil(stage, good, "twin")


def test_a_cancelled_deployment_is_rolled_back(stage: Stage, good: str, twin: str) -> None:
    one = stage.beanstalk.environments[STAGING]
    stage.cancel = True
    job = stage.deploy(twin)
    assert job.steps["deploy"].outcome == "cancelled"
    assert job.steps["smoke"].outcome == "skipped"
    assert [one.label, one.status] == [good, "Ready"]
    assert serving(stage) == "7"


def test_a_throttled_deployment_succeeds(stage: Stage, twin: str) -> None:
    stage.beanstalk.throttled = 3
    assert not stage.deploy(twin).failed
    assert stage.beanstalk.throttled == 0
    assert stage.beanstalk.environments[STAGING].label == twin


def test_a_deployment_waits_for_another_one_in_progress(stage: Stage, good: str, twin: str) -> None:
    one = stage.beanstalk.environments[STAGING]
    assert one.label == twin
    boto3.client("elasticbeanstalk").update_environment(EnvironmentName=STAGING, VersionLabel=good)
    assert one.status == "Updating"
    job = stage.deploy(twin)
    assert not job.failed
    assert job.steps["before"].outputs["previous"] == good
    assert one.label == twin
    wait_until_ready(stage.beanstalk, STAGING)
    assert serving(stage) == "7"
