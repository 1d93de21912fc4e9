"""Decision, model card and lineage of a version, from the files and the run that stages leave."""

import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline import params, paths, tables
from pipeline.errors import UserError
from pipeline.params import RegisterParams
from pipeline.registry import lineage, versions
from pipeline.tracking import runs, store

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml").register_
NAME = "folder-classifier"
LABELS = ["007", "042"]
PREDICTIONS = pd.DataFrame(
    {
        "path": [f"{n}.wav" for n in range(8)],
        "label": LABELS * 4,
        "fold": 1,
        "recording": [f"0{n}" for n in range(8)],
        "predicted": ["007"] * 8,
        "p_007": 0.75,
        "p_042": 0.25,
    }
)
RECORD = runs.Record(
    run_id="",
    experiment="folder",
    name="train",
    params={"train.network": "cnn", "train.epochs": 3, "features.seconds": 4.0},
    metrics={"train_seconds": 1.0, "parameters": 9.0, "best_epoch": 2.0},
    tags={
        "model_sha256": "the weights",
        "dataset.name": "folder",
        "dataset.sha256": "the audio",
        "split.test_fold": "1",
        "split.validation_fold": "2",
        "split.train_folds": "3",
        "tune.study": "none",
        "tune.trial": "none",
    },
)


@pytest.fixture(scope="module")
def workspace(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of the stages, and a store with one version of its model."""
    folder = tmp_path_factory.mktemp("versions")
    shutil.copy(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        tables.write(paths.PREDICTIONS, PREDICTIONS)
        tables.write(paths.CLIPS, PREDICTIONS[["path", "label", "fold", "recording"]])
        tables.write(paths.REJECTED, pd.DataFrame({"path": ["007/x.wav"], "reason": ["042"]}))
        classes = pd.DataFrame({"label": LABELS, "precision": 0.5, "recall": 0.5, "f1": 0.5})
        counted = classes.assign(clips=4, recordings=4, recordings_in_all=4)
        tables.write(paths.PER_CLASS, counted)
        counts = {"clips": 8, "recordings": 8}
        tables.write_json(
            paths.DATASET, {"title": "T", "license": "L", "labels": LABELS, "rejected": 1, **counts}
        )
        tables.write_json(
            paths.METRICS,
            {"accuracy": 0.5, "accuracy_low": 0.2, "accuracy_high": 0.8, **counts}
            | {"accuracy_confidence": 0.95, "macro_f1": 0.5, "log_loss": 0.7}
            | {"balanced_accuracy": 0.5, "worst_recall": 0.5, "worst_class": "007"},
        )
        client = store.connect()
        with store.run(store.experiment(client, "folder"), "train", RECORD.tags) as run_id:
            for file in (paths.PREDICTIONS, paths.CLIPS, paths.REJECTED):
                mlflow.log_artifact(str(file))
        client.create_registered_model(NAME)
        client.create_model_version(NAME, source=str(folder), run_id=run_id, tags=RECORD.tags)
    return folder


@pytest.fixture
def client(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/mlflow.db")
    return store.connect()


@pytest.fixture
def version(client: MlflowClient) -> ModelVersion:
    return client.get_model_version(NAME, "1")


def test_labels_that_look_like_numbers_pass_the_gate_the_model_card_and_the_lineage(
    client: MlflowClient, version: ModelVersion
) -> None:
    assert versions.evaluated_version(client, version).labels == ("007", "042")
    decision = versions.decide(client, NAME, version, RECORD, SETTINGS)
    assert "the candidate is not better: it is right on 50.0% of the 8" in decision.reason
    versions.describe(client, version, RECORD, decision.reason)
    (card,) = Path().rglob("model_card.md")
    assert "`007`, `042`" in card.read_text()
    assert "| 042 | 007 | 4 | `1.wav` (75%) |" in card.read_text()
    run = client.get_run(version.run_id)
    assert lineage.rejected_clips(client, run) == {"007/x.wav": "042"}


@pytest.mark.parametrize(
    ("choice", "promote", "outcome"),
    [("keep", False, "so the champion stays"), ("replace", True, "so the champion is replaced")],
)
def test_a_champion_of_other_clips_is_kept_or_replaced_as_the_setting_says(
    client: MlflowClient, version: ModelVersion, choice: str, promote: bool, outcome: str
) -> None:
    decision = versions.decide(client, NAME, version, other_clips(), with_choice(choice))
    assert decision.promote is promote
    assert "version 1 was trained and tested on other clips" in decision.reason
    assert outcome in decision.reason
    assert decision.against == "1"


def test_a_champion_of_other_clips_ends_the_stage_if_the_setting_says_so(
    client: MlflowClient, version: ModelVersion
) -> None:
    with pytest.raises(UserError, match=r"set register\.on_incomparable to keep or replace"):
        versions.decide(client, NAME, version, other_clips(), with_choice("fail"))


def other_clips() -> runs.Record:
    return runs.Record(**{**vars(RECORD), "tags": {**RECORD.tags, "dataset.sha256": "other"}})


def with_choice(choice: str) -> RegisterParams:
    return SETTINGS.model_copy(update={"on_incomparable": choice})
