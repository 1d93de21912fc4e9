"""Keep the clips that can be used, copy them, and describe the dataset that they make."""

import difflib
import hashlib
import math
import shutil
from collections.abc import Iterable, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from pipeline import cpus, evidence, paths, tables
from pipeline.data import annotations, inventory
from pipeline.data.datasets import Dataset, copies
from pipeline.data.datasets.folds import FEWEST
from pipeline.errors import UserError
from pipeline.sound import decoding

LONGEST_USUAL = 10.0
"""Longest window in seconds that :func:`usual_seconds` chooses, so that a few long recordings do
not make all windows long."""

UNLABELLED = "The clip has no label."
MISSING = "The file is missing."
"""Reasons why a clip is not used; a missing one is in the dataset's table but not in its folder."""

MEASURED = ["seconds", "sample_rate", "channels", "subtype"]
"""Properties of a clip that are measured by decoding it."""


def check_labelled(root: Path, table: pd.DataFrame) -> None:
    """Refuse a table without labels, and write the list of the files that are there.

    Parameters
    ----------
    root : Path
        Folder of the clips.
    table : DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips` returns it.

    Raises
    ------
    UserError
    """
    if table["label"].isna().all():
        unlabelled = table[["path"]].assign(reason=UNLABELLED, kind=inventory.kinds(table))
        everything = pd.concat([inventory.others(root, table, table), unlabelled])
        tables.write(paths.REJECTED, everything.sort_values("path"))
        raise UserError(
            f"There are no labelled clips in {root}: make one sub-folder per label there, find the"
            " labels in the file names with dataset.folder.pattern, or set dataset.source;"
            f" {paths.REJECTED} lists the files that are there."
        )


def check(table: pd.DataFrame) -> None:
    """Refuse a table of clips that cannot be split without leaks.

    Parameters
    ----------
    table : DataFrame
        Usable clips, with ``label``, ``fold`` and ``recording``.

    Raises
    ------
    UserError
        When there are fewer than two labels or three folds, when a clip has no fold or no
        recording, when a recording is in two folds, or when a label is in fewer than three folds.
    """
    labels = sorted(table["label"].unique())
    if not labels:
        raise UserError("No clip can be used: check dataset.name and dataset.source.")
    if len(labels) < 2:
        raise UserError(
            f"The only label is {labels[0]}, and a classifier needs two: add clips of another."
        )
    for column in ("fold", "recording"):
        if table[column].isna().any():
            path = table["path"][table[column].isna()].iloc[0]
            raise UserError(f"{path} has a label but no {column}: add it to the metadata.")
    folds = table.groupby("recording")["fold"].nunique()
    if folds.max() > 1:
        raise UserError(
            f"The recording {folds.idxmax()} is in {folds.max()} folds, so the model would be"
            " tested on a recording that it was trained on: keep all its clips in one fold."
        )
    if table["fold"].nunique() < FEWEST:
        raise UserError(
            f"The clips are in {table['fold'].nunique()} folds and {FEWEST} are needed (to"
            " train, to validate, to test): divide them into more folds."
        )
    spread = table.groupby("label")["fold"].nunique()
    if spread.min() < FEWEST:
        label = str(spread.idxmin())
        others = {other.casefold(): other for other in labels if other != label}
        near = difflib.get_close_matches(label.casefold(), others, n=1, cutoff=0.8)
        meant = f", or write {others[near[0]]} if that is meant" if near else ""
        number = evidence.count(spread.min(), "fold")
        raise UserError(
            f"The label {label} is in {number} and {FEWEST} are needed to train, validate and test"
            f" it: add recordings or leave the label out{meant}."
        )


