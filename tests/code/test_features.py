"""Features: librosa is the reference, on real clips; properties hold for any sound."""

import dataclasses
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import params
from pipeline.errors import UserError
from pipeline.sound import decoding, features
from pipeline.sound.features import FeatureSpec, extract, make_spec, normalise, statistics, windows

Floats = NDArray[np.float32]

ROOT = Path(__file__).parents[2]
PARAMS = params.load(ROOT / "tests" / "params.yaml").features
KINDS = ("logmel", "mfcc", "stft")


def spec_of(kind: str, seconds: float = 5.0, **changes: Any) -> FeatureSpec:
    """The spec of params.yaml; changes are keys of the kind's section or of `features`."""
    of_kind = {k: v for k, v in changes.items() if k not in params.FeatureParams.model_fields}
    others = {k: v for k, v in changes.items() if k not in of_kind}
    section = {**getattr(PARAMS, kind).model_dump(), **of_kind}
    values = {**PARAMS.model_dump(), **others, "kind": kind, kind: section}
    return make_spec(params.FeatureParams.model_validate(values), seconds)


def librosas(waveform: Floats, spec: FeatureSpec) -> Any:
    """What librosa makes of the waveform."""
    short = {"n_fft": spec.n_fft, "hop_length": spec.hop_length}
    if spec.kind == "stft":
        power = np.abs(librosa.stft(waveform, **short)) ** 2
        return librosa.power_to_db(power, ref=np.max, top_db=spec.top_db)
    mel = {"sr": spec.sample_rate, "n_mels": spec.n_mels, "fmin": spec.fmin, "fmax": spec.fmax}
    if spec.kind == "logmel":
        power = librosa.feature.melspectrogram(y=waveform, **short, **mel)
        return librosa.power_to_db(power, ref=np.max, top_db=spec.top_db)
    mfcc = librosa.feature.mfcc(y=waveform, n_mfcc=spec.n_mfcc, **short, **mel)
    orders = range(1, spec.derivatives + 1)
    return np.concatenate([mfcc, *(librosa.feature.delta(mfcc, order=order) for order in orders)])


@pytest.fixture(scope="module")
def clips(esc10: Path) -> list[Floats]:
    """A real clip of every class."""
    folders = sorted(folder for folder in esc10.iterdir() if folder.is_dir())
    return [decoding.load(min(folder.glob("*.ogg")), PARAMS.sample_rate) for folder in folders]


def noise(samples: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("logmel", {}),
        ("logmel", {"fmin": 50.0, "fmax": 8000.0, "n_mels": 40, "top_db": 60.0}),
        ("logmel", {"n_fft": 1023, "hop_length": 441}),
        ("mfcc", {"derivatives": 0}),
        ("mfcc", {"derivatives": 1}),
        ("mfcc", {"derivatives": 2}),
        ("mfcc", {"derivatives": 0, "n_mfcc": 40, "n_fft": 1024, "n_mels": 64}),
        ("stft", {}),
        ("stft", {"n_fft": 1024, "hop_length": 256, "top_db": 60.0}),
    ],
)
def test_every_kind_is_what_librosa_computes(
    clips: list[Floats], kind: str, changes: dict[str, Any]
) -> None:
    spec = spec_of(kind, **changes)
    for clip in clips:
        window = windows(clip, spec)[0]
        ours = extract(window, spec)
        assert ours.dtype == np.float32
        assert ours.shape == spec.shape
        # dB or coefficients of tens of dB; librosa transforms in float64, ours is float32
        np.testing.assert_allclose(ours, librosas(window, spec), rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_clip_and_silence_are_what_librosa_computes(kind: str) -> None:
    spec = spec_of(kind, seconds=1.0)
    for waveform in (noise(3000), np.zeros(10, np.float32)):
        window = windows(waveform, spec)[0]
        np.testing.assert_allclose(extract(window, spec), librosas(window, spec), rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_has_the_same_bits_alone_and_among_threads(clips: list[Floats], kind: str) -> None:
    spec = spec_of(kind)
    cut = [windows(clip, spec)[0] for clip in clips] * 3
    alone = [extract(window, spec) for window in cut]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda window: extract(window, spec), cut))
    np.testing.assert_array_equal(together, alone)


