"""The download stage keeps usable clips, lists the others, and stops when it should."""

import dataclasses
import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from ruamel.yaml import YAML

from pipeline import paths, tables
from pipeline.data import datasets, prepare
from pipeline.data.datasets import Archive, foley
from pipeline.errors import UserError
from pipeline.sound import decoding
from pipeline.stages import download
from tests.no_sound import NO_SOUND, SOUND, wav

PARAMS = Path(__file__).parents[1] / "params.yaml"

Setup = Callable[..., None]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Write ``params.yaml`` with a changed ``dataset`` section into an empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def write(others: dict[str, Any] | None = None, **changes: Any) -> None:
        yaml = YAML(typ="safe")
        values = yaml.load(PARAMS.read_text(encoding="utf-8"))
        values["dataset"] |= {"name": "folder", **changes}
        values["dataset"]["foley"] |= {"folds": 3, "recordings": 1, "slices": 2}
        values["dataset"]["folder"] |= {"folds": 3}
        for key, value in (others or {}).items():
            *parents, last = key.split(".")
            section = values
            for parent in parents:
                section = section[parent]
            section[last] = value
        with paths.PARAMS.open("w", encoding="utf-8") as file:
            yaml.dump(values, file)

    return write


def record(path: Path, seconds: float = 0.2, level: float = 0.5, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).uniform(
        -level, level, int(seconds * rate)
    )
    soundfile.write(path, noise, rate)


def own(root: Path, recordings: int = 20) -> Path:
    for label in ("cat", "dog"):
        for recording in range(recordings):
            record(root / label / f"{recording}.wav")
    return root


def outputs() -> dict[str, bytes]:
    """Every output of the stage, by name."""
    files = [p for p in Path("data").rglob("*") if p.is_file()]
    return {str(p): p.read_bytes() for p in sorted(files) if paths.DOWNLOADS not in (p, *p.parents)}


def card() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    return values


def rejected() -> dict[str, str]:
    """The reason of every clip that cannot be used."""
    table = tables.read(paths.REJECTED)
    table = table[table["kind"] == "clip"]
    return dict(zip(table["path"], table["reason"], strict=True))


def others() -> dict[str, str]:
    """The reason of every other file that is not used."""
    table = tables.read(paths.REJECTED)
    table = table[table["kind"] == "other"]
    return dict(zip(table["path"], table["reason"], strict=True))


def test_foley_is_generated_once_and_gives_the_same_bytes_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup(name="foley")
    line = download.main()
    assert line.startswith("foley: ")
    assert "10 classes in 3 folds (30 recordings" in line
    assert line.splitlines()[0].endswith(", 0 rejected, 1 other file")
    assert others() == {"metadata/UrbanSound8K.csv": "This is not a sound file."}
    first = outputs()
    assert card()["source"] == "generated"
    assert str(Path.cwd()) not in str(first)

    monkeypatch.setattr(foley, "generate", lambda *_: pytest.fail("generated twice"))
    assert download.main() == line
    assert outputs() == first


