"""Read a folder of your own recordings with one sub-folder per label."""

import re
from pathlib import Path

import pandas as pd

from pipeline.data.datasets import metadata
from pipeline.data.datasets.metadata import clip_paths, whole_numbers
from pipeline.errors import UserError
from pipeline.params import DatasetParams

TABLE = "clips.csv"
"""Optional table in the folder, with ``path`` and any of ``label``, ``fold``, ``recording``."""

_GIVEN = ["label", "fold", "recording"]


def read(root: Path, params: DatasetParams) -> pd.DataFrame:
    """Read a folder with one sub-folder per label.

    The label, fold and recording of a clip come from ``clips.csv``; what it does not give comes
    from ``dataset.folder.pattern``, applied to the path. Otherwise the label is the first folder of
    the path, and every file counts as a recording of its own. If no clip has a fold, folds are made
    so that recordings stay whole and labels are spread evenly; the same files always give the same
    folds.

    Parameters
    ----------
    root : Path
        The folder.
    params : DatasetParams
        Uses ``folder``.

    Returns
    -------
    DataFrame
        See :meth:`pipeline.data.datasets.Dataset.clips`.

    Raises
    ------
    UserError
        When ``clips.csv`` or the pattern is wrong, when only some clips have a fold, or when a
        label has fewer recordings than there are folds.
    """
    paths = clip_paths(root)
    table = pd.DataFrame(index=pd.Index(paths, name="path"), columns=_GIVEN, dtype="str")
    table["label"] = [path.split("/")[0] if "/" in path else pd.NA for path in paths]
    if params.folder.pattern is not None:
        table.update(_matches(paths, params.folder.pattern))
    if (root / TABLE).is_file():
        rows = metadata.read(root / TABLE, ["path"])
        if rows["path"].duplicated().any():
            path = rows["path"][rows["path"].duplicated()].iloc[0]
            raise UserError(f"{root / TABLE} lists {path} twice: keep one of the lines.")
        rows = rows.dropna(subset="path").set_index("path").reindex(columns=_GIVEN).astype("str")
        table = table.reindex(table.index.union(rows.index))
        table.update(rows)
    table = table.reset_index()
    table["recording"] = table["recording"].fillna(table["path"])
    table["fold"] = whole_numbers(table["fold"], "The fold of a clip")

    usable = table["label"].notna()
    given = table.loc[usable, "fold"].notna()
    if given.any() and not given.all():
        path = table.loc[usable, "path"][~given].iloc[0]
        raise UserError(
            f"{path} has no fold, but other clips have one: give a fold to all clips or to none."
        )
    if len(table.loc[usable, "label"].unique()) > 1 and not given.any():
        table.loc[usable, "fold"] = _make_folds(table[usable], params.folder.folds)
    return table


def _matches(paths: list[str], pattern: str) -> pd.DataFrame:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"dataset.folder.pattern {pattern!r} is not a regular expression ({error}): correct it."
        ) from None
    groups = expression.groupindex.keys()
    if not groups or groups - {"recording", "fold"}:
        raise UserError(
            "dataset.folder.pattern needs a group named recording or fold, or both, and no other"
            " group, as in '(?P<recording>.+)_[0-9]+'."
        )
    rows = []
    for path in paths:
        match = expression.search(path)
        # Counting it as a recording of its own could put one recording into two folds.
        if match is None:
            raise UserError(
                f"dataset.folder.pattern does not match {path}: correct the pattern or rename the"
                " file."
            )
        rows.append(match.groupdict())
    return pd.DataFrame(rows, index=pd.Index(paths, name="path"), dtype="str")


def _make_folds(table: pd.DataFrame, folds: int) -> pd.Series:
    """Spread whole recordings over folds, with each label as evenly as possible."""
    from sklearn.model_selection import StratifiedGroupKFold

    recordings = table.groupby("label")["recording"].nunique()
    if recordings.min() < folds:
        label, count = recordings.idxmin(), recordings.min()
        raise UserError(
            f"The label {label} has too few recordings ({count}) for {folds} folds: add recordings,"
            " or lower dataset.folder.folds (to at least 3)."
        )
    assigned = pd.Series(0, index=table.index, dtype="Int64")
    split = StratifiedGroupKFold(folds).split(table, table["label"], table["recording"])
    for number, (_, rows) in enumerate(split, start=1):
        assigned.iloc[rows] = number
    return assigned
