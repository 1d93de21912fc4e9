"""Measure the accuracy of recipes on each official fold with several seeds.

    python -m bench.quality [RECIPE ...] [--seeds 1 2 3] [--folder bench/units]

A unit is one recipe, fold and seed. The code of the cross-validation trains it, and `--folder`
keeps it, so an interrupted measurement continues. Nothing is chosen here: each recipe trains on all
folds but the scored one, for a number of epochs that was fixed before, and its last epoch counts.
``--report`` trains nothing and prints the table of the finished units.

The columns are: mean accuracy; its standard deviation over seeds and over folds; its interval; log
loss; CPU seconds of training per fold; parameters; milliseconds that LiteRT takes per clip on one
thread; and the difference to ours, with the p-value of a paired permutation test that swaps whole
recordings. Log loss is at each seed's best temperature, so that recipes such as mixing, which lower
the confidence, are not penalised for that alone.
"""

import argparse
import contextlib
import functools
import itertools
import operator
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from scipy.special import softmax

from pipeline import params, paths, stage, tables
from pipeline.backend import keras
from pipeline.data import feature_store
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.params import DatasetName, Params, TrainParams
from pipeline.registry import package
from pipeline.sound import networks
from pipeline.stages import download, featurize
from pipeline.training import calibration, folds, predictions
from pipeline.training.folds import Unit

ESC10 = Path("../shared/data/esc10")
OURS = {"epochs": 200, "augment.mix": 0.5, "augment.noise": 0.5}
"""Settings of the full recipe that differ from the defaults, which suit a quick first run."""

AVERAGED = 2
"""Networks in an ensemble of ours; every pair of seeds gives one ensemble."""

FLIPS = 20_000
"""Random assignments of the permutation test."""


@dataclass(frozen=True)
class Recipe:
    """Settings that differ from ours, with dotted keys."""

    train: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)


def _without(**augment: Any) -> Recipe:
    return Recipe({f"augment.{key}": value for key, value in augment.items()})


PLAIN = {"network": "cnn", "augment": None, "epochs": 50}
TUTORIAL = {
    "network": "fcn", "epochs": 200, "batch_size": 256, "learning_rate": 0.001,
    "schedule": "constant", "weight_decay": 0.0, "dropout": 0.5, "label_smoothing": 0.0,
    "augment": None,
}  # fmt: skip
CEPSTRA = {"kind": "mfcc", "seconds": 4.0}
RECIPES = {
    "ours": Recipe(),
    "plain": Recipe(PLAIN),
    "original tutorial": Recipe(TUTORIAL, {**CEPSTRA, "standardise": False}),
    "ours, one stream": Recipe({"network": "cnn"}),
    "ours, not augmented": Recipe({"augment": None}),
    "ours, not mixed": _without(mix=0.0),
    "ours, at one speed": _without(speed=0.0),
    "ours, not filtered": _without(equaliser=0.0),
    "ours, no noise": _without(noise=0.0),
    "ours, not masked": _without(time_mask=0.0, frequency_mask=0.0),
    "ours, not shifted": _without(shift=False),
    "ours, half the epochs": Recipe({"epochs": 100}),
    "ours, half the frames": Recipe(features={"logmel.hop_length": 512}),
}
"""The recipes. All start from ``params.yaml`` with :data:`OURS` set."""


