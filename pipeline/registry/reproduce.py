"""Train a registered version again, from its commit, parameters and data, and compare.

    python -m pipeline reproduce [VERSION] [--search]

Everything happens in a temporary worktree with stores of its own; data and features come from
DVC's cache by their hashes, a remote, or are made again. The network is trained again.
"""

import argparse
import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML

from pipeline import params, paths, tables
from pipeline.errors import UserError
from pipeline.registry import champions
from pipeline.tracking import provenance, runs, store

TOLERANCE = 0.05
"""Difference of a test figure, and mean difference of a probability, that other machines may have.

Adding in another order, as another processor does, changes the last bit of a sum; the epochs of a
training make more of it. Trained with other kernels (without oneDNN's), the default model's
accuracy moved by 0.034, its log loss by 0.045, its probabilities by 0.015 in the mean.
"""

FIGURES = ("accuracy", "macro_f1", "log_loss")
"""Without the interval, which may have been computed anew with other settings."""

CODE = "pipeline/"
"""What has to be as the commit has it; the run has its own copy of the parameters."""


@dataclass(frozen=True)
class Outcome:
    """What came out of one training."""

    fingerprint: str
    figures: Mapping[str, float]
    predictions: pd.DataFrame
    """Columns ``path``, ``predicted``, ``p_<label>``."""
    tags: Mapping[str, str]
    """Of the run: hashes, libraries, machine."""


@dataclass(frozen=True)
class Comparison:
    """How far a training has been reproduced."""

    agrees: bool
    lines: tuple[str, ...]
    """What was compared, and how it was."""
    verdict: str


def main(wanted: str, search: bool = False) -> str:
    """Reproduce a version.

    Parameters
    ----------
    wanted : str
        Number or alias.
    search : bool
        Repeat the search as well, instead of taking the parameters that it found.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When the version cannot be made again, with what is missing, or came out otherwise.
    """
    name = params.load().register_.name
    client = store.connect()
    version = champions.find(client, name, wanted)
    run = training_run(client, version)
    commit = commit_of(run.data.tags)
    number = f"{name} version {version.version}"
    with tempfile.TemporaryDirectory(prefix="reproduce-") as temporary:
        folder = Path(temporary)
        then = recorded(client, run, folder)
        with worktree(commit, folder / "worktree") as tree:
            restore(client, run, tree, search)
            get_data(tree)
            train(tree, folder, search)
            now = trained(tree)
    compared = compare(then, now)
    for said in compared.lines:
        print(f"  {said}")
    if not compared.agrees:
        raise UserError(f"{number} is not reproduced: {compared.verdict}.")
    return f"{number} is reproduced: {compared.verdict}"


def training_run(client: MlflowClient, version: ModelVersion) -> Run:
    """Find the run that trained a version.

    Raises
    ------
    UserError
        When there was none, or the store has it no more.
    """
    if not version.run_id:
        raise UserError(
            f"version {version.version} was registered without a run: what it was made from is not"
            " on record."
        )
    try:
        return client.get_run(version.run_id)
    except MlflowException as error:
        if store.store_failed(error):
            raise
        raise UserError(
            f"the run {version.run_id} of version {version.version} is not at"
            f" {store.address()}: without its parameters nothing can be made again."
        ) from None


def commit_of(tags: Mapping[str, str]) -> str:
    """Find the commit that a run was made from.

    Raises
    ------
    UserError
        When it is unknown or does not say all.
    """
    commit = tags.get("lineage.git_commit", "unknown")
    if commit == "unknown":
        raise UserError("it was trained outside of a git repository, so its code is not on record.")
    if provenance.git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise UserError(f"commit {commit} is not in this clone: `git fetch` it first.")
    changed = tags.get("lineage.git_changes", "unknown")
    lacking = [file for file in changed.split(", ") if file.startswith((CODE, "unknown"))]
    if tags.get("lineage.git_dirty") != "false" and lacking:
        raise UserError(
            f"it was trained with changes that were not committed, and they are missing:"
            f" {', '.join(lacking)} differed from commit {commit}."
        )
    return commit


