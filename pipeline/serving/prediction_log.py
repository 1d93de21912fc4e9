"""Write every prediction to a log of JSON lines, and read such logs.

Each worker process has a file of its own, ``predictions-PID.jsonl``. A full file is renamed to
``predictions-PID.jsonl.1`` and so on; the oldest one is deleted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.serving.monitoring import Metrics
    from pipeline.serving.psi import Values

logger = logging.getLogger("bentoml.sound")

FILE_BYTES = 20_000_000
"""Size at which a file is full, in bytes: about 100,000 predictions."""

OLD_FILES = 5
"""Number of full files that are kept for each process."""


class PredictionLog:
    """Log predictions. A failure to log never affects a prediction.

    Parameters
    ----------
    folder : Path or None
        The folder to write to; with None, nothing is logged.
    metrics : Metrics
        Counts the failures.
    file_bytes : int
        Size at which a file is full, in bytes.
    """

    def __init__(self, folder: Path | None, metrics: Metrics, file_bytes: int = FILE_BYTES) -> None:
        self._metrics = metrics
        self._warned = False
        self._handler: _RaisingHandler | None = None
        if folder is not None:
            file = folder / f"predictions-{os.getpid()}.jsonl"
            self._handler = _RaisingHandler(
                file, maxBytes=file_bytes, backupCount=OLD_FILES, encoding="utf-8", delay=True
            )

    def write(self, values: Values) -> None:
        """Log a prediction. A failure is counted, and the first one is reported as a warning."""
        if self._handler is None:
            return
        try:
            line = json.dumps({"timestamp": datetime.now(UTC).isoformat(), **values})
            self._handler.handle(logging.makeLogRecord({"msg": line}))
        except Exception:  # whatever it is, the prediction is more important
            self._metrics.log_failed()
            if not self._warned:
                self._warned = True
                logger.warning("Predictions cannot be logged.", exc_info=True)


class _RaisingHandler(RotatingFileHandler):
    """A rotating log file that raises an error if it cannot be written.

    The handlers of ``logging`` print errors and go on. Ours have to be counted.
    """

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # its name
        stream, self.stream = self.stream, None  # the next write opens the file again
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
        raise  # the error that `logging` is handling  # noqa: PLE0704


def read(files: Iterable[Path]) -> tuple[list[dict[str, Any]], int]:
    """Read logs of predictions.

    Parameters
    ----------
    files : iterable of Path

    Returns
    -------
    predictions : list of dict
    damaged : int
        Number of damaged lines. A service that is killed or whose disk is full leaves some.

    Raises
    ------
    UserError
        If a file cannot be read, or has lines but not one prediction.
    """
    predictions: list[dict[str, Any]] = []
    damaged = 0
    for file in files:
        before, first = len(predictions), 0
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise UserError(
                f"{file} cannot be read ({error.strerror}): name the log files of a service."
            ) from None
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                is_prediction = {"label", "confidence"} <= values.keys()
            except (AttributeError, ValueError):
                is_prediction = False
            if is_prediction:
                predictions.append(values)
            else:
                damaged += 1
                first = first or number
        if first and len(predictions) == before:
            raise UserError(
                f"{file} is not a log of predictions (line {first} is not a prediction, nor is any"
                " other line): name the log files of a service."
            )
    return predictions, damaged
