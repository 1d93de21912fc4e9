"""Audio fingerprints: whether two clips hold the same stretch of sound.

Peaks of the spectrogram, taken in pairs, survive another format, another sample rate, another
level, some noise and a shift in time; a pair is known by its two frequencies and the time between
them (Wang, "An Industrial-Strength Audio Search Algorithm", ISMIR 2003). Two clips share a stretch
when many of their pairs agree and all with the same shift. A copy played at another speed or pitch
is not found.
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
"""Hz of the waveforms that are compared: what most recorders and every codec keep."""

N_FFT, HOP_LENGTH = 512, 128
"""Samples: 64 ms, every 16 ms."""

LOWEST_BIN = 2
"""Below it there is hum and offset."""

FLOOR = 60.0
"""dB below the clip's peak where nothing counts as a peak."""

NEIGHBOURHOOD = (9, 7)
"""Bins and frames in which a peak is the largest value."""

PEAKS_PER_SECOND = 60
"""The strongest ones."""

PARTNERS = 5
"""Later peaks that each peak is paired with: the next ones that are near enough."""

REACH = 32
"""Bins up or down and frames ahead that a partner may be away."""

FEWEST = 10
"""Agreeing landmarks that count as a match, so a clip with fewer cannot be compared."""

SAME = 0.07
"""Share of agreeing landmarks from which two clips hold the same stretch of sound.

Measured on all pairs of clips of different recordings: at most 0.034 in ESC-10 and 0.042 in foley,
but for three pairs of ESC-10 at 0.12, 0.14 and 0.47, which are the same sound by their samples too
(correlation above 0.97 where they overlap). Copies of the ESC-10 clips as MP3, as Ogg at 22 kHz,
at 16 kHz, at a twentieth of the level, or with noise 20 dB below have 0.2 and more in 99 of 100
cases, and a second half that is not silent has it against the whole clip in nearly all.
``tests/code/test_fingerprint.py`` holds both sides.
"""

BLOCK = 200_000
"""Landmarks looked up at a time, which bounds memory."""


def landmarks(waveform: NDArray[np.float32]) -> Landmarks:
    """Pairs of spectral peaks.

    Parameters
    ----------
    waveform : (samples,) float32
        At :data:`SAMPLE_RATE`.

    Returns
    -------
    (landmarks, 2) int64
        What each pair is like, as one number, and its frame. Empty for silence.
    """
    padded = np.pad(waveform, (0, max(0, N_FFT - waveform.size)))
    frames = sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    spectrum = scipy.fft.rfft(frames * np.hanning(N_FFT).astype(np.float32))[:, LOWEST_BIN:]
    decibels = 20 * np.log10(np.maximum(np.abs(spectrum).T, 1e-9))
    largest = maximum_filter(decibels, size=NEIGHBOURHOOD, mode="constant", cval=-np.inf)
    # digital silence is its own maximum everywhere
    heard = decibels > max(decibels.max() - FLOOR, -120.0)
    bins, times = np.nonzero((decibels == largest) & heard)
    bins, times = _strongest(bins, times, decibels[bins, times])
    return _pairs(bins, times)


def matches(clips: Sequence[Landmarks]) -> pd.DataFrame:
    """Compare each clip with each other one.

    Parameters
    ----------
    clips : sequence of (landmarks, 2) int64
        As :func:`landmarks` gives them.

    Returns
    -------
    DataFrame
        A row a pair of clips with :data:`FEWEST` agreeing landmarks at least, the most alike
        first: ``a`` and ``b``, places in `clips`, a < b; ``landmarks`` that agree; ``score``, their
        share of the landmarks of the clip that has fewer; ``offset``, seconds from the start
        of a's sound to the start of b's in a common recording.
    """
    sizes = np.array([len(clip) for clip in clips], np.int64)
    found = [_best_shifts(block) for block in _agreeing(clips, sizes)]
    table = pd.concat(found) if found else _best_shifts(np.empty((3, 0), np.int64))
    table["score"] = table["landmarks"] / np.minimum(
        sizes[table["a"].to_numpy()], sizes[table["b"].to_numpy()]
    )
    return table.sort_values(["score", "a", "b"], ascending=[False, True, True], ignore_index=True)


def _strongest(
    bins: NDArray[np.intp], times: NDArray[np.intp], level: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep the strongest peaks of every second, in the order of time."""
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
    """Look landmarks up in those of later clips: (3, agreements), the clips and the shift.

    A landmark that very many share says little and would cost the most: it is left out.
    """
    everything = np.concatenate([*clips, np.empty((0, 2), np.int64)])
    clip = np.repeat(np.arange(sizes.size), sizes)
    order = np.argsort(everything[:, 0], kind="stable")
    alike, times, clip = everything[order, 0], everything[order, 1], clip[order]
    most = max(100, sizes.size // 20)
    first, last = (np.searchsorted(alike, alike, side) for side in ("left", "right"))
    wanted = np.flatnonzero((last - first > 1) & (last - first <= most))
    wanted = wanted[np.argsort(clip[wanted], kind="stable")]
    # whole clips in a block, or the agreements of a pair would be in two
    cuts = np.searchsorted(clip[wanted], np.unique(clip[wanted]))
    starts = [0]
    for cut in [*cuts[1:], wanted.size]:
        if cut - starts[-1] >= BLOCK or cut == wanted.size:
            starts.append(int(cut))
    for start, end in pairwise(starts):
        rows = wanted[start:end]
        count = (last - first)[rows]
        mine = np.repeat(rows, count)
        nth = np.arange(mine.size) - np.repeat(np.cumsum(count) - count, count)
        other = first[mine] + nth
        later = clip[other] > clip[mine]
        mine, other = mine[later], other[later]
        yield np.stack([clip[mine], clip[other], times[mine] - times[other]])


def _best_shifts(agreeing: NDArray[np.int64]) -> pd.DataFrame:
    """Count the agreements of every pair at its best shift."""
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
