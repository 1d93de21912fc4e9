"""Find which clips of a folder belong together, so that they stay in one fold.

Clips belong together that share a speaker, a device, a place or a day, whatever label they have.
The value that they share, such as the name of the speaker, becomes their ``recording``.
"""

import difflib
import re
from pathlib import PurePosixPath

import pandas as pd

from pipeline import evidence
from pipeline.errors import UserError

PARENT = "parent"
"""Value of ``dataset.folder.group`` that groups files by the name of the folder they are in."""

FILE = "file"
"""Value of ``dataset.folder.group`` that makes each file a recording of its own."""


def recordings(clips: pd.DataFrame, used: pd.Series, group: str | None) -> pd.Series:
    """Find the recording or group that each clip belongs to.

    Parameters
    ----------
    clips : DataFrame
        ``path``, ``label``, ``recording`` (null where unknown), and a column for each group of
        ``dataset.folder.pattern`` and each column of ``clips.csv``.
    used : Series of bool
        Whether a clip, or a part of it, has a label.
    group : str or None
        ``dataset.folder.group``.

    Returns
    -------
    Series of str
        Null only for clips that are not used.

    Raises
    ------
    UserError
        When `group` is not valid, when it finds nothing for a clip that is used, or when clips of
        one recording are in two groups.
    """
    if group is None:
        return clips["recording"].fillna(clips["path"])
    if group in clips:
        found, remedy = clips[group], f"fill in its {group}"
    elif group == FILE:
        return clips["path"]
    elif group == PARENT:
        parents = clips["path"].map(lambda path: PurePosixPath(path).parent.name)
        found = parents.mask((parents == "") | (parents == clips["label"]))
        remedy = "put it into a sub-folder of its label's folder, such as the speaker's"
    else:
        expression = _expression(group, [str(name) for name in clips if name != "path"])
        found = clips["path"].map(lambda path: _value(expression, path))
        remedy = "correct the pattern or rename the file"
    missing = clips["path"][found.isna() & used]
    if len(missing):
        raise UserError(
            f"dataset.folder.group: {group} finds no group for {missing.iloc[0]}: {remedy}."
        )
    values = found.groupby(clips["recording"]).nunique()
    if values.gt(1).any():
        raise UserError(
            f"The recording {values.idxmax()} is in {values.max()} groups, because its clips differ"
            f" in dataset.folder.group: {group}. Give all its clips the same one."
        )
    return found


def named(group: str | None, clips: pd.DataFrame) -> str:
    """Name the property that clips are grouped by.

    Parameters
    ----------
    group : str or None
        ``dataset.folder.group``.
    clips : DataFrame
        ``path`` and ``recording``.

    Returns
    -------
    str
        Such as ``speaker`` or ``parent folder``; ``file`` if each file is a recording of its own,
        and ``recording`` if the folder says which clips were cut from one.
    """
    if group is None or group == FILE:
        # files with the same sound share the path of one of them
        return "file" if clips["recording"].isin(clips["path"]).all() else "recording"
    if group == PARENT:
        return "parent folder"
    if "(" in group:
        return next(iter(re.compile(group).groupindex), "pattern")
    return group


def described(by: str, clips: pd.DataFrame) -> str:
    """Say in a few words which clips stay together.

    Examples
    --------
    >>> described("speaker", pd.DataFrame({"recording": ["anna", "ben", "anna"]}))
    'clips grouped by speaker: 2 groups'
    """
    if by == "file":
        return "each file counts as its own recording"
    return f"clips grouped by {by}: {evidence.count(clips['recording'].nunique(), 'group')}"


def compiled(pattern: str, key: str) -> "re.Pattern[str]":
    """Compile the regular expression in a key of ``params.yaml``; raise UserError if it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"{key} {pattern!r} is not a regular expression ({error}): correct it."
        ) from None


def _expression(group: str, columns: list[str]) -> "re.Pattern[str]":
    """Compile `group`, which is a regular expression if it is valid at all."""
    if "(" not in group and re.search(r"[\\\[\]^$.*+?|]", group):
        raise UserError(
            f"dataset.folder.group {group!r} marks no part of the path: put the part that clips"
            " share in parentheses, as in (?P<speaker>[a-z]+)."
        )
    if "(" not in group:
        near = difflib.get_close_matches(group, [*columns, PARENT, FILE], n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(columns)}."
        raise UserError(
            f"dataset.folder.group is {group!r}, but neither clips.csv nor dataset.folder.pattern"
            f" has a column of this name: {hint}"
        )
    expression = compiled(group, "dataset.folder.group")
    named = len(expression.groupindex)
    if named != 1 and (named or expression.groups != 1):
        raise UserError(
            f"dataset.folder.group {group!r} has {expression.groups} groups in parentheses: name"
            " the one that counts, and no other, as in (?P<speaker>[a-z]+)."
        )
    return expression


def _value(expression: "re.Pattern[str]", path: str) -> str | None:
    match = expression.search(path)
    return (match[next(iter(expression.groupindex.values()), 1)] or None) if match else None
