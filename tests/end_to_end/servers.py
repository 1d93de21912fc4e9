"""Real servers for tests, on free ports: PostgreSQL, S3, MLflow, and a line that fails."""

import contextlib
import http.client
import http.server
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness import free_port

HOST = "127.0.0.1"
BUCKET = "team"
S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def program(name: str) -> str:
    """A program of the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)


def wait_for(ready: Callable[[], bool], what: str, process: "subprocess.Popen[Any]") -> None:
    deadline = time.monotonic() + 300  # it is not slow before that, but hangs
    while not ready():
        assert process.poll() is None, f"{what} has ended"
        assert time.monotonic() < deadline, f"{what} is not ready"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def started(
    command: list[str],
    log: Path,
    environment: dict[str, str] | None = None,
    user: str | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with all that it starts; it is gone at the end."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            user=user,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def postgres_programs() -> Path | None:
    """Folder of PostgreSQL's programs, where Debian's package or the path has them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextlib.contextmanager
def postgres(programs: Path, databases: tuple[str, ...]) -> Iterator[str]:
    """A cluster of its own; yields the address of the server, without a database."""
    import psycopg2  # type: ignore[import-untyped]

    port = free_port()
    # it refuses to run as root, and another user may not enter the tests' folder
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        (folder / "password").write_text("s3cret")
        if user:
            owner = pwd.getpwnam(user)
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        data = folder / "data"
        subprocess.run(
            [str(programs / "initdb"), "-D", str(data), "-U", "team", "--auth=scram-sha-256",
             f"--pwfile={folder / 'password'}", "--no-sync"],
            check=True, capture_output=True, user=user, cwd=folder,
        )  # fmt: skip
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", HOST]
        command += ["-k", str(folder), "-c", "fsync=off"]
        with started(command, folder / "log", user=user) as process:
            address = f"team:s3cret@{HOST}:{port}"

            def ready() -> bool:
                try:
                    psycopg2.connect(f"postgresql://{address}/postgres").close()
                except psycopg2.OperationalError:
                    return False
                return True

            wait_for(ready, "PostgreSQL", process)
            connection = psycopg2.connect(f"postgresql://{address}/postgres")
            connection.autocommit = True
            for name in databases:
                connection.cursor().execute(f"CREATE DATABASE {name}")
            connection.close()
            yield f"postgresql+psycopg2://{address}"


@contextlib.contextmanager
def s3(log: Path) -> Iterator[str]:
    """An S3 server with a bucket; yields its address."""
    import boto3

    port = free_port()
    url = f"http://{HOST}:{port}"
    with started([program("moto_server"), "-H", HOST, "-p", str(port)], log) as process:
        wait_for(lambda: answers(f"{url}/moto-api/"), "the S3 server", process)
        keys = {key.lower(): value for key, value in S3_KEYS.items() if "REGION" not in key}
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(
            Bucket=BUCKET
        )
        yield url


@contextlib.contextmanager
def mlflow_server(
    store: str, artifacts: str, log: Path, environment: dict[str, str] | None = None
) -> Iterator[str]:
    """``mlflow server``; yields its address."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    command = [program("mlflow"), "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", artifacts]
    # eight processes, for what nothing here asks for
    without = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with started(command, log, {**without, **(environment or {})}) as process:
        wait_for(lambda: answers(f"{url}/health"), "the MLflow server", process)
        yield url


@dataclass
class Line:
    """A line to an HTTP server that can be made to fail at a certain request."""

    port: int
    server_port: int
    fault: str | None = None
    """``gone``, ``error``, ``slow``, ``kill``, or none."""
    after: int = 0
    """Requests that still pass."""
    victim: Callable[[], None] = lambda: None
    """What ``kill`` does."""
    struck: int = 0
    """Requests that met the fault."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def break_(self, fault: str, after: int, victim: Callable[[], None] = lambda: None) -> None:
        with self.lock:
            self.fault, self.after, self.victim, self.struck = fault, after, victim, 0

    def heal(self) -> None:
        with self.lock:
            self.fault = None

    def meets_fault(self) -> str | None:
        with self.lock:
            if self.fault is None:
                return None
            self.after -= 1
            if self.after >= 0:
                return None
            self.struck += 1
            return self.fault


@contextlib.contextmanager
def faulty_line(server: str) -> Iterator[Line]:
    """Stand between clients and `server`."""
    upstream = int(server.rpartition(":")[2])

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = line.meets_fault()
            if fault == "gone":  # hung up on, as by a server that was killed
                self.close_connection = True
                return
            if fault == "slow":
                time.sleep(20)
                self.close_connection = True
                return
            if fault == "kill":
                line.victim()
                self.close_connection = True
                return
            if fault == "error":
                self.answer(500, b"out of order", "text/plain")
                return
            to = http.client.HTTPConnection(HOST, upstream, timeout=60)
            headers = {
                k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")
            }
            to.request(self.command, self.path, body, {**headers, "Host": f"{HOST}:{upstream}"})
            got = to.getresponse()
            self.answer(got.status, got.read(), got.headers.get("Content-Type", ""))
            to.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

        def answer(self, status: int, body: bytes, kind: str) -> None:
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer((HOST, 0), Handler)
    listening.daemon_threads = True
    line = Line(listening.server_port, upstream)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield line
    listening.shutdown()
