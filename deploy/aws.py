"""Run a step of the delivery that needs AWS; the deployment itself is the official action's.

python -m deploy.aws push REGISTRY          # push the image, unless the registry has it
python -m deploy.aws scan                   # reject an image with grave findings
python -m deploy.aws wait STAGE             # wait until an environment accepts a deployment
python -m deploy.aws rollback STAGE LABEL   # deploy the version LABEL again
python -m deploy.aws up OWNER/REPOSITORY MAIL | down NAME
"""

import argparse
from collections.abc import Callable, Sequence

from botocore.exceptions import BotoCoreError, ClientError

from deploy import beanstalk, ecr, stack
from pipeline import stage
from pipeline.errors import UserError

COMMANDS: tuple[tuple[Callable[..., str], tuple[str, ...]], ...] = (
    (ecr.push, ("registry",)),
    (ecr.scan, ()),
    (beanstalk.wait, ("stage",)),
    (beanstalk.rollback, ("stage", "label")),
    (stack.up, ("repository", "mail")),
    (stack.down, ("name",)),
)
"""Commands with the names of their arguments."""


def main(arguments: Sequence[str] | None = None) -> str:
    """Run a command and return its closing line.

    Raises
    ------
    UserError
        If an argument is empty, or if AWS rejects a call.
    """
    parser = argparse.ArgumentParser(
        prog="python -m deploy.aws",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command, names in COMMANDS:
        adding = commands.add_parser(command.__name__, help=(command.__doc__ or "").splitlines()[0])
        adding.set_defaults(run=command, names=names)
        for name in names:
            adding.add_argument(name)
    given = parser.parse_args(arguments)
    values = [getattr(given, name) for name in given.names]
    for name, value in zip(given.names, values, strict=True):
        # make passes an empty string for a variable that is not set; an empty label (no earlier
        # version) and an empty name (not confirmed) have error sentences of their own
        if not value and name not in ("label", "name"):
            raise UserError(f"{name.upper()} is not set: `make ... {name.upper()}=...`.")
    try:
        return str(given.run(*values))
    except (ClientError, BotoCoreError) as error:
        raise UserError(f"AWS rejected the call: {error}") from error


if __name__ == "__main__":
    stage.run("aws", main)
