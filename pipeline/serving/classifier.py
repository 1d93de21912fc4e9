"""Classify waveforms with a serving bundle, using numpy, scipy and LiteRT but not TensorFlow.

The service and ``python -m pipeline predict`` use this code, and ``python -m pipeline package``
compares it with Keras.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from pipeline.errors import UserError
from pipeline.serving.bundle import MODEL, SPEC, read_card
from pipeline.sound import audible
from pipeline.sound.decoding import NoSoundError
from pipeline.sound.features import FeatureSpec, extract, normalise, windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The model's prediction for a clip.

    Attributes
    ----------
    probabilities : array, shape (classes,), float32
        The mean over the windows.
    starts : array, shape (windows,), float64
        Start of each window, in seconds.
    windows : array, shape (windows, classes), float32
        Probabilities of each window.
    features : array, shape (bands, frames), float32
        Features of the first window, not normalised.
    summary : dict
        Summary of these features, see :func:`summarise`.
    """

    probabilities: Floats
    starts: NDArray[np.float64]
    windows: Floats
    features: Floats
    summary: dict[str, float]


_STDERR_LOCK = threading.Lock()
"""All threads share one standard error, so only one of them may redirect it at a time."""


@contextmanager
def without_info_lines() -> Iterator[None]:
    """Drop lines that begin with ``INFO:`` from what native code writes to standard error.

    LiteRT reports which delegate it uses and has no log level. All other lines are written at the
    end; up to 64 KB of them are kept.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)  # a writer must not block when the pipe is full
    os.dup2(theirs, 2)
    os.close(theirs)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        with open(ours, "rb") as written:  # noqa: PTH123  # a descriptor
            lines = written.read().splitlines(keepends=True)
        os.write(2, b"".join(line for line in lines if not line.startswith(b"INFO: ")))


class Classifier:
    """A model with its feature spec and its card.

    Parameters
    ----------
    model : bytes
        In LiteRT's format.
    spec : FeatureSpec
    card : dict
        The bundle's card. Its ``labels`` are in the order of the model's outputs; a probability
        below its ``threshold`` means that the clip is probably none of the labels.
    """

    def __init__(self, model: bytes, spec: FeatureSpec, card: dict[str, Any]) -> None:
        self.spec = spec
        self.card = card
        self.labels: list[str] = card["labels"]
        self.threshold = float(card["threshold"])
        self._model = model
        self._per_thread = threading.local()

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Load a bundle.

        Parameters
        ----------
        folder : Path
            Written by :mod:`pipeline.registry.package`.

        Returns
        -------
        Classifier

        Raises
        ------
        UserError
            If it is missing, damaged, or not a bundle.
        """
        card = read_card(folder)
        try:
            classifier = cls((folder / MODEL).read_bytes(), FeatureSpec.load(folder / SPEC), card)
            classifier.warm_up()
        except (KeyError, OSError, RuntimeError, TypeError, ValueError, BadZipFile) as error:
            reason = " ".join(str(error).split())  # LiteRT's messages have several lines
            raise UserError(
                f"{folder} is not a bundle ({reason}): run `python -m pipeline package` again."
            ) from None
        return classifier

    def warm_up(self) -> None:
        """Classify once, so that the first request in this thread does not wait for loading.

        Raises
        ------
        ValueError
            If the model's output does not fit the labels, or is not finite.
        """
        probabilities = self.infer(self.extract([np.zeros(self.spec.samples, np.float32)]))
        if probabilities.shape != (1, len(self.labels)):
            raise ValueError(
                f"the model has {probabilities.shape[1]} outputs for {len(self.labels)} labels"
            )
        if not np.isfinite(probabilities).all():
            raise ValueError("the model's probabilities for silence are not finite numbers")

    def predict(self, waveform: Floats, most: int, *, overlapping: bool = False) -> Prediction:
        """Classify a clip.

        Parameters
        ----------
        waveform : array, shape (samples,), float32
            At the spec's sample rate.
        most : int
            Maximum number of windows; the rest of the clip is ignored.
        overlapping : bool
            If true, analyse a window every half window length, over the whole clip, and leave out
            windows without sound. If false, treat the clip as in training: cut or pad it to one
            window, or split it.

        Returns
        -------
        Prediction

        Raises
        ------
        NoSoundError
            If no window holds a sound.
        """
        rate, samples = self.spec.sample_rate, self.spec.samples
        pieces: Sequence[Floats]
        if overlapping:
            pieces, step = overlap(waveform, self.spec, most), samples // 2
        else:
            pieces, step = list(windows(waveform, self.spec)[:most]), samples
        faults = [
            # without the padding, which would be a step down from a constant offset
            audible.fault(waveform[n * step :][:samples], rate, self.spec.min_seconds)
            for n in range(len(pieces))
        ]
        heard = [n for n, fault in enumerate(faults) if fault is None]
        if not heard:
            length = min(waveform.size, (len(pieces) - 1) * step + samples) / rate
            raise NoSoundError(f"The clip {faults[0]} in its first {length:.3g} seconds.")
        if not overlapping:
            heard = list(range(len(pieces)))
        starts = np.array(heard) * step / rate
        features = self.extract([pieces[n] for n in heard])
        probabilities = self.infer(features)
        return Prediction(
            probabilities=probabilities.mean(axis=0),
            starts=starts,
            windows=probabilities,
            features=features[0],
            summary=summarise(features[0]),
        )

    def knows(self, probabilities: Floats) -> bool:
        """Whether the highest probability reaches the threshold.

        If it does not, the clip is probably none of the labels (out-of-distribution).

        Parameters
        ----------
        probabilities : array, shape (classes,) or (windows, classes), float32
            Those of a clip or of its windows, of which one has to reach the threshold.
        """
        return float(probabilities.max()) >= self.threshold

    def extract(self, pieces: Iterable[Floats]) -> Floats:
        """Extract the features of windows as the featurize stage does, without normalising them.

        Parameters
        ----------
        pieces : iterable of array, shape (samples,), float32

        Returns
        -------
        array, shape (windows, bands, frames), float32
        """
        return np.stack([extract(piece, self.spec) for piece in pieces])

    def infer(self, features: Floats) -> Floats:
        """Return the probabilities of windows.

        The model gets one window at a time: with LiteRT, a larger batch is not faster and needs
        more memory.

        Parameters
        ----------
        features : array, shape (windows, bands, frames), float32
            Not normalised.

        Returns
        -------
        array, shape (windows, classes), float32
        """
        interpreter, given, answer = self._interpreter()
        probabilities = np.empty((len(features), answer["shape"][1]), np.float32)
        for row, window in enumerate(features):
            interpreter.set_tensor(given["index"], normalise(window, self.spec)[None, :, :, None])
            interpreter.invoke()
            probabilities[row] = interpreter.get_tensor(answer["index"])[0]
        return probabilities

    def _interpreter(self) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Return this thread's interpreter, because threads cannot share one."""
        if not hasattr(self._per_thread, "interpreter"):
            from ai_edge_litert.interpreter import (  # type: ignore[import-untyped]
                Interpreter,
            )

            with _STDERR_LOCK, without_info_lines():
                interpreter = Interpreter(model_content=self._model, num_threads=1)
                interpreter.allocate_tensors()
            self._per_thread.interpreter = (
                interpreter,
                interpreter.get_input_details()[0],
                interpreter.get_output_details()[0],
            )
        own: tuple[Any, dict[str, Any], dict[str, Any]] = self._per_thread.interpreter
        return own


