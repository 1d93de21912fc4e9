"""The decoder: every format to the same waveform, and nothing but AudioError for the rest."""

import io
import struct
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


def by_ffmpeg(
    container: str, codec: str, wave: NDArray[np.float32] | NDArray[np.int16], form: str = "fltp"
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        for start in range(0, len(wave), 1024):
            block = np.ascontiguousarray(wave[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, format=form, layout="mono")
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


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> NDArray[np.float32]:
    """Sound whose encoded size is in proportion to its length."""
    shape = (int(seconds * rate), channels)
    return np.random.default_rng(0).uniform(-0.3, 0.3, shape).astype(np.float32)


OGG = {"vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}


@cache
def ogg(codec: str, seconds: float, rate: int = RATE, channels: int = 1) -> bytes:
    if codec == "flac":
        wave = noise(seconds, rate, channels)
        return by_ffmpeg("ogg", "flac", (wave[:, 0] * 32767).astype(np.int16), "s16")
    return by_libsndfile(*OGG[codec], noise(seconds, rate, channels), rate)


@cache
def joinable(kind: str, seconds: float, rate: int = RATE, channels: int = 1) -> bytes:
    """A file of a kind that people join with `cat`."""
    wave = noise(seconds, rate, channels)
    if kind == "flac":
        return by_libsndfile("FLAC", "PCM_16", wave, rate)
    if kind.startswith("mp3 of"):  # soft sound has small frames
        wave[len(wave) // 4 :] *= 0.01
    if kind in ("mp3", "mp3 of varying bit rate without a header"):
        content = by_libsndfile("MP3", "MPEG_LAYER_III", wave, rate)
        return content if kind == "mp3" else without_header(content)
    file, constant = io.BytesIO(), {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
    soundfile.write(file, wave, rate, format="MP3", subtype="MPEG_LAYER_III", **constant)
    return without_header(file.getvalue())


def without_header(mp3: bytes) -> bytes:
    """Leave the first frame out, which holds the header alone."""
    return mp3[mp3.index(mp3[:2], 4) :]


ART = b"ID3\4\0\0\0\0\x3f\0" + b"\xff\xd8" + b"art" * 2_687 + b"\xff"  # 8,064 bytes
APE = b"APETAGEX" + struct.pack("<IIII", 2_000, 9_000, 0, 1 << 31) + bytes(8 + 9_000)
TAGS = [b"TAG" + b"x" * 125, APE, ART, APE + b"TAG" + b"x" * 125, b"LYRICSBEGIN" + b"la" * 9_000]


def are_decoded_in_turn(parts: list[bytes], together: bytes, file: Path) -> None:
    """Check that a file of several parts, 2.2 s in all, is decoded as the parts one by one are."""
    file.write_bytes(together)
    separate = np.concatenate([decoding.load(part, RATE) for part in parts])
    for source in (together, file):
        assert decoding.probe(source).seconds == pytest.approx(2.2, abs=0.01)
        np.testing.assert_array_equal(decoding.load(source, RATE), separate)
        in_blocks = np.concatenate(list(decoding.blocks(source, 16_000)))
        np.testing.assert_array_equal(decoding.load(source, 16_000), in_blocks)
    assert decoding.load(together, RATE, max_seconds=0.6).shape == (int(0.6 * RATE),)
    with pytest.raises(decoding.LimitError):
        decoding.load(together, RATE, limits=decoding.Limits(seconds=1.0))


@pytest.mark.parametrize("kind", ["flac", "mp3"])
@pytest.mark.parametrize("between", [b"", ART, TAGS[0], TAGS[3]])
def test_joined_files_are_decoded_one_after_the_other(
    kind: str, between: bytes, tmp_path: Path
) -> None:
    parts = [joinable(kind, 0.5), joinable(kind, 1.0), joinable(kind, 0.7)]
    joined = between.join(parts)
    are_decoded_in_turn(parts, joined, tmp_path / "clip")


@pytest.mark.parametrize("between", [b"", *TAGS[:4]])
@pytest.mark.parametrize("rate", [RATE, 22_050])
@pytest.mark.parametrize("channels", [1, 2])
def test_one_of_two_joined_mp3_files_may_have_no_header(
    between: bytes, rate: int, channels: int
) -> None:
    first = joinable("mp3", 1.5, rate, channels)
    second = joinable("mp3 without a header", 1.0, rate, channels)
    both = decoding.probe(first).seconds + decoding.probe(second).seconds
    for joined in (first + between + second, second + first):
        assert decoding.probe(joined).seconds == pytest.approx(both)


@pytest.mark.parametrize(
    ("kind", "tag"),
    [(kind, tag) for kind in ("flac", "mp3") for tag in (*TAGS, bytes(9_000), b"x" * 9_000)]
    + [("mp3 without a header", tag) for tag in TAGS[:4]],
)
def test_tags_and_art_are_not_taken_for_sound(kind: str, tag: bytes) -> None:
    content = joinable(kind, 1.0)
    wave = decoding.load(content, RATE)
    np.testing.assert_array_equal(decoding.load(content + tag, RATE), wave)
    np.testing.assert_array_equal(decoding.load(ART + content + tag, RATE), wave)


@pytest.mark.parametrize("tag", [b"", *TAGS[:4], b"x" * 300])
@pytest.mark.parametrize("rate", [RATE, 22_050, 11_025])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_file_of_varying_bit_rate_without_a_header_is_decoded_to_its_end(
    tag: bytes, rate: int, channels: int, tmp_path: Path
) -> None:
    content = joinable("mp3 of varying bit rate without a header", 5.0, rate, channels)
    file = tmp_path / "clip"
    file.write_bytes(content + tag)
    for source in (content + tag, file):
        assert 5.0 <= decoding.probe(source).seconds < 5.3  # whole frames, and the encoder's delay
    wave = decoding.load(content, rate)
    np.testing.assert_array_equal(decoding.load(content + tag, rate), wave)
    cut = decoding.load(content[:-10], rate)  # all but the last frame
    np.testing.assert_array_equal(cut, wave[: -576 * (2 if rate == RATE else 1)])


def test_joined_mp3_files_of_different_bit_rates_need_no_header() -> None:
    varying = joinable("mp3 of varying bit rate without a header", 1.5)
    constant = joinable("mp3 without a header", 1.0)
    both = decoding.probe(varying).seconds + decoding.probe(constant).seconds
    for joined in (varying + constant, constant + varying, constant + ART + varying):
        assert decoding.probe(joined).seconds == pytest.approx(both)


def test_a_second_header_that_corrects_the_first_does_not_begin_a_sound() -> None:
    content = joinable("mp3", 1.0)
    header = content[: -len(without_header(content))]
    assert len(decoding.load(header + content, RATE)) == RATE


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_joined_files_that_differ_or_are_damaged_are_refused(kind: str) -> None:
    part = joinable(kind, 0.5)
    for other in (joinable(kind, 0.5, rate=24_000), joinable(kind, 0.5, channels=2)):
        for joined in (part + other, other + part):
            with pytest.raises(decoding.AudioError, match="different sample rates or numbers"):
                decoding.probe(joined)
    with pytest.raises(decoding.AudioError, match="holds several sounds one after the other"):
        decoding.probe(part + part[:40])


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_the_time_limit_holds_while_joined_files_are_searched(kind: str) -> None:
    part = joinable(kind, 0.5)
    with pytest.raises(decoding.SlowError):
        decoding.load(part + bytes(10**8), RATE, limits=decoding.Limits(work_seconds=0.001))


@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("flac", "mp3", "mp3 without a header"),
                    "mp3 of varying bit rate without a header",
                ]
            ),
            st.sampled_from([0.01, 0.3, 1.0]),
            st.floats(0.9, 1) | st.floats(0, 1),
        ),
        min_size=1,
        max_size=4,
    ),
    between=st.binary(max_size=40) | st.sampled_from(TAGS),
    changes=st.lists(st.tuples(st.integers(0, 2**18), st.integers(0, 255)), max_size=5),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_joined_damaged_and_cut_files_are_decoded_or_refused(
    parts: list[tuple[str, float, float]], between: bytes, changes: list[tuple[int, int]]
) -> None:
    cut = [joinable(kind, seconds) for kind, seconds, _ in parts]
    content = bytearray(
        between.join(
            part[: int(len(part) * keep)] for part, (*_, keep) in zip(cut, parts, strict=True)
        )
    )
    for place, value in changes:
        if content:
            content[place % len(content)] = value
    decodes_alike_or_is_refused(bytes(content), 5.0)


@pytest.mark.parametrize("codec", ["vorbis", "opus", "flac"])
def test_chained_ogg_parts_are_decoded_one_after_the_other(codec: str, tmp_path: Path) -> None:
    parts = [ogg(codec, 0.5), ogg(codec, 1.0), ogg(codec, 0.7)]
    chained = b"".join(parts)
    are_decoded_in_turn(parts, chained, tmp_path / "clip.ogg")


def test_a_chain_of_different_codecs_at_one_rate_is_decoded() -> None:
    assert decoding.probe(ogg("vorbis", 0.5) + ogg("opus", 0.5)).seconds == pytest.approx(1.0)


@pytest.mark.parametrize("codec", OGG)
@pytest.mark.parametrize("other", [{"rate": 24_000}, {"channels": 2}])
def test_a_chain_of_different_rates_or_channels_is_refused(
    codec: str, other: dict[str, int]
) -> None:
    part, different = ogg(codec, 0.5), ogg(codec, 0.5, **other)
    assert decoding.probe(different + different).seconds == pytest.approx(1.0, abs=0.01)
    for chained in (part + different, different + part):
        for decode in (decoding.probe, lambda source: decoding.load(source, 22_050)):
            with pytest.raises(decoding.AudioError, match="different sample rates or numbers"):
                decode(chained)


def test_rubbish_between_and_behind_chained_parts_is_skipped() -> None:
    part = ogg("vorbis", 0.5)
    assert decoding.probe(part + b"rubbish" * 99 + part + b"x" * 99).seconds == pytest.approx(1.0)


@pytest.mark.parametrize("codec", ["vorbis", "opus"])
@pytest.mark.parametrize("seconds", [0.7, 1.0, 5.0])
@pytest.mark.parametrize("share", [0.7, 0.9])
def test_an_ogg_file_cut_short_is_as_long_as_what_is_left_of_it(
    codec: str, seconds: float, share: float
) -> None:
    content = ogg(codec, seconds)
    cut = content[: int(len(content) * share)]
    head = 3_700 if codec == "vorbis" else 900  # bytes before the first sample
    left = (len(cut) - head) / (len(content) - head) * seconds
    # The packet that is cut off is missing, and encoders do not spend the same on every packet.
    assert left - 0.15 < decoding.probe(cut).seconds < left + 0.15
    whole = decoding.load(content, RATE)
    wave = decoding.load(cut, RATE)
    np.testing.assert_allclose(wave[:-2000], whole[: len(wave) - 2000], atol=1e-5)


@pytest.mark.parametrize("codec", ["vorbis", "opus"])
def test_a_part_that_is_cut_off_does_not_hide_the_next_one(codec: str) -> None:
    part = ogg(codec, 1.0)
    cut = part[: int(len(part) * 0.7)]
    both = decoding.probe(cut).seconds + decoding.probe(part).seconds
    assert decoding.probe(cut + part).seconds == pytest.approx(both)
    assert decoding.probe(part + cut).seconds == pytest.approx(both)
    head = part[:200]  # nothing of the second part can be heard
    assert decoding.probe(part + head).seconds == decoding.probe(part).seconds


def test_an_ogg_file_cut_off_before_its_first_sample_is_refused() -> None:
    with pytest.raises(decoding.AudioError, match="cut off before its first sample"):
        decoding.probe(ogg("vorbis", 1.0)[:2_000])


@pytest.mark.parametrize("unit", [b"OggS\0" + bytes(22), b"OggS", b"OggS\0" + bytes(21) + b"\xff"])
def test_the_time_limit_holds_while_pages_are_searched(unit: bytes) -> None:
    limits = decoding.Limits(work_seconds=0.2)
    with pytest.raises(decoding.SlowError):
        decoding.load(unit * 2_000_000, RATE, limits=limits)


TEXT = b"LIST" + (20).to_bytes(4, "little") + b"INFOISFT" + (8).to_bytes(4, "little") + b"a maker "

SIZES = {  # kind: where the size of the sound stands, relative to a mark, and how
    "WAV": (b"data", 4, "<I", 0),
    "RF64": (b"ds64", 16, "<Q", 0),
    "AIFF": (b"SSND", 4, ">I", 8),
    "AU": (b".snd", 8, ">I", 0),
    "CAF": (b"data", 4, ">q", 4),
}  # fmt: skip


def claiming(kind: str, size: int, wave: NDArray[np.float32] | None = None) -> bytes:
    """A file whose header claims so many bytes of sound; -1 is the largest number."""
    content = bytearray(by_libsndfile(kind, "PCM_16", tone() if wave is None else wave))
    mark, offset, form, before = SIZES[kind]
    if size == -1 and kind == "CAF":  # where -1 itself means "unknown"
        before = 0
    size = size + before if form == ">q" else (size + before) % 256 ** struct.calcsize(form)
    struct.pack_into(form, content, content.index(mark) + offset, size)
    return bytes(content)


@pytest.mark.parametrize("kind", SIZES)
def test_a_header_that_describes_a_part_of_the_sound_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "clip"
    for size in (88, 90_000):
        content = claiming(kind, size)
        file.write_bytes(content)
        for source in (content, file):
            for decode in (decoding.probe, lambda source: decoding.load(source, 22_050)):
                with pytest.raises(decoding.AudioError) as refusal:
                    decode(source)
                assert str(refusal.value) == (
                    f"The header describes {size:,} bytes of sound, but {96_000 - size:,} more"
                    " bytes follow: save the recording again."
                )


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("size", [0, 10**6, -1])
def test_a_header_without_the_true_size_is_read_to_the_end_of_the_sound(
    kind: str, size: int
) -> None:
    wave = decoding.load(by_libsndfile(kind, "PCM_16", tone()), RATE)
    assert len(wave) == RATE
    content = claiming(kind, size)
    np.testing.assert_array_equal(decoding.load(content, RATE), wave)
    half = content[: len(content) // 2]
    assert decoding.probe(half).seconds == pytest.approx(0.5, abs=0.03)
    if kind in ("WAV", "RF64"):
        np.testing.assert_array_equal(decoding.load(content + TEXT, RATE), wave)


@pytest.mark.parametrize(
    "behind",
    [TEXT, TEXT * 500, bytes(50_000), b"TAG" + bytes(125), b"ID3" + b"x" * 9_000, b"x" * 4_000,
     TEXT[:8] + b"the file was cut off in this chunk"],
)  # fmt: skip
def test_what_follows_the_sound_of_a_wav_file_is_not_taken_for_sound(behind: bytes) -> None:
    content = by_libsndfile("WAV", "PCM_16", tone())
    np.testing.assert_array_equal(
        decoding.load(content + behind, RATE), decoding.load(content, RATE)
    )


def test_a_wav_file_behind_another_one_is_not_dropped_without_a_word() -> None:
    content = by_libsndfile("WAV", "PCM_16", tone())
    with pytest.raises(decoding.AudioError, match="96,044 more bytes follow"):
        decoding.probe(content + content)


def test_an_empty_wav_file_with_text_has_no_samples() -> None:
    content = by_libsndfile("WAV", "PCM_16", tone(0))
    with pytest.raises(decoding.AudioError, match="no samples"):
        decoding.probe(content + TEXT)


@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(["vorbis", "opus", "flac"]),
            st.sampled_from([0.01, 0.3, 1.0]),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=4,
    ),
    between=st.binary(max_size=40),
    changes=st.lists(st.tuples(st.integers(0, 2**18), st.integers(0, 255)), max_size=5),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_chains_of_damaged_and_cut_parts_are_decoded_or_refused(
    parts: list[tuple[str, float, float]], between: bytes, changes: list[tuple[int, int]]
) -> None:
    whole = [(ogg(codec, seconds), keep) for codec, seconds, keep in parts]
    cut = [part[: int(len(part) * keep)] for part, keep in whole]
    content = bytearray(
        between.join(
            part[: int(len(part) * keep)] for part, (*_, keep) in zip(cut, parts, strict=True)
        )
    )
    for place, value in changes:
        if content:
            content[place % len(content)] = value
    decodes_alike_or_is_refused(bytes(content), 5.0)


@given(
    kind=st.sampled_from(sorted(SIZES)),
    size=st.one_of(st.integers(-1, 10), st.integers(0, 200_000), st.integers(0, 2**31 - 1)),
    behind=st.one_of(
        st.binary(max_size=40), st.sampled_from([TEXT, TEXT[:-3], b"TAG" + bytes(125)])
    ),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_false_sizes_are_corrected_or_refused(
    kind: str, size: int, behind: bytes, keep: float
) -> None:
    content = claiming(kind, size) + behind
    decodes_alike_or_is_refused(content[: int(len(content) * keep)], 1.01)


def decodes_alike_or_is_refused(content: bytes, longest: float) -> None:
    """Nothing but AudioError escapes, and measuring and loading find the same length."""
    try:
        info = decoding.probe(content)
    except decoding.AudioError:
        with pytest.raises(decoding.AudioError):
            decoding.load(content, RATE)
        return
    assert 0 < info.seconds <= longest
    wave = decoding.load(content, info.sample_rate)
    assert len(wave) == round(info.seconds * info.sample_rate)


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