def test_training_and_service_need_numpy_and_scipy_only(tmp_path: Path) -> None:
    spec = spec_of("mfcc", seconds=0.5)
    spec.save(tmp_path / "spec.npz")
    np.save(tmp_path / "wave.npy", noise(spec.samples))
    program = """
import sys
from pathlib import Path
for name in ("librosa", "pandas", "pydantic", "sklearn", "numba", "soundfile", "scipy.signal"):
    sys.modules[name] = None
import numpy as np
from pipeline.sound.features import FeatureSpec, extract, windows
folder = Path(sys.argv[1])
spec = FeatureSpec.load(folder / "spec.npz")
window = windows(np.load(folder / "wave.npy"), spec)[0]
np.save(folder / "out.npy", extract(window, spec))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=ROOT)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), extract(noise(spec.samples), spec))


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_survives_saving_and_equal_specs_give_equal_bytes(kind: str, tmp_path: Path) -> None:
    paths = [tmp_path / "spec.npz", tmp_path / "again"]
    for path in paths:
        spec = spec_of(kind)
        spec.with_statistics(np.arange(spec.shape[0]), np.ones(spec.shape[0])).save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()

    loaded = FeatureSpec.load(paths[0])
    assert loaded.to_dict() == spec.to_dict()
    assert loaded.shape == spec.shape
    assert loaded.mean is not None
    np.testing.assert_array_equal(loaded.mean, np.arange(spec.shape[0]))
    window = noise(spec.samples)
    np.testing.assert_array_equal(extract(window, loaded), extract(window, spec))


def test_a_spec_of_an_earlier_release_gets_the_usual_minimum_length(tmp_path: Path) -> None:
    spec = make_spec(PARAMS, 1.0)
    assert (spec.min_seconds, spec.to_dict()["min_seconds"]) == (0.05, 0.05)
    settings = {key: value for key, value in spec.to_dict().items() if key != "min_seconds"}
    np.savez(tmp_path / "old.npz", settings=np.array(json.dumps(settings)), window=spec.window)
    assert FeatureSpec.load(tmp_path / "old.npz").min_seconds == 0.05


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_spec_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "spec.npz"
    with pytest.raises(UserError, match=r"spec\.npz is missing"):
        FeatureSpec.load(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"spec\.npz is not a feature spec"):
        FeatureSpec.load(path)
    with path.open("wb") as file:
        np.savez(file, window=np.ones(3))
    with pytest.raises(UserError, match=r"spec\.npz is not a feature spec"):
        FeatureSpec.load(path)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("logmel", {"fmax": 12000.0}, r"features\.logmel\.fmax is 12000 Hz.*11025 Hz"),
        ("mfcc", {"fmin": 8000.0, "fmax": 4000.0}, r"features\.mfcc\.fmin is 8000 Hz"),
        ("logmel", {"n_mels": 400}, r"features\.logmel\.n_mels is 400, and \d+ of the bands"),
        ("stft", {"seconds": 0.01}, r"features\.stft\.n_fft is 512, .* 220 samples"),
        ("mfcc", {"seconds": 0.15}, r"features\.mfcc\.derivatives is 2, .* has 7:"),
    ],
)
def test_settings_that_cannot_work_are_named(
    kind: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        spec_of(kind, **changes)


def test_the_window_is_the_datasets_clip_unless_its_length_is_set() -> None:
    assert spec_of("logmel", seconds=4.0).samples == 88200
    assert make_spec(PARAMS, 5.0).samples == 110250


def test_short_waveforms_are_padded_and_long_ones_cut() -> None:
    spec = spec_of("logmel", longer="cut", seconds=1.0)
    short, long = noise(100), noise(3 * spec.samples)
    padded = windows(short, spec)
    assert padded.shape == (1, spec.samples)
    np.testing.assert_array_equal(padded[0, :100], short)
    assert not padded[0, 100:].any()
    np.testing.assert_array_equal(windows(long, spec), long[None, : spec.samples])


@pytest.mark.parametrize(("lengths", "count"), [(0.2, 1), (1.0, 1), (1.4, 1), (1.6, 2), (3.5, 4)])
def test_splitting_drops_a_last_piece_shorter_than_half_a_window(
    lengths: float, count: int
) -> None:
    spec = spec_of("logmel", longer="split", seconds=1.0)
    waveform = noise(round(lengths * spec.samples))
    split = windows(waveform, spec)
    assert split.shape == (count, spec.samples)
    kept = min(waveform.size, split.size)
    np.testing.assert_array_equal(split.ravel()[:kept], waveform[:kept])
    assert not split.ravel()[kept:].any()


def test_a_waveform_that_is_not_one_window_is_refused() -> None:
    spec = spec_of("logmel", seconds=1.0)
    with pytest.raises(ValueError, match="22050 samples"):
        extract(noise(100), spec)


SMALL = {kind: spec_of(kind, seconds=0.3) for kind in KINDS}
QUICKLY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def waveforms(draw: st.DrawFn) -> Floats:
    """Any length from 1, any level that the decoder lets through, with odd single samples."""
    samples = draw(st.integers(1, 20_000))
    level = draw(st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e6]))
    waveform = noise(samples, draw(st.integers(0, 1000))) * np.float32(level)
    odd = draw(st.lists(st.floats(-1e6, 1e6, width=32), max_size=5))
    waveform[: len(odd)] = odd[:samples]
    return waveform


@pytest.mark.parametrize("kind", KINDS)
@QUICKLY
@given(waveform=waveforms())
def test_features_of_any_sound_are_finite(kind: str, waveform: Floats) -> None:
    spec = SMALL[kind]
    for window in windows(waveform, spec):
        values = extract(window, spec)
        assert values.shape == spec.shape
        assert np.isfinite(values).all()


@pytest.mark.parametrize("kind", ["logmel", "stft"])
@QUICKLY
@given(seed=st.integers(0, 1000), gain=st.floats(0.01, 1000))
def test_gain_does_not_matter_in_decibels_below_the_peak(kind: str, seed: int, gain: float) -> None:
    spec = SMALL[kind]
    window = noise(spec.samples, seed)
    louder = extract(window * np.float32(gain), spec)
    # Near the floor, rounding moves a bin by whole decibels: what is equal is the amplitude.
    for_one, for_other = (10 ** (values / 20) for values in (louder, extract(window, spec)))
    np.testing.assert_allclose(for_one, for_other, rtol=2e-3, atol=2e-4)
    assert louder.max() == 0
    assert louder.min() >= -spec.top_db


@QUICKLY
@given(rows=st.integers(1, 40), seed=st.integers(0, 1000), mean=st.floats(-1e4, 1e4))
def test_statistics_are_those_of_numpy(rows: int, seed: int, mean: float) -> None:
    array = (noise(rows * 3 * 7, seed).reshape(rows, 3, 7) + mean).astype(np.float32)
    got_mean, got_std = statistics(array)
    np.testing.assert_allclose(got_mean, array.mean(axis=(0, 2), dtype=np.float64))
    np.testing.assert_allclose(got_std, array.std(axis=(0, 2), dtype=np.float64), rtol=1e-6)


def test_statistics_of_a_memory_map_larger_than_a_chunk(tmp_path: Path) -> None:
    array = noise((2 * features.CHUNK + 5) * 4 * 3).reshape(-1, 4, 3)
    np.save(tmp_path / "features.npy", array)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    rows = np.arange(1, len(array), 2)
    for got, expected in zip(statistics(mapped, rows), statistics(array[rows]), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_band_that_does_not_vary_is_not_blown_up() -> None:
    array = noise(5 * 2 * 8).reshape(5, 2, 8)
    array[:, 1] = -80
    mean, std = statistics(array)
    assert mean[1] == -80
    assert std[1] == 1


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no windows"):
        statistics(np.empty((0, 2, 3), np.float32))


def test_standardised_bands_have_zero_mean_and_unit_deviation() -> None:
    spec = spec_of("logmel", seconds=0.3)
    array = np.stack([extract(noise(spec.samples, seed), spec) for seed in range(10)])
    normal = normalise(array, spec.with_statistics(*statistics(array)))
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal.mean(axis=(0, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=(0, 2)), 1, atol=1e-4)
    with pytest.raises(ValueError, match="no statistics"):
        normalise(array, spec)


def test_without_standardising_features_stay_as_they_are() -> None:
    spec = spec_of("logmel", seconds=0.3, standardise=False)
    array = extract(noise(spec.samples), spec)
    np.testing.assert_array_equal(normalise(array, spec), array)


@given(
    st.lists(st.integers(0, 5000), max_size=6), st.sampled_from(["cut", "split"]), st.integers(0, 9)
)
@settings(deadline=None, max_examples=60)
def test_a_waveform_in_blocks_gives_the_windows_of_the_whole(
    sizes: list[int], longer: str, seed: int
) -> None:
    spec = dataclasses.replace(spec_of("logmel"), sample_rate=1000, seconds=1, longer=longer)
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(size=size).astype(np.float32) for size in sizes]
    whole = np.concatenate([np.empty(0, np.float32), *blocks])
    count = 1 if longer == "cut" else max(1, (whole.size + 500) // 1000)
    padded = np.pad(whole, (0, 1000))[: count * 1000]
    streamed = np.stack(list(features.window_stream(blocks, spec)))
    np.testing.assert_array_equal(streamed, padded.reshape(count, 1000))
    np.testing.assert_array_equal(features.windows(whole, spec), streamed)
