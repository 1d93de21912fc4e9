"""Put clips into a page: the sound as a data URI and the waveform as a drawing."""

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import soundfile

from pipeline import drawing, paths
from pipeline.evaluation import templating
from pipeline.serving.classifier import envelope
from pipeline.sound import decoding

SECONDS = 10.0
"""Maximum length of a clip in a page, in seconds, to keep the page small."""

RATE = 32_000
"""Sample rate in hertz; MP3 and all browsers support it."""

POINTS = 160
"""Maximum number of points in a drawing of a waveform."""


def clip(path: str) -> dict[str, str]:
    """Return what a template needs to play a clip.

    Parameters
    ----------
    path : str
        As in the clips table.

    Returns
    -------
    dict
        ``path``; ``sound``, see :func:`data_uri`; ``waveform``, see :func:`outline`.
    """
    with decoding.muted():
        waveform = decoding.load(paths.AUDIO / path, RATE, max_seconds=SECONDS)
    return {"path": path, "sound": data_uri(waveform), "waveform": outline(waveform)}


def label(name: str, probability: float, labels: list[str]) -> dict[str, Any]:
    """Return what a template needs to show a label: name, probability and number of its colour."""
    colour = labels.index(name) % len(drawing.CLASS_COLOURS)
    return {"name": name, "probability": probability, "colour": colour}


def html(clips: Iterable[tuple[str, str]]) -> str:
    """Make audio players for a notebook.

    Parameters
    ----------
    clips : iterable of (path, caption)
        Paths as in the clips table.

    Returns
    -------
    str
        HTML for ``IPython.display.HTML``; empty without clips.
    """
    return templating.render(
        "players.html", clips=[{**clip(path), "caption": caption} for path, caption in clips]
    )


def data_uri(waveform: decoding.Waveform) -> str:
    """Encode a waveform as MP3 for an ``<audio>`` element.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
        At :data:`RATE`.

    Returns
    -------
    str
        A data URI.
    """
    encoded = io.BytesIO()
    peak = max(1.0, float(np.abs(waveform).max()))
    soundfile.write(encoded, waveform / peak, RATE, format="MP3")
    return f"data:audio/mpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def outline(waveform: decoding.Waveform) -> str:
    """Return a waveform, scaled to its peak, as points of an SVG polygon of 160 x 40 units.

    Parameters
    ----------
    waveform : array, shape (samples,), float32
    """
    pairs = np.array(envelope(waveform, POINTS))
    pairs = 20 - 19 * pairs / max(float(np.abs(pairs).max()), 1e-6)
    low, high = ([f"{x},{y:.1f}" for x, y in enumerate(side)] for side in pairs.T)
    return " ".join([*high, *reversed(low)])
