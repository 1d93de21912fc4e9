"""Measure what ``train.balance`` gains on two sets whose classes differ in size.

    python -m bench.balance [esc10 foley] [--seeds 1 2] [--folder bench/units]

The sets are ESC-10, of which every second class keeps 5 of its 40 clips, and `foley`, whose classes
have from 70 recordings down to 5. Each fold is the test fold once, the next one chooses the epoch,
and the others train, as in a run of the pipeline. The settings are those of ``train``. Finished
trainings are kept in `--folder`, so an interrupted measurement continues.
"""

import argparse
import contextlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from bench.quality import ESC10, markdown
from pipeline import evidence, params, paths, stage, tables
from pipeline.evaluation import metrics
from pipeline.params import Params
from pipeline.stages import download, featurize
from pipeline.training import folds
from pipeline.training.folds import Unit


@dataclass(frozen=True)
class Set:
    """A dataset, and how many recordings of each class are kept in each fold."""

    kept: tuple[int | None, ...]
    """By class in the order of the labels; None keeps all."""
    source: Path | None = None
    foley: tuple[int, int] | None = None
    """Number of folds, and of recordings per class and fold before some are left out."""
    slices: int = 1
    """Maximum number of clips of a recording that are kept."""


SETS = {
    "esc10": Set((1, None) * 5, source=ESC10),
    "foley": Set((14, 14, 10, 7, 5, 4, 3, 2, 1, 1), foley=(5, 14), slices=2),
}


def main() -> str:
    """Train the missing units and print one row per set and setting; return the closing line."""
    parser = argparse.ArgumentParser(prog="python -m bench.balance", description=__doc__)
    parser.add_argument("sets", nargs="*", help=f"{' or '.join(SETS)}; both if left out")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--workers", type=int, help="parallel trainings; one per core if left out")
    parser.add_argument("--folder", type=Path, default=Path("bench/units"))
    options = parser.parse_args()
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    settings = params.load()
    rows = []
    for name in options.sets or SETS:
        place = options.folder / f"{name}-imbalanced"
        prepare(place, name, SETS[name])
        rows += [
            {"set": name, "balance": balance, **measure(place, balance, settings, options)}
            for balance in (False, True)
        ]
    for line in markdown(pd.DataFrame(rows)):
        print(line)
    return f"{len(rows)} cross-validations with {len(options.seeds)} seeds each"


def prepare(place: Path, name: str, chosen: Set) -> None:
    """Make the clips and features of a set in the folder `place` unless it has them."""
    if (place / paths.FEATURE_SPEC).exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    yaml = YAML()
    values = yaml.load(paths.PARAMS.read_text(encoding="utf-8"))
    source = chosen.source if chosen.source and chosen.source.exists() else None
    values["dataset"] |= {"name": name, "source": source and str(source.resolve())}
    if chosen.foley:
        made, recordings = chosen.foley
        values["dataset"]["foley"] |= {
            "folds": made,
            "recordings": recordings,
            "slices": chosen.slices,
        }
    with (place / paths.PARAMS).open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    with contextlib.chdir(place):
        print(f"{place}: {download.main()}", flush=True)
        clips, labels = tables.read(paths.CLIPS), tables.read_json(paths.DATASET)["labels"]
        kept = dict(zip(labels, chosen.kept, strict=True))
        tables.write(paths.CLIPS, reduced(clips, kept, chosen.slices))
        print(f"{place}: {featurize.main()}", flush=True)


def reduced(clips: pd.DataFrame, kept: dict[str, int | None], slices: int) -> pd.DataFrame:
    """Leave out recordings.

    Parameters
    ----------
    clips : DataFrame
        The clips table.
    kept : dict
        Number of recordings per fold to keep, by label; None keeps all.
    slices : int
        Maximum number of clips to keep of each of these recordings.
    """
    parts = []
    for (label, _), group in clips.groupby(["label", "fold"]):
        if (number := kept[str(label)]) is None:
            parts.append(group)
            continue
        first = group["recording"].drop_duplicates().head(number)
        parts.append(group[group["recording"].isin(first)].groupby("recording").head(slices))
    return pd.concat(parts).sort_index()


def measure(
    place: Path, balance: bool, settings: Params, options: argparse.Namespace
) -> dict[str, str]:
    """Cross-validate, and format the figures, which are means over the seeds."""
    train = params.with_values(settings.train, {"balance": balance})
    how = settings.crossval.model_copy(update={"validate_": True, "workers": options.workers})
    with contextlib.chdir(place):
        card = tables.read_json(paths.DATASET)
        units = [Unit(fold, seed) for seed in options.seeds for fold in card["folds"]]
        _, results = folds.run(units, train, how, card["labels"])
        clips = folds.by_clip(units, results)
    labels = card["labels"]
    found = []
    for _, of_seed in clips.groupby("seed"):
        classes = metrics.per_class(of_seed, labels)
        figures = metrics.class_figures(classes)
        small = classes["recordings"] < evidence.FEW
        found.append(
            {
                "accuracy": (of_seed["label"] == of_seed["predicted"]).mean(),
                "balanced accuracy": figures["balanced_accuracy"],
                "recall of small classes": classes.loc[small, "recall"].mean(),
                "precision of small classes": classes.loc[small, "precision"].mean(),
                "recall of the others": classes.loc[~small, "recall"].mean(),
                "lowest recall": figures["worst_recall"],
            }
        )
    return {key: spread([seed[key] for seed in found]) for key in found[0]}


def spread(values: list[float]) -> str:
    """Format the mean of the seeds and, in brackets, the value of each."""
    each = ", ".join(f"{value:.1%}" for value in values)
    return f"{sum(values) / len(values):.1%} ({each})"


if __name__ == "__main__":
    stage.run("balance", main)
