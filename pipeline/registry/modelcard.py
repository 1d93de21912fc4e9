"""Write a version's model card: what it is for, how good it is, what it was made from.

After Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import evidence

LONGEST = 5000
"""Maximum length of a version's description in MLflow's schema, in characters."""

CONFUSIONS = 5
"""Number of pairs of labels that the card lists."""

BRIEF_CLASSES = 5
"""Number of labels that the description lists, those with the lowest recall; the card has all."""


@dataclass(frozen=True, eq=False)
class Facts:
    """The content of a model card."""

    model: str
    """Name and version."""
    params: Mapping[str, Any]
    training_metrics: Mapping[str, float]
    tags: Mapping[str, str]
    """Tags of the training run: folds and lineage."""
    dataset: Mapping[str, Any]
    """Content of ``data/dataset.json``."""
    metrics: Mapping[str, Any]
    """Figures of the test fold."""
    classes: pd.DataFrame
    """Columns ``label``, ``precision``, ``recall``, ``f1``, ``clips``, ``recordings`` and
    ``recordings_in_all``."""
    predictions: pd.DataFrame
    """Columns ``path``, ``label``, ``predicted`` and ``p_<label>``."""
    decision: str
    table: str
    links: Mapping[str, str]
    champion: Mapping[str, float]
    """Accuracy of the version that it was compared with, and its interval; empty if none."""


def render(facts: Facts) -> str:
    """Write the whole model card.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    str
        Markdown.
    """
    return _fill(facts, facts.classes, brief=False)


def brief(facts: Facts) -> str:
    """Write as much of the model card as a version's description can hold.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    str
        Markdown of at most 5,000 characters.
    """
    tested = facts.classes[facts.classes["clips"] > 0]
    worst = tested.sort_values(["recall", "label"]).head(BRIEF_CLASSES)
    text = _spaced(_fill(facts, worst, brief=True))
    sections = re.split("^(?=## )", text, flags=re.MULTILINE)
    end = "\nThe run's artifact `model_card.md` has all classes, the features and the lineage.\n"
    while len("".join([*sections, end])) > LONGEST and len(sections) > 1:
        sections.pop()
    return "".join([*sections, end])[:LONGEST]


def confusions(predictions: pd.DataFrame, most: int = CONFUSIONS) -> pd.DataFrame:
    """Find which labels are mistaken for which others, the most frequent pairs first.

    Parameters
    ----------
    predictions : DataFrame
        Columns ``path``, ``label``, ``predicted`` and ``p_<label>``.
    most : int
        Maximum number of pairs.

    Returns
    -------
    DataFrame
        Columns ``label``, ``predicted``, ``clips``; and ``path`` and ``probability`` of the clip
        that was mistaken with the highest probability.
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


def _fill(facts: Facts, classes: pd.DataFrame, *, brief: bool) -> str:
    ensemble = int(facts.params.get("train.ensemble", 1))  # runs of earlier releases have none
    network = facts.params["train.network"]
    prefix = "features."
    features = {k.removeprefix(prefix): v for k, v in facts.params.items() if k.startswith(prefix)}
    lineage = {
        key.removeprefix("lineage."): value
        for key, value in sorted(facts.tags.items())
        if not key.startswith(("pipeline.", "mlflow."))
    }
    unit = evidence.unit(facts.dataset)
    text = (
        _templates()
        .get_template("model_card.md")
        .render(
            vars(facts)
            | {
                "brief": brief,
                "ensemble": ensemble,
                "kind": network if ensemble == 1 else f"{ensemble} {network} networks averaged",
                "features": features,
                "classes": classes.to_dict("records"),
                "unit": unit,
                "by_class": evidence.by_class(facts.metrics),
                "tested": evidence.tested(facts.metrics, unit),
                "remarks": evidence.remarks(
                    facts.metrics,
                    facts.classes,
                    most=evidence.NAMED if brief else len(classes),
                    unit=unit,
                ),
                "confusions": confusions(facts.predictions).to_dict("records"),
                "lineage": lineage,
            }
        )
    )
    return re.sub("\n{3,}", "\n\n", text)


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701  # Markdown; MLflow's page escapes HTML itself
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    templates.filters["percent"] = lambda share: f"{share:.1%}"
    templates.filters["interval"] = _interval
    templates.filters["cell"] = _cell
    return templates


def _interval(metrics: Mapping[str, float]) -> str:
    return (
        f"{metrics['accuracy_low']:.1%} to {metrics['accuracy_high']:.1%}"
        f" ({100 * metrics['accuracy_confidence']:g}%)"
    )


def _cell(text: object) -> str:
    """Escape what would end a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _spaced(text: str) -> str:
    """Put space between the columns of tables, which MLflow's page leaves out."""
    return "\n".join(
        line.replace(" | ", "&emsp; | ") if line.startswith("| ") else line
        for line in text.split("\n")
    )