def test_foley_that_was_interrupted_is_generated_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object, folder: Path, __: object) -> None:
        record(folder / "audio/fold1/half.wav")
        raise KeyboardInterrupt

    setup(name="foley")
    with monkeypatch.context() as patched:
        patched.setattr(foley, "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download.main()
    download.main()
    assert not list(Path("data").rglob("half.wav"))


def test_the_real_esc10_goes_through(setup: Setup, esc10: Path) -> None:
    setup(name="esc10", source=str(esc10))
    line = download.main()
    assert line.removeprefix(f"esc10 from {esc10}: ") == (
        "400 clips of 10 classes in 5 folds (304 recordings, 0.6 h), 0 rejected, 2 other files"
    )
    clips = pd.read_csv(paths.CLIPS, dtype={"recording": str})
    assert list(clips.columns) == [
        *("path", "label", "fold", "recording", "salience"),
        *("seconds", "sample_rate", "channels", "subtype"),
    ]
    assert clips["path"].is_monotonic_increasing
    assert clips["sample_rate"].eq(44_100).all()
    assert clips["seconds"].between(3.6, 7.3).all()  # "5 s" is not quite so
    here = sorted(p.relative_to(paths.AUDIO).as_posix() for p in paths.AUDIO.rglob("*.*"))
    assert here == clips["path"].tolist()
    assert card()["sha256"] == datasets.get("esc10").content
    assert (card()["source"], card()["as_published"]) == ("local", True)
    assert json.loads(paths.SUMMARY.read_text())["clips"] == 400
    assert paths.SUMMARY_PLOT.read_bytes().startswith(b"\x89PNG")
    assert str(esc10) not in str([p for n, p in outputs().items() if not n.endswith(".ogg")])


def test_a_local_copy_that_differs_from_the_published_clips_is_recorded_and_used(
    setup: Setup, tmp_path: Path
) -> None:
    for fold in (1, 2, 3):
        record(tmp_path / f"copy/001 - Dog bark/{fold}-1{fold}-A.ogg")
        record(tmp_path / f"copy/002 - Rain/{fold}-2{fold}-A.ogg")
    setup(name="esc10", source=str(tmp_path / "copy"))
    assert ": 6 clips of 2 classes in 3 folds (6 recordings" in download.main()
    assert (card()["source"], card()["as_published"]) == ("local", False)


def test_a_published_archive_is_fetched_unpacked_and_checked(
    setup: Setup, esc10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "esc"), "zip", esc10.parent, esc10.name))
    published = Archive(archive.as_uri(), "esc.zip", None)
    there = dataclasses.replace(datasets.get("esc10"), archive=published)
    monkeypatch.setitem(datasets.DATASETS, "esc10", there)
    setup(name="esc10")
    assert download.main().startswith("esc10: 400 clips")
    assert (card()["source"], card()["as_published"]) == ("published", True)


def test_a_published_archive_whose_clips_differ_is_refused(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "esc.zip", "w") as out:
        for fold in (1, 2, 3):
            out.writestr(f"ESC-10/001 - Dog bark/{fold}-1{fold}-A.ogg", b"")
            out.writestr(f"ESC-10/002 - Rain/{fold}-2{fold}-A.ogg", b"")
    elsewhere = Archive((tmp_path / "esc.zip").as_uri(), "esc.zip", None)
    changed = dataclasses.replace(datasets.get("esc10"), archive=elsewhere)
    monkeypatch.setitem(datasets.DATASETS, "esc10", changed)
    setup(name="esc10")
    with pytest.raises(UserError, match="not those that were published"):
        download.main()


