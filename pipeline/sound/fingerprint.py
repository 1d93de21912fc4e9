"""Find out with audio fingerprints whether two clips contain the same piece of sound.

A landmark is a pair of peaks in the spectrogram: two frequencies and the time between them (Wang,
"An Industrial-Strength Audio Search Algorithm", ISMIR 2003). Landmarks survive another format,
sample rate or level, some noise, and a shift in time. Two clips share a piece of sound when many of
their landmarks agree with the same shift in time. A copy played at another speed or pitch is not
found.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

Landmarks = NDArray[np.int64]

SAMPLE_RATE = 8_000
"""Sample rate in Hz of the waveforms to compare; codecs keep the frequencies up to half of it."""

N_FFT, HOP_LENGTH = 512, 128
"""Length of a frame and distance between frames, in samples: 64 ms and 16 ms."""

LOWEST_BIN = 2
"""The lowest bin that is used; the bins below it contain hum and offset."""

FLOOR = 60.0
"""Local maxima further below the clip's maximum, in dB, do not count as peaks."""

NEIGHBOURHOOD = (9, 7)
"""Size, in bins and frames, of the area in which a peak is the largest value."""

PEAKS_PER_SECOND = 60
"""Number of peaks to keep per second, the strongest first."""

PARTNERS = 5
"""Number of later peaks that each peak is paired with: the next ones within :data:`REACH`."""

REACH = 32
"""Largest distance of a partner, in bins up or down and in frames ahead."""

FEWEST = 10
"""Smallest number of agreeing landmarks in a match. A clip with fewer cannot be compared."""

SHARE = 0.07
"""Smallest share of agreeing landmarks of two clips that contain the same piece of sound.

Pairs of 5-second clips from different recordings share at most 0.034 in ESC-10 and 0.042 in foley.
The only exceptions are three pairs of ESC-10 with 0.12, 0.14 and 0.47, whose samples show that they
are the same sound (correlation above 0.97 where they overlap). Copies of the ESC-10 clips as MP3,
as Ogg at 22 kHz, at 16 kHz, at a twentieth of the level, or with noise 20 dB below share at least
0.2 in 99 of 100 cases. So does nearly every second half that is not silent, compared with its whole
clip. ``tests/code/test_fingerprint.py`` checks both sides of the threshold.
"""

CHANCE = 1.75
"""Smallest number of agreeing landmarks, divided by the root of the landmarks of the smaller clip.

In clips with fewer than 625 landmarks, which is about three seconds, this asks for more than
:data:`SHARE`. Two short clips of speech contain one event each, and two people who say the same
word agree with one shift in more landmarks than :data:`SHARE` allows for. The value was chosen on
the clips of three speakers of the Free Spoken Digit Dataset and on two folds of ESC-10, cut to 0.5
to 5 seconds. ``docs/explanation/folds-and-leaks.md`` has the figures for the other clips.
"""

BLOCK = 200_000
"""Landmarks to look up at a time, which limits memory."""


def landmarks(waveform: NDArray[np.float32]) -> Landmarks:
    """Find the landmarks of a clip, which are pairs of spectral peaks.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
        At :data:`SAMPLE_RATE`.

    Returns
    -------
    array, shape (landmarks, 2), int64
        A code for the frequencies and distance of each pair, and its frame. Empty for silence.
    """
    padded = np.pad(waveform, (0, max(0, N_FFT - waveform.size)))
    frames = sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    spectrum = scipy.fft.rfft(frames * np.hanning(N_FFT).astype(np.float32))[:, LOWEST_BIN:]
    decibels = 20 * np.log10(np.maximum(np.abs(spectrum).T, 1e-9))
    largest = maximum_filter(decibels, size=NEIGHBOURHOOD, mode="constant", cval=-np.inf)
    # in digital silence, every value is a local maximum
    heard = decibels > max(decibels.max() - FLOOR, -120.0)
    bins, times = np.nonzero((decibels == largest) & heard)
    bins, times = _strongest(bins, times, decibels[bins, times])
    return _pairs(bins, times)


