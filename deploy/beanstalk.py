"""Wait for an Elastic Beanstalk environment, and roll it back to an earlier version."""

import os
from typing import Any

from deploy import api, config, image
from pipeline.errors import UserError

HEALTHY = ("Green", "Yellow")


def environment_name(stage: str) -> str:
    """Return the name of the environment of a stage, ``staging`` or ``production``."""
    return f"{config.load().name}-{stage}"


def wait(stage: str) -> str:
    """Wait until an environment accepts a deployment, and report which version it runs.

    Sets the outputs of the workflow step: ``application`` and ``environment`` (names), ``previous``
    (label of the running version), ``deployed`` (``true`` if that is the version to be deployed and
    it is healthy) and ``address``.
    """
    name = environment_name(stage)
    environment = _ready(name)
    label = environment.get("VersionLabel", "")
    wanted = os.environ.get("VERSION_LABEL") or image.read_name().split(":")[1]
    deployed = label == wanted and environment.get("Health") in HEALTHY
    config.output(
        application=config.load().name,
        environment=name,
        previous=label,
        deployed=str(deployed).lower(),
        address=environment.get("CNAME", ""),
    )
    return f"{name} is ready and runs {label or 'no version'}"


def rollback(stage: str, label: str) -> str:
    """Deploy an earlier version to an environment again, and check that it is healthy.

    Raises
    ------
    UserError
        If there is no earlier version, or if it does not become healthy.
    """
    name = environment_name(stage)
    if not label:
        raise UserError(f"{name} had no earlier version, so it cannot be rolled back.")
    environment = _ready(name)
    if environment.get("VersionLabel") != label:
        api.client("elasticbeanstalk").update_environment(EnvironmentName=name, VersionLabel=label)
        environment = _ready(name)
    running, health = environment.get("VersionLabel"), environment.get("Health")
    if running != label or health not in HEALTHY:
        raise UserError(
            f"{name} runs {running} with health {health} after a rollback to {label}: see its"
            " events in the Elastic Beanstalk console."
        )
    return f"{name} runs {label} again"


def _ready(name: str) -> dict[str, Any]:
    """Wait until an environment is ready and its health is known; return its description."""
    elasticbeanstalk = api.client("elasticbeanstalk")

    def read() -> dict[str, Any] | None:
        environments = elasticbeanstalk.describe_environments(
            EnvironmentNames=[name], IncludeDeleted=False
        )["Environments"]
        if not environments:
            raise UserError(f"the environment {name} does not exist: create it with `make aws-up`.")
        environment: dict[str, Any] = environments[0]
        # grey: the health is not known yet
        settled = environment["Status"] == "Ready" and environment.get("Health") != "Grey"
        return environment if settled else None

    return api.poll(read, f"{name} was not ready")
