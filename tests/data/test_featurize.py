"""The featurize stage, on a handful of generated clips."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.data import feature_store
from pipeline.errors import UserError
from pipeline.sound import decoding
from pipeline.sound.features import FeatureSpec, extract, windows
from pipeline.stages import featurize

Floats = NDArray[np.floating]

ROOT = Path(__file__).parents[2]

# name, label, seconds, sample rate, channels
CLIPS = [
    ("dog-1.wav", "dog", 1.0, 22050, 1),
    ("dog-2.wav", "dog", 0.3, 44100, 2),
    ("none.wav", "NA", 2.7, 16000, 1),
    ("007.flac", "NA", 1.0, 96000, 2),
]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the download stage leaves."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests" / "params.yaml", paths.PARAMS)
    paths.AUDIO.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number, (name, label, seconds, rate, channels) in enumerate(CLIPS):
        waveform = rng.normal(0, 0.1, (round(seconds * rate), channels))
        soundfile.write(paths.AUDIO / name, waveform, rate)
        recording = Path(name).stem
        rows.append((name, label, number % 3 + 1, recording, seconds))
    columns = ["path", "label", "fold", "recording", "seconds"]
    pd.DataFrame(rows, columns=columns).to_csv(paths.CLIPS, index=False)
    card = {"name": "folder", "clip_seconds": 1.0, "labels": ["NA", "dog"], "folds": [1, 2, 3]}
    paths.DATASET.write_text(json.dumps(card), encoding="utf-8")
    return tmp_path


def set_features(**values: str) -> None:
    yaml = YAML()
    content = yaml.load(paths.PARAMS)
    content["features"].update(values)
    yaml.dump(content, paths.PARAMS)


def test_every_clip_becomes_a_row(workspace: Path) -> None:
    line = featurize.main()
    assert line.startswith("4 clips, 3 s of sound -> 4 windows of 64 x 44 log-mel, ")
    assert line.endswith(" x real time")
    made = feature_store.read()
    assert made.array.shape == (4, 64, 44)
    assert made.array.dtype == np.float32
    assert isinstance(made.array, np.memmap)
    assert made.index["path"].tolist() == [clip[0] for clip in CLIPS]
    assert made.index["label"].tolist() == ["dog", "dog", "NA", "NA"]
    assert made.index["recording"].tolist() == ["dog-1", "dog-2", "none", "007"]
    assert made.index["fold"].tolist() == [1, 2, 3, 1]
    assert made.index["window"].tolist() == [0, 0, 0, 0]
    assert made.spec.mean is None


@pytest.mark.parametrize("kind", ["logmel", "mfcc", "stft"])
def test_a_row_has_the_bits_that_the_service_computes(workspace: Path, kind: str) -> None:
    set_features(kind=kind, longer="split")
    featurize.main()
    made = feature_store.read()
    spec = FeatureSpec.load(paths.FEATURE_SPEC)
    for row, (name, window) in enumerate(
        zip(made.index["path"], made.index["window"], strict=True)
    ):
        waveform = decoding.load((paths.AUDIO / name).read_bytes(), spec.sample_rate)
        served = extract(windows(waveform, spec)[window], spec)
        np.testing.assert_array_equal(made.array[row], served)


def test_a_real_clip_has_the_bits_that_the_service_computes(workspace: Path, esc10: Path) -> None:
    featurize.main()
    spec = feature_store.read().spec
    files = sorted(esc10.glob("*/*.ogg"))[::40]
    extracted = list(feature_store.extract_files(files, spec))
    assert [clip for clip, _ in extracted] == list(range(len(files)))
    for clip, rows in extracted:
        waveform = decoding.load(files[clip].read_bytes(), spec.sample_rate)
        np.testing.assert_array_equal(rows[0], extract(windows(waveform, spec)[0], spec))


def test_longer_clips_give_several_rows_when_split(workspace: Path) -> None:
    set_features(longer="split")
    assert featurize.main().startswith("4 clips, 5 s of sound -> 6 windows of ")
    made = feature_store.read()
    assert made.array.shape == (6, 64, 44)
    assert made.index["path"].tolist()[2:5] == ["none.wav"] * 3
    assert made.index["window"].tolist() == [0, 0, 0, 1, 2, 0]


def add_clip(name: str, waveform: Floats, rate: int, subtype: str) -> None:
    soundfile.write(paths.AUDIO / name, waveform, rate, subtype=subtype)
    with paths.CLIPS.open("a", encoding="utf-8") as table:
        table.write(f"{name},dog,1,{name},{len(waveform) / rate}\n")


def test_memory_does_not_grow_with_the_length_of_a_recording(workspace: Path) -> None:
    set_features(longer="split")
    rng = np.random.default_rng(0)
    add_clip("long.wav", rng.normal(0, 0.1, 15 * 60 * 22050), 22050, "PCM_16")
    tracemalloc.start()
    featurize.main()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 15 * 60 * 22050 * 4  # half of the waveform
    made = feature_store.read()
    assert made.index["window"].tolist()[6:] == [*range(15 * 60)]
    waveform = decoding.load(paths.AUDIO / "long.wav", 22050)
    for row in (-1, -100):
        expected = extract(windows(waveform, made.spec)[row], made.spec)
        np.testing.assert_array_equal(made.array[row], expected)


def test_nothing_is_decoded_after_the_only_window_of_a_cut_clip(workspace: Path) -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 60 * 22050)
    waveform[-1] = np.nan
    add_clip("nan.wav", waveform, 22050, "FLOAT")
    assert "5 clips, 4 s of sound -> 5 windows" in featurize.main()
    set_features(longer="split")
    with pytest.raises(UserError, match=r"nan\.wav is damaged"):
        featurize.main()


def test_a_run_that_is_stopped_before_its_index_leaves_nothing_that_is_taken_for_whole(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    featurize.main()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.tables.write", stop)
    with pytest.raises(KeyboardInterrupt):
        featurize.main()
    with pytest.raises(UserError, match=r"index\.csv is missing: run `dvc repro`"):
        feature_store.read()


def test_the_same_clips_give_the_same_bytes(workspace: Path) -> None:
    outputs = (paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC)
    featurize.main()
    before = [path.read_bytes() for path in outputs]
    featurize.main()
    assert [path.read_bytes() for path in outputs] == before


def test_a_clip_that_no_longer_decodes_is_named_and_leaves_no_array(workspace: Path) -> None:
    (paths.AUDIO / "none.wav").write_bytes(b"no sound")
    with pytest.raises(UserError, match=r"none\.wav is damaged: run the download stage again"):
        featurize.main()
    assert not paths.FEATURES.exists()
    (paths.AUDIO / "none.wav").unlink()
    with pytest.raises(UserError, match=r"none\.wav is damaged"):
        featurize.main()


def test_a_failed_run_does_not_touch_what_an_earlier_one_left(workspace: Path) -> None:
    featurize.main()
    (paths.AUDIO / "none.wav").write_bytes(b"")
    with pytest.raises(UserError):
        featurize.main()
    assert feature_store.read().array.shape == (4, 64, 44)


def test_a_test_fold_that_does_not_exist_is_refused_before_the_work(workspace: Path) -> None:
    content = paths.PARAMS.read_text().replace("test_fold: 1", "test_fold: 99")
    paths.PARAMS.write_text(content)
    with pytest.raises(UserError, match=r"split\.test_fold is 99: .* folds are 1, 2, 3"):
        featurize.main()
    assert not paths.FEATURES.exists()


def test_missing_inputs_are_named(workspace: Path) -> None:
    with pytest.raises(UserError, match=r"index\.csv is missing: run `dvc repro`"):
        feature_store.read()
    paths.CLIPS.unlink()
    with pytest.raises(UserError, match=r"clips\.csv is missing: run `dvc repro`"):
        featurize.main()


def test_outputs_of_different_runs_are_not_mixed(workspace: Path) -> None:
    featurize.main()
    index = paths.FEATURE_INDEX.read_text(encoding="utf-8").splitlines(keepends=True)
    paths.FEATURE_INDEX.write_text("".join(index[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="do not belong together"):
        feature_store.read()
    paths.FEATURES.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"features\.npy cannot be read"):
        feature_store.read()
