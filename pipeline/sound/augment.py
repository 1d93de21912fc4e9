"""Augment training clips: turn the features of a clip into those of a slightly different clip.

Augmentation works on features in decibels. There a filter is a sum, a mixture is a sum of powers,
and a change of speed is a shift along bands and frames. That takes little time compared with a
training step, so each epoch gets new variants and nothing is computed in advance or stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.params import AugmentParams
    from pipeline.sound.features import FeatureSpec, Rows

    Floats = NDArray[np.float32]

POWER = np.float32(np.log(10) / 10)
"""Factor from decibels to the natural logarithm of power."""

QUIETEST, LOUDEST = -80.0, -30.0
"""Range of the level of added noise in dB relative to the clip's peak: inaudible to clearly
audible."""

TILT = 20.0
"""Largest difference in dB between the noise in the highest band and in the lowest."""

CURVES = (1, 5)
"""Smallest and largest number of straight pieces in a filter's curve."""


def examples(
    clips: Floats | Rows,
    targets: Floats,
    rows: NDArray[np.intp],
    spec: FeatureSpec,
    params: AugmentParams,
    rng: np.random.Generator,
    partners: NDArray[np.intp] | None = None,
) -> tuple[Floats, Floats]:
    """Make one augmented example of each of the given training clips.

    Mel bands and spectra get every kind of augmentation. Cepstral coefficients are not frequency
    bands and have no power to add up, so they are only shifted, played faster or slower, and masked
    in time.

    Parameters
    ----------
    clips : array or Rows, shape (clips, bands, frames), float32
        The clips of the training folds, as :func:`pipeline.sound.features.extract` returns them.
    targets : array, shape (clips, classes), float32
        One-hot.
    rows : array, shape (examples,), int
        Clips to augment.
    spec : FeatureSpec
        What the features were extracted with.
    params : AugmentParams
    rng : Generator
        The same state gives the same examples.
    partners : array, shape (partners,), int, optional
        Clips that may be mixed in, each as often as it is listed; all clips if left out.

    Returns
    -------
    features : array, shape (examples, bands, frames), float32
        Not normalised, with the same peak and floor as unchanged clips.
    targets : array, shape (examples, classes), float32
        Mixtures have the labels of both clips in proportion.
    """
    partners = np.arange(len(clips)) if partners is None else partners
    features = np.empty((len(rows), *clips.shape[1:]), np.float32)
    labels = np.empty((len(rows), targets.shape[1]), np.float32)
    for place, row in enumerate(rows):
        features[place], labels[place] = _example(clips, targets, row, spec, params, rng, partners)
    return features, labels


def _example(
    clips: Floats | Rows,
    targets: Floats,
    row: int,
    spec: FeatureSpec,
    params: AugmentParams,
    rng: np.random.Generator,
    partners: NDArray[np.intp],
) -> tuple[Floats, Floats]:
    target = targets[row]
    if spec.kind == "mfcc":
        clip = _shifted(clips[row], None, params, rng)
        return _masked(clip, 1, params.time_mask, clip.mean(axis=1), rng), target
    power = _varied_power(clips[row], spec.centres, params, rng)
    if rng.random() < params.mix:
        other = partners[rng.integers(len(partners))]
        share = np.float32(rng.uniform(0.01, 0.99))
        # a share of one half means equal loudness; shares are of amplitude (Tokozume et al., 2018)
        power += ((1 - share) / share) ** 2 * _varied_power(clips[other], spec.centres, params, rng)
        target = share * target + (1 - share) * targets[other]
    if rng.random() < params.noise:
        power += power.max() * _noise(power.shape, rng)
    clip = np.log(power / power.max()) / POWER
    np.maximum(clip, np.float32(-spec.top_db), out=clip)
    clip = _masked(clip, 1, params.time_mask, -spec.top_db, rng)
    clip = _masked(clip, 0, params.frequency_mask, -spec.top_db, rng)
    return clip + np.float32(rng.uniform(-params.gain, params.gain)), target


def _varied_power(
    clip: Floats, centres: NDArray[np.float64], params: AugmentParams, rng: np.random.Generator
) -> Floats:
    """Compute a clip's power with another start and speed, through another microphone."""
    shifted = _shifted(clip, centres, params, rng)
    if params.equaliser:
        shifted += _filter(len(shifted), params.equaliser, rng)
    power: Floats = np.exp(shifted * POWER)
    return power


def _shifted(
    clip: Floats,
    centres: NDArray[np.float64] | None,
    params: AugmentParams,
    rng: np.random.Generator,
) -> Floats:
    """Start at a random point and wrap around, faster and higher or slower and lower.

    Each value comes from the nearest band and frame, because an average would smooth noise.
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
    """Draw the response of another microphone or room: straight pieces over the bands, in dB.

    This is the linear type of FilterAugment (Nam et al., 2022).
    """
    pieces = rng.integers(*CURVES, endpoint=True)
    corners = np.sort(rng.uniform(0, bands, pieces + 1))
    corners[0], corners[-1] = 0, bands
    curve = np.interp(np.arange(bands), corners, rng.uniform(-most, most, pieces + 1))
    return np.asarray(curve[:, np.newaxis], np.float32)


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Draw the power of steady noise with a random level and tilt, where the clip's peak is 1."""
    tilt = np.linspace(0, rng.uniform(-TILT, TILT), shape[0])
    level = (rng.uniform(QUIETEST, LOUDEST) + tilt).astype(np.float32)[:, np.newaxis]
    power: Floats = np.square(rng.standard_normal(shape, np.float32)) * np.exp(level * POWER)
    return power


def _masked(
    clip: Floats, axis: int, most: float, fill: float | Floats, rng: np.random.Generator
) -> Floats:
    """Silence some consecutive bands or frames (SpecAugment, Park et al., 2019)."""
    size = clip.shape[axis]
    width = rng.integers(int(most * size), endpoint=True)
    start = rng.integers(size - width, endpoint=True)
    masked = clip.copy()
    np.moveaxis(masked, axis, 0)[start : start + width] = fill
    return masked
