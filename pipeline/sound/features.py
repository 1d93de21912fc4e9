"""Turn waveforms into feature arrays, with the same code for training and for the service.

Extraction needs only numpy and scipy. :func:`make_spec` gets filterbank, window and cosine
transform from librosa once, and the :class:`FeatureSpec` carries them. Nothing here calls a BLAS:
its threads would compete with ours for the CPUs, and its sums depend on their number. So a clip has
the same features, bit by bit, wherever they are computed.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.params import FeatureParams

    Floats = NDArray[np.float32]

FLOOR = 1e-10
"""Smallest power that is converted to decibels; `amin` of ``librosa.power_to_db``."""

DERIVATIVE_FRAMES = 9
"""Frames that a derivative is estimated from; `width` of ``librosa.feature.delta``."""

FRAMES = 32
"""Frames that are transformed at a time.

With all frames at once, the arrays would be so large that the allocator takes new pages from the
system for every clip, which takes two threads as long as the transform itself.
"""

MIN_SECONDS = 0.05
"""Minimum length of a clip where a spec made by an earlier release does not have it."""

CHUNK = 256
"""Rows of a feature array that are read into memory at a time."""


@dataclass(frozen=True, eq=False)
class FeatureSpec:
    """Everything that feature extraction needs; saved with the model and used by the service.

    Attributes
    ----------
    kind : {'logmel', 'mfcc', 'stft'}
    sample_rate : int
        Sample rate of the waveform in Hz.
    seconds : float
        Length of a window.
    longer : {'cut', 'split'}
        What happens to waveforms longer than a window, see :func:`windows`.
    standardise : bool
        Whether :func:`normalise` scales the bands.
    n_fft, hop_length : int
        Length of a frame and distance between frames, in samples.
    top_db : float
        Values further below the window's peak are raised to this distance, in dB.
    window : array, shape (n_fft,), float32
        Window function that frames are multiplied by.
    n_mels, fmin, fmax
        Number of mel bands, and where they begin and end in Hz; None for 'stft'.
    n_mfcc : int or None
        Number of cepstral coefficients; only for 'mfcc'.
    derivatives : int
        Number of derivatives that follow the coefficients; only for 'mfcc'.
    filterbank : array, shape (n_mels, 1 + n_fft // 2), float32, or None
        Turns a power spectrum into mel bands.
    dct : array, shape (n_mfcc, n_mels), float32, or None
        Turns mel bands in dB into cepstral coefficients.
    slopes : array, shape (derivatives, 9), float32, or None
        Savitzky-Golay kernels of the derivatives.
    mean, std : array, shape (bands,), float32, or None
        Statistics of the training folds, see :func:`statistics`.
    min_seconds : float
        Minimum length of a clip, see :mod:`pipeline.sound.audible`.
    """

    kind: str
    sample_rate: int
    seconds: float
    longer: str
    standardise: bool
    n_fft: int
    hop_length: int
    top_db: float
    window: Floats
    n_mels: int | None = None
    fmin: float | None = None
    fmax: float | None = None
    n_mfcc: int | None = None
    derivatives: int = 0
    filterbank: Floats | None = None
    dct: Floats | None = None
    slopes: Floats | None = None
    mean: Floats | None = None
    std: Floats | None = None
    min_seconds: float = MIN_SECONDS

    @property
    def samples(self) -> int:
        """Return the length of a window in samples."""
        return round(self.seconds * self.sample_rate)

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of bands and frames of a window's features."""
        bands = self.n_mfcc or self.n_mels or 1 + self.n_fft // 2
        # an odd n_fft is padded by one sample less than it is long
        frames = 1 + (self.samples - self.n_fft % 2) // self.hop_length
        return bands * (1 + self.derivatives), frames

    @cached_property
    def filters(self) -> scipy.sparse.csr_array:
        """Return the filterbank as a sparse matrix: 98 of 100 values are zero."""
        return scipy.sparse.csr_array(self.filterbank)

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """Return the middle frequency in Hz of each band of 'logmel' or 'stft', float64."""
        bins = np.linspace(0, self.sample_rate / 2, 1 + self.n_fft // 2)
        if self.filterbank is None:
            return bins
        middles: NDArray[np.float64] = (self.filters @ bins) / self.filters.sum(axis=1)
        return middles

    def with_statistics(self, mean: NDArray[Any], std: NDArray[Any]) -> FeatureSpec:
        """Return a copy with the statistics of the training folds.

        Parameters
        ----------
        mean, std : array, shape (bands,), float64
            As :func:`statistics` returns them.

        Returns
        -------
        FeatureSpec
        """
        return dataclasses.replace(self, mean=_floats(mean), std=_floats(std))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings without the arrays, to log them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: v for k, v in values.items() if k not in ARRAYS and v is not None}

    def save(self, path: Path) -> None:
        """Write the spec to one ``.npz`` file; equal specs give equal bytes.

        Parameters
        ----------
        path : Path
            An existing file is overwritten.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        present = {name: array for name, array in arrays.items() if array is not None}
        settings = np.array(json.dumps(self.to_dict(), sort_keys=True))
        with path.open("wb") as file:  # np.savez would add a suffix to a name without one
            np.savez(file, allow_pickle=False, settings=settings, **present)

    @classmethod
    def load(cls, path: Path) -> FeatureSpec:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : Path
            The ``.npz``.

        Returns
        -------
        FeatureSpec

        Raises
        ------
        UserError
            When the file is missing or is not a feature spec.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in ARRAYS if name in stored}
                return cls(**json.loads(stored["settings"].item()), **arrays)
        except FileNotFoundError:
            raise UserError(f"{path} is missing: run the featurize stage.") from None
        except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
            raise UserError(f"{path} is not a feature spec: run the featurize stage.") from None


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array, read when they are asked for; the array may be larger than memory.

    Attributes
    ----------
    array : array, shape (windows, bands, frames), float32
        Normally memory-mapped.
    rows : array, shape (rows,), int
        Their numbers in `array`.
    """

    array: Floats
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the numbers of rows, bands and frames."""
        _, bands, frames = self.array.shape
        return len(self.rows), bands, frames

    def __getitem__(self, wanted: int | np.integer | slice | NDArray[np.intp]) -> Floats:
        """Return the features of one row, or a copy of those of several."""
        return self.array[self.rows[wanted]]


ARRAYS = ("window", "filterbank", "dct", "slopes", "mean", "std")


def make_spec(params: FeatureParams, clip_seconds: float) -> FeatureSpec:
    """Make a spec from settings; no other function of this module needs librosa.

    Parameters
    ----------
    params : FeatureParams
        Section ``features`` of ``params.yaml``.
    clip_seconds : float
        The dataset's clip length in seconds, used where `params` has no window length.

    Returns
    -------
    FeatureSpec
        Without statistics.

    Raises
    ------
    UserError
        When the settings do not work together; names the key.
    """
    from librosa.filters import get_window

    settings = getattr(params, params.kind)
    key = f"features.{params.kind}"
    # The keys of the kind's section are fields of the spec.
    spec = FeatureSpec(
        kind=params.kind,
        sample_rate=params.sample_rate,
        seconds=params.seconds or clip_seconds,
        longer=params.longer,
        standardise=params.standardise,
        min_seconds=params.min_seconds,
        window=_floats(get_window("hann", settings.n_fft, fftbins=True)),
        **settings.model_dump(),
    )
    if spec.samples < spec.n_fft:
        raise UserError(
            f"{key}.n_fft is {spec.n_fft}, longer than the window of {spec.samples} samples"
            f" ({spec.seconds:g} s): lower it, or raise features.seconds."
        )
    if spec.min_seconds > spec.seconds:
        raise UserError(
            f"features.min_seconds is {spec.min_seconds:g}, longer than the window of"
            f" {spec.seconds:g} s: lower it, or raise features.seconds."
        )
    if spec.derivatives and spec.shape[1] < DERIVATIVE_FRAMES:
        raise UserError(
            f"{key}.derivatives is {spec.derivatives}, and a derivative needs {DERIVATIVE_FRAMES}"
            f" frames, but the window has {spec.shape[1]}: lower {key}.hop_length, or raise"
            " features.seconds."
        )
    if spec.kind == "stft":
        return spec
    spec = _with_filterbank(spec, key)
    if spec.kind == "logmel":
        return spec
    # librosa.feature.mfcc applies this transform to each frame; applied to the unit matrix, it
    # gives its own matrix.
    dct = scipy.fft.dct(np.eye(settings.n_mels), type=2, norm="ortho", axis=0)
    return dataclasses.replace(
        spec,
        dct=_floats(dct[: settings.n_mfcc]),
        slopes=_slopes(settings.derivatives) if settings.derivatives else None,
    )


def extract(waveform: Floats, spec: FeatureSpec) -> Floats:
    """Turn one window into features, not yet normalised, as librosa does with its defaults.

    Frames are centred, with zeros beyond the ends. 'logmel' and 'stft' are in dB relative to the
    window's own peak, so that its gain does not matter (and silence is 0 dB everywhere). 'mfcc' is
    the cosine transform of mel bands in dB of absolute power, followed by its derivatives.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
        A window as :func:`windows` returns it. It must be finite and within a million times full
        scale, or float32 would overflow; :func:`pipeline.sound.decoding.load` checks this.
    spec : FeatureSpec
        What to compute.

    Returns
    -------
    array, shape (bands, frames), float32
        Finite, and the same bits for the same window in any thread.

    Raises
    ------
    ValueError
        When the waveform does not have the length of a window.
    """
    if waveform.shape != (spec.samples,):
        raise ValueError(f"a window has {spec.samples} samples, not shape {waveform.shape}")
    power = _power(waveform, spec)
    if spec.filterbank is not None:
        power = spec.filters @ power
    decibels: Floats = 10 * np.log10(np.maximum(power, np.float32(FLOOR)))
    peak = decibels.max()
    np.maximum(decibels, peak - np.float32(spec.top_db), out=decibels)
    if spec.dct is None:
        decibels -= peak
        return decibels
    # einsum left to itself is a plain loop, not a BLAS
    cepstrum = np.einsum("cm,mt->ct", spec.dct, decibels)
    slopes = () if spec.slopes is None else spec.slopes
    return np.concatenate([cepstrum, *(_derivative(cepstrum, slope) for slope in slopes)])


def windows(waveform: Floats, spec: FeatureSpec) -> Floats:
    """Pad, cut or split a waveform of any length into windows of the spec's length.

    A shorter waveform is padded with zeros at its end. A longer one is cut to its first window, or
    split into consecutive windows. When splitting, a last piece shorter than half a window is
    dropped and a longer one is padded.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
        At the spec's sample rate.
    spec : FeatureSpec
        Has the length, and 'cut' or 'split'.

    Returns
    -------
    array, shape (windows, samples), float32
        At least one window.
    """
    return np.stack(list(window_stream([waveform], spec)))


def window_stream(blocks: Iterable[Floats], spec: FeatureSpec) -> Iterator[Floats]:
    """Make the windows of :func:`windows` from a waveform that comes in blocks.

    Parameters
    ----------
    blocks : iterable of array, shape (samples,), float32
        The waveform in order, at the spec's sample rate. No block is asked for that comes after the
        last window.
    spec : FeatureSpec
        Has the length, and 'cut' or 'split'.

    Yields
    ------
    array, shape (samples,), float32
    """
    window, filled, whole = np.zeros(spec.samples, np.float32), 0, 0
    for block in blocks:
        rest = block
        while rest.size:
            part, rest = np.split(rest, [spec.samples - filled])
            window[filled : filled + part.size] = part
            filled += part.size
            if filled == spec.samples:
                yield window
                if spec.longer == "cut":
                    return
                window, filled, whole = np.zeros(spec.samples, np.float32), 0, whole + 1
    if not whole or 2 * filled >= spec.samples:
        yield window


def statistics(
    features: Floats, rows: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute mean and standard deviation of each band over windows and frames.

    Parameters
    ----------
    features : array, shape (windows, bands, frames), float32
        May be a memory map that is larger than memory.
    rows : array, shape (rows,), int, or None
        The windows to use, normally those of the training folds; None for all.

    Returns
    -------
    mean, std : array, shape (bands,), float64
        `std` is 1 for a band that does not vary: it holds no information, and division by a tiny
        number would make any later deviation huge.

    Raises
    ------
    ValueError
        When there are no windows.
    """
    rows = np.arange(len(features)) if rows is None else rows
    if not rows.size:
        raise ValueError("there are no windows to compute statistics from")
    # Sums of deviations from the first window are exact even if the mean is large.
    start = np.asarray(features[rows[0]], np.float64).mean(axis=1)
    total = np.zeros_like(start)
    squares = np.zeros_like(start)
    for first in range(0, rows.size, CHUNK):
        chunk = np.subtract(features[rows[first : first + CHUNK]], start[:, None], dtype=np.float64)
        total += chunk.sum(axis=(0, 2))
        squares += np.square(chunk).sum(axis=(0, 2))
    count = rows.size * features.shape[2]
    shift = total / count
    std = np.sqrt(np.maximum(squares / count - shift**2, 0))
    return start + shift, np.where(std < 1e-3, 1, std)


def normalise(features: Floats, spec: FeatureSpec) -> Floats:
    """Normalise features for the network; no other function normalises.

    Parameters
    ----------
    features : array, shape (..., bands, frames), float32
        As :func:`extract` returns them.
    spec : FeatureSpec
        With statistics, if `standardise` is true.

    Returns
    -------
    array, shape (..., bands, frames), float32

    Raises
    ------
    ValueError
        When the spec has no statistics but needs them.
    """
    if not spec.standardise:
        return np.asarray(features, np.float32)
    if spec.mean is None or spec.std is None:
        raise ValueError("the feature spec has no statistics of the training folds")
    return (features - spec.mean[:, None]) / spec.std[:, None]


def _floats(values: Any) -> Floats:
    return np.asarray(values, np.float32)


def _power(waveform: Floats, spec: FeatureSpec) -> Floats:
    """Compute the power spectrum of a window: array, shape (1 + n_fft // 2, frames), float32."""
    padded = np.pad(waveform, spec.n_fft // 2)
    frames = sliding_window_view(padded, spec.n_fft)[:: spec.hop_length]
    power = np.empty((1 + spec.n_fft // 2, len(frames)), np.float32)
    for first in range(0, len(frames), FRAMES):
        block = slice(first, first + FRAMES)
        spectrum = scipy.fft.rfft(frames[block] * spec.window, overwrite_x=True)
        power[:, block] = (np.square(spectrum.real) + np.square(spectrum.imag)).T
    return power


def _derivative(cepstrum: Floats, slope: Floats) -> Floats:
    """Compute a derivative along the frames: array, shape (n_mfcc, frames), float32.

    Like ``librosa.feature.delta``, it fits a polynomial to 9 frames. Its degree is the order of the
    derivative, so the derivative is constant over the fit, and the ends repeat the first and last
    full fit.
    """
    fits = np.einsum("ctk,k->ct", sliding_window_view(cepstrum, slope.size, axis=1), slope)
    return np.pad(fits, ((0, 0), (slope.size // 2, slope.size // 2)), mode="edge")


def _slopes(derivatives: int) -> Floats:
    from scipy.signal import savgol_coeffs

    orders = range(1, derivatives + 1)
    return _floats([savgol_coeffs(DERIVATIVE_FRAMES, n, deriv=n, use="dot") for n in orders])


def _with_filterbank(spec: FeatureSpec, key: str) -> FeatureSpec:
    import warnings

    from librosa.filters import mel

    half = spec.sample_rate / 2
    fmin, fmax = spec.fmin or 0.0, spec.fmax or half
    if fmax > half:
        raise UserError(
            f"{key}.fmax is {fmax:g} Hz, above half of features.sample_rate: lower it to at most"
            f" {half:g} Hz."
        )
    if fmin >= fmax:
        raise UserError(f"{key}.fmin is {fmin:g} Hz: lower it below {key}.fmax, {fmax:g} Hz.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty filters, which are refused below
        filterbank = mel(
            sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=fmin, fmax=fmax
        )
    empty = int((filterbank.max(axis=1) <= 0).sum())
    if empty:
        narrow = fmin > 0 or fmax < half
        widen = f", or let {key}.fmin and {key}.fmax be further apart" if narrow else ""
        raise UserError(
            f"{key}.n_mels is {spec.n_mels}, and {empty} of the bands contain no frequency of the"
            f" spectrum: lower it, or raise {key}.n_fft{widen}."
        )
    return dataclasses.replace(spec, fmin=fmin, fmax=fmax, filterbank=_floats(filterbank))
