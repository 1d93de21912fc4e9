"""Labels that look like numbers stay text from the folder's name to the bundle."""

import pandas as pd
import pytest
import soundfile

from pipeline import paths, tables
from pipeline.__main__ import main
from tests.bundle import sound

from .conftest import Repository

LABELS = {"007": "hiss", "042": "knocks", "1": "tone"}


def test_a_folder_with_numbers_as_labels_is_trained_registered_and_packaged(
    fresh: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{fresh.folder}/mlflow.db")
    for label, kind in LABELS.items():
        (paths.SOUNDS / label).mkdir()
        for number in range(6):
            wave = sound(kind, number, rate=8000, seconds=1.0)
            soundfile.write(paths.SOUNDS / label / f"{number}.wav", wave, 8000)
    paths.CORRECTIONS.write_text("dataset,path,label\nfolder,1/0.wav,007\n")
    fresh.set(
        dataset__name="folder", dataset__folder__folds=3, tune__trials=0, train__network="cnn"
    )
    for command in ("download", "featurize", "tune", "train", "evaluate", "register", "package"):
        main([command])
    main(["report"])

    clips = pd.read_csv(paths.CLIPS, dtype=str).set_index("path")["label"]
    assert clips["1/0.wav"] == "007"
    assert clips["1/1.wav"] == "1"
    predictions = pd.read_csv(paths.PREDICTIONS, dtype=str)
    assert set(predictions["label"]) == set(LABELS)
    assert {f"p_{label}" for label in LABELS} <= set(predictions)
    right = (predictions["label"] == predictions["predicted"]).mean()
    assert tables.read_json(paths.METRICS)["accuracy"] == pytest.approx(right)
    assert tables.read_json(paths.BUNDLE / "card.json")["labels"] == sorted(LABELS)
