"""Read a folder of your own recordings: labels, groups and folds from names, or from a table."""

from pathlib import Path

import pandas as pd

from pipeline.data import annotations
from pipeline.data.datasets import copies, folds, grouping, metadata
from pipeline.data.datasets.metadata import clip_paths, whole_numbers
from pipeline.errors import UserError
from pipeline.params import DatasetParams, FolderParams

TABLE = "clips.csv"
"""Optional table in the folder: ``path``, any of ``label``, ``fold`` and ``recording``, and others
to group by."""

GIVEN = ["label", "fold", "recording"]
"""Columns of :data:`TABLE` that are used whatever the settings are."""


def read(root: Path, params: DatasetParams) -> pd.DataFrame:
    """Read a folder with one sub-folder per label.

    The label, fold and recording of a clip come from ``clips.csv``; what it does not give comes
    from ``dataset.folder.pattern``, applied to the path. Otherwise the label is the first folder of
    the path, and every file counts as a recording of its own. ``dataset.folder.group`` says which
    clips belong together instead. Recordings that share a sound are one. If no clip has a
    fold, folds are made so that recordings stay whole and labels are spread evenly; the same files
    always give the same folds.

    A recording with an annotation file beside it is not a clip. Its labelled parts are, and they
    share its recording, group and fold, see :mod:`pipeline.data.annotations`.

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
        When ``clips.csv``, the pattern or the group is wrong, when only some clips have a fold, or
        when a label has fewer recordings or groups than there are folds.
    """
    paths = clip_paths(root)
    table = pd.DataFrame(index=pd.Index(paths, name="path"), columns=GIVEN, dtype="str")
    table["label"] = [path.split("/")[0] if "/" in path else pd.NA for path in paths]
    if params.folder.pattern is not None:
        table = _updated(table, _matches(paths, params.folder))
    if (root / TABLE).is_file():
        rows = metadata.read(root / TABLE, ["path"])
        if rows["path"].duplicated().any():
            path = rows["path"][rows["path"].duplicated()].iloc[0]
            raise UserError(f"{root / TABLE} lists {path} twice: keep one of the lines.")
        table = _updated(table, rows.dropna(subset="path").set_index("path"))
    table = table.reset_index()
    annotated = annotations.files(root, table["path"])
    # The parts have labels, not the recording, so its folder may just as well name a place or day.
    has_parts = table["path"].isin(annotated)
    table["label"] = table["label"].mask(has_parts)
    used = table["label"].notna() | has_parts
    alone = grouping.recordings(table, used, params.folder.group)
    identical = copies.identical(root, table["path"])
    alone = alone.set_axis(table["path"])
    originals = copies.originals(alone, identical)
    table["recording"] = copies.joined(alone, identical).to_numpy()
    table["fold"] = whole_numbers(table["fold"], "The fold of a clip")
    table = table[["path", *GIVEN]]
    if originals.notna().any():
        table[copies.COLUMN] = originals.to_numpy()
    copies.check_folds(table.set_index("path")["fold"], identical)
    table = annotations.expand(table, annotated)

    usable = table["label"].notna()
    given = table.loc[usable, "fold"].notna()
    if given.any() and not given.all():
        path = table.loc[usable, "path"][~given].iloc[0]
        raise UserError(
            f"{path} has no fold, but other clips have one: give a fold to all clips or to none."
        )
    if len(table.loc[usable, "label"].unique()) > 1 and not given.any():
        by = grouping.named(params.folder.group, table)
        table.loc[usable, "fold"] = folds.make(table[usable], params.folder.folds, by)
    return table


def _updated(table: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Put the known `values` into the table, also those of rows and columns that it lacks."""
    columns = [*table, *(name for name in values if name not in table)]
    table = table.reindex(index=table.index.union(values.index), columns=columns).astype("str")
    table.update(values.astype("str"))
    return table


def _matches(paths: list[str], params: FolderParams) -> pd.DataFrame:
    """Return what the groups of ``dataset.folder.pattern`` find, one column each."""
    expression = grouping.compiled(str(params.pattern), "dataset.folder.pattern")
    groups = expression.groupindex.keys()
    if not groups:
        raise UserError(
            "dataset.folder.pattern needs a group named label, recording or fold, or the one that"
            " dataset.folder.group names, as in '(?P<recording>.+)_[0-9]+': add it."
        )
    if others := sorted(groups - {*GIVEN, params.group}):
        now = "" if params.group is None else f", because dataset.folder.group is {params.group}"
        raise UserError(
            f"dataset.folder.pattern finds the {others[0]} of each file, but nothing uses it{now}:"
            f" set dataset.folder.group to {others[0]}, or write (?:...) instead of"
            f" (?P<{others[0]}>...)."
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
