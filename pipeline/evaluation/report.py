"""Write one page about the last run and log it to its MLflow run.

    python -m pipeline report

The page is a single file with everything in it, sounds included. It loads nothing from a server,
so it can be mailed, archived or read offline.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline import drawing, evidence, paths, tables
from pipeline.errors import UserError
from pipeline.evaluation import metrics, players, plots, published, search_plots, templating
from pipeline.tracking import runs, store

MOST_MISTAKES = 12


def main() -> str:
    """Write the page and log it to the training run.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When the MLflow store fails; the page is written nevertheless.
    """
    record = runs.read()
    megabytes = write(record, record.run_id)
    try:
        store.guarded(lambda: log(record))()
    except UserError as error:
        raise UserError(f"{paths.REPORT} is written but not logged to MLflow: {error}") from error
    return f"{paths.REPORT}, {megabytes:.1f} MB, also logged to the MLflow run"


def log(record: runs.Record) -> str:
    """Log the page to the training run.

    Returns
    -------
    str
        The run's id in the store.
    """
    client = store.connect()
    run_id = runs.ensure(client, record)
    if run_id != record.run_id:  # this store has the run under another id
        write(record, run_id)
    client.log_artifact(run_id, str(paths.REPORT))
    return run_id


def write(record: runs.Record, run_id: str) -> float:
    """Write the page from the outputs of the stages; return its size in megabytes."""
    card = tables.read_json(paths.DATASET)
    clips = tables.read(paths.CLIPS)
    predictions = tables.read(paths.PREDICTIONS)
    runs.check_clips(record, card)
    figures = runs.figures(record)
    classes = tables.read(paths.PER_CLASS)
    unit = evidence.unit(card)
    page = templating.render(
        "report.html",
        card=card,
        record=record,
        run_id=run_id,
        figures=figures,
        remarks=evidence.remarks(figures, classes, most=len(classes), unit=unit),
        unit=unit,
        registration=registration(run_id),
        sides=sides(clips, record.tags),
        comparison=comparison(card, clips),
        pictures=pictures(predictions, card["labels"], record.tags["split.test_fold"]),
        mistakes=mistakes(predictions, card["labels"]),
    )
    paths.REPORT.write_text(page, encoding="utf-8")
    return len(page.encode()) / 1e6


def registration(run_id: str) -> dict[str, Any] | None:
    """Read which version the run's model became; None if it has not been registered."""
    if not paths.REGISTRATION.exists():
        return None
    record: dict[str, Any] = tables.read_json(paths.REGISTRATION)
    return record if record["run_id"] == run_id else None


def sides(clips: pd.DataFrame, tags: dict[str, str]) -> list[dict[str, Any]]:
    """Count what is in the training, the validation and the test set.

    Parameters
    ----------
    clips : DataFrame
        The clips table.
    tags : dict
        Tags of the training run, with the folds of each set.

    Returns
    -------
    list of dict
        ``side``, ``folds``, ``clips``, ``recordings`` and ``minutes`` of each set.
    """
    rows = []
    for side, key in (
        ("training", "train_folds"),
        ("validation", "validation_fold"),
        ("test", "test_fold"),
    ):
        folds = sorted(int(fold) for fold in tags[f"split.{key}"].split(","))
        of_side = clips[clips["fold"].isin(folds)]
        rows.append(
            {
                "side": side,
                "folds": spans(folds),
                "clips": len(of_side),
                "recordings": of_side["recording"].nunique(),
                "minutes": of_side["seconds"].sum() / 60,
            }
        )
    return rows


def spans(numbers: list[int]) -> str:
    """Write increasing numbers in short form.

    Examples
    --------
    >>> spans([1, 3, 4, 5, 6])
    '1, 3 to 6'
    """
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][-1] + 1:
            stretches[-1].append(number)
        else:
            stretches.append([number])
    return ", ".join(
        f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part))
        for part in stretches
    )


@dataclass(frozen=True)
class PublishedComparison:
    """Our accuracy beside published ones.

    Attributes
    ----------
    picture : str
        SVG.
    ours : str
        Which folds our accuracy covers.
    published : tuple of Published
    """

    picture: str
    ours: str
    published: tuple[published.Published, ...]


def comparison(card: dict[str, Any], clips: pd.DataFrame) -> PublishedComparison | None:
    """Compare our accuracy with published ones: over all folds if they have been cross-validated.

    Parameters
    ----------
    card : dict
        The dataset card.
    clips : DataFrame
        The clips table; a cross-validation of other clips is ignored.

    Returns
    -------
    PublishedComparison or None
        None if there are no published figures for the dataset.
    """
    others = published.FIGURES.get(card["name"])
    if not others:
        return None
    figures, ours = tables.read_json(paths.METRICS), "one test fold"
    if paths.CROSSVAL.exists():
        scored = tables.read(paths.CROSSVAL_PREDICTIONS)
        if set(scored["path"]) == set(clips["path"]):
            figures, ours = tables.read_json(paths.CROSSVAL), f"all {len(card['folds'])} folds"
    drawn = plots.comparison(
        {entry.who: entry.accuracy for entry in others},
        f"this model, {ours}",
        (figures["accuracy_low"], figures["accuracy"], figures["accuracy_high"]),
    )
    return PublishedComparison(drawing.svg(drawn), ours, others)


def pictures(predictions: pd.DataFrame, labels: list[str], test_fold: str) -> dict[str, str]:
    """Draw the run's plots for the page.

    Parameters
    ----------
    predictions : DataFrame
        Those of the test fold.
    labels : list of str
        In the model's order.
    test_fold : str

    Returns
    -------
    dict
        SVG by caption.
    """
    fold = f"Test fold {test_fold}"
    drawn = {
        "Learning curves; the validation fold chooses the epoch": plots.learning_curves(
            tables.read(paths.HISTORY)
        ),
        "Confusion matrix": plots.confusion(metrics.confusion(predictions, labels), labels, fold),
        "Reliability diagram": plots.reliability(tables.read(paths.RELIABILITY), fold),
        "Precision and recall per class": plots.per_class(tables.read(paths.PER_CLASS)),
        "Accuracy if the model abstains when its confidence is low": plots.abstention(
            tables.read(paths.ABSTENTION), fold
        ),
    }
    searched = search_plots.pictures(tables.read(paths.TRIALS))
    drawn["Hyper-parameter search"] = searched["search"]
    if "pareto" in searched:
        drawn["Network size against loss in the search"] = searched["pareto"]
    return {caption: drawing.svg(picture) for caption, picture in drawn.items()}


def mistakes(predictions: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """Find the most confident mistakes, with their sound.

    Parameters
    ----------
    predictions : DataFrame
        Those of the test fold.
    labels : list of str
        In the model's order.

    Returns
    -------
    list of dict
        At most :data:`MOST_MISTAKES`, the most confident first: what
        :func:`pipeline.evaluation.players.clip` returns, and ``label`` and ``predicted``, from
        :func:`pipeline.evaluation.players.label`.
    """
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    sure = [row[f"p_{row['predicted']}"] for _, row in wrong.iterrows()]
    worst = wrong.iloc[np.argsort(sure, kind="stable")[::-1][:MOST_MISTAKES]]
    return [
        {
            **players.clip(row["path"]),
            **{
                key: players.label(row[key], float(row[f"p_{row[key]}"]), labels)
                for key in ("label", "predicted")
            },
        }
        for _, row in worst.iterrows()
    ]
