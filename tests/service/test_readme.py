"""Run the README's examples of the API as they are written, with another address."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.bundle import sound
from tests.service.conftest import Service

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:3000"


def example(language: str, about: str) -> str:
    """The README's code block in `language` that contains `about`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if about in block)
    assert ADDRESS in block
    return str(block)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the file that the examples use."""
    soundfile.write(tmp_path / "siren.wav", sound("tone", 1), 22050)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_answers_with_windows(server: Service, folder: Path) -> None:
    command = example("console", "curl").replace(ADDRESS, server.url)
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["windows"]


def test_the_python_example_prints_label_and_probability(server: Service, folder: Path) -> None:
    code = example("python", "requests").replace(ADDRESS, server.url)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    label, probability = done.stdout.split()
    assert label in {"hiss", "knocks", "tone"}
    assert 1 / 3 <= float(probability) <= 1
