"""Keras, loaded without what TensorFlow prints at its start; import it from here."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent() -> Iterator[None]:
    """Send what native code writes to the standard error nowhere; no log level reaches it."""
    sys.stderr.flush()
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _worth_saying(record: logging.LogRecord) -> bool:
    # Every training has a network of its own and traces it once, which TensorFlow counts as one
    # function traced again and again.
    return "triggered tf.function retracing" not in record.getMessage()


logging.getLogger("tensorflow").addFilter(_worth_saying)

with silent():
    import keras

__all__ = ["keras", "silent"]
