"""Say how much a test can show: which figures rest on too few recordings, and what to do."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

JUDGED = 4
"""Fewest test recordings by which a class can be judged. If all of three are right, the 95 %
interval of the recall (Wilson's) still reaches down to 44 %, so the model may be wrong more often
than right; from four on, it stays above one half."""

FEW = 10
"""Below this number of recordings, an interval is not reliable, because it rests on how much the
recordings differ; and a class with fewer in all folds together cannot be judged well even by
cross-validation: if all are right, the interval of its recall is more than 28 points wide."""

WIDE = 0.2
"""Width of an interval of the accuracy from which the width is explained."""

NAMED = 3
"""Number of classes that a closing line names."""

CROSSVAL = "dvc repro crossval/dvc.yaml"
"""The command that tests every recording once."""


def unit(card: Mapping[str, Any]) -> str:
    """Return what clips that stay together make: a recording, or a group such as a speaker's clips.

    Parameters
    ----------
    card : mapping
        The dataset's card. An older one does not say what clips are grouped by.
    """
    own = card.get("grouped_by", "recording") in ("file", "recording")
    return "recording" if own else "group"


def tested(figures: Mapping[str, Any], unit: str) -> str:
    """Say how many clips were tested, and from how many recordings or groups they come."""
    return f"{count(figures['clips'], 'clip')} from {count(figures['recordings'], unit)}"


def by_class(figures: Mapping[str, Any]) -> str:
    """Put balanced accuracy and lowest recall into words.

    Parameters
    ----------
    figures : dict
        With what :func:`pipeline.evaluation.metrics.class_figures` returns.
    """
    return (
        f"balanced accuracy {figures['balanced_accuracy']:.1%}, lowest recall"
        f" {figures['worst_recall']:.1%} ({figures['worst_class']})"
    )


def remarks(
    figures: Mapping[str, Any],
    classes: "pd.DataFrame",
    *,
    all_folds: bool = False,
    most: int = NAMED,
    unit: str = "recording",
) -> list[str]:
    """Explain what the figures cannot show, and what to do about it.

    Parameters
    ----------
    figures : dict
        ``accuracy_low``, ``accuracy_high``, ``clips`` and ``recordings``.
    classes : DataFrame
        From :func:`pipeline.evaluation.metrics.per_class`.
    all_folds : bool
        Whether the figures come from a cross-validation, so that there is nothing left to test.
    most : int
        Maximum number of classes that a sentence names.
    unit : str
        What is counted, as :func:`unit` returns it.

    Returns
    -------
    list of str
        Sentences; empty if the figures rest on enough recordings.
    """
    tested = classes[classes["clips"] > 0]
    absent = classes.loc[classes["clips"] == 0, "label"].tolist()
    small = tested.loc[tested["recordings"] < JUDGED, "label"].tolist()
    few = rare(classes.set_index("label")["recordings_in_all"])
    found = [_about_interval(figures, unit)]
    if absent:
        found.append(f"Not in the test fold, so not counted: {listed(absent, most)}.")
    if small and len(small) == len(tested):
        found.append(f"No class has {JUDGED} test {unit}s, the fewest that can judge one.")
    elif small:
        found.append(f"Too few test {unit}s (fewer than {JUDGED}) to judge {listed(small, most)}.")
    if any(found) and not all_folds:
        found.append(f"`{CROSSVAL}` tests every {unit} once.")
    elif found[0] and not few:
        found.append(f"More {unit}s would make it narrower.")
    found.append(too_few(few, len(classes), most=most, unit=unit))
    return [sentence for sentence in found if sentence]


def rare(recordings: "pd.Series[int]") -> list[str]:
    """List the labels with too few recordings in all folds together to be judged well."""
    return [str(label) for label in recordings.index[recordings < FEW]]


def too_few(
    labels: Sequence[str], classes: int, *, most: int = NAMED, unit: str = "recording"
) -> str:
    """Ask for more recordings of classes that cannot be judged well.

    Parameters
    ----------
    labels : sequence of str
        As :func:`rare` returns them.
    classes : int
        Number of classes.
    most : int
        Maximum number of classes to name.
    unit : str
        What is counted.

    Returns
    -------
    str
        A sentence; empty if there is no such class.
    """
    if not labels:
        return ""
    named = "every class" if len(labels) == classes else listed(labels, most)
    has = "it has" if len(labels) == 1 else "each has"
    return f"Record more of {named}: {has} fewer than {FEW} {unit}s."


def _about_interval(figures: Mapping[str, Any], unit: str) -> str:
    clips, recordings = figures["clips"], figures["recordings"]
    wide = figures["accuracy_high"] - figures["accuracy_low"] > WIDE
    if not wide and recordings >= FEW:
        return ""
    few = count(recordings, unit)
    source = f"the {clips} clips come from only {few}"
    if clips == recordings:
        source = f"there {'is' if recordings == 1 else 'are'} only {few}"
    if wide:
        return f"The interval is wide because {source}."
    return f"The interval is not reliable because {source}."


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count(1, "recording"), count(2, "recording")
    ('1 recording', '2 recordings')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """Return names as a list for a sentence, of which at most `most` are named.

    Examples
    --------
    >>> listed(["a", "b"], 3), listed(["a", "b", "c", "d", "e"], 3)
    ('a and b', 'a, b, c and 2 more')
    """
    shown, rest = list(names[:most]), len(names) - most
    if rest > 0:
        shown.append(f"{rest} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def lines(first: str, remarks: Sequence[str]) -> str:
    """Return a closing line, with the remarks on a second one."""
    return f"{first}\n  {' '.join(remarks)}" if remarks else first
