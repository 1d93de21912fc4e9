"""What the service serves, and how much it takes: every setting is an environment variable.

``docs/serving.md`` has them as a table, which a test holds to this file.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from pipeline import cpus
from pipeline.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Each an environment variable: ``SOUND_`` and the field's name in capitals."""

    bundle: Path = Path(__file__).parents[2] / "bundle"
    """Folder that `python -m pipeline package` made."""

    max_bytes: int = 20_000_000
    """Of a request."""

    max_seconds: float = 180.0
    """Of a clip; a longer one is refused."""

    max_windows: int = 120
    """Of a clip that are analysed; what comes after them is not."""

    max_files: int = 16
    """Of a request."""

    max_arrival_seconds: float = 30.0
    """For the header of a request to arrive, and for its body."""

    max_decode_seconds: float = 10.0
    """For decoding all clips of a request, by the clock."""

    max_concurrent: int = 8
    """Requests worked on at a time; four times as many wait, for at most two seconds."""

    drift_predictions: int = 500
    """Latest predictions that are compared with the reference."""

    prediction_log: Path | None = None
    """Folder that every prediction is logged to; without one, none is."""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises
        ------
        UserError
            When one is not a positive number, or is no setting: a limit with a typing error in
            its name would be no limit.
        """
        values: dict[str, Any] = {}
        names = {f"SOUND_{field.name.upper()}": field for field in fields(cls)}
        for name in sorted(environment):
            if name.startswith("SOUND_") and name not in names:
                likely = get_close_matches(name, names, 1, cutoff=0.8)
                hint = f"did you mean {likely[0]}?" if likely else "docs/serving.md has them all."
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
                raise UserError(f"{name} is {text!r}: it has to be a {kind} above 0.")
        return cls(**values)

    @property
    def threads(self) -> int:
        """Threads that decode and classify: more than cores, for a long clip must not hold up all.

        Requests beyond them wait for a thread; each thread has an interpreter and its memory.
        """
        return min(self.max_concurrent, 2 * cpus.available())

    def limits(self) -> dict[str, float]:
        """Give the limits by their names without ``max_``."""
        return {k[4:]: v for k, v in asdict(self).items() if k.startswith("max_")}
