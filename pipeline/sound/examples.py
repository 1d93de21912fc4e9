"""Choose, write and read example clips: the best recognised test clip of each label.

The evaluation adds them to the training run, so that a version can be packaged without its
dataset. The service's page offers them to try, and the smoke test of a deployment uses them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import soundfile

from pipeline import paths, tables
from pipeline.sound import decoding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SECONDS = 10.0
"""Maximum length of an example, in seconds."""

INDEX = "index.json"
"""The file in a folder of examples that lists their files and sources by label."""


@dataclass(frozen=True, eq=False)
class Example:
    """A clip that shows what a label sounds like.

    Attributes
    ----------
    waveform : array, shape (samples,), float32
    path : str
        The clip's path in the dataset; empty if it is not known.
    recording : str
        The recording that the clip was cut from; empty if it is not known.
    """

    waveform: Floats
    path: str = ""
    recording: str = ""


def choose(predictions: pd.DataFrame) -> dict[str, str]:
    """Choose one clip per label: the correct one with the highest probability.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`pipeline.training.predictions.by_clip`.

    Returns
    -------
    dict
        Paths by label. A label is missing if none of its clips was recognised.
    """
    chosen = {}
    right = predictions[predictions["label"] == predictions["predicted"]]
    for label, clips in right.groupby("label"):
        best_first = clips.sort_values([f"p_{label}", "path"], ascending=[False, True])
        chosen[str(label)] = str(best_first["path"].iloc[0])
    return chosen


def save(folder: Path, predictions: pd.DataFrame, rate: int) -> None:
    """Write the chosen clips and their index into a folder.

    Parameters
    ----------
    folder : Path
        It is replaced.
    predictions : DataFrame
        See :func:`choose`; also with ``recording``. Paths are relative to the dataset's audio.
    rate : int
        Sample rate in hertz.
    """
    shutil.rmtree(folder, ignore_errors=True)
    recordings = dict(zip(predictions["path"], predictions["recording"], strict=True))
    examples = {}
    for label, path in choose(predictions).items():
        with contextlib.suppress(decoding.AudioError), decoding.muted():
            waveform = decoding.load(paths.AUDIO / path, rate, SECONDS)
            examples[label] = Example(waveform, path, str(recordings[path]))
    file_names = write(folder, examples, rate)
    index = {
        label: {"file": name, "path": examples[label].path, "recording": examples[label].recording}
        for label, name in file_names.items()
    }
    tables.write_json(folder / INDEX, index)


def load(folder: Path, rate: int) -> dict[str, Example]:
    """Read the examples that :func:`save` wrote.

    Parameters
    ----------
    folder : Path
    rate : int
        Sample rate in hertz.

    Returns
    -------
    dict
        Examples by label.
    """
    examples = {}
    for label, entry in tables.read_json(folder / INDEX).items():
        # an evaluation by an earlier release recorded only the file name
        record = entry if isinstance(entry, dict) else {"file": entry, "path": "", "recording": ""}
        waveform = decoding.load(folder / record["file"], rate, SECONDS)
        examples[label] = Example(waveform, record["path"], record["recording"])
    return examples


def write(folder: Path, examples: Mapping[str, Example], rate: int) -> dict[str, str]:
    """Write examples as WAV files.

    Parameters
    ----------
    folder : Path
    examples : dict
        Examples by label.
    rate : int
        Sample rate in hertz.

    Returns
    -------
    dict
        File names by label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file_names = {}
    for number, (label, example) in enumerate(sorted(examples.items())):
        # a label may be anything, so one that is not safe as a file name becomes a number
        file_names[label] = f"{label if label.isidentifier() and label.isascii() else number}.wav"
        soundfile.write(folder / file_names[label], example.waveform, rate)
    return file_names