def overlap(waveform: Floats, spec: FeatureSpec, most: int) -> list[Floats]:
    """Cut a waveform into windows that overlap by half; the last one is padded.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
    spec : FeatureSpec
    most : int
        Maximum number of windows.

    Returns
    -------
    list of array, shape (spec.samples,), float32
        At least one window. Windows that are not padded share the waveform's memory.
    """
    hop = spec.samples // 2
    count = min(most, 1 + math.ceil(max(0, waveform.size - spec.samples) / hop))
    pieces = [waveform[n * hop : n * hop + spec.samples] for n in range(count)]
    missing = spec.samples - pieces[-1].size
    if missing:
        pieces[-1] = np.pad(pieces[-1], (0, missing))
    return pieces


def summarise(features: Floats) -> dict[str, float]:
    """Summarise a window in a few numbers, to detect drift away from the training data.

    Parameters
    ----------
    features : array, shape (bands, frames), float32
        Not normalised.

    Returns
    -------
    dict
        ``level``, the mean of all values; ``contrast``, their standard deviation; and
        ``centroid``, the mean band number, weighted by the band's mean value above that of the
        weakest band.
    """
    bands = features.mean(axis=1, dtype=np.float64)
    weights = bands - bands.min()
    total = float(weights.sum())
    centroid = float((weights * np.arange(len(bands))).sum()) / total if total else 0.0
    return {
        "level": float(bands.mean()),
        "contrast": float(features.std(dtype=np.float64)),
        "centroid": centroid,
    }


def envelope(waveform: Floats, most: int) -> list[tuple[float, float]]:
    """Return the lowest and highest sample of equally long stretches, for drawing the waveform.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
    most : int
        Maximum number of stretches.

    Returns
    -------
    list of (float, float)
        Between -1 and 1, which is full scale.
    """
    edges = np.linspace(0, waveform.size, min(most, waveform.size), endpoint=False).astype(np.intp)
    low = np.minimum.reduceat(waveform, edges).clip(-1, 1).round(4).tolist()
    high = np.maximum.reduceat(waveform, edges).clip(-1, 1).round(4).tolist()
    return list(zip(low, high, strict=True))
