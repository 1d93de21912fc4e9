"""The front door: ``python -m pipeline COMMAND``.

A command's module is imported when the command is called, so the list of commands needs nothing
but the standard library.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from pipeline import stage


class Command(NamedTuple):
    """Where a command stands and what it does.

    A module without options has ``main()``, which returns the closing line. A module with options
    has ``add_arguments(parser)`` and ``run(options)`` instead, which returns that line as well.
    """

    module: str
    does: str
    uses_mlflow: bool = True
    """Whether a failing MLflow store can end it."""


GROUPS = {
    "Stages, in the order in which `dvc repro` runs them": {
        "download": Command("stages.download", "fetch or generate the clips", False),
        "featurize": Command("stages.featurize", "extract the features of every clip", False),
        "tune": Command("stages.tune", "search hyper-parameters on the validation fold"),
        "train": Command("stages.train", "train with the best parameters and log the run"),
        "evaluate": Command("stages.evaluate", "score the model on the test fold"),
        "register": Command("stages.register", "register the model and decide about the alias"),
        "crossval": Command("stages.crossval", "score every official fold once"),
        "summary": Command("stages.summary", "print what the last run made", False),
    },
    "Check and look": {
        "report": Command("evaluation.report", "write one page about the last run", False),
        "leakcheck": Command(
            "evaluation.leakcheck", "find test recordings that also appear in training", False
        ),
        "label-errors": Command(
            "evaluation.label_errors", "list the clips whose label is probably wrong", False
        ),
    },
    "Models and their history": {
        "promote": Command("registry.promote", "make a version the champion, or roll back"),
        "lineage": Command("registry.lineage", "show what a model was made from"),
        "reproduce": Command("registry.reproduce", "train a version again and compare"),
        "webhook": Command("registry.webhook", "start a deployment for each new champion"),
    },
    "Serve": {
        "package": Command("registry.package", "make the bundle that the service loads"),
        "predict": Command("serving.predict", "classify sound files without a server", False),
        "drift": Command("serving.drift", "compare logged predictions with the training", False),
    },
}

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command and its options; those of the process, if left out.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        usage="python -m pipeline COMMAND [--help]",
        description="Sound classification, from recordings to a served model.",
        epilog=_listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    if not given:
        parser.print_help()
        return
    name = parser.parse_args(given[:1]).command
    command = COMMANDS[name]
    module = import_module(f"pipeline.{command.module}")
    parser = argparse.ArgumentParser(
        prog=f"python -m pipeline {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run: Callable[[], str]
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
        options = parser.parse_args(given[1:])
        run = lambda: module.run(options)  # noqa: E731  # mypy knows its type so
    else:
        options = parser.parse_args(given[1:])
        run = module.main
    if command.uses_mlflow:
        from pipeline.tracking import store

        run = store.guarded(run)
    # the output of `--json` is for programs, so the closing line goes elsewhere
    stage.run(name, run, sys.stderr if getattr(options, "json", False) else sys.stdout)


def _listing() -> str:
    lines = []
    for title, commands in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<13} {c.does}" for name, c in commands.items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
