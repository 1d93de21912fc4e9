"""Send damaged inputs through decoder, features and network, in a separate process.

``python -m tests.service.fuzz BUNDLE SEED COUNT`` prints the outcomes as JSON. It is a separate
process because a decoder that crashes would end the tests, and one that hangs can only be killed
from outside. That is also why each input's number is printed to standard error before it is tried.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from bench import harness
from pipeline.serving.classifier import Classifier
from pipeline.sound import decoding
from tests.service import evil

LIMITS = decoding.Limits(seconds=600, work_seconds=10)


def main(bundle: Path, seed: int, count: int) -> dict[str, Any]:
    """Try `count` inputs; `slowest` is in CPU seconds, because the machine may be busy."""
    classifier = Classifier.load(bundle)
    process = psutil.Process()
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest = (0.0, "")
    memory: list[int] = []
    for number in range(count):
        print(number, file=sys.stderr, flush=True)
        name, content = evil.mutated(seed, number)
        started = time.process_time()
        try:
            outcomes[outcome(classifier, content, overlapping=number % 2 == 0)] += 1
        except Exception as error:
            failures.append(f"{seed} {number} ({name}): {type(error).__name__}: {error}")
        slowest = max(slowest, (time.process_time() - started, f"{seed} {number} ({name})"))
        if number % 40 == 0:
            memory.append(process.memory_full_info().uss)
    return {
        "outcomes": outcomes,
        "failures": failures,
        "slowest": slowest,
        "grown": harness.growth_per_round(memory),
    }


def outcome(classifier: Classifier, content: bytes, *, overlapping: bool) -> str:
    """Return the error sentence for an input, or ``answered`` if there is none."""
    try:
        spec = classifier.spec
        wave = decoding.load(content, spec.sample_rate, limits=LIMITS, min_seconds=spec.min_seconds)
        found = classifier.predict(wave, 120, overlapping=overlapping)
    except decoding.AudioError as error:
        return str(error)
    for probabilities in (found.probabilities, *found.windows):
        assert np.isfinite(probabilities).all()
        assert abs(probabilities.sum() - 1) < 1e-4
    return "answered"


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
