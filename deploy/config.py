"""Read ``config.yaml``: what is deployed, and how."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import UserError
from pipeline.serving import settings

FILE = Path(__file__).with_name("config.yaml")

BUILD = Path("build")
"""Outputs of the delivery: the image's name and SBOM, the source bundle, the smoke test's clips."""

Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED"]


class Strict(BaseModel):
    """A section that rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Instances(Strict):
    """Number of instances behind a load balancer."""

    least: int = Field(ge=1)
    most: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Instances":
        if self.most < self.least:
            raise ValueError("most is less than least")
        return self


class Environment(Strict):
    """An Elastic Beanstalk environment."""

    platform: str
    instance_types: tuple[str, ...] = Field(min_length=1)
    load_balanced: bool
    instances: Instances
    update: Literal["Immutable", "RollingWithAdditionalBatch"]
    ready_seconds: int = Field(ge=10, le=600)
    log_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365]

    @model_validator(mode="after")
    def _possible(self) -> "Environment":
        if self.update != "Immutable" and not self.load_balanced:
            raise ValueError("update must be Immutable unless load_balanced is true")
        return self


class Scan(Strict):
    """ECR's scan of the image."""

    refuse: tuple[Severity, ...]


class Budget(Strict):
    """The budget alarm."""

    dollars: int = Field(ge=1)


class Config(Strict):
    """The whole file."""

    # an environment's name is this name with "-production", and may have 40 characters
    name: str = Field(min_length=3, max_length=29, pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
    service: dict[str, str | int | float]
    environment: Environment
    scan: Scan
    budget: Budget

    @model_validator(mode="after")
    def _service_settings_exist(self) -> "Config":
        try:
            self.limits  # noqa: B018  # reads them
        except UserError as error:
            raise ValueError(str(error).rstrip(".")) from None
        if others := [name for name in self.service if not name.startswith(settings.PREFIX)]:
            raise ValueError(f"{others[0]} does not begin with {settings.PREFIX}")
        return self

    @property
    def service_environment(self) -> dict[str, str]:
        """Return the environment variables of the deployed service."""
        return {name: str(value) for name, value in self.service.items()}

    @property
    def limits(self) -> settings.Settings:
        """Return the settings of the deployed service, which the proxies in front of it follow."""
        return settings.Settings.read(self.service_environment)


def load(file: Path = FILE) -> Config:
    """Read the file.

    Raises
    ------
    UserError
        If it cannot be read, or naming the first key that is wrong.
    """
    try:
        return Config.model_validate(YAML(typ="safe").load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{file.name}: {key + ': ' if key else ''}{message}.") from None
    except (OSError, YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None


def output(**values: str) -> None:
    """Set outputs of the current step of a GitHub workflow; do nothing elsewhere."""
    file = os.environ.get("GITHUB_OUTPUT")
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.writelines(f"{key}={value}\n" for key, value in values.items())
