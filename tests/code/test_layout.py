"""A suite imports only from the suites below it."""

import ast
from pathlib import Path

import pytest

PIPELINE = Path(__file__).parents[2] / "pipeline"
FLOORS = (
    {"stages"},
    {"evaluation"},
    {"registry", "training"},
    {"data", "serving"},
    {"sound", "tracking"},
)
"""The suites, from the top down. Below them is the ground floor: the modules beside the suites."""

GROUND = len(FLOORS)
FRONT_DOOR = PIPELINE / "__main__.py"
MODULES = sorted(set(PIPELINE.rglob("*.py")) - {FRONT_DOOR})


def floor(suite: str) -> int:
    return next((number for number, suites in enumerate(FLOORS) if suite in suites), GROUND)


def suite_of(module: str) -> str:
    """Return the suite of a dotted name, or the name itself for a module of the ground floor."""
    return module.removeprefix("pipeline").strip(".").split(".")[0]


def suite_of_file(file: Path) -> str:
    relative = file.relative_to(PIPELINE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(file: Path) -> set[str]:
    """Return the dotted names of the pipeline that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "pipeline"}
    return found


def test_every_suite_has_its_floor() -> None:
    suites = {path.parent.name for path in PIPELINE.glob("*/__init__.py")}
    assert suites == set().union(*FLOORS)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PIPELINE)))
def test_a_module_imports_only_its_own_suite_and_those_below(file: Path) -> None:
    relative, own = file.relative_to(PIPELINE), suite_of_file(file)
    for name in imported(file):
        other = suite_of(name)
        assert other == own or floor(other) > floor(own) or floor(own) == floor(other) == GROUND, (
            f"{relative} imports {name}"
        )


@pytest.mark.parametrize("suite", sorted(set().union(*FLOORS[:-1])))
def test_no_suite_is_higher_than_its_imports_ask_for(suite: str) -> None:
    names = set().union(*(imported(file) for file in MODULES if suite_of_file(file) == suite))
    assert min(floor(suite_of(name)) for name in names if suite_of(name) != suite) == (
        floor(suite) + 1
    )


def test_nothing_imports_a_stage_not_even_another_stage() -> None:
    importing = [str(file) for file in MODULES for name in imported(file) if "stages" in name]
    assert importing == []


def test_a_stage_is_its_main_and_a_closing_line() -> None:
    for file in (PIPELINE / "stages").glob("[!_]*.py"):
        functions = {
            n.name: n for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)
        }
        assert list(functions) in (["main"], ["main", "_line"]), file.name
        main = functions["main"]
        assert (main.end_lineno or 0) - main.lineno < 60, file.name
