"""Measure what pruning and parallel trials gain: the same search in four ways, one after the other.

``python -m bench.search [--trials 16] [--epochs 20]``, in a folder in which `dvc repro` has run. It
reads `data/` and `features/` and writes to a temporary folder. All searches have the same seed and
space. Later suggestions depend on which trials were pruned, so the table compares the best values
and not the best trials.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from bench.quality import markdown
from pipeline import params, paths, tables

WAYS = {
    "no pruning, one process": {"prune": False, "workers": 1},
    "pruning, one process": {"prune": True, "workers": 1},
    "no pruning, one process per CPU": {"prune": False, "workers": None},
    "pruning, one process per CPU": {"prune": True, "workers": None},
}


def main() -> None:
    """Run the searches and print a table of seconds and best values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    yaml = YAML()
    values = yaml.load(paths.PARAMS.read_text(encoding="utf-8"))
    values["tune"] |= {"trials": options.trials, "epochs": options.epochs}
    rows = []
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            for part in (paths.DATASET, paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC):
                (place / part).parent.mkdir(exist_ok=True)
                shutil.copy(part, place / part)
            values["tune"] |= way
            with (place / paths.PARAMS).open("w", encoding="utf-8") as file:
                yaml.dump(values, file)
            environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
            started = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "pipeline", "tune"], cwd=place, env=environment, check=True
            )
            seconds = time.monotonic() - started
            trials = tables.read(place / paths.TRIALS)
            best = tables.read_json(place / paths.BEST_PARAMS)
        rows.append(
            {
                "search": name,
                "seconds": f"{seconds:.0f}",
                "epochs trained": int(trials["epochs"].sum()),
                "pruned": int((trials["state"] == "pruned").sum()),
                "best validation log loss": f"{best['value']:.3f}",
            }
        )
        print(rows[-1], flush=True)
    for line in markdown(pd.DataFrame(rows)):
        print(line)


if __name__ == "__main__":
    params.load()  # reports a mistake in params.yaml before anything is copied
    main()
