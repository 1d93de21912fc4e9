"""The registry after files were lost, moved or deleted; promotion; lineage from every reference."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.tracking import runs

from .conftest import Repository

NAME = "foley-classifier"

pytestmark = pytest.mark.filterwarnings("ignore")


def client_of(repository: Repository, tmp_path: Path) -> MlflowClient:
    """A client of a copy of the store, because MLflow keeps a file open that was replaced."""
    snapshot = tmp_path / f"snapshot{len(list(tmp_path.glob('snapshot*')))}.db"
    shutil.copy(repository.folder / "mlflow.db", snapshot)
    return MlflowClient(f"sqlite:///{snapshot}")


def version_of(repository: Repository, tmp_path: Path, number: str = "1") -> ModelVersion:
    return client_of(repository, tmp_path).get_model_version(NAME, number)


def artifacts(repository: Repository) -> set[str]:
    root = repository.folder / "mlruns"
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


def another_model(repository: Repository, answers: str) -> None:
    """Replace the outputs by those of a model whose predictions are all right or all wrong."""
    file = repository.folder / "reports/predictions.csv"
    table = pd.read_csv(file, keep_default_na=False)
    wrong = table["label"].map(lambda label: next(x for x in table["label"] if x != label))
    file.unlink()  # a link into DVC's cache
    table.assign(predicted=table["label"] if answers == "right" else wrong).to_csv(
        file, index=False
    )
    repository.rename_model(f"the model that is {answers}")


def test_the_version_carries_its_card_with_the_decision_and_links(
    finished: Repository, tmp_path: Path
) -> None:
    version = version_of(finished, tmp_path)
    record = json.loads((finished.folder / "models/run.json").read_text())
    (card,) = (finished.folder / "mlruns").rglob("model_card.md")
    for text in ("## What it is for", "### By class", "## Confusions", "git_commit", "License"):
        assert text in card.read_text()
    assert f"[the training run](#/experiments/1/runs/{record['run_id']})" in version.description
    assert "Decision: first version" in version.description
    assert "90% interval" not in version.description
    assert "95% interval" in version.description


def test_other_settings_of_the_interval_update_the_registered_version(
    used: Repository, tmp_path: Path
) -> None:
    used.set(evaluate__confidence=0.6, evaluate__seed=7)
    output = used.ok("dvc repro")
    assert "version 1 is already registered" in output
    figures = json.loads((used.folder / "reports/metrics.json").read_text())
    version = version_of(used, tmp_path)
    run = client_of(used, tmp_path).get_run(version.run_id)
    for key, value in runs.numbers(figures).items():
        assert float(version.tags[f"test_{key}"]) == pytest.approx(value, rel=1e-5)
        assert run.data.metrics[f"test_{key}"] == value
    assert f"{figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}" in version.description
    assert "60% interval" in version.description
    (card,) = (used.folder / "mlruns").rglob("model_card.md")
    assert "60% interval" in card.read_text()


def test_lost_artifacts_are_written_again_without_training(used: Repository) -> None:
    used.ok("python -m pipeline register")  # so that the copy uses its own store
    before = artifacts(used)
    shutil.rmtree(used.folder / "mlruns")
    output = used.ok("dvc repro")
    assert "Running stage 'train'" not in output
    assert "version 1 is already registered, alias champion" in output
    # MLflow writes this file beside a model that was loaded by the name of its version
    again = ("model_card.md", "registered_model_meta")
    # the training run has the plot of the search, too
    search = json.loads((used.folder / "models/best_params.json").read_text())["run_id"]
    lost = {name for name in before - artifacts(used) if not name.endswith(again)}
    assert lost <= {f"1/{search}/artifacts/search.png"}
    assert any(name.endswith("artifacts/search.png") for name in artifacts(used))
    used.ok("python -m pipeline package")


def test_the_run_of_a_version_gets_the_evaluation_of_an_equal_model_that_was_trained_later(
    used: Repository,
) -> None:
    used.ok("python -m pipeline register")  # so that the copy uses its own store
    run_id = json.loads((used.folder / "models/run.json").read_text())["run_id"]
    examples = used.folder / f"mlruns/1/{run_id}/artifacts/examples"
    shutil.rmtree(examples)  # as if an earlier release had evaluated it
    used.ok("dvc repro --force --single-item train")
    assert run_id not in (used.folder / "models/run.json").read_text()
    assert "version 1 is already registered, alias champion" in used.ok("dvc repro")
    used.ok("python -m pipeline package")
    assert {file.name for file in examples.iterdir()} > {"index.json"}
    assert list((used.folder / "bundle/examples").iterdir())


def test_a_repository_that_was_moved_keeps_its_runs_and_versions(
    used: Repository, tmp_path: Path
) -> None:
    moved = Repository(used.folder.rename(tmp_path / "moved"))
    output = moved.ok("dvc repro")
    assert "version 1 is already registered, alias champion" in output
    version = version_of(moved, tmp_path)
    assert version.source.startswith(f"{moved.folder}/mlruns/")
    assert (Path(version.source) / "data/model.keras").exists()
    assert not used.folder.exists()
    moved.set(train__label_smoothing=0.2, tune__trials=0)
    assert "version 2 registered" in moved.ok("dvc repro")
    assert not used.folder.exists()


def test_a_deleted_run_is_restored(used: Repository, tmp_path: Path) -> None:
    run_id = version_of(used, tmp_path).run_id
    used.ok(f"mlflow runs delete --run-id {run_id}", MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    assert "version 1 is already registered" in used.ok("python -m pipeline register")
    assert client_of(used, tmp_path).get_run(run_id).info.lifecycle_stage == "active"


def test_promoting_and_rolling_back_are_one_command_each(used: Repository, tmp_path: Path) -> None:
    another_model(used, "wrong")
    assert "version 2 registered, alias challenger" in used.ok("python -m pipeline register")
    summary = " ".join(used.ok("python -m pipeline summary").split())
    assert "foley-classifier version 2, alias challenger" in summary
    assert "make serve serves version 1: the candidate is not better" in summary
    assert "python -m pipeline promote 2" in summary
    assert "try it" not in summary
    done = used.run("python -m pipeline promote challenger --reason heard-both")
    assert "version 2 is champion in place of version 1" in done.stdout
    assert version_of(used, tmp_path, "2").tags["promoted"] == "heard-both"
    shown = used.ok("python -m pipeline lineage champion")
    assert "version 2 after version 1" in shown
    assert "heard-both" in shown
    used.ok("python -m pipeline promote --rollback --reason deaf-after-all")
    assert version_of(used, tmp_path).aliases == ["champion"]
    assert "back to version 1 after version 2" in used.ok("python -m pipeline lineage 1")
    done = used.run("python -m pipeline promote 7 --reason typo")
    assert done.returncode == 1
    assert "has no version 7" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_store_with_the_earlier_name_is_continued_by_every_command(
    used: Repository, tmp_path: Path
) -> None:
    client = MlflowClient(f"sqlite:///{used.folder}/mlflow.db")
    client.delete_registered_model(NAME)
    used.set(register__name="sound-classifier")  # the value in earlier releases' params.yaml
    used.ok("python -m pipeline register")
    used.set(register__name=None)
    kept = "the registry already had this dataset's models as sound-classifier, so the name is kept"
    output = used.ok("python -m pipeline register")
    assert "sound-classifier version 1 is already registered, alias champion" in output
    assert kept in output
    another_model(used, "right")
    output = used.ok("python -m pipeline register")
    assert "sound-classifier version 2 registered, alias champion; `make serve` serves it" in output
    used.ok("python -m pipeline promote --rollback --reason deaf-after-all")
    shown = used.ok("python -m pipeline lineage champion")
    assert "back to version 1 after version 2" in shown
    assert "sound-classifier" in shown
    packaged = used.ok("python -m pipeline package")
    assert "sound-classifier version 1, the champion (deaf-after-all) -> bundle/" in packaged
    assert "the model trained last is version 2" in packaged
    assert not client_of(used, tmp_path).search_model_versions(f"name = '{NAME}'")


def test_a_model_file_that_was_damaged_by_hand_is_not_registered(used: Repository) -> None:
    model = used.folder / "models/model.keras"
    content = model.read_bytes()
    model.unlink()
    model.write_bytes(content[:-1])
    done = used.run("python -m pipeline register")
    assert done.returncode == 1
    assert "models/model.keras is not the file that the stage train wrote" in done.stdout
    used.ok("dvc checkout --force models/model.keras")
    assert "version 1 is already registered" in used.ok("python -m pipeline register")


def test_figures_of_another_model_are_not_registered(used: Repository) -> None:
    metrics = (used.folder / "reports/metrics.json").read_text()
    used.rename_model("another")
    (used.folder / "reports/metrics.json").write_text(metrics)
    done = used.run("python -m pipeline register")
    assert done.returncode == 1
    assert "reports/metrics.json has the figures of another model" in done.stdout


def test_outputs_of_two_datasets_are_not_mixed(used: Repository) -> None:
    described = used.folder / "data" / "dataset.json"
    card = json.loads(described.read_text())
    described.unlink()  # it may be a link into the cache
    card |= {"name": "folder", "sha256": "0" * 64, "labels": ["cat", "dog"]}
    described.write_text(json.dumps(card))
    for command in ("summary", "report", "evaluate", "train", "tune", "crossval"):
        done = used.run(f"python -m pipeline {command}")
        assert done.returncode == 1, command
        assert "run `dvc repro`." in done.stdout, done.stdout
        assert "Traceback" not in done.stdout, done.stdout


def chain(repository: Repository, reference: str, **environment: str) -> dict[str, Any]:
    """The one chain that `lineage --json` prints."""
    done = repository.run(f"python -m pipeline lineage {reference} --json", **environment)
    assert done.returncode == 0, done.stdout
    text = done.stdout
    (found,) = json.loads(text[text.index("[\n") : text.rindex("]") + 1].split("\nlineage:")[0])
    return dict(found)


@contextmanager
def answering(card: dict[str, Any]) -> Iterator[str]:
    """A service that returns `card` for ``GET /model``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/model" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(card).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_lineage_shows_the_same_chain_from_every_reference(
    used: Repository, tmp_path: Path
) -> None:
    home = {"BENTOML_HOME": str(tmp_path / "bentoml")}
    used.ok("python -m pipeline package")
    shutil.copytree(Path(__file__).parents[2] / "deploy", used.folder / "deploy")
    shutil.copy(Path(__file__).parents[2] / "bentofile.yaml", used.folder)
    shutil.copy(Path(__file__).parents[2] / "requirements-service.lock", used.folder)
    tag = json.loads(used.ok("bentoml build --output tag", **home).splitlines()[-1].join('""'))
    tag = tag.removeprefix("__tag__:")
    digest = f"registry.example.org/sound@sha256:{'0' * 64}"
    used.ok(f"python -m pipeline lineage 1 --image {digest}", **home)

    expected = chain(used, "1", **home)
    links = expected["links"]
    record = json.loads((used.folder / "models/run.json").read_text())
    commit = used.ok("git rev-parse HEAD").strip()
    assert expected["missing"] == {}
    assert links["dataset"]["name"] == "foley"
    assert links["dataset"]["sha256"] == record["tags"]["dataset.sha256"]
    assert links["rejected clips"]["clips"] == 0
    assert links["features"]["features_md5"] == record["tags"]["lineage.features_md5"]
    assert links["features"]["n_mels"] == "32"
    assert links["search"]["study"] == record["tags"]["tune.study"]
    assert links["code"]["git_commit"] == commit
    assert links["run"]["run_id"] == record["run_id"]
    assert links["parameters"]["learning_rate"] == str(record["params"]["train.learning_rate"])
    assert "keras" in links["libraries and machine"]
    assert links["metrics"]["accuracy"] >= 0
    assert links["version"]["version"] == "1"
    assert [move["version"] for move in links["alias history"]] == ["1"]
    assert links["bento"] == [tag]
    assert links["image"] == digest
    card = json.loads((used.folder / "bundle/card.json").read_text())
    with answering(card) as address:
        for reference in ("champion", record["run_id"], commit[:10], "HEAD", tag, address):
            found = chain(used, reference, **home)
            assert found["links"].pop("service", {"at": address}) == {"at": address}
            assert found == expected, reference
        # a store that does not have the model: the card is shown, the rest is listed as missing
        lost = chain(used, address, MLFLOW_TRACKING_URI="sqlite:///other.db", **home)
        assert lost["links"]["dataset"]["name"] == "foley"
        assert lost["links"]["code"]["git_commit"] == commit
        assert {"run", "version", "alias history", "rejected clips"} <= lost["missing"].keys()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("99", "is not a version, alias or run"),
        ("f" * 32, "is not a version, alias or run"),
        ("no:such", "has no bento no:such"),
        ("http://127.0.0.1:9", "does not say which model the service has"),
    ],
)
def test_a_reference_to_nothing_ends_in_one_sentence(
    used: Repository, reference: str, message: str
) -> None:
    home = {"BENTOML_HOME": str(used.folder / "bento")}
    done = used.run(f"python -m pipeline lineage {reference}", **home)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert message in done.stdout


def test_lost_links_are_listed_as_missing(used: Repository, tmp_path: Path) -> None:
    used.ok("git -c user.name=t -c user.email=t@e commit -q --amend -m other-commit")
    used.ok("git reflog expire --expire=now --all")
    used.ok("git gc --quiet --prune=now")
    search = json.loads((used.folder / "models/best_params.json").read_text())["run_id"]
    used.ok(f"mlflow runs delete --run-id {search}", MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    used.ok(
        "mlflow gc --backend-store-uri sqlite:///mlflow.db",
        MLFLOW_TRACKING_URI="sqlite:///mlflow.db",
    )
    missing = chain(used, "1", BENTOML_HOME=str(tmp_path / "bentoml"))["missing"]
    assert "not in this clone" in missing["commit"]
    assert search in missing["search's run"]
    assert {"bento", "image"} <= missing.keys()
