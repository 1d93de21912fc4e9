"""Name the files of a serving bundle, and read and check them.

This module uses only the standard library, because the process that supervises the service checks
the bundle before it starts a worker.
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
"""The fields of a card."""


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file except the card, by its path in the bundle."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in sorted(files.items())
        if name != CARD
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Check the files of a bundle and return its card.

    Parameters
    ----------
    folder : Path
        Written by :mod:`pipeline.registry.package`.

    Returns
    -------
    dict

    Raises
    ------
    UserError
        If a file is missing or damaged, or if an earlier release wrote the bundle.
    """
    file = folder / CARD
    try:
        card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        fields = {field: card[field] for field in FIELDS}
        if not isinstance(card["examples"], list):  # before examples had an attribution
            raise KeyError("examples")
        actual = checksums(folder)
        for name, checksum in dict(fields["checksums"]).items():
            file = folder / name
            if name not in actual:
                raise FileNotFoundError
            if actual[name] != checksum:
                raise ValueError("its checksum is wrong")
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: run `python -m pipeline package`. It needs a registered model"
            " (`make run`)."
        ) from None
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}): run `python -m pipeline package` again."
        ) from None
    except KeyError:
        raise UserError(
            f"{file} is from an earlier release: run `python -m pipeline package` again."
        ) from None
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error}): run `python -m pipeline package` again."
        ) from None
    return card


def read_reference(folder: Path) -> dict[str, Any]:
    """Read the reference that drift is measured against.

    Parameters
    ----------
    folder : Path
        The bundle.

    Returns
    -------
    dict
        Histograms by quantity, see :mod:`pipeline.serving.psi`.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    file = folder / REFERENCE
    try:
        reference: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: run `python -m pipeline package`.") from None
    except ValueError:
        raise UserError(f"{file} is damaged: run `python -m pipeline package` again.") from None
    return reference
