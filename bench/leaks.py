"""Measure the false alarms and the misses of the leak check on clips of several lengths.

    python -m bench.leaks [--seconds 0.5 1 2 5]

It cuts the clips of the dataset in ``data/``. Cuts of different recordings are different, so each
near-duplicate among them is a false alarm. A cut and its copy in another format, at another level
or with noise are the same sound; so are two cuts of one clip that overlap by about half. Those that
are not found are misses. Pairs of recordings that are known to be the same sound are left out.
"""

import argparse
import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray
from tqdm.auto import tqdm

from pipeline import cpus, paths, stage, tables
from pipeline.sound import decoding, fingerprint

Wave = NDArray[np.float32]

RATE = 16_000
"""Sample rate in Hz of the cuts; MP3 has none below that."""

COPIES = ("mp3", "ogg", "quiet", "noise")

KNOWN = {frozenset({"28314", "30322"}), frozenset({"151080", "151085"})}
"""Recordings of ESC-10 that contain the same sound."""


class Cut(NamedTuple):
    """A stretch of a clip, and the stretch of the same length that begins about halfway."""

    recording: str
    first: Wave
    second: Wave


def main(lengths: list[float]) -> str:
    """Measure and print one row per length.

    Parameters
    ----------
    lengths : list of float
        In seconds; 0 for whole clips, of which the overlapping cuts are three quarters.

    Returns
    -------
    str
        The closing line.
    """
    clips = tables.read(paths.CLIPS)
    rows = []
    for seconds in lengths:
        rng = np.random.default_rng(1)
        cuts = []
        for clip in tqdm(clips.itertuples(), "cut", len(clips), unit="clip", disable=None):
            wave = decoding.load(paths.AUDIO / str(clip.path), RATE)
            if (made := cut(wave, seconds, rng)) is not None:
                cuts.append(Cut(str(clip.recording), *made))
        rows.append({"seconds": seconds or "whole", "cuts": len(cuts), **measure(cuts)})
    print(pd.DataFrame(rows).to_string(index=False))
    return f"{len(clips)} clips of {tables.read_json(paths.DATASET)['name']}"


def cut(wave: Wave, seconds: float, rng: np.random.Generator) -> tuple[Wave, Wave] | None:
    """Cut two stretches that overlap by about half; None if one of them is nearly silent."""
    size = round(seconds * RATE) if seconds else round(0.75 * wave.size)
    step = round(size * (rng.uniform(0.4, 0.6) if seconds else 1 / 3))
    start = int(rng.integers(0, max(1, wave.size - size - step)))
    first, second = wave[start : start + size], wave[start + step : start + step + size]
    common = wave[start + step : start + size]
    quietest = min(np.abs(part).max(initial=0) for part in (first, second, common))
    return None if quietest < 0.01 else (first, second)


def copy(wave: Wave, how: str) -> Wave:
    """Return a copy in another format, at a twentieth of the level, or with noise 20 dB below."""
    kind, subtype = {"mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS")}.get(
        how, ("WAV", "FLOAT")
    )
    if how == "noise":
        noise = np.random.default_rng(zlib.crc32(wave.tobytes())).standard_normal(wave.size)
        wave = np.asarray(wave + noise * wave.std() / 10, np.float32)
    file = io.BytesIO()
    soundfile.write(file, wave / 20 if how == "quiet" else wave / 2, RATE, subtype, format=kind)
    return decoding.load(file.getvalue(), fingerprint.SAMPLE_RATE)


def measure(cuts: list[Cut]) -> dict[str, str]:
    """Count false alarms and misses, as ``before -> after`` the threshold depended on length."""
    with ThreadPoolExecutor(cpus.available()) as pool:

        def marks(which: str, how: str) -> list[fingerprint.Landmarks]:
            waves = [getattr(each, which) for each in cuts]
            return list(pool.map(lambda wave: fingerprint.landmarks(copy(wave, how)), waves))

        first = marks("first", "plain")
        copies = pd.concat([same(first, marks("first", how)) for how in COPIES])
        halves = pd.concat([same(first, marks("second", how)) for how in ("plain", *COPIES)])
    found = fingerprint.matches(first)
    recordings = [each.recording for each in cuts]
    different = [
        a != b and frozenset({a, b}) not in KNOWN
        for a, b in zip(
            (recordings[row] for row in found["a"]),
            (recordings[row] for row in found["b"]),
            strict=True,
        )
    ]
    alarms = found[different]
    return {
        "false alarms": f"{(alarms['score'] >= fingerprint.SHARE).sum()} -> {alarms['same'].sum()}",
        "missed copies": _missed(copies),
        "missed halves": _missed(halves),
    }


def same(left: list[fingerprint.Landmarks], right: list[fingerprint.Landmarks]) -> pd.DataFrame:
    """Match each clip with its partner; ``score`` and ``same``, with 0 and False if not found."""
    found = fingerprint.matches([*left, *right])
    own = found[found["b"] - found["a"] == len(left)].set_index("a")[["score", "same"]]
    return (
        own.reindex(range(len(left)))
        .fillna({"score": 0.0})
        .assign(same=lambda table: table["same"].eq(True))
    )


def _missed(pairs: pd.DataFrame) -> str:
    before = (pairs["score"] < fingerprint.SHARE).mean()
    return f"{before:.1%} -> {(~pairs['same']).mean():.1%}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.leaks", description=__doc__)
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.5, 1, 2, 5, 0])
    options = parser.parse_args()
    stage.run("leaks", lambda: main(options.seconds))
