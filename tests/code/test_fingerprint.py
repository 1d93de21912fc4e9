"""Fingerprints: copies are found whatever was done to them, other clips of the same class not."""

import io
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.sound import decoding, fingerprint
from pipeline.sound.decoding import Waveform

RATE = 44_100

FORMANTS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
)
"""Frequencies in Hz of the vowels of father, see, boot, bed and law (Peterson and Barney, 1952)."""

WORDS = ((0,), (1, 2), (3, 0), (4, 1), (2,))
"""Words by the vowels that they consist of."""


@pytest.fixture(scope="session")
def clips(esc10: Path) -> list[Waveform]:
    """Every eighth of the real clips but one, which shares two seconds with another."""
    files = [f for f in sorted(esc10.glob("*/*.ogg"))[::8] if f.stem != "5-151085-A"]
    return [decoding.load(file, RATE) for file in files]


def marks(waveform: Waveform, encoding: str = "WAV FLOAT", rate: int = RATE) -> np.ndarray:
    """Landmarks of a clip that was written as a file and read again."""
    import soxr

    kind, subtype = encoding.split()
    file = io.BytesIO()
    wave = waveform if rate == RATE else soxr.resample(waveform, RATE, rate)
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return fingerprint.landmarks(decoding.load(file.getvalue(), fingerprint.SAMPLE_RATE))


def spoken(vowels: tuple[int, ...], rng: np.random.Generator) -> Waveform:
    """One of many people saying a word: another pitch, vocal tract and pace each time."""
    from scipy.signal import lfilter

    pitch, tract = rng.uniform(90, 220), rng.uniform(0.9, 1.15)
    size = int(8_000 * rng.uniform(0.16, 0.2))
    total = size * len(vowels)
    unsteady = 0.03 * np.cumsum(rng.standard_normal(total)) / np.sqrt(total)
    melody = pitch * (1 + unsteady + 0.04 * np.linspace(1, -1, total))
    pulses = np.diff(np.floor(np.cumsum(melody) / 8_000), prepend=0)
    source = pulses + 0.02 * rng.standard_normal(total)
    parts = []
    for number, vowel in enumerate(vowels):
        part = source[number * size : (number + 1) * size]
        for formant, width in zip(FORMANTS[vowel], (60, 80, 120), strict=True):
            frequency = formant * tract * rng.uniform(0.98, 1.02)
            radius = np.exp(-np.pi * width / 8_000)
            turn = -2 * radius * np.cos(2 * np.pi * frequency / 8_000)
            part = lfilter([1 - radius], [1, turn, radius**2], part)
        parts.append(part)
    wave = np.concatenate(parts)
    return np.asarray(wave / np.abs(wave).max() / 2, np.float32)


def noisy(waveform: Waveform) -> Waveform:
    # each clip its own noise: the same one would be a sound that they have in common
    rng = np.random.default_rng(zlib.crc32(waveform.tobytes()))
    noise = rng.standard_normal(waveform.size, np.float32)
    return np.asarray(waveform + noise * waveform.std() / 10, np.float32)


@pytest.mark.parametrize(
    "copy",
    [
        lambda clip: marks(clip, "MP3 MPEG_LAYER_III"),
        lambda clip: marks(clip, "OGG VORBIS", 22_050),
        lambda clip: marks(clip, "WAV PCM_16", 16_000),
        lambda clip: marks(clip / 20, "WAV PCM_16"),
        lambda clip: marks(noisy(clip)),
    ],
    ids=["mp3", "ogg at 22 kHz", "16 kHz", "quieter", "noise 20 dB below"],
)
def test_a_copy_is_found_among_all_and_only_the_copy(
    clips: list[Waveform], copy: Callable[[Waveform], np.ndarray]
) -> None:
    both = [marks(clip) for clip in clips] + [copy(clip) for clip in clips]
    table = fingerprint.matches(both)
    same = table[table["same"]]
    assert (same["b"] - same["a"] == len(clips)).all()
    assert len(same) >= 0.98 * len(clips)
    assert (same["offset"].abs() < 0.02).all()


def test_clips_that_overlap_are_found_with_the_time_between_them(clips: list[Waveform]) -> None:
    steady = [clip for clip in clips if np.abs(clip[-RATE:]).max() > 0.01]
    assert len(steady) > 20
    both = [marks(clip) for clip in steady] + [marks(clip[2 * RATE :]) for clip in steady]
    table = fingerprint.matches(both)
    same = table[table["same"]]
    assert (same["b"] - same["a"] == len(steady)).all()
    assert len(same) >= 0.95 * len(steady)
    # repeated sounds, such as a clock's, also agree a tick earlier or later
    assert ((same["offset"] - 2).abs() < 0.02).mean() > 0.9


def test_short_clips_of_different_people_with_the_same_words_are_different() -> None:
    rng = np.random.default_rng(3)
    said = [spoken(vowels, rng) for _ in range(60) for vowels in WORDS]
    table = fingerprint.matches([fingerprint.landmarks(clip) for clip in said])
    assert (table["score"] >= fingerprint.SHARE).sum() > 3  # so a share alone is not enough
    assert not table["same"].any()


def test_copies_of_short_clips_are_found() -> None:
    rng = np.random.default_rng(2)
    said = [spoken(vowels, rng) for _ in range(20) for vowels in WORDS]
    copies = []
    for clip in said:
        file = io.BytesIO()
        soundfile.write(file, clip, fingerprint.SAMPLE_RATE, format="OGG", subtype="VORBIS")
        copies.append(decoding.load(file.getvalue(), fingerprint.SAMPLE_RATE))
    table = fingerprint.matches([fingerprint.landmarks(clip) for clip in said + copies])
    same = table[table["same"]]
    assert (same["b"] - same["a"] == len(said)).all()
    assert len(same) >= 0.9 * len(said)


def test_the_two_recordings_of_esc10_with_the_same_cry_are_found(esc10: Path) -> None:
    names = ("3-151080-A", "5-151085-A", "5-198411-A", "3-152007-A")
    found = fingerprint.matches(
        [
            fingerprint.landmarks(
                decoding.load(esc10 / "004 - Baby cry" / f"{name}.ogg", fingerprint.SAMPLE_RATE)
            )
            for name in names
        ]
    )
    same = found[found["same"]]
    assert same[["a", "b"]].to_numpy().tolist() == [[0, 1]]
    assert same["offset"].iloc[0] == pytest.approx(0.53, abs=0.02)


def test_many_blocks_give_what_one_block_gives(
    clips: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [marks(clip) for clip in clips[:12]] + [marks(noisy(clip)) for clip in clips[:12]]
    whole = fingerprint.matches(both)
    monkeypatch.setattr(fingerprint, "BLOCK", 1_000)
    assert fingerprint.matches(both).equals(whole)


@pytest.mark.parametrize("samples", [0, 1, 100, 8_000])
def test_silence_and_stumps_have_no_landmarks_and_match_nothing(samples: int) -> None:
    empty = fingerprint.landmarks(np.zeros(samples, np.float32))
    assert empty.shape == (0, 2)
    assert fingerprint.matches([empty, empty]).empty


def test_no_clips_have_no_matches() -> None:
    assert fingerprint.matches([]).empty


def test_partners_come_after_their_peak_and_within_reach(clips: list[Waveform]) -> None:
    found = marks(clips[0])
    assert len(found) > fingerprint.FEWEST
    ahead = found[:, 0] & 0xFF
    assert ((ahead > 0) & (ahead <= fingerprint.REACH)).all()
    assert all(a.tolist() != b.tolist() for a, b in pairwise(found))
