"""Compare the speed of the featurize stage with librosa, in clips per second.

``python -m bench.featurize [FOLDER] [--repeats N]``. Both sides read files, mix them down, resample
to `features.sample_rate` and extract features with the settings in ``params.yaml``. Ours is the
code of the featurize stage, on all CPUs. librosa's is a plain loop in one process, after a first
call that lets numba compile. The sides take turns, so other load on the machine slows both.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import librosa
import numpy as np
from tqdm import tqdm

from pipeline import params
from pipeline.data.feature_store import extract_files
from pipeline.sound.features import FeatureSpec, make_spec

ESC10 = Path("../shared/data/esc10")


def main() -> None:
    """Print a table of clips per second."""
    parser = argparse.ArgumentParser(description="Compare the speed of featurize with librosa.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=ESC10, help="a folder with sounds of 5 s"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    files = sorted(options.folder.rglob("*.ogg")) + sorted(options.folder.rglob("*.wav"))
    if not files:
        parser.error(f"{options.folder} contains no .ogg or .wav files")

    kinds = ("logmel", "mfcc")
    specs = {kind: _spec(kind) for kind in kinds}
    sides: dict[str, Callable[[list[Path]], None]] = {}
    for kind, spec in specs.items():
        sides[f"ours {kind}"] = partial(_ours, spec=spec)
        sides[f"librosa {kind}"] = partial(_librosas, spec=spec)
    for side in sides.values():  # lets numba compile, and fills the file cache
        side(files[:20])

    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in tqdm(range(options.repeats), unit="repeat", disable=None):
        for name, side in sides.items():
            started = time.perf_counter()
            side(files)
            speeds[name].append(len(files) / (time.perf_counter() - started))

    print(f"{len(files)} clips, medians of {options.repeats} repeats (lowest to highest)\n")
    print("| features | ours, clips/s | librosa one by one, clips/s | ratio |")
    print("|---|---:|---:|---:|")
    for kind, spec in specs.items():
        ours, librosas = speeds[f"ours {kind}"], speeds[f"librosa {kind}"]
        ratios = [one / other for one, other in zip(ours, librosas, strict=True)]
        bands, frames = spec.shape
        row = (f"{kind} {bands} x {frames}", _range(ours), _range(librosas), _range(ratios, ".2f"))
        print(f"| {' | '.join(row)} |")


def _spec(kind: str) -> FeatureSpec:
    settings = params.load().features
    mfcc = settings.mfcc.model_copy(update={"derivatives": 0})  # librosa.feature.mfcc computes none
    return make_spec(settings.model_copy(update={"kind": kind, "mfcc": mfcc}), clip_seconds=5.0)


def _ours(files: list[Path], spec: FeatureSpec) -> None:
    for _ in extract_files(files, spec):
        pass


def _librosas(files: list[Path], spec: FeatureSpec) -> None:
    mel = {
        "sr": spec.sample_rate,
        "n_fft": spec.n_fft,
        "hop_length": spec.hop_length,
        "n_mels": spec.n_mels,
        "fmin": spec.fmin,
        "fmax": spec.fmax,
    }
    for file in files:
        waveform, _ = librosa.load(file, sr=spec.sample_rate)
        if spec.kind == "mfcc":
            librosa.feature.mfcc(y=waveform, n_mfcc=spec.n_mfcc, **mel)
        else:
            power = librosa.feature.melspectrogram(y=waveform, **mel)
            librosa.power_to_db(power, ref=np.max, top_db=spec.top_db)


def _range(values: list[float], digits: str = ".0f") -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{digits}} ({low:{digits}} to {high:{digits}})"


if __name__ == "__main__":
    main()
