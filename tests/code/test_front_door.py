"""``python -m pipeline``: every command is listed, explains itself, and is light to ask for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]


def test_the_list_of_commands_imports_nothing_but_the_standard_library() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from pipeline.__main__ import main; main([])\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before} - {'pipeline'}\n"
        "print(*sorted(loaded - sys.stdlib_module_names), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.does)}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m pipeline {name} ")
    assert len(shown.splitlines()) > 4


def test_an_unknown_command_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "'train'" in capsys.readouterr().err


def test_every_command_that_the_project_names_exists() -> None:
    named: set[str] = set()
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.yaml", "*.yml", "*.py", "*.ipynb", "Makefile"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for file in listed.stdout.split():
        text = (ROOT / file).read_text(encoding="utf-8")
        named |= set(re.findall(r"python -m pipeline ([a-z][a-z-]*)", text))
    assert named
    assert named <= COMMANDS.keys()
