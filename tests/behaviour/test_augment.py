"""Augmentation changes what it should in a training clip, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import params
from pipeline.params import AugmentParams
from pipeline.sound import audition, augment, features
from pipeline.training import fit

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml")
SPEC = features.make_spec(SETTINGS.features.model_copy(update={"seconds": 1.0}), 1.0)
NOTHING: dict[str, Any] = {
    "shift": False, "speed": 0.0, "mix": 0.0, "equaliser": 0.0, "noise": 0.0,
    "time_mask": 0.0, "frequency_mask": 0.0, "gain": 0.0,
}  # fmt: skip
ALL = SETTINGS.train.augment
RATE = SPEC.sample_rate

Floats = NDArray[np.float32]


def tone(hertz: float, start: float = 0.0) -> Floats:
    """Extract features of a second of silence in which a tone begins after `start` seconds."""
    time = np.arange(RATE) / RATE
    wave = np.where(time >= start, np.sin(2 * np.pi * hertz * time), 0)
    return features.extract(wave.astype(np.float32), SPEC)


CLIPS = np.stack([tone(hertz, start) for hertz, start in ((500, 0), (1000, 0.5), (4000, 0.2))])
TARGETS = np.eye(3, dtype=np.float32)


def made(seed: int = 0, rows: Any = (1,), **only: Any) -> tuple[Floats, Floats]:
    """Make examples with only the augmentations `only`."""
    chosen = AugmentParams(**{**NOTHING, **only})
    rng = np.random.default_rng(seed)
    return augment.examples(CLIPS, TARGETS, np.array(rows), SPEC, chosen, rng)


def loudest(clip: Floats) -> tuple[int, int]:
    """Band and frame of the peak."""
    band, frame = np.unravel_index(clip.argmax(), clip.shape)
    return int(band), int(frame)


def test_without_any_augmentation_examples_equal_their_clips() -> None:
    clips, targets = made(rows=(0, 1, 2))
    np.testing.assert_allclose(clips, CLIPS, atol=1e-3)
    np.testing.assert_array_equal(targets, TARGETS)


def test_a_shift_wraps_around_and_loses_no_frame() -> None:
    (clip,), _ = made(shift=True)
    turns = [np.allclose(np.roll(clip, n, axis=1), CLIPS[1], atol=1e-3) for n in range(44)]
    assert sum(turns) == 1
    assert not turns[0]


def test_faster_is_higher_and_slower_is_lower() -> None:
    pitches = []
    for seed in range(20):
        (clip,), _ = made(seed=seed, speed=0.5)
        band, _ = loudest(clip)
        pitches.append(SPEC.centres[band])
        begins = int((clip.max(axis=0) > -40).argmax())  # at frame 20 of the clip as it is
        assert begins * pitches[-1] == pytest.approx(20 * 1000, rel=0.15)
    assert min(pitches) < 750
    assert max(pitches) > 1350
    assert all(1000 / 1.6 < pitch < 1000 * 1.6 for pitch in pitches)


def test_a_mixture_holds_both_sounds_and_its_labels_say_how_much() -> None:
    seen = set()
    for seed in range(30):
        (clip,), (target,) = made(seed=seed, rows=(0,), mix=1.0)
        assert target.sum() == pytest.approx(1, abs=1e-6)
        other = int(target[1:].argmax()) + 1
        if 0.1 < target[0] < 0.9:
            seen.add(other)
            levels = [clip[loudest(CLIPS[i])] for i in (0, other)]
            expected = 20 * np.log10(target[0] / target[other])
            assert levels[0] - levels[1] == pytest.approx(expected, abs=1.5)
    assert seen == {1, 2}


def test_a_filter_changes_bands_and_not_when_they_sound() -> None:
    hiss = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    clips = features.extract(hiss, SPEC)[np.newaxis]
    chosen = AugmentParams(**{**NOTHING, "equaliser": 6.0})
    for seed in range(5):
        rng = np.random.default_rng(seed)
        (clip,), _ = augment.examples(clips, TARGETS[:1], np.array([0]), SPEC, chosen, rng)
        change = clip - clips[0]
        assert np.ptp(change, axis=1).max() < 0.1
        assert 1 < np.ptp(change) < 12.1


def test_noise_fills_silence_and_keeps_the_peak() -> None:
    levels = []
    for seed in range(10):
        (clip,), _ = made(seed=seed, noise=1.0)
        assert abs(loudest(clip)[0] - loudest(CLIPS[1])[0]) <= 1
        levels.append(np.median(clip[:, :15]))
    assert np.median(CLIPS[1][:, :15]) == -80
    assert max(levels) > -60


@pytest.mark.parametrize(("key", "axis"), [("time_mask", 1), ("frequency_mask", 0)])
def test_a_mask_silences_at_most_its_share(key: str, axis: int) -> None:
    widths = []
    for seed in range(20):
        (clip,), _ = made(seed=seed, rows=(0,), **{key: 0.2})
        widths.append(int((np.abs(clip - CLIPS[0]) > 1e-3).any(axis=1 - axis).sum()))
    assert 0 < max(widths) <= 0.2 * CLIPS.shape[1 + axis]


def test_an_augmented_clip_has_the_peak_and_the_floor_of_a_clip() -> None:
    assert ALL
    quiet = ALL.model_copy(update={"gain": 0.0, "frequency_mask": 0.0, "time_mask": 0.0})
    rows = np.arange(3).repeat(20)
    clips, _ = augment.examples(CLIPS, TARGETS, rows, SPEC, quiet, np.random.default_rng(0))
    np.testing.assert_allclose(clips.max(axis=(1, 2)), 0, atol=1e-4)
    assert clips.min() >= -SPEC.top_db
    assert np.isfinite(clips).all()


def test_cepstral_coefficients_are_moved_and_masked_in_time_alone() -> None:
    assert ALL
    everything = ALL.model_copy(update={"mix": 1.0, "noise": 1.0, "time_mask": 0.0})
    clips = np.random.default_rng(0).normal(size=(3, 39, 44)).astype(np.float32)
    made, targets = augment.examples(
        clips, TARGETS, np.arange(3), replace(SPEC, kind="mfcc"), everything,
        np.random.default_rng(1),
    )  # fmt: skip
    np.testing.assert_array_equal(targets, TARGETS)
    for before, after in zip(clips, made, strict=True):
        assert {frame.tobytes() for frame in after.T} <= {frame.tobytes() for frame in before.T}


def test_the_centre_of_each_filter_is_the_frequency_of_its_band() -> None:
    assert (np.diff(SPEC.centres) > 0).all()
    for hertz in (500, 1000, 4000):
        band, _ = loudest(tone(hertz))
        assert abs(SPEC.centres[band] - hertz) < 0.06 * hertz


def data(spec: features.FeatureSpec = SPEC) -> fit.Data:
    spec = spec.with_statistics(*features.statistics(CLIPS))
    clips = features.Rows(CLIPS, np.arange(len(CLIPS)))
    return fit.Data((clips, TARGETS), (clips, TARGETS), spec)


def epochs(**train: Any) -> list[list[fit.Example]]:
    """The batches of two epochs."""
    batches = fit.Batches(data(), params.with_values(SETTINGS.train, {"batch_size": 2, **train}))
    out = []
    for _ in range(2):
        out.append([batches[i] for i in range(len(batches))])
        batches.on_epoch_end()
    return out


def test_a_seed_repeats_its_batches_and_each_epoch_has_different_ones() -> None:
    one, again, other = epochs(seed=1), epochs(seed=1), epochs(seed=2)
    for (x, y), (same, label) in zip(one[0] + one[1], again[0] + again[1], strict=True):
        np.testing.assert_array_equal(x, same)
        np.testing.assert_array_equal(y, label)
    assert not np.array_equal(one[0][0][0], one[1][0][0])
    assert not np.array_equal(one[0][0][0], other[0][0][0])


def test_without_augmentation_an_epoch_is_every_clip_once_with_its_label() -> None:
    clips = features.normalise(CLIPS, data().spec)
    expected = sorted(
        (clip.tolist(), label.tolist()) for clip, label in zip(clips, TARGETS, strict=True)
    )
    for epoch in epochs(augment=None):
        seen = [
            (x.tolist(), y.tolist())
            for xs, ys in epoch
            for x, y in zip(xs[..., 0], ys, strict=True)
        ]
        assert sorted(seen) == expected


def test_without_augmentation_the_unchanged_clip_is_shown() -> None:
    ((title, clip),) = audition.variants(CLIPS, ["a", "b", "c"], 1, SPEC, None, count=2)
    assert title == "b, unchanged: no augmentation"
    np.testing.assert_array_equal(clip, CLIPS[1])
    assert len(audition.draw([(title, clip)], SPEC).axes) == 2  # with the scale's


def test_augmented_clips_are_shown_and_heard() -> None:
    assert ALL
    versions = audition.variants(CLIPS, ["a", "b", "c"], 1, SPEC, ALL, count=2)
    assert versions[0][0] == "b, unchanged"
    assert len(audition.draw(versions, SPEC).axes) == 4
    wave = audition.sound(CLIPS[1], SPEC)
    assert wave.shape == (SPEC.samples,)
    assert np.abs(np.fft.rfft(wave)).argmax() == pytest.approx(1000, rel=0.06)
