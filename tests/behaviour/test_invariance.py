"""What must not change a prediction, tested from the file's bytes to the network's output.

The clips have the test bundle's three labels, but its network was not trained on them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.serving.classifier import Classifier
from pipeline.sound import decoding
from tests.bundle import LABELS, SECONDS, Wave, sound
from tests.service import evil

RATE = 22_050
CLIPS = st.tuples(st.sampled_from(LABELS), st.integers(2_000, 2_000_000))
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    return Classifier.load(bundle)


def predicted(
    classifier: Classifier,
    wave: NDArray[Any],
    rate: int = RATE,
    kind: str = "WAV",
    subtype: str = "FLOAT",
) -> Wave:
    """Write a waveform to a file and return the probabilities that the model gives it."""
    content = evil.written(kind, subtype, wave, rate)
    return classifier.predict(decoding.load(content, classifier.spec.sample_rate), 1).probabilities


def same(one: Wave, other: Wave, within: float) -> None:
    """Assert the same predicted label and probabilities that differ by at most `within`."""
    assert np.abs(one - other).max() <= within
    assert one.argmax() == other.argmax()


@given(clip=CLIPS)
@FEW
def test_the_label_is_right(classifier: Classifier, clip: tuple[str, int]) -> None:
    # otherwise the other tests would prove nothing
    assert LABELS[int(predicted(classifier, sound(*clip)).argmax())] == clip[0]


@given(clip=CLIPS, channels=st.sampled_from([2, 4, 8, 32]))
@FEW
def test_the_same_sound_on_more_channels_changes_no_bit(
    classifier: Classifier, clip: tuple[str, int], channels: int
) -> None:
    wave = sound(*clip)
    many = np.repeat(wave[:, None], channels, axis=1)
    np.testing.assert_array_equal(predicted(classifier, many), predicted(classifier, wave))


@given(clip=CLIPS, balance=st.floats(0, 1))
@FEW
def test_stereo_balance_changes_almost_nothing(
    classifier: Classifier, clip: tuple[str, int], balance: float
) -> None:
    wave = sound(*clip)
    panned = np.stack([wave * 2 * balance, wave * 2 * (1 - balance)], axis=1).astype(np.float32)
    same(predicted(classifier, panned), predicted(classifier, wave), within=0.001)


@given(clip=CLIPS, decibels=st.floats(-40, 0))
@FEW
def test_gain_changes_almost_nothing(
    classifier: Classifier, clip: tuple[str, int], decibels: float
) -> None:
    assert classifier.spec.kind == "logmel"  # MFCCs depend on the level
    wave = sound(*clip)
    quieter = (wave * 10 ** (decibels / 20)).astype(np.float32)
    same(predicted(classifier, quieter), predicted(classifier, wave), within=0.001)


@given(clip=CLIPS)
@FEW
def test_inverted_polarity_changes_no_bit(classifier: Classifier, clip: tuple[str, int]) -> None:
    wave = sound(*clip)
    np.testing.assert_array_equal(predicted(classifier, -wave), predicted(classifier, wave))


@given(clip=CLIPS, later=st.floats(0, 0.2))
@FEW
def test_starting_slightly_later_changes_little(
    classifier: Classifier, clip: tuple[str, int], later: float
) -> None:
    wave = sound(*clip, seconds=SECONDS + 0.2)
    skipped = round(later * RATE)
    same(predicted(classifier, wave[skipped:]), predicted(classifier, wave), within=0.1)


@given(clip=CLIPS, rate=st.sampled_from([24_000, 32_000, 44_100, 48_000, 96_000, 192_000]))
@FEW
def test_the_sample_rate_of_the_recording_changes_little(
    classifier: Classifier, clip: tuple[str, int], rate: int
) -> None:
    wave = sound(*clip)
    resampled = soxr.resample(wave, RATE, rate, quality="VHQ")
    # the resampler's slope removes the bands just below half the rate
    same(predicted(classifier, resampled, rate), predicted(classifier, wave), within=0.1)


@given(clip=CLIPS)
@FEW
def test_a_lossless_format_changes_no_bit(classifier: Classifier, clip: tuple[str, int]) -> None:
    whole = (sound(*clip) * 32_767).astype(np.int16)
    pcm = predicted(classifier, whole, subtype="PCM_16")
    for kind in ("FLAC", "AIFF", "W64", "CAF"):
        np.testing.assert_array_equal(predicted(classifier, whole, RATE, kind, "PCM_16"), pcm)


@given(clip=CLIPS, form=st.sampled_from([("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "DOUBLE")]))
@FEW
def test_the_bit_depth_changes_little(
    classifier: Classifier, clip: tuple[str, int], form: tuple[str, str]
) -> None:
    wave = sound(*clip)
    same(predicted(classifier, wave, RATE, *form), predicted(classifier, wave), within=0.05)


@given(clip=CLIPS, form=st.sampled_from([("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]))
@FEW
def test_lossy_formats_do_not_change_the_label(
    classifier: Classifier, clip: tuple[str, int], form: tuple[str, str]
) -> None:
    wave = sound(*clip)
    # at most half of full scale, because lossy encoders overshoot
    same(predicted(classifier, wave * 0.5, RATE, *form), predicted(classifier, wave), within=0.3)


@given(clip=CLIPS, seconds=st.floats(0.1, 30))
@FEW
def test_sound_after_the_window_changes_no_bit(
    classifier: Classifier, clip: tuple[str, int], seconds: float
) -> None:
    wave = sound(*clip)
    rest = np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    longer = np.concatenate([wave, rest / 8])
    np.testing.assert_array_equal(predicted(classifier, longer), predicted(classifier, wave))
