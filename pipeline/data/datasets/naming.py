"""Find signs in the names of files that clips belong together.

A part of the names that repeats may be a speaker, a device, a place, a day, or the recording that
clips were cut from. Plain counters repeat too, so a number counts only where it is not one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from pipeline.data.datasets import folds
from pipeline.data.datasets.grouping import FILE, PARENT

REPEATED = 0.1
"""Smallest share of the files whose value another file has too. Chance gives far less: among 3,000
random numbers of six digits, 0.3 % occur twice."""

MOSTLY = 0.5
"""The same for weak signs, such as a single word or a sub-folder."""

UNIFORM = 0.9
"""Smallest share of names with the usual number of parts; otherwise parts have no fixed place."""

_SEPARATORS = "-_. ()"
_TAKES = {"take", "rep", "repetition", "trial", "try", "v", "ver", "version"}
_NAMED = {
    *("actor", "id", "participant", "patient", "person", "s", "sp", "speaker", "spk", "sub"),
    *("subj", "subject", "user"),
    *("dev", "device", "mic", "microphone", "phone", "station", "unit"),
    *("day", "place", "room", "session", "site"),
}
"""Words before the number of a person, thing, place or time, even where numbers look like takes."""

_SPLITS = re.compile(r"train\w*|val\w*|dev|eval|test\w*|fold\W?\d+", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DAY = r"(?P<day>20\d\d{0}[01]\d{0}[0-3]\d)"
_PIECES = r"(?P<group>[^/]+?)[-_ (]*\d*\)?\.\w+$"


@dataclass(frozen=True, eq=False)
class Sign:
    """A part of the paths that may say which clips belong together.

    Attributes
    ----------
    group : str
        Value of ``dataset.folder.group`` that finds this part.
    parts : Series of str
        The part of each path.
    """

    group: str
    parts: pd.Series

    def repeated(self, *columns: pd.Series) -> float:
        """Return the share of the files that agree with another one in value and `columns`."""
        keys = pd.concat([self.parts, *columns], axis=1, ignore_index=True)
        return float(keys.duplicated(keep=False).mean())

    def divides(self, labels: pd.Series) -> bool:
        """Whether it has enough values, which are more than the label or a split in other words."""
        # "dev" is a split, and the name of a person
        splits = self.parts.str.fullmatch(_SPLITS).mean() >= MOSTLY
        return self.parts.nunique() >= folds.FEWEST and not splits and self.varies(labels)

    def varies(self, labels: pd.Series) -> bool:
        """Whether most labels have several values."""
        return bool(self.parts.groupby(labels).nunique().gt(1).mean() >= MOSTLY)


def sign(clips: pd.DataFrame) -> Sign | None:
    """Find the most likely sign that clips belong together.

    Parameters
    ----------
    clips : DataFrame
        ``path`` and ``label``.

    Returns
    -------
    Sign or None
        None if the names show nothing.
    """
    return next(_signs(clips["path"], clips["label"]), None)


def warning(clips: pd.DataFrame) -> str:
    """Describe the sign that clips belong together, and the setting to try; empty if none.

    Parameters
    ----------
    clips : DataFrame
        As for :func:`sign`.
    """
    found = sign(clips)
    if found is None:
        return ""
    several = clips.groupby(found.parts)["label"].nunique()
    sizes = found.parts.value_counts(sort=False).sort_index()
    value = several.idxmax() if several.max() > 1 else sizes.idxmax()
    same = clips[found.parts == value].sort_values("path")
    other = same.drop_duplicates("label") if several.max() > 1 else same
    where = "files and labels" if several.max() > 1 else "files"
    return (
        f"{value!r} is in {other['path'].iloc[0]} and {other['path'].iloc[1]}: this part of the"
        f" names has {found.parts.nunique()} values, which repeat in other {where}. If it names a"
        " speaker, device, place, day or recording, keep its clips in one fold with"
        f" `{command(found.group)}`; if not, set dataset.folder.group to {FILE}."
    )


def command(group: str) -> str:
    """Write the command that sets ``dataset.folder.group``, quoted for a shell and for DVC.

    Examples
    --------
    >>> command("parent")
    'dvc exp run -S dataset.folder.group=parent'
    """
    if group.isidentifier():
        return f"dvc exp run -S dataset.folder.group={group}"
    return f"dvc exp run -S 'dataset.folder.group=\"{group}\"'"


def _signs(paths: pd.Series, labels: pd.Series) -> Iterator[Sign]:
    """Yield the signs, the most likely one first."""
    for one in _folders(paths):
        if one.divides(labels) and one.repeated() >= MOSTLY:
            yield one
    likely, unlikely = _in_names(paths, labels)
    yield from likely
    pieces = _find(_PIECES, paths)
    worded = pieces is not None and not pieces.parts.str.fullmatch(r"[\W\d_]*").any()
    if pieces and worded and pieces.divides(labels) and pieces.repeated(labels) >= MOSTLY:
        yield pieces
    yield from unlikely


def _find(group: str, paths: pd.Series) -> Sign | None:
    """Return the part of each path that an expression finds; None unless all paths have one."""
    expression = re.compile(group)
    matches = [expression.search(path) for path in paths]
    found = [match[1] for match in matches if match and match[1]]
    return Sign(group, pd.Series(found, paths.index)) if len(found) == len(paths) else None


def _folders(paths: pd.Series) -> Iterator[Sign]:
    """Yield the levels of folders that all files have, from above."""
    depths = paths.str.count("/")
    for level in range(int(depths.min())):
        found = _find(f"^{'[^/]+/' * level}(?P<group>[^/]+)/", paths)
        if found and level == depths.max() - 1:
            yield Sign(PARENT, found.parts)
        elif found:
            yield found


def _in_names(paths: pd.Series, labels: pd.Series) -> tuple[list[Sign], list[Sign]]:
    """Return the likely and the unlikely signs between the separators of file names."""
    names = paths.map(lambda path: PurePosixPath(path).stem)
    if names.str.fullmatch(_UUID).all():
        return [], []
    day = _day(paths)
    days = [day] if day and day.divides(labels) and day.repeated() >= REPEATED else []
    if day:  # what comes after a day is the time, or counts
        names = pd.Series(
            [name.split(value)[0] for name, value in zip(names, day.parts, strict=True)],
            names.index,
        )
    tokens = names.map(lambda name: re.split(r"[-_. ()]+", name.strip(_SEPARATORS)))
    lengths = tokens.map(len)
    if (lengths == lengths.mode().iloc[0]).mean() < UNIFORM:
        return days, []
    marks = "".join(mark for mark in _SEPARATORS if names.str.contains(mark, regex=False).any())
    columns = [
        part
        for place in range(int(lengths.min()))
        for part in _column(place, marks, paths, tokens.str[place])
        if part.varies(labels)
    ]
    likely: list[Sign] = []
    unlikely: list[Sign] = []
    for number, part in enumerate(columns, start=1):
        last = number == len(columns) and day is None
        if part.divides(labels) and _groups(part, labels, last=last):
            (unlikely if part.parts.str.len().max() == 1 else likely).append(part)
    return sorted([*likely, *days], key=_counts), unlikely


def _day(paths: pd.Series) -> Sign | None:
    for mark in ("", "-", "_", r"\."):
        found = _find(_DAY.format(mark), paths)
        if found:
            return found
    return None


def _column(place: int, marks: str, paths: pd.Series, tokens: pd.Series) -> Iterator[Sign]:
    """Yield one part of the names; words with a number at their end are two parts."""
    token = "[^" + "".join(sorted({*marks, ".", "/"}, key="-_ ()./".index)) + "]"
    between = f"{marks}+" if marks in ("-", "_", " ") else f"[{marks}]+"
    before = f"{token}+{between}" * place
    groups = [f"{before}(?P<group>{token}+)[^/]*$"]
    split = tokens.str.extract(r"^([A-Za-z]+)(\d+)$")
    if not split.isna().to_numpy().any() and not _constant(split[0]):
        groups = [
            f"{before}(?P<group>[A-Za-z]+){token}*[^/]*$",
            f"{before}[A-Za-z]+(?P<group>\\d+)[^/]*$",
        ]
        expected = [split[0], split[1]]
    else:
        expected = [tokens]
    for group, values in zip(groups, expected, strict=True):
        found = _find(group, paths)
        if found and (found.parts == values).all():
            yield found


def _groups(part: Sign, labels: pd.Series, *, last: bool) -> bool:
    """Whether a part of the names repeats as that of clips that belong together, not as a counter.

    Parameters
    ----------
    part : Sign
    labels : Series of str
    last : bool
        Whether nothing that varies comes after it. There, numbers and letters count takes.
    """
    numbers = part.parts.str.extract(r"^([A-Za-z]*)(\d+)$")
    if numbers.isna().to_numpy().any() or not _constant(numbers[0]):  # words and mixed codes
        if part.parts.str.len().max() == 1:
            return not last and part.repeated(labels) >= REPEATED
        return part.repeated() >= (MOSTLY if last else REPEATED)
    word = numbers[0].iloc[0].lower()
    if word in _TAKES:
        return False
    if word in _NAMED:
        return part.repeated() >= REPEATED
    if not last and part.repeated(labels) >= REPEATED:
        return True
    return _gaps(numbers[1]) and part.repeated() >= MOSTLY


def _constant(words: pd.Series) -> bool:
    return bool((words == words.iloc[0]).all())


def _counts(part: Sign) -> bool:
    """Whether the numbers of a part are 0 or 1 and those that follow, as a counter's are."""
    digits = part.parts.str.extract(r"(\d+)$")[0]
    if digits.isna().any():
        return False
    numbers = {int(text) for text in digits}
    return min(numbers) <= 1 and max(numbers) - min(numbers) + 1 <= 1.2 * len(numbers)


def _gaps(digits: pd.Series) -> bool:
    """Whether two of three numbers between the smallest and the largest are missing."""
    numbers = {int(text) for text in digits}
    return max(numbers) - min(numbers) + 1 > 3 * len(numbers)
