"""Compare logged predictions with the training: ``python -m pipeline drift LOGS...``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.errors import UserError

if TYPE_CHECKING:
    pass
from pipeline.serving import monitoring


def report(
    reference: Mapping[str, Mapping[str, Any]], predictions: Sequence[monitoring.Values]
) -> list[tuple[str, float, float, str]]:
    """Compare logged predictions with the reference.

    Parameters
    ----------
    reference : dict
        Of the bundle.
    predictions : sequence of mapping
        As logged.

    Returns
    -------
    list of (quantity, psi, psi by chance, verdict)
        The most changed first; the verdict is 'stable', 'moved' or 'changed'.
    """
    drift = monitoring.Drift(reference, max(1, len(predictions)))
    for values in predictions:
        drift.add(values)
    rows = []
    for name, index in drift.psi().items():
        chance = monitoring.by_chance(reference[name]["counts"], drift.counts[name])
        excess = index - chance
        verdict = "changed" if excess > 0.25 else "moved" if excess > 0.1 else "stable"
        rows.append((name, index, chance, verdict))
    return sorted(rows, key=lambda row: row[1], reverse=True)


def read_log(files: Iterable[Path]) -> tuple[list[dict[str, Any]], int]:
    """Read what the monitor logged, a JSON object a line.

    Returns
    -------
    predictions : list of dict
    damaged : int
        Lines that are none: a service that is killed, or whose disk is full, leaves them behind.

    Raises
    ------
    UserError
        When a file cannot be read, or holds something else.
    """
    predictions: list[dict[str, Any]] = []
    damaged = 0
    for file in files:
        before, first = len(predictions), 0
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            raise UserError(f"{file} cannot be read: give the log files of predictions.") from None
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                known = {"label", "confidence"} <= values.keys()
            except (AttributeError, ValueError):
                known = False
            if known:
                predictions.append(values)
            else:
                damaged += 1
                first = first or number
        if first and len(predictions) == before:
            raise UserError(f"{file}, line {first}, is not a logged prediction, and none follows.")
    return predictions, damaged


def main(files: Sequence[Path], bundle: Path) -> str:
    """Print the drift report of logged predictions.

    Parameters
    ----------
    files : sequence of Path
        Logs.
    bundle : Path
        With the reference.

    Returns
    -------
    str
        The closing line.
    """
    file = bundle / "reference.json"
    try:
        reference = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: run `python -m pipeline package`.") from None
    predictions, damaged = read_log(files)
    rows = report(reference, predictions)
    print(f"{'quantity':<12}{'PSI':>8}{'by chance':>12}  verdict")
    for name, index, chance, verdict in rows:
        print(f"{name:<12}{index:>8.3f}{chance:>12.3f}  {verdict}")
    changed = [name for name, _, _, verdict in rows if verdict == "changed"]
    few = "; fewer than 50 say little" if len(predictions) < monitoring.ENOUGH else ""
    lost = f"; {damaged} damaged lines left out" if damaged else ""
    return f"{len(predictions)} predictions, changed: {', '.join(changed) or 'none'}{few}{lost}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline drift``."""
    parser.add_argument("logs", nargs="+", type=Path, help="files that the service logged to")
    parser.add_argument("--bundle", type=Path, default=paths.BUNDLE, help="with the reference")


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(options.logs, options.bundle)
