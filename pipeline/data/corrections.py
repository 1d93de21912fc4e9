"""Corrections by hand: ``labels.csv`` beside the data, which stays as it is.

A line names a clip by its dataset and its path there, and gives it another label, or none, which
drops it; the reason is for people. The file is in git, DVC sees when it changes, and runs are
tagged with what it said.
"""

import csv
import hashlib
import io
from pathlib import Path
from typing import get_args

import pandas as pd

from pipeline import paths
from pipeline.data.datasets.reading import line_of, metadata
from pipeline.errors import UserError
from pipeline.params import DatasetName

COLUMNS = ["dataset", "path", "label", "reason"]


def read(dataset: DatasetName, file: Path = paths.CORRECTIONS) -> pd.DataFrame:
    """Read the corrections of a dataset.

    Parameters
    ----------
    dataset : str
        As in ``dataset.name``; lines of other datasets are left out.
    file : Path
        A CSV file with :data:`COLUMNS`; the last one may be missing.

    Returns
    -------
    DataFrame
        ``path``, and ``label``, null where the clip is dropped; empty where there is no file.

    Raises
    ------
    UserError
        When the file is not such a table, a line lacks dataset or path, the dataset is not a known
        one, or a clip is named twice.
    """
    if not file.exists():
        return pd.DataFrame({"path": [], "label": []}, dtype="str")
    everything = metadata(file, COLUMNS[:3])
    for column in ("dataset", "path"):
        empty = everything[column].isna().to_numpy()
        if empty.any():
            number = line_of(file, int(empty.argmax()))
            raise UserError(
                f"{file} names no {column} in line {number}: put it right or delete the line."
            )
    known = get_args(DatasetName)
    unknown = ~everything["dataset"].isin(known).to_numpy()
    if unknown.any():
        row = int(unknown.argmax())
        raise UserError(
            f"{file} names the dataset {everything['dataset'].iloc[row]!r} in line"
            f" {line_of(file, row)}, which is not known: put one of {', '.join(known)} there, or"
            " delete the line."
        )
    table = everything.loc[everything["dataset"] == dataset, ["path", "label"]]
    if table["path"].duplicated().any():
        path = table["path"][table["path"].duplicated()].iloc[0]
        raise UserError(f"{file} names {path} twice: keep one of the lines.")
    return table


def apply(clips: pd.DataFrame, corrections: pd.DataFrame) -> pd.DataFrame:
    """Correct a table of clips.

    Parameters
    ----------
    clips : DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips` gives it.
    corrections : DataFrame
        As :func:`read` gives it.

    Returns
    -------
    DataFrame
        With the labels of `corrections`, and without the clips that they drop.

    Raises
    ------
    UserError
        When there is no such clip: a correction that does nothing would go unnoticed.
    """
    unknown = corrections["path"][~corrections["path"].isin(clips["path"])]
    if len(unknown):
        raise UserError(
            f"{paths.CORRECTIONS} corrects {unknown.iloc[0]}, which is not in the dataset: write"
            " the path as data/clips.csv has it, or delete the line."
        )
    label = corrections.set_index("path")["label"]
    dropped = clips["path"].isin(label.index[label.isna()])
    kept = clips[~dropped]
    corrected = kept["path"].map(label).astype(kept["label"].dtype)
    return kept.assign(label=corrected.fillna(kept["label"])).reset_index(drop=True)


def line(dataset: str, path: str, label: str) -> str:
    """Write a line of the file, quoted where it has to be; an empty `label` drops the clip."""
    held = io.StringIO()
    csv.writer(held, lineterminator="").writerow([dataset, path, label, ""])
    return held.getvalue()


def facts(corrections: pd.DataFrame) -> dict[str, str | int]:
    """Say what was corrected, for the dataset's card.

    Parameters
    ----------
    corrections : DataFrame
        Of clips that can be used, as :func:`read` gives it.

    Returns
    -------
    dict
        Number of clips ``relabelled`` and ``dropped``, and ``corrections_sha256`` of both.
    """
    dropped = int(corrections["label"].isna().sum())
    text = corrections.sort_values("path").to_csv(index=False, lineterminator="\n")
    return {
        "relabelled": len(corrections) - dropped,
        "dropped": dropped,
        "corrections_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
