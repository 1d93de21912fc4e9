"""Train a registered version again from its commit, parameters and data, and compare the results.

    python -m pipeline reproduce [VERSION] [--search]

The training runs in a temporary worktree of the version's commit, with an MLflow store and an
Optuna study of its own. Data and features come from DVC's cache or from a remote; if neither has
them, they are made again. On another machine or with other libraries, the test metrics and, on
average, the probabilities may differ by at most 0.05.
"""

import argparse
import ast
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML

from pipeline import params, paths, tables
from pipeline.errors import UserError
from pipeline.registry import champions, comparison, names
from pipeline.registry.comparison import Training
from pipeline.tracking import failures, provenance, runs, store

CODE = "pipeline/"
"""Files without uncommitted changes; the parameters may differ, since the run has a copy."""


def main(wanted: str, search: bool = False) -> str:
    """Train a version again and compare.

    Parameters
    ----------
    wanted : str
        Number or alias of the version.
    search : bool
        Whether to repeat the hyper-parameter search, instead of using the parameters it found.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When the version cannot be trained again (the sentence says what is missing), or gave
        another result.
    """
    settings = params.load()
    client = store.connect()
    name = names.configured(client, settings)
    version = champions.find(client, name, wanted)
    run = training_run(client, version)
    commit = commit_of(run.data.tags)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as temporary:
        folder = Path(temporary)
        original = logged_training(client, run, folder)
        with worktree(commit, folder / "worktree") as tree:
            restore(client, run, tree, search)
            get_data(tree)
            train(tree, folder, search)
            repeated = training_in(tree)
    compared = comparison.compare(original, repeated)
    for line in compared.lines:
        print(f"  {line}")
    title = f"{name} version {version.version}"
    if not compared.agrees:
        raise UserError(f"{title} is not reproduced: {compared.verdict}.")
    return f"{title} is reproduced: {compared.verdict}"


def training_run(client: MlflowClient, version: ModelVersion) -> Run:
    """Find the run that trained a version.

    Raises
    ------
    UserError
        When the version has no run, or the store has lost it.
    """
    if not version.run_id:
        raise UserError(
            f"version {version.version} was registered without a run: there is no record of what it"
            " was made from."
        )
    try:
        return client.get_run(version.run_id)
    except MlflowException as error:
        if failures.store_failed(error):
            raise
        raise UserError(
            f"the run {version.run_id} of version {version.version} is not in the store at"
            f" {store.address()}: without its parameters the version cannot be trained again."
        ) from None


def commit_of(tags: Mapping[str, str]) -> str:
    """Find the commit that a run was made from.

    Raises
    ------
    UserError
        When the commit is unknown, is not in this clone, or lacks changes to the code.
    """
    commit = tags.get("lineage.git_commit", "unknown")
    if commit == "unknown":
        raise UserError(
            "the version cannot be trained again: it was trained outside a git repository, so there"
            " is no record of its code."
        )
    if provenance.git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise UserError(f"commit {commit} is not in this clone: `git fetch` it first.")
    changed = tags.get("lineage.git_changes", "unknown").split(", ")
    lost = [file for file in changed if file.startswith((CODE, "unknown"))]
    if tags.get("lineage.git_dirty") != "false" and lost:
        raise UserError(
            f"the version cannot be trained again: {', '.join(lost)} differed from commit {commit},"
            " and the changes were never committed."
        )
    return commit


def logged_training(client: MlflowClient, run: Run, folder: Path) -> Training:
    """Read the results of a training from its run.

    Raises
    ------
    UserError
        When the run has no predictions.
    """
    file = runs.download(client, run.info.run_id, paths.PREDICTIONS.name, folder)
    if file is None:
        raise UserError(f"the run {run.info.run_id} has no predictions: it was never evaluated.")
    predictions = tables.read(file)
    clips = runs.download(client, run.info.run_id, paths.CLIPS.name, folder)
    return Training(
        model_sha256=run.data.tags[runs.MODEL_HASH],
        metrics=runs.evaluation_metrics(run.data.metrics),
        predictions=predictions,
        # a run without the table of clips has at least the test clips
        clips=tables.read(clips) if clips else predictions,
        tags=run.data.tags,
    )


def training_in(tree: Path) -> Training:
    """Read the results of the training in a worktree."""
    record = runs.read(tree / paths.RUN)
    return Training(
        model_sha256=record.tags[runs.MODEL_HASH],
        metrics=tables.read_json(tree / paths.METRICS),
        predictions=tables.read(tree / paths.PREDICTIONS),
        clips=tables.read(tree / paths.CLIPS),
        tags=record.tags,
    )


