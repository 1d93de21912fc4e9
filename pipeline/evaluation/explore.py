"""Measure a dataset for the notebooks: loudness, silence, features, and a map of the clips."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from pipeline import cpus, paths
from pipeline.data.feature_store import Features, extract_files
from pipeline.params import FeatureKind, FeatureParams
from pipeline.sound import decoding
from pipeline.sound.features import make_spec

LOUDNESS_RATE = 22_050
"""Sample rate in hertz at which levels are measured."""

FRAME = 1024
"""Samples per frame of the silence measurement: 46 ms."""

QUIET = -60.0
"""Level in dB relative to full scale below which a frame counts as silent."""


def one_of_each(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Choose a random clip of each label; the same seed chooses the same clips."""
    return clips.groupby("label", sort=True).sample(1, random_state=seed).reset_index(drop=True)


def loudness(clips: pd.DataFrame) -> pd.DataFrame:
    """Measure how loud each clip is and how much of it is silent.

    Parameters
    ----------
    clips : DataFrame
        The clips table.

    Returns
    -------
    DataFrame
        One row per clip: ``path``, ``label``; ``peak`` and ``level`` (root mean square), both in
        dB relative to full scale; ``silence``, the share of frames below :data:`QUIET`.
    """

    def one(path: str) -> tuple[float, float, float]:
        waveform = decoding.load(paths.AUDIO / path, LOUDNESS_RATE)
        length = max(1, waveform.size // FRAME) * FRAME
        frames = np.resize(waveform, length).reshape(-1, FRAME)
        levels = _decibels(np.sqrt(np.square(frames).mean(axis=1)))
        level = _decibels(np.sqrt(np.square(waveform).mean(keepdims=True)))
        return (
            float(_decibels(np.abs(waveform).max(keepdims=True))[0]),
            float(level[0]),
            float((levels < QUIET).mean()),
        )

    with decoding.muted(), ThreadPoolExecutor(cpus.available()) as pool:
        measured = list(pool.map(one, clips["path"]))
    return clips[["path", "label"]].assign(
        **dict(zip(("peak", "level", "silence"), zip(*measured, strict=True), strict=True))
    )


def extracted(
    clips: pd.DataFrame, settings: FeatureParams, clip_seconds: float, kind: FeatureKind
) -> Features:
    """Extract features of any kind, in memory.

    Parameters
    ----------
    clips : DataFrame
        The clips table.
    settings : FeatureParams
        Its ``kind`` is ignored.
    clip_seconds : float
        The dataset's nominal clip length.
    kind : {'logmel', 'mfcc', 'stft'}

    Returns
    -------
    Features
        Like those from :func:`pipeline.data.feature_store.read`.
    """
    spec = make_spec(settings.model_copy(update={"kind": kind}), clip_seconds)
    pieces = list(extract_files([paths.AUDIO / path for path in clips["path"]], spec))
    rows = [clip for clip, windows in pieces for _ in windows]
    index = clips.iloc[rows][["path", "label", "fold", "recording"]]
    array = np.concatenate([windows for _, windows in pieces])
    return Features(array, index.reset_index(drop=True), spec)


def positions(features: Features, seed: int) -> pd.DataFrame:
    """Place windows in two dimensions so that similar ones are near each other (t-SNE).

    A window is described by the mean and the standard deviation of each band over time.

    Parameters
    ----------
    features : Features
    seed : int

    Returns
    -------
    DataFrame
        The index of `features` with ``x`` and ``y``; their scale and direction carry no meaning
        (van der Maaten and Hinton 2008).
    """
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    array = np.asarray(features.array)
    described = np.concatenate([array.mean(axis=2), array.std(axis=2)], axis=1)
    perplexity = min(30.0, (len(array) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    x, y = layout.fit_transform(StandardScaler().fit_transform(described)).T
    return features.index.assign(x=x, y=y)


def _decibels(amplitude: np.ndarray) -> np.ndarray:
    return np.asarray(20 * np.log10(np.maximum(amplitude, 1e-6)))
