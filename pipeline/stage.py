"""What all stages share: how one starts, how it ends, and how it fails."""

import errno
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from pipeline import paths
from pipeline.errors import UserError

REMEDIES = {
    errno.ENOSPC: "make room and run it again",
    errno.EDQUOT: "make room and run it again",
    errno.EROFS: "run it where files can be written",
    errno.EACCES: "correct its permissions",
    errno.EPERM: "correct its permissions",
    errno.EEXIST: "move it away",
    errno.EISDIR: "move it away",
    errno.ENOTDIR: "move it away",
}
"""What the file system may refuse, and what a user can do about it."""


def run(name: str, main: Callable[[], str], out: TextIO | None = None) -> None:
    """Run a stage as a program: one closing line, one sentence for a user's mistake.

    Parameters
    ----------
    name : str
        The stage's name, as in ``dvc.yaml``.
    main : callable
        Does the work and returns the line that says what it did.
    out : text stream, optional
        Gets that line; standard output, unless that is for a program.
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
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        file = error.filename2 or error.filename  # a copy names both, and the second is ours
        where = f"{file} cannot be used, " if file else ""
        why = str(error.strerror).lower()
        sys.exit(f"{name}: error: {where}{why}: {REMEDIES[error.errno]}.")
    except KeyboardInterrupt:
        sys.exit(f"{name}: stopped; start it again to go on from here.")
    print(f"{name}: {line} [{time.monotonic() - started:.1f} s]", file=out, flush=True)


def quiet() -> None:
    """Show what a user can act on: no deprecations inside libraries, no database migrations.

    Nor a warning for every letter of a label that no font has; it is drawn as an empty box.
    """
    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", message="Glyph .* missing from")
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, in a notebook
    for name in ("alembic", "mlflow", "absl"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # a traceback of what it raises all the same, and whoever ends a stage says in a sentence
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # it counts the networks that are trained one after the other, and warns of each
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
