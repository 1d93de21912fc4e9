"""What of the test is known from the training, and what ignoring that would have claimed.

    python -m pipeline leakcheck [--no-training]

First the clips: recordings, identical files and near-duplicates that stand in two folds, so on two
sides of a split. Then the network of ``train`` twice, with the same parameters and seeds: over the
dataset's folds, and over folds that its clips were shuffled into. A random split exists in this
project only here, to show what it would have claimed.

Ends with status 1 when something stands in two folds.
"""

import argparse
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from pipeline import cpus, params, paths, tables
from pipeline.data.feature_store import read as read_features
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.params import EvaluateParams, Params
from pipeline.sound import decoding, fingerprint
from pipeline.training import folds
from pipeline.training.folds import Unit

FACTS = ["path", "label", "fold", "recording"]
"""Of a clip, what is said of both clips of a pair, as ``path_a``, ``path_b`` and so on."""


def main(*, training: bool = True) -> str:
    """Check the clips, compare the protocols, write both down.

    Parameters
    ----------
    training : bool
        Whether to train at all; units that :mod:`pipeline.training.folds` has trained already are
        not trained again.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When a recording, a file or a stretch of sound stands in two folds.
    """
    settings = params.load()
    # a recording named 007 and a label named None are what they are
    clips = tables.read(paths.CLIPS)
    pairs = check(clips, paths.AUDIO)
    paths.LEAKS.parent.mkdir(parents=True, exist_ok=True)
    pairs.to_csv(paths.LEAKS, index=False, float_format="%.4f")
    said = f"{len(clips)} clips, {summary(pairs)} -> {paths.LEAKS}"
    if training:
        card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
        answers = protocols(settings, card["labels"])
        table = compare(answers, settings.evaluate)
        table.to_csv(paths.PROTOCOLS, index=False, float_format="%.6f")
        print(table.to_string(index=False, float_format=lambda value: f"{value:.1%}"))
        official, claimed = table["accuracy"]
        said += (
            f"; accuracy {official:.1%} over the folds, and a random split would have claimed"
            f" {claimed:.1%} -> {paths.PROTOCOLS}"
        )
    if pairs["leak"].any():
        raise UserError(
            f"{said}. What stands in two folds is known from the training when it is tested: put it"
            f" into one fold, or drop one of the clips in {paths.CORRECTIONS}."
        )
    return said


