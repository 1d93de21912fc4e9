"""Run the commands of the tutorial and of the guides as they are written, one after the other."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from .conftest import ROOT, Repository

pytestmark = pytest.mark.scenario

EXPECTED = {
    "compare-runs": "dropout",
    "full-protocol": "accuracy",
    "fix-label-errors": "likely label errors",
    "plots-offline": "dvc_plots/index.html",
    "promote": "version 1",
    "search": "trials run, ",
    "serve": "path,",
    "small-classes": "balanced_accuracy",
}
"""What the output contains, for each guide whose commands can be run without other servers."""

WITHOUT_COMMANDS = {"datasets", "gpu", "group-clips", "team"}
"""Guides whose commands need a download, a GPU or servers; their blocks are `sh`, not `console`."""

GIT = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "reader"), ("EMAIL", "reader@example.org"))
}


def follow(guide: Path, repository: Repository) -> str:
    """Run every console block of a page in one shell, which stops at the first failure."""
    commands = "\n".join(re.findall(r"```console\n(.*?)```", guide.read_text(), re.DOTALL))
    assert commands
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=repository.folder, env=repository.environment(**GIT), text=True, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def committed(finished: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone whose last run is committed, as a reader's is who goes through all guides in it."""
    clone = finished.copy(tmp_path_factory.mktemp("guides") / "clone")
    for command in ("git add -A", "git commit -q -m run"):
        clone.ok(command, **GIT)
    return clone


def test_every_guide_is_either_run_or_listed_as_needing_more() -> None:
    guides = {page.stem: page.read_text() for page in (ROOT / "docs" / "how-to").glob("*.md")}
    assert set(guides) == set(EXPECTED) | WITHOUT_COMMANDS
    assert all("```console" not in guides[guide] for guide in WITHOUT_COMMANDS)


@pytest.mark.parametrize("guide", sorted(EXPECTED))
def test_the_commands_of_a_guide_work(guide: str, committed: Repository) -> None:
    said = follow(ROOT / "docs" / "how-to" / f"{guide}.md", committed)
    assert EXPECTED[guide] in said
    if guide == "plots-offline":
        page = (committed.folder / "dvc_plots/index.html").read_text()
        assert "../offline/vega.min.js" in page
        assert "cdn" not in page


def test_the_tutorial_ends_with_a_service_for_ones_own_labels(committed: Repository) -> None:
    clips = pd.read_csv(committed.folder / "data/clips.csv")
    labels = sorted(clips["label"].unique())[:3]
    for path, label in clips.loc[clips["label"].isin(labels), ["path", "label"]].to_numpy():
        target = committed.folder / "sounds" / label / Path(path).name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(committed.folder / "data/audio" / path, target)
    follow(ROOT / "docs" / "tutorial.md", committed)
    card = json.loads((committed.folder / "bundle/card.json").read_text())
    assert card["name"] == "my-sounds"
    assert card["labels"] == labels
    assert "my-sounds" in (committed.folder / "reports/report.html").read_text()
    assert not committed.ok("git status --porcelain params.yaml")
