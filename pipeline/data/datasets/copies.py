"""Find files with the same content, so that the same sound is never on two sides of a split."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import pandas as pd

from pipeline.errors import UserError


def identical(root: Path, paths: Iterable[str]) -> list[list[str]]:
    """Find the files that have the same content.

    Parameters
    ----------
    root : Path
        Folder that the paths are relative to.
    paths : iterable of str
        POSIX paths; missing files are left out, and so are empty ones.

    Returns
    -------
    list of list of str
        The paths of two or more files each, sorted.
    """
    groups = [[path for path in sorted(paths) if (root / path).is_file()]]
    for key in (_size, _beginning, _content):  # most files differ in what is read fast
        groups = [part for group in groups for part in _split(root, group, key)]
    return groups


def _split(
    root: Path, paths: list[str], key: Callable[[Path], Hashable | None]
) -> Iterable[list[str]]:
    parts = defaultdict(list)
    for path in paths:
        if value := key(root / path):
            parts[value].append(path)
    return [part for part in parts.values() if len(part) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 14)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joined(recordings: pd.Series, groups: Iterable[list[str]]) -> pd.Series:
    """Make one recording of those that share a file.

    Parameters
    ----------
    recordings : Series of str
        The recording of each clip, by path.
    groups : iterable of list of str
        As :func:`identical` returns them.

    Returns
    -------
    Series of str
    """
    for group in groups:
        names = recordings[group].dropna().unique()  # unlabelled clips may have none
        if len(names) > 1:
            recordings = recordings.mask(recordings.isin(names), min(names))
    return recordings


def check_folds(folds: pd.Series, groups: Iterable[list[str]]) -> None:
    """Refuse identical files in different folds.

    Parameters
    ----------
    folds : Series of int
        The fold of each clip, by path; null where none is given.
    groups : iterable of list of str
        As :func:`identical` returns them.

    Raises
    ------
    UserError
        Names two of the files.
    """
    for group in groups:
        given = folds[group].dropna()
        if len(set(given)) > 1:
            one, other = given.index[0], given.index[given != given.iloc[0]][0]
            raise UserError(
                f"{one} and {other} are the same file but in the folds {given[one]} and"
                f" {given[other]}, so the model would be tested on a clip that it was trained on:"
                " delete one of them, or put them into one fold."
            )


def contradictions(root: Path, clips: pd.DataFrame) -> dict[str, str]:
    """Find clips whose file is also there with another label.

    Parameters
    ----------
    root : Path
        Folder of the clips.
    clips : DataFrame
        Needs ``path`` and ``label``; unlabelled clips are left out.

    Returns
    -------
    dict of str to str
        A sentence for the path of each such clip, which names the other one.
    """
    labels = clips.dropna(subset="label").set_index("path")["label"]
    found = {}
    for group in identical(root, labels.index):
        for path in group:
            others = [other for other in group if labels[other] != labels[path]]
            if others:
                found[path] = (
                    f"The same file is there as {others[0]}, with the label {labels[others[0]]}:"
                    " delete the wrong one."
                )
    return found
