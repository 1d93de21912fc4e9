"""``config.yaml`` as frozen models: what is deployed and how."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import UserError

FILE = Path(__file__).with_name("config.yaml")

BUILD = Path("build")
"""What delivery leaves: SBOM, image's name, bundle, clips of the smoke test."""

Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED"]


class Strict(BaseModel):
    """A section in which a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Instances(Strict):
    """How many there are behind a load balancer."""

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
            raise ValueError("update has to be Immutable where load_balanced is false")
        return self


class Scan(Strict):
    """Findings of ECR's scan."""

    refuse: tuple[Severity, ...]


class Budget(Strict):
    """The alarm."""

    dollars: int = Field(ge=1)


class Settings(Strict):
    """All of the file."""

    # an environment's name is this one and "-production", and may have 40 characters
    name: str = Field(min_length=3, max_length=29, pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
    environment: Environment
    scan: Scan
    budget: Budget


def load(file: Path = FILE) -> Settings:
    """Read the settings.

    Raises
    ------
    UserError
        Naming the first key that is wrong.
    """
    try:
        return Settings.model_validate(YAML(typ="safe").load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "it"
        raise UserError(f"{file.name}: {key}: {first['msg']}.") from None
    except (OSError, YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None


def output(**values: str) -> None:
    """Give values to the steps that follow in a workflow of GitHub's; elsewhere, nothing."""
    file = os.environ.get("GITHUB_OUTPUT")
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.writelines(f"{key}={value}\n" for key, value in values.items())
