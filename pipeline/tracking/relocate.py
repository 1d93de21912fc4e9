"""A local MLflow store whose folder was moved or copied finds its artifacts again.

MLflow writes absolute paths into its database: after ``mv`` of the repository every artifact
seems lost, and after ``cp`` new runs would write into the first copy.
"""

import contextlib
import sqlite3
from pathlib import Path

ARTIFACTS = "mlruns"

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's schema holds paths of artifacts."""


def mend(file: Path) -> bool:
    """Rewrite the artifacts' paths in a database that is not where it was made.

    Where it was made is what its first experiment says, for MLflow makes that one together with
    the file. Nothing is done while the old folder has the artifacts and the new one has not:
    then the database is only used from elsewhere.

    Parameters
    ----------
    file : Path
        The SQLite database; artifacts are in ``mlruns`` beside it.

    Returns
    -------
    bool
        Whether it had been moved.
    """
    here = file.parent / ARTIFACTS
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database, database:
        made = database.execute(
            "SELECT artifact_location FROM experiments ORDER BY experiment_id LIMIT 1"
        ).fetchone()
        before = Path(made[0].removeprefix("file://")).parent if made else here
        if before.name != ARTIFACTS or before == here or (before.exists() and not here.exists()):
            return False
        for table, column in LOCATIONS:
            for prefix in (str(before), f"file://{before}"):
                new = prefix.removesuffix(str(before)) + str(here)
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608  # names of ours
                    f" WHERE substr({column}, 1, ?) = ?",
                    (new, len(prefix) + 1, len(prefix) + 1, f"{prefix}/"),
                )
    return True