@contextlib.contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check out a commit into a folder of its own, and remove the folder afterwards."""
    provenance.git("worktree", "prune")
    output_of("git", "worktree", "add", "--quiet", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        provenance.git("worktree", "remove", "--force", str(folder))


def restore(client: MlflowClient, run: Run, tree: Path, search: bool) -> None:
    """Give a worktree the run's parameters, the hashes of its data, and access to DVC's cache."""
    with tempfile.TemporaryDirectory() as temporary:
        file = runs.download(client, run.info.run_id, paths.PARAMS.name, Path(temporary))
        if file is None:
            raise UserError(
                f"the run {run.info.run_id} has lost its {paths.PARAMS}: without it the version"
                " cannot be trained again."
            )
        yaml = YAML()
        values = yaml.load(file.read_text(encoding="utf-8"))
        if not search:
            values["tune"]["trials"] = 0
            values["train"] |= training_parameters(run.data.params)
        with (tree / paths.PARAMS).open("w", encoding="utf-8") as stream:
            yaml.dump(values, stream)
        lock = runs.download(client, run.info.run_id, paths.LOCK.name, Path(temporary))
        if lock is not None:
            shutil.copy(lock, tree / paths.LOCK)
    local = Path(".dvc/config.local")
    if local.exists():
        shutil.copy(local, tree / local)
    cache = Path(output_of("dvc", "cache", "dir").strip()).absolute()
    output_of("dvc", "cache", "dir", "--local", str(cache), folder=tree)


def training_parameters(logged: Mapping[str, str]) -> dict[str, Any]:
    """Rebuild the section ``train`` of ``params.yaml`` from a run's parameters, which are text.

    Examples
    --------
    >>> training_parameters({"train.epochs": "3", "train.patience": "None", "tune.trials": "9"})
    {'epochs': 3, 'patience': None}
    >>> training_parameters({"train.augment.shift": "0.1", "train.network": "cnn"})
    {'augment': {'shift': 0.1}, 'network': 'cnn'}
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
    """Put data and features into a worktree: from the cache, from a remote, or made again."""
    stages = ("download", "featurize")
    if succeeds("dvc", "checkout", "--quiet", *stages, folder=tree):
        return
    remotes = output_of("dvc", "remote", "list", folder=tree).strip()
    if remotes and succeeds("dvc", "pull", "--quiet", *stages, folder=tree):
        return
    run_with_output(["dvc", "repro", "featurize"], tree, {})


def train(tree: Path, folder: Path, search: bool) -> None:
    """Run the stages that train and evaluate in a worktree, with stores in `folder`."""
    stores = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "OPTUNA_STORAGE": f"sqlite:///{folder}/optuna.db",
    }
    commands = stage_commands(tree)
    for name in ("tune", "train", "evaluate"):
        if name == "tune" and search:
            print("the search is repeated and takes as long as the first time", flush=True)
        run_with_output(commands[name], tree, stores)


def stage_commands(tree: Path) -> dict[str, list[str]]:
    """Read the command of every stage from the worktree's own ``dvc.yaml``.

    Older commits start their stages differently.
    """
    pipeline = YAML(typ="safe").load((tree / "dvc.yaml").read_text(encoding="utf-8"))
    return {name: shlex.split(stage["cmd"]) for name, stage in pipeline["stages"].items()}


def output_of(*words: str, folder: Path | None = None) -> str:
    """Run a command and return what it prints.

    Raises
    ------
    UserError
        When it fails.
    """
    done = _captured(words, folder)
    if done.returncode:
        printed = (done.stderr.strip() or done.stdout.strip()).splitlines()
        why = printed[-1] if printed else f"status {done.returncode}"
        raise UserError(f"`{shlex.join(words)}` failed: {why}")
    return done.stdout


def succeeds(*words: str, folder: Path) -> bool:
    """Whether a command runs without an error."""
    return _captured(words, folder).returncode == 0


def _captured(words: tuple[str, ...], folder: Path | None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  # no shell
        words, cwd=folder, env=_environment({}), capture_output=True, text=True, check=False
    )


def run_with_output(words: list[str], tree: Path, variables: dict[str, str]) -> None:
    """Run a long command in a worktree and let the user see its output.

    Raises
    ------
    UserError
        When it fails; its output says why.
    """
    done = subprocess.run(words, cwd=tree, env=_environment(variables), check=False)  # noqa: S603
    if done.returncode:
        raise UserError(f"`{shlex.join(words)}` failed in the worktree; its output is above.")


def _environment(variables: dict[str, str]) -> dict[str, str]:
    """Return the environment variables, with this interpreter's programs first on the path."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    without = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return {**without, "PATH": programs, **variables}


def run(options: argparse.Namespace) -> str:
    """Run the command with its options and return the closing line."""
    return main(options.version, options.search)