def test_the_label_of_a_clip_that_cannot_be_used_does_not_count_as_corrected(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    (sounds / "dog/text.wav").write_text("not a sound")
    paths.CORRECTIONS.write_text(
        "dataset,path,label\nfolder,dog/text.wav,cat\nfolder,dog/0.wav,cat\n"
    )
    setup(max_rejected=0.2)
    download.main()
    assert rejected().keys() == {"dog/text.wav"}
    assert card()["relabelled"] == 1


def test_unusable_clips_are_left_out_and_listed_with_the_reason(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    whole = (sounds / "dog/0.wav").read_bytes()
    (sounds / "dog/cut.wav").write_bytes(whole[:30])
    (sounds / "dog/text.wav").write_text("not a sound")
    (sounds / "dog/nothing.wav").touch()
    record(sounds / "dog/header.wav", seconds=0)
    record(sounds / "dog/silent.wav", level=0)
    record(sounds / "dog/nearly.wav", level=0.00005)
    record(sounds / "stray.wav")
    (sounds / "clips.csv").write_text("path,label\ndog/gone.wav,dog\n")
    (sounds / "README.md").touch()
    setup(max_rejected=0.2)
    assert (
        ", 8 rejected (1 missing), 2 other files; each file counts as its own recording"
        in download.main()
    )
    reasons = {
        "dog/cut.wav": "not audio",
        "dog/text.wav": "not audio",
        "dog/nothing.wav": "empty",
        "dog/header.wav": "no samples",
        "dog/silent.wav": "silent",
        "dog/nearly.wav": "silent",
        "dog/gone.wav": "missing",
        "stray.wav": "no label",
    }
    found = rejected()
    assert found.keys() == reasons.keys()
    for path, reason in reasons.items():
        assert reason in found[path]
    kept = {p.relative_to(paths.AUDIO).as_posix() for p in paths.AUDIO.rglob("*.wav")}
    assert kept == set(pd.read_csv(paths.CLIPS)["path"])
    assert len(kept) == 40
    assert not kept & found.keys()


def test_clips_without_sound_are_left_out_with_the_reason(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    for name, (wave, _) in NO_SOUND.items():
        (sounds / f"dog/{name}.wav").write_bytes(wav(wave))
    for name, wave in SOUND.items():
        (sounds / f"dog/{name}.wav").write_bytes(wav(wave))
    setup(max_rejected=0.5)
    download.main()
    assert rejected() == {f"dog/{name}.wav": reason for name, (_, reason) in NO_SOUND.items()}
    setup({"features.min_seconds": 0.0}, max_rejected=0.5)
    download.main()
    assert "dog/10 ms.wav" not in rejected()


SPEAKERS = ("anna", "ben", "carl", "dora", "eva", "finn")


def spoken() -> None:
    for label in ("yes", "no"):
        for speaker in SPEAKERS:
            for take in range(2):
                record(paths.SOUNDS / f"{label}/{label}_{speaker}_{take}.wav")


def test_names_that_show_speakers_are_pointed_out_until_the_user_decides(setup: Setup) -> None:
    spoken()
    setup()
    first, second = download.main().splitlines()
    assert first.endswith(
        "(24 recordings, 0.0 h), 0 rejected; each file counts as its own recording"
    )
    assert "'anna' is in no/no_anna_0.wav and yes/yes_anna_0.wav" in second
    assert "dvc exp run -S 'dataset.folder.group=\"" in second
    assert card()["grouped_by"] == "file"

    setup({"dataset.folder.group": "file"})
    assert download.main() == first


def test_two_identical_files_do_not_hide_that_names_show_speakers(setup: Setup) -> None:
    spoken()
    shutil.copy(paths.SOUNDS / "yes/yes_eva_0.wav", paths.SOUNDS / "yes/yes_eva_2.wav")
    setup()
    line = download.main()
    assert "each file counts as its own recording" in line
    assert "'anna' is in " in line


def test_the_closing_line_says_what_clips_are_grouped_by(setup: Setup) -> None:
    spoken()
    setup({"dataset.folder.group": "_(?P<speaker>[a-z]+)_"})
    first, second = download.main().splitlines()
    assert first.endswith("(6 recordings, 0.0 h), 0 rejected; clips grouped by speaker: 6 groups")
    assert second == "  Record more of every class: each has fewer than 10 groups."
    assert card()["grouped_by"] == "speaker"
    assert set(pd.read_csv(paths.CLIPS)["recording"]) == set(SPEAKERS)


def test_a_class_too_small_to_be_judged_is_named(setup: Setup) -> None:
    sounds = own(paths.SOUNDS, recordings=12)
    for number in range(4, 12):
        (sounds / f"dog/{number}.wav").unlink()
    setup()
    assert download.main().splitlines()[1:] == [
        "  Record more of dog: it has fewer than 10 recordings."
    ]


def test_every_file_below_the_folder_is_used_or_listed_and_the_numbers_add_up(
    setup: Setup,
) -> None:
    sounds = own(paths.SOUNDS)
    sound = (sounds / "dog/0.wav").read_bytes()
    names = {
        "dog/no ending": None,
        "dog/clip.WAVE": None,
        "dog/clip.dat": None,
        "dog/field.bwf": None,
        "dog/unfinished.wav.part": "The name is that of a backup or of an unfinished download.",
        "dog/old.wav.bak": "The name is that of a backup or of an unfinished download.",
        "dog/.hidden.wav": "The file is hidden.",
        "dog/.cache/1.wav": "The file is hidden.",
        ".DS_Store": "The file is hidden.",
        "__MACOSX/dog/._1.wav": "The file is hidden.",
    }
    for number, name in enumerate(names):
        (sounds / name).parent.mkdir(parents=True, exist_ok=True)
        # each a sound of its own: identical files would be one recording
        (sounds / name).write_bytes(sound[:-1] + bytes([number]))
    for name in ("Thumbs.db", "dog/desktop.ini", "dog/notes.txt", "README.md", "picture.jpg"):
        (sounds / name).write_bytes(b"\xff\xd8\xff\xe0 no sound")
        names[name] = "This is not a sound file."
    (sounds / "clips.csv").write_text("path,label\n")
    names["clips.csv"] = "This is not a sound file."
    (sounds / "dog/nowhere.wav").symlink_to("gone.wav")
    (sounds / "dog/itself.wav").symlink_to("itself.wav")
    names |= dict.fromkeys(("dog/nowhere.wav", "dog/itself.wav"), "The link leads nowhere.")
    (sounds / "dog/circle").symlink_to("..")
    (sounds / "dog/.link").symlink_to("..")
    names["dog/circle"] = "The link leads to a folder that is already read."
    names["dog/.link"] = "The link is hidden."
    os.mkfifo(sounds / "dog/pipe.wav")
    names["dog/pipe.wav"] = "This is not a regular file."
    paths.CORRECTIONS.write_text("dataset,path,label\nfolder,dog/1.wav,\n")
    names["dog/1.wav"] = "labels.csv drops the clip."
    setup(max_rejected=0.0)

    assert ", 0 rejected, 18 other files; " in download.main()
    assert rejected() == {}
    assert others() == {name: reason for name, reason in names.items() if reason}
    used = set(tables.read(paths.CLIPS)["path"])
    assert {name for name, reason in names.items() if not reason} < used
    numbers = tables.read_json(paths.SUMMARY)
    assert (numbers["clips"], numbers["other_files"], numbers["files"]) == (43, 18, 61)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"latin\xfcber.wav", "dog/latin\\xfcber.wav"),
        (b"two\rlines\n.wav", "dog/two\\rlines\\n.wav"),
        ("größe\x1b🎵.wav".encode(), "dog/größe\\x1b🎵.wav"),
    ],
)
def test_a_file_whose_name_no_table_can_hold_is_listed_and_left_out(
    name: bytes, shown: str, setup: Setup
) -> None:
    sounds = own(paths.SOUNDS)
    file = sounds / "dog" / os.fsdecode(name)
    file.write_bytes((sounds / "dog/0.wav").read_bytes())
    (sounds / os.fsdecode(b"\xff.txt")).touch()
    setup(max_rejected=0.03)
    assert ": 40 clips of" in download.main()
    assert rejected() == {
        shown: "The file name is not UTF-8 or contains a control character: rename the file."
    }
    assert others() == {"\\xff.txt": "This is not a sound file."}
    setup(max_rejected=0.02)
    with pytest.raises(UserError, match="stopped after 1 of 41 clips: 1 cannot be used"):
        download.main()


