"""Read the file names and metadata tables of datasets, and check them."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from pipeline.errors import UserError
from pipeline.sound.files import sound_files

COLUMNS = ["path", "label", "fold", "recording", "salience"]
"""Columns of every dataset's table. An unknown value is null."""


def clip_paths(root: Path, below: str = ".") -> list[str]:
    """List the sound files below a folder, without those whose names a table cannot hold."""
    return [path for path in sound_files(root, below) if fits_a_table(path)]


def check_names(names: Iterable[str]) -> None:
    """Refuse file names that a table of clips cannot hold.

    Parameters
    ----------
    names : iterable of str
        As Python returns them: bytes that are not UTF-8 are lone surrogates.

    Raises
    ------
    UserError
        When a name is not UTF-8 or contains a control character, such as a carriage return.
    """
    for name in names:
        if not fits_a_table(name):
            raise UserError(
                f"The file name {name!a} is not UTF-8 or contains a control character: rename the"
                " file."
            )


def check_text(values: Iterable[str], column: str) -> None:
    """Refuse values of `column` that a table of clips cannot hold.

    Raises
    ------
    UserError
        When a value contains a control character, such as a line break.
    """
    for value in values:
        if not fits_a_table(value):
            raise UserError(
                f"The {column} {value!a} contains a control character, such as a line break:"
                " remove it."
            )


def fits_a_table(text: str) -> bool:
    """Whether a text is UTF-8 without control characters."""
    return not any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in text)


def read(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table of metadata as text, even where it looks like numbers.

    Parameters
    ----------
    path : Path
        A CSV file in UTF-8 whose first line names the columns. Commas, semicolons or tabs separate
        them: spreadsheets write semicolons where the comma is the decimal mark.
    columns : iterable of str
        Columns that the table must have.

    Returns
    -------
    DataFrame
        Text without spaces around it; empty cells are null.

    Raises
    ------
    UserError
        When the file is missing, cannot be read, lacks a column, or has a line with more cells
        than columns.
    """
    try:
        # pandas would take a surplus cell for the name of the row and shift all others
        _refuse_surplus_cells(path)
        # Only an empty cell is null: "None" may be a label.
        table = pd.read_csv(
            path, sep=_separator(path), dtype="str", encoding="utf-8-sig", keep_default_na=False
        )
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing, so the dataset is incomplete: get a complete copy."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not in UTF-8: save it with this encoding.") from None
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file ({error}): correct it.") from None
    for column in columns:
        if column not in table:
            raise UserError(f"{path} has no column {column!r}: add it.")
    return pd.DataFrame({name: table[name].str.strip() for name in table}).replace("", pd.NA)


def line_of(path: Path, row: int) -> int:
    """Find the line of the file in which a row of :func:`read` begins.

    Parameters
    ----------
    path : Path
        The CSV file that was read.
    row : int
        Place of the row in the table, from 0.

    Returns
    -------
    int
        The line number that an editor shows: blank lines count, and the column names are in line 1.
    """
    return [line for line, _ in _records(path)][row + 1]


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line in which each record begins, and its cells; the first one names columns."""
    separator = _separator(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        line = 1
        for cells in reader:
            # pandas skips a blank line, but not a line with an empty cell in quotes
            if cells and not (len(cells) == 1 and cells[0] and not cells[0].strip(" \t")):
                yield line, cells
            line = reader.line_num + 1


def _separator(path: Path) -> str:
    """Return the mark that occurs most often in the first line; a comma if none occurs."""
    with path.open(encoding="utf-8-sig") as file:
        return max(",;\t", key=file.readline().count)


def _refuse_surplus_cells(path: Path) -> None:
    records = _records(path)
    _, columns = next(records, (1, []))
    for line, cells in records:
        if len(cells) > len(columns):
            raise UserError(
                f"{path} has {len(cells)} cells in line {line} but {len(columns)} columns: put the"
                f" {columns[-1]}, or whichever text contains a comma, in double quotes."
            )


def whole_numbers(cells: pd.Series, where: str) -> pd.Series:
    """Turn text into whole numbers.

    Parameters
    ----------
    cells : Series
        Text or null.
    where : str
        Name of the cells in the error message.

    Returns
    -------
    Series
        Pandas' nullable integers.

    Raises
    ------
    UserError
        When a cell is not a whole number.
    """
    wrong = cells.dropna()[lambda text: ~text.str.fullmatch(r"[+-]?\d{1,9}")]
    if len(wrong):
        raise UserError(
            f"{where} contains {wrong.iloc[0]!r}, which is not a whole number: correct it."
        )
    return cells.astype("Int64")


def with_unlisted(table: pd.DataFrame, root: Path, below: str) -> pd.DataFrame:
    """Add, without a label, the clips in a folder that the table does not list.

    Parameters
    ----------
    table : DataFrame
        With a column ``path``.
    root : Path
        The dataset's folder.
    below : str
        Folder inside `root` to look in.

    Returns
    -------
    DataFrame
    """
    listed = set(table["path"])
    unlisted = [path for path in clip_paths(root, below) if path not in listed]
    return pd.concat([table, pd.DataFrame({"path": unlisted}, dtype="str")], ignore_index=True)
