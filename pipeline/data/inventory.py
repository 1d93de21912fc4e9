"""List the files of a dataset that are not used, and why, so that none is lost without a word."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.data import annotations
from pipeline.data.datasets.metadata import fits_a_table
from pipeline.paths import CORRECTIONS
from pipeline.sound import files

CLIP, PART, OTHER = "clip", "part", "other"
"""Kinds: a clip that cannot be used, a part of a recording that cannot, and any other file."""

COLUMNS = ["path", "reason", "kind"]
"""Columns of the list."""


def others(root: Path, table: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """List the files below the dataset's folder that are not among its clips, and why.

    Parameters
    ----------
    root : Path
        The dataset's folder.
    table : DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips` returns it.
    clips : DataFrame
        The same without the clips that a correction drops.

    Returns
    -------
    DataFrame
        One row per file, with :data:`COLUMNS`.
    """
    known = set(table["path"])
    used = _used_for_parts(root, table)
    rows = [
        (path, used[path], OTHER) if path in used else _row(path, _lost(root / path) or why)
        for path, why in files.below(root)
        if path not in known
    ]
    dropped = known - set(clips["path"])
    rows += [(path, f"{CORRECTIONS} drops the clip.", OTHER) for path in sorted(dropped)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _lost(file: Path) -> str | None:
    """Say that a file has labels of parts, but no recording; None if it has no labels."""
    if file.is_file() and annotations.is_annotation(file):
        return "It labels parts, but there is no sound file of its name."
    return None


def _used_for_parts(root: Path, table: pd.DataFrame) -> dict[str, str]:
    """Say what recordings with labelled parts and the files with their labels are used for."""
    if "source" not in table:
        return {}
    recordings = table["source"].dropna().unique()
    return dict.fromkeys(recordings, "Its labelled parts are the clips.") | {
        file: f"It labels parts of {recording}."
        for recording, labels in annotations.files(root, recordings).items()
        for file in labels
    }


def _row(path: str, why: str | None) -> tuple[str, str, str]:
    if fits_a_table(path):
        return path, why or "The dataset's table does not list the file.", OTHER
    if why is None:
        why = "The file name is not UTF-8 or contains a control character: rename the file."
        return _readable(path), why, CLIP
    return _readable(path), why, OTHER


def _readable(name: str) -> str:
    """Write what a table cannot hold as an escape, as in a Python string."""
    return "".join(letter if fits_a_table(letter) else _escape(letter) for letter in name)


def _escape(letter: str) -> str:
    byte = ord(letter) & 0xFF if "\udc80" <= letter <= "\udcff" else ord(letter)
    return ascii(chr(byte))[1:-1]


def kinds(clips: pd.DataFrame) -> pd.Series:
    """Tell the clips that are files from parts of recordings, see :mod:`pipeline.data.annotations`.

    Parameters
    ----------
    clips : DataFrame
        ``path``, and ``source`` if there are parts.

    Returns
    -------
    Series of str
    """
    kinds = pd.Series(CLIP, index=clips.index, dtype="str")
    if "source" in clips:
        kinds = kinds.mask(clips["source"].notna() & (clips["source"] != clips["path"]), PART)
    return kinds


def counted(summary: Mapping[str, int]) -> str:
    """Say how many files are not used.

    Parameters
    ----------
    summary : mapping of str to int
        With ``rejected``, ``missing`` and ``other_files``.
    """
    missing, others = summary["missing"], summary["other_files"]
    parts = [f"{summary['rejected']} rejected" + (f" ({missing} missing)" if missing else "")]
    parts += [f"{others} other file{'s' if others > 1 else ''}"] if others else []
    return ", ".join(parts)
