"""What the image is made of, checked without building it."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions

from deploy import dockerfile
from pipeline.serving.settings import PROCESS_ENVIRONMENT
from tests.delivery.conftest import ROOT


def imported(folder: str) -> set[str]:
    """Return the distributions whose packages are imported below a folder, wherever in a file."""
    names: set[str] = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    known = packages_distributions()
    found = {found for name in names for found in known.get(name.split(".")[0], [])}
    return {re.sub("[-_.]+", "-", name).lower() for name in found}


def test_the_image_has_no_library_that_the_service_does_not_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split("[<>=;[ ]", line)[0] for line in project["dependencies"]}
    assert declared - imported("pipeline/serving") - imported("pipeline/sound") == set()


def test_the_dockerfile_that_is_linted_sets_the_variables_of_the_service() -> None:
    lines = dockerfile.render().splitlines()
    for name, value in PROCESS_ENVIRONMENT.items():
        assert f"ENV {name}={value}" in lines
