"""The readers, on trees laid out like the published ones, and on the real ESC-10."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from pipeline import params
from pipeline.data import datasets, prepare
from pipeline.data.datasets import naming
from pipeline.data.datasets.metadata import COLUMNS, clip_paths
from pipeline.errors import UserError
from pipeline.params import DatasetName, DatasetParams

PARAMS = Path(__file__).parents[2] / "params.yaml"


def settings(**of_folder: Any) -> DatasetParams:
    section = params.load(PARAMS).dataset
    folder = section.folder.model_copy(update={"folds": 3, **of_folder})
    return section.model_copy(update={"folder": folder})


def read(name: DatasetName, root: Path, **of_folder: Any) -> pd.DataFrame:
    dataset = datasets.get(name)
    return dataset.clips(dataset.locate(root), settings(**of_folder))


def grow(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(table: pd.DataFrame, path: str) -> tuple[Any, ...]:
    (found,) = table[table["path"] == path].itertuples(index=False, name=None)
    return tuple(None if pd.isna(cell) else cell for cell in found[1:])


# ESC


def test_the_real_esc10_is_read_whole(esc10: Path) -> None:
    table = read("esc10", esc10)
    prepare.check(table)
    assert list(table.columns) == COLUMNS
    assert len(table) == 400
    assert table["recording"].nunique() == 304
    assert table.groupby(["label", "fold"]).size().tolist() == [8] * 50
    assert row(table, "001 - Dog bark/1-100032-A.ogg") == ("dog_bark", 1, "100032", None)
    content = prepare.content_hash(esc10, table["path"])
    assert content == datasets.get("esc10").content


def test_esc10_is_found_in_the_folder_that_its_archive_wraps_it_in(tmp_path: Path) -> None:
    grow(
        tmp_path / "ESC-10-553c8f17",
        *("001 - Dog bark/1-100032-A.ogg", "010 - Fire crackling/5-4211-B.ogg", "README.md"),
        *("002 - Rain/notes.ogg", "stray.ogg", ".hidden/1-1-A.ogg"),
    )
    table = read("esc10", tmp_path)
    assert row(table, "010 - Fire crackling/5-4211-B.ogg") == ("fire_crackling", 5, "4211", None)
    assert table["path"][table["label"].isna()].tolist() == ["002 - Rain/notes.ogg", "stray.ogg"]
    assert len(table) == 4


ESC50 = "filename,fold,target,category,esc10,src_file,take"


def test_esc50_is_read_from_its_metadata(tmp_path: Path) -> None:
    root = grow(tmp_path / "ESC-50-master", "audio/1-100032-A-0.wav", "audio/not-listed.wav")
    write(
        root / "meta/esc50.csv",
        ESC50,
        "1-100032-A-0.wav,1,0,dog,True,100032,A",
        "5-9032-A-0.wav,5,0,dog,True,9032,A",
    )
    table = read("esc50", tmp_path)
    assert row(table, "audio/1-100032-A-0.wav") == ("dog", 1, "100032", None)
    assert row(table, "audio/5-9032-A-0.wav") == ("dog", 5, "9032", None)  # missing: not here
    assert row(table, "audio/not-listed.wav") == (None, None, None, None)


# UrbanSound8K

URBANSOUND8K = "slice_file_name,fsID,start,end,salience,fold,classID,class"


def test_urbansound8k_is_read_from_its_metadata(tmp_path: Path) -> None:
    root = grow(tmp_path, "audio/fold5/100032-3-0-0.wav", "audio/fold5/._100032-3-0-0.wav")
    write(
        root / "metadata/UrbanSound8K.csv",
        URBANSOUND8K,
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
        "100263-2-0-117.wav,100263,58.5,62.5,2,10,2,children_playing",
    )
    table = read("urbansound8k", tmp_path)
    assert row(table, "audio/fold5/100032-3-0-0.wav") == ("dog_bark", 5, "100032", 1)
    assert row(table, "audio/fold10/100263-2-0-117.wav") == ("children_playing", 10, "100263", 2)
    assert len(table) == 2


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([URBANSOUND8K.replace("fsID", "id")], "has no column 'fsID'"),
        ([URBANSOUND8K, "a.wav,1,0,1,1,one,3,dog"], "fold .*'one'.*not a whole number"),
        ([URBANSOUND8K, "a.wav,1,0,1,1,1.5,3,dog"], "'1.5'"),
        ([URBANSOUND8K, *["a.wav,1,0,1,1,1,3,dog"] * 2], "lists audio/fold1/a.wav twice"),
        ([URBANSOUND8K, "../../../etc/a.wav,1,0,1,1,1,3,dog"], "leads out of its folder"),
    ],
)
def test_damaged_metadata_is_one_sentence(lines: list[str], sentence: str, tmp_path: Path) -> None:
    write(tmp_path / "metadata/UrbanSound8K.csv", *lines)
    with pytest.raises(UserError, match=sentence):
        read("urbansound8k", tmp_path)


@pytest.mark.parametrize("name", ["esc10", "esc50", "urbansound8k"])
def test_a_folder_that_holds_something_else_is_refused(name: DatasetName, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a copy of .* is missing"):
        read(name, grow(tmp_path, "some/where.wav"))


# One's own folder


def own(root: Path, labels: str = "cat dog", recordings: int = 4, takes: int = 2) -> Path:
    return grow(
        root,
        *(
            f"{label}/day{recording}_{take}.wav"
            for label in labels.split()
            for recording in range(recordings)
            for take in range(takes)
        ),
    )


def test_a_folder_gives_labels_and_even_folds_of_its_files(tmp_path: Path) -> None:
    table = read("folder", own(tmp_path, recordings=9, takes=1))
    prepare.check(table)
    assert table.groupby(["label", "fold"]).size().tolist() == [3] * 6
    assert table["recording"].is_unique
    pd.testing.assert_frame_equal(table, read("folder", tmp_path))


@pytest.mark.parametrize("name", [b"two\rlines.wav", b"latin\xff.wav"])
def test_a_file_name_that_no_table_can_hold_is_left_out(name: bytes, tmp_path: Path) -> None:
    before = read("folder", own(tmp_path))
    (tmp_path / "cat" / os.fsdecode(name)).touch()
    pd.testing.assert_frame_equal(read("folder", tmp_path), before)


SOUND = np.array([1000, -2000, 3000, -4000] * 100, np.int16)


def test_recordings_that_share_a_sound_are_one(tmp_path: Path) -> None:
    own(tmp_path)
    for name, kind in (("cat/day1_0", "WAV"), ("cat/day2_1", "FLAC"), ("dog/day2_0", "AIFF")):
        soundfile.write(tmp_path / f"{name}.wav", SOUND, 8000, format=kind)
    soundfile.write(tmp_path / "cat/day3_0.wav", SOUND[::-1], 8000)
    for name in ("cat/day0_0.wav", "dog/day0_0.wav"):
        soundfile.write(tmp_path / name, SOUND * 0, 8000)  # silence says nothing
    table = read("folder", tmp_path, pattern=r"(?P<recording>.+)_\d\.wav$")
    recordings = table.set_index("path")["recording"]
    assert set(recordings[["cat/day1_1.wav", "cat/day2_0.wav", "dog/day2_1.wav"]]) == {"cat/day1"}
    assert recordings.nunique() == 8 - 2


def test_a_sound_in_two_given_folds_is_refused(tmp_path: Path) -> None:
    own(tmp_path)
    for number in (0, 1):
        soundfile.write(tmp_path / f"cat/day{number}_0.wav", SOUND, 8000)
    sentence = (
        r"cat/day0_0.wav and cat/day1_0.wav hold the same sound but are in the folds 0 and 1, so .*"
    )
    with pytest.raises(UserError, match=sentence):
        read("folder", tmp_path, pattern=r"(?P<fold>\d)_\d\.wav$")


def test_a_pattern_keeps_the_files_of_a_recording_in_one_fold(tmp_path: Path) -> None:
    table = read("folder", own(tmp_path), pattern=r"(?P<recording>.+)_\d\.wav$")
    prepare.check(table)
    assert table["recording"].nunique() == 8
    assert table.groupby("recording")["fold"].nunique().max() == 1


def test_the_documented_pattern_also_matches_files_without_a_number(tmp_path: Path) -> None:
    readme = (PARAMS.parent / "sounds" / "README.md").read_text(encoding="utf-8")
    (group,) = re.findall(r"group: '(.+)'", readme)
    assert group in PARAMS.read_text(encoding="utf-8")
    table = read("folder", grow(own(tmp_path), "dog/alone.ogg"), group=group)
    assert row(table, "dog/day2_1.wav")[2] == "day2"
    assert row(table, "dog/alone.ogg")[2] == "alone"


def test_a_pattern_can_name_the_folds(tmp_path: Path) -> None:
    table = read("folder", own(tmp_path), pattern=r"(?P<recording>day(?P<fold>\d))")
    prepare.check(table)
    assert row(table, "dog/day2_1.wav") == ("dog", 2, "day2", None)


def test_clips_csv_takes_precedence(tmp_path: Path) -> None:
    grow(own(tmp_path), "unsorted.wav", "lost.wav")
    write(
        tmp_path / "clips.csv",
        "path,label,recording,remark",
        "unsorted.wav, owl ,night,",
        "dog/day0_0.wav,,long walk,at the lake",
        "dog/day1_0.wav,None,long walk,",
        *(f"dog/day{i}_0.wav,None,," for i in (2, 3)),
        "owl/gone.wav,owl,,",
        *(f"owl{i}.wav,owl,," for i in range(3)),
    )
    table = read("folder", tmp_path)
    assert row(table, "unsorted.wav")[::2] == ("owl", "night")
    assert row(table, "dog/day0_0.wav")[::2] == ("dog", "long walk")
    assert row(table, "dog/day1_0.wav")[::2] == ("None", "long walk")
    assert row(table, "owl/gone.wav")[::2] == ("owl", "owl/gone.wav")
    assert row(table, "lost.wav")[0] is None


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig"])
def test_clips_csv_may_be_as_a_spreadsheet_writes_it(
    separator: str, code: str, tmp_path: Path
) -> None:
    lines = ["path,recording", "dog/day0_0.wav,long walk, at night", "dog/day1_0.wav,long walk"]
    text = "\r\n".join(line.replace(",", separator, 1) for line in lines)
    (own(tmp_path) / "clips.csv").write_text(text, encoding=code, newline="")
    table = read("folder", tmp_path)
    assert row(table, "dog/day0_0.wav")[2] == "long walk, at night"
    assert row(table, "dog/day1_0.wav")[2] == "long walk"


def test_clips_csv_in_another_encoding_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (own(tmp_path) / "clips.csv").write_text("path,recording\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"clips\.csv is not in UTF-8: save it with this encoding"):
        read("folder", tmp_path)


def test_a_label_may_be_a_link_to_a_folder_elsewhere_and_circles_end(tmp_path: Path) -> None:
    own(tmp_path / "elsewhere", recordings=9, takes=1)
    (tmp_path / "here/cat").mkdir(parents=True)
    (tmp_path / "here/dog").symlink_to(tmp_path / "elsewhere/dog")
    (tmp_path / "here/cat/again").symlink_to(tmp_path / "here")
    assert clip_paths(tmp_path / "here") == [f"dog/day{n}_0.wav" for n in range(9)]


def test_a_link_inside_a_label_does_not_take_the_clips_of_another_label(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "cat/first").symlink_to(tmp_path / "dog")
    assert clip_paths(tmp_path) == clip_paths(own(tmp_path / "plain"))


def test_notes_and_the_readme_do_not_count_as_clips(tmp_path: Path) -> None:
    grow(own(tmp_path), "README.md", "dog/notes.txt", "dog/.DS_Store", "dog/cover.jpg")
    assert len(read("folder", tmp_path)) == 16


def test_a_person_may_be_called_like_a_part_of_a_split() -> None:
    people = ("anna", "ben", "chitra", "dev")
    spoken = [(word, who, take) for word in ("yes", "no") for who in people for take in "12"]
    paths = ["_".join(parts) + ".wav" for parts in spoken]
    clips = pd.DataFrame({"path": paths, "label": [path.split("_")[0] for path in paths]})
    found = naming.sign(clips)
    assert found is not None
    assert sorted(found.parts.unique()) == list(people)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(?P<recording>", "is not a regular expression"),
        (r"day\d", "needs a group named label, recording or fold"),
        (
            r"(?P<day>\d)",
            "finds the day of each file, but nothing uses it: set dataset.folder.group to day",
        ),
        (r"dog/(?P<recording>.+)_", "does not match cat/day0_0.wav"),
        (r"(?P<fold>day\d)", "'day0', which is not a whole number"),
    ],
)
def test_a_wrong_pattern_is_one_sentence(pattern: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        read("folder", own(tmp_path), pattern=pattern)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["file,fold", "dog/day0_0.wav,1"], "no column 'path'"),
        (["path,fold", "dog/day0_0.wav,first"], "'first', which is not a whole number"),
        (["path,fold", "dog/day0_0.wav,1"], "has no fold, but other clips have one"),
        (["path,label", *["dog/day0_0.wav,dog"] * 2], "lists dog/day0_0.wav twice"),
        (["path,label", "../dog.wav,dog"], "leads out of its folder"),
        (["path,label", '"dog'], "cannot be read as a CSV file"),
        (
            ["path,recording", "dog/day0_0.wav,a\tb"],
            "recording 'a.*b' contains a control character",
        ),
    ],
)
def test_a_wrong_table_is_one_sentence(lines: list[str], sentence: str, tmp_path: Path) -> None:
    write(own(tmp_path) / "clips.csv", *lines)
    with pytest.raises(UserError, match=sentence):
        read("folder", tmp_path)


def test_a_label_with_fewer_recordings_than_folds_is_named(tmp_path: Path) -> None:
    grow(own(tmp_path), "owl/a.wav", "owl/b.wav")
    with pytest.raises(UserError, match=r"owl has too few recordings \(2\) for 3 folds: add"):
        read("folder", tmp_path)


# What no honest split can be made of


def table(*rows: tuple[str, int | None, str]) -> pd.DataFrame:
    clips = pd.DataFrame(rows, columns=["label", "fold", "recording"])
    return clips.assign(path=[f"{i}.wav" for i in range(len(rows))]).astype({"fold": "Int64"})


GOOD = [(label, fold, f"{label}{fold}") for label in ("cat", "dog") for fold in (1, 2, 3)]


@pytest.mark.parametrize(
    ("clips", "sentence"),
    [
        (table(), "No clip can be used"),
        (table(*GOOD[:3]), "The only label is cat"),
        (table(*GOOD, ("cat", None, "cat9")), "6.wav has a label but no fold"),
        (table(*GOOD, ("cat", 3, "dog1")), "recording dog1 is in 2 folds"),
        (table(*GOOD[:2], *GOOD[3:5]), "in 2 folds and 3 are needed"),
        (table(*GOOD, ("owl", 1, "owl1")), "label owl is in 1 fold and .* label out\\.$"),
        (
            table(*GOOD, ("Dog", 1, "owl1")),
            "label Dog is in 1 fold .* write dog if that is meant",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(clips: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        prepare.check(clips)


def test_every_dataset_names_its_origin_and_licence() -> None:
    for name, dataset in datasets.DATASETS.items():
        assert dataset.name == name
        assert dataset.license
        if dataset.archive is not None:
            assert dataset.archive.url.startswith("https://")
            assert dataset.archive.checksum or dataset.content
