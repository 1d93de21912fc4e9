"""Waveform to probabilities with a serving bundle: numpy, scipy and LiteRT, no TensorFlow.

The same code answers a request, predicts files without a server and is held against Keras when
the bundle is made.
"""

from __future__ import annotations

import json
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
from pipeline.serving.bundle import MODEL, REFERENCE, SPEC, read_card
from pipeline.sound.features import FeatureSpec, extract, normalise, windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SILENCE = 1e-5
"""Times full scale; a window that nowhere exceeds it, a third of the smallest step of 16 bits, is
silent. Its features are the same whatever the label, so its probabilities would mean nothing."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of a clip.

    Attributes
    ----------
    probabilities : array, shape (labels,)
        The mean over the windows.
    starts : array, shape (windows,)
        Where the windows begin, in seconds.
    windows : array, shape (windows, labels)
        Probabilities of each window.
    features : array, shape (bands, frames)
        Of the first window, as extracted, not normalised.
    summary : dict
        See :func:`summarise`; of the first window.
    """

    probabilities: Floats
    starts: NDArray[np.float64]
    windows: Floats
    features: Floats
    summary: dict[str, float]


_MAKING = threading.Lock()
"""Standard error is one for all threads."""


@contextmanager
def without_notes() -> Iterator[None]:
    """Hold back what native code notes on standard error; its warnings and errors come after.

    LiteRT says which delegate it uses, and has no log level. Nothing is lost up to 64 KB.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)  # whoever writes more than a pipe holds must not wait for us
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


class Silence(Exception):  # noqa: N818  # a fact, and no fault
    """There is nothing to classify; the message is one sentence."""


class Classifier:
    """A model with its feature spec and its card.

    Parameters
    ----------
    model : bytes
        In LiteRT's format.
    spec : FeatureSpec
    card : dict
        What the bundle says of its model; ``labels`` are in the order of the outputs, and below
        ``threshold`` the clip is none of these.
    """

    def __init__(self, model: bytes, spec: FeatureSpec, card: dict[str, Any]) -> None:
        self.spec = spec
        self.card = card
        self.labels: list[str] = card["labels"]
        self.threshold = float(card["threshold"])
        self._model = model
        self._own = threading.local()

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Load a bundle.

        Parameters
        ----------
        folder : Path
            As :mod:`pipeline.registry.package` writes it.

        Returns
        -------
        Classifier

        Raises
        ------
        UserError
            When it is not there, or is not a bundle.
        """
        card = read_card(folder)
        try:
            classifier = cls((folder / MODEL).read_bytes(), FeatureSpec.load(folder / SPEC), card)
            classifier.warm_up()
        except (KeyError, OSError, RuntimeError, TypeError, ValueError, BadZipFile) as error:
            reason = " ".join(str(error).split())  # LiteRT's take several lines
            raise UserError(
                f"{folder} is not a bundle ({reason}): make it again with"
                " `python -m pipeline package`."
            ) from None
        return classifier

    def warm_up(self) -> None:
        """Do everything once, so that the first caller in this thread does not wait for it."""
        probabilities = self.infer(self.extract([np.zeros(self.spec.samples, np.float32)]))
        if probabilities.shape != (1, len(self.labels)):
            raise ValueError(f"the model has {probabilities.shape[1]} outputs for its labels")
        if not np.isfinite(probabilities).all():
            raise ValueError("the model's probabilities of silence are not numbers")

    def predict(self, waveform: Floats, most: int, *, overlapping: bool = False) -> Prediction:
        """Classify a clip.

        Parameters
        ----------
        waveform : array, shape (samples,)
            At the spec's sample rate.
        most : int
            Windows that are analysed; what comes after them is not.
        overlapping : bool
            Take windows all half a window apart, over the whole clip, without those that are
            silent. Otherwise the clip is taken as in training: cut or padded to one window, or
            split.

        Returns
        -------
        Prediction

        Raises
        ------
        Silence
            When there is no window with sound in it.
        """
        rate, samples = self.spec.sample_rate, self.spec.samples
        pieces: Sequence[Floats]
        if overlapping:
            pieces, step = overlap(waveform, self.spec, most), samples // 2
        else:
            pieces, step = list(windows(waveform, self.spec)[:most]), samples
        heard = [n for n, piece in enumerate(pieces) if np.abs(piece).max() > SILENCE]
        if not heard:
            length = min(waveform.size, (len(pieces) - 1) * step + samples) / rate
            raise Silence(f"The clip is silent in its first {length:.3g} seconds.")
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
        """Whether the most probable label is probable enough; if not, the clip is none of these.

        Parameters
        ----------
        probabilities : array, shape (labels,) or (windows, labels)
            Of a clip, or of windows of which one is enough.
        """
        return float(probabilities.max()) >= self.threshold

    def extract(self, pieces: Iterable[Floats]) -> Floats:
        """Features of windows, as the featurize stage has them: not normalised.

        Parameters
        ----------
        pieces : iterable of array, each of shape (samples,)

        Returns
        -------
        array, shape (windows, bands, frames), float32
        """
        return np.stack([extract(piece, self.spec) for piece in pieces])

    def infer(self, features: Floats) -> Floats:
        """Probabilities of windows.

        One at a time: a larger batch gains LiteRT nothing and would need memory for itself.

        Parameters
        ----------
        features : array, shape (windows, bands, frames)
            Not normalised.

        Returns
        -------
        array, shape (windows, labels), float32
        """
        interpreter, given, answer = self._interpreter()
        probabilities = np.empty((len(features), answer["shape"][1]), np.float32)
        for row, window in enumerate(features):
            interpreter.set_tensor(given["index"], normalise(window, self.spec)[None, :, :, None])
            interpreter.invoke()
            probabilities[row] = interpreter.get_tensor(answer["index"])[0]
        return probabilities

    def _interpreter(self) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Give this thread's interpreter: one is not made for two threads at a time."""
        if not hasattr(self._own, "interpreter"):
            from ai_edge_litert.interpreter import (  # type: ignore[import-untyped]
                Interpreter,
            )

            with _MAKING, without_notes():
                interpreter = Interpreter(model_content=self._model, num_threads=1)
                interpreter.allocate_tensors()
            self._own.interpreter = (
                interpreter,
                interpreter.get_input_details()[0],
                interpreter.get_output_details()[0],
            )
        own: tuple[Any, dict[str, Any], dict[str, Any]] = self._own.interpreter
        return own


