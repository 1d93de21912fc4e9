"""Simulate Elastic Beanstalk: the API calls of a deployment, and instances that really run.

As in an immutable update, it unpacks the source bundle, pulls its image, starts it behind nginx
with the settings of the bundle, runs the hooks, and only then sends requests there. moto cannot.
"""

import contextlib
import json
import socket
import threading
import time
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import boto3

from bench.harness import free_port
from deploy import engine, local
from pipeline.errors import UserError

NAMESPACE = "http://elasticbeanstalk.amazonaws.com/docs/2010-12-01/"


class Refused(Exception):  # noqa: N818
    """An API error: its code and its message."""


@dataclass
class Environment:
    """An environment, whose address stays the same when its instances are replaced."""

    name: str
    label: str = ""
    status: str = "Ready"
    health: str = "Green"
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    upstream: int = 0
    updates: int = 0

    def __post_init__(self) -> None:
        self.front = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.front.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor = self.front.accept()[0]
                with contextlib.suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", self.upstream))
                    for a, b in ((visitor, server), (server, visitor)):
                        threading.Thread(target=_pass_on, args=(a, b), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Beanstalk:
    """Serve the API on a port of this machine.

    Parameters
    ----------
    names : list of str
        Names of the environments.
    folder : Path
        For downloaded source bundles.
    """

    def __init__(self, names: list[str], folder: Path) -> None:
        self.environments = {name: Environment(name) for name in names}
        self.versions: dict[str, tuple[str, str]] = {}
        self.events: list[tuple[datetime, str, str, str]] = []
        self.calls: list[str] = []
        self.throttled = 0
        """Number of the next calls to reject as throttled."""
        self.folder = folder
        handler = type("Handler", (_Handler,), {"beanstalk": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the API and everything that it runs."""
        self.server.shutdown()
        self.server.server_close()
        for environment in self.environments.values():
            environment.front.close()
            environment.running.close()

    def answer(self, given: dict[str, str]) -> str:
        """Return the result of a call as XML."""
        action = given["Action"]
        self.calls.append(action)
        if self.throttled:
            self.throttled -= 1
            raise Refused("Throttling", "Rate exceeded")
        return str(getattr(self, action)(given))

    def CreateApplicationVersion(self, given: dict[str, str]) -> str:  # noqa: N802
        """Remember where a source bundle is stored."""
        label = given["VersionLabel"]
        if label in self.versions:
            message = f"Application Version {label} already exists."
            raise Refused("InvalidParameterValue", message)
        self.versions[label] = (given["SourceBundle.S3Bucket"], given["SourceBundle.S3Key"])
        return f"<ApplicationVersion><VersionLabel>{label}</VersionLabel></ApplicationVersion>"

    def DescribeApplicationVersions(self, given: dict[str, str]) -> str:  # noqa: N802
        """List the requested ones."""
        wanted = {value for key, value in given.items() if key.startswith("VersionLabels.")}
        found = [label for label in self.versions if label in wanted]
        listed = "".join(f"<member><VersionLabel>{x}</VersionLabel></member>" for x in found)
        return f"<ApplicationVersions>{listed}</ApplicationVersions>"

    def DescribeEnvironments(self, given: dict[str, str]) -> str:  # noqa: N802
        """List the requested ones."""
        wanted = {value for key, value in given.items() if key.startswith("EnvironmentNames.")}
        listed = ""
        for one in self.environments.values():
            if one.name in wanted:
                label = f"<VersionLabel>{one.label}</VersionLabel>" if one.label else ""
                listed += (
                    f"<member><EnvironmentName>{one.name}</EnvironmentName>{label}"
                    f"<Status>{one.status}</Status><Health>{one.health}</Health>"
                    f"<CNAME>{one.address}</CNAME></member>"
                )
        return f"<Environments>{listed}</Environments>"

    def DescribeEvents(self, given: dict[str, str]) -> str:  # noqa: N802
        """List the events of an environment, the newest first."""
        listed = "".join(
            f"<member><EventDate>{date.isoformat()}</EventDate><Severity>{severity}</Severity>"
            f"<Message>{escape(message)}</Message></member>"
            for date, name, severity, message in reversed(self.events)
            if name == given["EnvironmentName"]
        )
        return f"<Events>{listed}</Events>"

    def UpdateEnvironment(self, given: dict[str, str]) -> str:  # noqa: N802
        """Start an update to a version."""
        one = self.environments[given["EnvironmentName"]]
        label = given["VersionLabel"]
        if one.status != "Ready":
            raise Refused(
                "InvalidParameterValue",
                f"Environment named {one.name} is in an invalid state for this operation."
                " Must be Ready.",
            )
        if label not in self.versions:
            raise Refused("InvalidParameterValue", f"No Application Version named '{label}' found.")
        one.status, one.health = "Updating", "Grey"
        one.updates += 1
        threading.Thread(target=self._update, args=(one, label), daemon=True).start()
        return f"<EnvironmentName>{one.name}</EnvironmentName>"

    def _update(self, one: Environment, label: str) -> None:
        stack = contextlib.ExitStack()
        try:
            archive = self.folder / f"{one.name}-{label}.zip"
            boto3.client("s3").download_file(*self.versions[label], str(archive))
            with zipfile.ZipFile(archive) as opened:
                name = json.loads(opened.read("Dockerrun.aws.json"))["Image"]["Name"]
            engine.run("pull", name)
            port = free_port()
            stack.enter_context(local.deployed(archive, port))
        except (UserError, OSError) as error:
            stack.close()
            self._event(one.name, "ERROR", f"Failed to deploy application. {error}")
            # the new instance is gone, and the old one was not changed
            one.status, one.health = "Ready", "Green"
            return
        old, one.running = one.running, stack
        one.upstream, one.label = port, label
        old.close()
        self._event(one.name, "INFO", "Environment update completed successfully.")
        one.status, one.health = "Ready", "Green"

    def _event(self, name: str, severity: str, message: str) -> None:
        self.events.append((datetime.now(UTC), name, severity, message))


class _Handler(BaseHTTPRequestHandler):
    beanstalk: Beanstalk

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        given = {key: values[0] for key, values in parse_qs(body).items()}
        action = given["Action"]
        try:
            result = self.beanstalk.answer(given)
            status = 200
            text = (
                f'<{action}Response xmlns="{NAMESPACE}"><{action}Result>{result}</{action}Result>'
                f"<ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></{action}Response>"
            )
        except Refused as refused:
            code, message = refused.args
            status = 400
            text = (
                f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
                f"<Message>{escape(message)}</Message></Error></ErrorResponse>"
            )
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def wait_until_ready(beanstalk: Beanstalk, name: str, seconds: float = 300) -> None:
    """Wait until an update has finished."""
    until = time.monotonic() + seconds
    while beanstalk.environments[name].status != "Ready":
        assert time.monotonic() < until
        time.sleep(0.2)