def main() -> str:
    """Train the missing units and print the table; return the closing line."""
    recipes = "; ".join(f'"{name}"' for name in RECIPES)
    ours = ", ".join(f"{key} {value}" for key, value in OURS.items())
    parser = argparse.ArgumentParser(
        description="Measure the accuracy of recipes on each official fold.",
        epilog=f"Recipes: {recipes}. Ours is params.yaml with {ours}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("recipes", nargs="*", help="see below; all of them if left out")
    parser.add_argument("--dataset", default="esc10", choices=get_args(DatasetName), help="dataset")
    parser.add_argument(
        "--source", type=Path, help=f"folder of the dataset; for esc10 {ESC10} if it exists"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1, 2, 3], help="seeds of the trainings"
    )
    parser.add_argument("--workers", type=int, help="parallel trainings; one per core if left out")
    parser.add_argument(
        "--folder", type=Path, default=Path("bench/units"), help="where finished units are kept"
    )
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    if unknown := set(options.recipes) - set(RECIPES):
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}")
    settings = params.load()
    source = options.source
    if source is None and options.dataset == "esc10" and ESC10.exists():
        source = ESC10
    found = {}
    for name in options.recipes or RECIPES:
        recipe = RECIPES[name]
        chosen = params.with_values(settings.train, {**OURS, **recipe.train})
        place = options.folder / "-".join(
            [options.dataset, *(f"{key}={value}" for key, value in recipe.features.items())]
        )
        prepare(place, recipe, options.dataset, source and str(source.resolve()))
        if result := measure(place, chosen, settings, options):
            found[name] = result
    if not found:
        raise UserError(f"{options.folder} has no finished unit: run this without --report.")
    if together := averaged(found.get("ours")):
        found[f"ours, {AVERAGED} averaged"] = together
    for line in markdown(table(found, settings)):
        print(line)
    return f"{len(found)} recipes on {options.dataset}"


def prepare(place: Path, recipe: Recipe, dataset: str, source: str | None) -> None:
    """Make the clips and features of `recipe` in the folder `place` unless it has them."""
    if (place / paths.FEATURE_SPEC).exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    yaml = YAML()
    values = yaml.load(paths.PARAMS.read_text(encoding="utf-8"))
    values["dataset"] |= {"name": dataset, "source": source}
    for key, value in recipe.features.items():
        *groups, name = key.split(".")
        functools.reduce(operator.getitem, groups, values["features"])[name] = value
    with (place / paths.PARAMS).open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    with contextlib.chdir(place):
        print(f"{place}: {download.main()}; {featurize.main()}", flush=True)


def measure(
    place: Path, train: TrainParams, settings: Params, options: argparse.Namespace
) -> dict[str, Any] | None:
    """Train the missing units of a recipe; None if there are no units to report."""
    how = settings.crossval.model_copy(update={"validate_": False, "workers": options.workers})
    with contextlib.chdir(place):
        card = tables.read_json(paths.DATASET)
        units = [Unit(fold, seed) for seed in options.seeds for fold in card["folds"]]
        if options.report:
            folder = paths.CROSSVAL_UNITS / folds.unit_key(train, validate=False)
            units = [unit for unit in units if folds.read_unit(folder, unit) is not None]
        if not units:
            return None
        _, results = folds.run(units, train, how, card["labels"])
        shape = feature_store.read().spec.shape
    return {
        "clips": folds.by_clip(units, results),
        "units": folds.by_unit(units, results),
        "network": networks.build(train, shape, len(card["labels"])),
    }


def averaged(singles: dict[str, Any] | None) -> dict[str, Any] | None:
    """Compute the results of ensembles, one for each pair of seeds, from single networks.

    An ensemble predicts the geometric mean of its networks, so nothing is trained again. The pairs
    are not independent, because each network is in several, but their mean is what a pair can be
    expected to reach.

    Returns
    -------
    dict or None
        None if there are too few seeds.
    """
    if singles is None:
        return None
    clips, units = singles["clips"], singles["units"]
    columns = [column for column in clips if column.startswith("p_")]
    labels = [column.removeprefix("p_") for column in columns]
    found, rows = [], []
    pairs = itertools.combinations(sorted(set(clips["seed"])), AVERAGED)
    for members in pairs:
        of_these = clips[clips["seed"].isin(members)]
        logs = np.log(np.maximum(of_these[columns].to_numpy(), calibration.TINY))
        answers = predictions.by_clip(of_these, logs, labels)
        answers[columns] = softmax(answers[columns].to_numpy(), axis=1)
        answers = answers.assign(seed=" and ".join(map(str, members)))
        found.append(answers)
        right = answers["predicted"] == answers["label"]
        cost = units[units["seed"].isin(members)].groupby("fold")["cpu_seconds"].sum()
        rows.append(pd.DataFrame({"accuracy": right.groupby(answers["fold"]).mean()}).join(cost))
    if not found:
        return None
    network = networks.average(
        [keras.models.clone_model(singles["network"]) for _ in range(AVERAGED)]
    )
    table = pd.concat(rows).reset_index().assign(parameters=network.count_params())
    return {"clips": pd.concat(found), "units": table, "network": network}


