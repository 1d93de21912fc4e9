"""Collect what a run was made from, as tags: dataset, code, libraries and machine."""

import hashlib
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import cpus, paths

DATASET_NAME = "dataset.name"
"""Tag of runs and versions: name of the dataset."""

LIBRARIES = ("keras", "librosa", "mlflow", "numpy", "optuna", "scipy", "soxr")


def dataset_tags(card: dict[str, Any]) -> dict[str, str]:
    """Return the tags that identify the clips and their labels."""
    return {
        DATASET_NAME: card["name"],
        "dataset.sha256": card["sha256"],
        "labels.relabelled": str(card["relabelled"]),
        "labels.dropped": str(card["dropped"]),
        "labels.sha256": card["corrections_sha256"],
    }


def lineage_tags() -> dict[str, str]:
    """Return the tags that identify code, data, features, libraries and machine.

    Returns
    -------
    dict
        ``lineage.git_commit``, ``lineage.git_dirty`` and ``lineage.git_changes`` (the files that
        differ from the commit; ``dvc.lock`` does not count, because the pipeline writes it);
        ``lineage.audio_md5``, ``lineage.clips_md5`` and ``lineage.features_md5`` from
        ``dvc.lock``; ``lineage.python`` and ``lineage.<library>``; ``lineage.machine``. A value
        that cannot be found is ``unknown``.
    """
    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--", ".", ":!dvc.lock")
    hashes = _locked_hashes()
    return {
        "lineage.git_commit": commit or "unknown",
        "lineage.git_dirty": "unknown" if changes is None else str(bool(changes)).lower(),
        "lineage.git_changes": ", ".join(line[3:] for line in (changes or "").splitlines())[:5000]
        or "none",
        "lineage.audio_md5": hashes.get(str(paths.AUDIO), "unknown"),
        "lineage.clips_md5": hashes.get(str(paths.CLIPS), "unknown"),
        "lineage.features_md5": hashes.get(str(paths.FEATURES), "unknown"),
        "lineage.machine": machine(),
        "lineage.python": platform.python_version(),
        **{f"lineage.{library}": version(library) for library in LIBRARIES},
    }


def machine() -> str:
    """Describe the machine; equal machines train to bit-identical weights.

    Returns
    -------
    str
        For example ``Linux x86_64, Intel(R) Xeon(R) Processor, 2 cores``.
    """
    processor = platform.processor()
    with suppress(OSError):
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        processor = next(
            (
                line.partition(":")[2].strip()
                for line in cpuinfo.splitlines()
                if "model name" in line
            ),
            processor,
        )
    return (
        f"{platform.system()} {platform.machine()}, {processor or 'unknown processor'},"
        f" {cpus.available()} cores"
    )


def sha256(*files: Path) -> str:
    """Return the SHA-256 over the contents of files, in their order, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _locked_hashes() -> dict[str, str]:
    """Return the MD5 of every stage output in ``dvc.lock``, by its path."""
    try:
        lock = YAML(typ="safe").load(paths.LOCK.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    outputs = [out for entry in lock.get("stages", {}).values() for out in entry.get("outs", [])]
    return {out["path"]: out["md5"] for out in outputs if "md5" in out}


def git(*arguments: str) -> str | None:
    """Return what a git command prints, without the final newline; None if it fails."""
    try:
        done = subprocess.run(  # noqa: S603  # fixed arguments, no shell
            ["git", *arguments],  # noqa: S607  # the git on the user's path
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip()
