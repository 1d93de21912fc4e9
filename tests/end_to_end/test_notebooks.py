"""The notebooks, run from top to bottom like a reader runs them."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from mlflow import MlflowClient
from nbclient import NotebookClient

from .conftest import ROOT, Repository

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a notebook in a clone and return the outputs of each cell as JSON."""
    for variable in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE"):
        monkeypatch.delenv(variable, raising=False)
    folder = repository.folder / "notebooks"
    folder.mkdir(exist_ok=True)
    file = Path(shutil.copy(ROOT / "notebooks" / name, folder))
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    complaints = [out.text for cell in outputs for out in cell if out.get("name") == "stderr"]
    assert complaints == []
    return [json.dumps(cell) for cell in outputs]


def pictures(shown: list[str]) -> int:
    return sum(cell.count('"image/png": "') for cell in shown)  # and not the metadata with its size


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code") <= 30


def test_the_first_notebook_shows_the_dataset(
    used: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run(used, "01_data_exploration.ipynb", monkeypatch)
    assert pictures(shown) == 6
    labels = json.loads((used.folder / "data/dataset.json").read_text())["labels"]
    assert max(cell.count("data:audio/mpeg") for cell in shown) >= len(labels)
    assert any("no leaks between folds" in cell for cell in shown)


def test_the_second_notebook_compares_trains_and_logs(
    used: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run(used, "02_machine_learning.ipynb", monkeypatch)
    assert pictures(shown) >= 8
    text = " ".join(shown)
    for part in (
        "MFCC 13 + derivatives",
        "random split",
        "folds of the dataset",
        "likely label errors",
    ):
        assert part in text
    assert "data:audio/mpeg" in text
    run_id = json.loads((used.folder / "models/run.json").read_text())["run_id"]
    client = MlflowClient(f"sqlite:///{used.folder}/mlflow.db")
    logged = {file.path for file in client.list_artifacts(run_id, "notebook")}
    for name in ("confusion.png", "protocols.png", "features.json", "protocols.json"):
        assert f"notebook/{name}" in logged
