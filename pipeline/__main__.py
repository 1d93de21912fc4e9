"""Run a command: ``python -m pipeline COMMAND``.

A command's module is imported only when the command runs, so that help needs nothing but the
standard library.
"""

import argparse
import ast
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from pipeline import stage
from pipeline.commands import COMMANDS, GROUPS, Command
from pipeline.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command and its options; those of the process if left out.
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
    parser = argparse.ArgumentParser(
        prog=f"python -m pipeline {name}",
        description=_description(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command.add_options:
        command.add_options(parser)
    options = parser.parse_args(given[1:])
    # with --json, the output is for programs, so the closing line goes elsewhere
    out = sys.stderr if getattr(options, "json", False) else sys.stdout
    stage.run(name, partial(_run, command, options), out)


def _run(command: Command, options: argparse.Namespace) -> str:
    try:
        module = import_module(f"pipeline.{command.module}")
    except ModuleNotFoundError as error:  # installed for the service alone
        if (error.name or "pipeline").startswith("pipeline"):
            raise
        raise UserError(
            f"the library {error.name} is not installed: install the training libraries with"
            " `pip install '.[train,cpu]'`."
        ) from None
    run: Callable[[], str]
    run = partial(module.run, options) if command.add_options else module.main
    if command.uses_mlflow:
        from pipeline.tracking import store

        run = store.guarded(run)
    return run()


def _description(command: Command) -> str:
    """Return the docstring of a command's module, without importing it."""
    file = Path(__file__).parent.joinpath(*command.module.split(".")).with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.replace("``", "`")


def _listing() -> str:
    lines = []
    for title, commands in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<13} {c.does}" for name, c in commands.items()), ""]
    return "\n".join([*lines, "`python -m pipeline COMMAND --help` explains a command."])


if __name__ == "__main__":
    main()
