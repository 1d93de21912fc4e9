"""Read ESC-10 and ESC-50: clips of 5 s in five folds, cut from recordings on Freesound."""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.data.datasets import metadata
from pipeline.data.datasets.metadata import clip_paths, whole_numbers, with_unlisted
from pipeline.params import DatasetParams

ESC10_MARK = "001 - Dog bark"
ESC50_MARK = "meta/esc50.csv"

_CLASS = re.compile(r"\d{3} - (.+)")
_CLIP = re.compile(r"(?P<fold>\d+)-(?P<recording>\d+)-[A-Z]\.ogg")


def read_esc10(root: Path, params: DatasetParams) -> pd.DataFrame:  # noqa: ARG001
    """Read file names like ``001 - Dog bark/1-100032-A.ogg``: class, fold, Freesound id, take.

    Parameters
    ----------
    root : Path
        The folder that holds the ten class folders.
    params : DatasetParams
        Not used; all readers take it.

    Returns
    -------
    DataFrame
        See :meth:`pipeline.data.datasets.Dataset.clips`.
    """
    rows = []
    for path in clip_paths(root):
        parts = PurePosixPath(path).parts
        class_match, clip_match = _CLASS.fullmatch(parts[0]), _CLIP.fullmatch(parts[-1])
        row = {"path": path}
        if class_match and clip_match and len(parts) == 2:
            row |= {"label": class_match[1].lower().replace(" ", "_"), **clip_match.groupdict()}
        rows.append(row)
    table = pd.DataFrame(rows, columns=["path", "label", "fold", "recording"], dtype="str")
    return table.assign(fold=whole_numbers(table["fold"], "The fold in a file name"))


def read_esc50(root: Path, params: DatasetParams) -> pd.DataFrame:  # noqa: ARG001
    """Read ``meta/esc50.csv``, which lists ``audio/*.wav``.

    Parameters
    ----------
    root : Path
        The folder that holds ``audio`` and ``meta``.
    params : DatasetParams
        Not used; all readers take it.

    Returns
    -------
    DataFrame
        See :meth:`pipeline.data.datasets.Dataset.clips`.

    Raises
    ------
    UserError
        When the metadata is missing or damaged.
    """
    rows = metadata.read(root / ESC50_MARK, ["filename", "fold", "category", "src_file"])
    table = pd.DataFrame(
        {
            "path": "audio/" + rows["filename"],
            "label": rows["category"],
            "fold": whole_numbers(rows["fold"], f"The column fold of {ESC50_MARK}"),
            "recording": rows["src_file"],
        }
    )
    return with_unlisted(table, root, "audio")
