"""Classify sound files without a server and write the predictions to a table.

    python -m pipeline predict PATH... [--out predictions.csv] [--bundle bundle]

Each prediction is written as soon as it is made. If the command is interrupted, run it again: it
keeps the predictions of files whose size and modification time have not changed, as long as the
model is the same. Files that failed are tried again. The finished table has one row for each file
given, sorted by path.
"""

import argparse
import csv
import glob
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import IO

from pipeline import cpus
from pipeline.errors import UserError
from pipeline.serving.classifier import Classifier
from pipeline.sound import decoding
from pipeline.sound.files import SUFFIXES, sound_files

Row = dict[str, str]

WINDOWS = 1_000
"""Maximum number of windows per clip: more than an hour with windows of 4 s."""

STATE = ("bytes", "modified", "model")
"""The last columns, which show whether a row is still valid; `modified` is in nanoseconds."""


def main(patterns: Sequence[str], out: Path, bundle: Path) -> str:
    """Classify clips and write the table.

    Parameters
    ----------
    patterns : sequence of str
        See :func:`find`.
    out : Path
        The table.
    bundle : Path
        Written by :mod:`pipeline.registry.package`.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        If there are no files, the bundle or the table cannot be used, or no file can be read.
    """
    from tqdm import tqdm  # the image does not have it, and it does not run this command

    files = find(patterns)
    earlier = read(out)
    classifier = Classifier.load(bundle)
    labels = [f"p_{label}" for label in classifier.labels]
    columns = ["path", "label", "probability", "known", *labels, "seconds", "error", *STATE]
    rows = still_valid(earlier, files, columns, classifier)
    kept = {row["path"] for row in rows}
    todo = [file for file in files if shown(file) not in kept]

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
        raise UserError(f"no file could be read: the column `error` of {out} says why.")
    parts = [f"{len(rows) - failed} clips -> {out}"]
    parts += [f"{len(kept)} of them already in the table"] if kept else []
    parts += [f"{failed} failed"] if failed else []
    return ", ".join(parts)


def still_valid(
    earlier: Iterable[Row], files: Iterable[Path], columns: list[str], classifier: Classifier
) -> list[Row]:
    """Select the rows of an earlier run that need not be predicted again.

    Parameters
    ----------
    earlier : iterable of dict
    files : iterable of Path
        The files to predict now.
    columns : list of str
        The columns of the table.
    classifier : Classifier

    Returns
    -------
    list of dict
        Rows without an error whose file and model have not changed.
    """
    by_path = {row["path"]: row for row in earlier}
    return [
        row
        for file in files
        if (row := by_path.get(shown(file)))
        and not row["error"]
        and list(row) == columns
        and row.items() >= state(file, classifier).items()
    ]


def find(patterns: Iterable[str]) -> list[Path]:
    """List the files that the patterns name.

    Parameters
    ----------
    patterns : iterable of str
        A file with any suffix; a folder, for all sound files in it and below; or a glob, in which
        ``**`` matches any number of folders.

    Returns
    -------
    list of Path
        Each file once.

    Raises
    ------
    UserError
        If a pattern matches no file.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            names = sound_files(path)
            if not names:
                endings = ", ".join(SUFFIXES)
                raise UserError(f"{pattern} has no sound files: their names end in {endings}.")
            found |= dict.fromkeys(path / name for name in names)
        elif path.is_file():
            found[path] = None
        else:
            matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207  # `Path.glob` does not take absolute patterns
            matched = dict.fromkeys(match for match in matches if match.is_file())
            if not matched:
                raise UserError(f"{pattern} matches no file: name files, folders or globs.")
            found |= matched
    return list(found)


def predict(files: Sequence[Path], classifier: Classifier) -> Generator[Row]:
    """Classify clips, with one thread per CPU.

    Threads are enough: decoder, resampler, Fourier transform and network release Python's lock.

    Parameters
    ----------
    files : sequence of Path
    classifier : Classifier

    Yields
    ------
    dict
        A row of the table, as soon as it is ready; in any order.
    """
    pool = ThreadPoolExecutor(cpus.available())
    try:
        for done in as_completed([pool.submit(predict_file, file, classifier) for file in files]):
            yield done.result()
    finally:  # also if the caller stops early
        pool.shutdown(cancel_futures=True)


def predict_file(file: Path, classifier: Classifier) -> Row:
    """Classify one clip.

    Parameters
    ----------
    file : Path
    classifier : Classifier

    Returns
    -------
    dict
        A row of the table without its empty cells; with `error` if there is no prediction.
    """
    spec = classifier.spec
    row = {"path": shown(file), **state(file, classifier)}
    most = WINDOWS if spec.longer == "split" else 1
    try:
        # one second more than is analysed, because a resampler's last samples are not exact
        longest = most * spec.seconds + 1
        wave = decoding.load(file, spec.sample_rate, longest, min_seconds=spec.min_seconds)
        prediction = classifier.predict(wave, most)
    except (decoding.AudioError, OSError) as error:
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


def shown(file: Path) -> str:
    """Write a path so that pandas and spreadsheets read it as the text that it is.

    Bytes that are not UTF-8 become escapes, as in a Python string. The path begins with ``./`` if
    it could be taken for a number, a missing value or a formula.
    """
    text = str(file).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    bare = "/" not in text and file.suffix.lower() not in SUFFIXES
    return f"./{text}" if bare or text.startswith(("=", "+", "-", "@")) else text


def state(file: Path, classifier: Classifier) -> Row:
    """Return the columns in :data:`STATE`: the state of the file, and the model."""
    model = f"{classifier.card['name']} {classifier.card['version']}"
    try:
        stat = file.stat()
    except OSError:  # it was deleted, and decoding it will report that
        return {"model": model}
    return {"bytes": str(stat.st_size), "modified": str(stat.st_mtime_ns), "model": model}


def read(out: Path) -> list[Row]:
    """Read the rows of an earlier run, even if it was stopped in the middle of a row.

    Parameters
    ----------
    out : Path

    Returns
    -------
    list of dict
        Empty if there is no such file.

    Raises
    ------
    UserError
        If it is not a table of predictions, and therefore must not be overwritten.
    """
    if out.exists() and not out.is_file():  # a device would be replaced by the table
        raise UserError(f"{out} exists but is not a regular file: choose another --out.")
    try:
        with _open(out) as file:
            table = csv.DictReader(file)
            head = tuple(table.fieldnames or ())
            if head[:1] + head[-len(STATE) :] != ("path", *STATE):
                raise UserError(
                    f"{out} exists but is not a table of predictions: choose another --out."
                )
            return list(table)
    except FileNotFoundError:
        return []
    except csv.Error:
        raise UserError(f"{out} exists but is not a table: choose another --out.") from None
    except OSError as error:
        raise UserError(f"{out} cannot be read ({error.strerror}): choose another --out.") from None


def write(out: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write the table completely or not at all.

    Parameters
    ----------
    out : Path
        It is replaced. Its folder is created.
    columns : sequence of str
    rows : iterable of dict

    Raises
    ------
    UserError
        If it cannot be written.
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
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another --out."
        ) from None


def _open(table: Path, mode: str = "r") -> IO[str]:
    return table.open(mode, encoding="utf-8", errors="backslashreplace", newline="")


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    decoding.mute_decoders()
    return main(options.paths, options.out, options.bundle)
