"""Compare the sampling settings with what the clips contain, and propose lower ones.

``params.yaml`` decides: a proposal is only printed, and only if much of the spectrum is empty.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.params import FeatureParams
from pipeline.sound import decoding
from pipeline.sound.features import FeatureSpec, make_spec

RATES = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000)
"""Usual sample rates, in Hz."""

CLIPS = 24
"""Number of clips that are measured."""

SECONDS = 10.0
"""Seconds of each of them that are measured."""

FRAME = 2048
"""Samples of a frame of this measurement."""

LONGER = 2
"""Length of a window, as a multiple of the clips', from which a shorter one is proposed."""

EMPTY = 0.4
"""Share of the spectrum that must be empty before a proposal is worth reading."""


def bandwidth(waveform: NDArray[np.float32], sample_rate: int, top_db: float) -> float:
    """Return the frequency above which a clip contains nothing that the features could show.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
    sample_rate : int
        In Hz.
    top_db : float
        What is further below the loudest frequency of the clip is nothing, in dB; the features
        raise it to this distance.

    Returns
    -------
    float
        In Hz, at most half the sample rate; 0 for silence.
    """
    padded = np.pad(waveform, (0, max(0, FRAME - waveform.size)))
    frames = sliding_window_view(padded, FRAME)[:: FRAME // 2]
    loudest = np.abs(np.fft.rfft(frames * np.blackman(FRAME))).max(axis=0) ** 2
    present = np.flatnonzero(loudest > loudest.max() * 10 ** (-top_db / 10))
    return float(present[-1] * sample_rate / FRAME) if present.size else 0.0


def remarks(
    files: Sequence[Path], settings: FeatureParams, spec: FeatureSpec, clip_seconds: float
) -> list[str]:
    """Propose other settings if the clips leave much of the window or of the spectrum empty.

    Parameters
    ----------
    files : sequence of Path
        The clips; some of them are decoded.
    settings : FeatureParams
    spec : FeatureSpec
        Made from `settings`.
    clip_seconds : float
        The dataset's clip length.

    Returns
    -------
    list of str
        Sentences with the commands that use the proposals; empty if the settings fit.
    """
    return [one for one in (_padding(spec, clip_seconds), _band(files, settings, spec)) if one]


def _padding(spec: FeatureSpec, clip_seconds: float) -> str:
    """Propose a shorter window if most of it would be padding; empty if it fits."""
    if spec.seconds < LONGER * clip_seconds:
        return ""
    return (
        f"The clips are {clip_seconds:g} s long, but a window has {spec.seconds:g} s, and the rest"
        " is padding. `dvc exp run -S features.seconds=null` makes it as long as the clips."
    )


def _band(files: Sequence[Path], settings: FeatureParams, spec: FeatureSpec) -> str:
    """Propose a lower sample rate and fewer frequencies; empty if the settings fit."""
    measured = [
        bandwidth(decoding.load(file, spec.sample_rate, SECONDS), spec.sample_rate, spec.top_db)
        for file in files[:: math.ceil(len(files) / CLIPS)]
    ]
    # nine of ten, so that a few clips from elsewhere do not decide
    highest = float(np.quantile(measured, 0.9, method="higher"))
    half = spec.fmax or spec.sample_rate / 2
    if not 0 < highest < (1 - EMPTY) * half:
        return ""
    changes = propose(highest, settings, spec)
    if not changes:
        return ""
    options = " ".join(f"-S features.{key}={value}" for key, value in changes.items())
    return (
        f"The clips contain nothing above {highest / 1000:.1f} kHz, but the bands reach up to"
        f" {half / 1000:.1f} kHz. `dvc exp run {options}` fits the features to the clips."
    )


def propose(highest: float, settings: FeatureParams, spec: FeatureSpec) -> dict[str, Any]:
    """Return the settings that suit clips with nothing above a frequency.

    Frames keep about their length and distance in seconds.

    Parameters
    ----------
    highest : float
        The frequency, in Hz.
    settings : FeatureParams
    spec : FeatureSpec
        Made from `settings`.

    Returns
    -------
    dict
        New values by key of ``features``; empty if no lower sample rate works.
    """
    # the slope of a resampler's filter ends a little above half the lower rate
    rate = next(rate for rate in (*RATES, spec.sample_rate) if rate / 2 >= 0.95 * highest)
    ratio = rate / spec.sample_rate
    if ratio >= 1:
        return {}
    section = getattr(settings, spec.kind)
    values = {
        "n_fft": max(64, 2 ** math.ceil(math.log2(spec.n_fft * ratio))),
        "hop_length": max(16, 8 * round(spec.hop_length * ratio / 8)),
    }
    if spec.fmax is not None:
        narrow = highest < (1 - EMPTY) * rate / 2
        fmax = 100.0 * math.ceil(highest / 100) if narrow else None
        values |= {} if section.fmax == fmax else {"fmax": fmax}
    changed = settings.model_copy(
        update={"sample_rate": rate, spec.kind: section.model_copy(update=values)}
    )
    try:
        make_spec(changed, spec.seconds)
    except UserError:
        return {}  # too few frequencies for so many bands
    named = {key: "null" if value is None else value for key, value in values.items()}
    return {"sample_rate": rate, **{f"{spec.kind}.{key}": v for key, v in named.items()}}
