"""Find likely label errors, and write a table of them and a page to listen to them.

    dvc repro crossval/dvc.yaml
    python -m pipeline label-errors

Each clip is judged by the networks of the cross-validation that were not trained on it. Confident
learning (Northcutt, Jiang and Chuang, JAIR 2021, implemented by cleanlab) finds the labels that the
networks contradict. They are listed in ``reports/label_errors.csv``. Listen to them on
``reports/label_errors.html``, decide, and write corrections to ``labels.csv``, which the download
stage applies.
"""

from typing import Any

import pandas as pd

from pipeline import paths, tables
from pipeline.data import corrections
from pipeline.errors import UserError
from pipeline.evaluation import players, templating

MOST_PLAYED = 100
"""Maximum number of clips on the page; each takes a few hundred kilobytes."""


def main() -> str:
    """Write the table and the page.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When the current clips have not been cross-validated.
    """
    card = tables.read_json(paths.DATASET)
    predictions = crossval_predictions()
    errors = find(predictions, card["labels"])
    tables.write(paths.LABEL_ERRORS, errors, digits=6)
    # shows how far to trust the list: bad networks contradict labels at random
    agreement = float((predictions["label"] == predictions["predicted"]).mean())
    page = templating.render(
        "label_errors.html",
        card=card,
        found=len(errors),
        agreement=agreement,
        clips=playable(errors, card["name"], card["labels"]),
    )
    paths.LABEL_ERRORS_PAGE.write_text(page, encoding="utf-8")
    return (
        f"{len(errors)} likely label errors in {card['clips']} clips, found by networks that agree"
        f" with {agreement:.0%} of all labels -> {paths.LABEL_ERRORS}; listen to them on"
        f" {paths.LABEL_ERRORS_PAGE} and correct them in {paths.CORRECTIONS}"
    )


def crossval_predictions() -> pd.DataFrame:
    """Read the predictions of the cross-validation.

    Returns
    -------
    DataFrame
        One row per clip and seed.

    Raises
    ------
    UserError
        When they are missing, or belong to other clips or labels than the current ones.
    """
    if not paths.CROSSVAL_PREDICTIONS.exists():
        raise UserError(
            f"{paths.CROSSVAL_PREDICTIONS} is missing: run `dvc repro crossval/dvc.yaml` first."
        )
    clips = tables.read(paths.CLIPS)
    predictions = tables.read(paths.CROSSVAL_PREDICTIONS)
    current = set(zip(clips["path"], clips["label"], strict=True))
    if current != set(zip(predictions["path"], predictions["label"], strict=True)):
        raise UserError(
            f"{paths.CROSSVAL_PREDICTIONS} does not match the current clips and labels: run"
            " `dvc repro crossval/dvc.yaml` again."
        )
    return predictions


def find(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Find the labels that out-of-fold predictions contradict.

    Parameters
    ----------
    predictions : DataFrame
        One row per clip, or one per clip and seed: ``path``, ``label``, ``fold``, ``recording``
        and a column ``p_<label>`` per label, from networks that were not trained on the clip.
    labels : list of str

    Returns
    -------
    DataFrame
        The likely label errors, the least probable label first: ``path``, ``label``,
        ``suggested`` (the most probable label), ``probability`` (of the suggested label),
        ``probability_of_label``, ``fold``, ``recording``.
    """
    from cleanlab.filter import find_label_issues

    columns = [f"p_{label}" for label in labels]
    facts = ["path", "label", "fold", "recording"]
    clips = predictions.groupby(facts)[columns].mean().reset_index()
    probabilities = clips[columns].to_numpy()
    codes = clips["label"].map({label: i for i, label in enumerate(labels)}).to_numpy()
    order = find_label_issues(
        codes,
        probabilities,
        # confident learning estimates how many errors there are; take the least probable labels
        filter_by="low_self_confidence",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    table = clips[facts].assign(
        suggested=[labels[code] for code in probabilities.argmax(axis=1)],
        probability=probabilities.max(axis=1),
        probability_of_label=probabilities[range(len(codes)), codes],
    )
    wanted = ["path", "label", "suggested", "probability", "probability_of_label"]
    worst: pd.DataFrame = table.iloc[order]
    return worst[[*wanted, "fold", "recording"]].reset_index(drop=True)


def playable(found: pd.DataFrame, dataset: str, labels: list[str]) -> list[dict[str, Any]]:
    """Return the first :data:`MOST_PLAYED` rows of :func:`find` as the page shows them.

    Returns
    -------
    list of dict
        What :func:`pipeline.evaluation.players.clip` returns; ``label`` and ``suggested``, from
        :func:`pipeline.evaluation.players.label`; and ``line``, the correction for ``labels.csv``.
    """
    return [
        {
            **players.clip(row["path"]),
            "label": players.label(row["label"], row["probability_of_label"], labels),
            "suggested": players.label(row["suggested"], row["probability"], labels),
            "line": corrections.line(dataset, row["path"], row["suggested"]),
        }
        for row in found.head(MOST_PLAYED).to_dict("records")
    ]
