"""Read UrbanSound8K, or a dataset with the same layout: slices of up to 4 s in ten folds."""

from pathlib import Path

import pandas as pd

from pipeline.data.datasets import metadata
from pipeline.data.datasets.metadata import whole_numbers, with_unlisted
from pipeline.params import DatasetParams

MARK = "metadata/UrbanSound8K.csv"


def read(root: Path, params: DatasetParams) -> pd.DataFrame:  # noqa: ARG001
    """Read ``metadata/UrbanSound8K.csv``, which lists ``audio/fold*/*.wav``.

    Parameters
    ----------
    root : Path
        The folder that holds ``audio`` and ``metadata``.
    params : DatasetParams
        Not used; all readers take it.

    Returns
    -------
    DataFrame
        See :meth:`pipeline.data.datasets.Dataset.clips`.

    Raises
    ------
    UserError
        When the metadata is missing or damaged.
    """
    rows = metadata.read(root / MARK, ["slice_file_name", "fsID", "salience", "fold", "class"])
    table = pd.DataFrame(
        {
            "path": "audio/fold" + rows["fold"] + "/" + rows["slice_file_name"],
            "label": rows["class"],
            "fold": whole_numbers(rows["fold"], f"The column fold of {MARK}"),
            "recording": rows["fsID"],
            "salience": whole_numbers(rows["salience"], f"The column salience of {MARK}"),
        }
    )
    return with_unlisted(table, root, "audio")
