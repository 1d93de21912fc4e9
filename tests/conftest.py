"""Fixtures and hooks that all tests share: how many workers run, and what is made only once."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline import cpus

# imported here and not in tests/service, so that all tests share one network
from tests.bundle import bundle, trained  # noqa: F401

ROOT = Path(__file__).parents[1]

LONGEST = (
    "test_pipeline.py",
    "test_team.py",
    "test_registry.py",
    "test_notebooks.py",
    "test_crossval.py",
    "test_label_errors.py",
    "test_workflows.py",
    "test_reproduce.py",
    "test_webhook.py",
    "test_number_labels.py",
    "test_fit.py",
    "test_package.py",
    "test_hardening.py",
    "test_page.py",
    "test_service.py",
    "test_report.py",
)
"""Files that take longest. They start first, so that no worker is left with one at the end."""


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start, even if pytest runs in the background.

    A shell without job control starts background commands with SIGINT ignored, and programs that
    they start inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Start one worker per CPU, at most four; none if only files are named on the command line."""
    workers = min(cpus.available(), 4)
    named = all(".py" in argument for argument in config.args)
    return 0 if named or workers == 1 else workers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """Restore the environment after each test; ``mlflow.set_tracking_uri`` also changes it."""
    before = dict(os.environ)
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    os.environ.clear()
    os.environ.update(before)


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder only once: the first worker that needs it makes it, the others wait."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a worker that failed
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def empty_store(once: Once) -> Path:
    """An MLflow store without runs, to copy: MLflow takes seconds to make one."""

    def make(folder: Path) -> None:
        from pipeline.tracking import store

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
            store.connect()

    return once("empty_store", make) / "mlflow.db"


@pytest.fixture(scope="session")
def esc10() -> Path:
    """The real ESC-10 clips, where they stand beside the checkout."""
    folder = ROOT.parent / "shared" / "data" / "esc10"
    if not folder.is_dir():
        pytest.skip(f"the real ESC-10 clips are not at {folder}")
    return folder
