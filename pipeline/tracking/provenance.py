"""What a run was made from: dataset, code, libraries and machine."""

import hashlib
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import cpus, paths

LIBRARIES = ("keras", "librosa", "mlflow", "numpy", "optuna", "scipy", "soxr")


def of_dataset(card: dict[str, Any]) -> dict[str, str]:
    """Tags that say which clips, and which labels of them, a run is about."""
    return {
        "dataset.name": card["name"],
        "dataset.sha256": card["sha256"],
        "labels.relabelled": str(card["relabelled"]),
        "labels.dropped": str(card["dropped"]),
        "labels.sha256": card["corrections_sha256"],
    }


def lineage() -> dict[str, str]:
    """Tags that tell what a run was made from: code, data, features, libraries.

    Returns
    -------
    dict
        ``lineage.git_commit``, ``lineage.git_dirty`` (``dvc.lock`` does not count: it is the
        pipeline's own output) and ``lineage.git_changes``, the files that differ from the commit;
        ``lineage.<output>`` with the MD5 that ``dvc.lock`` states for the clips and the features;
        ``lineage.python`` and ``lineage.<library>``; ``lineage.machine``. A fact that cannot be
        found is stated as ``unknown``.
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
    """Say what computes: system, processor and cores; weights are equal to the bit on an equal one.

    Returns
    -------
    str
        As ``Linux x86_64, Intel(R) Xeon(R) Processor, 2 cores``.
    """
    processor = platform.processor()
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        processor = next(
            (line.partition(":")[2].strip() for line in told.splitlines() if "model name" in line),
            processor,
        )
    return (
        f"{platform.system()} {platform.machine()}, {processor or 'unknown processor'},"
        f" {cpus.available()} cores"
    )


def sha256(*files: Path) -> str:
    """Hex digest over the contents of `files`, in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _locked_hashes() -> dict[str, str]:
    """MD5 of every stage output by its path, as ``dvc.lock`` states them."""
    try:
        lock = YAML(typ="safe").load(paths.LOCK.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    outputs = [out for entry in lock.get("stages", {}).values() for out in entry.get("outs", [])]
    return {out["path"]: out["md5"] for out in outputs if "md5" in out}


def git(*arguments: str) -> str | None:
    """Return what a git command prints, without the last line's end; None when it fails."""
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
