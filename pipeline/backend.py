"""Import Keras without the messages that TensorFlow prints when it starts."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent() -> Iterator[None]:
    """Discard what native code writes to the standard error, which no log level can hide."""
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


def _is_useful(record: logging.LogRecord) -> bool:
    # every training traces its own network once, which TensorFlow takes for one function that is
    # traced again and again
    return "triggered tf.function retracing" not in record.getMessage()


logging.getLogger("tensorflow").addFilter(_is_useful)

with silent():
    import keras

__all__ = ["keras", "silent"]
