"""Errors of the MLflow store are one sentence without passwords; a moved store keeps its files."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from pipeline import paths, tables
from pipeline.errors import UserError
from pipeline.tracking import processes, relocate, runs, store


def sentence(monkeypatch: pytest.MonkeyPatch, uri: str) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError) as caught:
        store.connect()
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.fixture(autouse=True)
def _retries() -> Iterator[None]:
    """Restore the settings that connecting changes."""
    before = {name: os.environ.get(name) for name in store.RETRIES}
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:s3cret@127.0.0.1:9/mlflow",
        "http://ann:s3cret@127.0.0.1:9",
        "ftp://a:s3cret@h",
    ],
)
def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    said = sentence(monkeypatch, uri)
    assert "s3cret" not in said
    assert ":***@" in said


def test_a_server_that_never_answered_gets_fewer_retries_than_one_that_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in store.RETRIES:
        monkeypatch.delenv(name, raising=False)
    assert "connection refused" in sentence(monkeypatch, "http://127.0.0.1:9")
    assert os.environ.items() >= store.RETRIES.items()
    with store.fail_fast():
        assert os.environ.items() >= store.FEW_RETRIES.items()
    assert os.environ.items() >= store.RETRIES.items()


@pytest.mark.parametrize("uri", ["mlruns", "/srv/mlruns", "file:///srv/mlruns", "ftp://host/x"])
def test_an_address_of_no_store_is_refused_with_a_list_of_possible_schemes(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    said = sentence(monkeypatch, uri)
    assert said.startswith(f"MLFLOW_TRACKING_URI is {uri}")
    assert "http(s)://, sqlite:///" in said


def test_a_damaged_database_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_bytes(b"not a database at all" * 100)
    said = sentence(monkeypatch, f"sqlite:///{tmp_path}/damaged.db")
    assert "damaged.db does not answer (the file is damaged or not a database)" in said


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = sentence(monkeypatch, "postgresql+pg8000://ann@127.0.0.1/mlflow")
    assert "needs the Python package pg8000, which is not installed" in said


def test_a_process_that_runs_is_alive_and_one_that_ended_is_dead() -> None:
    assert not processes.is_dead(processes.this_process())
    script = "from pipeline.tracking import processes; print(processes.this_process())"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert processes.is_dead(ended.stdout.strip())
    host, started, number = processes.this_process().rsplit(":", 2)
    assert processes.is_dead(
        f"{host}:{int(started) - 3600}:{number}"
    )  # another process got its number
    assert not processes.is_dead(f"another-machine:{started}:{number}")


@pytest.fixture(scope="module")
def made(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a run with an artifact; tests must not change it."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        client = store.connect()
        with store.run(store.experiment(client, "sounds"), "a run", {}):
            mlflow.log_text("kept", "note.txt")
    return folder


def locations(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute(
            "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM experiments"
        ).fetchall()
    database.close()
    return {row[0] for row in rows}


def test_a_copy_of_a_store_does_not_touch_the_original(made: Path, tmp_path: Path) -> None:
    before = locations(made)
    copy = shutil.copytree(made, tmp_path / "copy")
    assert relocate.update_paths(copy / "mlflow.db")
    assert not relocate.update_paths(copy / "mlflow.db")
    assert all(where.startswith(f"{copy}/") for where in locations(copy))
    assert locations(made) == before


def test_a_store_that_was_moved_finds_its_artifacts(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = shutil.copytree(made, tmp_path / "old's % place")
    relocate.update_paths(odd / "mlflow.db")
    new = odd.rename(tmp_path / "new")
    monkeypatch.chdir(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new}/mlflow.db")
    client = store.connect()
    (run,) = client.search_runs([client.get_experiment_by_name("sounds").experiment_id])
    assert Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text() == "kept"
    assert all(where.startswith(f"{new}/") for where in locations(new))


def test_a_database_whose_artifacts_stayed_elsewhere_is_left_alone(
    made: Path, tmp_path: Path
) -> None:
    shutil.copy(made / "mlflow.db", tmp_path)
    assert not relocate.update_paths(tmp_path / "mlflow.db")


def test_the_users_own_number_of_retries_is_kept(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made}/mlflow.db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    store.connect()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"


def test_figures_of_another_model_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    record = runs.Record("r", "e", "n", {}, {}, {runs.MODEL_HASH: "of this model"})
    tables.write_json(paths.METRICS, {"accuracy": 1, runs.MODEL_HASH: "of this model"})
    assert runs.numbers(runs.figures(record)) == {"accuracy": 1.0}
    for other in ({"accuracy": 1}, {"accuracy": 1, runs.MODEL_HASH: "of an older one"}):
        tables.write_json(paths.METRICS, other)
        with pytest.raises(UserError, match="figures of another model"):
            runs.figures(record)
