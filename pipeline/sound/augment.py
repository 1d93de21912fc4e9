"""Augmentation of training clips: features in, a slightly different clip's features out.

All of it happens on features in decibels, where a filter is a sum, a mixture a sum of powers, and
a change of speed a shift along bands and frames. That costs little beside a training step, so every
epoch hears other clips, and nothing has to be computed beforehand or kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.params import AugmentParams
    from pipeline.sound.features import FeatureSpec

    Floats = NDArray[np.float32]

POWER = np.float32(np.log(10) / 10)
"""Decibels times this is the natural logarithm of power."""

QUIETEST, LOUDEST = -80.0, -30.0
"""Level of added noise in dB below the clip's peak, from no matter to clearly audible."""

TILT = 20.0
"""Noise is at most so many dB louder, or quieter, in its highest band than in its lowest."""

CURVES = (1, 5)
"""Least and most straight pieces that a filter's curve is made of."""


def examples(
    clips: Floats,
    targets: Floats,
    rows: NDArray[np.intp],
    spec: FeatureSpec,
    params: AugmentParams,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Make an augmented example of each of some training clips.

    Mel bands and spectra get all of it. Cepstral coefficients are no frequency bands and have no
    power to add up: they are shifted, played faster or slower and masked in time.

    Parameters
    ----------
    clips : array, shape (n, bands, frames)
        Of the training folds, as :func:`pipeline.sound.features.extract` makes them.
    targets : array, shape (n, classes)
        One-hot.
    rows : array of int, shape (m,)
        Clips to augment; any other may be mixed in.
    spec : FeatureSpec
        What made the clips.
    params : AugmentParams
    rng : Generator
        The same state gives the same examples.

    Returns
    -------
    features : array, shape (m, bands, frames)
        Not normalised, with the peak and the floor that a clip has.
    targets : array, shape (m, classes)
        Of a mixture, in proportion.
    """
    features = np.empty((len(rows), *clips.shape[1:]), np.float32)
    labels = np.empty((len(rows), targets.shape[1]), np.float32)
    for place, row in enumerate(rows):
        features[place], labels[place] = _example(clips, targets, row, spec, params, rng)
    return features, labels


def _example(
    clips: Floats,
    targets: Floats,
    row: int,
    spec: FeatureSpec,
    params: AugmentParams,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    target = targets[row]
    if spec.kind == "mfcc":
        clip = _moved(clips[row], None, params, rng)
        return _masked(clip, 1, params.time_mask, clip.mean(axis=1), rng), target
    power = _heard(clips[row], spec.centres, params, rng)
    if rng.random() < params.mix:
        other = rng.integers(len(clips))
        share = np.float32(rng.uniform(0.01, 0.99))
        # half and half is equally loud; shares are of amplitude (Tokozume et al., 2018)
        power += ((1 - share) / share) ** 2 * _heard(clips[other], spec.centres, params, rng)
        target = share * target + (1 - share) * targets[other]
    if rng.random() < params.noise:
        power += power.max() * _noise(power.shape, rng)
    clip = np.log(power / power.max()) / POWER
    np.maximum(clip, np.float32(-spec.top_db), out=clip)
    clip = _masked(clip, 1, params.time_mask, -spec.top_db, rng)
    clip = _masked(clip, 0, params.frequency_mask, -spec.top_db, rng)
    return clip + np.float32(rng.uniform(-params.gain, params.gain)), target


def _heard(
    clip: Floats, centres: NDArray[np.float64], params: AugmentParams, rng: np.random.Generator
) -> Floats:
    """Power of a clip at another start and speed, through another microphone."""
    moved = _moved(clip, centres, params, rng)
    if params.equaliser:
        moved += _filter(len(moved), params.equaliser, rng)
    power: Floats = np.exp(moved * POWER)
    return power


def _moved(
    clip: Floats,
    centres: NDArray[np.float64] | None,
    params: AugmentParams,
    rng: np.random.Generator,
) -> Floats:
    """Start anywhere and go round, faster and higher or slower and lower.

    The nearest band and frame are taken: in between, an average of two would smooth noise.
    """
    frames = clip.shape[1]
    speed = (1 + params.speed) ** rng.uniform(-1, 1)
    start = rng.integers(frames) if params.shift else 0
    when = (start + (np.arange(frames) * speed).astype(np.intp)) % frames
    if centres is None:
        return np.asarray(clip[:, when])
    where = np.abs(centres / speed - centres[:, np.newaxis]).argmin(axis=0)
    return np.asarray(clip[where][:, when])


def _filter(bands: int, most: float, rng: np.random.Generator) -> Floats:
    """Another microphone or room: a curve over the bands of straight pieces, in dB.

    FilterAugment's linear type (Nam et al., 2022).
    """
    pieces = rng.integers(*CURVES, endpoint=True)
    corners = np.sort(rng.uniform(0, bands, pieces + 1))
    corners[0], corners[-1] = 0, bands
    curve = np.interp(np.arange(bands), corners, rng.uniform(-most, most, pieces + 1))
    return np.asarray(curve[:, np.newaxis], np.float32)


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Power of steady noise of any level and tilt, where the clip's peak is 1."""
    tilt = np.linspace(0, rng.uniform(-TILT, TILT), shape[0])
    level = (rng.uniform(QUIETEST, LOUDEST) + tilt).astype(np.float32)[:, np.newaxis]
    power: Floats = np.square(rng.standard_normal(shape, np.float32)) * np.exp(level * POWER)
    return power


def _masked(
    clip: Floats, axis: int, most: float, fill: float | Floats, rng: np.random.Generator
) -> Floats:
    """Silence some bands or frames in a row (SpecAugment, Park et al., 2019)."""
    size = clip.shape[axis]
    width = rng.integers(int(most * size), endpoint=True)
    start = rng.integers(size - width, endpoint=True)
    masked = clip.copy()
    np.moveaxis(masked, axis, 0)[start : start + width] = fill
    return masked
