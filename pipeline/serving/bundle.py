"""What is in a serving bundle, and whether it is whole.

Standard library alone: the process that supervises the service asks it before it starts a worker.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

MODEL, SPEC, CARD, REFERENCE, EXAMPLES = (
    "model.tflite",
    "spec.npz",
    "card.json",
    "reference.json",
    "examples",
)
FIELDS = (
    *("name", "version", "aliases", "labels", "threshold", "description", "metrics", "dataset"),
    *("features", "lineage", "examples", "checksums"),
)
"""Of a card."""


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that are there, but for the card, by their path in the bundle."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in sorted(files.items())
        if name != CARD
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of a bundle, once the files that it speaks of turned out to be whole.

    Parameters
    ----------
    folder : Path
        As :mod:`pipeline.registry.package` writes it.

    Returns
    -------
    dict

    Raises
    ------
    UserError
        When the bundle is missing, or a file of it is missing or is not the one that was written.
    """
    file = folder / CARD
    try:
        card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        held = {field: card[field] for field in FIELDS}
        found = checksums(folder)
        for name, checksum in dict(held["checksums"]).items():
            file = folder / name
            if name not in found:
                raise FileNotFoundError
            if found[name] != checksum:
                raise ValueError("it is not the file that was written")
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: make the bundle with `python -m pipeline package`, which needs a"
            " registered model (`make run`)."
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except KeyError:
        raise UserError(
            f"{file} is of an earlier kind: make the bundle again with"
            " `python -m pipeline package`."
        ) from None
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error}): make the bundle again with `python -m pipeline package`."
        ) from None
    return card
