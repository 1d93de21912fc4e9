"""Find test recordings that also appear in training, and measure the effect of a random split.

    python -m pipeline leakcheck [--training]

It compares the clips: ``reports/leaks.csv`` lists recordings, identical files and near-duplicates
that are in two folds. With ``--training``, it then says how long the training will take, trains the
network of ``train`` on the dataset's folds and on shuffled folds, and writes both accuracies to
``reports/protocols.csv``.

The exit status is 1 if a recording, a file or a sound is in two folds.
"""

import argparse

from pipeline import params, paths, tables
from pipeline.errors import UserError
from pipeline.evaluation import duplicates, protocols


def main(*, training: bool = False) -> str:
    """Check the clips, compare the protocols, and write both tables.

    Parameters
    ----------
    training : bool
        Whether to compare the protocols, which trains networks. Units of the cross-validation
        that are already trained are reused.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When a recording, a file or a stretch of sound is in two folds.
    """
    settings = params.load()
    clips = tables.read(paths.CLIPS)
    pairs = duplicates.check(clips, paths.AUDIO)
    tables.write(paths.LEAKS, pairs, digits=4)
    line = f"{len(clips)} clips, {duplicates.summary(pairs)} -> {paths.LEAKS}"
    if training:
        labels = tables.read_json(paths.DATASET)["labels"]
        if networks := protocols.missing(settings):
            print(
                _announcement(networks, protocols.estimate(settings, labels, networks)), flush=True
            )
        table = protocols.compare(protocols.train(settings, labels), settings.evaluate)
        tables.write(paths.PROTOCOLS, table, digits=6)
        print(table.to_string(index=False, float_format=lambda value: f"{value:.1%}"))
        official, claimed = table["accuracy"]
        line += (
            f"; accuracy {official:.1%} on the dataset's folds, {claimed:.1%} on a random split"
            f" -> {paths.PROTOCOLS}"
        )
    else:
        line += "; `leakcheck --training` also measures what a random split would claim"
    if pairs["leak"].any():
        raise UserError(
            f"{line}. The model would be tested on sounds that it was trained on: put each sound"
            f" into one fold, or drop one of its clips in {paths.CORRECTIONS}."
        )
    return line


def _announcement(networks: int, seconds: float) -> str:
    minutes = seconds / 60
    duration = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{seconds:.0f} seconds"
    return (
        f"leakcheck: now training {networks} networks, which will take about {duration}; Ctrl-C"
        " stops it, and the finished networks are kept"
    )


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(training=options.training)
