"""Read the service's settings from environment variables.

``docs/serving.md`` lists them in a table; a test compares it with this file.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from pipeline import cpus
from pipeline.errors import UserError

NAME = "sound-classifier"
"""The service's name in BentoML; a bento has it as well."""

PREFIX = "SOUND_"
"""Every environment variable of the service begins with it."""

PROCESS_ENVIRONMENT = {
    # one thread per BLAS call: more would compete with our own threads for the CPUs
    "OPENBLAS_NUM_THREADS": "1",
    # memory pools of the C library; by default it makes eight per CPU
    "MALLOC_ARENA_MAX": "2",
    # large arrays go back to the system, so that the memory of long clips is freed
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    # BentoML keeps the trace of a request until the request's time limit: 4 KB each, for 45 s
    "OTEL_SDK_DISABLED": "true",
    # sends no usage statistics
    "BENTOML_DO_NOT_TRACK": "true",
}
"""Environment variables of libraries that every process of the service needs."""

WAIT_SECONDS = 2.0
"""Seconds that a request waits for a free slot when the service is busy."""


@dataclass(frozen=True)
class Settings:
    """The settings; each is an environment variable, ``SOUND_`` and the field in capitals."""

    bundle: Path = Path(__file__).parents[2] / "bundle"
    """Folder that `python -m pipeline package` wrote."""

    max_bytes: int = 20_000_000
    """Maximum size of a request, in bytes."""

    max_seconds: float = 180.0
    """Maximum length of a clip, in seconds; a longer clip is rejected."""

    max_windows: int = 120
    """Maximum number of windows analysed per clip; the rest of the clip is ignored."""

    max_files: int = 16
    """Maximum number of files per request."""

    max_arrival_seconds: float = 30.0
    """Maximum time for the header of a request to arrive, and again for its body, in seconds."""

    max_decode_seconds: float = 10.0
    """Maximum time for decoding all clips of a request, in seconds."""

    max_concurrent: int = 8
    """Maximum number of requests in progress; four times as many wait for at most 2 seconds."""

    drift_predictions: int = 500
    """Number of latest predictions that are compared with the reference."""

    prediction_log: Path | None = None
    """Folder for the log of predictions; if not set, predictions are not logged."""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Parameters
        ----------
        environment : mapping of str to str

        Raises
        ------
        UserError
            If a value is not a positive number, or if a variable that begins with ``SOUND_`` is
            not a setting: a limit with a misspelt name would have no effect.
        """
        values: dict[str, Any] = {}
        names = {PREFIX + field.name.upper(): field for field in fields(cls)}
        for name in sorted(environment):
            if name.startswith(PREFIX) and name not in names:
                likely = get_close_matches(name, names, 1, cutoff=0.8)
                hint = (
                    f"did you mean {likely[0]}?"
                    if likely
                    else "docs/serving.md lists the settings."
                )
                raise UserError(f"{name} is not a setting: {hint}")
        for name, field in names.items():
            text = environment.get(name)
            if not text:
                continue
            if field.type not in (int, float):
                values[field.name] = Path(text)
                continue
            try:
                values[field.name] = float(text) if field.type is float else int(text)
            except ValueError:
                values[field.name] = 0
            if not 0 < values[field.name] < float("inf"):
                kind = "whole number" if field.type is int else "number"
                raise UserError(f"{name} is {text!r}, but must be a {kind} above 0.")
        return cls(**values)

    @property
    def threads(self) -> int:
        """Return the number of threads that decode and classify.

        Two per CPU, so that a long clip does not hold up all others. Each thread has an interpreter
        of its own, which takes memory.
        """
        return min(self.max_concurrent, 2 * cpus.available())

    @property
    def request_seconds(self) -> int:
        """Return the time limit of a request in seconds: arrival, waiting, decoding, and 3 s spare.

        BentoML and the proxy in front of the service take their time limits from it.
        """
        return math.ceil(self.max_arrival_seconds + WAIT_SECONDS + self.max_decode_seconds + 3)

    @property
    def too_large(self) -> str:
        """Return the error sentence for a request that is too large, also used by the proxy."""
        return f"The request is larger than {self.max_bytes / 1e6:g} MB."

    def limits(self) -> dict[str, float]:
        """Return the limits by their names without ``max_``."""
        return {k[4:]: v for k, v in asdict(self).items() if k.startswith("max_")}
