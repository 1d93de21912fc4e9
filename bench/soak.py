"""Overload the service with twice its capacity for minutes, and check that it recovers.

``python -m bench.soak [--minutes 3]``. It needs a ``bundle/`` with example clips. First, as many
clients as the service admits send requests as fast as they can; that gives the capacity. Then
requests arrive at twice that rate, whether they are answered or not. At the end, a single client
sends a few more requests.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bench import harness
from bench.harness import Response, Server, closed_loop, open_loop, percentiles, served, table

SLICE = 5.0
"""Seconds between two measurements of memory."""


@dataclass(frozen=True)
class Soaked:
    """The measurements.

    Attributes
    ----------
    capacity : float
        Answers per second with as many clients as the service admits.
    slices : list of (list of Response, int)
        Under overload: the answers, and the memory at the end of the slice in bytes.
    after : list of Response
        Answers to a single client right after the overload.
    """

    capacity: float
    slices: list[tuple[list[Response], int]]
    after: list[Response]

    @property
    def answers(self) -> list[Response]:
        """Return all answers under overload."""
        return [answer for answers, _ in self.slices for answer in answers]


def soak(
    server: Server,
    bodies: Sequence[bytes],
    seconds: float,
    clients: int = 8,
    warm: float = 4.0,
    times: float = 2.0,
    every: float = SLICE,
) -> Soaked:
    """Overload a server.

    Parameters
    ----------
    server : Server
    bodies : sequence of bytes
        Uploads, sent in turn.
    seconds : float
        Duration of the overload.
    clients : int
        Number of requests that the service admits at a time.
    warm : float
        Seconds for measuring the capacity.
    times : float
        Rate of requests under overload, as a multiple of the capacity.
    every : float
        Seconds per slice.

    Returns
    -------
    Soaked
    """
    started = time.perf_counter()
    good = sum(a.status == 200 for a in closed_loop(server.port, bodies, clients, warm))
    capacity = good / (time.perf_counter() - started)
    slices = []
    for _ in tqdm(range(max(2, round(seconds / every))), "overload", unit="slice", disable=None):
        answers = open_loop(server.port, bodies, times * capacity, every)
        slices.append((answers, server.memory()))
    after = [
        harness.request(server.port, "/classify", bodies[n % len(bodies)], harness.HEADERS)
        for n in range(10)
    ]
    return Soaked(capacity, slices, after)


def main() -> None:
    """Print the measurements as a table."""
    parser = argparse.ArgumentParser(description="Overload the service with twice its capacity.")
    parser.add_argument("--minutes", type=float, default=3)
    options = parser.parse_args()
    clips = sorted(Path("bundle/examples").glob("*.wav"))
    if not clips:
        sys.exit("bundle/examples has no clips: run `python -m pipeline package --examples` first")
    bodies = [harness.upload(clip.read_bytes()) for clip in clips]
    with served(harness.bentoml_serve(harness.OURS)) as server:
        before = server.memory()
        found = soak(server, bodies, 60 * options.minutes)
    good = [answer for answer in found.answers if answer.status == 200]
    shed = [answer for answer in found.answers if answer.status == 503]
    others = Counter(a.status for a in found.answers if a.status not in (200, 503))
    seconds = len(found.slices) * SLICE
    memory = [size / 1e6 for _, size in found.slices]
    rows = [
        ("capacity, answers per second", f"{found.capacity:.0f}"),
        ("load, requests per second", f"{len(found.answers) / seconds:.0f}"),
        ("answered, answers per second", f"{len(good) / seconds:.0f}"),
        ("rejected with 503", f"{len(shed) / len(found.answers):.0%}"),
        ("503 without Retry-After", sum(answer.retry_after is None for answer in shed)),
        ("other statuses (0: no answer)", dict(others) or "none"),
        (
            "p50 / p99 time of an answer, ms",
            " / ".join(f"{t:.0f}" for t in percentiles(good, 50, 99)),
        ),
        ("p50 / p99 time of a 503, ms", " / ".join(f"{t:.0f}" for t in percentiles(shed, 50, 99))),
        ("memory before, MB", f"{before / 1e6:.0f}"),
        ("memory under load, first to last, MB", f"{memory[0]:.0f} to {memory[-1]:.0f}"),
        ("highest memory, MB", f"{max(memory):.0f}"),
        ("first answer after the load, ms", f"{found.after[0].seconds * 1000:.1f}"),
        (
            "median of the first ten answers after the load, ms",
            f"{statistics.median(a.seconds for a in found.after) * 1000:.1f}",
        ),
    ]
    print(table((f"twice the capacity for {seconds / 60:.1f} minutes", ""), rows))


if __name__ == "__main__":
    main()
