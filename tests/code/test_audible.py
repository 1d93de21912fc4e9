"""A clip without sound is refused with the reason, and nothing that holds a sound is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.sound import audible, decoding
from tests.no_sound import NO_SOUND, NOISE, RATE, SOUND, wav


@pytest.mark.parametrize("name", NO_SOUND)
def test_a_clip_without_sound_is_refused_with_the_reason_by_dataset_and_service_alike(
    name: str,
) -> None:
    wave, sentence = NO_SOUND[name]
    content = wav(wave)
    with pytest.raises(decoding.NoSoundError) as of_dataset:
        decoding.probe(content, 0.05)
    with pytest.raises(decoding.NoSoundError) as of_service:
        decoding.load(content, 22_050, min_seconds=0.05)
    assert str(of_dataset.value) == str(of_service.value) == sentence


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_is_not_refused(name: str) -> None:
    content = wav(SOUND[name])
    decoding.probe(content, 0.05)
    heard = decoding.load(content, 22_050, min_seconds=0.05)
    np.testing.assert_array_equal(heard, decoding.load(content, 22_050))


def test_the_minimum_length_is_a_setting() -> None:
    content = wav(NOISE[: RATE // 10])
    decoding.probe(content, 0.1)
    with pytest.raises(decoding.NoSoundError, match="is 100 ms long, and the minimum is 200 ms"):
        decoding.probe(content, 0.2)
    decoding.probe(wav(NOISE[:10]), 0)


def test_a_window_is_judged_more_mildly_than_a_clip_because_the_clip_is_loud_enough() -> None:
    with pytest.raises(decoding.NoSoundError, match="silent"):
        decoding.probe(wav(NOISE * 1e-4), 0.05)
    assert audible.fault((NOISE * 1e-4).astype(np.float32), RATE, 0.05) is None
    assert audible.fault((NOISE * 1e-6).astype(np.float32), RATE, 0.05) == "is silent"


@settings(deadline=None, max_examples=200)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 400), st.integers(1, 3)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    st.integers(1_000, 200_000),
    st.floats(0, 1),
)
def test_any_samples_hold_a_sound_or_get_a_reason_whatever_the_blocks(
    block: np.ndarray, rate: int, least: float
) -> None:
    whole, parts = audible.Meter(), audible.Meter()
    whole.add(block, rate)
    for part in np.array_split(block, 3):
        if len(part):
            parts.add(part, rate)
    for meter in (whole, parts):
        fault = meter.fault(least)
        assert fault is None or fault.split()[0] in ("is", "contains")
    assert (whole.fault(0) is None) == (parts.fault(0) is None)
