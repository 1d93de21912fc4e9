"""Find files with the same sound, so that the same sound is never on two sides of a split."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from pipeline import cpus
from pipeline.errors import UserError
from pipeline.sound import decoding

COLUMN = "copy_of"
"""Column that a table of clips has in addition if recordings share a sound: the other file."""


def identical(root: Path, paths: Iterable[str]) -> list[list[str]]:
    """Find the files that hold the same samples, whatever their format and their tags.

    Parameters
    ----------
    root : Path
        Folder that the paths are relative to.
    paths : iterable of str
        POSIX paths; files that are missing, cannot be decoded or are silent are left out.

    Returns
    -------
    list of list of str
        The paths of two or more files each, sorted.
    """
    files = [path for path in sorted(paths) if (root / path).is_file()]
    groups: list[list[str]] = []
    with decoding.muted(), ThreadPool(cpus.available()) as pool:
        for most in (1, None):  # most files differ in their first block
            hashes = pool.imap(partial(_hash, most=most), [root / path for path in files])
            bar = tqdm(hashes, "compare", len(files), unit="file", disable=None)
            alike = defaultdict(list)
            for path, value in zip(files, bar, strict=True):
                if value:
                    alike[value].append(path)
            groups = [group for group in alike.values() if len(group) > 1]
            files = [path for group in groups for path in group]
    return groups


def _hash(path: Path, most: int | None) -> str | None:
    """Hash the first `most` blocks of a file, in mono; None if it is no sound or silent."""
    digest, heard = hashlib.sha256(), False
    try:
        for block in islice(decoding.channel_blocks(path), most):
            mono = block.mean(axis=1)
            heard = heard or bool(mono.any())
            digest.update(mono)
    except decoding.AudioError:
        return None
    # a file that begins with silence may still hold a sound
    return digest.hexdigest() if heard or most else None


def joined(recordings: pd.Series, groups: Iterable[list[str]]) -> pd.Series:
    """Make one recording of those that share a sound.

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


def originals(recordings: pd.Series, groups: Iterable[list[str]]) -> pd.Series:
    """Name the first of the files with the same sound for those that are in another recording.

    Parameters
    ----------
    recordings, groups
        As for :func:`joined`.

    Returns
    -------
    Series of str
        By path; null for all other files.
    """
    found = {
        path: group[0]
        for group in groups
        for path in group[1:]
        if recordings[path] != recordings[group[0]]
    }
    return pd.Series(found, recordings.index, dtype="str")


def remark(clips: pd.DataFrame, unit: str) -> str:
    """Say which recordings were joined because they share a sound; empty if none were.

    Parameters
    ----------
    clips : DataFrame
        ``path``, and :data:`COLUMN` if there are any.
    unit : str
        What clips that stay together make, such as ``group``.
    """
    rows = clips.dropna(subset=COLUMN) if COLUMN in clips else clips[:0]
    if rows.empty:
        return ""
    path, original = rows[["path", COLUMN]].iloc[0]
    more = f", and there {'is' if len(rows) == 2 else 'are'} {len(rows) - 1} more such"
    return (
        f"{path} holds the same sound as {original}, so both count as one {unit}"
        f"{more if len(rows) > 1 else ''}: delete copies that are there by mistake."
    )


def check_folds(folds: pd.Series, groups: Iterable[list[str]]) -> None:
    """Refuse files with the same sound in different folds.

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
                f"{one} and {other} hold the same sound but are in the folds {given[one]} and"
                f" {given[other]}, so the model would be tested on a clip that it was trained on:"
                " delete one of them, or put them into one fold."
            )


def contradictions(root: Path, clips: pd.DataFrame) -> dict[str, str]:
    """Find clips whose sound is also there with another label.

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
    clips = clips.dropna(subset="label")
    labels = clips.set_index("path")["label"]
    # files with the same sound are in one recording by now, see :func:`joined`
    mixed = clips.groupby("recording")["label"].transform("nunique") > 1
    found = {}
    for group in identical(root, clips["path"][mixed]):
        for path in group:
            others = [other for other in group if labels[other] != labels[path]]
            if others:
                found[path] = (
                    f"The same sound is there as {others[0]}, with the label {labels[others[0]]}:"
                    " delete the wrong one."
                )
    return found