def matches(clips: Sequence[Landmarks]) -> pd.DataFrame:
    """Compare each clip with every other clip.

    Parameters
    ----------
    clips : sequence of array, shape (landmarks, 2), int64
        As :func:`landmarks` returns them.

    Returns
    -------
    DataFrame
        One row per pair of clips with at least :data:`FEWEST` agreeing landmarks, the most similar
        pair first. ``a`` and ``b``: their places in `clips`, a < b. ``landmarks``: how many agree.
        ``score``: the share of the landmarks of the clip with fewer. ``same``: whether these are
        enough for the same piece of sound, by :data:`SHARE` and :data:`CHANCE`. ``offset``: seconds
        from the start of a to the start of b in a common recording.
    """
    sizes = np.array([len(clip) for clip in clips], np.int64)
    counted = [_best_shifts(block) for block in _agreeing(clips, sizes)]
    table = pd.concat(counted) if counted else _best_shifts(np.empty((3, 0), np.int64))
    smaller = np.minimum(sizes[table["a"].to_numpy()], sizes[table["b"].to_numpy()])
    table["score"] = table["landmarks"] / smaller
    table["same"] = table["landmarks"] >= np.maximum(SHARE * smaller, CHANCE * np.sqrt(smaller))
    return table.sort_values(["score", "a", "b"], ascending=[False, True, True], ignore_index=True)


def _strongest(
    bins: NDArray[np.intp], times: NDArray[np.intp], level: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep the strongest peaks of every second, in order of time."""
    second = times * HOP_LENGTH // SAMPLE_RATE
    order = np.lexsort((-level, second))
    place = np.arange(order.size) - np.searchsorted(second[order], second[order])
    kept = order[place < PEAKS_PER_SECOND]
    kept = kept[np.lexsort((bins[kept], times[kept]))]
    return bins[kept].astype(np.int64), times[kept].astype(np.int64)


def _pairs(bins: NDArray[np.int64], times: NDArray[np.int64]) -> Landmarks:
    partners = np.zeros(bins.size, np.int64)
    made = [np.empty((0, 2), np.int64)]
    for step in range(1, bins.size):
        later, higher = times[step:] - times[:-step], bins[step:] - bins[:-step]
        if later.min() > REACH:
            break
        near = (later > 0) & (later <= REACH) & (np.abs(higher) <= REACH)
        first = np.flatnonzero(near & (partners[:-step] < PARTNERS))
        partners[first] += 1
        alike = (bins[first] << 16) | ((higher[first] + REACH) << 8) | later[first]
        made.append(np.stack([alike, times[first]], axis=1))
    return np.concatenate(made)


def _agreeing(clips: Sequence[Landmarks], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield agreeing landmarks: array, shape (3, agreements), with both clips and the shift.

    A landmark that very many clips share says little and would take the most time, so it is left
    out.
    """
    everything = np.concatenate([*clips, np.empty((0, 2), np.int64)])
    clip = np.repeat(np.arange(sizes.size), sizes)
    order = np.argsort(everything[:, 0], kind="stable")
    alike, times, clip = everything[order, 0], everything[order, 1], clip[order]
    most = max(100, sizes.size // 20)
    first, last = (np.searchsorted(alike, alike, side) for side in ("left", "right"))
    wanted = np.flatnonzero((last - first > 1) & (last - first <= most))
    wanted = wanted[np.argsort(clip[wanted], kind="stable")]
    # Each block has whole clips; otherwise the agreements of a pair could be in two blocks.
    cuts = np.searchsorted(clip[wanted], np.unique(clip[wanted]))
    starts = [0]
    for cut in [*cuts[1:], wanted.size]:
        if cut - starts[-1] >= BLOCK or cut == wanted.size:
            starts.append(int(cut))
    for start, end in pairwise(starts):
        rows = wanted[start:end]
        count = (last - first)[rows]
        one = np.repeat(rows, count)
        nth = np.arange(one.size) - np.repeat(np.cumsum(count) - count, count)
        other = first[one] + nth
        later = clip[other] > clip[one]
        one, other = one[later], other[later]
        yield np.stack([clip[one], clip[other], times[one] - times[other]])


def _best_shifts(agreeing: NDArray[np.int64]) -> pd.DataFrame:
    """Count the agreeing landmarks of every pair of clips at its best shift."""
    a, b, shift = agreeing
    middle = 1 << 23
    codes, count = np.unique((a << 44) | (b << 24) | (shift + middle), return_counts=True)
    enough = count >= FEWEST
    codes, count = codes[enough], count[enough]
    seconds = ((codes & ((1 << 24) - 1)) - middle) * HOP_LENGTH / SAMPLE_RATE
    table = pd.DataFrame(
        {"a": codes >> 44, "b": (codes >> 24) & 0xFFFFF, "landmarks": count, "offset": seconds}
    )
    return table.sort_values("landmarks", ascending=False, kind="stable").drop_duplicates(
        ["a", "b"]
    )
