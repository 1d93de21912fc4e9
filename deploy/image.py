"""The service as an image: bento of the bundle, image of the bento, list of what is in it.

python -m deploy.image [--base IMAGE] [--pip-config FILE]
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy import config, engine, sbom
from pipeline import paths, stage
from pipeline.errors import UserError
from pipeline.serving import bundle

NAME = config.BUILD / "image.txt"
"""Holds the image's name with its tag."""

SBOM = config.BUILD / "sbom.cdx.json"


def main(base: str | None = None, pip_config: Path | None = None, *, cache: bool = True) -> str:
    """Build the image of ``bundle/``.

    Parameters
    ----------
    base : str, optional
        Instead of the base image that ``bentofile.yaml`` names.
    pip_config : Path, optional
        For a package index of one's own; it is seen by the installation and not kept.
    cache : bool
        Take layers from builds before.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When there is no bundle, no engine, or the build fails.
    """
    name = config.load().name
    card = read_card()
    label = version_label(card, commit())
    image = f"{name}:{label}"
    program = engine.find()
    home = config.BUILD / "bentoml"
    shutil.rmtree(home, ignore_errors=True)
    temporary = config.BUILD / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)  # Podman keeps the packages it fetched there
    environment = {
        **os.environ,
        "BENTOML_HOME": str(home.resolve()),
        "BENTOML_DO_NOT_TRACK": "true",
        # BentoML refuses the template of a Dockerfile where it is not below the working directory,
        # and makes itself a copy of it in a temporary folder
        "TMPDIR": str(temporary.resolve()),
    }
    options = [f"label={key}={value}" for key, value in labels(card, commit()).items()]
    if base:
        options.append(f"build-arg=BASE={base}")
    if pip_config:
        options.append(f"secret=id=pip,src={pip_config.resolve()}")
    if not cache:
        options.append("no-cache")
    if program == "podman":
        options.append("format=docker")  # the other one has no health checks
    bento = f"{name}:{label}"
    _bentoml(environment, "build", "--name", name, "--version", label)
    chosen = [part for option in options for part in ("--opt", option)]
    _bentoml(environment, "containerize", bento, "--backend", program, "-t", image, *chosen)
    known = engine.inspect(image)
    NAME.write_text(image + "\n", encoding="utf-8")
    SBOM.write_text(sbom.of_image(image, card) + "\n", encoding="utf-8")
    layers = len(known["RootFS"]["Layers"])
    return f"{image}, {known['Size'] / 1e6:.0f} MB in {layers} layers, built by {program}"


def read_card() -> dict[str, Any]:
    """Read which model the bundle holds.

    Raises
    ------
    UserError
        When there is none, or it is not whole.
    """
    return bundle.read_card(paths.BUNDLE)


def read_name() -> str:
    """Tell which image was built last.

    Raises
    ------
    UserError
        When none was.
    """
    try:
        return NAME.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(f"{NAME} is missing: build the image with `make image`.") from None


def commit() -> str:
    """Hash of the commit, with ``-dirty`` where files that are tracked differ from it.

    Raises
    ------
    UserError
        When this is no git repository with a commit.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603  # fixed arguments
            ["git", *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError("an image is named after its commit, and here is none: commit first.")
        return done.stdout.strip()

    # the pipeline's own output does not count
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return git("rev-parse", "HEAD") + ("-dirty" if changed else "")


def version_label(card: dict[str, Any], revision: str) -> str:
    """Name a deployment: model version and commit, which together decide what is in the image."""
    sha, _, dirty = revision.partition("-")
    return f"v{card['version']}-{sha[:12]}" + (f"-{dirty}" if dirty else "")


def labels(card: dict[str, Any], revision: str) -> dict[str, str]:
    """Labels of the image, as the Open Container Initiative names them, and the model's."""
    return {
        "org.opencontainers.image.title": card["name"],
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.version": version_label(card, revision),
        "org.opencontainers.image.licenses": "MIT",
        "model.name": card["name"],
        "model.version": str(card["version"]),
        "model.run_id": card["lineage"]["run_id"],
    }


def _bentoml(environment: dict[str, str], *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("bentoml")), *arguments]
    done = subprocess.run(  # noqa: S603  # our own arguments
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # `containerize` may fail and exit with 0
    if done.returncode or "Encountered exception" in done.stdout:
        print(done.stdout, file=sys.stderr)
        raise UserError(f"`bentoml {arguments[0]}` failed; the reason is above.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description=__doc__)
    parser.add_argument("--base", help="base image, instead of the one in bentofile.yaml")
    parser.add_argument("--pip-config", type=Path, help="pip.conf of a package index of one's own")
    parser.add_argument("--no-cache", action="store_true", help="build every layer anew")
    given = parser.parse_args()
    stage.run("image", lambda: main(given.base, given.pip_config, cache=not given.no_cache))
