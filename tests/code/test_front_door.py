"""``python -m pipeline`` lists every command, and help is quick."""

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def imported(*arguments: str) -> set[str]:
    """Run the front door in a process and return the libraries that it imports."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "from pipeline.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before} - {'pipeline'}\n"
        "print(*sorted(loaded - sys.stdlib_module_names), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_imports_nothing_but_the_standard_library() -> None:
    assert imported() == set()
    assert imported("lineage", "--help") == set()
    assert imported("train", "--help") == set()


def test_every_command_is_listed_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.does)}$", shown, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_module_of_a_command_has_what_the_front_door_calls(name: str) -> None:
    command = COMMANDS[name]
    file = ROOT.joinpath("pipeline", *command.module.split(".")).with_suffix(".py")
    functions = {
        n.name: n for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)
    }
    called = functions["run" if command.add_options else "main"]
    assert len(called.args.args) == (1 if command.add_options else 0)


def test_commands_are_about_the_champion_by_default() -> None:
    from pipeline.registry.champions import CHAMPION

    for name, given in (("lineage", "reference"), ("reproduce", "version"), ("package", "version")):
        parser = argparse.ArgumentParser()
        add_options = COMMANDS[name].add_options
        assert add_options is not None
        add_options(parser)
        assert getattr(parser.parse_args([]), given) == CHAMPION


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m pipeline {name} ")
    assert len(shown.splitlines()) > 4
    assert f"python -m pipeline {name}" in shown.partition("\n")[2]


def test_an_unknown_command_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "'train'" in capsys.readouterr().err


def test_a_missing_training_library_is_named_with_the_command_that_installs_it() -> None:
    script = (
        "import sys; sys.modules['pandas'] = None\n"
        "from pipeline.__main__ import main; main(['summary'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "summary: error: the library pandas is not installed: install the training libraries with"
        " `pip install '.[train,cpu]'`.\n"
    )


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
