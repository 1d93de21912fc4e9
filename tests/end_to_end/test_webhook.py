"""From a new champion on a real MLflow server to a deployment that GitHub starts."""

import base64
import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bench.harness import free_port

from . import servers
from .conftest import Repository, checkout

NAME = "foley-classifier"
SECRET = {"MLFLOW_WEBHOOK_SECRET": "known to MLflow and to the receiver"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server with two versions."""
    settings = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
        # the receiver is on this machine
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
    }
    artifacts = tmp_path / "artifacts"
    store = f"sqlite:///{tmp_path}/mlflow.db"
    with servers.mlflow_server(store, str(artifacts), tmp_path / "log", settings) as url:
        client = MlflowClient(url)
        client.create_registered_model(NAME)
        for _ in range(2):
            client.create_model_version(NAME, source="s3://a-bucket/a-model")
        yield url


@pytest.fixture
def github() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Plays GitHub: takes dispatches, after having been out of order once."""
    taken: list[dict[str, Any]] = []
    refused: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not refused:
                refused.append(self.path)
                self.send_response(503)
            else:
                token = self.headers["Authorization"]
                taken.append({"path": self.path, "token": token, **body})
                self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    playing = http.server.ThreadingHTTPServer((servers.HOST, 0), Handler)
    threading.Thread(target=playing.serve_forever, daemon=True).start()
    yield f"http://{servers.HOST}:{playing.server_port}", taken
    playing.shutdown()


@pytest.fixture
def receiver(
    tmp_path: Path, github: tuple[str, list[dict[str, Any]]]
) -> Iterator[tuple[str, Repository, Path]]:
    """The receiver as it is run: its address, its checkout and what it printed."""
    repository = checkout(tmp_path / "clone")
    port = free_port()
    said = tmp_path / "receiver.log"
    command = ["python", "-m", "pipeline", "webhook", "serve", "--port", str(port)]
    with said.open("w") as log:
        process = subprocess.Popen(
            [*command, "--repository", "team/sounds"],
            cwd=repository.folder,
            env=repository.environment(**SECRET, GITHUB_TOKEN="a token", GITHUB_API_URL=github[0]),
            stdout=log,
            stderr=log,
        )
    address = f"http://{servers.HOST}:{port}"
    try:
        servers.wait_for(lambda: servers.answers(f"{address}/livez"), "the receiver", process)
        yield address, repository, said
    finally:
        process.terminate()
        process.wait(30)


def test_a_new_champion_starts_the_deployment_once(
    server: str,
    github: tuple[str, list[dict[str, Any]]],
    receiver: tuple[str, Repository, Path],
) -> None:
    address, repository, said = receiver
    store = {"MLFLOW_TRACKING_URI": server}
    for _ in range(2):  # a second time it is the same webhook
        repository.ok(f"python -m pipeline webhook create {address}", **store, **SECRET)
    assert len(MlflowClient(server).list_webhooks()) == 1
    assert "accepted the message" in repository.ok("python -m pipeline webhook test", **store)
    repository.ok("python -m pipeline promote 2 --reason heard-both", **store)
    deadline = time.monotonic() + 300
    while not github[1]:
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.1)
    assert github[1] == [
        {
            "path": "/repos/team/sounds/dispatches",
            "token": "Bearer a token",
            "event_type": "champion",
            "client_payload": {"model": NAME, "version": "2"},
        }
    ]
    forged = urllib.request.Request(address, b"{}", {"X-MLflow-Signature": "v1,forged"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(forged, timeout=60)
    printed = said.read_text()
    assert "502 GitHub did not accept it: 503" in printed  # so MLflow has sent it again
    assert "202 forwarded: foley-classifier version 2" in printed
    assert "a token" not in printed
    assert SECRET["MLFLOW_WEBHOOK_SECRET"] not in printed


def test_creating_a_webhook_needs_a_server_a_secret_and_an_https_address(
    server: str, tmp_path: Path
) -> None:
    repository = checkout(tmp_path / "clone")
    command = "python -m pipeline webhook create"
    for done, words in (
        (
            repository.run(f"{command} https://h", **SECRET),
            "is not a server, and only a server can send",
        ),
        (
            repository.run(f"{command} https://h", MLFLOW_TRACKING_URI=server),
            "MLFLOW_WEBHOOK_SECRET is not set",
        ),
        (
            repository.run(f"{command} ftp://h", MLFLOW_TRACKING_URI=server, **SECRET),
            "MLflow does not accept ftp://h",
        ),
    ):
        assert done.returncode == 1
        assert words in done.stdout
        assert "Traceback" not in done.stdout
