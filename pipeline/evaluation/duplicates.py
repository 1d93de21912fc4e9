"""Find clips that are in two folds, or under two labels, although they are the same sound."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from pipeline import cpus
from pipeline.sound import decoding, fingerprint

FACTS = ["path", "label", "fold", "recording"]
"""Columns that a pair has for both clips, as ``path_a``, ``path_b`` and so on."""


def check(clips: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Find pairs of clips that share a recording, a file or a stretch of sound.

    Parameters
    ----------
    clips : DataFrame
        The clips table: ``path``, ``label``, ``fold``, ``recording``.
    folder : Path
        The folder that the paths are relative to.

    Returns
    -------
    DataFrame
        One row per pair, leaks first: ``kind`` (``recording``, ``identical`` or
        ``near-duplicate``), ``score`` (see :func:`pipeline.sound.fingerprint.matches`; 1 for the
        first two kinds), ``leak`` (the clips are in different folds), ``conflict`` (they have
        different labels), ``offset`` in seconds, and :data:`FACTS` of both clips. A recording is
        listed once per pair of folds that it appears in. Near-duplicates within one recording are
        expected and listed only if their labels differ.
    """
    clips = clips.reset_index(drop=True)
    found = pd.concat(
        [
            recordings_in_two_folds(clips).assign(kind="recording", score=1.0),
            identical(clips, folder).assign(kind="identical", score=1.0, offset=0.0),
            near_duplicates(clips, folder).assign(kind="near-duplicate"),
        ],
        ignore_index=True,
    ).astype({"a": int, "b": int, "score": float})
    first, second = (clips.loc[found[side], FACTS].reset_index(drop=True) for side in ("a", "b"))
    pairs = found[["kind", "score", "offset"]].assign(
        leak=first["fold"] != second["fold"], conflict=first["label"] != second["label"]
    )
    pairs = pairs.join(first.add_suffix("_a")).join(second.add_suffix("_b"))
    expected = (first["recording"] == second["recording"]) & ~pairs["conflict"]
    repeated = found.duplicated(["a", "b"])  # identical clips are near-duplicates as well
    pairs = pairs[~repeated & (~expected | (pairs["kind"] != "near-duplicate"))]
    return pairs.sort_values(
        ["leak", "conflict", "score"], ascending=False, kind="stable", ignore_index=True
    )


def recordings_in_two_folds(clips: pd.DataFrame) -> pd.DataFrame:
    """Find recordings with clips in several folds.

    Returns
    -------
    DataFrame
        ``a`` and ``b``, row numbers in `clips`: the recording's first clips in two folds.
    """
    firsts = clips.reset_index().drop_duplicates(["recording", "fold"])
    pairs = firsts.merge(firsts, on="recording", suffixes=("_a", "_b"))
    pairs = pairs[pairs["fold_a"] < pairs["fold_b"]]
    return pd.DataFrame({"a": pairs["index_a"], "b": pairs["index_b"]})


def identical(clips: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Find clips whose files have the same bytes.

    Returns
    -------
    DataFrame
        ``a`` and ``b``, row numbers in `clips`: the first of the equal files and one other.
    """

    def digest(path: str) -> str:
        with (folder / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    by_content = clips["path"].map(digest).reset_index()
    pairs = by_content.drop_duplicates("path").merge(by_content, on="path", suffixes=("_a", "_b"))
    pairs = pairs[pairs["index_a"] < pairs["index_b"]]
    return pd.DataFrame({"a": pairs["index_a"], "b": pairs["index_b"]})


def near_duplicates(clips: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Find clips that contain the same stretch of sound, by their fingerprints.

    Parameters
    ----------
    clips : DataFrame
        Needs the column ``path``.
    folder : Path

    Returns
    -------
    DataFrame
        ``a``, ``b``, ``score`` and ``offset``, as in :func:`pipeline.sound.fingerprint.matches`.
    """

    def landmarks(path: str) -> fingerprint.Landmarks:
        return fingerprint.landmarks(decoding.load(folder / path, fingerprint.SAMPLE_RATE))

    with decoding.muted(), ThreadPoolExecutor(cpus.available()) as pool:
        of_clips = pool.map(landmarks, clips["path"])
        found = list(tqdm(of_clips, "fingerprint", len(clips), unit="clip", disable=None))
    table = fingerprint.matches(found)
    return table.loc[table["same"], ["a", "b", "score", "offset"]]


def summary(pairs: pd.DataFrame) -> str:
    """Sum up in a clause what :func:`check` found."""
    leaks = pairs[pairs["leak"]]
    parts = [
        f"{count} {kind} across folds"
        for kind, count in leaks["kind"].value_counts().sort_index().items()
    ]
    if conflicts := int(pairs["conflict"].sum()):
        parts.append(f"{conflicts} similar pairs with different labels")
    if alike := int((~pairs["leak"] & ~pairs["conflict"]).sum()):
        parts.append(f"{alike} similar pairs within one fold")
    return ", ".join(parts or ["no leaks between folds"])
