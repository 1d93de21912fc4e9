"""Read and write the tables and JSON records that the stages leave.

A column has the same type in every table, whatever its values look like: a label ``042`` stays
text, and a label ``NA`` is not a missing value.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError

TEXT = frozenset(
    {
        "dataset",
        "label",
        "other_label",
        "other_path",
        "path",
        "predicted",
        "reason",
        "recording",
        "state",
        "subtype",
        "suggested",
    }
)
"""Columns that hold text. An empty cell in one of them is an empty string."""

WHOLE = frozenset({"channels", "clips", "epoch", "fold", "sample_rate", "seed", "trial", "window"})
"""Columns that hold whole numbers and are never empty."""


def read(path: Path, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a table with every column in its type.

    Parameters
    ----------
    path : Path
        A CSV file with a header.
    columns : iterable of str, optional
        The columns to read; all of them if left out.

    Returns
    -------
    DataFrame
        Columns in :data:`TEXT` are text and those in :data:`WHOLE` are int64. Pandas infers the
        type of every other column, and only an empty cell counts as missing.

    Raises
    ------
    UserError
        When the file is missing, is not such a table, or lacks one of `columns`.
    """
    try:
        names = list(pd.read_csv(path, nrows=0).columns)
        wanted = names if columns is None else list(columns)
        if missing := [name for name in wanted if name not in names]:
            raise UserError(f"{path} has no column {missing[0]}: run `dvc repro` to make it again.")
        return pd.read_csv(
            path,
            usecols=wanted,
            dtype={name: str for name in wanted if name in TEXT}
            | {name: "int64" for name in wanted if name in WHOLE},
            keep_default_na=False,
            na_values={name: [""] for name in wanted if name not in TEXT},
        )
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro` to make it.") from None
    except ValueError as error:  # also what pandas raises for an empty or a damaged file
        raise UserError(f"{path} is damaged ({error}): run `dvc repro` to make it again.") from None


def write(path: Path, table: pd.DataFrame, digits: int | None = None) -> None:
    """Write a table.

    Parameters
    ----------
    path : Path
    table : DataFrame
        Its index is not written.
    digits : int, optional
        Digits after the decimal point of every float; all that are needed if left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    form = None if digits is None else f"%.{digits}f"
    table.to_csv(path, index=False, float_format=form, lineterminator="\n")


def read_json(path: Path) -> Any:
    """Read a JSON record.

    Raises
    ------
    UserError
        When the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro` to make it.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): run `dvc repro` to make it again.") from None


def write_json(path: Path, record: Any) -> None:
    """Write a JSON record, indented and with a final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
