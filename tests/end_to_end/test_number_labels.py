"""Labels that look like numbers, or like anything, stay text from the folder to the service."""

import csv
import json
from pathlib import Path

import httpx
import pandas as pd
import pytest
import soundfile

from bench import harness
from pipeline import paths, tables
from pipeline.__main__ import main
from tests.bundle import sound

from .conftest import ROOT, Repository, checkout

KINDS = ("hiss", "knocks", "tone")
LABELS = [
    *map(str, range(10)), "007", "1.0", "1e3", "-1", "NA", "nan", "null", "None", "true", "TRUE",
    "🐦 trill", "a, b", 'say "hi"', "<b>|`x`", "p_1", "label", "=1+1", "1_000", "٣",
]  # fmt: skip
STAGES = ("download", "featurize", "tune", "train", "evaluate", "register")


def text(file: Path) -> pd.DataFrame:
    """Read a table as a user does who wants text and nothing else."""
    return pd.read_csv(file, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def anything(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone that all stages went through, on a folder with these labels."""
    clone = checkout(tmp_path_factory.mktemp("labels") / "clone")
    clone.set_dotted(
        {
            "dataset.name": "folder",
            "dataset.folder.folds": 3,
            "tune.trials": 0,
            "train.network": "cnn",
            "train.width": 0.25,
            "train.epochs": 1,
            "crossval.validate": False,
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{clone.folder}/mlflow.db")
        for position, label in enumerate(LABELS):
            (paths.SOUNDS / label).mkdir()
            for number in range(6 if label in ("1", "1.0", "007") else 3):
                seed = 100 * position + number
                wave = sound(KINDS[position % 3], seed, rate=8000, seconds=1.0)
                soundfile.write(paths.SOUNDS / label / f"{number}.wav", wave, 8000)
        paths.CORRECTIONS.write_text(
            "dataset,path,label\nfolder,1/0.wav,007\nfolder,007/0.wav,1.0\nfolder,1.0/0.wav,1\n"
        )
        for command in STAGES:
            main([command])
    return clone


@pytest.fixture
def inside(anything: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.chdir(anything.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{anything.folder}/mlflow.db")
    return anything


def test_tables_corrections_and_figures_have_every_label_as_it_is(inside: Repository) -> None:
    clips = text(paths.CLIPS).set_index("path")["label"]
    assert [clips[f"{label}/0.wav"] for label in ("1", "007", "1.0")] == ["007", "1.0", "1"]
    assert all(clips[f"{label}/2.wav"] == label for label in LABELS)
    assert tables.read_json(paths.DATASET)["labels"] == sorted(LABELS)
    predictions = text(paths.PREDICTIONS)
    assert set(predictions["label"]) == set(LABELS)
    assert {f"p_{label}" for label in LABELS} <= set(predictions)
    right = (predictions["label"] == predictions["predicted"]).mean()
    assert tables.read_json(paths.METRICS)["accuracy"] == pytest.approx(right)
    assert set(text(paths.PER_CLASS)["label"]) == set(LABELS)


def test_the_model_card_and_the_report_name_every_label(inside: Repository) -> None:
    (card,) = Path("mlruns").rglob("model_card.md")
    for label in LABELS:
        assert label.replace("|", "\\|") in card.read_text(), label
    main(["report"])
    page = paths.REPORT.read_text()
    assert "&lt;b&gt;|`x`" in page
    assert "<b>|`x`" not in page


def test_cross_validation_and_label_errors_keep_every_label(inside: Repository) -> None:
    main(["crossval"])
    main(["label-errors"])
    assert set(text(paths.CROSSVAL_PREDICTIONS)["label"]) == set(LABELS)
    assert set(text(paths.CROSSVAL_CLASSES)["label"]) == set(LABELS)
    found = text(paths.LABEL_ERRORS)
    assert {*found["label"], *found["suggested"]} <= set(LABELS)


def test_the_package_the_service_and_predict_return_every_label(
    inside: Repository, tmp_path: Path
) -> None:
    main(["package", "--examples"])
    card = tables.read_json(paths.BUNDLE / "card.json")
    assert card["labels"] == sorted(LABELS)
    main(["predict", "data/audio", "--out", str(tmp_path / "predicted.csv")])
    with (tmp_path / "predicted.csv").open(newline="", encoding="utf-8") as stream:
        rows = {Path(row["path"]).relative_to("data/audio"): row for row in csv.DictReader(stream)}
    expected = text(paths.PREDICTIONS)
    for row in expected.to_dict("records"):
        assert rows[Path(row["path"])]["label"] == row["predicted"]

    # the service reads labels, thresholds and examples from the bundle alone
    environment = {
        "SOUND_BUNDLE": str(paths.BUNDLE.resolve()),
        "SOUND_PREDICTION_LOG": str(tmp_path / "log"),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "PYTHONPATH": str(ROOT),
    }
    with harness.served(harness.bentoml_serve(harness.OURS), environment=environment) as running:
        url = f"http://{harness.HOST}:{running.port}"
        assert httpx.get(f"{url}/model").json()["labels"] == sorted(LABELS)
        for row in expected.head(6).to_dict("records"):
            clip = (paths.AUDIO / row["path"]).read_bytes()
            answer = httpx.post(f"{url}/classify", files={"file": clip}, timeout=60)
            assert answer.status_code == 200, answer.text
            returned = answer.json()
            assert returned["label"] == row["predicted"]
            assert set(json.loads(answer.text)["probabilities"]) == set(LABELS)
        assert httpx.get(f"{url}/metrics").status_code == 200
    logged = sorted((tmp_path / "log").glob("*.jsonl"))
    lines = [json.loads(line) for file in logged for line in file.read_text().splitlines()]
    assert {line["label"] for line in lines} == set(expected.head(6)["predicted"])
    main(["drift", *map(str, logged)])


def test_promotion_lineage_and_the_leak_check_run(
    inside: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["leakcheck", "--no-training"])
    main(["promote", "1", "--reason", "it knows 007 from 1.0"])
    main(["lineage", "champion"])
    main(["summary"])
    shown = capsys.readouterr().out
    assert "folder-classifier version 1, alias champion" in " ".join(shown.split())
