"""What any trained network has to do, whatever its accuracy on a dataset."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import params
from pipeline.data.split import Split, by_fold
from pipeline.errors import UserError
from pipeline.sound import features
from pipeline.sound.features import FeatureSpec
from pipeline.training import fit

RATE = 22050
LABELS = ["hiss", "hum", "whistle"]
SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml")
SPEC = features.make_spec(SETTINGS.features.model_copy(update={"seconds": 1.0}), 1.0)
# without augmentation, because one of the sounds is noise, which it would add to the others
TRAIN = params.with_values(SETTINGS.train, {"epochs": 20, "batch_size": 8, "augment": None})

Wave = NDArray[np.float32]


def sound(label: str, rng: np.random.Generator) -> Wave:
    """Return one second of a sound that is very different from the other two."""
    time = np.arange(RATE) / RATE
    noise = rng.normal(size=RATE)
    if label == "hiss":
        wave = noise
    else:
        pitch = rng.uniform(80, 120) if label == "hum" else rng.uniform(2500, 3500)
        wave = np.sin(2 * np.pi * pitch * time) + 0.05 * noise
    loudness = rng.uniform(0.1, 1) / np.abs(wave).max()
    return np.asarray(wave * loudness, np.float32)


def extract(wave: Wave) -> Wave:
    return features.extract(features.windows(wave, SPEC)[0], SPEC)


def dataset(seed: int = 0) -> tuple[Wave, pd.DataFrame, Split]:
    rng = np.random.default_rng(seed)
    rows = [(label, fold) for fold in (1, 2, 3) for label in LABELS for _ in range(8)]
    index = pd.DataFrame(rows, columns=["label", "fold"])
    index["recording"] = [str(i) for i in range(len(index))]
    array = np.stack([extract(sound(label, rng)) for label, _ in rows])
    return array, index, by_fold(index, test_fold=1)


@pytest.fixture(scope="module")
def trained() -> tuple[fit.Fitted, FeatureSpec]:
    array, index, split = dataset()
    data = fit.prepare(array, index, SPEC, split, LABELS)
    return fit.fit(data, TRAIN, "test"), data.spec


def probabilities(trained: tuple[fit.Fitted, FeatureSpec], wave: Wave) -> Wave:
    fitted, spec = trained
    out = fitted.model.predict(fit.network_input(extract(wave)[np.newaxis], spec), verbose=0)
    return np.asarray(out[0])


def test_very_different_sounds_are_classified_correctly(
    trained: tuple[fit.Fitted, FeatureSpec],
) -> None:
    rng = np.random.default_rng(99)
    for label in LABELS * 5:
        assert LABELS[probabilities(trained, sound(label, rng)).argmax()] == label


@pytest.mark.parametrize("gain", [0.01, 0.3, 30.0])
def test_loudness_changes_nothing(trained: tuple[fit.Fitted, FeatureSpec], gain: float) -> None:
    for label in LABELS:
        wave = sound(label, np.random.default_rng(5))
        louder = (wave * gain).astype(np.float32)
        np.testing.assert_allclose(
            probabilities(trained, louder), probabilities(trained, wave), atol=1e-3
        )


def test_starting_later_does_not_change_the_label(
    trained: tuple[fit.Fitted, FeatureSpec],
) -> None:
    for label in LABELS:
        wave = sound(label, np.random.default_rng(6))
        assert LABELS[probabilities(trained, np.roll(wave, RATE // 3)).argmax()] == label


def test_more_hiss_in_a_hum_is_more_hiss(trained: tuple[fit.Fitted, FeatureSpec]) -> None:
    rng = np.random.default_rng(7)
    hum, hiss = sound("hum", rng), sound("hiss", rng)
    hum, hiss = hum / np.abs(hum).max(), hiss / np.abs(hiss).max()
    amounts = (0.0, 0.3, 3.0, 30.0)
    share = [probabilities(trained, hum + amount * hiss)[0] for amount in amounts]
    assert share[0] < 0.5 < share[-1]
    assert share == sorted(share)


def misleading() -> fit.Data:
    """Return data with wrong validation labels, so that validation gets worse during training."""
    array, index, split = dataset()
    others = dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True))
    index.loc[split.validation, "label"] = index.loc[split.validation, "label"].map(others)
    return fit.prepare(array, index, SPEC, split, LABELS)


def test_the_best_epoch_is_kept_and_not_the_last() -> None:
    data = misleading()
    fitted = fit.fit(data, TRAIN, "test")
    losses = fitted.history["val_log_loss"]
    assert fitted.best["epoch"] < len(losses)
    clips, targets = data.validation
    of_truth = (fit.predict(fitted.model, clips, data.spec) * targets).sum(axis=1)
    kept = -np.log(np.maximum(of_truth, 1e-7)).mean()
    assert kept == pytest.approx(losses.min(), rel=1e-2)


def test_without_a_validation_fold_the_last_epoch_counts_and_all_other_folds_train() -> None:
    array, index, _ = dataset()
    split = by_fold(index, test_fold=1, validate=False)
    assert split.train_folds == (2, 3)
    data = fit.prepare(array, index, SPEC, split, LABELS)
    fitted = fit.fit(data, params.with_values(TRAIN, {"epochs": 2}), "test")
    assert fitted.best["epoch"] == 2
    assert "val_log_loss" not in fitted.history
    assert len(data.train[0]) == 2 * len(array) // 3


def test_training_does_not_depend_on_the_test_fold() -> None:
    array, index, split = dataset()
    before = fit.prepare(array, index, SPEC, split, LABELS)
    spoilt, relabelled = array.copy(), index.copy()
    spoilt[split.test] = 1e6
    relabelled.loc[split.test, "label"] = LABELS[0]
    after = fit.prepare(spoilt, relabelled, SPEC, split, LABELS)
    for (clips, targets), (same_clips, same_targets) in (
        (before.train, after.train),
        (before.validation, after.validation),
    ):
        np.testing.assert_array_equal(clips[:], same_clips[:])
        np.testing.assert_array_equal(targets, same_targets)
    np.testing.assert_array_equal(before.spec.mean, after.spec.mean)
    np.testing.assert_array_equal(before.spec.std, after.spec.std)


def test_features_are_read_from_the_disk_batch_by_batch(tmp_path: Path) -> None:
    array, index, split = dataset()
    np.save(tmp_path / "features.npy", array)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    data = fit.prepare(mapped, index, SPEC, split, LABELS)
    for clips, _ in (data.train, data.validation):
        assert np.shares_memory(clips.array, mapped)
    fitted = fit.fit(data, params.with_values(TRAIN, {"epochs": 2}), "test")
    whole = fit.network_input(array[split.test], data.spec)
    np.testing.assert_array_equal(
        fit.predict(fitted.model, features.Rows(mapped, split.test), data.spec, batch_size=7),
        fitted.model.predict(whole, batch_size=7, verbose=0),
    )


def test_statistics_are_of_the_training_folds_alone() -> None:
    array, index, split = dataset()
    data = fit.prepare(array, index, SPEC, split, LABELS)
    inputs = fit.network_input(data.train[0][:], data.spec)
    np.testing.assert_allclose(inputs.mean(axis=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(inputs.std(axis=(0, 2, 3)), 1, atol=1e-3)
    validation = fit.network_input(data.validation[0][:], data.spec)
    assert np.abs(validation.mean(axis=(0, 2, 3))).max() > 1e-3


def test_patience_ends_a_training_that_gets_no_better() -> None:
    fitted = fit.fit(misleading(), params.with_values(TRAIN, {"epochs": 40, "patience": 2}), "test")
    best = int(fitted.best["epoch"])
    assert len(fitted.history) == best + 2 < 40


def pulsing(rate: float, rng: np.random.Generator) -> Wave:
    """Return three seconds of noise that gets louder and quieter `rate` times per second."""
    time = np.arange(3 * RATE) / RATE
    cycles = rate * rng.uniform(0.97, 1.03) * time + rng.uniform()
    level = 1 + 0.9 * np.sin(2 * np.pi * cycles)
    return np.asarray(0.1 * level * rng.normal(size=len(time)), np.float32)


def test_the_second_stream_classifies_pulses_that_are_too_fast_for_the_convolutions() -> None:
    frames = SETTINGS.features.logmel.model_copy(update={"hop_length": 256})
    spec = features.make_spec(SETTINGS.features.model_copy(update={"logmel": frames}), 3.0)
    rng = np.random.default_rng(0)
    rates = ["29", "34", "39"]
    rows = [(rate, fold) for fold in (1, 2, 3) for rate in rates for _ in range(10)]
    index = pd.DataFrame(rows, columns=["label", "fold"])
    index["recording"] = [str(i) for i in range(len(index))]
    array = np.stack(
        [
            features.extract(features.windows(pulsing(float(rate), rng), spec)[0], spec)
            for rate, _ in rows
        ]
    )
    data = fit.prepare(array, index, spec, by_fold(index, test_fold=1), rates)
    accuracy = {
        network: fit.fit(data, params.with_values(TRAIN, {"network": network}), network).best[
            "val_accuracy"
        ]
        for network in ("two_stream", "cnn")
    }
    assert accuracy["two_stream"] > 0.85
    assert accuracy["cnn"] < accuracy["two_stream"]


def test_an_ensemble_is_one_network_with_the_geometric_mean_of_its_members_predictions() -> None:
    array, index, split = dataset()
    data = fit.prepare(array, index, SPEC, split, LABELS)
    short = params.with_values(TRAIN, {"epochs": 3, "seed": 4})
    inputs = fit.network_input(array[split.test], data.spec)
    joined = fit.fit(data, params.with_values(short, {"ensemble": 2}), "both")
    alone = [
        fit.fit(data, params.with_values(short, {"seed": seed}), "one").model.predict(
            inputs, verbose=0
        )
        for seed in fit.seeds(4, ensemble=2)
    ]
    mean = np.sqrt(alone[0] * alone[1])
    mean /= mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(joined.model.predict(inputs, verbose=0), mean, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_a_loss_that_is_not_a_number_is_one_sentence() -> None:
    array, index, split = dataset()
    data = fit.prepare(array, index, SPEC, split, LABELS)
    _, targets = data.train
    targets[:] = np.nan  # what a step that is far too long makes of all weights
    with pytest.raises(UserError, match=r"The loss of epoch 1 is not a number: lower train\.lea"):
        fit.fit(data, params.with_values(TRAIN, {"epochs": 2}), "diverges")


def test_no_two_ensembles_share_a_network_whatever_their_sizes() -> None:
    used = [seed for first in range(20) for n in (2, 3, 4) for seed in fit.seeds(first, n)]
    assert len(set(used)) == 20 * (2 + 3 + 4)
    assert set(used).isdisjoint(range(20))  # the seeds of single networks


def test_an_ensembles_figures_are_those_of_the_average(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    array, index, split = dataset()
    data = fit.prepare(array, index, SPEC, split, LABELS)
    fitted = fit.fit(data, params.with_values(TRAIN, {"epochs": 2, "ensemble": 2}), "both")
    clips, targets = data.validation
    out = fit.predict(fitted.model, clips, data.spec)
    loss = -np.log((out * targets).sum(axis=1)).mean()
    assert fitted.best["val_log_loss"] == pytest.approx(loss, rel=1e-3)
    assert fitted.best["val_log_loss"] != fitted.history["val_log_loss"].min()
    fitted.model.save(tmp_path / "model.keras")
    keras.saving.load_model(tmp_path / "model.keras")
    assert not [warning for warning in recwarn if "optimizer" in str(warning.message)]


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=50)
def test_a_balanced_epoch_has_equally_many_clips_of_every_class(
    counts: list[int], seed: int
) -> None:
    codes = np.repeat(np.arange(len(counts)), counts)
    rows = fit.balanced(codes, np.random.default_rng(seed))
    assert len(rows) == len(codes)
    drawn = np.bincount(codes[rows], minlength=len(counts))[np.array(counts) > 0]
    assert drawn.max() - drawn.min() <= 1
    for code in np.unique(codes):
        uses = np.bincount(rows, minlength=len(codes))[codes == code]
        assert uses.max() - uses.min() <= 1


def batches_of(targets: np.ndarray, **train: Any) -> list[np.ndarray]:
    """Return the targets of one epoch's batches for clips with these targets."""
    clips = np.random.default_rng(0).uniform(-60, 0, (len(targets), *SPEC.shape))
    array = clips.astype(np.float32)
    example = features.Rows(array, np.arange(len(targets))), targets
    spec = SPEC.with_statistics(*features.statistics(array))
    chosen = params.with_values(SETTINGS.train, {"batch_size": 10, "augment.mix": 1.0, **train})
    batches = fit.Batches(fit.Data(example, example, spec), chosen)
    return [batches[number][1] for number in range(len(batches))]


def test_balance_also_holds_for_the_clips_that_are_mixed_in() -> None:
    targets = np.eye(2, dtype=np.float32)[[0] * 95 + [1] * 5]
    plain, balanced = (
        np.concatenate(batches_of(targets, balance=balance)).mean(axis=0)
        for balance in (False, True)
    )
    assert plain[1] < 0.15
    assert balanced[1] == pytest.approx(0.5, abs=0.1)


def test_a_class_without_validation_clips_trains_and_chooses_an_epoch() -> None:
    array, index, split = dataset()
    missing = split.validation[(index.loc[split.validation, "label"] != LABELS[0]).to_numpy()]
    data = fit.prepare(array, index, SPEC, replace(split, validation=missing), LABELS)
    short = params.with_values(TRAIN, {"epochs": 2, "balance": True})
    assert np.isfinite(fit.fit(data, short, "test").best["val_log_loss"])
