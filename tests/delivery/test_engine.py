"""Without Docker and Podman."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.delivery.conftest import ROOT, UNTESTED


@pytest.fixture
def poor(tmp_path: Path) -> dict[str, str]:
    """An environment with only a shell and git."""
    for program in ("sh", "git"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    return {**os.environ, "PATH": str(tmp_path)}


def test_pytest_warns_that_the_image_was_not_tested(poor: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "image", "-p", "no:cacheprovider",
         "tests/delivery/test_image.py", "-k", "labels"],
        cwd=ROOT, env=poor, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"!! {UNTESTED} !!" in done.stdout
    assert "install one, or start the Docker daemon" in done.stdout
    assert "passed" not in done.stdout


def test_building_an_image_without_an_engine_gives_one_error_sentence(
    poor: dict[str, str], bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "checkout" / "bundle")
    for command in ("init -q", "-c user.name=t -c user.email=t@x commit -q --allow-empty -m start"):
        subprocess.run(["git", *command.split()], cwd=tmp_path / "checkout", check=True)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.image"],
        cwd=tmp_path / "checkout", env={**poor, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("image: error: neither Docker nor Podman works")
    assert done.stderr.count("\n") == 1
