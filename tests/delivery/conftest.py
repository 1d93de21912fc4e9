"""Fixtures: a clone of the repository with a bundle, a base image, and an image built from them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deploy import engine
from pipeline.errors import UserError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LOCAL_BASE = "localhost/python:debian"
UNTESTED = "THE IMAGE IS NOT TESTED"


@dataclass(frozen=True)
class Clone:
    """A checkout in which the tests run commands as a person would."""

    folder: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a module or program with the project's interpreter first on the path."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )

    def ok(self, *command: str, **environment: str) -> str:
        """Run a command that has to succeed, and return its output."""
        done = self.run(*command, **environment)
        assert done.returncode == 0, done.stdout
        return done.stdout


@dataclass(frozen=True)
class Image:
    """A built image; `seconds` is the duration of the build."""

    name: str
    seconds: float
    clone: Clone


def make_clone(folder: Path, bundle: Path) -> Clone:
    """Copy all files that git does not ignore, commit them, and add a bundle."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    clone = Clone(folder)
    for command in ("init -q -b main", "add -A", "commit -q -m start"):
        clone.ok("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *command.split())
    shutil.copytree(bundle, folder / "bundle")
    return clone


@pytest.fixture(scope="session")
def container_engine() -> str:
    """Docker or Podman; without either, these tests are skipped with a warning."""
    if not Path("/run/systemd/system").is_dir():
        os.environ.setdefault("CONTAINERS_CONF", str(HERE / "containers.conf"))
    try:
        return engine.find()
    except UserError as error:
        pytest.skip(f"{UNTESTED}: {error}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a warning at the end, because a quiet run shows neither reasons nor output."""
    reasons = {str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])}
    if any(UNTESTED in reason for reason in reasons):
        terminalreporter.section(UNTESTED, sep="!", red=True, bold=True)
        for reason in sorted(reason for reason in reasons if UNTESTED in reason):
            terminalreporter.line(reason)


@pytest.fixture(scope="session")
def base_image(container_engine: str) -> str:
    """The base image, or one that is made here if no registry can be reached."""
    described = YAML(typ="safe").load((ROOT / "bentofile.yaml").read_text())
    name = str(described["docker"]["base_image"])
    if engine.exists(name):
        return name
    if engine.exists(LOCAL_BASE):
        return LOCAL_BASE
    try:
        engine.run("pull", "--quiet", name)
    except UserError:
        subprocess.run([HERE / "base.sh", LOCAL_BASE], check=True)
        return LOCAL_BASE
    return name


@pytest.fixture(scope="session")
def clone(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return make_clone(tmp_path_factory.mktemp("delivery") / "clone", bundle)


@pytest.fixture(scope="session")
def image(container_engine: str, clone: Clone, base_image: str) -> Iterator[Image]:
    """The image of the bundle, built like ``make image`` does."""
    started = time.perf_counter()
    print(clone.ok("python", "-m", "deploy.image", "--base", base_image))
    seconds = time.perf_counter() - started
    name = (clone.folder / "build" / "image.txt").read_text().strip()
    yield Image(name, seconds, clone)
    engine.run("image", "rm", "--force", name)
