"""Decode sound files to mono waveforms; no other module decodes sound.

libsndfile reads WAV, FLAC, Ogg, MP3, AIFF and more. FFmpeg, through PyAV, reads the formats that
browsers and phones record and libsndfile cannot read (WebM, M4A). Everything is decoded in blocks
and measured, because a header may claim any length.
"""

import faulthandler
import io
import math
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pipeline.sound import containers
from pipeline.sound.audible import Meter

Waveform = NDArray[np.float32]

BLOCK = 1 << 18
"""Samples decoded at a time, over all channels: 1 MiB of float32."""

SAMPLE_RATES = range(1_000, 1_000_001)
"""Accepted sample rates in Hz. A lower one in a header would make a resampled clip huge."""

LOUDEST = 1e6
"""Largest sample, as a multiple of full scale. Larger ones and NaN are damage, and later sums
would overflow."""

TOLERATED = 1_000
"""Number of damaged Ogg files that libsndfile may open; after that FFmpeg reads all Ogg files.
libsndfile never frees 6 KB of each file whose Vorbis header it cannot read, so many such uploads
would fill the memory.
"""

_damaged_ogg = 0

# FFmpeg's other demuxers include playlists, which open more files and addresses.
_CONTAINERS = "mov,matroska,ogg,wav,aac,amr,asf"


class AudioError(Exception):
    """The clip cannot be used. The message is one sentence without the file's path."""


class NoSoundError(AudioError):
    """The clip can be decoded but holds no sound, see :mod:`pipeline.sound.audible`."""


class LimitError(AudioError):
    """The clip is longer than the caller allows."""


class SlowError(LimitError):
    """The clip takes longer to decode than the caller allows."""


@dataclass(frozen=True)
class Limits:
    """The limits beyond which an untrusted clip is rejected.

    Attributes
    ----------
    seconds : float
        Length of the clip.
    work_seconds : float
        Time that decoding takes.
    """

    seconds: float = math.inf
    work_seconds: float = math.inf


@dataclass(frozen=True)
class AudioInfo:
    """The properties of a clip, measured by decoding it.

    Attributes
    ----------
    seconds : float
        Length of the decoded sound, whatever the header says.
    sample_rate : int
        Hz, as recorded.
    channels : int
        Number of channels, as recorded.
    subtype : str
        Encoding in libsndfile's terms: ``PCM_16``, ``FLOAT``, ``VORBIS``, ``AAC``, ...
    peak : float
        Largest absolute sample over all channels; full scale is 1.
    """

    seconds: float
    sample_rate: int
    channels: int
    subtype: str
    peak: float


@dataclass(frozen=True)
class _Stream:
    sample_rate: int
    channels: int
    subtype: str
    blocks: Iterator[Waveform]  # each (samples, channels)


def mute_decoders() -> None:
    """Discard what native code writes to standard error; Python still writes to it.

    libmpg123 writes a line about each damaged frame, so an upload could fill a log. If native code
    crashes, Python still reports where it was called.
    """
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    faulthandler.enable(sys.stderr)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def muted() -> Iterator[None]:
    """Discard what native code writes to standard error while clips are decoded.

    Python's own standard error, where progress bars and tracebacks go, still works. Another process
    that is started meanwhile is mute, too.
    """
    try:
        ours = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # a notebook or a test replaced it
        ours = False
    python, stderr = sys.stderr, os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if ours:
        python.flush()
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        if ours:
            sys.stderr.flush()
            sys.stderr = python


def load(
    source: Path | bytes,
    sample_rate: int,
    max_seconds: float | None = None,
    limits: Limits | None = None,
    min_seconds: float | None = None,
) -> Waveform:
    """Decode a clip to mono at one sample rate.

    Parameters
    ----------
    source : Path or bytes
        An audio file, or its content.
    sample_rate : int
        Sample rate of the result in Hz. soxr resamples, at its high quality.
    max_seconds : float, optional
        Nothing beyond this time is decoded.
    limits : Limits, optional
        A clip beyond these is rejected. It is never in memory at its own sample rate.
    min_seconds : float, optional
        If given, a clip that is shorter or holds no sound is rejected.

    Returns
    -------
    array, shape (samples,), float32
        The mean of the channels; full scale is 1.

    Raises
    ------
    AudioError
        When the source is not audio, is damaged or empty, or has samples that are not numbers.
    NoSoundError
        When the clip holds no sound, if `min_seconds` is given.
    LimitError
        When the clip is beyond the limits.
    """
    wave = _joined(list(blocks(source, sample_rate, max_seconds, limits, min_seconds)))
    return wave if max_seconds is None else wave[: math.ceil(max_seconds * sample_rate)]


