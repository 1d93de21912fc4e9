"""Say what was assumed about which clips belong together, and warn where it may be wrong."""

from pathlib import Path

import pandas as pd

from pipeline import evidence
from pipeline.data import annotations
from pipeline.data.datasets import copies, folder, folds, grouping, metadata, naming
from pipeline.params import DatasetParams


def named(clips: pd.DataFrame, settings: DatasetParams) -> str:
    """Name the property that clips are grouped by, such as ``recording`` or ``speaker``.

    Parameters
    ----------
    clips : DataFrame
        ``path`` and ``recording``.
    settings : DatasetParams
        Section ``dataset``.
    """
    if settings.name != "folder":
        return "recording"
    return grouping.named(settings.folder.group, clips)


def assumed(clips: pd.DataFrame, settings: DatasetParams, grouped_by: str) -> str:
    """Say which clips of a folder stay together, to end a closing line; empty for other datasets.

    Parameters
    ----------
    clips : DataFrame
        ``recording``.
    settings : DatasetParams
        Section ``dataset``.
    grouped_by : str
        From :func:`named`.
    """
    if settings.name != "folder":
        return ""
    return f"; {grouping.described(grouped_by, clips)}"


def remarks(root: Path, clips: pd.DataFrame, settings: DatasetParams, grouped_by: str) -> list[str]:
    """Warn about names that suggest groups, missing annotations and classes too small to be judged.

    Parameters
    ----------
    root : Path
        The dataset's folder.
    clips : DataFrame
        ``path``, ``label`` and ``recording``, and ``source`` if there are parts of recordings.
    settings : DatasetParams
        Section ``dataset``.
    grouped_by : str
        From :func:`named`.

    Returns
    -------
    list of str
        Sentences.
    """
    unasked = settings.name == "folder" and settings.folder.group is None and grouped_by == "file"
    rare = evidence.rare(clips.groupby("label")["recording"].nunique())
    unit = evidence.unit({"grouped_by": grouped_by})
    warnings = [
        (_unused_column(root) or naming.warning(clips)) if unasked else "",
        copies.remark(clips, unit),
        annotations.unlabelled(clips),
        evidence.too_few(rare, clips["label"].nunique(), unit=unit),
    ]
    return [warning for warning in warnings if warning]


def _unused_column(root: Path) -> str:
    """Name a column of ``clips.csv`` whose values clips share, and that nothing uses."""
    if not (root / folder.TABLE).is_file():
        return ""
    table = metadata.read(root / folder.TABLE, ["path"])
    for name in table.columns.drop(["path", *folder.GIVEN], errors="ignore"):
        if folds.FEWEST <= table[name].nunique() < table[name].count():
            return (
                f"{folder.TABLE} has a column {name}, which is not used: if clips with the same"
                f" {name} belong together, run `dvc exp run -S dataset.folder.group={name}`."
            )
    return ""
