"""Corrections by hand: what ``labels.csv`` says happens, and what it cannot mean is refused."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.data import corrections
from pipeline.errors import UserError

CLIPS = pd.DataFrame(
    {"path": ["a.wav", "b,c.wav", "d.wav"], "label": ["dog", "rain", None], "fold": [1, 2, 3]}
)


def write(folder: Path, *lines: str, head: str = "dataset,path,label,reason") -> Path:
    file = folder / "labels.csv"
    file.write_text("\n".join([head, *lines, ""]))
    return file


def test_clips_are_relabelled_dropped_and_labelled(tmp_path: Path) -> None:
    file = write(
        tmp_path, "folder,a.wav,cat,it meows", 'folder,"b,c.wav",,noise', "folder,d.wav,None,"
    )
    rows = corrections.read("folder", file)
    corrected = corrections.apply(CLIPS, rows)
    assert corrected["path"].tolist() == ["a.wav", "d.wav"]
    assert corrected["label"].tolist() == ["cat", "None"]
    assert corrected["fold"].tolist() == [1, 3]
    facts = corrections.facts(rows)
    assert (facts["relabelled"], facts["dropped"]) == (2, 1)
    assert facts["corrections_sha256"] != corrections.facts(rows.head(2))["corrections_sha256"]


def test_lines_of_other_datasets_change_nothing(tmp_path: Path) -> None:
    rows = corrections.read("folder", write(tmp_path, "esc10,a.wav,cat,"))
    pd.testing.assert_frame_equal(corrections.apply(CLIPS, rows), CLIPS)


@pytest.mark.parametrize("head", [None, "dataset,path,label", "dataset,path,label,reason"])
def test_no_file_and_an_empty_one_change_nothing(tmp_path: Path, head: str | None) -> None:
    file = tmp_path / "none.csv" if head is None else write(tmp_path, head=head)
    pd.testing.assert_frame_equal(corrections.apply(CLIPS, corrections.read("folder", file)), CLIPS)


def test_a_line_copied_from_the_page_is_read_back(tmp_path: Path) -> None:
    file = write(tmp_path, corrections.line("folder", "b,c.wav", 'so "wet"'))
    assert corrections.read("folder", file).to_dict("records") == [
        {"path": "b,c.wav", "label": 'so "wet"'}
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["folder,a.wav,cat,", "folder,a.wav,,"], "names a.wav twice"),
        (["folder,a.wav,cat,", "folder,,cat,"], "has no path in line 3"),
        ([",a.wav,cat,"], "has no dataset in line 2"),
        (["folder,a.wav,cat,", "", 'folder,d.wav,cat,"a\nb"', "folder,,cat,"], "path in line 6"),
        (["folder,z.wav,cat,"], "corrects z.wav, which is not in the dataset"),
        (['folder,a.wav,"big\ncat",'], "label 'big.*cat' contains a control character"),
    ],
)
def test_a_correction_that_makes_no_sense_is_refused(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        corrections.apply(CLIPS, corrections.read("folder", write(tmp_path, *lines)))


def test_a_misspelt_dataset_is_refused_with_a_list_of_the_known_ones(tmp_path: Path) -> None:
    file = write(tmp_path, "folder,a.wav,cat,", "foldr,a.wav,cat,")
    with pytest.raises(UserError, match=r"unknown dataset 'foldr' in line 3: .*esc50.*folder"):
        corrections.read("folder", file)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("commas", [1, 2])
def test_a_comma_in_the_reason_is_refused_with_the_line_and_what_to_do(
    tmp_path: Path, before: int, commas: int
) -> None:
    surplus = "folder,a.wav,cat,crows" + ", at 2 s" * commas
    file = write(tmp_path, *["folder,d.wav,cat,meows"] * before, surplus)
    with pytest.raises(UserError) as refused:
        corrections.read("folder", file)
    assert str(refused.value) == (
        f"{file} has {4 + commas} cells in line {2 + before} but 4 columns: put the reason, or"
        " whichever text contains a comma, in double quotes."
    )


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column 'label'"):
        corrections.read("folder", write(tmp_path, head="dataset,path"))
