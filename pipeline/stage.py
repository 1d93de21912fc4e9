"""Run a command: print its closing line, or report a user's mistake in one sentence."""

import errno
import logging
import os
import select
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from pipeline import paths
from pipeline.errors import UserError

REMEDIES = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space and run it again",
    errno.EROFS: "run it where files can be written",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EEXIST: "move it away",
    errno.EISDIR: "move it away",
    errno.ENOTDIR: "move it away",
}
"""Remedies for errors of the file system, by error number."""


def run(name: str, main: Callable[[], str], out: TextIO | None = None) -> None:
    """Run a command as a program and print its closing line; exit with one sentence if it fails.

    Parameters
    ----------
    name : str
        The command's name, which its lines begin with.
    main : callable
        Does the work and returns the closing line.
    out : text stream, optional
        Where the closing line is printed; by default on the standard output.
    """
    quiet()
    started = time.monotonic()
    try:
        line = main()
    except UserError as error:
        sys.exit(f"{name}: error: {error}")
    except FileNotFoundError as error:
        if error.filename is None or Path(error.filename) not in paths.OUTPUTS:
            raise
        sys.exit(f"{name}: error: {error.filename} is missing: run `dvc repro` to make it.")
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the end
        sys.exit(1)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        file = error.filename2 or error.filename  # a copy has both, and writes the second
        where = f"{file} cannot be used: " if file else ""
        why = str(error.strerror).lower()
        sys.exit(f"{name}: error: {where}{why}; {REMEDIES[error.errno]}.")
    except KeyboardInterrupt:
        sys.exit(f"{name}: stopped; run it again to continue.")
    print(f"{name}: {line} [{time.monotonic() - started:.1f} s]", file=out, flush=True)


def _reader_is_gone() -> bool:
    """Whether nobody reads the standard output any more, as ``| head`` does after a few lines."""
    output = select.poll()
    output.register(1, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def quiet() -> None:
    """Hide messages of libraries that a user cannot act on, such as deprecations and migrations."""
    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", message="Glyph .* missing from")  # once per letter of a label
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, in a notebook
    for name in ("alembic", "mlflow", "absl"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # MLflow logs a traceback of an error that `run` reports in one sentence
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # it warns about every network after the first few that are trained in one process
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
