"""Find likely label errors and correct them, as a person would."""

import json

import pandas as pd

from .conftest import Repository


def test_label_errors_are_listed_corrected_and_recorded(used: Repository) -> None:
    missing = used.run("python -m pipeline label-errors")
    assert missing.returncode == 1
    assert "run `dvc repro crossval/dvc.yaml` first" in missing.stdout
    assert "Traceback" not in missing.stdout

    used.ok("dvc repro crossval/dvc.yaml")
    printed = used.ok("python -m pipeline label-errors")
    table = pd.read_csv(used.folder / "reports/label_errors.csv")
    assert len(table), "the tiny network is expected to be bad"
    assert f"{len(table)} likely label errors in " in printed
    judged = pd.read_csv(used.folder / "reports/crossval_predictions.csv")
    right = (judged["label"] == judged["predicted"]).mean()
    assert f"agree with {right:.0%} of all labels" in printed
    page = (used.folder / "reports/label_errors.html").read_text()
    assert f"agree with {right:.1%} of all labels" in " ".join(page.split())
    assert page.count("<audio ") == len(table)
    assert "http" not in page.replace("http-equiv", "")

    clips = pd.read_csv(used.folder / "data/clips.csv")
    # each label keeps a clip in each fold, as the split demands
    alone = clips.groupby(["label", "fold"])["path"].transform("size") == 1
    spare = table[~table["path"].isin(clips.loc[alone, "path"])].drop_duplicates("label")
    wrong, (_, unusable) = spare.iloc[0], spare["path"].iloc[:2]
    line = f"foley,{wrong['path']},{wrong['suggested']},"
    assert line in page
    with (used.folder / "labels.csv").open("a") as file:
        file.write(
            f"{line}heard it\nfoley,{unusable},,noise\nesc10,x.ogg,rain,of another dataset\n"
        )
    assert "python -m pipeline download" in used.ok("dvc repro --single-item download")
    clips = pd.read_csv(used.folder / "data/clips.csv").set_index("path")
    assert clips.loc[wrong["path"], "label"] == wrong["suggested"]
    assert unusable not in clips.index
    assert not (used.folder / "data/audio" / unusable).exists()
    card = json.loads((used.folder / "data/dataset.json").read_text())
    assert (card["relabelled"], card["dropped"]) == (1, 1)

    stale = used.run("python -m pipeline label-errors")
    assert stale.returncode == 1
    assert "does not match the current clips and labels" in stale.stdout

    used.ok("dvc repro")
    tags = json.loads((used.folder / "models/run.json").read_text())["tags"]
    assert (tags["labels.relabelled"], tags["labels.dropped"]) == ("1", "1")
    assert tags["labels.sha256"] == card["corrections_sha256"]
