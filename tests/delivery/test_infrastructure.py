"""The CloudFormation stack: created, updated and deleted in moto."""

import json
import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from cfnlint.decode import cfn_yaml
from moto import mock_aws
from moto.cloudformation.models import Event, cloudformation_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from ruamel.yaml import YAML

from deploy import api, aws, config, ecr, image, stack
from pipeline.errors import UserError

NAME = config.load().name
TEMPLATE: dict[str, Any] = cfn_yaml.load(str(stack.TEMPLATE))
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

ASSUMED = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_DEFAULT_REGION": "eu-west-1",
}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty account."""
    for key, value in ASSUMED.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_POLL_SECONDS", "1")
    for key in [key for key in os.environ if key.startswith("AWS_ENDPOINT")]:
        monkeypatch.delenv(key)
    with mock_aws():
        yield


@pytest.fixture
def resources(account: None, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return physical names by logical names, after ``make aws-up``."""
    stack.up("someone/sounds", "someone@example.org")
    held = boto3.client("cloudformation").describe_stack_resources(StackName=NAME)
    # moto has no environments and no budgets, so these have no physical name
    return {
        one["LogicalResourceId"]: one["PhysicalResourceId"]
        for one in held["StackResources"]
        if "PhysicalResourceId" in one
    }


def policies(role: str) -> dict[str, Any]:
    iam = boto3.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    found = {
        name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in names
    }
    return {name: YAML(typ="safe").load(str(x)) for name, x in found.items()}


