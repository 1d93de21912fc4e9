"""Measure how many label errors are found: make some labels wrong on purpose and look for them.

    python -m bench.labels [--seeds 1 2 3] [--share 0.05]

It uses the dataset in ``data/`` and ``features/`` and the network of ``train``. Each clip is judged
by a network that was not trained on it, although that network saw other wrong labels. Trained
units are kept in ``crossval/units``, so an interrupted measurement continues.
"""

import argparse

import numpy as np
import pandas as pd

from pipeline import params, paths, stage, tables
from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import label_errors
from pipeline.training import folds
from pipeline.training.folds import Unit


def main(seeds: list[int], share: float) -> str:
    """Measure and print one row per seed.

    Parameters
    ----------
    seeds : list of int
        Each seed flips other labels.
    share : float
        Share of the clips that get a wrong label.

    Returns
    -------
    str
        The closing line.
    """
    settings = params.load()
    card = tables.read_json(paths.DATASET)
    index = read_features().index
    rows = []
    for seed in seeds:
        flipped = flip(index, card["labels"], share, seed)
        key = folds.unit_key(settings.train, settings.crossval.validate_)
        folder = paths.CROSSVAL_UNITS / f"{key}-flipped-{share:g}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        units = [Unit(fold, seed) for fold in card["folds"]]
        missing = [unit for unit in units if folds.read_unit(folder, unit) is None]
        folds.run_units(
            missing, settings.train, card["labels"], folder, settings.crossval, index=flipped
        )
        results = [tables.read_json(folds.unit_file(folder, unit)) for unit in units]
        predictions = pd.concat([pd.DataFrame(result["predictions"]) for result in results])
        rows.append({"seed": seed, **found(predictions, index, card["labels"])})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    mean = table.mean()
    return (
        f"{card['name']}, {share:.0%} of the labels flipped: recall {mean['recall']:.0%},"
        f" precision {mean['precision']:.0%}, means over {len(seeds)} seeds"
    )


def flip(index: pd.DataFrame, labels: list[str], share: float, seed: int) -> pd.DataFrame:
    """Give a share of the clips a random other label."""
    rng = np.random.default_rng(seed)
    clips = index.drop_duplicates("path").set_index("path")["label"]
    wrong = clips.iloc[rng.permutation(len(clips))[: round(share * len(clips))]]
    others = {
        path: rng.choice([other for other in labels if other != label])
        for path, label in wrong.items()
    }
    return index.assign(label=index["path"].map(others).fillna(index["label"]))


def found(predictions: pd.DataFrame, index: pd.DataFrame, labels: list[str]) -> dict[str, float]:
    """Compare the likely label errors with the flipped labels.

    Returns
    -------
    dict
        Number of labels ``flipped`` and ``listed``; ``recall`` and ``precision``; and ``top``,
        the precision of the first entries of the list, as many as were flipped.
    """
    listed = label_errors.find(predictions, labels)
    true = index.drop_duplicates("path").set_index("path")["label"]
    flipped = set(predictions.loc[predictions["label"] != predictions["path"].map(true), "path"])
    hits = listed["path"].isin(flipped)
    return {
        "flipped": len(flipped),
        "listed": len(listed),
        "recall": hits.sum() / len(flipped),
        "precision": hits.mean() if len(listed) else 0.0,
        "top": hits.iloc[: len(flipped)].sum() / len(flipped),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.labels", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--share", type=float, default=0.05)
    options = parser.parse_args()
    stage.run("labels", lambda: main(options.seeds, options.share))