def blocks(
    source: Path | bytes,
    sample_rate: int,
    max_seconds: float | None = None,
    limits: Limits | None = None,
    min_seconds: float | None = None,
) -> Generator[Waveform]:
    """Decode a clip as :func:`load` does, block by block, so that only a block is in memory.

    Parameters
    ----------
    source, sample_rate, max_seconds, limits, min_seconds
        As for :func:`load`.

    Yields
    ------
    array, shape (samples,), float32
        The mean of the channels, without gaps. The last block may end after `max_seconds`.

    Raises
    ------
    AudioError, NoSoundError, LimitError
        As :func:`load`, when the block in question is decoded.
    """
    limits = limits or Limits()
    until = time.monotonic() + limits.work_seconds
    meter = None if min_seconds is None else Meter()

    def in_time() -> None:
        if time.monotonic() > until:
            raise SlowError(
                f"The clip takes longer than {limits.work_seconds:g} seconds to decode."
            )

    with _open(source, in_time, meter) as stream:
        resampler = None
        if stream.sample_rate != sample_rate:
            resampler = soxr.ResampleStream(
                stream.sample_rate, sample_rate, 1, dtype="float32", quality="HQ"
            )
        have = 0
        for mono in _mono_blocks(stream, max_seconds, limits, in_time):
            block = resampler.resample_chunk(mono) if resampler else mono
            have += len(block)
            yield block
    if resampler:
        block = resampler.resample_chunk(np.empty(0, np.float32), last=True)
        have += len(block)
        yield block
    _refuse_no_sound(meter, min_seconds)
    if not have:
        raise AudioError("The clip is shorter than one sample at the requested rate.")


def channel_blocks(source: Path | bytes) -> Iterator[Waveform]:
    """Decode a clip block by block at its own sample rate, with its own channels.

    Parameters
    ----------
    source : Path or bytes
        An audio file, or its content.

    Yields
    ------
    array, shape (samples, channels), float32

    Raises
    ------
    AudioError
        As :func:`load`.
    """
    with _open(source, lambda: None, None) as stream:
        yield from stream.blocks


def _refuse_no_sound(meter: Meter | None, min_seconds: float | None) -> None:
    if meter and min_seconds is not None and (fault := meter.fault(min_seconds)):
        raise NoSoundError(f"The clip {fault}.")


def _mono_blocks(
    stream: _Stream, max_seconds: float | None, limits: Limits, in_time: Callable[[], None]
) -> Iterator[Waveform]:
    """Yield the mean of the channels block by block, up to `max_seconds`.

    Raises AudioError when there is no sample, LimitError when the clip is beyond `limits`, and what
    `in_time` raises.
    """
    rate = stream.sample_rate
    wanted = math.inf if max_seconds is None else math.ceil(max_seconds * rate)
    have = 0
    for block in stream.blocks:
        part = block[: int(min(len(block), wanted - have))]
        # Most clips have one channel, and the mean over it would take as long as decoding.
        mono = part[:, 0] if part.shape[1] == 1 else part.mean(axis=1)
        have += len(mono)
        if have > limits.seconds * rate:
            raise LimitError(f"The clip is longer than {limits.seconds:g} seconds.")
        in_time()
        yield mono
        if have >= wanted:
            break
    if not have:
        raise AudioError("The file contains no samples.")


def _joined(parts: list[Waveform]) -> Waveform:
    """Join blocks and free each one on the way, so that a long clip is never in memory twice."""
    wave = np.empty(sum(map(len, parts)), np.float32)
    end = len(wave)
    while parts:
        part = parts.pop()
        wave[end - len(part) : end] = part
        end -= len(part)
    return wave


def probe(source: Path | bytes, min_seconds: float | None = None) -> AudioInfo:
    """Decode a clip once, in constant memory, and measure it.

    Parameters
    ----------
    source : Path or bytes
        An audio file, or its content.
    min_seconds : float, optional
        If given, a clip that is shorter or holds no sound is rejected.

    Returns
    -------
    AudioInfo

    Raises
    ------
    AudioError
        When the source is not audio, is damaged or empty, or has samples that are not numbers.
    NoSoundError
        When the clip holds no sound, if `min_seconds` is given.
    """
    samples, peak = 0, 0.0
    meter = None if min_seconds is None else Meter()
    with _open(source, lambda: None, meter) as stream:
        for block in stream.blocks:
            samples += len(block)
            peak = max(peak, float(block.max()), -float(block.min()))
    if not samples:
        raise AudioError("The file contains no samples.")
    _refuse_no_sound(meter, min_seconds)
    return AudioInfo(
        seconds=samples / stream.sample_rate,
        sample_rate=stream.sample_rate,
        channels=stream.channels,
        subtype=stream.subtype,
        peak=peak,
    )


