"""What the service imports: only what the image contains, and no library of the training."""

import ast
import functools
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
SERVING = sorted((ROOT / "pipeline" / "serving").glob("*.py"))


def on_import(body: list[ast.stmt]) -> set[str]:
    """Return the modules that are imported when a module is imported, as dotted names."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            found |= on_import(node.body)
    return found


def own_file(name: str) -> Path | None:
    """Return the file of a module of ours; None for other modules."""
    parts = name.split(".")
    if parts[0] != "pipeline":
        return None
    for length in (len(parts), len(parts) - 1):
        file = ROOT.joinpath(*parts[:length]).with_suffix(".py")
        if file.is_file():
            return file
    return ROOT.joinpath(*parts) / "__init__.py"


def closure(files: list[Path]) -> tuple[set[Path], set[str]]:
    """Follow imports; return our own files and the other packages."""
    own, others, todo = set(files), set[str](), list(files)
    while todo:
        for name in on_import(ast.parse(todo.pop().read_text(encoding="utf-8")).body):
            file = own_file(name)
            if file is None:
                others.add(name.split(".")[0])
            elif file not in own:
                own.add(file)
                todo.append(file)
    return own, others - set(sys.stdlib_module_names)


@functools.cache
def distributions(package: str) -> set[str]:
    """Return the distributions that install a package."""
    return {name.lower() for name in packages_distributions().get(package, [])}


def test_the_bento_includes_every_file_that_the_service_imports() -> None:
    bentofile = YAML(typ="safe").load(ROOT / "bentofile.yaml")
    included = [ROOT / pattern for pattern in bentofile["include"]]
    own, _ = closure(SERVING)
    missing = [
        str(file.relative_to(ROOT))
        for file in own
        if not any(file == path or path in file.parents for path in included)
    ]
    assert missing == []


@pytest.mark.parametrize("file", SERVING, ids=lambda file: file.stem)
def test_a_module_of_the_service_imports_only_what_the_image_has(file: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {line.split(">")[0] for line in project["dependencies"]}
    _, others = closure([file])
    undeclared = {name for name in others if not declared & distributions(name)}
    assert undeclared == set()
