"""Measure the peak memory of the stages for hours of sound.

``python -m bench.long [--hours 0.5 2 6]``, on Linux. It makes six recordings of two labels in a
temporary folder, splits them into windows, and runs download, featurize, train and evaluate on
them, with one epoch. The anonymous memory is what a stage needs. Pages of the mapped feature array
come on top in the resident memory, and the system takes them back when another program needs them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import soundfile
from ruamel.yaml import YAML

from bench.harness import table

ROOT = Path(__file__).parents[1]
RATE = 32_000
STAGES = ("download", "featurize", "tune", "train", "evaluate")


def main() -> None:
    """Print a table with the peak memory of each stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, nargs="+", default=[0.5, 2, 6])
    rows = []
    for hours in parser.parse_args().hours:
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            rows += [(f"{hours:g} h", *row) for row in _measure(Path(folder), hours)]
    print(table(["sound", "stage", "anonymous, MB", "resident, MB", "s"], rows))


def record(folder: Path, hours: float) -> None:
    """Write six recordings of together `hours` hours: three of a hum, three of noise."""
    seconds = round(hours * 3600 / 6)
    time_ = np.arange(10 * RATE) / RATE
    for label in ("hum", "hiss"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            rng = np.random.default_rng([number, label == "hum"])
            file = folder / label / f"{number}.wav"
            with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16") as sound:
                for _ in range(0, seconds, 10):
                    noise = rng.normal(0, 0.1, time_.size)
                    hum = 0.5 * np.sin(2 * np.pi * rng.uniform(80, 120) * time_) + noise / 20
                    sound.write(hum if label == "hum" else noise)


def _measure(folder: Path, hours: float) -> list[tuple[str, str, str, str]]:
    record(folder / "sounds", hours)
    content = YAML().load(ROOT / "params.yaml")
    content["dataset"] |= {"name": "folder", "source": None}
    content["dataset"]["folder"]["folds"] = 3
    content["features"]["longer"] = "split"
    content["tune"]["trials"] = 0
    content["train"]["epochs"] = 1
    YAML().dump(content, folder / "params.yaml")
    shutil.copy(ROOT / "labels.csv", folder)
    rows = []
    for stage in STAGES:
        started = time.monotonic()
        anonymous, resident = _peak([sys.executable, "-m", "pipeline", stage], folder)
        seconds = time.monotonic() - started
        if stage != "tune":
            rows.append(
                (stage, f"{anonymous / 1e6:.0f}", f"{resident / 1e6:.0f}", f"{seconds:.0f}")
            )
    return rows


def _peak(command: list[str], folder: Path) -> tuple[int, int]:
    """Run a command and return the peaks of its anonymous and of its resident memory, in bytes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment)
    peaks = [0, 0]
    while process.poll() is None:
        for place, size in enumerate(_memory(process.pid)):
            peaks[place] = max(peaks[place], size)
        time.sleep(0.03)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed.")
    return peaks[0], peaks[1]


def _memory(pid: int) -> tuple[int, int]:
    try:
        info = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0, 0
    return info.rss - info.shared, info.rss


if __name__ == "__main__":
    main()
