"""The Makefile: its list of targets, and values from the environment."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
HOSTILE = "$(shell touch run-by-make)`touch run-by-sh`;$(touch run-by-sh)"


@pytest.mark.parametrize(
    ("target", "variable"),
    [
        ("package", "VERSION"),
        ("package", "MLFLOW_TRACKING_URI"),
        ("image", "BASE"),
        ("image", "PIP_CONFIG"),
        ("eb-bundle", "REGISTRY"),
        ("push", "REGISTRY"),
        ("smoke", "URL"),
        ("compare", "BASE"),
        ("aws-wait", "STAGE"),
        ("aws-rollback", "LABEL"),
        ("aws-up", "REPOSITORY"),
        ("aws-down", "CONFIRM"),
    ],
)
def test_a_value_from_the_environment_is_not_a_command(
    target: str, variable: str, tmp_path: Path
) -> None:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / ".installed").touch()
    for program in (
        "python",
        "deploy/compare.sh",
    ):  # instead of the real ones: write down their arguments
        file = (tmp_path if "/" in program else programs) / program
        file.parent.mkdir(exist_ok=True)
        file.write_text('#!/bin/sh\necho "$MLFLOW_TRACKING_URI" "$@" > said\n')
        file.chmod(0o755)
    (tmp_path / "requirements.lock").touch()
    os.utime(tmp_path / "requirements.lock", (0, 0))
    subprocess.run(
        ["make", "-f", ROOT / "Makefile", target],
        cwd=tmp_path,
        env={**os.environ, variable: HOSTILE},
        check=True,
    )
    assert HOSTILE in (tmp_path / "said").read_text()
    assert not list(tmp_path.glob("run-by-*"))


def test_help_lists_every_target_with_aligned_descriptions() -> None:
    shown = subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line for line in shown.splitlines() if line.startswith("  make ")]
    listed = [line.split()[1] for line in rows]
    targets = re.findall(r"^([a-z-]+):(?! \w+ \?=)", MAKEFILE, re.MULTILINE)
    assert listed == targets
    columns = {re.match(r"  make \S+ +", line).end() for line in rows}  # type: ignore[union-attr]
    assert len(columns) == 1
    assert max(map(len, rows)) <= 100


def test_the_makefile_reads_every_variable_that_the_documentation_passes_to_it() -> None:
    pages = [ROOT / "README.md", ROOT / "deploy" / "README.md", *(ROOT / "docs").rglob("*.md")]
    commands = re.findall(
        r"make ([a-z-]+(?: [a-z-]+)*)((?: [A-Z_]+=\S+)+)",
        "\n".join(page.read_text(encoding="utf-8") for page in pages),
    )
    passed = {name for _, variables in commands for name in re.findall(r"([A-Z_]+)=", variables)}
    assert passed >= {"CONFIRM", "EXAMPLES", "REPOSITORY", "URL"}
    assert {
        name for name in passed if not re.search(rf"\$+[({{]?(value )?{name}\b", MAKEFILE)
    } == set()
