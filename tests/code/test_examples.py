"""Which clips a model is shown with, and that they come back as they were written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from pipeline import paths
from pipeline.sound import examples

PREDICTIONS = pd.DataFrame(
    {
        "path": ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav", "f.wav"],
        "recording": ["1", "2", "3", "4", "5", "6"],
        "label": ["dog", "dog", "dog", "rain", "rain", "../x"],
        "predicted": ["dog", "dog", "rain", "dog", "dog", "../x"],
        "p_dog": [0.8, 0.8, 0.1, 0.9, 0.9, 0.0],
        "p_rain": [0.1, 0.1, 0.9, 0.1, 0.1, 0.0],
        "p_../x": [0.1, 0.1, 0.0, 0.0, 0.0, 1.0],
    }
)


def test_of_each_label_the_surest_of_the_clips_that_are_right_is_chosen() -> None:
    assert examples.choose(PREDICTIONS) == {"dog": "a.wav", "../x": "f.wav"}


def test_what_is_saved_comes_back_by_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths.AUDIO.mkdir(parents=True)
    waves = {"a.wav": np.full(800, 0.25), "f.wav": np.full(200_000, -0.5)}
    for name, wave in waves.items():
        soundfile.write(paths.AUDIO / name, wave, 8000)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "of_before.wav").write_bytes(b"")
    examples.save(Path("examples"), PREDICTIONS, 8000)
    assert {p.name for p in Path("examples").iterdir()} == {"0.wav", "dog.wav", "index.json"}
    found = examples.load(Path("examples"), 8000)
    np.testing.assert_allclose(found["dog"].waveform, waves["a.wav"], atol=1e-3)
    assert found["../x"].waveform.size == examples.SECONDS * 8000
    assert (found["../x"].path, found["../x"].recording) == ("f.wav", "6")


def test_examples_of_an_earlier_release_are_read_without_their_source(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "dog.wav", np.full(800, 0.25), 8000)
    (tmp_path / examples.INDEX).write_text('{"dog": "dog.wav"}')
    found = examples.load(tmp_path, 8000)["dog"]
    assert (found.waveform.size, found.path, found.recording) == (800, "", "")


def test_without_a_clip_that_is_right_there_are_no_examples_and_no_error(tmp_path: Path) -> None:
    wrong = PREDICTIONS.assign(predicted="rain")[PREDICTIONS["label"] == "dog"]
    examples.save(tmp_path / "examples", wrong, 8000)
    assert examples.load(tmp_path / "examples", 8000) == {}
