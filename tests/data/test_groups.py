"""Clips that belong together stay in one fold, and file names that show it are noticed."""

import random
import re
import shutil
import subprocess
from collections.abc import Iterable
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import params
from pipeline.data import prepare
from pipeline.data.datasets import folds, naming
from pipeline.errors import UserError

from .test_datasets import PARAMS, grow, read, row, write

ROOT = PARAMS.parent
GUIDE = (ROOT / "docs/how-to/group-clips.md").read_text(encoding="utf-8")
PEOPLE = ["anna", "ben", "carl", "dora", "eva", "finn"]
LABELS = ["cat", "dog", "owl"]


def words(root: Path, name: str = "{label}/{label}_{person}_{take}.wav") -> Path:
    return grow(
        root,
        *(
            name.format(label=label, person=person, take=take)
            for label in ("yes", "no", "go")
            for person in PEOPLE
            for take in range(3)
        ),
    )


# What `dataset.folder.group` does


def test_six_people_who_say_the_same_words_are_divided_by_person(tmp_path: Path) -> None:
    table = read("folder", words(tmp_path), group="_(?P<speaker>[a-z]+)_")
    prepare.check(table)
    assert sorted(table["recording"].unique()) == PEOPLE
    assert table.groupby("recording")["fold"].nunique().max() == 1
    assert (pd.crosstab(table["label"], table["fold"]) == 6).to_numpy().all()
    pd.testing.assert_frame_equal(table, read("folder", tmp_path, group="_(?P<speaker>[a-z]+)_"))


def test_a_group_can_be_the_parent_folder(tmp_path: Path) -> None:
    table = read("folder", words(tmp_path, "{label}/{person}/{take}.wav"), group="parent")
    assert sorted(table["recording"].unique()) == PEOPLE


def test_a_group_can_be_a_column_of_the_table_or_of_the_pattern(tmp_path: Path) -> None:
    lines = [
        f"{path},{PEOPLE[number % 6]}"
        for number, path in enumerate(read("folder", words(tmp_path))["path"])
    ]
    write(tmp_path / "clips.csv", "path,speaker", *lines)
    table = read("folder", tmp_path, group="speaker")
    assert sorted(table["recording"].unique()) == PEOPLE
    (tmp_path / "clips.csv").unlink()
    pattern = "/(?P<label>[a-z]+)_(?P<speaker>[a-z]+)"
    assert (
        sorted(read("folder", tmp_path, group="speaker", pattern=pattern)["recording"].unique())
        == PEOPLE
    )


def test_a_group_may_cross_the_recordings_of_the_table(tmp_path: Path) -> None:
    words(tmp_path)
    write(
        tmp_path / "clips.csv", "path,recording", "yes/yes_anna_0.wav,tape", "no/no_anna_0.wav,tape"
    )
    assert read("folder", tmp_path, group="_([a-z]+)_")["recording"].nunique() == 6
    write(
        tmp_path / "clips.csv", "path,recording", "yes/yes_anna_0.wav,tape", "no/no_ben_0.wav,tape"
    )
    with pytest.raises(UserError, match="recording tape is in 2 groups"):
        read("folder", tmp_path, group="_([a-z]+)_")


def test_a_recording_whose_parts_are_labelled_needs_a_group_too(tmp_path: Path) -> None:
    grow(words(tmp_path), "walks/lake.wav")
    write(tmp_path / "walks/lake.txt", "1.0\t2.0\tyes", "3.0\t4.0\tno")
    with pytest.raises(UserError, match=r"finds no group for walks/lake\.wav"):
        read("folder", tmp_path, group="_([a-z]+)_")
    table = read("folder", tmp_path, group="(?:_|walks/)([a-z]+)[_.]").dropna(subset="label")
    assert set(table["recording"]) == {*PEOPLE, "lake"}