def test_buckets_are_encrypted_versioned_and_private(resources: dict[str, str]) -> None:
    made = {bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]}
    assert made == {resources["Bundles"], resources["Data"]}
    for name in ("Bundles", "Data"):  # read the template: moto ignores these properties
        described = TEMPLATE["Resources"][name]["Properties"]
        assert described["VersioningConfiguration"] == {"Status": "Enabled"}
        rules = described["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rules[0]["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert set(described["PublicAccessBlockConfiguration"].values()) == {True}


def test_image_tags_are_immutable_and_images_are_scanned(resources: dict[str, str]) -> None:
    (repository,) = boto3.client("ecr").describe_repositories()["repositories"]
    assert repository["repositoryName"] == NAME
    assert repository["imageTagMutability"] == "IMMUTABLE"
    described = TEMPLATE["Resources"]["Images"]["Properties"]
    assert described["ImageScanningConfiguration"] == {"ScanOnPush": True}


def test_only_this_repository_can_assume_the_roles(resources: dict[str, str]) -> None:
    for role in ("DeployRole", "TrainRole"):
        found = boto3.client("iam").get_role(RoleName=resources[role])["Role"]
        (statement,) = found["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        said = statement["Condition"]["StringEquals"]
        subjects = said["token.actions.githubusercontent.com:sub"]
        for subject in subjects if isinstance(subjects, list) else [subjects]:
            assert subject.startswith("repo:someone/sounds:")
            assert "*" not in subject


def test_the_train_role_cannot_deploy_nor_the_deploy_role_change_data(
    resources: dict[str, str],
) -> None:
    assert "elasticbeanstalk" not in json.dumps(policies(resources["TrainRole"]))
    statements = policies(resources["DeployRole"])["buckets"]["Statement"]
    writing = [one for one in statements if "s3:PutObject" in one["Action"]]
    assert [one["Resource"] for one in writing] == [f"arn:aws:s3:::{resources['Bundles']}/*"]
    assert '"Action": "*"' not in json.dumps(policies(resources["DeployRole"]))


def test_it_prints_the_variables_that_the_workflows_read(
    account: None, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.up("someone/sounds", "someone@example.org")
    printed = capsys.readouterr().out
    for variable in (
        "AWS_REGION",
        "AWS_DEPLOY_ROLE",
        "AWS_TRAIN_ROLE",
        "AWS_BUNDLES",
        "DVC_REMOTE",
    ):
        assert f"gh variable set {variable} --body " in printed


def test_up_can_be_repeated(resources: dict[str, str]) -> None:
    stack.up("someone/sounds", "someone@example.org")


def test_down_needs_confirmation_and_deletes_everything(resources: dict[str, str]) -> None:
    s3 = boto3.client("s3")
    for body in (b"old", b"new"):
        s3.put_object(Bucket=resources["Data"], Key="dvc/files", Body=body)
    with pytest.raises(UserError, match=f"CONFIRM={NAME}"):
        stack.down("yes")
    assert stack.down(NAME).startswith(f"{NAME} deleted")
    assert s3.list_buckets()["Buckets"] == []
    assert boto3.client("ecr").describe_repositories()["repositories"] == []
    assert stack.down(NAME) == f"{NAME} has no stack: nothing to delete"


def stack_in_moto() -> Any:
    """Return moto's own object of the stack, to bring it into states that moto never reaches."""
    (held,) = cloudformation_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"].stacks.values()
    return held


def test_down_can_be_repeated_after_an_interruption(resources: dict[str, str]) -> None:
    boto3.client("s3").delete_bucket(Bucket=resources["Bundles"])
    # moto gets as far as deleting the stack; unlike AWS, it fails on a bucket that is gone
    with pytest.raises(ClientError, match=r"NoSuchBucket.* DeleteStack"):
        stack.down(NAME)


def test_a_stack_whose_creation_failed_has_to_be_deleted_first(resources: dict[str, str]) -> None:
    stack_in_moto().status = "ROLLBACK_COMPLETE"
    with pytest.raises(UserError, match=f"failed: delete it with `make aws-down CONFIRM={NAME}`"):
        stack.up("someone/sounds", "someone@example.org")


def test_the_first_resource_that_failed_is_named_with_its_reason(
    resources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = stack_in_moto()

    def update(*_: Any, **__: Any) -> None:
        held.status = "UPDATE_ROLLBACK_COMPLETE"
        for resource, why in (("Staging", "No Solution Stack"), ("Budget", "cancelled")):
            held.events.append(
                Event(held.stack_id, NAME, resource, "", "AWS::X::Y", "UPDATE_FAILED", why, None)
            )

    monkeypatch.setattr(held, "update", update)
    with pytest.raises(UserError, match=f"^Staging in {NAME}: No Solution Stack"):
        stack.up("someone/sounds", "someone@example.org")


def test_scan_waits_for_the_scan_that_the_push_started(
    account: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("ecr")
    monkeypatch.setattr(api, "client", lambda _: client)
    monkeypatch.setenv("AWS_POLL_SECONDS", "0")
    monkeypatch.setattr(image, "read_name", lambda: f"{NAME}:v7-0123456789ab")
    with Stubber(client) as said:
        said.add_client_error("describe_image_scan_findings", "ScanNotFoundException")
        said.add_client_error("start_image_scan", "LimitExceededException")
        said.add_response(
            "describe_image_scan_findings", {"imageScanStatus": {"status": "IN_PROGRESS"}}
        )
        found = {
            "imageScanStatus": {"status": "COMPLETE"},
            "imageScanFindings": {"findingSeverityCounts": {"CRITICAL": 1, "LOW": 2}},
        }
        said.add_response("describe_image_scan_findings", found)
        with pytest.raises(UserError, match="has findings: 1 CRITICAL, 2 LOW"):
            ecr.scan()
        said.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["push", ""], "REGISTRY is not set"),
        (["wait", ""], "STAGE is not set"),
        (["wait", "prod"], f"the environment {NAME}-prod does not exist: create it with"),
        (["rollback", "", "v1"], "STAGE is not set"),
        (["rollback", "staging", ""], "had no earlier version, so it cannot be rolled back"),
        (["up", "", "x@example.org"], "REPOSITORY is not set"),
        (["up", "someone/sounds", ""], "MAIL is not set"),
        (["down", ""], f"make aws-down CONFIRM={NAME}"),
    ],
)
def test_a_missing_or_wrong_argument_is_named(
    arguments: list[str], sentence: str, account: None
) -> None:
    with pytest.raises(UserError, match=sentence):
        aws.main(arguments)


def test_polling_gives_up_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_POLL_SECONDS", "0")
    monkeypatch.setattr(api, "TIME_LIMIT", 0)
    with pytest.raises(UserError, match=r"^it was not ready within 0 minutes"):
        api.poll(lambda: None, "it was not ready")


def test_polling_returns_the_first_thing_that_is_not_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_POLL_SECONDS", "0")
    found = iter([None, None, "", "late"])
    assert api.poll(lambda: next(found), "it was not ready") == ""
