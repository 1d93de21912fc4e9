"""A fixture with the real service, serving a small bundle."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import harness

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    port: int
    pid: int
    seconds: float
    log: Path
    """The folder of the prediction log."""


@pytest.fixture(scope="session")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run ``bentoml serve`` on a free port."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        "SOUND_BUNDLE": str(bundle),
        "SOUND_PREDICTION_LOG": str(home / "log"),
        "BENTOML_HOME": str(home / "bentoml"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with harness.served(harness.bentoml_serve(harness.OURS), environment=environment) as running:
        yield Service(
            url=f"http://{harness.HOST}:{running.port}",
            port=running.port,
            pid=running.process.pid,
            seconds=running.seconds,
            log=home / "log",
        )
