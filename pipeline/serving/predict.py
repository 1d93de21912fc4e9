"""Predictions for files, folders and globs, into a table; no server.

    python -m pipeline predict PATHS... [--out predictions.csv] [--bundle bundle]

A line is added to the table as soon as its clip is done, and a run that was stopped goes on when
it is started again: a line is kept while its file has the same size and time of last change and
the model is the same one. Lines with an error are tried again. In the end the table holds the
files that were asked for and no others, sorted by path.
"""

import argparse
import csv
import glob
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import IO

from tqdm import tqdm

from pipeline import cpus, paths
from pipeline.errors import UserError
from pipeline.serving.classifier import Classifier, Silence
from pipeline.sound import decoding

Row = dict[str, str]

WINDOWS = 1_000
"""Of a clip, at most: more than an hour in windows of 4 s."""

STATE = ("bytes", "modified", "model")
"""The last columns, by which a line is known to be still true; `modified` in nanoseconds."""


def main(patterns: Sequence[str], out: Path, bundle: Path) -> str:
    """Predict clips and write the table.

    Parameters
    ----------
    patterns : sequence of str
        See :func:`find`.
    out : Path
        The table.
    bundle : Path
        As :mod:`pipeline.registry.package` writes it.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When there is nothing to predict, nothing to predict with or nowhere to write, or when
        not one clip could be read.
    """
    files = find(patterns)
    earlier = {row["path"]: row for row in read(out)}
    classifier = Classifier.load(bundle)
    labels = [f"p_{label}" for label in classifier.labels]
    columns = ["path", "label", "probability", "known", *labels, "seconds", "error", *STATE]
    rows = [
        row
        for file in files
        if (row := earlier.get(str(file)))
        and not row["error"]
        and list(row) == columns
        and row.items() >= state(file, classifier).items()
    ]
    kept = {row["path"] for row in rows}
    todo = [file for file in files if str(file) not in kept]

    write(out, columns, rows)
    progress = tqdm(desc="predict", total=len(files), initial=len(rows), unit="clip", disable=None)
    with progress, _open(out, "a") as table, closing(predict(todo, classifier)) as predicted:
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        for row in predicted:
            rows.append({column: row.get(column, "") for column in columns})
            writer.writerow(rows[-1])
            table.flush()
            progress.update()
    write(out, columns, sorted(rows, key=lambda row: row["path"]))

    failed = sum(bool(row["error"]) for row in rows)
    if failed == len(rows):
        raise UserError(f"no file could be read: {out} says why.")
    parts = [f"{len(rows) - failed} clips -> {out}"]
    parts += [f"{len(kept)} of them done before"] if kept else []
    parts += [f"{failed} files with an error"] if failed else []
    return ", ".join(parts)


def find(patterns: Iterable[str]) -> list[Path]:
    """List the files that are meant.

    Parameters
    ----------
    patterns : iterable of str
        A file, whatever its ending; a folder, for the sounds in it and below; or a glob, in which
        ``**`` stands for any folders.

    Returns
    -------
    list of Path
        Each once.

    Raises
    ------
    UserError
        When one of the patterns leads to nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            names = decoding.sound_files(path)
            if not names:
                endings = ", ".join(decoding.SUFFIXES)
                raise UserError(f"{pattern} holds no sound files: their names end in {endings}.")
            found |= dict.fromkeys(path / name for name in names)
        elif path.is_file():
            found[path] = None
        else:
            matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207  # absolute too
            matched = dict.fromkeys(match for match in matches if match.is_file())
            if not matched:
                raise UserError(f"{pattern} leads to no file: give files, folders or globs.")
            found |= matched
    return list(found)


def predict(files: Sequence[Path], classifier: Classifier) -> Generator[Row]:
    """Predict clips in a thread for each core.

    Decoder, resampler, Fourier transform and network all release the interpreter's lock.

    Parameters
    ----------
    files : sequence of Path
    classifier : Classifier

    Yields
    ------
    dict
        A line of the table, as soon as it is there; in any order.
    """
    pool = ThreadPoolExecutor(cpus.available())
    try:
        for done in as_completed([pool.submit(line, file, classifier) for file in files]):
            yield done.result()
    finally:  # also when whoever asked wants no more
        pool.shutdown(cancel_futures=True)


def line(file: Path, classifier: Classifier) -> Row:
    """Predict one clip.

    Parameters
    ----------
    file : Path
    classifier : Classifier

    Returns
    -------
    dict
        A line of the table without its empty cells; with `error` where there is no prediction.
    """
    spec = classifier.spec
    row = {"path": str(file), **state(file, classifier)}
    most = WINDOWS if spec.longer == "split" else 1
    try:
        # a second more than is analysed, because a resampler's last samples know of no next ones
        wave = decoding.load(file, spec.sample_rate, most * spec.seconds + 1)
        prediction = classifier.predict(wave, most)
    except (decoding.AudioError, Silence, OSError) as error:
        return row | {"error": str(error)}
    best = int(prediction.probabilities.argmax())
    named = zip(classifier.labels, prediction.probabilities, strict=True)
    analysed = min(wave.size / spec.sample_rate, prediction.starts[-1] + spec.seconds)
    return row | {
        "label": classifier.labels[best],
        "probability": f"{prediction.probabilities[best]:.6f}",
        "known": "yes" if classifier.knows(prediction.probabilities) else "no",
        **{f"p_{label}": f"{probability:.6f}" for label, probability in named},
        "seconds": f"{analysed:.3f}",
    }


def state(file: Path, classifier: Classifier) -> Row:
    """Tell by which file and which model a line is true; the columns in :data:`STATE`."""
    model = f"{classifier.card['name']} {classifier.card['version']}"
    try:
        stat = file.stat()
    except OSError:  # it is gone, which its line will say
        return {"model": model}
    return {"bytes": str(stat.st_size), "modified": str(stat.st_mtime_ns), "model": model}


def read(out: Path) -> list[Row]:
    """Read the lines of an earlier run, also of one that was stopped in the middle of a line.

    Parameters
    ----------
    out : Path

    Returns
    -------
    list of dict
        Empty where there is no such file.

    Raises
    ------
    UserError
        When it is something else, which shall not be overwritten.
    """
    if out.exists() and not out.is_file():  # a device would be replaced by the table
        raise UserError(f"{out} is there and is no file: name another one.")
    try:
        with _open(out) as file:
            table = csv.DictReader(file)
            head = tuple(table.fieldnames or ())
            if head[:1] + head[-len(STATE) :] != ("path", *STATE):
                raise UserError(f"{out} is there and is no table of predictions: name another one.")
            return list(table)
    except FileNotFoundError:
        return []
    except csv.Error:
        raise UserError(f"{out} is there and is no table at all: name another one.") from None
    except OSError as error:
        raise UserError(f"{out} cannot be read: {error.strerror}.") from None


def write(out: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write the table, whole or not at all.

    Parameters
    ----------
    out : Path
        Is replaced; its folder is made.
    columns : sequence of str
    rows : iterable of dict

    Raises
    ------
    UserError
        When it cannot be written there.
    """
    unfinished = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _open(unfinished, "w") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        unfinished.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.") from None


def _open(table: Path, mode: str = "r") -> IO[str]:
    """Open a table; names of files are bytes that need not be UTF-8, and stay as they are."""
    return table.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline predict``."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, or a glob")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"), help="the table")
    parser.add_argument("--bundle", type=Path, default=paths.BUNDLE, help="the packaged model")


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    decoding.mute_decoders()
    return main(options.paths, options.out, options.bundle)
