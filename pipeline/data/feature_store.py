"""Extract, write and read the features of a dataset: one array, and an index of its rows.

The features are not normalised, because the statistics belong to the training folds, and every
choice of folds has its own.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TypeVar

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline import cpus, paths, tables
from pipeline.errors import UserError
from pipeline.sound import decoding
from pipeline.sound.features import FeatureSpec, extract, window_stream

COLUMNS = ("path", "label", "fold", "recording")
"""Columns of the clips table that the index repeats for each window."""


SPOOL = 1 << 22
"""Bytes of a clip's features that wait in memory until they are written; more wait on the disk."""

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def extract_files(
    files: Sequence[Path], spec: FeatureSpec, heard: Callable[[float], object] = lambda _: None
) -> Generator[tuple[int, NDArray[np.float32]]]:
    """Extract the features of clips on all CPUs, in memory that does not grow with their length.

    Several files are decoded at a time, and the windows of each are shared between threads: neither
    many short clips nor one long recording leave a CPU idle. Decoder, resampler and Fourier
    transform all release the interpreter's lock. So threads are as fast as processes, without the
    cost of starting them and copying data.

    Parameters
    ----------
    files : sequence of Path
        Clips.
    spec : FeatureSpec
        What to compute.
    heard : callable, optional
        Called with the seconds of sound that have been decoded since the last call.

    Yields
    ------
    clip : int
        Place of the clip in `files`. The order is that of `files`.
    features : array, shape (windows, bands, frames), float32
        The next windows of the clip; all of them, unless it is long.

    Raises
    ------
    UserError
        When a clip cannot be decoded; names the clip.
    """
    count = cpus.available()
    lock, stopped = threading.Lock(), threading.Event()

    def tell(seconds: float) -> None:
        if stopped.is_set():  # or whoever stops us would wait for the end of a long recording
            raise CancelledError
        with lock:
            heard(seconds)

    paths.FEATURES.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(count) as extractors, ThreadPoolExecutor(count) as readers:
        one = partial(_extract_file, spec=spec, pool=extractors, ahead=count, heard=tell)
        try:
            for clip, spooled in enumerate(_in_order(readers, one, files, ahead=2 * count)):
                with spooled:
                    yield from ((clip, features) for features in _pieces(spooled, spec))
        finally:
            stopped.set()


def write(
    clips: pd.DataFrame, features: Iterable[tuple[int, NDArray[np.float32]]], spec: FeatureSpec
) -> pd.DataFrame:
    """Write the features of clips as they come, then their index and spec.

    Parameters
    ----------
    clips : DataFrame
        One row per clip, with :data:`COLUMNS`.
    features : iterable
        As :func:`extract_files` yields them, for the files of `clips` in their order.
    spec : FeatureSpec
        What the features were extracted with.

    Returns
    -------
    DataFrame
        The index, as in :class:`Features`.
    """
    paths.FEATURES.parent.mkdir(parents=True, exist_ok=True)
    unfinished = paths.FEATURES.with_name(paths.FEATURES.name + ".part")
    counts = [0] * len(clips)

    with unfinished.open("wb") as file:

        def write_header() -> None:
            shape = (sum(counts), *spec.shape)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)

        # The number of rows is known at the end; numpy leaves room for it in the header.
        write_header()
        for clip, windows in features:
            file.write(windows.tobytes())
            counts[clip] += len(windows)
        file.seek(0)
        write_header()
    # Without its index, nobody takes the new array for the old one if we are stopped in between.
    paths.FEATURE_INDEX.unlink(missing_ok=True)
    unfinished.replace(paths.FEATURES)
    spec.save(paths.FEATURE_SPEC)

    index = clips.loc[clips.index.repeat(counts)]
    index.insert(1, "window", np.concatenate([np.arange(count) for count in counts]))
    tables.write(paths.FEATURE_INDEX, index)
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
    if sorted(index["label"].unique()) != tables.read_json(paths.DATASET)["labels"]:
        raise UserError(
            f"{paths.FEATURES.parent} has the features of other clips than those in {paths.AUDIO}:"
            " run `dvc repro`."
        )
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


def _extract_file(
    file: Path, spec: FeatureSpec, pool: Executor, ahead: int, heard: Callable[[float], object]
) -> IO[bytes]:
    """Return a temporary file with the features of a clip; it is in memory unless it is large."""
    with ExitStack() as stack:
        spooled: IO[bytes] = stack.enter_context(
            SpooledTemporaryFile(SPOOL, dir=str(paths.FEATURES.parent))
        )
        blocks = stack.enter_context(closing(decoding.blocks(file, spec.sample_rate)))
        sound = window_stream(_heard(blocks, spec, heard), spec)
        try:
            for features in _in_order(pool, partial(extract, spec=spec), sound, ahead):
                spooled.write(features.tobytes())
        except decoding.AudioError as error:
            raise UserError(f"{file} is damaged: run the download stage again. {error}") from None
        spooled.seek(0)
        blocks.close()
        stack.pop_all()
    return spooled


def _heard(
    blocks: Iterable[NDArray[np.float32]], spec: FeatureSpec, heard: Callable[[float], object]
) -> Iterator[NDArray[np.float32]]:
    """Report the seconds of each block; sound that is cut away does not count."""
    left = math.inf if spec.longer == "split" else spec.samples
    for block in blocks:
        kept = min(block.size, left)
        heard(kept / spec.sample_rate)
        left -= kept
        yield block


def _pieces(spooled: IO[bytes], spec: FeatureSpec) -> Iterator[NDArray[np.float32]]:
    window = 4 * math.prod(spec.shape)  # bytes
    while content := spooled.read(window * max(1, SPOOL // window)):
        yield np.frombuffer(content, np.float32).reshape(-1, *spec.shape)


def _in_order(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Map like ``pool.map``, but take no more than `ahead` items before their results are used."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
