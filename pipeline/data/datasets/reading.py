"""What the readers share: tables of metadata."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from pipeline.errors import UserError
from pipeline.sound.decoding import sound_files

COLUMNS = ["path", "label", "fold", "recording", "salience"]
"""Of every reader's table; a missing label, fold or recording is null."""


def clip_paths(root: Path, below: str = ".") -> list[str]:
    """List the clips below a folder, as :func:`sound_files`, where every name is one for a table.

    Raises
    ------
    UserError
        As :func:`check_names`.
    """
    found = sound_files(root, below)
    check_names(found)
    return found


def check_names(names: Iterable[str]) -> None:
    """Refuse file names that a table of clips cannot hold.

    Parameters
    ----------
    names : iterable of str
        As Python gives them: bytes that are not UTF-8 are lone surrogates.

    Raises
    ------
    UserError
        When a name is not UTF-8 or holds a control character, such as a carriage return.
    """
    for name in names:
        if any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(
                f"The file name {name!a} is not UTF-8 or holds a control character: rename the"
                " file."
            )


def metadata(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table of metadata as text.

    Parameters
    ----------
    path : Path
        A CSV file with a line of column names.
    columns : iterable of str
        Columns that have to be there.

    Returns
    -------
    DataFrame
        Text, stripped; empty cells are null.

    Raises
    ------
    UserError
        When the file is missing, cannot be read, lacks a column, or has a line with more cells
        than columns.
    """
    try:
        # pandas would take a surplus cell for the row's name, and move all others
        _refuse_surplus_cells(path)
        # Only an empty cell is null: "None" may be a label.
        table = pd.read_csv(path, dtype="str", encoding="utf-8-sig", keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the dataset is not complete.") from None
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}.") from None
    for column in columns:
        if column not in table:
            raise UserError(f"{path} has no column {column!r}.")
    return pd.DataFrame({name: table[name].str.strip() for name in table}).replace("", pd.NA)


def line_of(path: Path, row: int) -> int:
    """Find the line in which a row of :func:`metadata` begins.

    Parameters
    ----------
    path : Path
        The CSV file that was read.
    row : int
        Place of the row in the table, from 0.

    Returns
    -------
    int
        As an editor counts: blank lines count, and the line of column names is one.
    """
    return [line for line, _ in _records(path)][row + 1]


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield where every record begins, and its cells; the first one names the columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        line = 1
        for cells in reader:
            # what pandas takes for a blank line: a quoted nothing is none
            if cells and not (len(cells) == 1 and cells[0] and not cells[0].strip(" \t")):
                yield line, cells
            line = reader.line_num + 1


def _refuse_surplus_cells(path: Path) -> None:
    records = _records(path)
    _, columns = next(records, (1, []))
    for line, cells in records:
        if len(cells) > len(columns):
            raise UserError(
                f"{path} has {len(cells)} cells in line {line} but {len(columns)} columns: put the"
                f" {columns[-1]}, or whichever text holds a comma, in double quotes."
            )


def whole_numbers(cells: pd.Series, where: str) -> pd.Series:
    """Turn text into whole numbers.

    Parameters
    ----------
    cells : Series
        Text or null.
    where : str
        What to call the cells in the message.

    Returns
    -------
    Series
        Of pandas' nullable integers.

    Raises
    ------
    UserError
        When a cell is not a whole number.
    """
    wrong = cells.dropna()[lambda text: ~text.str.fullmatch(r"[+-]?\d{1,9}")]
    if len(wrong):
        raise UserError(f"{where} holds {wrong.iloc[0]!r}, which is not a whole number.")
    return cells.astype("Int64")


def with_unlisted(table: pd.DataFrame, root: Path, below: str) -> pd.DataFrame:
    """Add the clips that lie in a folder but not in the table, without a label.

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
