"""ESC-10 and ESC-50: clips of 5 s in five folds, cut from Freesound's recordings."""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.data.datasets.reading import clip_paths, metadata, whole_numbers, with_unlisted
from pipeline.params import DatasetParams

ESC10_MARK = "001 - Dog bark"
ESC50_MARK = "meta/esc50.csv"

_CLASS = re.compile(r"\d{3} - (.+)")
_CLIP = re.compile(r"(?P<fold>\d+)-(?P<recording>\d+)-[A-Z]\.ogg")


def read_esc10(root: Path, params: DatasetParams) -> pd.DataFrame:  # noqa: ARG001
    """Read ``001 - Dog bark/1-100032-A.ogg``: class, fold, Freesound id, take.

    Parameters
    ----------
    root : Path
        The folder that holds the ten class folders.
    params : DatasetParams
        Not used; every reader has it.

    Returns
    -------
    DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips`.
    """
    rows = []
    for path in clip_paths(root):
        parts = PurePosixPath(path).parts
        of_class, of_clip = _CLASS.fullmatch(parts[0]), _CLIP.fullmatch(parts[-1])
        row = {"path": path}
        if of_class and of_clip and len(parts) == 2:
            row |= {"label": of_class[1].lower().replace(" ", "_"), **of_clip.groupdict()}
        rows.append(row)
    table = pd.DataFrame(rows, columns=["path", "label", "fold", "recording"], dtype="str")
    return table.assign(fold=whole_numbers(table["fold"], "The fold in a file name"))


def read_esc50(root: Path, params: DatasetParams) -> pd.DataFrame:  # noqa: ARG001
    """Read ``meta/esc50.csv``; the clips are ``audio/*.wav``.

    Parameters
    ----------
    root : Path
        The folder that holds ``audio`` and ``meta``.
    params : DatasetParams
        Not used; every reader has it.

    Returns
    -------
    DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips`.

    Raises
    ------
    UserError
        When the metadata are missing or damaged.
    """
    rows = metadata(root / ESC50_MARK, ["filename", "fold", "category", "src_file"])
    table = pd.DataFrame(
        {
            "path": "audio/" + rows["filename"],
            "label": rows["category"],
            "fold": whole_numbers(rows["fold"], f"The column fold of {ESC50_MARK}"),
            "recording": rows["src_file"],
        }
    )
    return with_unlisted(table, root, "audio")
