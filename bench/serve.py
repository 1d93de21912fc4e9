"""Compare the service with Flask and Keras, and with BentoML and Keras.

``python -m bench.serve [--rounds N] [--seconds S] [--starts N]``. It needs ``models/`` and a
``bundle/`` with example clips. The three servers and the clients run on this machine. The servers
take turns under load, so that other work on the machine slows all of them. The time of an answer
is from the first byte sent to the last byte read. Each client sends its next request when it has
its answer, and keeps its connection if the server allows it.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from bench import harness
from bench.harness import Response, Server, closed_loop, percentiles, served, table

CLIENTS = (1, 8, 32)
BUNDLE = Path("bundle")


@dataclass(frozen=True)
class Side:
    """One way to serve: its name, how to start it, and the path of its readiness probe."""

    name: str
    command: harness.Command
    ready: str = "/readyz"


SIDES = (
    Side(
        "Flask, Keras, librosa",
        lambda port: [sys.executable, "-m", "bench.opponents", str(port)],
        "/",
    ),
    Side("BentoML, Keras, librosa", harness.bentoml_serve("bench.opponents:KerasService")),
    Side("ours", harness.bentoml_serve(harness.OURS)),
)


@dataclass
class Measured:
    """Measurements of one side in each round; `speed` and `answers` by the number of clients."""

    ready: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    speed: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[int, list[Response]] = field(default_factory=lambda: defaultdict(list))
    cpu: list[float] = field(default_factory=list)
    memory: int = 0


def main() -> None:
    """Print tables of latency and throughput, and of start-up time and memory."""
    parser = argparse.ArgumentParser(
        description="Compare the service with two common ways to serve a Keras model."
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument(
        "--seconds",
        type=float,
        default=6,
        help="seconds of load per round, server and number of clients",
    )
    parser.add_argument("--starts", type=int, default=3, help="how often each server is started")
    options = parser.parse_args()
    clips = [file.read_bytes() for file in sorted((BUNDLE / "examples").glob("*.wav"))]
    if not clips:
        parser.error(
            "bundle/examples has no clips: run `python -m pipeline package --examples` first"
        )
    bodies = [harness.upload(clip) for clip in clips]

    results = {side.name: Measured() for side in SIDES}
    for _ in tqdm(range(options.starts - 1), "starts", disable=None):
        for side in SIDES:
            with served(side.command, side.ready) as server:
                _first_answer(server, bodies, results[side.name])
    with contextlib.ExitStack() as stack:
        servers = {s.name: stack.enter_context(served(s.command, s.ready)) for s in SIDES}
        for name, server in servers.items():
            _first_answer(server, bodies, results[name])
        _check_agreement(servers, bodies)
        for _ in tqdm(range(options.rounds), "rounds", disable=None):
            for clients in CLIENTS:
                for name, server in servers.items():
                    _load(server, bodies, clients, options.seconds, results[name])
        for name, server in servers.items():
            results[name].memory = server.memory()
        nothing = closed_loop(servers["ours"].port, [b""], 1, 2.0, "/livez")
        _print(results)
        print(_parts(clips, results["ours"], nothing))


def _first_answer(server: Server, bodies: Sequence[bytes], result: Measured) -> None:
    answer = harness.request(server.port, "/classify", bodies[0], harness.HEADERS, timeout=120)
    if answer.status != 200:
        sys.exit(f"a server answers {answer.status}: {answer.body.decode(errors='replace')[:300]}")
    result.ready.append(server.seconds)
    result.first.append(answer.seconds)


def _check_agreement(servers: dict[str, Server], bodies: Sequence[bytes]) -> None:
    """Check that all servers give the same probabilities; if not, comparing them is pointless."""
    for body in bodies:
        said = []
        for server in servers.values():
            answer = harness.request(server.port, "/classify", body, harness.HEADERS)
            probabilities = json.loads(answer.body)["probabilities"]
            values = probabilities.values() if isinstance(probabilities, dict) else probabilities
            said.append(sorted(values))
        gap = max(abs(a - b) for one in said for a, b in zip(one, said[0], strict=True))
        if gap > 0.01:
            sys.exit(
                f"the servers' probabilities for a clip differ by {gap:.3f}:"
                " do bundle/ and models/ hold the same model?"
            )


def _load(
    server: Server, bodies: Sequence[bytes], clients: int, seconds: float, result: Measured
) -> None:
    cpu, started = server.cpu_seconds(), time.perf_counter()
    answers = closed_loop(server.port, bodies, clients, seconds)
    good = [answer for answer in answers if answer.status == 200]
    result.speed[clients].append(len(good) / (time.perf_counter() - started))
    result.answers[clients] += answers
    result.cpu.append((server.cpu_seconds() - cpu) / max(1, len(good)))


def _print(results: dict[str, Measured]) -> None:
    rows = []
    original = results[SIDES[0].name]
    for clients in CLIENTS:
        for name, result in results.items():
            answers = result.answers[clients]
            good = [answer for answer in answers if answer.status == 200]
            pairs = zip(result.speed[clients], original.speed[clients], strict=True)
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            times = (f"{value:,.1f}" for value in percentiles(good, 50, 95, 99))
            speed = statistics.median(result.speed[clients])
            rows.append(
                (name, clients, *times, f"{speed:,.1f}", f"{ratio:,.1f}", len(answers) - len(good))
            )
    head = ("side", "clients", "p50 ms", "p95 ms", "p99 ms", "answers/s", "ratio", "not 200")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"percentiles over all rounds, medians of answers/s; load averages at the end: {load}\n")
    print(table(head, rows), end="\n\n")
    print(
        table(
            ("side", "start to ready, s", "first answer, s", "memory (PSS), MB", "CPU ms/answer"),
            [
                (
                    name,
                    f"{statistics.median(result.ready):.2f}",
                    f"{statistics.median(result.first):.2f}",
                    f"{result.memory / 1e6:.0f}",
                    f"{statistics.median(result.cpu) * 1000:.1f}",
                )
                for name, result in results.items()
            ],
        ),
        end="\n\n",
    )


def _parts(clips: list[bytes], ours: Measured, nothing: list[Response]) -> str:
    """Return a table of the median times of the parts of a single client's request."""
    from pipeline.serving.classifier import Classifier
    from pipeline.sound import decoding
    from pipeline.sound.features import windows

    classifier = Classifier.load(BUNDLE)
    spec = classifier.spec
    times: dict[str, list[float]] = defaultdict(list)
    for clip in clips * 20:
        started = time.perf_counter()
        wave = decoding.load(clip, spec.sample_rate)
        decoded = time.perf_counter()
        features = classifier.extract(windows(wave, spec)[:1])
        extracted = time.perf_counter()
        classifier.infer(features)
        times["decoding"].append(decoded - started)
        times["features"].append(extracted - decoded)
        times["network"].append(time.perf_counter() - extracted)
    parts = {name: statistics.median(values) * 1000 for name, values in times.items()}
    parts["HTTP and BentoML (measured with GET /livez)"] = percentiles(nothing, 50)[0]
    whole = percentiles([answer for answer in ours.answers[1] if answer.status == 200], 50)[0]
    size = statistics.median(len(clip) for clip in clips)
    rest = f"the rest: upload of {size / 1000:.0f} kB, form, answer, thread switches"
    rows = [*parts.items(), (rest, whole - sum(parts.values())), ("complete request", whole)]
    return table(("part of a request", "ms"), [(name, f"{value:.2f}") for name, value in rows])


if __name__ == "__main__":
    main()
