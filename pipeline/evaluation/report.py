"""One page about the last run, in one file: ``python -m pipeline report`` or ``make report``.

Everything is in it, sounds too, and nothing is asked of any server, so it can be mailed, archived
or opened on a plane. It is kept with the training run in MLflow as well.
"""

import base64
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from sklearn.metrics import confusion_matrix

from pipeline import drawing, paths, tables
from pipeline.evaluation import plots, published
from pipeline.serving.classifier import envelope
from pipeline.sound import decoding
from pipeline.tracking import runs, store
from pipeline.training.objective import BEST

MOST_MISTAKES = 12
PLAYED_SECONDS = 10.0
"""Of a clip, at most: the file is to stay small."""

PLAYED_RATE = 32_000
"""Hz; what browsers play and MP3 knows."""

POINTS = 160
"""Pairs that a waveform is drawn from."""


def main() -> str:
    """Write the page and keep it with the training run.

    Returns
    -------
    str
        The closing line.
    """
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    record = runs.read()
    client = store.connect()
    run_id = runs.ensure(client, record)
    clips = tables.read(paths.CLIPS)
    predictions = tables.read(paths.PREDICTIONS)
    page = render(
        {
            "card": card,
            "record": record,
            "run_id": run_id,
            "store": store.address(),
            "figures": json.loads(paths.METRICS.read_text(encoding="utf-8")),
            "registration": registration(run_id),
            "sides": sides(clips, record.tags),
            "comparison": comparison(card, clips),
            "pictures": pictures(predictions, card["labels"], record.tags["split.test_fold"]),
            "mistakes": mistakes(predictions, card["labels"]),
        }
    )
    paths.REPORT.write_text(page, encoding="utf-8")
    client.log_artifact(run_id, str(paths.REPORT))
    return f"{paths.REPORT}, {len(page.encode()) / 1e6:.1f} MB, and an artifact of the MLflow run"


def render(facts: dict[str, Any], template: str = "report.html") -> str:
    """Fill a template; whatever is in a file name or a label stays text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.filters["readable"] = lambda label: str(label).replace("_", " ")
    templates.filters["percent"] = lambda share: f"{share:.1%}"
    return templates.get_template(template).render(**facts, schemes=schemes())


def schemes() -> str:
    """Colours of the service's page, light and dark, for they are the same here."""
    css = (Path(__file__).parents[1] / "serving" / "page" / "page.css").read_text(encoding="utf-8")
    found = re.findall(
        r"^:root \{.*?^\}|^@media \(prefers-color-scheme: dark\) \{.*?^\}",
        css,
        re.DOTALL | re.MULTILINE,
    )
    return "\n".join(found)


def registration(run_id: str) -> dict[str, Any] | None:
    """Say which version the run's model became; None where it has not been registered."""
    if not paths.REGISTRATION.exists():
        return None
    found: dict[str, Any] = json.loads(paths.REGISTRATION.read_text(encoding="utf-8"))
    return found if found["run_id"] == run_id else None


def sides(clips: pd.DataFrame, tags: dict[str, str]) -> list[dict[str, Any]]:
    """Say what trained, validated and tested.

    Parameters
    ----------
    clips : DataFrame
        The clips table.
    tags : dict
        Of the training run, with the folds of each side.

    Returns
    -------
    list of dict
        ``side``, ``folds``, ``clips``, ``recordings`` and ``minutes`` of the three.
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
    """Write rising numbers shortly.

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
        f"{of[0]} to {of[-1]}" if len(of) > 2 else ", ".join(map(str, of)) for of in stretches
    )


@dataclass(frozen=True)
class Comparison:
    """Our accuracy beside published ones."""

    picture: str
    ours: str
    """What our figure is of."""
    published: tuple[published.Published, ...]


