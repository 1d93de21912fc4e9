"""Extract, write and read the features of a dataset: one array, and an index of its rows.

The features are not normalised, because the statistics belong to the training folds, and every
choice of folds has its own.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline import cpus, paths, tables
from pipeline.errors import UserError
from pipeline.sound import decoding
from pipeline.sound.features import FeatureSpec, extract, windows

COLUMNS = ("path", "label", "fold", "recording")
"""Columns of the clips table that the index repeats for each window."""


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a dataset.

    Attributes
    ----------
    array : array, shape (windows, bands, frames), float32
        Memory-mapped, read-only.
    index : DataFrame
        One row per row of `array`: path, window, label, fold, recording.
    spec : FeatureSpec
        What the features were extracted with; without statistics.
    """

    array: NDArray[np.float32]
    index: pd.DataFrame
    spec: FeatureSpec


def extract_files(files: Sequence[Path], spec: FeatureSpec) -> Iterator[NDArray[np.float32]]:
    """Extract the features of clips, with one thread per CPU.

    Decoder, resampler and Fourier transform all release the interpreter's lock. So threads are as
    fast as processes, without the cost of starting them and copying data.

    Parameters
    ----------
    files : sequence of Path
        Clips.
    spec : FeatureSpec
        What to compute.

    Yields
    ------
    array, shape (windows, bands, frames), float32
        The features of each clip, in the order of `files`.

    Raises
    ------
    UserError
        When a clip cannot be decoded; names the clip.
    """
    with ThreadPoolExecutor(cpus.available()) as pool:
        yield from pool.map(lambda file: _extract_file(file, spec), files)


def write(
    clips: pd.DataFrame, features: Iterator[NDArray[np.float32]], spec: FeatureSpec
) -> pd.DataFrame:
    """Write the features of clips, one clip at a time, then their index and spec.

    Parameters
    ----------
    clips : DataFrame
        One row per clip, with :data:`COLUMNS`.
    features : iterator of array, shape (windows, bands, frames), float32
        The features of each clip, in the order of `clips`.
    spec : FeatureSpec
        What the features were extracted with.

    Returns
    -------
    DataFrame
        The index, as in :class:`Features`.
    """
    paths.FEATURES.parent.mkdir(parents=True, exist_ok=True)
    unfinished = paths.FEATURES.with_name(paths.FEATURES.name + ".part")
    counts: list[int] = []

    with unfinished.open("wb") as file:

        def write_header() -> None:
            shape = (sum(counts), *spec.shape)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)

        # The number of rows is known at the end; numpy leaves room for it in the header.
        write_header()
        for of_clip in features:
            file.write(of_clip.tobytes())
            counts.append(len(of_clip))
        file.seek(0)
        write_header()
    unfinished.replace(paths.FEATURES)

    index = clips.loc[clips.index.repeat(counts)]
    index.insert(1, "window", np.concatenate([np.arange(count) for count in counts]))
    tables.write(paths.FEATURE_INDEX, index)
    spec.save(paths.FEATURE_SPEC)
    return index


def read() -> Features:
    """Read the features that :func:`write` wrote.

    Returns
    -------
    Features

    Raises
    ------
    UserError
        When a file is missing or the files do not belong together.
    """
    index = tables.read(paths.FEATURE_INDEX, (*COLUMNS, "window"))
    spec = FeatureSpec.load(paths.FEATURE_SPEC)
    try:
        array = np.load(paths.FEATURES, mmap_mode="r")
    except (OSError, ValueError):
        raise UserError(f"{paths.FEATURES} cannot be read: run the featurize stage.") from None
    if array.shape != (len(index), *spec.shape):
        raise UserError(
            f"{paths.FEATURES} and {paths.FEATURE_INDEX} do not belong together: run the featurize"
            " stage again."
        )
    return Features(array, index, spec)


def _extract_file(file: Path, spec: FeatureSpec) -> NDArray[np.float32]:
    try:
        waveform = decoding.load(file, spec.sample_rate)
    except decoding.AudioError as error:
        raise UserError(f"{file} is damaged: run the download stage again. {error}") from None
    return np.stack([extract(window, spec) for window in windows(waveform, spec)])
