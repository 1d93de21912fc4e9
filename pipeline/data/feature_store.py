"""Stage: clips to features, one array for the dataset and an index that says what its rows are.

The features are not normalised: the statistics belong to the folds that train, and every choice
of folds has its own.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import cpus, paths, tables
from pipeline.errors import UserError
from pipeline.sound import decoding
from pipeline.sound.features import FeatureSpec, extract, windows

COLUMNS = ("path", "label", "fold", "recording")
"""Of the clips table, what the index says again for each window."""

NAMES = {"logmel": "log-mel", "mfcc": "MFCC", "stft": "STFT"}


@dataclass(frozen=True, eq=False)
class Features:
    """What the stage left.

    Attributes
    ----------
    array : array, shape (rows, bands, frames), float32
        Memory-mapped, read-only.
    index : DataFrame
        A row for a row of `array`: path, window, label, fold, recording.
    spec : FeatureSpec
        What made them; without statistics.
    """

    array: NDArray[np.float32]
    index: pd.DataFrame
    spec: FeatureSpec


def extract_files(files: Sequence[Path], spec: FeatureSpec) -> Iterator[NDArray[np.float32]]:
    """Extract the features of clips, in a thread for each core.

    Decoder, resampler and Fourier transform all release the interpreter's lock: threads do as
    well as processes, and there is nothing to start or to copy.

    Parameters
    ----------
    files : sequence of Path
        Clips.
    spec : FeatureSpec
        What to compute.

    Yields
    ------
    array, shape (windows, bands, frames), float32
        Of each clip, in the order of `files`.

    Raises
    ------
    UserError
        When a clip does not decode; names it.
    """
    with ThreadPoolExecutor(cpus.available()) as pool:
        yield from pool.map(lambda file: _extract_file(file, spec), files)


def read() -> Features:
    """Read what the stage left.

    Returns
    -------
    Features

    Raises
    ------
    UserError
        When it is missing or its parts are not of one run.
    """
    index = tables.read(paths.FEATURE_INDEX, (*COLUMNS, "window"))
    spec = FeatureSpec.load(paths.FEATURE_SPEC)
    try:
        array = np.load(paths.FEATURES, mmap_mode="r")
    except (OSError, ValueError):
        raise UserError(f"{paths.FEATURES} cannot be read: run the featurize stage.") from None
    if array.shape != (len(index), *spec.shape):
        raise UserError(
            f"{paths.FEATURES} and {paths.FEATURE_INDEX} are not of one run: run the featurize"
            " stage again."
        )
    return Features(array, index, spec)


def _extract_file(file: Path, spec: FeatureSpec) -> NDArray[np.float32]:
    try:
        waveform = decoding.load(file, spec.sample_rate)
    except decoding.AudioError as error:
        raise UserError(
            f"{file} cannot be used any more, run the download stage again: {error}"
        ) from None
    return np.stack([extract(window, spec) for window in windows(waveform, spec)])


def write_header(file: IO[bytes], rows: int, spec: FeatureSpec) -> None:
    """Write the header of an array file with so many rows."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, *spec.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def replace(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        write(file)
    unfinished.replace(path)
