"""Measure milliseconds per clip of training, with and without augmentation, and of making batches.

``python -m bench.training [--epochs 6]``, in a folder in which `dvc repro` has run. A thread makes
the batches during the training steps, so the input pipeline is no bottleneck as long as making a
batch takes less time than training on it. The variants alternate. The first epoch, which traces the
network, does not count.
"""

import argparse
import itertools
import statistics
import time

from pipeline import params, paths, tables
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.params import TrainParams
from pipeline.training import fit

PARTS = {"augment.mix": 0.5, "augment.noise": 0.5}
"""The full recipe, which has the most expensive augmentation."""


def main() -> None:
    """Measure, and print milliseconds per clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    settings = params.load()
    card = tables.read_json(paths.DATASET)
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
    print("| what | ms per clip |")
    print("|---|---:|")
    for name, seconds in found.items():
        print(f"| {name} | {1e3 * statistics.median(seconds):.2f} |")


def _training(data: fit.Data, train: TrainParams, name: str) -> float:
    """Return the median seconds per epoch, validation included."""
    ends: list[float] = []
    fit.fit(data, train, name, lambda _epoch, _metrics: ends.append(time.perf_counter()))
    return statistics.median(later - sooner for sooner, later in itertools.pairwise(ends))


def _batches(data: fit.Data, train: TrainParams) -> float:
    """Return the seconds that making the batches of one epoch takes, in one thread."""
    batches = fit.Batches(data, train)
    started = time.perf_counter()
    for number in range(len(batches)):
        batches[number]
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