def check(clips: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """List what clips have in common.

    Parameters
    ----------
    clips : DataFrame
        The clips table: ``path``, ``label``, ``fold``, ``recording``.
    folder : Path
        Where the paths begin.

    Returns
    -------
    DataFrame
        A row a pair: ``kind`` (``recording``, ``identical`` or ``near-duplicate``), ``score``
        (see :func:`pipeline.sound.fingerprint.matches`; 1 for the first two), ``leak`` (in two
        folds),
        ``conflict`` (under two labels), ``offset`` (seconds), and path, label, fold and recording
        of both. First what leaks. A recording is listed once for every two folds that it is in,
        and its clips are not listed again as near-duplicates of each other, unless the labels
        differ.
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
    told = found.duplicated(["a", "b"])  # identical clips are near-duplicates as well
    pairs = pairs[~told & (~expected | (pairs["kind"] != "near-duplicate"))]
    return pairs.sort_values(
        ["leak", "conflict", "score"], ascending=False, kind="stable", ignore_index=True
    )


def recordings_in_two_folds(clips: pd.DataFrame) -> pd.DataFrame:
    """Find recordings whose clips are in several folds.

    Returns
    -------
    DataFrame
        ``a`` and ``b``, rows of `clips`: the first clips of the recording in two of its folds.
    """
    firsts = clips.reset_index().drop_duplicates(["recording", "fold"])
    both = firsts.merge(firsts, on="recording", suffixes=("_a", "_b"))
    both = both[both["fold_a"] < both["fold_b"]]
    return pd.DataFrame({"a": both["index_a"], "b": both["index_b"]})


def identical(clips: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Find clips whose files are the same to the byte.

    Returns
    -------
    DataFrame
        ``a`` and ``b``, rows of `clips`: the first of equal files and each other one.
    """

    def digest(path: str) -> str:
        with (folder / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    by_content = clips["path"].map(digest).reset_index()
    both = by_content.drop_duplicates("path").merge(by_content, on="path", suffixes=("_a", "_b"))
    both = both[both["index_a"] < both["index_b"]]
    return pd.DataFrame({"a": both["index_a"], "b": both["index_b"]})


def near_duplicates(
    clips: pd.DataFrame, folder: Path, least: float = fingerprint.SAME
) -> pd.DataFrame:
    """Find clips that hold the same stretch of sound, by their fingerprints.

    Parameters
    ----------
    clips : DataFrame
        Column ``path``.
    folder : Path
    least : float
        Score that is listed.

    Returns
    -------
    DataFrame
        See :func:`pipeline.sound.fingerprint.matches`.
    """

    def landmarks(path: str) -> fingerprint.Landmarks:
        return fingerprint.landmarks(decoding.load(folder / path, fingerprint.SAMPLE_RATE))

    with ThreadPoolExecutor(cpus.available()) as pool:
        of_clips = pool.map(landmarks, clips["path"])
        found = list(tqdm(of_clips, "fingerprint", len(clips), unit="clip", disable=None))
    table = fingerprint.matches(found)
    return table[table["score"] >= least]


def summary(pairs: pd.DataFrame) -> str:
    """Say in a clause what :func:`check` found."""
    leaks = pairs[pairs["leak"]]
    parts = [
        f"{count} {kind} in two folds"
        for kind, count in leaks["kind"].value_counts().sort_index().items()
    ]
    if conflicts := int(pairs["conflict"].sum()):
        parts.append(f"{conflicts} pairs alike under two labels")
    if alike := int((~pairs["leak"] & ~pairs["conflict"]).sum()):
        parts.append(f"{alike} pairs alike in one fold")
    return ", ".join(parts or ["nothing in two folds"])


def shuffled(index: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Shuffle clips into as many folds, label by label, whatever recording they are of.

    This is the mistake that the project guards against, made on purpose.

    Parameters
    ----------
    index : DataFrame
        A row a window: ``path``, ``label``, ``fold``, ``recording``.
    seed : int

    Returns
    -------
    DataFrame
        With other folds, and each clip called a recording of its own, so that
        :func:`pipeline.data.split.by_fold` lets it pass.
    """
    rng = np.random.default_rng(seed)
    names = np.sort(index["fold"].unique())
    clips = index[["path", "label"]].drop_duplicates("path")
    # dealt out like cards, so that every label is spread evenly
    order = clips.iloc[rng.permutation(len(clips))].sort_values("label", kind="stable")
    dealt = pd.Series(names[np.arange(len(order)) % len(names)], order["path"])
    return index.assign(fold=index["path"].map(dealt), recording=index["path"])


def protocols(
    settings: Params, labels: list[str], index: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Train and score the same networks over the dataset's folds and over shuffled ones.

    Parameters
    ----------
    settings : Params
        Of which ``train`` and ``crossval`` are read.
    labels : list of str
    index : DataFrame, optional
        See :func:`pipeline.training.folds.run_units`.

    Returns
    -------
    DataFrame
        Every clip once a seed and protocol: ``protocol``, ``seed``, ``path``, ``label``,
        ``predicted``, ``recording`` (as the dataset has it), ``fold`` (as it was scored).
    """
    index = read_features().index if index is None else index
    numbers = sorted({int(fold) for fold in index["fold"]})
    found = []
    for seed in settings.crossval.seeds:
        units = [Unit(fold, seed) for fold in numbers]
        for protocol, used in (
            ("folds of the dataset", index),
            ("random split", shuffled(index, seed)),
        ):
            _, results = folds.run(units, settings.train, settings.crossval, labels, used)
            found.append(folds.by_clip(units, results).assign(protocol=protocol))
    columns = ["protocol", "seed", "path", "label", "predicted", "fold"]
    recordings = index.drop_duplicates("path").set_index("path")["recording"]
    table = pd.concat(found, ignore_index=True)[columns]
    return table.assign(recording=table["path"].map(recordings))


def compare(answers: pd.DataFrame, settings: EvaluateParams) -> pd.DataFrame:
    """Put the protocols side by side.

    Parameters
    ----------
    answers : DataFrame
        As :func:`protocols` gives them.
    settings : EvaluateParams

    Returns
    -------
    DataFrame
        A row a protocol: ``protocol``; ``accuracy`` with ``accuracy_low`` and ``accuracy_high``,
        which resample recordings; and ``gain`` over the first protocol, on the same clips, with
        ``gain_low`` and ``gain_high``.
    """
    right = (
        answers.assign(right=answers["label"] == answers["predicted"])
        .pivot_table(index=["seed", "path"], columns="protocol", values="right", sort=False)
        .astype(float)
    )
    first, *_ = right.columns
    recordings = answers.drop_duplicates("path").set_index("path")["recording"]
    recording = recordings.loc[right.index.get_level_values("path")].to_numpy()
    rows = []
    for protocol in right.columns:
        hits = right[protocol].to_numpy()
        gain = hits - right[first].to_numpy()
        low, high = metrics.interval(hits, recording, settings)
        gain_low, gain_high = metrics.resampled(gain, recording, settings)
        rows.append(
            {
                "protocol": protocol,
                "accuracy": hits.mean(),
                "accuracy_low": low,
                "accuracy_high": high,
                "gain": gain.mean(),
                "gain_low": gain_low,
                "gain_high": gain_high,
            }
        )
    return pd.DataFrame(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline leakcheck``."""
    parser.add_argument(
        "--no-training", action="store_true", help="only look at the clips: seconds, not minutes"
    )


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(training=not options.no_training)
