"""Kept trials and units stay valid only as long as the code that they depend on does not change."""

import shutil
from pathlib import Path

import pytest

from pipeline.training import code_hash

TRIAL, UNIT = "pipeline.training.trial", "pipeline.training.folds"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the package that can be changed."""
    shutil.copytree(code_hash.ROOT / "pipeline", tmp_path / "pipeline")
    monkeypatch.setattr(code_hash, "ROOT", tmp_path)
    return tmp_path / "pipeline"


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("data/split.py", "% len(folds)]", "% len(folds) - 1]"),
        ("sound/features.py", "def normalise(", "SHIFT = 1.0\n\n\ndef normalise("),
        ("sound/augment.py", "import numpy as np", "import numpy as np\n\nMORE = 2"),
        ("training/fit.py", "WARM_UP = 0.05", "WARM_UP = 0.1"),
    ],
)
def test_a_change_of_the_split_or_the_features_or_the_training_invalidates_trials_and_units(
    package: Path, file: str, old: str, new: str
) -> None:
    before = code_hash.of(TRIAL), code_hash.of(UNIT)
    change(package / file, old, new)
    after = code_hash.of(TRIAL), code_hash.of(UNIT)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_change_of_the_scoring_invalidates_units(package: Path) -> None:
    before = code_hash.of(UNIT)
    change(package / "training" / "predictions.py", ".mean()", ".max()")
    assert code_hash.of(UNIT) != before


def test_a_change_of_what_a_trial_reports_invalidates_trials(package: Path) -> None:
    before = code_hash.of(TRIAL)
    change(package / "training" / "trial.py", "fitted.best[BEST]", "fitted.best['loss']")
    assert code_hash.of(TRIAL) != before


@pytest.mark.parametrize("module", [TRIAL, UNIT])
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("training/fit.py", '"""', '"""Another sentence. '),
        ("data/split.py", "\n\n\n@dataclass", "\n\n\n# another comment\n@dataclass"),
        ("errors.py", "class UserError", "MORE = 1\n\n\nclass UserError"),
        ("tracking/store.py", '"sqlite:///mlflow.db"', '"sqlite:///other.db"'),
        ("evaluation/plots.py", "def ", "MORE = 1\n\n\ndef "),
    ],
)
def test_a_change_of_comments_docstrings_or_plumbing_keeps_trials_and_units(
    package: Path, module: str, file: str, old: str, new: str
) -> None:
    before = code_hash.of(module)
    change(package / file, old, new)
    assert code_hash.of(module) == before


def test_the_hash_does_not_depend_on_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_hash.of(TRIAL)
    monkeypatch.chdir(tmp_path)
    assert code_hash.of(TRIAL) == before
    assert len(code_hash.closure(TRIAL)) > 5
