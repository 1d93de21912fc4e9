"""Create, update and delete the CloudFormation stack that holds everything in AWS."""

import contextlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError, WaiterError

from deploy import api, config
from deploy.beanstalk import environment_name
from pipeline.errors import UserError

TEMPLATE = Path(__file__).with_name("cloudformation.yaml")


def up(repository: str, mail: str) -> str:
    """Create or update the stack, and print the repository variables that GitHub needs.

    Raises
    ------
    UserError
        If an earlier creation failed, or if a resource fails now.
    """
    name = config.load().name
    cloudformation = api.client("cloudformation")
    present = _describe(name)
    if present and present["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        raise UserError(
            f"an earlier creation of the stack {name} failed: delete it with"
            f" `make aws-down CONFIRM={name}`, then run this again."
        )
    arguments: dict[str, Any] = {
        "StackName": name,
        "TemplateBody": TEMPLATE.read_text(encoding="utf-8"),
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in _parameters(repository, mail, present).items()
        ],
    }
    if present is None:
        cloudformation.create_stack(**arguments)
        _wait(name, "stack_create_complete")
    else:
        try:
            cloudformation.update_stack(**arguments)
        except ClientError as error:
            if "No updates" not in str(error):
                raise
        _wait(name, "stack_update_complete")
    for output in (_describe(name) or {}).get("Outputs", []):
        variable = re.sub(r"(?<!^)(?=[A-Z])", "_", output["OutputKey"]).upper()
        print(f"gh variable set {variable} --body {output['OutputValue']}")
    return f"{name} is up; run the commands above to set the variables of the repository"


def down(confirmed: str) -> str:
    """Delete the stack with everything in it, including the data and models in its buckets.

    Raises
    ------
    UserError
        If the name was not given as confirmation, or if a resource could not be deleted.
    """
    name = config.load().name
    if confirmed != name:
        raise UserError(
            f"this deletes everything that {name} has in AWS. To confirm, run"
            f" `make aws-down CONFIRM={name}`."
        )
    if _describe(name) is None:
        return f"{name} has no stack: nothing to delete"
    cloudformation = api.client("cloudformation")
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    for resource in resources:
        if resource.get("ResourceType") == "AWS::S3::Bucket" and "PhysicalResourceId" in resource:
            bucket = boto3.resource("s3").Bucket(resource["PhysicalResourceId"])
            # an interrupted `down` may have deleted the bucket already
            with contextlib.suppress(bucket.meta.client.exceptions.NoSuchBucket):
                bucket.object_versions.delete()
    cloudformation.delete_stack(StackName=name)
    _wait(name, "stack_delete_complete")
    return f"{name} deleted: {len(resources)} resources"


def _parameters(repository: str, mail: str, present: dict[str, Any] | None) -> dict[str, str]:
    """Return the parameters of the template."""
    chosen = config.load()
    create_provider = "false" if _has_provider() else "true"
    if present:  # a provider that this stack created must stay in the stack
        before = {one["ParameterKey"]: one["ParameterValue"] for one in present["Parameters"]}
        create_provider = before["CreateProvider"]
    return {
        "Name": chosen.name,
        "StagingName": environment_name("staging"),
        "ProductionName": environment_name("production"),
        "Repository": repository,
        "Mail": mail,
        "Dollars": str(chosen.budget.dollars),
        "Platform": chosen.environment.platform,
        "EnvironmentType": "LoadBalanced" if chosen.environment.load_balanced else "SingleInstance",
        "CreateProvider": create_provider,
    }


def _wait(name: str, state: str) -> None:
    """Wait until the stack reaches a state; if it fails, name the first resource that failed."""
    cloudformation = api.client("cloudformation")
    started = datetime.now(UTC) - timedelta(minutes=1)  # AWS's clock may be behind
    try:
        cloudformation.get_waiter(state).wait(
            StackName=name,
            WaiterConfig={"Delay": max(1, int(api.poll_seconds())), "MaxAttempts": 240},
        )
    except WaiterError as error:
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        for event in reversed(events):  # the newest comes first
            failed = str(event.get("ResourceStatus", "")).endswith("_FAILED")
            if failed and event["Timestamp"] > started:
                why = event.get("ResourceStatusReason", "AWS gives no reason")
                raise UserError(f"{event['LogicalResourceId']} in {name}: {why}") from error
        raise


def _describe(name: str) -> dict[str, Any] | None:
    """Return the description of the stack; None if it does not exist."""
    try:
        stacks = api.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    stack: dict[str, Any] = stacks[0]
    return None if stack["StackStatus"] == "DELETE_COMPLETE" else stack


def _has_provider() -> bool:
    """Whether the account has an identity provider for GitHub; it can have only one."""
    listed = api.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
    return any("token.actions.githubusercontent.com" in one["Arn"] for one in listed)
