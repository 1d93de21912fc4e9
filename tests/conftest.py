"""What tests of all kinds share."""

from pathlib import Path

import pytest

# here and not beside the service's tests, so that all tests share one network
from tests.bundle import bundle, trained  # noqa: F401

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def esc10() -> Path:
    """The real ESC-10 clips, where they stand beside the checkout."""
    folder = ROOT.parent / "shared" / "data" / "esc10"
    if not folder.is_dir():
        pytest.skip(f"the real ESC-10 clips are not at {folder}")
    return folder
