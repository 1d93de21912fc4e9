"""Milliseconds of training a clip, with and without augmentation, and of making a batch alone.

``python -m bench.training [--epochs 6]``, where `dvc repro` has run. Batches are made in a thread
beside the training step, so the input pipeline is no bottleneck while making one takes less time
than training on it. The sides take turns; the first epoch, which traces the network, is left out.
"""

import argparse
import itertools
import json
import statistics
import time

from pipeline import params, paths
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.params import TrainParams
from pipeline.training import fit

PARTS = {"augment.mix": 0.5, "augment.noise": 0.5}
"""Of the full recipe: the dearest augmentation there is."""


def main() -> None:
    """Print milliseconds a clip."""
    parser = argparse.ArgumentParser(description="Training with and without augmentation.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    settings = params.load()
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    featurized = read_features()
    folds = split.by_fold(featurized.index, settings.split.test_fold)
    data = fit.prepare(featurized.array, featurized.index, featurized.spec, folds, card["labels"])
    base = params.with_values(settings.train, {"epochs": options.epochs})
    sides = {
        "not augmented": params.with_values(base, {"augment": None}),
        "augmented": params.with_values(base, PARTS),
    }
    clips = len(data.train[0])
    found: dict[str, list[float]] = {f"training, {name}": [] for name in sides}
    found |= {f"batches alone, {name}": [] for name in sides}
    for _ in range(options.repeats):
        for name, train in sides.items():
            found[f"training, {name}"].append(_training(data, train, name) / clips)
            found[f"batches alone, {name}"].append(_batches(data, train) / clips)
    print(f"{clips} clips, medians of {options.repeats} repeats\n")
    print("| what | ms a clip |")
    print("|---|---:|")
    for name, seconds in found.items():
        print(f"| {name} | {1e3 * statistics.median(seconds):.2f} |")


def _training(data: fit.Data, train: TrainParams, name: str) -> float:
    """Median seconds of an epoch, validation included."""
    ends: list[float] = []
    fit.fit(data, train, name, lambda _epoch, _metrics: ends.append(time.perf_counter()))
    return statistics.median(later - sooner for sooner, later in itertools.pairwise(ends))


def _batches(data: fit.Data, train: TrainParams) -> float:
    """Seconds of making the batches of an epoch, in one thread."""
    batches = fit.Batches(data, train)
    started = time.perf_counter()
    for number in range(len(batches)):
        batches[number]
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