def test_a_sound_with_two_labels_is_rejected_under_both(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    shutil.copy(sounds / "dog/1.wav", sounds / "cat/copy.wav")
    samples, rate = soundfile.read(sounds / "dog/2.wav", dtype="int16", always_2d=True)
    # another format and two equal channels, but the same sound
    soundfile.write(sounds / "dog/copy.flac", np.repeat(samples[:, :1], 2, axis=1), rate)
    setup(max_rejected=0.1)
    line = download.main()
    assert ": 40 clips of" in line
    assert "dog/copy.flac holds the same sound as dog/2.wav, so both count as one recording" in line
    end = "delete the wrong one."
    assert rejected() == {
        "cat/copy.wav": f"The same sound is there as dog/1.wav, with the label dog: {end}",
        "dog/1.wav": f"The same sound is there as cat/copy.wav, with the label cat: {end}",
    }
    clips = tables.read(paths.CLIPS)
    of_copies = clips["recording"][clips["path"].isin(["dog/2.wav", "dog/copy.flac"])]
    assert list(of_copies) == ["dog/2.wav"] * 2

    paths.CORRECTIONS.write_text("dataset,path,label\nfolder,cat/copy.wav,dog\n")
    assert ": 42 clips of" in download.main()


def test_too_many_bad_clips_stop_the_check_as_soon_as_it_is_certain(setup: Setup) -> None:
    sounds = own(paths.SOUNDS, recordings=30)
    for number in range(10, 20):
        (sounds / f"cat/{number}.wav").write_bytes(b"")
    setup(max_rejected=0.05)
    sentence = (
        r"^Checking stopped after 6 of 60 clips: 4 cannot be used, more than dataset\.max_rejected"
        r" = 0\.05 allows: see the reasons in data/rejected\.csv, then fix"
    )
    with pytest.raises(UserError, match=sentence):
        download.main()
    assert len(rejected()) == 4


def test_a_missing_file_is_counted_as_missing_even_if_it_has_no_label(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    (sounds / "clips.csv").write_text("path,note\ncat/1.wav,loud\ncat/gone.wav,lost\n")
    setup()
    assert "1 rejected (1 missing), 1 other file;" in download.main()
    assert tables.read_json(paths.SUMMARY)["files"] == 41  # 40 clips and the table


def test_a_column_of_the_table_that_may_name_groups_is_pointed_out(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    rows = [f"{label}/{n}.wav,{'abc'[n % 3]}" for label in ("cat", "dog") for n in range(20)]
    (sounds / "clips.csv").write_text("\n".join(["path,speaker", *rows]))
    setup()
    assert "column speaker, which is not used: if clips with the same speaker" in download.main()


def test_notes_of_decoders_do_not_reach_the_terminal_but_python_does(
    setup: Setup, capfd: pytest.CaptureFixture[str]
) -> None:
    sounds = own(paths.SOUNDS)
    for number in range(20):
        record(sounds / f"dog/{number}.mp3", seconds=1.0)
        damaged = bytearray((sounds / f"dog/{number}.mp3").read_bytes())
        damaged[2000:2400] = bytes(400)
        (sounds / f"dog/{number}.mp3").write_bytes(damaged)
    setup(max_rejected=1.0)
    decoding.load(sounds / "dog/1.mp3", 8000)
    assert "Note: Skipped" in capfd.readouterr().err
    download.main()
    assert not capfd.readouterr().err
    with decoding.muted():
        print("Python", file=sys.stderr)
        os.write(2, b"native")
    os.write(2, b"later")
    assert capfd.readouterr().err == "Python\nlater"


def test_too_many_bad_clips_stop_the_stage_after_the_list_is_written(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    for number in range(3):
        (sounds / f"dog/bad{number}.wav").touch()
    setup(max_rejected=0.05)
    with pytest.raises(UserError, match=r"3 of 43 .* dataset\.max_rejected .* data/rejected\.csv"):
        download.main()
    assert len(rejected()) == 3
    assert not paths.CLIPS.exists()


def test_a_label_that_loses_its_clips_stops_the_stage(setup: Setup) -> None:
    sounds = own(paths.SOUNDS, recordings=3)
    for number in range(3):
        (sounds / f"dog/{number}.wav").write_bytes(b"")
    setup(max_rejected=1.0)
    with pytest.raises(UserError, match="The only label is cat"):
        download.main()


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            {"split.test_fold": 99},
            r"split\.test_fold is 99: the dataset's folds are 1, 2, 3\.",
        ),
        (
            {"features.seconds": 0.01},
            r"n_fft is 1024, longer than the window of 220 samples \(0\.01 s\): lower it, or raise",
        ),
        ({"features.logmel.fmax": 20_000.0}, r"logmel\.fmax is 20000 Hz, above half of features\."),
        ({"features.logmel.n_mels": 512}, r"n_mels is 512, and \d+ of the bands contain no freq"),
        (
            {"features.seconds": 0.5, "train.network": "fcn"},
            r"train\.network is fcn, which needs at least 23 bands x 78 frames, but .* 64 x 22:",
        ),
        (
            {"features.kind": "mfcc", "features.mfcc.n_mfcc": 7, "train.network": "fcn"},
            r"needs at least 23 bands x 78 frames, but the features have 21 x",
        ),
    ],
)
def test_settings_that_a_later_stage_cannot_use_stop_the_first_one_before_it_decodes(
    others: dict[str, Any],
    sentence: str,
    setup: Setup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own(paths.SOUNDS, recordings=3)
    monkeypatch.setattr(prepare, "measure", lambda *_: pytest.fail("decoded"))
    setup(others)
    with pytest.raises(UserError, match=sentence):
        download.main()


def test_a_test_fold_that_loses_all_its_clips_stops_the_stage(setup: Setup) -> None:
    for fold in range(1, 5):
        for label in ("cat", "dog"):
            record(paths.SOUNDS / label / f"fold{fold}.wav", level=0 if fold == 4 else 0.5)
    pattern = r"fold(?P<fold>\d)"
    setup({"split.test_fold": 4, "dataset.folder.pattern": pattern}, max_rejected=1.0)
    with pytest.raises(UserError, match="test_fold is 4: the dataset's folds are 1, 2, 3"):
        download.main()
    assert not paths.CLIPS.exists()


def test_a_window_that_only_the_clips_decide_is_checked_once_they_are_known(setup: Setup) -> None:
    own(paths.SOUNDS, recordings=3)  # so short that the window is 1 s, where 10 s were possible
    setup({"features.sample_rate": 16_000, "features.stft.n_fft": 16384, "features.kind": "stft"})
    paths.AUDIO.mkdir(parents=True)
    with pytest.raises(UserError, match=r"16384, longer than the window of 16000 samples \(1 s\)"):
        download.main()
    assert not paths.CLIPS.exists()


@pytest.mark.parametrize(
    ("seconds", "usual"),
    [([0.2] * 10, 1.0), ([2.0] * 10, 2.0), ([5.04] * 9 + [60.0], 5.1), ([30.0] * 10, 10.0)],
)
def test_the_window_for_your_own_clips_is_as_long_as_most_of_them(
    seconds: list[float], usual: float
) -> None:
    numbers = pd.Series([*seconds, *seconds])
    assert prepare.usual_seconds(numbers) == pytest.approx(usual)


def test_the_card_of_your_own_clips_has_their_length(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    for file in sounds.rglob("*.wav"):
        record(file, seconds=2.3)
    setup()
    download.main()
    assert json.loads(paths.DATASET.read_text())["clip_seconds"] == 2.3


def test_clips_of_an_earlier_run_are_removed(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    setup()
    download.main()
    (sounds / "dog/1.wav").unlink()
    assert download.main().startswith("folder from sounds: 39 clips")
    assert not (paths.AUDIO / "dog/1.wav").exists()


def test_a_copy_that_is_interrupted_does_not_count_as_the_dataset(setup: Setup) -> None:
    setup()
    sounds = own(paths.SOUNDS)
    prepare.copy_clips(sounds, ["dog/1.wav"])
    with pytest.raises(FileNotFoundError):
        prepare.copy_clips(sounds, ["dog/1.wav", "dog/2.wav", "dog/missing.wav"])
    assert not paths.AUDIO.exists()
    prepare.copy_clips(sounds, ["dog/3.wav"])
    assert [file.name for file in Path("data").rglob("*.wav")] == ["3.wav"]


def test_your_own_clips_are_copied_and_not_linked(setup: Setup) -> None:
    sounds = own(paths.SOUNDS)
    setup()
    download.main()
    before = (paths.AUDIO / "dog/1.wav").read_bytes()
    record(sounds / "dog/1.wav", seconds=0.5)
    assert (paths.AUDIO / "dog/1.wav").read_bytes() == before


@pytest.mark.parametrize("as_url", [False, True])
def test_an_archive_is_a_source(as_url: bool, setup: Setup, tmp_path: Path) -> None:
    root = own(tmp_path / "mine")
    archive = Path(shutil.make_archive(str(tmp_path / "mine"), "gztar", tmp_path, root.name))
    setup(source=archive.as_uri() if as_url else str(archive))
    assert ": 40 clips of 2 classes in 3 folds" in download.main()
    clip = paths.AUDIO / "dog/1.wav"
    assert clip.stat().st_nlink == 2  # the same file as the unpacked one
    assert card()["source"] == "local"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "sounds is missing: make it with one sub-folder per label, or correct dataset.source"),
        ({"source": "empty"}, "no labelled clips in empty: make one sub-folder per label"),
        ({"source": "none.zip"}, "none.zip is missing"),
        ({"source": "s3://bucket/sounds.zip"}, "dataset.source cannot be a s3 address"),
        ({"source": "http://127.0.0.1:9/a.zip"}, "cannot be reached"),
        ({"source": "note.zip"}, "note.zip cannot be unpacked"),
        ({"source": "note.zip", "sha256": "0" * 64}, "note.zip does not match dataset.sha256"),
        ({"source": "empty", "sha256": "0" * 64}, "is for an archive"),
        ({"source": "."}, "must be neither data/audio nor a folder inside or around it"),
        (
            {"source": "data/audio/dog"},
            "must be neither data/audio nor a folder inside or around it",
        ),
        ({"source": "one"}, "The only label is dog"),
        ({"source": "one/dog/1.wav"}, "1.wav, a sound file: name the folder with one sub-folder"),
        ({"name": "urbansound8k", "source": "one"}, "metadata/UrbanSound8K.csv is missing"),
    ],
)
def test_a_wrong_source_is_one_sentence(
    changes: dict[str, str], sentence: str, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.fetch.BACKOFF", 0.0)
    setup(**changes)
    Path("empty").mkdir()
    Path("note.zip").write_text("not an archive")
    record(Path("one/dog/1.wav"))
    record(paths.AUDIO / "dog/1.wav")
    with pytest.raises(UserError, match=sentence):
        download.main()
    assert (paths.AUDIO / "dog/1.wav").exists()