def recorded(client: MlflowClient, run: Run, folder: Path) -> Outcome:
    """Read what a run's training came to.

    Raises
    ------
    UserError
        When its predictions are gone.
    """
    file = fetch(client, run, paths.PREDICTIONS.name, folder)
    if file is None:
        raise UserError(f"the run {run.info.run_id} has no predictions: it was never evaluated.")
    prefix = "test_"
    figures = {
        k.removeprefix(prefix): v for k, v in run.data.metrics.items() if k.startswith(prefix)
    }
    tags = run.data.tags
    return Outcome(tags[runs.MODEL_HASH], figures, read_predictions(file), tags)


def trained(tree: Path) -> Outcome:
    """Read what the training in a worktree came to."""
    record = runs.read(tree / paths.RUN)
    figures = json.loads((tree / paths.METRICS).read_text(encoding="utf-8"))
    predictions = read_predictions(tree / paths.PREDICTIONS)
    return Outcome(record.tags[runs.MODEL_HASH], figures, predictions, record.tags)


def read_predictions(file: Path) -> pd.DataFrame:
    """Read predictions by their clips' paths."""
    return tables.read(file).set_index("path")


def fetch(client: MlflowClient, run: Run, name: str, folder: Path) -> Path | None:
    """Download an artifact of a run, where it has it."""
    try:
        return Path(client.download_artifacts(run.info.run_id, name, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        if store.store_failed(error):
            raise
        return None


@contextlib.contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out beside the present checkout, for the while."""
    provenance.git("worktree", "prune")
    command("git", "worktree", "add", "--quiet", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        provenance.git("worktree", "remove", "--force", str(folder))


def restore(client: MlflowClient, run: Run, tree: Path, search: bool) -> None:
    """Put the run's parameters, the hashes of its data, and DVC's cache into a worktree."""
    with tempfile.TemporaryDirectory() as temporary:
        settings = fetch(client, run, paths.PARAMS.name, Path(temporary))
        if settings is None:
            raise UserError(f"the run {run.info.run_id} has no {paths.PARAMS}: it was deleted.")
        yaml = YAML()
        values = yaml.load(settings.read_text(encoding="utf-8"))
        if not search:
            values["tune"]["trials"] = 0
            values["train"] |= trained_with(run.data.params)
        with (tree / paths.PARAMS).open("w", encoding="utf-8") as stream:
            yaml.dump(values, stream)
        lock = fetch(client, run, paths.LOCK.name, Path(temporary))
        if lock is not None:
            shutil.copy(lock, tree / paths.LOCK)
    local = Path(".dvc/config.local")
    if local.exists():
        shutil.copy(local, tree / local)
    cache = Path(command("dvc", "cache", "dir").strip()).absolute()
    command("dvc", "cache", "dir", "--local", str(cache), within=tree)


def trained_with(logged: Mapping[str, str]) -> dict[str, Any]:
    """Turn the parameters that a run logged as text into values again.

    Examples
    --------
    >>> trained_with({"train.epochs": "3", "train.patience": "None", "train.network": "cnn"})
    {'epochs': 3, 'patience': None, 'network': 'cnn'}
    >>> trained_with({"train.augment.shift": "0.1"})
    {'augment': {'shift': 0.1}}
    """
    values: dict[str, Any] = {}
    for key, text in logged.items():
        first, *parents, name = key.split(".")
        if first != "train":
            continue
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        try:
            section[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            section[name] = text
    return values


def get_data(tree: Path) -> None:
    """Have data and features in a worktree: from the cache, from a remote, or made again."""
    stages = ("download", "featurize")
    if succeeds("dvc", "checkout", "--quiet", *stages, within=tree):
        return
    remotes = command("dvc", "remote", "list", within=tree).strip()
    if remotes and succeeds("dvc", "pull", "--quiet", *stages, within=tree):
        return
    run_shown(["dvc", "repro", "featurize"], tree, {})


def stage_commands(tree: Path) -> dict[str, str]:
    """Read the command of every stage: an older commit may call its stages in another way."""
    described = YAML(typ="safe").load((tree / "dvc.yaml").read_text(encoding="utf-8"))
    return {name: stage["cmd"] for name, stage in described["stages"].items()}


def train(tree: Path, folder: Path, search: bool) -> None:
    """Run the stages that train and evaluate, with stores of their own."""
    stores = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "OPTUNA_STORAGE": f"sqlite:///{folder}/optuna.db",
    }
    commands = stage_commands(tree)
    for step in ("tune", "train", "evaluate"):
        if step == "tune" and search:
            print("the search is repeated: this takes as long as it did", flush=True)
        run_shown([sys.executable, *commands[step].split()[1:]], tree, stores)


def compare(then: Outcome, now: Outcome) -> Comparison:
    """Hold two trainings against each other.

    Parameters
    ----------
    then, now : Outcome

    Returns
    -------
    Comparison
        They agree when the weights are equal to the bit, or, on another machine or with other
        libraries, when the figures and the mean difference of the probabilities are within
        `TOLERANCE`.
    """
    same_data = then.tags["dataset.sha256"] == now.tags["dataset.sha256"]
    same_weights = then.fingerprint == now.fingerprint
    changed = differences(then.tags, now.tags)
    both = then.predictions.join(now.predictions, rsuffix="_now", how="inner")
    columns = [c for c in then.predictions if str(c).startswith("p_")]
    apart = np.abs(both[columns].to_numpy() - both[[f"{c}_now" for c in columns]].to_numpy())
    labels = int((both["predicted"] == both["predicted_now"]).sum())
    figures = {key: (then.figures[key], now.figures[key]) for key in FIGURES}
    far = max(float(apart.mean()), *(abs(new - old) for old, new in figures.values()))
    lines = (
        f"data       {'the same, to the bit' if same_data else 'other clips'}",
        f"weights    {'the same, to the bit' if same_weights else 'others'}",
        f"answers    {labels} of {len(both)} test clips get the same label, probabilities differ by"
        f" {apart.mean():.1e} in the mean and {apart.max():.1e} at most",
        *(f"{key:10} {old:.4f} then, {new:.4f} now" for key, (old, new) in figures.items()),
        f"libraries  {'; '.join(changed) or 'and machine are the same'}",
    )
    if not same_data or len(both) < len(then.predictions):
        return Comparison(False, lines, "its data could not be had again")
    if same_weights and figures_equal(then, now):
        return Comparison(True, lines, "weights and metrics are equal to the bit")
    if not changed:
        return Comparison(False, lines, "the same machine and libraries gave another network")
    within = far <= TOLERANCE
    return Comparison(
        within,
        lines,
        f"not to the bit ({'; '.join(changed)}), figures and probabilities"
        f" {'within' if within else 'beyond'} the tolerance of {TOLERANCE:g}",
    )


def figures_equal(then: Outcome, now: Outcome) -> bool:
    """Whether the test figures are the same numbers."""
    return all(then.figures[key] == now.figures[key] for key in FIGURES)


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Name the libraries that have another version, and the machine if it is another."""
    keys = ["machine", "python", *provenance.LIBRARIES]
    return [
        f"{key} {then.get(f'lineage.{key}', 'unknown')} then, {now[f'lineage.{key}']} now"
        for key in keys
        if then.get(f"lineage.{key}") != now.get(f"lineage.{key}")
    ]


def command(*words: str, within: Path | None = None) -> str:
    """Run a command and return what it prints.

    Raises
    ------
    UserError
        When it fails.
    """
    done = _run(words, within)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UserError(f"`{' '.join(words)}` failed: {said[-1] if said else done.returncode}")
    return done.stdout


def succeeds(*words: str, within: Path) -> bool:
    """Whether a command runs without an error."""
    return _run(words, within).returncode == 0


def _run(words: tuple[str, ...], within: Path | None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  # no shell
        words, cwd=within, env=_environment({}), capture_output=True, text=True, check=False
    )


def run_shown(words: list[str], tree: Path, more: dict[str, str]) -> None:
    """Run a long command in a worktree, its output in sight.

    Raises
    ------
    UserError
        When it fails; it has said why.
    """
    done = subprocess.run(words, cwd=tree, env=_environment(more), check=False)  # noqa: S603
    if done.returncode:
        raise UserError(f"`{' '.join(words[-2:])}` failed in the worktree, as said above.")


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Return the environment, with this interpreter's programs first on the path."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    without = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return {**without, "PATH": programs, **more}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline reproduce``."""
    parser.add_argument(
        "version", nargs="?", default=champions.CHAMPION, help="a version's number or alias"
    )
    parser.add_argument("--search", action="store_true", help="repeat the search as well")


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(options.version, options.search)
