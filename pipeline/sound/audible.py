"""Judge whether a clip holds a sound, as the network hears it: in mono, and without its offset.

The judgement is the same for a dataset, for ``python -m pipeline predict`` and for the service. The
features do not change: a constant offset is ignored here only.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLIP = 1e-4
"""A clip that stays closer to its offset than this, as a share of full scale, is silent: 80 dB
below full scale, or three steps of 16 bits."""

WINDOW = 1e-5
"""The same for a window: 100 dB below full scale, or a third of a step of 16 bits. All such windows
have the same features, so a prediction would mean nothing. This is lower than :data:`CLIP` because
a clip that is loud enough as a whole may have quiet windows."""

IMPULSE = 0.1
"""A sound must last this share of the minimum length, or it is an impulse. The rest may be silent,
because a short sound is often padded."""


class Meter:
    """Measures a clip block by block, at its own sample rate and with all its channels.

    Parameters
    ----------
    quietest : float
        :data:`CLIP` or :data:`WINDOW`.
    """

    def __init__(self, quietest: float = CLIP) -> None:
        self._quietest = quietest
        self._seconds = 0.0
        self._peak = 0.0  # over all channels
        self._low, self._high = math.inf, -math.inf  # in mono
        self._sounding = 0.0  # seconds of mono away from the offset

    def add(self, block: Floats, sample_rate: int) -> None:
        """Measure the next block of the clip.

        Parameters
        ----------
        block : array, shape (samples, channels), float32
            At least one sample.
        sample_rate : int
            In Hz.
        """
        mono = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        self._seconds += len(block) / sample_rate
        self._peak = max(self._peak, float(block.max()), -float(block.min()))
        self._low = min(self._low, float(mono.min()))
        self._high = max(self._high, float(mono.max()))
        if self._sounding < 1:  # nobody asks for more, and the median takes time
            away = np.abs(mono - np.median(mono)) >= self._quietest
            self._sounding += int(away.sum()) / sample_rate

    def fault(self, min_seconds: float) -> str | None:
        """Say why the clip holds no sound; None if it holds one.

        Parameters
        ----------
        min_seconds : float
            Minimum length of a clip.

        Returns
        -------
        str or None
            The end of a sentence that begins with "The clip".
        """
        if round(self._seconds, 4) < min_seconds:
            return f"is {_ms(self._seconds)} long, and the minimum is {_ms(min_seconds)}"
        if self._peak < self._quietest:
            return "is silent"
        if max(-self._low, self._high) < self._quietest:
            return "is silent in mono, because its channels cancel each other"
        if (self._high - self._low) / 2 < self._quietest:
            return "contains only a constant offset"
        if self._sounding < IMPULSE * min_seconds:
            return f"is silent except for an impulse of {_ms(self._sounding)}"
        return None


def fault(waveform: Floats, sample_rate: int, min_seconds: float) -> str | None:
    """Say why a window holds no sound; None if it holds one.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
        Without padding, and at least one sample.
    sample_rate : int
        In Hz.
    min_seconds : float
        As for :meth:`Meter.fault`.
    """
    meter = Meter(WINDOW)
    meter.add(waveform[:, None], sample_rate)
    return meter.fault(min_seconds)


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000, 3):g} ms"
