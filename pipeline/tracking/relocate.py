"""Update the artifact paths of a local MLflow store whose folder was moved or copied.

MLflow writes absolute paths into its database: after ``mv`` of the repository all artifacts would
seem to be lost, and after ``cp`` the copy's new runs would write into the original.
"""

import contextlib
import sqlite3
from pathlib import Path

ARTIFACTS = "mlruns"

PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's schema that contain paths of artifacts."""


def update_paths(file: Path) -> bool:
    """Update the artifact paths in a database that is not in the folder where it was created.

    The first experiment says where that was, because MLflow creates it together with the file.
    Nothing is changed if the artifacts are in the old folder and not in the new one: then the
    database alone was copied, and its artifacts are where it says.

    Parameters
    ----------
    file : Path
        The SQLite database; its artifacts are in ``mlruns`` beside it.

    Returns
    -------
    bool
        Whether the paths were updated.
    """
    new = file.parent / ARTIFACTS
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database, database:
        first = database.execute(
            "SELECT artifact_location FROM experiments ORDER BY experiment_id LIMIT 1"
        ).fetchone()
        old = Path(first[0].removeprefix("file://")).parent if first else new
        if old.name != ARTIFACTS or old == new or (old.exists() and not new.exists()):
            return False
        for table, column in PATH_COLUMNS:
            for scheme in ("", "file://"):
                prefix = f"{scheme}{old}"
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608  # our own names
                    f" WHERE substr({column}, 1, ?) = ?",
                    (f"{scheme}{new}", len(prefix) + 1, len(prefix) + 1, f"{prefix}/"),
                )
    return True
