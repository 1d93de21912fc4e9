"""Run servers and clients on this machine, and measure their times and memory."""

import contextlib
import http.client
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

Command = Callable[[int], Sequence[str]]
"""Makes the command line of a server from its port."""

HOST = "127.0.0.1"
OURS = "pipeline.serving.service:SoundClassifier"
BOUNDARY = "a-boundary-that-no-clip-holds"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass(frozen=True)
class Response:
    """The response to a request.

    Attributes
    ----------
    seconds : float
        Time from the request to the end of the response.
    status : int
        0 if there was no response.
    retry_after : str or None
        The header.
    body : bytes
    """

    seconds: float
    status: int
    retry_after: str | None = None
    body: bytes = b""


@dataclass(frozen=True)
class Server:
    """A running server; `seconds` is the time from its start until it was ready."""

    process: psutil.Process
    port: int
    seconds: float

    def memory(self) -> int:
        """Return the memory of the process tree in bytes; shared pages count once (PSS)."""
        return sum(p.memory_full_info().pss for p in self.tree())

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process tree has used."""
        return sum(sum(p.cpu_times()[:2]) for p in self.tree())

    def tree(self) -> list[psutil.Process]:
        """List the process and all below it."""
        return [self.process, *self.process.children(recursive=True)]


@contextlib.contextmanager
def served(
    command: Command,
    ready: str = "/readyz",
    environment: dict[str, str] | None = None,
    timeout: float = 300,
) -> Iterator[Server]:
    """Run a server on a free port. Its output is shown only if it does not start.

    Parameters
    ----------
    command : callable
    ready : str
        The path that responds with 200 once the server is ready.
    environment : dict, optional
        Added to this process's environment.
    timeout : float
        Seconds to wait until it is ready.

    Yields
    ------
    Server

    Raises
    ------
    RuntimeError
        When it does not become ready.
    """
    port = free_port()
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command(port),
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # so that all its processes can be ended
        )
        try:
            while request(port, ready, timeout=5).status != 200:
                if process.poll() is not None or time.perf_counter() - started > timeout:
                    log.seek(0)
                    text = log.read().decode(errors="replace")[-3000:]
                    raise RuntimeError(f"{' '.join(command(port))} is not ready:\n{text}")
                time.sleep(0.02)
            seconds = time.perf_counter() - started
            yield Server(psutil.Process(process.pid), port, seconds)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """Find a port that no program listens on.

    It is below those that the system gives to clients, so that none of them takes it before the
    server does, and random, so that two processes that look at the same time find different ones.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def request(
    port: int,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 60,
) -> Response:
    """Send a request on a new connection."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        return exchange(connection, path, body, headers)
    finally:
        connection.close()


def upload(clip: bytes, field: str = "file", name: str = "clip.wav") -> bytes:
    """Return a multipart body with one file."""
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return head.encode() + clip + f"\r\n--{BOUNDARY}--\r\n".encode()


def closed_loop(
    port: int,
    bodies: Sequence[bytes],
    clients: int,
    seconds: float,
    path: str = "/classify",
    timeout: float = 120,
) -> list[Response]:
    """Let clients send requests, each as soon as it has the response to its last one.

    Parameters
    ----------
    port : int
    bodies : sequence of bytes
        Uploads, used in turn.
    clients : int
        Each keeps one connection open.
    seconds : float
        No request starts after this time.
    path : str
    timeout : float
        Seconds that a response may take.

    Returns
    -------
    list of Response
        In the order in which they came.
    """
    numbers = itertools.count()
    end = time.perf_counter() + seconds

    def body() -> bytes | None:
        return bodies[next(numbers) % len(bodies)] if time.perf_counter() < end else None

    return _clients(port, body, clients, path, timeout)


def open_loop(
    port: int,
    bodies: Sequence[bytes],
    rate: float,
    seconds: float,
    path: str = "/classify",
    clients: int = 96,
    timeout: float = 60,
) -> list[Response]:
    """Send requests at a fixed rate, whether responses come or not.

    Parameters
    ----------
    port : int
    bodies : sequence of bytes
        Uploads, in turn.
    rate : float
        Requests per second; fewer if all `clients` wait for a response.
    seconds : float
    path : str
    clients : int
    timeout : float
        Seconds that a response may take.

    Returns
    -------
    list of Response
        In the order in which they came.
    """
    start = time.perf_counter()
    times = iter(start + n / rate for n in range(int(rate * seconds)))
    numbers = itertools.count()
    lock = threading.Lock()

    def body() -> bytes | None:
        with lock:
            due = next(times, None)
            number = next(numbers)
        if due is None or time.perf_counter() > start + seconds:
            return None
        time.sleep(max(0.0, due - time.perf_counter()))
        return bodies[number % len(bodies)]

    return _clients(port, body, clients, path, timeout)


def percentiles(answers: Sequence[Response], *shares: float) -> list[float]:
    """Return percentiles of the response times, in milliseconds."""
    times = [answer.seconds for answer in answers] or [float("nan")]
    return [float(value) * 1000 for value in np.percentile(times, shares)]


def growth_per_round(memory: Sequence[int], rounds: int = 5) -> int:
    """Return by how much the memory grows in every round.

    Without a leak, the pools of the allocator are full after some rounds, and later rounds need no
    more memory. With a leak, each round needs more than all rounds before it.

    Parameters
    ----------
    memory : sequence of int
        Bytes, in the order of measurement, at least one per round.
    rounds : int
        Number of rounds that the measurements are divided into; the median of each counts.

    Returns
    -------
    int
        The smallest rise in bytes; 0 if any round needed no more than those before it.
    """
    levels = [int(np.median(part)) for part in np.array_split(memory, rounds)]
    rises = [level - max(levels[:n]) for n, level in enumerate(levels) if n]
    return max(0, min(rises))


def python(module: str) -> Command:
    """Return the command line of a module of ours that takes a port."""
    return lambda port: [sys.executable, "-m", module, str(port)]


def bentoml_serve(service: str) -> Command:
    """Return the command line of ``bentoml serve``, from this environment."""
    program = str(Path(sys.executable).with_name("bentoml"))
    return lambda port: [program, "serve", service, "--host", HOST, "--port", str(port)]


def exchange(
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes | None,
    headers: dict[str, str] | None,
) -> Response:
    """Send a request on an open connection; a GET if there is no body."""
    sent = time.perf_counter()
    method = "POST" if body else "GET"
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        connection.close()  # the next request opens it again
        return Response(time.perf_counter() - sent, 0)
    seconds = time.perf_counter() - sent
    retry_after = response.getheader("Retry-After")
    return Response(seconds, response.status, retry_after, content)


def _clients(
    port: int, body: Callable[[], bytes | None], clients: int, path: str, timeout: float
) -> list[Response]:
    """Run clients in threads, which is enough because they mostly wait for sockets."""
    answers: list[Response] = []

    def client() -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
        while (content := body()) is not None:
            answers.append(exchange(connection, path, content, HEADERS))
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table with its first column left-aligned and the others right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