def overlap(waveform: Floats, spec: FeatureSpec, most: int) -> list[Floats]:
    """Windows half a window apart, as many as cover the waveform; the last one is padded.

    Parameters
    ----------
    waveform : array, shape (samples,)
    spec : FeatureSpec
    most : int
        Windows are given.

    Returns
    -------
    list of array, each of shape (spec.samples,)
        At least one; all but a padded one share the waveform's memory.
    """
    hop = spec.samples // 2
    count = min(most, 1 + math.ceil(max(0, waveform.size - spec.samples) / hop))
    pieces = [waveform[n * hop : n * hop + spec.samples] for n in range(count)]
    missing = spec.samples - pieces[-1].size
    if missing:
        pieces[-1] = np.pad(pieces[-1], (0, missing))
    return pieces


def summarise(features: Floats) -> dict[str, float]:
    """Few numbers that say what a window is like, to notice when windows become unlike training.

    Parameters
    ----------
    features : array, shape (bands, frames)
        As extracted.

    Returns
    -------
    dict
        ``level``, the mean of all values; ``contrast``, their standard deviation; and
        ``centroid``, the mean number of the band, weighted by how far the band is above the
        lowest one.
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
    """Lowest and highest sample of at most `most` equal stretches, to draw the waveform from.

    Parameters
    ----------
    waveform : array, shape (samples,)
    most : int
        Stretches are given.

    Returns
    -------
    list of (float, float)
        Within -1 and 1, which is full scale.
    """
    edges = np.linspace(0, waveform.size, min(most, waveform.size), endpoint=False).astype(np.intp)
    low = np.minimum.reduceat(waveform, edges).clip(-1, 1).round(4).tolist()
    high = np.maximum.reduceat(waveform, edges).clip(-1, 1).round(4).tolist()
    return list(zip(low, high, strict=True))


def read_reference(folder: Path) -> dict[str, Any]:
    """Read what the predictions of a bundle are compared with; empty where nothing is known.

    Raises
    ------
    UserError
        When it is not JSON.
    """
    try:
        held: dict[str, Any] = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{folder / REFERENCE} is not JSON: make the bundle again.") from None
    return held
