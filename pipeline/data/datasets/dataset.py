"""Define what a dataset is: where it is published, and how its table of clips is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.data import annotations
from pipeline.data.datasets import copies
from pipeline.data.datasets.metadata import COLUMNS, check_names, check_text
from pipeline.errors import UserError
from pipeline.params import DatasetName, DatasetParams


@dataclass(frozen=True)
class Archive:
    """Where a dataset is published.

    Attributes
    ----------
    url : str
        Address.
    file_name : str
        Name to keep it under.
    checksum : str or None
        ``sha256:...`` or ``md5:...``.
    """

    url: str
    file_name: str
    checksum: str | None


@dataclass(frozen=True)
class Dataset:
    """A dataset and its reader.

    Attributes
    ----------
    name : str
        As in ``dataset.name``.
    title, homepage, license : str
        For the dataset card.
    clip_seconds : float or None
        Nominal length of a clip, in seconds; None where it is taken from the clips.
    read : callable
        Takes the dataset's folder and the parameters, returns a table with some of
        :data:`~pipeline.data.datasets.metadata.COLUMNS`.
    mark : str or None
        A path that every copy holds, by which its folder is recognised.
    archive : Archive or None
        Where it is published, if it is.
    content : str or None
        :func:`pipeline.data.prepare.content_hash` of the published clips.
    """

    name: DatasetName
    title: str
    homepage: str
    license: str
    clip_seconds: float | None
    read: Callable[[Path, DatasetParams], pd.DataFrame]
    mark: str | None = None
    archive: Archive | None = None
    content: str | None = None

    def locate(self, where: Path) -> Path:
        """Find the dataset's folder: the given one, or a sub-folder of it.

        Parameters
        ----------
        where : Path
            An existing folder.

        Returns
        -------
        Path

        Raises
        ------
        UserError
            When none of them holds :attr:`mark`.
        """
        if self.mark is None:
            return where
        for candidate in (where, *sorted(p for p in where.iterdir() if p.is_dir())):
            if (candidate / self.mark).exists():
                return candidate
        raise UserError(
            f"{where} is not a copy of {self.title}, because {self.mark} is missing: correct"
            " dataset.source."
        )

    def clips(self, root: Path, params: DatasetParams) -> pd.DataFrame:
        """Read the table of clips.

        Parameters
        ----------
        root : Path
            As :meth:`locate` found it.
        params : DatasetParams
            Section ``dataset``.

        Returns
        -------
        DataFrame
            Sorted by ``path`` (POSIX, relative to `root`), with ``label``, ``fold`` (a whole
            number), ``recording`` (what the clip was cut from) and ``salience`` (1 foreground,
            2 background), :data:`pipeline.data.annotations.COLUMNS` if parts of recordings are
            labelled, and :data:`pipeline.data.datasets.copies.COLUMN` if recordings share a sound.
            Unknown values are null. Clips without a label or a file are listed too.

        Raises
        ------
        UserError
            When the table is damaged, or contains a path that leads out of `root`.
        """
        table = self.read(root, params)
        more = [name for name in (*annotations.COLUMNS, copies.COLUMN) if name in table]
        table = table.reindex(columns=[*COLUMNS, *more]).dropna(subset="path")
        table = table.astype({"fold": "Int64", "salience": "Int64"})
        check_names(table["path"])
        for column in ("label", "recording"):
            check_text(table[column].dropna().unique(), column)
        for path in table["path"]:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise UserError(
                    f"The dataset's table lists {path}, which leads out of its folder: correct the"
                    " path."
                )
        if table["path"].duplicated().any():
            path = table["path"][table["path"].duplicated()].iloc[0]
            raise UserError(f"{self.title} lists {path} twice: keep one of the lines.")
        return table.sort_values("path", ignore_index=True)
