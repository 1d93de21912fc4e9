"""Clips whose label is doubtful: a table, and a page to listen to them.

    dvc repro crossval/dvc.yaml
    python -m pipeline label-errors

Every clip is judged by the networks of the cross-validation that were not trained on it; confident
learning (Northcutt, Jiang and Chuang, JAIR 2021, by cleanlab) says which labels they contradict.
It is for a person to listen and to decide: what is wrong goes into ``labels.csv``, see
:mod:`pipeline.data.corrections`.
"""

import json

import pandas as pd

from pipeline import drawing, paths, tables
from pipeline.data import corrections
from pipeline.errors import UserError
from pipeline.evaluation import report
from pipeline.sound import decoding

MOST_PLAYED = 100
"""Clips on the page: each is some hundred kilobytes."""


def main() -> str:
    """Write the table and the page.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When there is no cross-validation of the clips as they are now.
    """
    if not paths.CROSSVAL_PREDICTIONS.exists():
        raise UserError(
            f"{paths.CROSSVAL_PREDICTIONS} is missing: run `dvc repro crossval/dvc.yaml` first."
        )
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    clips = tables.read(paths.CLIPS)
    predictions = tables.read(paths.CROSSVAL_PREDICTIONS)
    now = set(zip(clips["path"], clips["label"], strict=True))
    if now != set(zip(predictions["path"], predictions["label"], strict=True)):
        raise UserError(
            f"{paths.CROSSVAL_PREDICTIONS} is not of the clips as they are now: run"
            " `dvc repro crossval/dvc.yaml` again."
        )
    found = find(predictions, card["labels"])
    found.to_csv(paths.LABEL_ERRORS, index=False, float_format="%.6f")
    played = players(found, card["name"], card["labels"])
    # How much their contradiction is worth: networks that are mostly wrong doubt at random.
    right = float((predictions["label"] == predictions["predicted"]).mean())
    facts = {"card": card, "clips": played, "doubtful": len(found), "right": right}
    page = report.render(facts, "label_errors.html")
    paths.LABEL_ERRORS_PAGE.write_text(page, encoding="utf-8")
    return (
        f"{len(found)} of {len(clips)} labels are doubtful to networks that agree with {right:.0%}"
        f" of all -> {paths.LABEL_ERRORS}; listen on {paths.LABEL_ERRORS_PAGE} and correct them in"
        f" {paths.CORRECTIONS}"
    )


def find(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Find the labels that out-of-fold probabilities contradict.

    Parameters
    ----------
    predictions : DataFrame
        A row a clip, or several of several seeds: ``path``, ``label``, ``fold``, ``recording``
        and a column ``p_<label>`` for each label. No network was trained on what it answers for.
    labels : list of str

    Returns
    -------
    DataFrame
        The doubtful clips, the worst first: ``path``, ``label``, ``suggested`` (the most probable
        label), ``probability`` (of it), ``probability_of_label``, ``fold``, ``recording``.
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
        # as many as confident learning counts, but those whose label is the least probable
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


def players(found: pd.DataFrame, dataset: str, labels: list[str]) -> list[dict[str, object]]:
    """Prepare the worst clips for the page, with sound, waveform and the lines to correct them."""
    made: list[dict[str, object]] = []
    for row in found.head(MOST_PLAYED).to_dict("records"):
        waveform = decoding.load(
            paths.AUDIO / str(row["path"]), report.PLAYED_RATE, max_seconds=report.PLAYED_SECONDS
        )
        made.append(
            {
                "path": row["path"],
                "sound": report.player(waveform),
                "waveform": report.outline(waveform),
                "label": row["label"],
                "suggested": row["suggested"],
                "probability": row["probability"],
                "probability_of_label": row["probability_of_label"],
                "colours": {
                    key: labels.index(str(row[key])) % len(drawing.CLASSES)
                    for key in ("label", "suggested")
                },
                "line": corrections.line(dataset, str(row["path"]), str(row["suggested"])),
            }
        )
    return made
