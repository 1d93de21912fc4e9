"""Stage ``featurize``: extract the features of every clip into one array."""

import json
import time
from typing import IO

import numpy as np
from tqdm import tqdm

from pipeline import params, paths, tables
from pipeline.data import feature_store
from pipeline.sound.features import make_spec


def main() -> str:
    """Extract the features of every clip in the clips table.

    Returns
    -------
    str
        What was done, in a line.

    Raises
    ------
    UserError
        When an earlier stage's output is missing, when settings cannot work together, or when a
        clip does not decode.
    """
    clips = tables.read(paths.CLIPS, feature_store.COLUMNS)
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    spec = make_spec(params.load().features, card["clip_seconds"])

    started = time.monotonic()
    files = [paths.AUDIO / path for path in clips["path"]]
    progress = tqdm(
        feature_store.extract_files(files, spec), "featurize", len(files), unit="clip", disable=None
    )
    counts: list[int] = []

    def write_array(file: IO[bytes]) -> None:
        # the number of rows is known at the end; numpy leaves room for it in the header
        feature_store.write_header(file, 0, spec)
        for features in progress:
            file.write(features.tobytes())
            counts.append(len(features))
        file.seek(0)
        feature_store.write_header(file, sum(counts), spec)

    feature_store.replace(paths.FEATURES, write_array)
    speed = len(files) / (time.monotonic() - started)
    index = clips.loc[clips.index.repeat(counts)]
    index.insert(1, "window", np.concatenate([np.arange(count) for count in counts]))
    feature_store.replace(
        paths.FEATURE_INDEX, lambda file: index.to_csv(file, index=False, lineterminator="\n")
    )
    spec.save(paths.FEATURE_SPEC)
    bands, frames = spec.shape
    return (
        f"{len(files)} clips -> {len(index)} windows of {bands} x {frames}"
        f" {feature_store.NAMES[spec.kind]},"
        f" {speed:.0f} clips/s"
    )
