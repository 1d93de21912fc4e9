"""Run commands of Docker or Podman, whichever works on this machine."""

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
"""Options of `run` on this machine: less memory and CPU than a t3.micro has."""


@functools.cache
def find() -> str:
    """Return the program that builds and runs images, ``docker`` or ``podman``.

    Raises
    ------
    UserError
        If neither works.
    """
    for name in ("docker", "podman"):
        # the client may be installed without its server
        if shutil.which(name) and not _exit_status(name, "info"):
            return name
    raise UserError("neither Docker nor Podman works: install one, or start the Docker daemon.")


def exists(image: str) -> bool:
    """Whether an image is on this machine."""
    return not _exit_status(find(), "image", "inspect", image)


def run(*arguments: str) -> str:
    """Run a command of the engine and return what it printed.

    Raises
    ------
    UserError
        If it fails, with the last line of its error output.
    """
    done = subprocess.run([find(), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no error message"]
        raise UserError(f"`{find()} {arguments[0]}` failed: {said[-1]}")
    return done.stdout.strip()


def inspect(image: str) -> dict[str, Any]:
    """Return the description of an image."""
    description: dict[str, Any] = json.loads(run("image", "inspect", image))[0]
    return description


def start(image: str, port: int, options: Sequence[str] = CONFINED) -> str:
    """Start a container that listens on a port of this machine, and return its id.

    It uses the host's network, because not every host can map ports.
    """
    return run(
        *("run", "--detach", "--network", "host"),
        *("--env", "BENTOML_HOST=127.0.0.1", "--env", f"BENTOML_PORT={port}"),
        *options,
        image,
    ).splitlines()[-1]


def _exit_status(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode  # noqa: S603
