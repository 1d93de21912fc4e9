"""A temporary copy of the repository in which the real pipeline runs on a tiny dataset."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import Once

from . import warm

ROOT = Path(__file__).parents[2]
COPIED = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "crossval/dvc.yaml",
    "dvc.yaml",
    "labels.csv",
    "pipeline",
    "sounds",
)
TINY = {
    "dataset.foley.folds": 3,
    "dataset.foley.recordings": 1,
    "dataset.foley.slices": 2,
    "features.logmel.n_mels": 32,
    "tune.trials": 2,
    "tune.epochs": 2,
    "tune.workers": 1,
    "train.epochs": 3,
    "evaluate.bootstrap": 200,
    "crossval.workers": 1,
}


@dataclass(frozen=True)
class Repository:
    """A checkout with commands run in it as a user would."""

    folder: Path

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command line; what it prints is on ``stdout``, both streams together."""
        return subprocess.run(
            command.split(),
            cwd=self.folder,
            env=self.environment(**{"PATH": self.warm_path(), **environment}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )

    def start(self, command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command line cold, in a session of its own, as a terminal would."""
        return subprocess.Popen(
            command.split(),
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ok(self, command: str, **environment: str) -> str:
        """Run a command that has to succeed and return what it printed."""
        done = self.run(command, **environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a user with the project's own interpreter first on the path."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **more}

    def warm_path(self) -> str:
        """The user's path with a quicker ``python -m pipeline`` in front, where there is one."""
        path = self.environment()["PATH"]
        return f"{warm.start().path}{os.pathsep}{path}" if sys.platform == "linux" else path

    def set(self, **values: Any) -> None:
        """Set keys of ``params.yaml``; ``__`` stands for the dot."""
        self.set_dotted({key.replace("__", "."): value for key, value in values.items()})

    def set_dotted(self, values: dict[str, Any]) -> None:
        """Set dotted keys of ``params.yaml``."""
        yaml = YAML()
        path = self.folder / "params.yaml"
        content = yaml.load(path.read_text())
        for key, value in values.items():
            *parents, last = key.split(".")
            section = content
            for parent in parents:
                section = section[parent]
            section[last] = value
        with path.open("w") as stream:
            yaml.dump(content, stream)

    def rename_model(self, model_sha256: str) -> None:
        """Give the trained model and its figures another hash, as if it were another model."""
        for name in ("models/run.json", "reports/metrics.json"):
            file = self.folder / name
            content = json.loads(file.read_text())
            content.get("tags", content)["model_sha256"] = model_sha256
            file.unlink()  # a link into DVC's cache
            file.write_text(json.dumps(content))

    def copy(self, to: Path) -> "Repository":
        """A second checkout in the same state, outputs, cache and stores included."""
        shutil.copytree(self.folder, to, symlinks=True)
        return Repository(to)


def checkout(folder: Path) -> Repository:
    """A fresh clone of what is being tested, with the tiny dataset and one commit."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            if name == "sounds":
                ignore = shutil.ignore_patterns("[!R]*")
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy(source, target)
    shutil.copy(ROOT / "tests" / "params.yaml", folder)
    repository = Repository(folder)
    repository.set_dotted(TINY)
    for command in ("init -q -b main", "add -A", "commit -q -m start"):
        repository.ok(f"git -c user.name=test -c user.email=test@example.org {command}")
    return repository


@pytest.fixture
def fresh(tmp_path: Path) -> Repository:
    """A clone in which nothing has run."""
    return checkout(tmp_path / "clone")


@pytest.fixture(scope="session")
def _finished(once: Once) -> Path:
    def make(folder: Path) -> None:
        clone = checkout(folder / "clone")
        # this once as a user runs it, and not in a process of warm.py
        output = clone.ok("dvc repro", PATH=clone.environment()["PATH"])
        (folder / "output").write_text(output)

    return once("finished", make)


@pytest.fixture(scope="session")
def finished(_finished: Path) -> Repository:
    """A clone in which ``dvc repro`` ran once; to look at, not to change."""
    return Repository(_finished / "clone")


@pytest.fixture(scope="session")
def first_output(_finished: Path) -> str:
    """What that first ``dvc repro`` printed."""
    return (_finished / "output").read_text()


@pytest.fixture
def used(finished: Repository, tmp_path: Path) -> Repository:
    """A copy of the finished clone, to change at will."""
    return finished.copy(tmp_path / "clone")
