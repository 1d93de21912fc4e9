"""Make hundreds of messy folders, run the first two stages on each, and count what happens.

    python -m bench.messy [--folders 300] [--seed 1]

Prints how many folders became a dataset, how many were refused and with which messages, and every
fault, with the folder that showed it.
"""

import argparse
import re
from collections import Counter

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from pipeline import stage
from tests import messy


def main(number: int, seed: int) -> str:
    """Try `number` folders and print a summary.

    Returns
    -------
    str
        The closing line.
    """
    refusals: Counter[str] = Counter()
    mess: Counter[str] = Counter()
    found: dict[str, list[messy.Folder]] = {}
    tried = 0

    @hypothesis.seed(seed)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(messy.folders())
    def try_one(folder: messy.Folder) -> None:
        nonlocal tried
        tried += 1
        mess.update(folder.mess)
        run, faults = messy.once(folder, again=True)
        if run.refusal is not None:
            refusals[_kind(run.refusal)] += 1
        for fault in faults:
            found.setdefault(_kind(fault), []).append(folder)

    try_one()
    print("mess:", ", ".join(f"{kind} {count}" for kind, count in mess.most_common()))
    for message, count in refusals.most_common():
        print(f"refused {count} times: {message}")
    for fault, folders in sorted(found.items(), key=lambda item: -len(item[1])):
        smallest = min(folders, key=lambda folder: (len(folder.mess), len(folder.files)))
        print(f"\nFAULT {len(folders)} times: {fault}\n  smallest: {smallest}")
    return (
        f"{tried} folders: {tried - refusals.total()} became features, {refusals.total()} were"
        f" refused in {len(refusals)} ways, {len(found)} kinds of faults"
    )


def _kind(text: str) -> str:
    """Shorten a message to what is the same for all folders: names and numbers are left out."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^]]*\]", "_", text)
    text = re.sub(r"\S*/\S+|\S+\.(wav|ogg|mp3|flac|m4a)\b", "_", text)
    return re.sub(r"\d+", "0", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.messy", description=__doc__)
    parser.add_argument("--folders", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    stage.run("messy", lambda: main(options.folders, options.seed))
