"""The datasets: where each is, under which terms, and how its clips are read."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.data.datasets import esc, folder, urbansound8k
from pipeline.data.datasets.reading import COLUMNS, check_names
from pipeline.errors import UserError
from pipeline.params import DatasetName, DatasetParams

FEWEST_FOLDS = 3
"""One to test, one to validate, one to train."""


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
        Nominal length of a clip, in seconds; None where its clips tell.
    read : callable
        From the dataset's folder and the parameters to a table with some of `COLUMNS`.
    mark : str or None
        A path that every copy holds, by which its folder is recognised.
    archive : Archive or None
        Where it is published, if it is.
    content : str or None
        :func:`content_hash` of the published clips.
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
        """Find the dataset's folder: the one given, or a sub-folder that wraps it.

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
            When neither holds what every copy of the dataset holds.
        """
        if self.mark is None:
            return where
        for candidate in (where, *sorted(p for p in where.iterdir() if p.is_dir())):
            if (candidate / self.mark).exists():
                return candidate
        raise UserError(f"{where} is not a copy of {self.title}: {self.mark} is missing.")

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
            Sorted by ``path`` (POSIX, relative to `root`), with ``label``, ``fold``
            (whole number), ``recording`` (what the clip was cut from) and ``salience``
            (1 foreground, 2 background). Null is what is not known; a clip without a
            label or file is still listed.

        Raises
        ------
        UserError
            When the table is damaged, or a path in it is not to be trusted.
        """
        table = self.read(root, params).reindex(columns=COLUMNS).dropna(subset="path")
        table = table.astype({"fold": "Int64", "salience": "Int64"})
        check_names(table["path"])
        for path in table["path"]:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise UserError(f"{self.title} lists {path}, which leads out of its folder.")
        if table["path"].duplicated().any():
            path = table["path"][table["path"].duplicated()].iloc[0]
            raise UserError(f"{self.title} lists {path} twice.")
        return table.sort_values("path", ignore_index=True)


def check(table: pd.DataFrame) -> None:
    """Refuse a table of clips that no honest split can be made of.

    Parameters
    ----------
    table : DataFrame
        Usable clips, with ``label``, ``fold`` and ``recording``.

    Raises
    ------
    UserError
        With fewer than two labels, fewer than three folds, a clip without a fold or a
        recording, a recording in two folds, or a label in fewer than three folds.
    """
    labels = sorted(table["label"].unique())
    if len(labels) < 2:
        raise UserError(
            f"There is nothing to tell apart, the only label is {labels[0]}: add clips of another."
            if labels
            else "No clip can be used: see dataset.name and dataset.source."
        )
    for column in ("fold", "recording"):
        if table[column].isna().any():
            path = table["path"][table[column].isna()].iloc[0]
            raise UserError(f"{path} has a label but no {column}: add it to the metadata.")
    folds = table.groupby("recording")["fold"].nunique()
    if folds.max() > 1:
        raise UserError(
            f"The recording {folds.idxmax()} is in {folds.max()} folds, so the test would know it"
            " from the training: keep all its clips in one fold."
        )
    if table["fold"].nunique() < FEWEST_FOLDS:
        raise UserError(
            f"The clips are in {table['fold'].nunique()} folds and {FEWEST_FOLDS} are needed:"
            " one to train, one to validate, one to test."
        )
    spread = table.groupby("label")["fold"].nunique()
    if spread.min() < FEWEST_FOLDS:
        raise UserError(
            f"The label {spread.idxmin()} is in {spread.min()} folds and {FEWEST_FOLDS} are"
            " needed to train, validate and test it: add recordings or leave it out."
        )


def content_hash(root: Path, files: Iterable[str]) -> str:
    """Hash the content and the names of files; what ``sha256sum FILES | sha256sum`` says.

    Parameters
    ----------
    root : Path
        Folder that the names are relative to.
    files : iterable of str
        POSIX paths; their order does not matter.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    whole = hashlib.sha256()
    for name in sorted(files):
        with (root / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{digest}  {name}\n".encode())
    return whole.hexdigest()


def get(name: DatasetName) -> Dataset:
    """Look a dataset up.

    Parameters
    ----------
    name : str
        As in ``dataset.name``.

    Returns
    -------
    Dataset
    """
    return DATASETS[name]


_ESC10_COMMIT = "553c8f1743b9dba6b282e1323c3ca8fa76923448"  # the next one removed the clips
_ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"

DATASETS: dict[DatasetName, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="foley",
            title="Foley, ten urban sounds synthesised",
            homepage="",
            license="made here, no rights of others",
            clip_seconds=4.0,
            read=urbansound8k.read,
            mark=urbansound8k.MARK,
        ),
        Dataset(
            name="esc10",
            title="ESC-10",
            homepage="https://github.com/karolpiczak/ESC-10",
            license="CC BY 3.0",
            clip_seconds=5.0,
            read=esc.read_esc10,
            mark=esc.ESC10_MARK,
            # GitHub makes the zip when asked, so the clips are checked and not the zip.
            archive=Archive(
                f"https://github.com/karoldvl/ESC-10/archive/{_ESC10_COMMIT}.zip",
                f"ESC-10-{_ESC10_COMMIT[:8]}.zip",
                None,
            ),
            content="98dcfc5c90c324e1413fa1975dced99302ebae952bbdfa05a0381f4d07300269",
        ),
        Dataset(
            name="esc50",
            title="ESC-50",
            homepage="https://github.com/karolpiczak/ESC-50",
            license="CC BY-NC 3.0",
            clip_seconds=5.0,
            read=esc.read_esc50,
            mark=esc.ESC50_MARK,
            archive=Archive(
                f"https://github.com/karolpiczak/ESC-50/archive/{_ESC50_COMMIT}.zip",
                f"ESC-50-{_ESC50_COMMIT[:8]}.zip",
                "sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
            ),
        ),
        Dataset(
            name="urbansound8k",
            title="UrbanSound8K",
            homepage="https://urbansounddataset.weebly.com/urbansound8k.html",
            license="CC BY-NC 3.0",
            clip_seconds=4.0,
            read=urbansound8k.read,
            mark=urbansound8k.MARK,
            archive=Archive(
                "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
                "UrbanSound8K.tar.gz",
                "md5:9aa69802bbf37fb986f71ec1483a196e",
            ),
        ),
        Dataset(
            name="folder",
            title="Own recordings",
            homepage="",
            license="as agreed with whoever made them",
            clip_seconds=None,
            read=folder.read,
        ),
    )
}
