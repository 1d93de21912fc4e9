"""What the workflows ask of AWS themselves; the deployment is the official action's.

python -m deploy.aws push REGISTRY        # the image, unless the registry has it
python -m deploy.aws scan                 # refuse an image with grave findings
python -m deploy.aws wait STAGE           # until STAGE takes a deployment; what it runs now
python -m deploy.aws rollback STAGE LABEL # back to the version LABEL
python -m deploy.aws up OWNER/REPOSITORY MAIL | down NAME
"""

import argparse
import contextlib
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from deploy import config, engine, image
from pipeline import stage
from pipeline.errors import UserError

T = TypeVar("T")

TEMPLATE = Path(__file__).with_name("cloudformation.yaml")
PATIENCE = 20 * 60
"""Seconds that a deployment of somebody else's, or of ours, may take."""

POLL = float(os.environ.get("AWS_POLL_SECONDS", "10"))


def client(name: str) -> Any:
    """Make a client that tries again, slower each time, when AWS says that it is asked too much."""
    # the deployment goes on for minutes, so there is time to be patient
    return boto3.client(name, config=Config(retries={"mode": "standard", "max_attempts": 8}))


def push(registry: str) -> str:
    """Push the image that was built last, unless its tag, which is never given twice, is there."""
    name = image.read_name()
    full = f"{registry}/{name}"
    repository, tag = name.split(":")
    if _has(repository, tag):
        return f"{full} is there already"
    engine.run("tag", name, full)
    engine.run("push", full)
    return f"{full} pushed"


def scan() -> str:
    """Wait for ECR's scan of the image that was built last.

    Raises
    ------
    UserError
        When it found something of a severity that ``scan.refuse`` names, or did not end.
    """
    refuse = config.load().scan.refuse
    repository, tag = image.read_name().split(":")
    ecr = client("ecr")
    which = {"repositoryName": repository, "imageId": {"imageTag": tag}}

    def finished() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = ecr.describe_image_scan_findings(**which)
        except ecr.exceptions.ScanNotFoundException:
            # the one that a push starts may not have been listed yet, and a day allows one
            with contextlib.suppress(ecr.exceptions.LimitExceededException):
                ecr.start_image_scan(**which)
            return None
        status = found["imageScanStatus"]["status"]
        if status in ("FAILED", "UNSUPPORTED_IMAGE"):
            raise UserError(f"ECR could not scan {repository}:{tag}: {status}.")
        return found if status in ("COMPLETE", "ACTIVE") else None

    found = _until(finished, f"the scan of {repository}:{tag} did not end")
    counts = found["imageScanFindings"].get("findingSeverityCounts", {})
    said = ", ".join(f"{count} {severity}" for severity, count in sorted(counts.items()))
    if any(counts.get(severity) for severity in refuse):
        raise UserError(
            f"{repository}:{tag} has findings: {said}; update requirements-service.lock or the base"
            " image, or change scan.refuse in deploy/config.yaml."
        )
    return f"{repository}:{tag}: {said or 'nothing'} found"


def environment_name(which: str) -> str:
    """Name the environment of a stage, ``staging`` or ``production``."""
    return f"{config.load().name}-{which}"


def wait(which: str) -> str:
    """Wait until an environment takes a deployment; tell the workflow what it runs now.

    Outputs of the step are ``application`` and ``environment`` by their names, ``previous``, the
    label of the version that runs, ``deployed``, which is ``true`` where that is the very version
    that would be deployed, and the ``address``.
    """
    name = environment_name(which)
    now = _ready(name)
    label = now.get("VersionLabel", "")
    wanted = os.environ.get("VERSION_LABEL") or image.read_name().split(":")[1]
    same = label == wanted and now.get("Health") in ("Green", "Yellow")
    config.output(
        application=config.load().name,
        environment=name,
        previous=label,
        deployed=str(same).lower(),
        address=now.get("CNAME", ""),
    )
    return f"{name} is ready and runs {label or 'no version'}"


def rollback(which: str, label: str) -> str:
    """Put an environment back to a version, and make sure that it runs.

    Raises
    ------
    UserError
        When there is no such version, or it does not become healthy.
    """
    name = environment_name(which)
    if not label:
        raise UserError(f"{name} had no version before this one: there is nothing to go back to.")
    now = _ready(name)
    if now.get("VersionLabel") != label:
        client("elasticbeanstalk").update_environment(EnvironmentName=name, VersionLabel=label)
        now = _ready(name)
    if now.get("VersionLabel") != label or now.get("Health") not in ("Green", "Yellow"):
        raise UserError(
            f"{name} runs {now.get('VersionLabel')} with health {now.get('Health')} after returning"
            f" to {label}: look at its events in the console of Elastic Beanstalk."
        )
    return f"{name} runs {label} again"


