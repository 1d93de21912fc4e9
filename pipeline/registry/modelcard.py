"""A version's model card: what it is for, how good it is, what it was made from.

After Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

LONGEST = 5000
"""Characters that MLflow's schema has for a version's description."""

CONFUSIONS = 5
"""Pairs of labels that the card names."""

BRIEF_CLASSES = 5
"""Labels that the description names, the worst ones; the card has all."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What a card is made of."""

    model: str
    """Name and version."""
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    """Of the training."""
    tags: Mapping[str, str]
    """Of the training run: folds and lineage."""
    dataset: Mapping[str, Any]
    """As ``data/dataset.json`` has it."""
    figures: Mapping[str, float]
    """Of the test fold."""
    classes: pd.DataFrame
    """Columns ``label``, ``precision``, ``recall``, ``f1``, ``clips``."""
    predictions: pd.DataFrame
    """Columns ``path``, ``label``, ``predicted`` and ``p_<label>``."""
    decision: str
    table: str
    links: Mapping[str, str]
    champion: Mapping[str, float]
    """Figures of the version that it was compared with, as `figures`; empty where there is none."""


def render(facts: Facts) -> str:
    """Write the whole card.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    str
        Markdown.
    """
    return _join(
        f"# {facts.model}",
        summary(facts),
        _decision(facts),
        _purpose(facts),
        _labels(facts),
        _data(facts),
        _features(facts),
        _figures(facts),
        "### By class",
        class_table(facts.classes),
        _confusions(facts),
        _cost(facts),
        _lineage(facts),
    )


def brief(facts: Facts) -> str:
    """Write the card as far as a version's description holds it.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    str
        Markdown of 5,000 characters at most.
    """
    worst = facts.classes.sort_values(["recall", "label"]).head(BRIEF_CLASSES)
    parts = [
        summary(facts),
        _decision(facts),
        _purpose(facts),
        _labels(facts),
        _data(facts),
        _figures(facts),
        f"### The {len(worst)} classes of least recall",
        class_table(worst),
        _confusions(facts),
        _cost(facts),
    ]
    parts = [_spaced(part) for part in parts]
    end = "The run's artifact `model_card.md` has all classes, the features and the lineage."
    while len(_join(*parts, end)) > LONGEST and len(parts) > 1:
        parts.pop()
    return _join(*parts, end)[:LONGEST]


def summary(facts: Facts) -> str:
    """Say in one line what it is and how good.

    Returns
    -------
    str
        As ``cnn on foley: accuracy 87.9% (75.9% to 98.1%) on 58 clips of test fold 1.``
    """
    figures = facts.figures
    return (
        f"{kind(facts.params['train.network'], _ensemble(facts))} on"
        f" {facts.tags['dataset.name']}: accuracy"
        f" {figures['accuracy']:.1%} ({figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%}) on {figures['clips']} clips of test fold"
        f" {facts.tags['split.test_fold']}."
    )


def kind(network: str, ensemble: int) -> str:
    """Name what was trained.

    Examples
    --------
    >>> kind("cnn", 1), kind("cnn", 2)
    ('cnn', '2 cnn networks averaged')
    """
    return network if ensemble == 1 else f"{ensemble} {network} networks averaged"


def _ensemble(facts: Facts) -> int:
    return int(facts.params.get("train.ensemble", 1))  # older runs have none


def class_table(classes: pd.DataFrame) -> str:
    """Tabulate the figures by class in Markdown."""
    rows = [
        f"| {_cell(row.label)} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} |"
        f" {row.clips} |"
        for row in classes.itertuples()
    ]
    return "\n".join(
        ["| label | precision | recall | F1 | clips |", "|---|---|---|---|---|", *rows]
    )


def confusions(predictions: pd.DataFrame, most: int = CONFUSIONS) -> pd.DataFrame:
    """Find which labels are taken for which others, the most frequent first.

    Parameters
    ----------
    predictions : DataFrame
        Columns ``path``, ``label``, ``predicted`` and ``p_<label>``.
    most : int
        Pairs.

    Returns
    -------
    DataFrame
        Columns ``label``, ``predicted``, ``clips``, and the one of them that was mistaken with
        most certainty: ``path`` with its ``probability``.
    """
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    rows = []
    for (label, predicted), clips in wrong.groupby(["label", "predicted"]):
        certain = clips.sort_values([f"p_{predicted}", "path"], ascending=[False, True]).iloc[0]
        rows.append((label, predicted, len(clips), certain["path"], certain[f"p_{predicted}"]))
    table = pd.DataFrame(rows, columns=["label", "predicted", "clips", "path", "probability"])
    return table.sort_values(
        ["clips", "probability", "path"], ascending=[False, False, True], ignore_index=True
    ).head(most)


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _spaced(part: str) -> str:
    """Set the columns of tables apart, for MLflow's page leaves no room between them."""
    lines = part.splitlines()
    return "\n".join(
        line.replace(" | ", "&emsp; | ") if line.startswith("| ") else line for line in lines
    )


