"""Twice the load that the service can take, for minutes: what it does then, and what afterwards.

``python -m bench.soak [--minutes 3]``. Needs ``bundle/``. First as many clients as are let in ask
as fast as they can, which gives the capacity; then requests come at twice that rate, whether they
are answered or not; then a single client asks again.
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
from bench.harness import Answer, Server, closed_loop, open_loop, percentiles, served, table

SLICE = 5.0
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Soaked:
    """What was seen.

    Attributes
    ----------
    capacity : float
        Answers a second with as many clients as are let in.
    slices : list of (list of Answer, int)
        Under twice that rate: answers, and bytes of memory at the end of the slice.
    after : list of Answer
        Of a single client, right after it.
    """

    capacity: float
    slices: list[tuple[list[Answer], int]]
    after: list[Answer]

    @property
    def answers(self) -> list[Answer]:
        """All answers under load."""
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
        Uploads, in turn.
    seconds : float
        Of overload.
    clients : int
        That are let in at a time.
    warm : float
        Seconds of finding out the capacity.
    times : float
        What is offered, in capacities.
    every : float
        Seconds of a slice.

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
    """Print what was seen as a table."""
    parser = argparse.ArgumentParser(description="The service at twice its capacity.")
    parser.add_argument("--minutes", type=float, default=3)
    options = parser.parse_args()
    clips = sorted(Path("bundle/examples").glob("*.wav"))
    if not clips:
        sys.exit("bundle/examples holds no clips: run `python -m pipeline package` first")
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
        ("capacity, answers/s", f"{found.capacity:.0f}"),
        ("offered, requests/s", f"{len(found.answers) / seconds:.0f}"),
        ("answered, answers/s", f"{len(good) / seconds:.0f}"),
        ("shed with 503, of the offered", f"{len(shed) / len(found.answers):.0%}"),
        ("503 without Retry-After", sum(answer.retry_after is None for answer in shed)),
        ("other statuses (0: no answer)", dict(others) or "none"),
        ("p50 / p99 of an answer, ms", " / ".join(f"{t:.0f}" for t in percentiles(good, 50, 99))),
        ("p50 / p99 of a 503, ms", " / ".join(f"{t:.0f}" for t in percentiles(shed, 50, 99))),
        ("memory before, MB", f"{before / 1e6:.0f}"),
        ("memory under load, first to last, MB", f"{memory[0]:.0f} to {memory[-1]:.0f}"),
        ("highest, MB", f"{max(memory):.0f}"),
        ("first answer after the load, ms", f"{found.after[0].seconds * 1000:.1f}"),
        ("median after it, ms", f"{statistics.median(a.seconds for a in found.after) * 1000:.1f}"),
    ]
    print(table((f"twice the capacity for {seconds / 60:.1f} minutes", ""), rows))


if __name__ == "__main__":
    main()
