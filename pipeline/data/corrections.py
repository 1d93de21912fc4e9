"""Read and apply corrections of labels, which ``labels.csv`` lists; the data is not changed.

Each line names a clip by its dataset and path, and gives it another label. An empty label drops the
clip. The reason is for people. The file is in git, DVC sees when it changes, and runs are tagged
with its content.
"""

import csv
import hashlib
import io
from pathlib import Path
from typing import get_args

import pandas as pd

from pipeline import paths
from pipeline.data.datasets import metadata
from pipeline.data.datasets.metadata import check_text, line_of
from pipeline.errors import UserError
from pipeline.params import DatasetName

COLUMNS = ["dataset", "path", "label", "reason"]
"""Columns of the file."""


def read(dataset: DatasetName, file: Path = paths.CORRECTIONS) -> pd.DataFrame:
    """Read the corrections of a dataset.

    Parameters
    ----------
    dataset : str
        As in ``dataset.name``; lines about other datasets are left out.
    file : Path
        A CSV file with :data:`COLUMNS`; ``reason`` may be missing.

    Returns
    -------
    DataFrame
        ``path``, and ``label``, which is null where the clip is dropped. Without a file, it has no
        rows.

    Raises
    ------
    UserError
        When the file is not such a table, when a line has no path or no known dataset, or when a
        clip is named twice.
    """
    if not file.exists():
        return pd.DataFrame({"path": [], "label": []}, dtype="str")
    everything = metadata.read(file, COLUMNS[:3])
    for column in ("dataset", "path"):
        empty = everything[column].isna().to_numpy()
        if empty.any():
            number = line_of(file, int(empty.argmax()))
            raise UserError(f"{file} has no {column} in line {number}: add it or delete the line.")
    known = get_args(DatasetName)
    unknown = ~everything["dataset"].isin(known).to_numpy()
    if unknown.any():
        row = int(unknown.argmax())
        raise UserError(
            f"{file} names the unknown dataset {everything['dataset'].iloc[row]!r} in line"
            f" {line_of(file, row)}: write one of {', '.join(known)}, or delete the line."
        )
    table = everything.loc[everything["dataset"] == dataset, ["path", "label"]]
    if table["path"].duplicated().any():
        path = table["path"][table["path"].duplicated()].iloc[0]
        raise UserError(f"{file} names {path} twice: keep one of the lines.")
    check_text(table["label"].dropna(), "label")
    return table


def apply(clips: pd.DataFrame, corrections: pd.DataFrame) -> pd.DataFrame:
    """Correct a table of clips.

    Parameters
    ----------
    clips : DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips` returns it.
    corrections : DataFrame
        As :func:`read` returns it.

    Returns
    -------
    DataFrame
        `clips` with the corrected labels, without the dropped clips.

    Raises
    ------
    UserError
        When a corrected clip does not exist: a correction without effect would go unnoticed.
    """
    unknown = corrections["path"][~corrections["path"].isin(clips["path"])]
    if len(unknown):
        raise UserError(
            f"{paths.CORRECTIONS} corrects {unknown.iloc[0]}, which is not in the dataset: write"
            f" the path as in {paths.CLIPS}, or delete the line."
        )
    label = corrections.set_index("path")["label"]
    dropped = clips["path"].isin(label.index[label.isna()])
    kept = clips[~dropped]
    corrected = kept["path"].map(label).astype(kept["label"].dtype)
    return kept.assign(label=corrected.fillna(kept["label"])).reset_index(drop=True)


def line(dataset: str, path: str, label: str) -> str:
    """Return a line for the file, quoted where necessary; an empty `label` drops the clip."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([dataset, path, label, ""])
    return text.getvalue()


def facts(corrections: pd.DataFrame) -> dict[str, str | int]:
    """Summarise the corrections for the dataset's card.

    Parameters
    ----------
    corrections : DataFrame
        As :func:`read` returns it, without the clips that were rejected.

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
