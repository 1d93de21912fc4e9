"""Extract the features of every clip into one array.

    python -m pipeline featurize

The ``features`` section of ``params.yaml`` says which features. The result is in ``features/``.
"""

import time

from tqdm import tqdm

from pipeline import params, paths, tables
from pipeline.data import feature_store
from pipeline.sound.features import make_spec

NAMES = {"logmel": "log-mel", "mfcc": "MFCC", "stft": "STFT"}
"""Usual names of the kinds of features."""


def main() -> str:
    """Extract the features of every clip in the clips table.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When an earlier stage's output is missing, when settings cannot work together, or when a
        clip cannot be decoded.
    """
    clips = tables.read(paths.CLIPS, feature_store.COLUMNS)
    card = tables.read_json(paths.DATASET)
    spec = make_spec(params.load().features, card["clip_seconds"])

    started = time.monotonic()
    files = [paths.AUDIO / path for path in clips["path"]]
    features = feature_store.extract_files(files, spec)
    progress = tqdm(features, "featurize", len(files), unit="clip", disable=None)
    index = feature_store.write(clips, iter(progress), spec)
    speed = len(files) / (time.monotonic() - started)
    bands, frames = spec.shape
    return (
        f"{len(files)} clips -> {len(index)} windows of {bands} x {frames} {NAMES[spec.kind]},"
        f" {speed:.0f} clips/s"
    )
