"""Report how far logged predictions have moved from the reference in the bundle.

    python -m pipeline drift predictions/*.jsonl*

The measure is the population stability index (PSI) of a few properties of the sounds, of the
confidences and of the labels; `pipeline/serving/psi.py` defines it. The usual reading is: up to 0.1
stable, up to 0.25 a moderate shift, above 0.25 a large shift. A small sample has a positive PSI by
chance alone, so the verdict is about the PSI minus its expected value by chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.serving import bundle, prediction_log
from pipeline.serving.psi import ENOUGH, Drift, Values, by_chance, verdict


def report(
    reference: Mapping[str, Mapping[str, Any]], predictions: Sequence[Values]
) -> list[tuple[str, float, float, str]]:
    """Compare logged predictions with the reference.

    Parameters
    ----------
    reference : dict
        From the bundle.
    predictions : sequence of mapping
        From the log.

    Returns
    -------
    list of (quantity, PSI, PSI by chance, verdict)
        The largest PSI first.
    """
    drift = Drift(reference, max(1, len(predictions)))
    for values in predictions:
        drift.add(values)
    rows = []
    for name, index in drift.psi().items():
        chance = by_chance(reference[name]["counts"], drift.counts[name])
        rows.append((name, index, chance, verdict(index - chance)))
    return sorted(rows, key=lambda row: row[1], reverse=True)


def main(files: Sequence[Path], folder: Path) -> str:
    """Print the drift of logged predictions.

    Parameters
    ----------
    files : sequence of Path
        Log files.
    folder : Path
        The bundle with the reference.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        If the reference or a log cannot be read.
    """
    reference = bundle.read_reference(folder)
    predictions, damaged = prediction_log.read(files)
    rows = report(reference, predictions)
    print(f"{'quantity':<12}{'PSI':>8}{'by chance':>12}  shift")
    for name, index, chance, shift in rows:
        print(f"{name:<12}{index:>8.3f}{chance:>12.3f}  {shift}")
    large = [name for name, _, _, shift in rows if shift == "large"]
    few = (
        f"; at least {ENOUGH} are needed for a reliable result" if len(predictions) < ENOUGH else ""
    )
    lost = f"; {damaged} damaged lines skipped" if damaged else ""
    return f"{len(predictions)} predictions, large shift: {', '.join(large) or 'none'}{few}{lost}"


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(options.logs, options.bundle)
