"""What all stages share: how one starts, how it ends, and how it fails."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable


def run(name: str, main: Callable[[], str]) -> None:
    """Run a stage as a program: one closing line, one sentence for a user's mistake.

    Parameters
    ----------
    name : str
        The stage's name, as in ``dvc.yaml``.
    main : callable
        Does the work and returns the line that says what it did.
    """
    from pipeline.errors import UserError

    quiet()
    started = time.monotonic()
    try:
        line = main()
    except UserError as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: stopped; start it again to go on from here.")
    print(f"{name}: {line} [{time.monotonic() - started:.1f} s]", flush=True)


def quiet() -> None:
    """Silence start-up chatter of libraries; warnings that matter are shown once.

    Has to be called before TensorFlow is imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