def test_a_flat_folder_has_its_labels_in_the_names(tmp_path: Path) -> None:
    pattern = r"^(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_"
    table = read(
        "folder", words(tmp_path, "{label}_{person}_{take}.wav"), pattern=pattern, group="speaker"
    )
    prepare.check(table)
    assert row(table, "yes_anna_0.wav")[0::2] == ("yes", "anna")


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        ("speker", "has a column of this name: did you mean speaker?"),
        ("_[a-z]+_", "marks no part of the path: put the part that clips share in parentheses"),
        ("(?P<speaker>", "is not a regular expression"),
        ("_([a-z]+)_([0-9]+)", "has 2 groups in parentheses: name the one"),
        ("_(x[a-z]+)_", "finds no group for .*: correct the pattern or rename the file"),
        ("_(x*)", "finds no group for .*: correct the pattern"),
        ("parent", "finds no group for .*: put it into a sub-folder"),
        ("speaker", "finds no group for .*: fill in its speaker"),
        ("label", r"Grouping by label gives 3 groups \(go, no and yes\) for 4 folds: .* to 3\."),
        ("^(?P<initial>[gny])", r"label go .* \(1\) for 3 folds: .* same is true of no and yes"),
    ],
)  # fmt: skip
def test_a_wrong_group_is_one_sentence(group: str, sentence: str, tmp_path: Path) -> None:
    write(words(tmp_path) / "clips.csv", "path,speaker", "go/go_anna_0.wav,anna")
    with pytest.raises(UserError, match=sentence):
        read("folder", tmp_path, group=group, folds=4 if group == "label" else 3)


def test_a_word_that_only_one_person_says_is_named(tmp_path: Path) -> None:
    grow(words(tmp_path), *(f"hey/hey_anna_{take}.wav" for take in range(9)))
    with pytest.raises(UserError, match=r"The label hey has too few groups by speaker \(1\) for 3"):
        read("folder", tmp_path, group="_(?P<speaker>[a-z]+)_")


def test_a_params_file_from_before_there_were_groups_is_valid(tmp_path: Path) -> None:
    lines = PARAMS.read_text(encoding="utf-8").splitlines()
    old = [line for line in lines if not line.startswith("    group: null")]
    assert len(old) == len(lines) - 1
    write(tmp_path / "params.yaml", *old)
    assert params.load(tmp_path / "params.yaml") == params.load(PARAMS)


# Folds


def test_labels_that_few_people_say_are_in_every_fold_where_that_is_possible() -> None:
    rng = np.random.default_rng(4)
    said = [
        (f"word{label}", f"person{person}")
        for person in range(10)
        for label in rng.permutation(10)[:7]
        for _ in range(rng.integers(2, 12))
    ]
    clips = pd.DataFrame(said, columns=["label", "recording"])
    spread = clips.assign(fold=folds.make(clips, 5, "person")).groupby("label")["fold"].nunique()
    assert spread.eq(5).all()


@profile(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=20, max_size=80))
def test_folds_keep_groups_whole_and_use_every_fold(drawn: list[tuple[str, int]]) -> None:
    clips = pd.DataFrame(drawn, columns=["label", "recording"]).astype("str")
    try:
        made = folds.make(clips, 3, "speaker")
    except UserError:
        assert clips.groupby("label")["recording"].nunique().min() < 3
        return
    assert made.groupby(clips["recording"]).nunique().max() == 1
    assert sorted(made.unique()) == [1, 2, 3]
    assert made.groupby(clips["label"]).nunique().min() >= 2


# What file names show


def every(template: str, **values: Iterable[object]) -> list[str]:
    """Fill a template with each combination of the values; `y` is the number of the label."""
    filled = []
    for y, label in enumerate(LABELS):
        for chosen in product(*values.values()):
            known = dict(zip(values, chosen, strict=True))
            filled.append(template.format(label=label, y=y, **known))
    return filled


ROOMS = ("kitchen", "hall", "bath")

