"""``compose.yaml`` is valid, and installs the versions of the lock file."""

import re
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())


def test_it_follows_the_compose_specification() -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", str(ROOT / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_server_has_the_versions_of_the_lock_file() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    image = COMPOSE["services"]["mlflow"]["build"]["dockerfile_inline"]
    assert f"ghcr.io/mlflow/mlflow:v{locked['mlflow']}\n" in image
    pinned = dict(re.findall(r"([a-z0-9-]+)==(\S+)", image))
    assert pinned == {name: locked[name] for name in ("boto3", "psycopg2-binary")}


def test_every_secret_is_required_and_listed_in_the_example() -> None:
    text = (ROOT / "compose.yaml").read_text()
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^([A-Z0-9_]+)=", example, re.MULTILINE))
    assert set(re.findall(r"\$\{([A-Z0-9_]+)", text)) == named
    asked = set(re.findall(r"\$\{([A-Z0-9_]+):\?", text))
    assert asked == named - {"BIND", "MLFLOW_HOSTS"}
