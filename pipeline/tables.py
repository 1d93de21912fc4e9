"""Read and write the tables and JSON records that pass between stages.

A column has the same type in every table, whatever its values look like: the label ``042`` stays
text, and the label ``NA`` is not a missing value. The readers of :mod:`pipeline.data.datasets` keep
control characters, which CSV cannot hold, out of the text.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError

TEXT_COLUMNS = frozenset(
    {
        "dataset",
        "label",
        "other_label",
        "other_path",
        "path",
        "predicted",
        "reason",
        "recording",
        "source",
        "state",
        "subtype",
        "suggested",
    }
)
"""Columns that hold text. An empty cell in one of them is an empty string."""

INTEGER_COLUMNS = frozenset(
    {
        "channels",
        "clips",
        "epoch",
        "fold",
        "recordings",
        "recordings_in_all",
        "sample_rate",
        "seed",
        "trial",
        "window",
    }
)
"""Columns that hold whole numbers and are never empty."""


def read(path: Path, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a table and give every column its type.

    Parameters
    ----------
    path : Path
        A CSV file whose first line names the columns.
    columns : iterable of str, optional
        The columns to read; all if left out.

    Returns
    -------
    DataFrame
        The columns in the order of the file. :data:`TEXT_COLUMNS` are text, and
        :data:`INTEGER_COLUMNS` are int64. Pandas infers the type of every other column, and only an
        empty cell counts as missing.

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
            dtype={name: str for name in wanted if name in TEXT_COLUMNS}
            | {name: "int64" for name in wanted if name in INTEGER_COLUMNS},
            keep_default_na=False,
            na_values={name: [""] for name in wanted if name not in TEXT_COLUMNS},
        )
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro` to make it.") from None
    except (ValueError, OverflowError) as error:
        # ValueError is also the base of what pandas raises for an empty or a damaged file.
        raise _damaged(path, error) from None


def write(path: Path, table: pd.DataFrame, digits: int | None = None) -> None:
    """Write a table. If writing fails, a table that was there before stays as it was.

    Parameters
    ----------
    path : Path
        The CSV file. Missing folders are made.
    table : DataFrame
        Its index is not written.
    digits : int, optional
        Digits after the decimal point of every float; if left out, as many as it takes to read
        the same float back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    form = None if digits is None else f"%.{digits}f"
    unfinished = path.with_name(path.name + ".part")
    table.to_csv(unfinished, index=False, float_format=form, lineterminator="\n")
    unfinished.replace(path)


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
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None


def write_json(path: Path, record: Any) -> None:
    """Write a JSON record, indented and with a final newline.

    If writing fails, a record that was there before stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _damaged(path: Path, error: Exception) -> UserError:
    why = " ".join(str(error).split()).removesuffix(".")
    return UserError(f"{path} is damaged ({why}): run `dvc repro` to make it again.")
