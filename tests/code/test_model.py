import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import params
from pipeline.data import preflight
from pipeline.errors import UserError
from pipeline.sound import networks
from pipeline.training import calibration

TRAIN = params.load(Path(__file__).parents[1] / "params.yaml").train


def test_fcn_has_its_87674_parameters() -> None:
    assert networks.fcn((39, 174), 10, dropout=0.5).count_params() == 87_674


def test_the_first_stream_alone_has_100698_parameters_whatever_the_window() -> None:
    assert networks.cnn((64, 216), 10, dropout=0.3).count_params() == 100_698
    assert networks.cnn((64, 50), 10, dropout=0.3).count_params() == 100_698


def test_the_number_of_trained_parameters_does_not_depend_on_the_window() -> None:
    for shape in ((64, 216), (64, 50)):
        trained = networks.two_stream(shape, 10, dropout=0.3).trainable_variables
        assert sum(int(np.prod(variable.shape)) for variable in trained) == 204_140


@pytest.mark.parametrize("network", ["two_stream", "cnn"])
def test_the_widest_network_stays_below_two_million_parameters(network: params.Network) -> None:
    widest = params.with_values(TRAIN, {"network": network, "width": 3.0})
    assert 800_000 < networks.build(widest, (64, 431), 50).count_params() < 2_000_000
    narrow = params.with_values(widest, {"width": 0.5})
    assert networks.build(narrow, (64, 80), 10).count_params() < 100_000


@pytest.mark.parametrize("frames", [862, 2584, 5168])
def test_a_long_window_makes_the_network_no_larger(frames: int) -> None:
    assert networks.build(TRAIN, (64, frames), 10).count_params() < 550_000


def test_an_ensemble_of_too_many_parameters_is_one_sentence() -> None:
    both = params.with_values(TRAIN, {"width": 3.0, "ensemble": 2})
    with pytest.raises(
        UserError, match=r"more than 2,000,000: lower train\.ensemble or train\.width"
    ):
        networks.build(both, (64, 431), 10)


def test_fcn_cannot_be_widened() -> None:
    with pytest.raises(UserError, match=r"train\.width must be 1"):
        params.with_values(TRAIN, {"network": "fcn", "width": 2.0})


@pytest.mark.parametrize("network", preflight.SMALLEST)
def test_the_smallest_features_of_a_network_are_known_without_keras(
    network: params.Network,
) -> None:
    bands, frames = preflight.SMALLEST[network]
    train = params.with_values(TRAIN, {"network": network})
    networks.build(train, (bands, frames), 3)
    for smaller in ((bands - 1, frames), (bands, frames - 1)):
        with pytest.raises(UserError, match="needs larger features"):
            networks.build(train, smaller, 3)


@pytest.mark.parametrize("network", ["two_stream", "cnn", "fcn"])
def test_outputs_are_probabilities(network: params.Network) -> None:
    net = networks.build(params.with_values(TRAIN, {"network": network}), (64, 80), 7)
    out = net.predict(np.random.default_rng(0).normal(size=(3, 64, 80, 1)), verbose=0)
    assert out.shape == (3, 7)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)


def test_features_too_small_for_the_network_are_named_in_one_sentence() -> None:
    with pytest.raises(UserError, match="13 bands x 174 frames"):
        networks.build(params.with_values(TRAIN, {"network": "fcn"}), (13, 174), 10)


@pytest.mark.parametrize("network", ["two_stream", "cnn", "fcn"])
def test_a_saved_network_loads_without_custom_code(network: params.Network, tmp_path: Path) -> None:
    net = networks.build(params.with_values(TRAIN, {"network": network}), (64, 80), 3)
    path = tmp_path / "model.keras"
    net.save(path)
    with zipfile.ZipFile(path) as archive:
        modules = {
            layer["module"] for layer in json.loads(archive.read("config.json"))["config"]["layers"]
        }
    assert all(module.startswith("keras") for module in modules)
    x = np.ones((1, 64, 80, 1), np.float32)
    np.testing.assert_array_equal(
        keras.saving.load_model(path).predict(x, verbose=0), net.predict(x, verbose=0)
    )


