"""The leak check: leaks between folds are found, and the protocols are compared fairly."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import params, paths, tables
from pipeline.__main__ import main as front_door
from pipeline.data.datasets import urbansound8k
from pipeline.data.source import generate
from pipeline.data.split import by_fold
from pipeline.errors import UserError
from pipeline.evaluation import duplicates, protocols

ROOT = Path(__file__).parents[2]
SETTINGS = params.load(ROOT / "tests" / "params.yaml")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """A small foley dataset: its clips table and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("foley"))
        small = SETTINGS.dataset.foley.model_copy(update={"folds": 3, "recordings": 1})
        folder = generate(small).absolute()
    return urbansound8k.read(folder, SETTINGS.dataset), folder


@pytest.fixture
def copied(generated: tuple[pd.DataFrame, Path], tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    """A copy of it that a test may change."""
    table, folder = generated
    return table.copy(), Path(shutil.copytree(folder, tmp_path / "copied"))


def add(table: pd.DataFrame, of: str, **other: str | int) -> pd.DataFrame:
    """Return the table with a copy of the clip `of` in which some columns differ."""
    row = table[table["path"] == of].assign(**other)
    return pd.concat([table, row], ignore_index=True)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def clip(table: pd.DataFrame, label: str) -> str:
    return str(table.loc[(table["label"] == label) & (table["fold"] == 1), "path"].iloc[0])


def test_a_clean_dataset_has_no_leaks(generated: tuple[pd.DataFrame, Path]) -> None:
    pairs = duplicates.check(*generated)
    assert not pairs["leak"].any()
    assert not pairs["conflict"].any()


def test_a_recording_in_two_folds_is_named_with_both(copied: tuple[pd.DataFrame, Path]) -> None:
    table, folder = copied
    row = table.index[table["recording"].duplicated(keep="last")][0]
    table.loc[row, "fold"] = table.loc[row, "fold"] % 3 + 1
    (found,) = records(duplicates.check(table, folder).query("leak"))
    assert found["kind"] == "recording"
    assert found["recording_a"] == found["recording_b"] == table.loc[row, "recording"]
    assert found["fold_a"] != found["fold_b"]


def test_the_same_bytes_in_two_folds_or_under_two_labels_are_found(
    copied: tuple[pd.DataFrame, Path],
) -> None:
    table, folder = copied
    path = clip(table, "siren")
    shutil.copy(folder / path, folder / "again.wav")
    elsewhere = add(table, path, path="again.wav", fold=2, recording="other")
    (leak,) = records(duplicates.check(elsewhere, folder))
    assert (leak["kind"], leak["leak"], leak["conflict"], leak["score"]) == (
        "identical",
        True,
        False,
        1.0,
    )
    # in the same recording and fold, but under another label
    doubted = add(table, path, path="again.wav", label="dog_bark")
    (conflict,) = records(duplicates.check(doubted, folder))
    assert (conflict["kind"], conflict["leak"], conflict["conflict"]) == ("identical", False, True)
    assert {conflict["label_a"], conflict["label_b"]} == {"siren", "dog_bark"}


def test_a_cut_and_compressed_copy_in_another_fold_is_found(
    copied: tuple[pd.DataFrame, Path],
) -> None:
    import soundfile

    table, folder = copied
    path = clip(table, "street_music")
    sound, rate = soundfile.read(folder / path)
    soundfile.write(folder / "copy.mp3", sound[rate:] / 3, rate)
    copy = add(table, path, path="copy.mp3", fold=3, recording="another")
    (found,) = records(duplicates.check(copy, folder))
    assert (found["kind"], found["leak"]) == ("near-duplicate", True)
    assert {found["path_a"], found["path_b"]} == {path, "copy.mp3"}
    assert abs(found["offset"]) == pytest.approx(1, abs=0.05)


def test_the_summary_counts_leaks_and_conflicting_labels(copied: tuple[pd.DataFrame, Path]) -> None:
    table, folder = copied
    assert duplicates.summary(duplicates.check(table, folder)) == "no leaks between folds"
    path = clip(table, "siren")
    shutil.copy(folder / path, folder / "again.wav")
    copy = add(table, path, path="again.wav", fold=2, recording="other", label="dog_bark")
    found = duplicates.summary(duplicates.check(copy, folder))
    assert found == "1 identical across folds, 1 similar pairs with different labels"


def test_the_command_only_compares_the_clips_unless_it_is_told_to_train(
    generated: tuple[pd.DataFrame, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, folder = generated
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests" / "params.yaml", tmp_path)
    tables.write(paths.CLIPS, table)
    shutil.copytree(folder, paths.AUDIO)
    front_door(["leakcheck"])
    printed = capsys.readouterr().out
    assert "no leaks between folds" in printed
    assert "`leakcheck --training` also measures what a random split would claim" in printed
    assert paths.LEAKS.is_file()
    assert not paths.PROTOCOLS.exists()


def test_shuffled_folds_split_recordings_and_change_nothing_else(
    generated: tuple[pd.DataFrame, Path],
) -> None:
    index, _ = generated
    made = protocols.shuffled(index, seed=1)
    torn = made.assign(recording=index["recording"]).groupby("recording")["fold"].nunique()
    assert (torn > 1).mean() > 0.5
    assert (made["path"] == index["path"]).all()
    assert (made["label"] == index["label"]).all()
    sizes = made.groupby(["label", "fold"]).size()
    assert sizes.groupby("label").agg(np.ptp).max() <= 1
    assert protocols.shuffled(index, seed=1).equals(made)
    assert not protocols.shuffled(index, seed=2).equals(made)


def test_a_random_split_of_recordings_is_refused_outside_the_leak_check(
    generated: tuple[pd.DataFrame, Path],
) -> None:
    index, _ = generated
    torn = protocols.shuffled(index, seed=1).assign(recording=index["recording"])
    with pytest.raises(UserError, match="is in two parts of the split"):
        by_fold(torn, 1)


def test_protocols_are_compared_on_the_same_clips() -> None:
    clips = pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(40)],
            "label": "siren",
            "recording": [f"r{i // 2}" for i in range(40)],
            "seed": 1,
        }
    )
    official = np.where(np.arange(40) % 4 == 0, "horn", "siren")
    claimed = np.where(np.arange(40) % 20 == 0, "horn", "siren")
    table = protocols.compare(
        pd.concat(
            [
                clips.assign(protocol="folds", predicted=official),
                clips.assign(protocol="random", predicted=claimed),
            ]
        ),
        SETTINGS.evaluate,
    )
    assert table["protocol"].tolist() == ["folds", "random"]
    assert table["accuracy"].tolist() == [0.75, 0.95]
    assert table["gain"].tolist() == [0, pytest.approx(0.2)]
    _, random = records(table)
    assert 0 < random["gain_low"] < 0.2 < random["gain_high"]
