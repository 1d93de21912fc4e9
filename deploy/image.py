"""Build the image of the service: a bento of the bundle, an image of the bento, and its SBOM.

python -m deploy.image [--base IMAGE] [--pip-config FILE]
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy import config, engine, sbom
from pipeline import paths, stage
from pipeline.errors import UserError
from pipeline.serving import bundle
from pipeline.tracking import provenance

NAME = config.BUILD / "image.txt"
"""Contains the image's name with its tag."""

SBOM = config.BUILD / "sbom.cdx.json"

LONGEST_NAME = 32
"""Maximum length of the model's name in a label; version and commit need up to 31 characters."""


def main(base: str | None = None, pip_config: Path | None = None, *, cache: bool = True) -> str:
    """Build the image of ``bundle/``.

    Parameters
    ----------
    base : str, optional
        Replaces the base image of ``bentofile.yaml``.
    pip_config : Path, optional
        Configuration of a private package index; only the installation sees it.
    cache : bool
        Reuse layers of earlier builds.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        If there is no bundle or no engine, or if the build fails.
    """
    name = config.load().name
    card = read_card()
    revision = commit()
    label = version_label(card, revision)
    image = bento = f"{name}:{label}"
    program = engine.find()
    options = [f"label={key}={value}" for key, value in labels(card, revision).items()]
    if base:
        options.append(f"build-arg=BASE={base}")
    if pip_config:
        options.append(f"secret=id=pip,src={pip_config.resolve()}")
    if not cache:
        options.append("no-cache")
    if program == "podman":
        options.append("format=docker")  # OCI images have no health checks
    environment = _environment()
    _bentoml(environment, "build", "--name", name, "--version", label)
    flags = [part for option in options for part in ("--opt", option)]
    _bentoml(environment, "containerize", bento, "--backend", program, "-t", image, *flags)
    NAME.write_text(image + "\n", encoding="utf-8")
    SBOM.write_text(sbom.of_image(image, card) + "\n", encoding="utf-8")
    built = engine.inspect(image)
    layers = len(built["RootFS"]["Layers"])
    return f"{image}, {built['Size'] / 1e6:.0f} MB in {layers} layers, built by {program}"


def _environment() -> dict[str, str]:
    """Return the environment for BentoML, with empty stores below ``build/``."""
    home = config.BUILD / "bentoml"
    shutil.rmtree(home, ignore_errors=True)
    temporary = config.BUILD / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)  # Podman caches packages there
    return {
        **os.environ,
        "BENTOML_HOME": str(home.resolve()),
        "BENTOML_DO_NOT_TRACK": "true",
        # BentoML copies the Dockerfile template to a temporary folder, and then rejects the copy
        # unless it is below the working directory
        "TMPDIR": str(temporary.resolve()),
    }


def read_card() -> dict[str, Any]:
    """Read the card of the bundle.

    Raises
    ------
    UserError
        If there is no bundle, or if it is damaged.
    """
    return bundle.read_card(paths.BUNDLE)


def read_name() -> str:
    """Return the name of the image that was built last, with its tag.

    Raises
    ------
    UserError
        If no image was built.
    """
    try:
        return NAME.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(f"{NAME} is missing: build the image with `make image`.") from None


def commit() -> str:
    """Return the hash of the commit, with ``-dirty`` if tracked files differ from it.

    Raises
    ------
    UserError
        If this is not a git repository with a commit.
    """
    head = provenance.git("rev-parse", "HEAD")
    if head is None:
        raise UserError("there is no commit to name the image after: commit first.")
    # dvc.lock is an output of the pipeline
    changed = provenance.git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock"
    )
    return f"{head}-dirty" if changed else head


def version_label(card: dict[str, Any], revision: str) -> str:
    """Return the label of a deployment: model, version and commit, which determine the image."""
    sha, _, dirty = revision.partition("-")
    name = label_name(card["name"])
    return f"{name}-v{card['version']}-{sha[:12]}" + (f"-{dirty}" if dirty else "")


def label_name(model: str) -> str:
    """Return the name of a registered model as labels can contain it, different for each model.

    Image tags, BentoML and Elastic Beanstalk all take lower-case letters, digits and hyphens;
    BentoML takes 63 characters for the whole label.

    Examples
    --------
    >>> label_name("foley-classifier")
    'foley-classifier'
    >>> label_name("Birds & bees")
    'birds-bees-1782c4d0'
    """
    plain = re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")[:LONGEST_NAME].strip("-")
    if plain == model:
        return plain
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - 9].strip('-')}-{digest}".strip("-")


def labels(card: dict[str, Any], revision: str) -> dict[str, str]:
    """Return the labels of the image: those of the Open Container Initiative, and the model's."""
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
    # `containerize` exits with 0 even if it fails
    if done.returncode or "Encountered exception" in done.stdout:
        print(done.stdout, file=sys.stderr)
        raise UserError(f"`bentoml {arguments[0]}` failed; see its output above.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--base", help="base image to use instead of the one in bentofile.yaml")
    parser.add_argument("--pip-config", type=Path, help="pip.conf of a private package index")
    parser.add_argument("--no-cache", action="store_true", help="build every layer again")
    given = parser.parse_args()
    stage.run("image", lambda: main(given.base, given.pip_config, cache=not given.no_cache))