def test_an_ensemble_is_saved_and_loads_without_custom_code(tmp_path: Path) -> None:
    joined = networks.average([networks.build(TRAIN, (64, 80), 3) for _ in range(2)])
    joined.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 64, 80, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "model.keras").predict(x, verbose=0),
        joined.predict(x, verbose=0),
    )


def test_the_largest_ensemble_can_be_averaged_and_still_has_a_last_layer_to_calibrate() -> None:
    joined = networks.average([networks.build(TRAIN, (64, 431), 50) for _ in range(4)])
    assert joined.count_params() < 2_000_000
    before = joined.predict(np.ones((1, 64, 431, 1)), verbose=0)
    calibration.build_in(joined, 2.0)
    after = joined.predict(np.ones((1, 64, 431, 1)), verbose=0)
    np.testing.assert_allclose(after, calibration.soften(before, 2.0), atol=1e-5)


def test_a_window_too_short_for_rates_is_named_in_one_sentence() -> None:
    with pytest.raises(UserError, match="64 bands x 5 frames"):
        networks.build(TRAIN, (64, 5), 10)


FRAMES = 216


def modulation(levels: np.ndarray) -> np.ndarray:
    """Modulation spectra (bands, rates) of levels (bands, frames)."""
    inputs = keras.Input((*levels.shape, 1))
    spectrum = keras.Model(inputs, networks.modulation_spectrum(inputs))
    return np.asarray(spectrum(levels[None, ..., None].astype(np.float32)))[0, ..., 0]


def test_a_long_windows_modulation_is_the_average_of_its_pieces() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(32, 300)) for _ in range(2))
    both = modulation(np.hstack([one, other, rng.normal(size=(32, 1))]))  # one frame too many
    mean = (np.exp(modulation(one)) + np.exp(modulation(other))) / 2
    np.testing.assert_allclose(np.exp(both), mean, rtol=1e-4)


def wave(cycles: float, start: float = 0.0) -> np.ndarray:
    """The level of a band that goes up and down so often in the window."""
    return np.sin(2 * np.pi * (cycles * np.arange(FRAMES) / FRAMES + start))


def test_a_band_shows_at_the_rate_at_which_it_goes_up_and_down() -> None:
    rates = np.geomspace(2, FRAMES // 2, networks.RATES)
    cycles = [3.0, 8.0, 20.0, 55.0, 100.0]
    found = modulation(np.stack([wave(cycle) for cycle in cycles])).argmax(axis=1)
    np.testing.assert_array_equal(
        found, [np.abs(np.log(rates / cycle)).argmin() for cycle in cycles]
    )


@given(
    cycles=st.floats(4, 100),
    start=st.floats(0, 1),
    level=st.floats(-80, 80),
)
@settings(max_examples=25, deadline=None)
def test_where_a_rhythm_starts_and_how_loud_it_is_does_not_matter(
    cycles: float, start: float, level: float
) -> None:
    both = modulation(np.stack([wave(cycles), wave(cycles, start) + level]))
    heard = both.max(axis=1) - 5  # what lies far below are the window's side lobes
    np.testing.assert_allclose(
        np.maximum(both[0], heard[0]), np.maximum(both[1], heard[0]), atol=0.6
    )


def test_the_squares_of_the_transform_sum_to_the_variance() -> None:
    fourier, _ = networks.modulation_weights(FRAMES)
    noise = np.random.default_rng(0).normal(size=(4000, FRAMES))
    power = ((noise @ fourier) ** 2).sum(axis=1).mean()
    # The mean and one cycle a window, with what Hann's window spreads there, are left out.
    assert power == pytest.approx(1, abs=0.03)


def test_no_rate_is_without_a_frequency() -> None:
    for frames in (6, 17, 50, FRAMES, 862):
        _, triangles = networks.modulation_weights(frames)
        assert (triangles.sum(axis=0) > 0).all()


def test_a_clip_of_digital_silence_has_a_finite_spectrum() -> None:
    assert np.isfinite(modulation(np.zeros((3, FRAMES)))).all()
