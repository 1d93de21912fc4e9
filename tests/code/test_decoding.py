"""The decoder: every format to the same waveform, and nothing but AudioError for the rest."""

import io
from functools import cache
from pathlib import Path

import av
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.sound import decoding

RATE = 48_000


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> NDArray[np.float32]:
    wave: NDArray[np.float32] = np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return (0.5 * wave).astype(np.float32)


def by_libsndfile(kind: str, subtype: str, wave: NDArray[np.float32], rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def by_ffmpeg(container: str, codec: str, wave: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        for start in range(0, len(wave), 1024):
            block = np.ascontiguousarray(wave[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@cache
def samples() -> dict[str, bytes]:
    wave = tone()
    return {
        "wav": by_libsndfile("WAV", "PCM_16", wave),
        "wav 24": by_libsndfile("WAV", "PCM_24", wave),
        "wav float": by_libsndfile("WAV", "FLOAT", wave),
        "aiff": by_libsndfile("AIFF", "PCM_16", wave),
        "flac": by_libsndfile("FLAC", "PCM_16", wave),
        "ogg": by_libsndfile("OGG", "VORBIS", wave),
        "opus": by_libsndfile("OGG", "OPUS", wave),
        "mp3": by_libsndfile("MP3", "MPEG_LAYER_III", wave),
        "m4a": by_ffmpeg("ipod", "aac", wave),
        "webm": by_ffmpeg("webm", "libopus", wave),
    }


FORMATS = {
    "wav": "PCM_16", "wav 24": "PCM_24", "wav float": "FLOAT", "aiff": "PCM_16", "flac": "PCM_16",
    "ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III", "m4a": "AAC", "webm": "OPUS",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "subtype"), FORMATS.items())
def test_every_format_gives_the_tone_that_was_put_in(
    kind: str, subtype: str, tmp_path: Path
) -> None:
    content = samples()[kind]
    wave = decoding.load(content, 22_050)
    info = decoding.probe(content)

    assert wave.dtype == np.float32
    assert wave.ndim == 1
    middle = wave[5000:15000]
    loudest = np.abs(np.fft.rfft(middle * np.hanning(10_000))).argmax() * 22_050 / 10_000
    assert loudest == pytest.approx(440, abs=3)
    assert middle.std() == pytest.approx(0.5 / np.sqrt(2), rel=0.03)
    assert (info.sample_rate, info.channels, info.subtype) == (RATE, 1, subtype)
    assert info.seconds == pytest.approx(1.0, abs=0.1)
    assert info.peak == pytest.approx(0.5, abs=0.3)  # lossy encoders overshoot

    file = tmp_path / "clip"
    file.write_bytes(content)
    np.testing.assert_array_equal(decoding.load(file, 22_050), wave)
    assert decoding.probe(file) == info


def test_channels_are_averaged() -> None:
    wave = tone()
    stereo = np.stack([wave, np.zeros_like(wave)], axis=1)
    content = by_libsndfile("WAV", "FLOAT", stereo)
    np.testing.assert_allclose(decoding.load(content, RATE), wave / 2, atol=1e-7)
    assert decoding.probe(content).peak == pytest.approx(0.5, abs=1e-3)  # the louder channel counts


@pytest.mark.parametrize(
    ("rate", "wanted", "length"),
    [(RATE, RATE, 12_000), (RATE, 22_050, 5513), (8_000, 22_050, 5513), (192_000, 16_000, 4000)],
)
def test_nothing_is_decoded_beyond_the_wanted_seconds(rate: int, wanted: int, length: int) -> None:
    content = by_libsndfile("WAV", "FLOAT", tone(1.0, rate), rate)
    cut = decoding.load(content, wanted, max_seconds=0.25)
    assert abs(len(cut) - length) <= 1
    whole = decoding.load(content, wanted)[: len(cut)]
    np.testing.assert_allclose(cut[:-200], whole[:-200], atol=1e-3)


def test_blocks_are_the_samples_of_the_whole_clip() -> None:
    clip = by_libsndfile("WAV", "PCM_16", tone(12.0))
    blocks = list(decoding.blocks(clip, 22_050))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate(blocks), decoding.load(clip, 22_050))


def test_a_header_that_claims_hours_is_not_believed() -> None:
    content = bytearray(samples()["wav"])
    content[4:8] = content[40:44] = (2**31 - 1).to_bytes(4, "little")
    assert decoding.probe(bytes(content)).seconds == pytest.approx(1.0)
    assert len(decoding.load(bytes(content), RATE)) == RATE


@pytest.mark.parametrize("rate", [1, 64, 2_000_000_000])
def test_a_rate_that_would_blow_the_clip_up_is_refused(rate: int) -> None:
    content = bytearray(samples()["wav"])
    content[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(decoding.AudioError, match=f"rate of {rate} Hz"):
        decoding.load(bytes(content), RATE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    wave = tone()
    wave[100] = value
    content = by_libsndfile("WAV", "FLOAT", wave)
    for decode in (decoding.probe, lambda source: decoding.load(source, 22_050)):
        with pytest.raises(decoding.AudioError, match="not numbers"):
            decode(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (by_libsndfile("WAV", "PCM_16", tone(0)), "no samples"),
        (b"A note, not a sound.\n" * 50, "not audio"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not audio"),
        (samples()["flac"][: len(samples()["flac"]) // 2], "damaged"),
        (samples()["m4a"][: len(samples()["m4a"]) // 2], "not audio"),
    ],
    ids=["nothing", "only a header", "text", "play list", "cut flac", "cut m4a"],
)
def test_what_is_not_a_whole_clip_is_refused_in_one_sentence(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "clip.wav"
    file.write_bytes(content)
    for source in (content, file):
        for decode in (decoding.probe, lambda source: decoding.load(source, 22_050)):
            with pytest.raises(decoding.AudioError, match=reason) as refusal:
                decode(source)
            assert str(tmp_path) not in str(refusal.value)
            assert str(refusal.value).endswith(".")


def test_a_clip_cut_short_is_as_long_as_what_is_left_of_it() -> None:
    content = samples()["wav"]
    assert decoding.probe(content[: len(content) // 2]).seconds == pytest.approx(0.5, abs=0.01)


def test_a_missing_file_or_a_folder_is_an_audio_error_without_its_path(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(decoding.AudioError) as refusal:
            decoding.probe(path)
        assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("name", ["clip.raw", "clip.mp3", "clip.vox", "clip.txt", "clip"])
def test_the_content_decides_and_not_the_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(samples()["wav"])
    assert decoding.probe(tmp_path / name).subtype == "PCM_16"


def test_nine_channels_that_only_ffmpeg_can_open_do_not_crash_it() -> None:
    # libsndfile refuses the file, because the peaks in its header are still those of two.
    content = bytearray(by_libsndfile("WAV", "FLOAT", np.stack([tone(), tone()], axis=1)))
    content[22:24] = (9).to_bytes(2, "little")
    content[32:34] = (36).to_bytes(2, "little")
    info = decoding.probe(bytes(content))
    assert (info.channels, info.subtype) == (9, "PCM_F32LE")


@given(
    kind=st.sampled_from(sorted(FORMATS)),
    changes=st.lists(
        st.tuples(st.one_of(st.integers(0, 200), st.integers(0, 2**20)), st.integers(0, 255)),
        max_size=20,
    ),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_damaged_bytes_are_decoded_or_refused_but_nothing_else_escapes(
    kind: str, changes: list[tuple[int, int]], keep: float
) -> None:
    content = bytearray(samples()[kind])
    for place, value in changes:
        content[place % len(content)] = value
    damaged = bytes(content[: int(len(content) * keep)])
    try:
        assert decoding.probe(damaged).seconds > 0
        wave = decoding.load(damaged, 22_050, max_seconds=2.0)
    except decoding.AudioError:
        return
    assert 0 < len(wave) <= 44_100
    assert np.isfinite(wave).all()


def damaged_ogg() -> bytes:
    """The head of a Vorbis file behind a tag, which libsndfile skips."""
    tag = b"ID3\x04\0\0\0\0\0\x05" + bytes(5)
    return tag + by_libsndfile("OGG", "VORBIS", tone())[:200]


def test_memory_that_libsndfile_loses_to_damaged_ogg_files_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "TOLERATED", 100)
    monkeypatch.setattr(decoding, "_damaged_ogg", 0)
    content = damaged_ogg()

    def refuse(times: int) -> int:
        for _ in range(times):
            with pytest.raises(decoding.AudioError):
                decoding.load(content, RATE)
        return int(psutil.Process().memory_full_info().uss)

    before = refuse(150)
    assert refuse(2_000) - before < 4_000_000  # each would have kept 6 KB: 12 MB


def test_an_ogg_file_sounds_the_same_whether_libsndfile_or_ffmpeg_decodes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for subtype in ("VORBIS", "OPUS"):
        content = by_libsndfile("OGG", subtype, tone())
        first = decoding.load(content, RATE)
        monkeypatch.setattr(decoding, "TOLERATED", 0)
        second = decoding.load(content, RATE)
        assert 0 <= len(first) - len(second) < 0.005 * RATE  # the last block may be incomplete
        np.testing.assert_allclose(second, first[: len(second)], atol=1e-4)
        monkeypatch.undo()