SHOWN: dict[str, tuple[list[str], int]] = {
    "label_speaker_take": (every("{label}/{label}_{p}_{i}.wav", p=PEOPLE, i=range(5)), 6),
    "number_speaker": (every("{label}/{k:02}_{p}.wav", k=range(6), p=PEOPLE), 6),
    "label_number_take": (every("{label}/{y}_{p:02}_{i}.wav", p=range(1, 9), i=range(5)), 8),
    "codes": (every("{label}/{h}_nohash_{i}.wav", h=("0a7c2a8d", "ffd2ba2f", "b43"), i="012"), 3),
    "prefixed numbers": (every("{label}/p{p}_{i:03}.wav", p=(225, 226, 301), i=range(5)), 3),
    "reader-chapter": (every("{label}/{p}-{p}{c}-{i:04}.wav", p=(8, 84, 17), c="12", i=(1, 2)), 3),
    "a speaker alone": (every("{label}/{p}.wav", p=PEOPLE), 6),
    "named numbers": (every("{label}/speaker{p}.wav", p=range(6)), 6),
    "sparse numbers": (every("{label}/{p}.wav", p=(1001, 1034, 1071, 1090)), 4),
    "microphones": ([f"{label}/{i:03}_mic{i % 4}.wav" for label in LABELS for i in range(20)], 4),
    "days": (every("{label}/2024-05-{d:02}_{i:02}.wav", d=range(1, 6), i=range(5)), 5),
    "times": (every("{label}/202405{d:02}_09{i:02}07.WAV", d=range(1, 6), i=range(5)), 5),
    "messenger": (every("{label}/audio_2024-05-0{d}_09-30-{i:02}.ogg", d="12345", i=range(5)), 5),
    "recorders": (every("{label}/SM4-{k}_2024050{d}_0{k}{d}000.wav", d="12345", k=range(4)), 5),
    "person's folder": (every("{label}/{p}/clip{i}.wav", p=PEOPLE, i=range(4)), 6),
    "person/session": (every("{label}/{p}/s{j}/clip{i}.wav", p=PEOPLE, j="12", i=range(4)), 6),
    "pieces": (every("{label}/{k}_{i}.wav", k=ROOMS, i=range(4)), 3),
    "pieces in brackets": (every("{label}/{k} ({i}).wav", k=ROOMS, i=range(4)), 3),
    "pieces without separator": (every("{label}/{k}{i}.wav", k=ROOMS, i=range(4)), 3),
    "some pieces": (
        every("{label}/{k}.ogg", k=("kitchen_1", "kitchen_2", "hall_1", "hall_2", "monday")),
        3,
    ),
    "Freesound": (every("{label}/{k}{y}17-a-{i}.wav", k=range(1000, 1009), i=range(4)), 27),
    "UrbanSound8K": (every("{label}/{k}{y}-{y}-{j}-{i}.wav", k=range(10, 19), j="01", i="01"), 27),
    "Freesound users": (
        [
            f"{label}/{i}{y}__{PEOPLE[i % 6]}__{label}.wav"
            for y, label in enumerate(LABELS)
            for i in range(10, 40)
        ],
        6,
    ),
    "cut from recordings": (every("{label}/rec{k:02}_{i:03}.wav", k=range(5), i=range(6)), 5),
    "cities": (every("{label}/{label}-{c}-{i}-{j}-a.wav", c=ROOMS, i="012", j="012"), 3),
}
"""Files of typical naming schemes, and the number of groups that they show."""

RANDOM = random.Random(1)


def digits(many: int, length: int) -> list[str]:
    return [f"{number:0{length}}" for number in RANDOM.sample(range(10**length), many)]


def codes(many: int, length: int = 8) -> list[str]:
    return [f"{RANDOM.getrandbits(4 * length):0{length}x}" for _ in range(many)]


HIDDEN: dict[str, list[str]] = {
    "counter": every("{label}/{i:03}.wav", i=range(50)),
    "counter from one": every("{label}/{i}.wav", i=range(1, 51)),
    "counter with gaps": every("{label}/{i:03}.wav", i=sorted(RANDOM.sample(range(80), 50))),
    "running counter": every("{label}/{y}{i:04}.wav", i=range(50)),
    "label_counter": every("{label}/{label}_{i:03}.wav", i=range(50)),
    "label.counter": every("{label}/{label}.{i:05}.wav", i=range(50)),
    "label counter": every("{label}/{label} {i}.wav", i=range(50)),
    "word and counter": every("{label}/rec{i}.wav", i=range(50)),
    "recorder app": every("{label}/New Recording {i}.m4a", i=range(50)),
    "browser": every("{label}/Recording ({i}).m4a", i=range(50)),
    "takes": every("{label}/{label}_take{i}.wav", i=range(50)),
    "constant end": every("{label}/{label}_{i:03}_16k.wav", i=range(50)),
    "hash": every("{label}/{h}{y}.wav", h=codes(300)),
    "two hashes": [
        f"{label}/{h}_{k}.wav"
        for label in LABELS
        for h, k in zip(codes(300), codes(300), strict=True)
    ],
    "uuid": [
        f"{label}/{h}-{k[:4]}-4{k[5:]}-a{h[5:]}-{k}{h[:4]}.wav"
        for label in LABELS
        for h, k in zip(codes(999), codes(999), strict=True)
    ],
    "six digits": [f"{label}/{number}.wav" for label in LABELS for number in digits(999, 6)],
    "four digits": [f"{label}/{number}.wav" for label in LABELS for number in digits(999, 4)],
    "number and label": [
        f"{label}/{number}_{label}.wav" for label in LABELS for number in digits(99, 7)
    ],
    "one day": every("{label}/20240501_{i:06}.wav", i=range(50)),
    "a day for each file": every(
        "{label}/202{y}{m:02}{d:02}_0{d}{m:02}00.wav", m=range(1, 13), d=range(1, 10)
    ),
    "letters": every("{label}/{c}.wav", c="abcdefghij"),
    "train and test": every("{label}/{s}/{s}{i}.wav", s=("train", "val", "test"), i=range(9)),
    "one folder": every("{label}/wav/{i}.wav", i=range(9)),
    "a folder for each file": every("{label}/{i}{y}/audio.wav", i=range(9)),
    "two microphones": [f"{label}/{i:03}_mic{i % 2}.wav" for label in LABELS for i in range(20)],
    "one file": ["cat/a.wav"],
    "nothing in common": ["cat/a.wav", "cat/b.flac", "dog/c.mp3", "dog/.d.e.wav"],
}
"""Files whose names do not show any groups."""


