"""``dvc.yaml`` against the code: what a stage reads is what it declares."""

import ast
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import paths

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = {
    name: stage
    for file in ("dvc.yaml", "crossval/dvc.yaml")
    for name, stage in YAML(typ="safe").load((ROOT / file).read_text())["stages"].items()
}
PLUMBING = {"backend", "errors", "moved", "params", "paths", "pool", "runs", "stage", "tracking"}
"""Changing these changes how work is started, checked and recorded, not what comes out."""


BEFORE = {"download", "featurize", "tune", "train"}


def imports(module: Path) -> set[str]:
    """Modules of the pipeline that `module` imports, itself included, however deep.

    Stages that run before do not count: only the function is needed that reads their outputs.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        seen.add(file.stem)
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module == "pipeline":
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline."):
                names = [(node.module or "").split(".")[1]]
            for name in names:
                target = ROOT / "pipeline" / f"{name}.py"
                if name in BEFORE or name in seen:
                    continue
                if target.is_file():
                    waiting.append(target)
                elif (ROOT / "pipeline" / name).is_dir():
                    seen.add(name)
    return seen


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_the_code_that_makes_its_outputs(name: str) -> None:
    needed = imports(ROOT / "pipeline" / f"{name}.py") - PLUMBING
    declared = {Path(dep).stem for dep in STAGES[name]["deps"] if str(dep).startswith("pipeline/")}
    assert needed == declared


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_the_parameters_that_it_declares_and_no_others(name: str) -> None:
    tree = ast.parse((ROOT / "pipeline" / f"{name}.py").read_text())
    (main,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    loaded = {"params.load()"}
    for node in ast.walk(main):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "params.load()":
            loaded.add(ast.unparse(node.targets[0]))
    read = {
        node.attr.rstrip("_")
        for node in ast.walk(main)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in loaded
    }
    assert read == {str(key).split(".")[0] for key in STAGES[name]["params"]}


def test_outputs_stand_where_the_code_writes_them() -> None:
    declared = {
        str(next(iter(out)) if isinstance(out, dict) else out)
        for stage in STAGES.values()
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]
    }
    assert declared == {str(path) for path in paths.OUTPUTS}


def test_every_stage_has_an_output_and_says_what_it_is_for() -> None:
    for name, stage in STAGES.items():
        assert stage["outs"], name
        assert stage["desc"], name
        assert stage["cmd"] == f"python -m pipeline.{name}"
