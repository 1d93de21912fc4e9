"""What a runner shares with the team: DVC's remote and, without a server, the store of MLflow.

    DVC_REMOTE=s3://... [MLFLOW_TRACKING_URI=http://...] python -m deploy.team pull | push

The outputs of every stage are kept by what they were made from (DVC's run cache), so that a runner
that starts with nothing reproduces only what nobody has made before. Of the embedded store, the
step of a workflow gets the number of the ``champion`` as an output: without a server, nobody else
tells of a new one.
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
from pipeline.registry import champions
from pipeline.tracking import store

STORE = (Path("mlflow.db"), Path("mlruns"))
"""The embedded store. Its artifacts are named by absolute paths: it is one for runners alone."""


def pull() -> str:
    """Fetch what others made; nothing where there is no remote or nothing is in it yet."""
    remote = _remote()
    if not remote:
        return "DVC_REMOTE is not set: nothing is pulled"
    _dvc("fetch", "--quiet", "--run-cache")
    if _server():
        return f"{remote} is at hand, MLflow is a server's"
    system, path = fsspec.core.url_to_fs(f"{remote}/mlflow.tar.gz")
    if not system.exists(path):
        config.output(champion="")
        return f"{remote} is at hand, without a store of MLflow yet"
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "mlflow.tar.gz"
        system.get_file(path, str(local))
        with tarfile.open(local) as archive:
            archive.extractall(".", filter="data")
    config.output(champion=_champion())
    return f"{remote} is at hand, with the store of MLflow"


def push() -> str:
    """Store what was made here for others."""
    remote = _remote()
    if not remote:
        return "DVC_REMOTE is not set: nothing is pushed"
    _dvc("push", "--quiet", "--run-cache")
    if _server():
        return f"outputs -> {remote}; MLflow is a server's"
    system, path = fsspec.core.url_to_fs(f"{remote}/mlflow.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "mlflow.tar.gz"
        with tarfile.open(local, "w:gz") as archive:
            for part in STORE:
                if part.exists():
                    archive.add(part)
        system.makedirs(system._parent(path), exist_ok=True)
        system.put_file(str(local), path)
    config.output(champion=_champion())
    return f"outputs and the store of MLflow -> {remote}"


def _champion() -> str:
    version = champions.champion(store.connect(), params.load().register_.name)
    return str(version.version) if version else ""


def _remote() -> str:
    remote = os.environ.get("DVC_REMOTE", "").rstrip("/")
    if remote:
        _dvc("remote", "add", "--quiet", "--local", "--force", "--default", "team", remote)
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and remote.startswith("s3:"):  # a store that is S3's twin
            _dvc("remote", "modify", "--quiet", "--local", "team", "endpointurl", endpoint)
    return remote


def _server() -> bool:
    address = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:"
    return not address.startswith("sqlite:")


def _dvc(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("dvc")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it said nothing"]
        raise UserError(f"`dvc {arguments[0]}` failed: {said[0]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.team", description=__doc__)
    parser.add_argument("direction", choices=["pull", "push"])
    given = parser.parse_args()
    stage.run("team", {"pull": pull, "push": push}[given.direction])