def comparison(card: dict[str, Any], clips: pd.DataFrame) -> Comparison | None:
    """Put our accuracy beside the published ones; over all folds, if they have been run.

    Parameters
    ----------
    card : dict
        The dataset card.
    clips : DataFrame
        The clips table; a cross-validation counts if it was of these.

    Returns
    -------
    Comparison or None
        None where nothing is published about the dataset.
    """
    known = published.FIGURES.get(card["name"])
    if not known:
        return None
    figures, ours = json.loads(paths.METRICS.read_text(encoding="utf-8")), "one test fold"
    if paths.CROSSVAL.exists():
        scored = tables.read(paths.CROSSVAL_PREDICTIONS)
        if set(scored["path"]) == set(clips["path"]):
            figures = json.loads(paths.CROSSVAL.read_text(encoding="utf-8"))
            ours = f"all {len(card['folds'])} folds"
    drawn = plots.comparison(
        {entry.who: entry.accuracy for entry in known},
        f"ours, {ours}",
        (figures["accuracy_low"], figures["accuracy"], figures["accuracy_high"]),
    )
    return Comparison(drawing.svg(drawn), ours, known)


def pictures(predictions: pd.DataFrame, labels: list[str], test_fold: str) -> dict[str, str]:
    """Draw the run's pictures once more, as elements of the page.

    Parameters
    ----------
    predictions : DataFrame
        As the evaluate stage leaves them.
    labels : list of str
        In the model's order.
    test_fold : str

    Returns
    -------
    dict
        SVG by caption.
    """
    matrix = confusion_matrix(predictions["label"], predictions["predicted"], labels=labels)
    drawn = {
        "Learning curves: what chose the epoch is the validation fold": plots.learning_curves(
            tables.read(paths.HISTORY), BEST
        ),
        "What was taken for what": plots.confusion(matrix, labels, f"Test fold {test_fold}"),
        "How sure, and how often right": plots.reliability(
            tables.read(paths.RELIABILITY), f"Test fold {test_fold}"
        ),
        "Precision and recall by class": plots.per_class(tables.read(paths.PER_CLASS)),
        "How often right, if only the surest answers are given": plots.abstention(
            tables.read(paths.ABSTENTION), f"Test fold {test_fold}"
        ),
    }
    searched = plots.search_pictures(tables.read(paths.TRIALS))
    drawn["The search for parameters"] = searched["search"]
    if "pareto" in searched:
        drawn["What smaller networks cost in the search"] = searched["pareto"]
    return {caption: drawing.svg(picture) for caption, picture in drawn.items()}


def mistakes(predictions: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """Find the wrong answers that the model was surest of, with their sound.

    Parameters
    ----------
    predictions : DataFrame
        As the evaluate stage leaves them.
    labels : list of str
        In the model's order.

    Returns
    -------
    list of dict
        ``path``, ``label`` and ``predicted`` with their colours and probabilities, ``sound`` and
        ``waveform``; the worst first, at most :data:`MOST_MISTAKES`.
    """
    found = []
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    sure = [row[f"p_{row['predicted']}"] for _, row in wrong.iterrows()]
    for place in np.argsort(sure, kind="stable")[::-1][:MOST_MISTAKES]:
        row = wrong.iloc[place]
        waveform = decoding.load(paths.AUDIO / row["path"], PLAYED_RATE, max_seconds=PLAYED_SECONDS)
        found.append(
            {
                "path": row["path"],
                "sound": player(waveform),
                "waveform": outline(waveform),
                **{
                    key: {
                        "name": row[key],
                        "probability": float(row[f"p_{row[key]}"]),
                        "colour": labels.index(row[key]) % len(drawing.CLASSES),
                    }
                    for key in ("label", "predicted")
                },
            }
        )
    return found


def player(waveform: decoding.Waveform) -> str:
    """Encode a waveform for an ``<audio>`` element.

    Parameters
    ----------
    waveform : array, shape (samples,)
        At :data:`PLAYED_RATE`.

    Returns
    -------
    str
        A data URI with an MP3, which every browser plays.
    """
    held = io.BytesIO()
    peak = max(1.0, float(np.abs(waveform).max()))
    soundfile.write(held, waveform / peak, PLAYED_RATE, format="MP3")
    return f"data:audio/mpeg;base64,{base64.b64encode(held.getvalue()).decode()}"


def outline(waveform: decoding.Waveform) -> str:
    """Draw a waveform, as loud as fits, as the points of an SVG polygon in 160 x 40."""
    pairs = np.array(envelope(waveform, POINTS))
    pairs = 20 - 19 * pairs / max(float(np.abs(pairs).max()), 1e-6)
    low, high = ([f"{x},{y:.1f}" for x, y in enumerate(side)] for side in pairs.T)
    return " ".join([*high, *reversed(low)])