def up(repository: str, mail: str) -> str:
    """Create or update everything that is needed in AWS, and print what GitHub has to know."""
    chosen = config.load()
    cloudformation = client("cloudformation")
    parameters = {
        "Name": chosen.name,
        "StagingName": environment_name("staging"),
        "ProductionName": environment_name("production"),
        "Repository": repository,
        "Mail": mail,
        "Dollars": str(chosen.budget.dollars),
        "Platform": chosen.environment.platform,
        "EnvironmentType": "LoadBalanced" if chosen.environment.load_balanced else "SingleInstance",
        "CreateProvider": "false" if _provider() else "true",
    }
    present = _stack(chosen.name)
    if present and present["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        raise UserError(
            f"the stack {chosen.name} was never made whole: `make aws-down CONFIRM={chosen.name}`,"
            " and then again."
        )
    if present:  # a provider that this very stack made must stay in it
        before = {one["ParameterKey"]: one["ParameterValue"] for one in present["Parameters"]}
        parameters["CreateProvider"] = before["CreateProvider"]
    arguments: dict[str, Any] = {
        "StackName": chosen.name,
        "TemplateBody": TEMPLATE.read_text(encoding="utf-8"),
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
    }
    if present is None:
        cloudformation.create_stack(**arguments)
        finished = "stack_create_complete"
    else:
        try:
            cloudformation.update_stack(**arguments)
        except ClientError as error:
            if "No updates" not in str(error):
                raise
        finished = "stack_update_complete"
    _finish(chosen.name, finished)
    stack = _stack(chosen.name)
    for output in (stack or {}).get("Outputs", []):
        variable = re.sub(r"(?<!^)(?=[A-Z])", "_", output["OutputKey"]).upper()
        print(f"gh variable set {variable} --body {output['OutputValue']}")
    return f"{chosen.name} is up; the variables of the repository are above"


def down(confirmed: str) -> str:
    """Take everything away, data and models in its buckets included.

    Raises
    ------
    UserError
        When it was not confirmed, or something could not be deleted.
    """
    name = config.load().name
    if confirmed != name:
        raise UserError(f"this deletes all that {name} has in AWS: `make aws-down CONFIRM={name}`.")
    if _stack(name) is None:
        return f"{name} has no stack: nothing is there"
    cloudformation = client("cloudformation")
    held = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    for resource in held:
        if resource.get("ResourceType") == "AWS::S3::Bucket" and "PhysicalResourceId" in resource:
            bucket = boto3.resource("s3").Bucket(resource["PhysicalResourceId"])
            # a start before this one may have come as far as deleting it
            with contextlib.suppress(bucket.meta.client.exceptions.NoSuchBucket):
                bucket.object_versions.delete()
    cloudformation.delete_stack(StackName=name)
    _finish(name, "stack_delete_complete")
    return f"{name} is gone: {len(held)} resources"


def _finish(name: str, state: str) -> None:
    """Wait for a stack; where it fails, say what failed first and why."""
    cloudformation = client("cloudformation")
    started = datetime.now(UTC) - timedelta(minutes=1)  # clocks differ
    try:
        cloudformation.get_waiter(state).wait(
            StackName=name, WaiterConfig={"Delay": max(1, int(POLL)), "MaxAttempts": 240}
        )
    except WaiterError as error:
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        for event in reversed(events):  # the newest comes first
            failed = str(event.get("ResourceStatus", "")).endswith("_FAILED")
            if failed and event["Timestamp"] > started:
                why = event.get("ResourceStatusReason", "no reason is given")
                raise UserError(f"{event['LogicalResourceId']} in {name}: {why}") from error
        raise


def _has(repository: str, tag: str) -> bool:
    ecr = client("ecr")
    try:
        ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    except ecr.exceptions.ImageNotFoundException:
        return False
    return True


def _ready(name: str) -> dict[str, Any]:
    elasticbeanstalk = client("elasticbeanstalk")

    def look() -> dict[str, Any] | None:
        found = elasticbeanstalk.describe_environments(
            EnvironmentNames=[name], IncludeDeleted=False
        )["Environments"]
        if not found:
            raise UserError(f"there is no environment {name}: make it with `make aws-up`.")
        environment: dict[str, Any] = found[0]
        # while health is grey, nothing is known of it yet
        settled = environment["Status"] == "Ready" and environment.get("Health") != "Grey"
        return environment if settled else None

    return _until(look, f"{name} was not ready")


def _until(look: Callable[[], T | None], complaint: str) -> T:
    until = time.monotonic() + PATIENCE
    while (found := look()) is None:
        if time.monotonic() > until:
            raise UserError(f"{complaint} within {PATIENCE // 60} minutes.")
        time.sleep(POLL)
    return found


def _stack(name: str) -> dict[str, Any] | None:
    try:
        stack: dict[str, Any] = client("cloudformation").describe_stacks(StackName=name)["Stacks"][
            0
        ]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return None if stack["StackStatus"] == "DELETE_COMPLETE" else stack


def _provider() -> bool:
    """Whether the account knows GitHub already: there can be only one such provider."""
    known = client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
    return any("token.actions.githubusercontent.com" in one["Arn"] for one in known)


def _program() -> Callable[[], str]:
    parser = argparse.ArgumentParser(prog="python -m deploy.aws")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, names in (
        (push, ["registry"]),
        (scan, []),
        (wait, ["stage"]),
        (rollback, ["stage", "label"]),
        (up, ["repository", "mail"]),
        (down, ["name"]),
    ):
        adding = commands.add_parser(command.__name__, help=(command.__doc__ or "").splitlines()[0])
        adding.set_defaults(run=command, names=names)
        for name in names:
            adding.add_argument(name)
    given = parser.parse_args()
    values = [getattr(given, name) for name in given.names]

    def run() -> str:
        for name, value in zip(given.names, values, strict=True):
            # make gives an empty one for what was not set; for the others that means something
            if not value and name in ("registry", "stage", "repository", "mail"):
                raise UserError(f"{name.upper()} is not set: give it to make, {name.upper()}=...")
        try:
            return str(given.run(*values))
        except (ClientError, BotoCoreError) as error:
            raise UserError(f"AWS refuses: {error}") from error

    return run


if __name__ == "__main__":
    stage.run("aws", _program())
