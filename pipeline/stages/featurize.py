"""Extract the features of every clip into one array.

    python -m pipeline featurize

The ``features`` section of ``params.yaml`` says which features. The result is in ``features/``.
"""

import time
from contextlib import closing

from tqdm import tqdm

from pipeline import evidence, params, paths, tables
from pipeline.data import feature_store, preflight
from pipeline.sound import decoding, sampling
from pipeline.sound.features import FeatureSpec, make_spec

NAMES = {"logmel": "log-mel", "mfcc": "MFCC", "stft": "STFT"}
"""Usual names of the kinds of features."""

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.2f}/{total:.2f} h of sound [{elapsed}<{remaining}]"
"""Progress in hours of sound, because one clip may be hours long."""


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
    clips = tables.read(paths.CLIPS, (*feature_store.COLUMNS, "seconds"))
    card = tables.read_json(paths.DATASET)
    settings = params.load()
    preflight.check(settings, clips, card["clip_seconds"])
    spec = make_spec(settings.features, card["clip_seconds"])

    seconds = clips["seconds"]
    sound = (seconds if spec.longer == "split" else seconds.clip(upper=spec.seconds)).sum()
    started = time.monotonic()
    files = [paths.AUDIO / path for path in clips["path"]]
    with (
        decoding.muted(),
        tqdm(desc="featurize", total=sound / 3600, bar_format=BAR, disable=None) as bar,
        closing(
            feature_store.extract_files(files, spec, lambda heard: bar.update(heard / 3600))
        ) as features,
    ):
        index = feature_store.write(clips[list(feature_store.COLUMNS)], features, spec)
    line = _line(len(files), sound, len(index), spec, time.monotonic() - started)
    return evidence.lines(
        line, sampling.remarks(files, settings.features, spec, card["clip_seconds"])
    )


def _line(clips: int, sound: float, windows: int, spec: FeatureSpec, took: float) -> str:
    if sound < 100:
        length = f"{sound:.0f} s"
    else:
        length = f"{sound / 60:.0f} min" if sound < 3570 else f"{sound / 3600:,.1f} h"
    bands, frames = spec.shape
    return (
        f"{clips} clips, {length} of sound -> {windows:,} windows of {bands} x {frames}"
        f" {NAMES[spec.kind]}, {sound / took:,.0f} x real time"
    )