def listed(paths: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"path": paths, "label": [path.split("/")[0] for path in paths]})


@pytest.mark.parametrize("scheme", SHOWN)
def test_groups_that_names_show_are_found_and_the_suggested_command_makes_them(
    scheme: str, tmp_path: Path
) -> None:
    paths, groups = SHOWN[scheme]
    warning = naming.warning(listed(paths))
    assert sum(f" {path}" in warning for path in paths) >= 2
    (command,) = re.findall("`(.+?)`", warning)
    setting = folder_settings(command, tmp_path)["group"]
    table = read("folder", grow(tmp_path / "sounds", *paths), group=setting)
    assert table["recording"].nunique() == groups
    prepare.check(table)


@pytest.mark.parametrize("scheme", HIDDEN)
def test_names_that_show_no_groups_give_no_warning(scheme: str) -> None:
    assert naming.warning(listed(HIDDEN[scheme])) == ""


def test_the_names_of_esc10_show_the_recordings_that_it_declares(esc10: Path) -> None:
    official = read("esc10", esc10)
    sign = naming.sign(official)
    assert sign is not None
    assert (sign.parts == official["recording"]).all()


@profile(deadline=None, max_examples=150)
@given(
    st.lists(
        st.from_regex(r"[a-c]/([a-d0-3_. ()-]{1,3}/)?[a-d0-3_. ()-]{1,8}\.wav", fullmatch=True),
        min_size=1, max_size=40, unique=True,
    )
)  # fmt: skip
def test_any_names_give_a_sentence_or_nothing_and_its_pattern_finds_all(paths: list[str]) -> None:
    sign = naming.sign(listed(paths))
    if sign is not None and sign.group != "parent":
        assert all(re.search(sign.group, path) for path in paths)
    assert isinstance(naming.warning(listed(paths)), str)


# What the guide says


def folder_settings(command: str, folder: Path) -> dict[str, str]:
    """Return ``dataset.folder`` after a `dvc` command as typed in bash, with DVC's own parser."""
    script = "dvc() { printf '%s\\0' \"$@\"; }\n" + command
    said = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    overrides = [word for flag, word in pairwise(said) if flag == "-S"]
    file = folder / "params.yaml"
    shutil.copy(PARAMS, file)
    for changes in to_path_overrides(overrides).values():
        apply_overrides(file, changes)
    params.load(file)
    values: dict[str, str] = YAML(typ="safe").load(file)["dataset"]["folder"]
    return values


def guide_rows() -> list[list[str]]:
    lines = [line for line in GUIDE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@pytest.mark.parametrize("cells", guide_rows(), ids=lambda cells: cells[0])
def test_each_project_of_the_guide_gets_its_label_and_group(
    cells: list[str], tmp_path: Path
) -> None:
    _, file, setting, label, group = cells
    of_folder = YAML(typ="safe").load("{" + ", ".join(setting.replace("`", "").split("`, `")) + "}")
    table = read("folder", grow(tmp_path, file.strip("`")), **of_folder)
    assert row(table, file.strip("`"))[0::2] == (label, group)


def test_the_commands_of_the_guide_reach_the_settings_as_the_table_has_them(tmp_path: Path) -> None:
    commands = re.findall(r"^dvc exp run .+$", GUIDE, re.MULTILINE)
    assert len(commands) == 6
    written = GUIDE.replace(": '", "='").replace("'`", "`")
    for command in commands:
        for key in ("group", "pattern"):
            value = folder_settings(command, tmp_path)[key]
            assert value is None or f"{key}: {value}" in written.replace("='", ": ")