@contextmanager
def _open(
    source: Path | bytes, in_time: Callable[[], None], meter: Meter | None
) -> Iterator[_Stream]:
    """Open with the library that can read the format; its errors become AudioError.

    What is decoded is also measured if there is a meter.
    """
    with ExitStack() as stack:
        try:
            # Unbuffered, because libsndfile gets the file descriptor.
            file: IO[bytes] = stack.enter_context(
                _Bytes(source) if isinstance(source, bytes) else source.open("rb", buffering=0)
            )
            if not file.read(1):
                raise AudioError("The file is empty.")
            file.seek(0)
        except OSError as error:
            raise AudioError(f"The file cannot be opened: {error.strerror}.") from None
        try:
            stream = _stream(file, stack, in_time)
        except containers.ContainerError as error:
            raise AudioError(str(error)) from None
        if stream.sample_rate not in SAMPLE_RATES:
            raise AudioError(f"The sample rate of {stream.sample_rate} Hz is not usable.")
        yield replace(stream, blocks=_checked(stream, meter))


def _stream(file: IO[bytes], stack: ExitStack, in_time: Callable[[], None]) -> _Stream:
    """Open a file whatever its header says, with all its chained parts."""
    start = containers.ogg_start(file)
    ogg = start is not None
    if start is None:
        parts = containers.parts(file, in_time)
    else:
        parts = containers.ogg_parts(file, start, in_time)
    first = _part(next(parts), stack, ogg)
    return replace(first, blocks=chain(first.blocks, _later_blocks(parts, first, ogg)))


def _later_blocks(parts: Iterator[IO[bytes]], first: _Stream, ogg: bool) -> Iterator[Waveform]:
    """Yield the blocks of the chained parts after the first."""
    for part in parts:
        with ExitStack() as stack:
            try:
                stream = _part(part, stack, ogg)
            except AudioError:
                if ogg:
                    raise
                raise AudioError(
                    "The file holds several sounds one after the other, and not all can be decoded."
                ) from None
            if (stream.sample_rate, stream.channels) != (first.sample_rate, first.channels):
                raise AudioError(
                    "The file is a chain of recordings with different sample rates or numbers of"
                    " channels: save each of them as a file."
                )
            yield from stream.blocks


def _part(file: IO[bytes], stack: ExitStack, ogg: bool) -> _Stream:
    file.seek(0)
    return _libsndfile(file, stack, ogg) or _ffmpeg(file, stack, ogg)


def _checked(stream: _Stream, meter: Meter | None) -> Iterator[Waveform]:
    for block in stream.blocks:
        if not (np.abs(block) <= LOUDEST).all():
            raise AudioError("The file contains samples that are not numbers or far out of range.")
        if meter and len(block):
            meter.add(block, stream.sample_rate)
        yield block


class _Bytes(io.BytesIO):
    """Bytes in memory; a damaged header cannot make them seek before the first byte."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self.tell(), len(self.getbuffer()))[whence]
        return super().seek(max(0, start + offset))


def _libsndfile(file: IO[bytes], stack: ExitStack, ogg: bool) -> _Stream | None:
    """Open with libsndfile; None if it cannot read the file or must not try."""
    global _damaged_ogg  # noqa: PLW0603  # the memory is lost to the whole process
    if ogg and _damaged_ogg >= TOLERATED:
        return None
    # By descriptor, not by path: the file name's suffix must not decide how it is read.
    by = file.fileno() if isinstance(file, io.FileIO) else file
    try:
        sound = stack.enter_context(soundfile.SoundFile(by, closefd=False))
    except soundfile.SoundFileError:
        _damaged_ogg += ogg
        file.seek(0)
        return None
    blocks = _libsndfile_blocks(sound)
    return _Stream(sound.samplerate, sound.channels, sound.subtype, blocks)


def _libsndfile_blocks(sound: soundfile.SoundFile) -> Iterator[Waveform]:
    frames = max(1, BLOCK // sound.channels)
    try:
        while len(block := sound.read(frames, dtype="float32", always_2d=True)):
            yield block
    except soundfile.SoundFileError:
        raise AudioError("The file is damaged: decoding stops in the middle.") from None


def _ffmpeg(file: IO[bytes], stack: ExitStack, ogg: bool) -> _Stream:
    import av

    try:
        container = stack.enter_context(
            av.open(file, options={"format_whitelist": _CONTAINERS}, metadata_errors="ignore")
        )
        if not container.streams.audio:
            raise AudioError("The file contains no sound.")
        frames = container.decode(audio=0)
        first = next(frames, None)
    except (av.FFmpegError, ValueError):
        raise AudioError(
            "The Ogg file is damaged, or is cut off before its first sample."
            if ogg
            else "The file is not audio in a format that can be read."
        ) from None
    if first is None:
        raise AudioError("The file contains no samples.")

    channels = first.layout.nb_channels

    def blocks() -> Iterator[Waveform]:
        # Interleaved: PyAV reads beyond its eight planes when there are more channels.
        to_float = av.AudioResampler(format="flt", layout=first.layout, rate=first.sample_rate)
        try:
            for frame in chain([first], frames):
                for converted in to_float.resample(frame):
                    yield converted.to_ndarray().reshape(-1, channels)
        except (av.FFmpegError, ValueError):
            raise AudioError("The file is damaged: decoding stops in the middle.") from None

    codec = container.streams.audio[0].codec_context.name.upper()
    return _Stream(first.sample_rate, channels, codec, blocks())
