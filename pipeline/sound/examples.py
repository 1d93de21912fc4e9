"""Example clips of a model: of each label, the test clip that it is right about and most sure of.

The evaluation adds them to the training run, so that whoever packages a version needs none of its
data. The page offers them to try, and a deployment is asked for them.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import soundfile

from pipeline import paths
from pipeline.sound import decoding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SECONDS = 10.0
"""Of an example, at most."""

INDEX = "index.json"
"""Names the files of a folder of examples by label."""


def choose(predictions: pd.DataFrame) -> dict[str, str]:
    """Choose a clip a label.

    Parameters
    ----------
    predictions : DataFrame
        As :func:`pipeline.training.predictions.by_clip` makes it.

    Returns
    -------
    dict
        Path by label; without the labels of which no clip was recognised.
    """
    chosen = {}
    right = predictions[predictions["label"] == predictions["predicted"]]
    for label, clips in right.groupby("label"):
        best_first = clips.sort_values([f"p_{label}", "path"], ascending=[False, True])
        chosen[str(label)] = str(best_first["path"].iloc[0])
    return chosen


def save(folder: Path, predictions: pd.DataFrame, rate: int) -> None:
    """Write the chosen clips and their index into a folder of its own.

    Parameters
    ----------
    folder : Path
        Is replaced.
    predictions : DataFrame
        See :func:`choose`; paths are relative to the dataset's audio.
    rate : int
        Sample rate in hertz.
    """
    shutil.rmtree(folder, ignore_errors=True)
    waveforms = {}
    for label, path in choose(predictions).items():
        with contextlib.suppress(decoding.AudioError):
            waveforms[label] = decoding.load(paths.AUDIO / path, rate, SECONDS)
    named = write(folder, waveforms, rate)
    text = json.dumps(named, indent=2, ensure_ascii=False) + "\n"
    (folder / INDEX).write_text(text, encoding="utf-8")


def load(folder: Path, rate: int) -> dict[str, "Floats"]:
    """Read what :func:`save` wrote: waveforms by label."""
    named = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return {label: decoding.load(folder / name, rate, SECONDS) for label, name in named.items()}


def write(folder: Path, waveforms: Mapping[str, "Floats"], rate: int) -> dict[str, str]:
    """Write waveforms as WAV files; give their names by label."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {}
    for number, (label, waveform) in enumerate(sorted(waveforms.items())):
        # a label may be anything; a name that is not safe as a file's becomes a number
        named[label] = f"{label if label.isidentifier() and label.isascii() else number}.wav"
        soundfile.write(folder / named[label], waveform, rate)
    return named
