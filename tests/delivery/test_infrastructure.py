"""The CloudFormation template, deployed where moto can, and taken away again."""

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

from deploy import aws, config, image
from pipeline.errors import UserError

NAME = config.load().name
TEMPLATE: dict[str, Any] = cfn_yaml.load(str(aws.TEMPLATE))
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
    monkeypatch.setattr(aws, "POLL", 1.0)
    for key in [key for key in os.environ if key.startswith("AWS_ENDPOINT")]:
        monkeypatch.delenv(key)
    with mock_aws():
        yield


@pytest.fixture
def stack(account: None, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Physical names by logical ones, after ``make aws-up``."""
    aws.up("someone/sounds", "someone@example.org")
    held = boto3.client("cloudformation").describe_stack_resources(StackName=NAME)
    # moto has no environments and no budgets: those have no physical name
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


def test_buckets_are_encrypted_versioned_and_private(stack: dict[str, str]) -> None:
    made = {bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]}
    assert made == {stack["Bundles"], stack["Data"]}
    for name in ("Bundles", "Data"):  # in the template: moto makes them without
        described = TEMPLATE["Resources"][name]["Properties"]
        assert described["VersioningConfiguration"] == {"Status": "Enabled"}
        rules = described["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rules[0]["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert set(described["PublicAccessBlockConfiguration"].values()) == {True}


def test_tags_of_images_are_given_once_and_images_are_scanned(stack: dict[str, str]) -> None:
    (repository,) = boto3.client("ecr").describe_repositories()["repositories"]
    assert repository["repositoryName"] == NAME
    assert repository["imageTagMutability"] == "IMMUTABLE"
    described = TEMPLATE["Resources"]["Images"]["Properties"]
    assert described["ImageScanningConfiguration"] == {"ScanOnPush": True}


def test_only_this_repository_may_take_the_roles(stack: dict[str, str]) -> None:
    for role in ("DeployRole", "TrainRole"):
        found = boto3.client("iam").get_role(RoleName=stack[role])["Role"]
        (statement,) = found["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        said = statement["Condition"]["StringEquals"]
        subjects = said["token.actions.githubusercontent.com:sub"]
        for subject in subjects if isinstance(subjects, list) else [subjects]:
            assert subject.startswith("repo:someone/sounds:")
            assert "*" not in subject


def test_who_trains_cannot_deploy_and_who_deploys_cannot_change_data(stack: dict[str, str]) -> None:
    assert "elasticbeanstalk" not in json.dumps(policies(stack["TrainRole"]))
    statements = policies(stack["DeployRole"])["buckets"]["Statement"]
    writing = [one for one in statements if "s3:PutObject" in one["Action"]]
    assert [one["Resource"] for one in writing] == [f"arn:aws:s3:::{stack['Bundles']}/*"]
    assert '"Action": "*"' not in json.dumps(policies(stack["DeployRole"]))


def test_it_prints_the_variables_that_the_workflows_read(
    account: None, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.up("someone/sounds", "someone@example.org")
    printed = capsys.readouterr().out
    for variable in (
        "AWS_REGION",
        "AWS_DEPLOY_ROLE",
        "AWS_TRAIN_ROLE",
        "AWS_BUNDLES",
        "DVC_REMOTE",
    ):
        assert f"gh variable set {variable} --body " in printed


def test_twice_is_no_error(stack: dict[str, str]) -> None:
    aws.up("someone/sounds", "someone@example.org")


def test_down_has_to_be_confirmed_and_takes_everything(stack: dict[str, str]) -> None:
    s3 = boto3.client("s3")
    for body in (b"old", b"new"):
        s3.put_object(Bucket=stack["Data"], Key="dvc/files", Body=body)
    with pytest.raises(UserError, match=f"CONFIRM={NAME}"):
        aws.down("yes")
    assert aws.down(NAME).startswith(f"{NAME} is gone")
    assert s3.list_buckets()["Buckets"] == []
    assert boto3.client("ecr").describe_repositories()["repositories"] == []
    assert aws.down(NAME) == f"{NAME} has no stack: nothing is there"


def of_moto() -> Any:
    """The stack as moto holds it, to bring it where moto never goes by itself."""
    (stack,) = cloudformation_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"].stacks.values()
    return stack


def test_down_goes_on_where_it_was_interrupted(stack: dict[str, str]) -> None:
    boto3.client("s3").delete_bucket(Bucket=stack["Bundles"])
    # AWS takes what is gone for deleted; moto, which is asked to only now, does not
    with pytest.raises(ClientError, match=r"NoSuchBucket.* DeleteStack"):
        aws.down(NAME)


def test_a_stack_that_was_never_whole_has_to_go_first(stack: dict[str, str]) -> None:
    of_moto().status = "ROLLBACK_COMPLETE"
    with pytest.raises(UserError, match=f"never made whole: `make aws-down CONFIRM={NAME}`"):
        aws.up("someone/sounds", "someone@example.org")


def test_what_failed_first_is_named_with_its_reason(
    stack: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = of_moto()

    def update(*_: Any, **__: Any) -> None:
        held.status = "UPDATE_ROLLBACK_COMPLETE"
        for resource, why in (("Staging", "No Solution Stack"), ("Budget", "cancelled")):
            held.events.append(
                Event(held.stack_id, NAME, resource, "", "AWS::X::Y", "UPDATE_FAILED", why, None)
            )

    monkeypatch.setattr(held, "update", update)
    with pytest.raises(UserError, match=f"^Staging in {NAME}: No Solution Stack"):
        aws.up("someone/sounds", "someone@example.org")


def test_a_scan_that_was_begun_by_the_push_is_waited_for(
    account: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecr = boto3.client("ecr")
    monkeypatch.setattr(aws, "client", lambda _: ecr)
    monkeypatch.setattr(aws, "POLL", 0.0)
    monkeypatch.setattr(image, "read_name", lambda: f"{NAME}:v7-0123456789ab")
    with Stubber(ecr) as said:
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
            aws.scan()
        said.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["push", ""], "REGISTRY is not set"),
        (["wait", ""], "STAGE is not set"),
        (["wait", "prod"], "there is no environment sound-classifier-prod: make it with"),
        (["rollback", "", "v1"], "STAGE is not set"),
        (["rollback", "staging", ""], "had no version before this one"),
        (["up", "", "x@example.org"], "REPOSITORY is not set"),
        (["up", "someone/sounds", ""], "MAIL is not set"),
        (["down", ""], f"make aws-down CONFIRM={NAME}"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    arguments: list[str], sentence: str, account: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["aws", *arguments])
    with pytest.raises(UserError, match=sentence):
        aws._program()()
