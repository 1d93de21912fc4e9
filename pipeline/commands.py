"""Define the commands of the project and their options.

The options stand here and not in the modules that run the commands, so that no command has to load
its libraries only to explain itself.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline import paths

Parser = argparse.ArgumentParser


class Command(NamedTuple):
    """One command: the module that runs it, a line about it, and its options.

    A command without options calls ``main()`` of its module, one with options ``run(options)``.
    Both return the closing line. The help of a command starts with its module's docstring.
    """

    module: str
    does: str
    add_options: Callable[[Parser], None] | None = None
    uses_mlflow: bool = True
    """Whether it uses the MLflow store, which may fail."""


def leakcheck(parser: Parser) -> None:
    """Add the options of ``leakcheck``."""
    parser.add_argument(
        "--training",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also train two networks per fold and seed, to measure what a random split would"
        " claim; prints how long that will take before it starts (default: only compare the clips,"
        " which takes seconds)",
    )


def promote(parser: Parser) -> None:
    """Add the options of ``promote``."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("version", nargs="?", help="a version number or alias")
    which.add_argument("--rollback", action="store_true", help="go back to the previous champion")
    parser.add_argument("--reason", required=True, help="why; stored with the version")


def lineage(parser: Parser) -> None:
    """Add the options of ``lineage``."""
    parser.add_argument(
        "reference",
        nargs="?",
        default="champion",
        metavar="REFERENCE",
        help="version, alias, run id, git revision, bento or service (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")
    parser.add_argument(
        "--image",
        metavar="DIGEST",
        help="record on the version that the image with this digest serves it",
    )


def reproduce(parser: Parser) -> None:
    """Add the options of ``reproduce``."""
    _version(parser)
    parser.add_argument(
        "--search", action="store_true", help="repeat the hyper-parameter search as well"
    )


def webhook(parser: Parser) -> None:
    """Add the options of ``webhook``."""
    commands = parser.add_subparsers(dest="what", required=True)
    creating = commands.add_parser(
        "create", help="create or update the webhook on the MLflow server"
    )
    creating.add_argument("url", help="https address of the receiver")
    commands.add_parser("test", help="make the MLflow server send an example message")
    serving = commands.add_parser("serve", help="run the receiver")
    serving.add_argument("--repository", required=True, help="OWNER/NAME on GitHub")
    serving.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    serving.add_argument("--port", type=int, default=8090, help="default: %(default)s")


def package(parser: Parser) -> None:
    """Add the options of ``package``."""
    _version(parser)
    parser.add_argument(
        "--examples",
        action=argparse.BooleanOptionalAction,
        help="publish a test clip of each label that the model recognised (default: yes, but no if"
        " the dataset is a folder of your own recordings)",
    )
    parser.add_argument(
        "--expect",
        metavar="NAME",
        help="stop unless this is the registered model that params.yaml names; deployments use it",
    )


def predict(parser: Parser) -> None:
    """Add the options of ``predict``."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, or a glob")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions.csv"),
        help="table to write (default: %(default)s)",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=paths.BUNDLE,
        help="folder with the bundle (default: %(default)s)",
    )


def drift(parser: Parser) -> None:
    """Add the options of ``drift``."""
    parser.add_argument(
        "logs", nargs="+", type=Path, help="log files of the service (SOUND_PREDICTION_LOG)"
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=paths.BUNDLE,
        help="the bundle that the service used (default: %(default)s)",
    )


def _version(parser: Parser) -> None:
    parser.add_argument(
        "version",
        nargs="?",
        default="champion",
        help="a version number or alias (default: %(default)s)",
    )


GROUPS = {
    "Stages, in the order in which `dvc repro` runs them": {
        "download": Command("stages.download", "fetch or generate the clips", uses_mlflow=False),
        "featurize": Command(
            "stages.featurize", "extract the features of every clip", uses_mlflow=False
        ),
        "tune": Command("stages.tune", "search hyper-parameters on the validation fold"),
        "train": Command("stages.train", "train with the best parameters and log the run"),
        "evaluate": Command("stages.evaluate", "score the model on the test fold"),
        "register": Command("stages.register", "register the model and set its alias"),
    },
    "After the stages": {
        "summary": Command("stages.summary", "print what the last run made"),
        "report": Command(
            "evaluation.report", "write a report about the last run as one page", uses_mlflow=False
        ),
        "crossval": Command("stages.crossval", "train and score every official fold once"),
        "leakcheck": Command(
            "evaluation.leakcheck",
            "find test recordings that also appear in training",
            leakcheck,
            uses_mlflow=False,
        ),
        "label-errors": Command(
            "evaluation.label_errors",
            "list the clips whose label is probably wrong",
            uses_mlflow=False,
        ),
    },
    "Registered models": {
        "promote": Command("registry.promote", "make a version champion, or roll back", promote),
        "lineage": Command("registry.lineage", "show what a model was made from", lineage),
        "reproduce": Command("registry.reproduce", "train a version again and compare", reproduce),
        "webhook": Command("registry.webhook", "start a deployment for each new champion", webhook),
    },
    "Serve": {
        "package": Command("registry.package", "write the bundle that the service loads", package),
        "predict": Command(
            "serving.predict", "classify sound files without a server", predict, uses_mlflow=False
        ),
        "drift": Command(
            "serving.drift",
            "compare logged predictions with the bundle's reference",
            drift,
            uses_mlflow=False,
        ),
    },
}

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