def measure(
    root: Path,
    table: pd.DataFrame,
    min_seconds: float,
    unusable: Mapping[str, str] | None = None,
    most_rejected: float = math.inf,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut out labelled parts, decode every clip once, and sort out those that cannot be used.

    Parameters
    ----------
    root : Path
        Folder of the clips.
    table : DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips` returns it.
    min_seconds : float
        Minimum length of a clip, see :mod:`pipeline.sound.audible`.
    unusable : mapping of str to str, optional
        The reasons of clips, by path, that are rejected without being decoded.
    most_rejected : float
        When more clips than that are rejected, no more are decoded.

    Returns
    -------
    clips : DataFrame
        The usable rows, with ``seconds``, ``sample_rate`` (Hz), ``channels`` and ``subtype``.
    rejected : DataFrame
        ``path``, ``reason`` and ``kind`` of the other rows, see :mod:`pipeline.data.inventory`.
        Rows that were not decoded any more are in neither table.
    """

    def one(clip: tuple[str, bool]) -> dict[str, Any]:
        path, labelled = clip
        if path in problems:
            return {"reason": problems[path]}
        file = annotations.file_of(root, path)
        if not file.is_file():  # whether it has a label or not, or the files do not add up
            return {"reason": MISSING}
        if not labelled:
            return {"reason": UNLABELLED}
        try:
            info = decoding.probe(file, min_seconds)
        except decoding.AudioError as error:
            return {"reason": str(error)}
        return {name: getattr(info, name) for name in MEASURED}

    with decoding.muted():
        problems = {**(unusable or {}), **annotations.cut(root, table)}
    clips = list(zip(table["path"], table["label"].notna(), strict=True))
    clips = clips if most_rejected >= 0 else []
    rows: list[dict[str, Any]] = []
    count = 0
    with decoding.muted(), ThreadPool(cpus.available()) as pool:
        bar = tqdm(pool.imap(one, clips), "check", len(clips), unit="clip", disable=None)
        for row in bar:
            rows.append(row)
            count += "reason" in row
            if count > most_rejected:
                bar.close()
                break
    checked = table.iloc[: len(rows)]
    measured = pd.DataFrame(rows, columns=["reason", *MEASURED], index=checked.index)
    usable = measured["reason"].isna()
    kinds = inventory.kinds(checked)
    rejected = checked[["path"]].join(measured["reason"]).assign(kind=kinds)[~usable]
    kept = checked.drop(columns="problem", errors="ignore").join(
        measured[MEASURED].round({"seconds": 6})
    )[usable]
    return kept.astype({"fold": int, "sample_rate": int, "channels": int}), rejected


def sort_out(
    dataset: Dataset,
    root: Path,
    table: pd.DataFrame,
    clips: pd.DataFrame,
    *,
    max_rejected: float,
    min_seconds: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the clips that can be used, and write the list of all other files.

    Parameters
    ----------
    dataset : Dataset
    root : Path
        Folder of the clips.
    table : DataFrame
        As :meth:`pipeline.data.datasets.Dataset.clips` returns it.
    clips : DataFrame
        The same, corrected.
    max_rejected, min_seconds : float
        ``dataset.max_rejected`` and ``features.min_seconds``.

    Returns
    -------
    clips : DataFrame
        As :func:`measure` returns them.
    unused : DataFrame
        All other files, as in ``data/rejected.csv``.

    Raises
    ------
    UserError
        As soon as more clips are rejected than allowed.
    """
    others = inventory.others(root, table, clips)
    # In a published dataset, it is not for us to say which label is right.
    own = dataset.name == "folder"
    unusable = copies.contradictions(root, clips) if own else {}
    badly_named = int((others["kind"] == inventory.CLIP).sum())
    total = len(clips) + badly_named
    most = math.floor(max_rejected * total)
    used, rejected = measure(root, clips, min_seconds, unusable, most - badly_named)
    unused = pd.concat([others, rejected]).sort_values("path", ignore_index=True)
    tables.write(paths.REJECTED, unused)
    count, checked = badly_named + len(rejected), badly_named + len(used) + len(rejected)
    if count > most:
        found = f"{count} of {total} clips cannot be used"
        if checked < total:
            found = f"Checking stopped after {checked} of {total} clips: {count} cannot be used"
        raise UserError(
            f"{found}, more than dataset.max_rejected = {max_rejected:g} allows: see the reasons in"
            f" {paths.REJECTED}, then fix the clips or raise dataset.max_rejected."
        )
    return used, unused


def usual_seconds(seconds: pd.Series) -> float:
    """Choose a window length that nine of ten clips fit into.

    Parameters
    ----------
    seconds : Series of float
        Length of every clip.

    Returns
    -------
    float
        In seconds, rounded up to a tenth. At least 1, which a network needs, and at most
        :data:`LONGEST_USUAL`.
    """
    most = math.ceil(seconds.quantile(0.9, interpolation="lower") * 10) / 10
    return float(min(max(most, 1.0), LONGEST_USUAL))


def window_seconds(dataset: Dataset, clips: pd.DataFrame) -> float:
    """Return the nominal length of the dataset's clips, or the usual length of these clips.

    Parameters
    ----------
    dataset : Dataset
    clips : DataFrame
        With ``seconds``.

    Returns
    -------
    float
        In seconds.
    """
    return dataset.clip_seconds or usual_seconds(clips["seconds"])


def copy_clips(root: Path, files: list[str]) -> None:
    """Put the clips, and nothing else, into the stage's output folder.

    The folder exists only if it has all of them, even if the stage is killed.

    Parameters
    ----------
    root : Path
        Folder of the clips.
    files : list of str
        POSIX paths relative to `root`. They are the same in the output folder.
    """
    unfinished = paths.AUDIO.with_name(f"{paths.AUDIO.name}.unfinished")
    for old in (unfinished, paths.AUDIO):
        if old.exists():
            shutil.rmtree(old)
    ours = paths.DOWNLOADS.resolve()
    links = True
    for path in tqdm(files, "copy", unit="clip", disable=None):
        file, target = annotations.file_of(root, path), unfinished / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # nobody edits what was downloaded or cut out, so a link is as good as a copy
        if links and file.resolve().is_relative_to(ours):
            try:
                target.hardlink_to(file)
                continue
            except OSError:
                links = False
        shutil.copyfile(file, target)
    unfinished.replace(paths.AUDIO)
    shutil.rmtree(annotations.PARTS, ignore_errors=True)


def content_hash(root: Path, files: Iterable[str]) -> str:
    """Hash the content and the names of files, as ``sha256sum FILES | sha256sum`` does.

    Parameters
    ----------
    root : Path
        Folder that the names are relative to.
    files : iterable of str
        POSIX paths, in any order.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    total = hashlib.sha256()
    for name in sorted(files):
        with (root / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{digest}  {name}\n".encode())
    return total.hexdigest()


def is_as_published(dataset: Dataset, root: Path, files: Iterable[str]) -> bool | None:
    """Whether the clips are those that were published; None if their hash is not known.

    Parameters
    ----------
    dataset : Dataset
    root : Path
        Folder of the clips.
    files : iterable of str
        POSIX paths relative to `root`; missing files are left out.
    """
    if dataset.content is None:
        return None
    existing = [path for path in files if (root / path).is_file()]
    return content_hash(root, existing) == dataset.content


def card(
    dataset: Dataset,
    clips: pd.DataFrame,
    rejected: int,
    origin: str,
    as_published: bool | None,
    corrections: dict[str, str | int],
    grouped_by: str,
) -> dict[str, Any]:
    """Describe the dataset for the later stages and for the model made from it.

    Parameters
    ----------
    dataset : Dataset
    clips : DataFrame
        The usable clips, as :func:`measure` returns them, already in ``data/audio``.
    rejected : int
        Number of clips that cannot be used.
    origin : str
        As :func:`pipeline.data.source.find` returns it.
    as_published : bool or None
        As :func:`is_as_published` returns it.
    corrections : dict
        As :func:`pipeline.data.corrections.facts` returns it.
    grouped_by : str
        As :func:`pipeline.data.datasets.grouping.named` returns it.

    Returns
    -------
    dict
    """
    return {
        "name": dataset.name,
        "title": dataset.title,
        "license": dataset.license,
        "homepage": dataset.homepage,
        "source": origin,
        "as_published": as_published,
        "clip_seconds": window_seconds(dataset, clips),
        "labels": sorted(clips["label"].unique()),
        "folds": sorted(int(fold) for fold in clips["fold"].unique()),
        "grouped_by": grouped_by,
        **_numbers(clips, rejected),
        **corrections,
        "sha256": content_hash(paths.AUDIO, clips["path"]),
    }


def summary(clips: pd.DataFrame, unused: pd.DataFrame) -> dict[str, Any]:
    """Count files, clips, recordings, classes, folds and hours, for ``dvc metrics``.

    Parameters
    ----------
    clips : DataFrame
        As :func:`measure` returns them.
    unused : DataFrame
        The other files, with the columns of :mod:`pipeline.data.inventory`.

    Returns
    -------
    dict
        ``files``, those in the dataset's folder, are ``clips + rejected + other_files - missing -
        parts``. ``missing`` clips are in the dataset's table only, and ``parts`` are clips that are
        cut out of a file.
    """
    rejected = int((unused["kind"] != inventory.OTHER).sum())
    parts = int((pd.concat([inventory.kinds(clips), unused["kind"]]) == inventory.PART).sum())
    missing = int((unused["reason"] == MISSING).sum())
    return {
        **_numbers(clips, rejected),
        "missing": missing,
        "other_files": len(unused) - rejected,
        "parts": parts,
        "files": len(clips) + len(unused) - missing - parts,
        "classes": clips["label"].nunique(),
        "folds": clips["fold"].nunique(),
        "hours": float(round(clips["seconds"].sum() / 3600, 3)),
    }


def _numbers(clips: pd.DataFrame, rejected: int) -> dict[str, int]:
    return {
        "clips": len(clips),
        "recordings": clips["recording"].nunique(),
        "rejected": rejected,
    }
