"""Say what was assumed about which clips belong together, and warn where it may be wrong."""

import pandas as pd

from pipeline import evidence
from pipeline.data.datasets import grouping, naming
from pipeline.params import DatasetParams


def named(clips: pd.DataFrame, settings: DatasetParams) -> str:
    """Name the property that clips are grouped by, such as ``recording`` or ``speaker``.

    Parameters
    ----------
    clips : DataFrame
        ``path`` and ``recording``.
    settings : DatasetParams
        Section ``dataset``.
    """
    if settings.name != "folder":
        return "recording"
    return grouping.named(settings.folder.group, clips)


def assumed(clips: pd.DataFrame, settings: DatasetParams, grouped_by: str) -> str:
    """Say which clips of a folder stay together, to end a closing line; empty for other datasets.

    Parameters
    ----------
    clips : DataFrame
        ``recording``.
    settings : DatasetParams
        Section ``dataset``.
    grouped_by : str
        From :func:`named`.
    """
    if settings.name != "folder":
        return ""
    return f"; {grouping.described(grouped_by, clips)}"


def remarks(clips: pd.DataFrame, settings: DatasetParams, grouped_by: str) -> list[str]:
    """Warn about file names that suggest groups, and about classes too small to be judged.

    Parameters
    ----------
    clips : DataFrame
        ``path``, ``label`` and ``recording``.
    settings : DatasetParams
        Section ``dataset``.
    grouped_by : str
        From :func:`named`.

    Returns
    -------
    list of str
        Sentences.
    """
    unasked = settings.name == "folder" and settings.folder.group is None and grouped_by == "file"
    rare = evidence.rare(clips.groupby("label")["recording"].nunique())
    unit = evidence.unit({"grouped_by": grouped_by})
    warnings = [
        naming.warning(clips) if unasked else "",
        evidence.too_few(rare, clips["label"].nunique(), unit=unit),
    ]
    return [warning for warning in warnings if warning]
