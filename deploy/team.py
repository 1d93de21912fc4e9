"""Share a runner's outputs with the team: the DVC remote and, without a server, MLflow's store.

    DVC_REMOTE=s3://... [MLFLOW_TRACKING_URI=http://...] python -m deploy.team pull | push

DVC's run cache keeps the outputs of every stage by the hash of their inputs, so a fresh runner only
runs what nobody has run before. With the embedded store, the name of the registered ``model`` and
the version number of its ``champion`` become outputs of the workflow step, because there is no
server that could send a webhook.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import fsspec

from deploy import config
from pipeline import params, stage
from pipeline.errors import UserError
from pipeline.registry import champions, names
from pipeline.tracking import store

STORE = (Path("mlflow.db"), Path("mlruns"))
"""The embedded store. It names artifacts by absolute paths, so it only works between runners."""


def pull() -> str:
    """Fetch what others pushed; do nothing without a remote."""
    remote = _remote()
    if not remote:
        return "DVC_REMOTE is not set: nothing to pull"
    _dvc("fetch", "--quiet", "--run-cache")
    if _server():
        return f"run cache fetched from {remote}; MLflow has a server"
    system, path = fsspec.core.url_to_fs(f"{remote}/mlflow.tar.gz")
    if not system.exists(path):
        config.output(champion="", model="")
        return f"run cache fetched from {remote}, which has no MLflow store yet"
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "mlflow.tar.gz"
        system.get_file(path, str(local))
        with tarfile.open(local) as archive:
            archive.extractall(".", filter="data")
    _output_champion()
    return f"run cache and MLflow store fetched from {remote}"


def push() -> str:
    """Push what was made here, for others to pull."""
    remote = _remote()
    if not remote:
        return "DVC_REMOTE is not set: nothing to push"
    _dvc("push", "--quiet", "--run-cache")
    if _server():
        return f"outputs pushed to {remote}; MLflow has a server"
    system, path = fsspec.core.url_to_fs(f"{remote}/mlflow.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "mlflow.tar.gz"
        with tarfile.open(local, "w:gz") as archive:
            for part in STORE:
                if part.exists():
                    archive.add(part)
        system.makedirs(system._parent(path), exist_ok=True)
        system.put_file(str(local), path)
    _output_champion()
    return f"outputs and MLflow store pushed to {remote}"


def _output_champion() -> None:
    settings = params.load()
    client = store.connect()
    name = names.configured(client, settings)
    version = champions.champion(client, name)
    config.output(champion=str(version.version) if version else "", model=name)


def _remote() -> str:
    remote = os.environ.get("DVC_REMOTE", "").rstrip("/")
    if remote:
        _dvc("remote", "add", "--quiet", "--local", "--force", "--default", "team", remote)
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and remote.startswith("s3:"):  # an S3-compatible store
            _dvc("remote", "modify", "--quiet", "--local", "team", "endpointurl", endpoint)
    return remote


def _server() -> bool:
    address = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:"
    return not address.startswith("sqlite:")


def _dvc(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("dvc")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no error message"]
        raise UserError(f"`dvc {arguments[0]}` failed: {said[0]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.team", description=__doc__)
    parser.add_argument("direction", choices=["pull", "push"])
    given = parser.parse_args()
    stage.run("team", {"pull": pull, "push": push}[given.direction])
