"""What the readers share: tables of metadata."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline.audio import sound_files
from pipeline.errors import UserError

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
        When the file is missing, cannot be read, or lacks a column.
    """
    try:
        # Only an empty cell is null: "None" may be a label.
        table = pd.read_csv(path, dtype="str", encoding="utf-8-sig", keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the dataset is not complete.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}.") from None
    for column in columns:
        if column not in table:
            raise UserError(f"{path} has no column {column!r}.")
    return pd.DataFrame({name: table[name].str.strip() for name in table}).replace("", pd.NA)


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
