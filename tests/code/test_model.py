import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import model, params
from pipeline.errors import UserError

TRAIN = params.load(Path(__file__).parents[1] / "params.yaml").train


def test_the_ancestors_network_has_its_87674_parameters() -> None:
    assert model.fcn((39, 174), 10, dropout=0.5).count_params() == 87_674


def test_our_network_has_100698_parameters_whatever_the_window() -> None:
    assert model.cnn((64, 216), 10, dropout=0.3).count_params() == 100_698
    assert model.cnn((64, 50), 10, dropout=0.3).count_params() == 100_698


def test_a_wider_network_stays_below_two_million_parameters() -> None:
    widest = params.with_values(TRAIN, {"width": 4.0})
    assert 1_000_000 < model.build(widest, (64, 80), 50).count_params() < 2_000_000
    narrow = params.with_values(TRAIN, {"width": 0.5})
    assert model.build(narrow, (64, 80), 10).count_params() < 30_000


def test_the_ancestors_network_is_not_widened() -> None:
    with pytest.raises(UserError, match=r"train\.width is for cnn"):
        params.with_values(TRAIN, {"network": "fcn", "width": 2.0})


@pytest.mark.parametrize("network", ["cnn", "fcn"])
def test_outputs_are_probabilities(network: params.Network) -> None:
    net = model.build(params.with_values(TRAIN, {"network": network}), (64, 80), 7)
    out = net.predict(np.random.default_rng(0).normal(size=(3, 64, 80, 1)), verbose=0)
    assert out.shape == (3, 7)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)


def test_features_too_small_for_the_network_are_named_in_one_sentence() -> None:
    with pytest.raises(UserError, match="13 bands x 174 frames"):
        model.build(params.with_values(TRAIN, {"network": "fcn"}), (13, 174), 10)


@pytest.mark.parametrize("network", ["cnn", "fcn"])
def test_a_saved_network_loads_without_custom_code(network: params.Network, tmp_path: Path) -> None:
    net = model.build(params.with_values(TRAIN, {"network": network}), (64, 80), 3)
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
