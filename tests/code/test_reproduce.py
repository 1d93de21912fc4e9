import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.registry import comparison, reproduce
from pipeline.registry.comparison import Training
from pipeline.tracking import provenance

PREDICTIONS = pd.DataFrame(
    {
        "path": ["a.wav", "b.wav"],
        "label": ["042", "siren"],
        "recording": ["a", "b"],
        "predicted": ["042", "siren"],
        "p_042": [0.9, 0.2],
        "p_siren": [0.1, 0.8],
    }
)
CLIPS = pd.DataFrame(
    {
        "path": ["a.wav", "b.wav", "c.wav"],
        "label": ["042", "siren", "siren"],
        "fold": [1, 1, 2],
        "recording": ["a", "b", "c"],
    }
)
ORIGINAL = Training(
    model_sha256="the weights",
    metrics={"accuracy": 1.0, "macro_f1": 1.0, "log_loss": 0.2},
    predictions=PREDICTIONS,
    clips=CLIPS,
    tags={
        "dataset.sha256": "the audio",
        **{f"lineage.{name}": "1" for name in ("machine", "python", *provenance.LIBRARIES)},
    },
)


def test_equal_weights_metrics_and_data_are_equal_to_the_bit() -> None:
    compared = comparison.compare(ORIGINAL, ORIGINAL)
    assert compared.agrees
    assert compared.verdict == "weights and metrics are bit-identical"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"label": ["042", "siren", "042"]}, "1 clip has another label"),
        ({"label": ["siren", "042", "siren"]}, "2 clips have another label"),
        ({"fold": [1, 1, 3]}, "1 clip has another fold"),
        ({"recording": ["a", "b", "b"]}, "1 clip has another recording"),
        ({"path": ["a.wav", "b.wav", "d.wav"]}, "1 clip is missing"),
    ],
)
def test_the_same_audio_with_other_labels_folds_or_recordings_is_not_the_same_data(
    change: dict[str, Any], difference: str
) -> None:
    repeated = replace(ORIGINAL, clips=CLIPS.assign(**change))
    compared = comparison.compare(ORIGINAL, repeated)
    assert not compared.agrees
    assert compared.verdict == f"the data differ ({difference})"
    assert difference in compared.lines[0]


def test_a_run_that_has_lost_its_clips_table_is_compared_on_its_test_clips() -> None:
    original = replace(ORIGINAL, clips=PREDICTIONS)
    assert comparison.compare(original, ORIGINAL).agrees
    relabelled = replace(ORIGINAL, clips=CLIPS.assign(label="siren"))
    assert "1 clip has another label" in comparison.compare(original, relabelled).verdict


def test_other_weights_agree_only_on_another_machine_and_within_the_tolerance() -> None:
    other = replace(ORIGINAL, model_sha256="others")
    assert not comparison.compare(ORIGINAL, other).agrees
    elsewhere = replace(other, tags={**ORIGINAL.tags, "lineage.keras": "2"})
    compared = comparison.compare(ORIGINAL, elsewhere)
    assert compared.agrees
    assert "not bit-identical (keras 1 before, 2 now)" in compared.verdict
    worse = replace(elsewhere, metrics={**ORIGINAL.metrics, "accuracy": 0.9})
    assert not comparison.compare(ORIGINAL, worse).agrees


def test_the_stages_of_an_older_commit_are_started_as_that_commit_starts_them(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "tree"
    (tree / "flat").mkdir(parents=True)
    for stage in ("tune", "train", "evaluate"):  # each was a module of its own
        (tree / "flat" / f"{stage}.py").write_text(
            "import os, sys\n"
            "with open('started', 'a') as file:\n"
            f"    print('{stage}', sys.argv[1:], os.environ['MLFLOW_TRACKING_URI'], file=file)\n"
        )
    (tree / "dvc.yaml").write_text(
        "stages:\n"
        "  tune:\n    cmd: python -m flat.tune --quick\n"
        "  train:\n    cmd: python -m flat.train\n"
        "  evaluate:\n    cmd: python flat/evaluate.py 'two words'\n"
    )
    reproduce.train(tree, tmp_path, search=False)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert (tree / "started").read_text().splitlines() == [
        f"tune ['--quick'] {store}",
        f"train [] {store}",
        f"evaluate ['two words'] {store}",
    ]


def test_a_commit_that_lacks_changes_to_the_code_cannot_be_reproduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "start"]):
        subprocess.run([*git, *command], check=True)
    commit = provenance.git("rev-parse", "HEAD")
    tags = {"lineage.git_commit": str(commit), "lineage.git_dirty": "true"}
    other_files = {**tags, "lineage.git_changes": "params.yaml, README.md"}
    assert reproduce.commit_of(other_files) == commit
    code = {**tags, "lineage.git_changes": "params.yaml, pipeline/training/fit.py"}
    with pytest.raises(UserError, match=f": pipeline/training/fit.py differed from .*{commit}"):
        reproduce.commit_of(code)
    with pytest.raises(UserError, match="no record of its code"):
        reproduce.commit_of({})
    with pytest.raises(UserError, match="is not in this clone"):
        reproduce.commit_of({**tags, "lineage.git_commit": "0" * 40})
