"""Docker or Podman, whichever works here."""

import functools
import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from pipeline.errors import UserError

CONFINED = (
    *("--read-only", "--tmpfs", "/tmp"),  # noqa: S108  # the container's
    *("--memory", "256m", "--cpus", "0.5"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
"""How a container is run here: what a t3.micro gives it, with room to spare."""


@functools.cache
def find() -> str:
    """Name the program to build and run images with.

    Raises
    ------
    UserError
        When there is neither.
    """
    for name in ("docker", "podman"):
        # a client without its server is of no use
        if shutil.which(name) and not _exit_status(name, "info"):
            return name
    raise UserError("neither Docker nor Podman works here: install one, or start Docker's engine.")


def exists(image: str) -> bool:
    """Whether the engine has an image."""
    return not _exit_status(find(), "image", "inspect", image)


def run(*arguments: str) -> str:
    """Run a command of the engine and return what it printed.

    Raises
    ------
    UserError
        When it fails, with its last line.
    """
    done = subprocess.run([find(), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UserError(f"`{find()} {arguments[0]}` failed: {said[-1]}")
    return done.stdout.strip()


def inspect(image: str) -> dict[str, Any]:
    """Tell what the engine knows of an image."""
    known: dict[str, Any] = json.loads(run("image", "inspect", image))[0]
    return known


def start(image: str, port: int, options: Sequence[str] = CONFINED) -> str:
    """Start a container that listens on a port of this machine, and return its id.

    On the host's network: a port that is mapped needs more of the host than some of them have.
    """
    return run(
        *("run", "--detach", "--network", "host"),
        *("--env", "BENTOML_HOST=127.0.0.1", "--env", f"BENTOML_PORT={port}"),
        *options,
        image,
    ).splitlines()[-1]


def _exit_status(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode  # noqa: S603