def _cell(text: object) -> str:
    """Keep a label or a path from ending its cell."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _decision(facts: Facts) -> str:
    links = ", ".join(f"[{what}]({where})" for what, where in facts.links.items())
    return _join(
        f"Decision: {facts.decision}.",
        facts.table,
        _both(facts),
        f"See {links}." if links else "",
    )


def _both(facts: Facts) -> str:
    if not facts.champion:
        return ""
    rows = [
        f"| {whose} | {figures['accuracy']:.1%} | {figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%} ({100 * figures['accuracy_confidence']:g}%) |"
        for whose, figures in (("candidate", facts.figures), ("champion then", facts.champion))
    ]
    head = ["| of the | accuracy | interval |", "|---|---|---|"]
    return "\n".join([*head, *rows])


def _purpose(facts: Facts) -> str:
    seconds = facts.params["features.seconds"]
    return (
        "## What it is for\n\n"
        f"Naming the kind of sound in a recording, of the labels below, {seconds:g} s at a"
        " time.\n\n"
        "Not for decisions on which safety or a person's rights depend, and not for recognising"
        " persons or speech. It has no label for what it does not know: such a sound gets one of"
        " its labels, and only a low probability tells"
        f"{_known(facts)}. Other microphones, places and loudness than in its data lower its"
        " figures."
    )


def _known(facts: Facts) -> str:
    """Say below which probability the service takes no label for an answer."""
    threshold = facts.figures.get("threshold")
    return f" (below {threshold:.2f} the service says `known: false`)" if threshold else ""


def _labels(facts: Facts) -> str:
    return "## Labels\n\n" + ", ".join(f"`{label}`" for label in facts.dataset["labels"])


def _data(facts: Facts) -> str:
    dataset, tags = facts.dataset, facts.tags
    where = f" [{dataset['homepage']}]({dataset['homepage']})" if dataset.get("homepage") else ""
    return (
        "## Data\n\n"
        f"{dataset['title']}{where}. License: {dataset['license']}. {dataset['clips']} clips of"
        f" {dataset['recordings']} recordings, {dataset['rejected']} rejected as unusable. Trained"
        f" on folds {tags['split.train_folds']}, epoch chosen on fold"
        f" {tags['split.validation_fold']}, tested on fold {tags['split.test_fold']}, which nothing"
        " was chosen on. No recording is on two sides."
    )


def _features(facts: Facts) -> str:
    features = {k: v for k, v in facts.params.items() if k.startswith("features.")}
    listed = ", ".join(
        f"{key.removeprefix('features.')} {value}" for key, value in features.items()
    )
    return f"## Features\n\n{listed}."


def _figures(facts: Facts) -> str:
    figures = facts.figures
    level = 100 * figures["accuracy_confidence"]
    return (
        "## Test figures\n\n"
        f"| accuracy | {level:g}% interval | macro F1 | log loss | clips | recordings |\n"
        "|---|---|---|---|---|---|\n"
        f"| {figures['accuracy']:.1%} | {figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%} | {figures['macro_f1']:.3f} | {figures['log_loss']:.3f} |"
        f" {figures['clips']} | {figures['recordings']} |\n\n"
        "The interval resamples recordings, or is a score interval where that is wider."
    )


def _confusions(facts: Facts) -> str:
    found = confusions(facts.predictions)
    if found.empty:
        return "## Confusions\n\nNone on the test fold."
    rows = [
        f"| {_cell(row.label)} | {_cell(row.predicted)} | {row.clips} | `{_cell(row.path)}`"
        f" ({row.probability:.0%}) |"
        for row in found.itertuples()
    ]
    head = ["| is | taken for | clips | for example |", "|---|---|---|---|"]
    return "## Confusions\n\n" + "\n".join([*head, *rows])


def _cost(facts: Facts) -> str:
    metrics = facts.metrics
    cpu = (
        f" ({metrics['train_cpu_seconds']:.0f} s of CPU)" if "train_cpu_seconds" in metrics else ""
    )
    machine = facts.tags.get("lineage.machine", "a machine that is not on record")
    of_first = " of the first network" if _ensemble(facts) > 1 else ""
    return (
        "## Cost of training\n\n"
        f"{metrics['train_seconds']:.0f} s{cpu} on {machine}; {metrics['parameters']:,.0f}"
        f" parameters, {facts.params['train.epochs']} epochs at most, the best{of_first} was"
        f" {metrics['best_epoch']:.0f}. The search before it: trial {facts.tags['tune.trial']} of"
        f" study {facts.tags['tune.study']}."
    )


def _lineage(facts: Facts) -> str:
    rows = [
        f"| {key.removeprefix('lineage.')} | {_cell(value)} |"
        for key, value in sorted(facts.tags.items())
        if not key.startswith(("pipeline.", "mlflow."))
    ]
    return "## Lineage\n\n" + "\n".join(["| what | value |", "|---|---|", *rows])
