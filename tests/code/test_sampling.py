"""Other sampling settings are proposed where the clips leave much of the spectrum empty."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from ruamel.yaml import YAML

from pipeline import params
from pipeline.params import FeatureParams
from pipeline.sound import sampling
from pipeline.sound.features import make_spec

SHIPPED = Path(__file__).parents[2] / "params.yaml"


def noise(rate: int, seed: int = 0) -> np.ndarray:
    """Two seconds of sound that reaches up to half the sample rate."""
    return np.random.default_rng(seed).normal(0, 0.1, 2 * rate)


def clips(folder: Path, recorded: int, saved: int, count: int = 5) -> list[Path]:
    """Clips recorded at one sample rate and saved at another."""
    files = [folder / f"{number}.wav" for number in range(count)]
    for number, file in enumerate(files):
        soundfile.write(file, soxr.resample(noise(recorded, number), recorded, saved), saved)
    return files


def settings(**changes: object) -> FeatureParams:
    shipped = params.load(SHIPPED).features
    return FeatureParams.model_validate(shipped.model_dump() | changes)


def remarks(files: list[Path], chosen: FeatureParams) -> list[str]:
    return sampling.remarks(files, chosen, make_spec(chosen, 2.0), 2.0)


def test_a_window_that_is_mostly_padding_gets_a_proposal(tmp_path: Path) -> None:
    files = clips(tmp_path, 22_050, 22_050)
    (remark,) = remarks(files, settings(seconds=4.0))
    assert "The clips are 2 s long, but a window has 4 s" in remark
    assert "`dvc exp run -S features.seconds=null`" in remark
    assert remarks(files, settings(seconds=3.0)) == remarks(files, settings(seconds=1.0)) == []


@pytest.mark.parametrize("saved", [8_000, 44_100])
@pytest.mark.parametrize("kind", ["logmel", "mfcc", "stft"])
def test_telephone_speech_gets_a_proposal_that_is_valid_and_then_fits(
    tmp_path: Path, saved: int, kind: str
) -> None:
    files = clips(tmp_path, 8_000, saved)
    (remark,) = remarks(files, settings(kind=kind))
    assert "nothing above 4.0 kHz" in remark or "nothing above 3.9 kHz" in remark
    command = re.findall("`(.*?)`", remark)[0]
    assert command.startswith("dvc exp run -S features.sample_rate=8000 -S ")

    values = YAML(typ="safe").load(SHIPPED.read_text())
    values["features"]["kind"] = kind
    for option in shlex.split(command)[4::2]:
        key, value = option.split("=")
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        assert last in section
        section[last] = YAML(typ="safe").load(value)
    (tmp_path / "params.yaml").write_text("")
    YAML().dump(values, tmp_path / "params.yaml")
    assert remarks(files, params.load(tmp_path / "params.yaml").features) == []


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_nothing_is_proposed_where_the_settings_fit(tmp_path: Path, rate: int) -> None:
    assert remarks(clips(tmp_path, rate, rate), settings()) == []


def test_nothing_is_proposed_for_the_real_esc10(esc10: Path) -> None:
    assert remarks(sorted(esc10.glob("*/*.ogg"))[::20], settings()) == []


def test_a_few_narrow_clips_among_wide_ones_do_not_decide(tmp_path: Path) -> None:
    (tmp_path / "narrow").mkdir()
    files = clips(tmp_path / "narrow", 8_000, 8_000, 4) + clips(tmp_path, 44_100, 44_100, 4)
    assert remarks(files, settings()) == []


def test_a_lower_end_of_the_bands_is_proposed_where_no_usual_rate_is_close(tmp_path: Path) -> None:
    files = clips(tmp_path, 4_000, 44_100)
    (remark,) = remarks(files, settings())
    assert "-S features.sample_rate=8000" in remark
    assert re.search(r"-S features\.logmel\.fmax=2[01]00\.0`", remark)


def test_silence_and_the_shortest_clips_are_measured(tmp_path: Path) -> None:
    for number, wave in enumerate((np.zeros(4), noise(8_000)[:3], np.zeros(8_000))):
        soundfile.write(tmp_path / f"{number}.wav", wave, 8_000)
    assert sampling.bandwidth(np.zeros(5, np.float32), 8_000, 80.0) == 0
    remarks(sorted(tmp_path.glob("*.wav")), settings())
