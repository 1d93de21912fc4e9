"""``dvc.yaml`` agrees with the code: each stage declares what it depends on."""

import ast
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.training import code_hash

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = {
    name: stage
    for file in ("dvc.yaml", "crossval/dvc.yaml")
    for name, stage in YAML(typ="safe").load((ROOT / file).read_text())["stages"].items()
}


def imports(stage: str) -> set[str]:
    """Return the files of the pipeline that a stage's result depends on, datasets as one folder."""
    datasets = ROOT / "pipeline" / "data" / "datasets"
    files = {
        datasets if file.is_relative_to(datasets) else file
        for file in code_hash.closure(f"pipeline.stages.{stage}").values()
    }
    return {str(file.relative_to(ROOT)) for file in files if file.name != "__init__.py"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_the_code_that_makes_its_outputs(name: str) -> None:
    needed = imports(name)
    declared = {str(dep) for dep in STAGES[name]["deps"] if str(dep).startswith("pipeline/")}
    assert needed == declared


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_the_parameters_that_it_declares_and_no_others(name: str) -> None:
    tree = ast.parse((ROOT / "pipeline" / "stages" / f"{name}.py").read_text())
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
        assert stage["cmd"] == f"python -m pipeline {name}"