def milliseconds(network: keras.Model) -> float:
    """Measure the median time that LiteRT takes per clip on one thread, in milliseconds."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        package.export(network, path)
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        (given,) = interpreter.get_input_details()
        clip = np.zeros((1, *network.input_shape[1:]), np.float32)
        seconds = []
        for _ in range(200):
            interpreter.set_tensor(given["index"], clip)
            started = time.perf_counter()
            interpreter.invoke()
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds) * 1e3)


def table(found: dict[str, dict[str, Any]], settings: Params) -> pd.DataFrame:
    """Tabulate the recipes, one row per recipe."""
    rows = []
    for name, result in found.items():
        clips, units = result["clips"], result["units"]
        right = (clips["label"] == clips["predicted"]).to_numpy()
        seeds = pd.Series(right).groupby(clips["seed"].to_numpy()).mean()
        low, high = metrics.interval(right, clips["recording"].to_numpy(), settings.evaluate)
        row = {
            "recipe": name,
            "accuracy": f"{right.mean():.1%}",
            "± seeds": f"{seeds.std(ddof=1):.1%}" if len(seeds) > 1 else "one",
            "± folds": f"{units.groupby('fold')['accuracy'].mean().std(ddof=1):.1%}",
            "interval": f"{low:.1%} to {high:.1%}",
            "log loss": f"{log_loss(clips):.3f}",
            "units": len(units),
            "CPU s per fold": f"{units['cpu_seconds'].mean():.0f}",
            "parameters": f"{units['parameters'].iloc[0]:,}",
            "ms per clip": f"{milliseconds(result['network']):.2f}",
            "less than ours": "",
        }
        if name != "ours" and "ours" in found:
            ours = found["ours"]["clips"]
            same = ours["seed"].isin(clips["seed"])  # none if the other's seeds are pairs
            gain, p = paired(ours[same] if same.any() else ours, clips)
            row["less than ours"] = f"{gain:+.1%}, p = {p:.3f}"
        rows.append(row)
    return pd.DataFrame(rows)


def log_loss(clips: pd.DataFrame) -> float:
    """Compute the mean over seeds of the log loss at each seed's best temperature, in nats."""
    columns = [str(column) for column in clips if str(column).startswith("p_")]
    losses = []
    for _, answers in clips.groupby("seed"):
        probabilities = np.maximum(answers[columns].to_numpy(), calibration.TINY)
        codes = np.array([columns.index(f"p_{label}") for label in answers["label"]])
        temperature = calibration.fit_temperature(probabilities, codes)
        softened = calibration.soften(probabilities, temperature)
        of_the_true = softened[np.arange(len(codes)), codes]
        losses.append(-np.log(np.maximum(of_the_true, calibration.TINY)).mean())
    return float(np.mean(losses))


def markdown(frame: pd.DataFrame) -> list[str]:
    """Return the lines of a Markdown table."""
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def paired(ours: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """Compute the difference in accuracy on common clips, and its two-sided p-value.

    Each clip counts with the share of seeds that were right. Under the null hypothesis, the results
    of a recording can be swapped between the recipes.

    Parameters
    ----------
    ours, other : DataFrame
        Columns ``path``, ``recording``, ``label`` and ``predicted``.

    Returns
    -------
    gain : float
        Accuracy of ours minus accuracy of the other.
    p : float
    """
    sides = [
        frame.assign(right=frame["label"] == frame["predicted"])
        .groupby(["recording", "path"])["right"]
        .mean()
        for frame in (ours, other)
    ]
    both = pd.concat(sides, axis=1, join="inner", keys=["ours", "other"])
    difference = (both["ours"] - both["other"]).groupby("recording").sum().to_numpy()
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=(FLIPS, len(difference)))
    as_extreme = np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9
    return float(difference.sum() / len(both)), float((as_extreme.sum() + 1) / (FLIPS + 1))


if __name__ == "__main__":
    stage.run("quality", main)
