"""Calibration: temperature, calibration error, and abstention."""

import numpy as np
import pandas as pd
import pytest

from pipeline.training import calibration


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def honest(clips: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, and classes drawn with exactly their probabilities."""
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=spread, size=(clips, 5))
    chances = softmax(logits).cumsum(axis=1)
    return logits, (rng.random((clips, 1)) > chances).sum(axis=1).clip(max=4)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_of_an_overconfident_or_underconfident_network_is_found(
    true: float,
) -> None:
    logits, codes = honest(4000)
    found = calibration.fit_temperature(softmax(logits * true), codes)
    assert found == pytest.approx(true, rel=0.1)


def test_a_temperature_changes_no_predicted_label_and_is_undone_by_its_inverse() -> None:
    probabilities = softmax(honest(50)[0])
    softened = calibration.soften(probabilities, 2.5)
    assert (softened.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert (softened.max(axis=1) < probabilities.max(axis=1)).all()
    np.testing.assert_allclose(calibration.soften(softened, 1 / 2.5), probabilities, atol=1e-9)


def test_a_fold_without_mistakes_does_not_make_the_network_overconfident() -> None:
    logits, _ = honest(40)
    codes = logits.argmax(axis=1)
    temperature = calibration.fit_temperature(softmax(logits), codes)
    assert calibration.RANGE[0] * 1.5 < temperature < 1
    assert calibration.soften(softmax(logits), temperature).max(axis=1).min() < 0.9


@pytest.mark.parametrize("network", ["two_stream", "cnn", "fcn"])
def test_the_temperature_is_built_into_the_network(network: str) -> None:
    from pipeline.sound import networks

    build = {"two_stream": networks.two_stream, "cnn": networks.cnn, "fcn": networks.fcn}[network]
    made = build((39, 87), 5, 0.1)
    clips = np.random.default_rng(0).normal(size=(6, 39, 87, 1)).astype(np.float32)
    before = made.predict(clips, verbose=0)
    calibration.build_in(made, 2.5)
    np.testing.assert_allclose(
        made.predict(clips, verbose=0), calibration.soften(before, 2.5), atol=1e-5
    )


def test_the_calibration_error_is_the_mean_distance_weighted_by_clips() -> None:
    bins = pd.DataFrame({"confidence": [0.6, 0.95], "accuracy": [0.8, 0.9], "clips": [10, 30]})
    assert calibration.calibration_error(bins) == pytest.approx((0.2 * 10 + 0.05 * 30) / 40)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95, 1.0])
def test_the_threshold_leaves_the_coverage_that_was_asked_for(coverage: float) -> None:
    confidence = np.random.default_rng(0).random(73)
    kept = (confidence >= calibration.threshold(confidence, coverage)).mean()
    assert coverage <= kept <= coverage + 2 / 73


def test_the_trade_off_is_true_at_every_threshold() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.integers(1, 12, 40) / 12  # many have the same confidence
    right = rng.random(40) < confidence
    table = calibration.trade_off(confidence, right)
    assert table["threshold"].tolist() == sorted(set(confidence))
    for threshold, coverage, accuracy in table.to_numpy():
        kept = confidence >= threshold
        assert coverage == pytest.approx(kept.mean())
        assert accuracy == pytest.approx(right[kept].mean())
