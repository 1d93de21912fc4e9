import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.datasets import foley
from pipeline.params import FoleyParams

SMALL = FoleyParams(seed=1, folds=3, recordings=1, slices=1)
SMALL_SHA256 = "a9a736deeeb210598ebb36a3974c7bd7970998e42639ac719979e2bc598017e2"
Rows = list[dict[str, str]]


def rows_of(folder: Path) -> Rows:
    with (folder / "metadata" / "UrbanSound8K.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def clip_of(folder: Path, row: dict[str, str]) -> Path:
    return folder / "audio" / f"fold{row['fold']}" / row["slice_file_name"]


def sha256_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the default: enough for each format that is not rare."""
    folder = tmp_path_factory.mktemp("foley")
    foley.generate(FoleyParams(seed=1, folds=10, recordings=1, slices=3), folder)
    return folder


def test_the_same_seed_gives_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    foley.generate(SMALL, tmp_path)
    assert sha256_of(tmp_path) == SMALL_SHA256


def test_generating_again_in_the_same_folder_changes_nothing(tmp_path: Path) -> None:
    one_class = SMALL.model_copy(update={"folds": 1})
    foley.generate(one_class, tmp_path)
    before = sha256_of(tmp_path)
    foley.generate(one_class, tmp_path)
    assert sha256_of(tmp_path) == before


def test_another_seed_gives_other_sounds(tmp_path: Path) -> None:
    for seed in (1, 2):
        foley.generate(SMALL.model_copy(update={"seed": seed, "folds": 1}), tmp_path / str(seed))
    clips = [{p.read_bytes() for p in (tmp_path / s).rglob("*.wav")} for s in ("1", "2")]
    assert not clips[0] & clips[1]


def test_progress_sees_every_recording(tmp_path: Path) -> None:
    seen: list[foley.Recording] = []

    def progress(recordings: Sequence[foley.Recording]) -> Iterable[foley.Recording]:
        for recording in recordings:
            seen.append(recording)
            yield recording

    foley.generate(SMALL.model_copy(update={"folds": 1}), tmp_path, progress=progress)
    assert [r.label for r in seen] == list(foley.CLASSES)


def test_the_classes_are_those_of_urbansound8k_in_the_order_of_their_ids() -> None:
    assert tuple(sorted(foley.CLASSES)) == foley.CLASSES
    assert len(foley.CLASSES) == 10
    assert (foley.CLASSES[0], foley.CLASSES[9]) == ("air_conditioner", "street_music")


def test_every_file_has_a_row_and_every_row_a_file(dataset: Path) -> None:
    rows = rows_of(dataset)
    assert tuple(rows[0]) == foley.COLUMNS
    files = [p for p in dataset.rglob("*") if p.is_file() and p.suffix != ".csv"]
    assert sorted(files) == sorted(clip_of(dataset, row) for row in rows)


def test_file_names_agree_with_the_columns(dataset: Path) -> None:
    for row in rows_of(dataset):
        fs_id, class_id, occurrence, part = row["slice_file_name"].removesuffix(".wav").split("-")
        assert fs_id == row["fsID"]
        assert class_id == row["classID"]
        assert foley.CLASSES[int(class_id)] == row["class"]
        assert int(occurrence) >= 0
        assert int(part) >= 0


def test_start_and_end_agree_with_the_file_and_slices_do_not_overlap(dataset: Path) -> None:
    last: dict[str, float] = {}
    for row in rows_of(dataset):
        start, end = float(row["start"]), float(row["end"])
        seconds = soundfile.info(clip_of(dataset, row)).duration
        assert end - start == pytest.approx(seconds, abs=2e-6)
        assert start >= last.get(row["fsID"], 0.0)
        last[row["fsID"]] = end


def test_no_recording_stands_in_two_folds(dataset: Path) -> None:
    pairs = {(row["fsID"], row["fold"]) for row in rows_of(dataset)}
    assert len(pairs) == len({fs_id for fs_id, _ in pairs})


def test_every_fold_has_the_same_number_of_recordings_of_every_class(tmp_path: Path) -> None:
    foley.generate(FoleyParams(seed=3, folds=3, recordings=2, slices=2), tmp_path)
    recordings = {(row["fold"], row["class"], row["fsID"]) for row in rows_of(tmp_path)}
    counts = Counter((fold, label) for fold, label, _ in recordings)
    assert counts == {(str(f), c): 2 for f in (1, 2, 3) for c in foley.CLASSES}


def test_recordings_have_one_to_the_promised_number_of_slices(dataset: Path) -> None:
    assert set(Counter(row["fsID"] for row in rows_of(dataset)).values()) == {1, 2, 3}


def test_slices_share_their_recordings_format(dataset: Path) -> None:
    formats: dict[str, set[tuple[int, int, str]]] = {}
    for row in rows_of(dataset):
        info = soundfile.info(clip_of(dataset, row))
        formats.setdefault(row["fsID"], set()).add((info.samplerate, info.channels, info.subtype))
    assert all(len(kinds) == 1 for kinds in formats.values())


def test_formats_are_spread_as_in_urbansound8k(dataset: Path) -> None:
    infos = [soundfile.info(clip_of(dataset, row)) for row in rows_of(dataset)]
    rates = Counter(info.samplerate for info in infos)
    assert set(rates) <= set(foley.RATES)
    assert len(rates) >= 8
    assert [rate for rate, _ in rates.most_common(2)] == [44100, 48000]
    assert 0.4 < sum(info.channels == 2 for info in infos) / len(infos) < 0.8
    depths = Counter(info.subtype for info in infos)
    assert set(depths) >= {"PCM_16", "PCM_24", "PCM_U8", "FLOAT"}
    assert [depth for depth, _ in depths.most_common(2)] == ["PCM_16", "PCM_24"]


def test_most_clips_last_four_seconds_and_some_a_fraction_of_one(dataset: Path) -> None:
    seconds = np.array([soundfile.info(clip_of(dataset, row)).duration for row in rows_of(dataset)])
    assert seconds.max() == 4.0
    assert 0.05 <= seconds.min() < 0.3
    assert np.mean(seconds == 4.0) > 0.7
    assert 3.3 < seconds.mean() < 3.9


def test_no_clip_is_silent_and_none_is_constant_or_out_of_range(dataset: Path) -> None:
    for row in rows_of(dataset):
        samples, _ = soundfile.read(clip_of(dataset, row), always_2d=True)
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 1.0
        assert (np.sqrt(np.mean(samples**2, axis=0)) > 0.002).all(), row["slice_file_name"]
        assert (samples.std(axis=0) > 0.002).all(), row["slice_file_name"]


def test_targets_stand_in_the_foreground_and_in_the_background(dataset: Path) -> None:
    salience = Counter(row["salience"] for row in rows_of(dataset))
    assert set(salience) == {"1", "2"}
    assert salience["1"] > salience["2"]


@pytest.mark.parametrize("label", foley.CLASSES)
def test_slices_of_a_recording_differ_and_recordings_differ_more(label: str) -> None:
    synthesise, n, rate = foley.SYNTHESISERS[label], 16000, 16000.0
    first = synthesise(foley.Dice(1), foley.Dice(10), n, rate)
    again = synthesise(foley.Dice(1), foley.Dice(10), n, rate)
    later = synthesise(foley.Dice(1), foley.Dice(11), n, rate)
    other = synthesise(foley.Dice(2), foley.Dice(10), n, rate)
    assert first.shape == (n,)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("encoding", foley.ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_encoded_samples_are_read_back(encoding: str, channels: int, tmp_path: Path) -> None:
    samples = np.linspace(-1.0, 1.0, 33 * channels).reshape(33, channels)
    path = tmp_path / "clip.wav"
    path.write_bytes(foley._wav(samples, 22050, encoding))
    read, rate = soundfile.read(path, always_2d=True)
    assert rate == 22050
    steps = 128 if encoding == "u8" else 32768
    np.testing.assert_allclose(read, samples, atol=1.5 / steps)


def test_the_own_sine_and_decay_are_near_the_true_ones() -> None:
    phase = np.linspace(-3.0, 3.0, 10001)
    np.testing.assert_allclose(foley._sine(phase), np.sin(2 * np.pi * phase), atol=1e-6)
    x = np.linspace(0.0, 80.0, 1001)
    np.testing.assert_allclose(foley._decay(x), np.exp(-x), atol=0.005)
