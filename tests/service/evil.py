"""Make hostile inputs: damaged files, false claims, decompression bombs, files that are not sound.

Deterministic: the n-th mutation of a seed is the same bytes in every run, so that a failure is
named by two numbers.
"""

import gzip
import io
import random
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Wave = NDArray[np.float32]

RATE = 16_000
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def tone(seconds: float = 0.3, rate: int = RATE, channels: int = 1) -> Wave:
    """Return a tone with some noise: array, shape (samples, channels), float32."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(size=time.size)
    wave = 0.4 * np.sin(2 * np.pi * 440 * time) + 0.05 * noise
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def written(kind: str, subtype: str, wave: NDArray[Any], rate: int = RATE) -> bytes:
    """Write a file with libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def encoded(container: str, codec: str, wave: Wave, rate: int = 48_000) -> bytes:
    """Write a file with one channel with FFmpeg, as phones and browsers do."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, len(wave), 960):
            block = np.ascontiguousarray(wave[start : start + 960].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@cache
def seeds() -> dict[str, bytes]:
    """Return a valid sound file in each supported format, by name."""
    mono, stereo, many = tone(), tone(channels=2), tone(0.05, channels=32)
    broken, loud = tone(), tone()
    broken[100] = np.nan
    loud[100] = 3e38
    return {
        "u8.wav": written("WAV", "PCM_U8", mono),
        "16.wav": written("WAV", "PCM_16", mono),
        "24.wav": written("WAV", "PCM_24", stereo),
        "32.wav": written("WAV", "PCM_32", mono),
        "float.wav": written("WAV", "FLOAT", mono),
        "double.wav": written("WAV", "DOUBLE", mono),
        "ulaw.wav": written("WAV", "ULAW", mono),
        "adpcm.wav": written("WAV", "IMA_ADPCM", mono),
        "nan.wav": written("WAV", "FLOAT", broken),
        "far.wav": written("WAV", "FLOAT", loud),
        "192k.wav": written("WAV", "PCM_24", tone(rate=192_000), 192_000),
        "8k.wav": written("WAV", "PCM_16", tone(rate=8_000), 8_000),
        "one.wav": written("WAV", "PCM_16", mono[:1]),
        "none.wav": written("WAV", "PCM_16", mono[:0]),
        "32ch.wav": written("WAV", "PCM_16", many),
        "rf64.wav": written("RF64", "PCM_16", mono),
        "w64.w64": written("W64", "PCM_16", mono),
        "aiff.aiff": written("AIFF", "PCM_16", mono),
        "au.au": written("AU", "PCM_16", mono),
        "caf.caf": written("CAF", "PCM_16", mono),
        "flac.flac": written("FLAC", "PCM_16", mono),
        "24.flac": written("FLAC", "PCM_24", stereo),
        "vorbis.ogg": written("OGG", "VORBIS", mono),
        "opus.ogg": written("OGG", "OPUS", mono),
        "mp3.mp3": written("MP3", "MPEG_LAYER_III", mono),
        "m4a.m4a": encoded("ipod", "aac", tone(rate=48_000)),
        "adts.aac": encoded("adts", "aac", tone(rate=48_000)),
        "opus.webm": encoded("webm", "libopus", tone(rate=48_000)),
        "aac.mka": encoded("matroska", "aac", tone(rate=48_000)),
    }


@cache
def not_sound() -> dict[str, bytes]:
    """Return files that are not sound, and sound files with false claims, by name."""
    wav = seeds()["16.wav"]
    return {
        "empty": b"",
        "one byte": b"R",
        "riff": b"RIFF",
        "header only": wav[:44],
        "text": b"Ein Text, kein Ton.\n" * 200,
        "html": b"<!doctype html><script>alert(1)</script>" * 20,
        "json": b'{"file": "http://127.0.0.1/"}',
        "play list": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "zip": zipped(b"\0" * 1_000),
        "zip bomb": zipped(b"\0" * 200_000_000),
        "gzip of wav": gzip.compress(wav),
        "png": b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\xff" * 64,
        "pdf": b"%PDF-1.7\n" + b"1 0 obj<<>>endobj\n" * 100,
        "elf": b"\x7fELF" + bytes(range(256)) * 20,
        "pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "zeros": bytes(100_000),
        "ones": b"\xff" * 100_000,
        "random": random.Random(0).randbytes(100_000),
        "utf-16": "\ufeffnot a sound".encode("utf-16") * 50,
        "wav claiming 4 GB": lying_wav(frames=0xFFFFFFFF),
        "wav of 65535 channels": lying_wav(channels=0xFFFF),
        "wav of 0 channels": lying_wav(channels=0),
        "wav at 0 Hz": lying_wav(rate=0),
        "wav at 1 Hz": lying_wav(rate=1),
        "wav at 4 GHz": lying_wav(rate=0xFFFFFFFF),
        "wav of 0 bits": lying_wav(bits=0),
        "wav of 65535 bits": lying_wav(bits=0xFFFF),
        "wav with block 0": lying_wav(block=0),
        "flac claiming 2^36 samples": lying_flac(),
        "m4a of 2^32 samples": lying_m4a(),
        "id3 of 256 MB": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + seeds()["mp3.mp3"],
        "ogg page of nothing": b"OggS" + bytes(4096),
        "ebml of nothing": b"\x1a\x45\xdf\xa3" + b"\xff" * 4096,
    }


@cache
def bombs() -> dict[str, bytes]:
    """Return files of at most a megabyte with far more sound than is allowed, by name."""
    return {
        "flac of silence": flac_of_silence(),
        "flac of silence in 8 channels at 655 kHz": flac_of_silence(8, 655_350, blocks=45_000),
        "mp3 of silence": mp3_of_silence(),
        "wav, 1 bit a frame": lying_wav(content=bytes(1_000_000), bits=8, rate=1_000),
        "adpcm at 1 kHz": written("WAV", "IMA_ADPCM", tone(1_800.0, 1_000), 1_000),
    }


def zipped(content: bytes) -> bytes:
    """Return a zip archive with one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.wav", content)
    return file.getvalue()


def lying_wav(
    content: bytes = bytes(2_000),
    frames: int | None = None,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    block: int | None = None,
) -> bytes:
    """Return a WAV file with any claims in its header."""
    block = (channels * bits // 8) & 0xFFFF if block is None else block
    size = len(content) if frames is None else frames
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * block) & 0xFFFFFFFF, block, bits)
    riff = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + riff + b"WAVE" + chunks + content


def lying_flac() -> bytes:
    """Return a short FLAC file that claims the highest possible number of samples."""
    content = bytearray(seeds()["flac.flac"])
    content[21] |= 0x0F  # the upper 4 of 36 bits
    content[22:26] = b"\xff\xff\xff\xff"
    return bytes(content)


def lying_m4a() -> bytes:
    """Return an M4A file whose sample table claims 2^32 - 1 entries."""
    content = bytearray(seeds()["m4a.m4a"])
    place = content.index(b"stsz")
    content[place + 12 : place + 16] = b"\xff\xff\xff\xff"
    return bytes(content)


def flac_of_silence(channels: int = 1, rate: int = 44_100, blocks: int = 80_000) -> bytes:
    """Return about a megabyte of FLAC; each block of 65,535 zeros takes a dozen bytes.

    With the default 80,000 blocks 33 hours at 44.1 kHz; written by hand, for encoding so much
    takes a minute.
    """
    size = 65_535
    total = blocks * size
    info = struct.pack(">HH", size, size) + bytes(6)
    info += ((rate << 44) | ((channels - 1) << 41) | (15 << 36) | (total & (1 << 36) - 1)).to_bytes(
        8, "big"
    )
    out = [b"fLaC", b"\x80\x00\x00\x22", info, bytes(16)]
    for number in range(blocks):
        # sync, fixed size; 16 bits of block size follow, rate and depth as in STREAMINFO
        head = b"\xff\xf8\x70" + bytes([(channels - 1) << 4])
        head += _utf8(number) + struct.pack(">H", size - 1)
        head += bytes([_crc8(head)])
        frame = head + b"\0\0\0" * channels  # each a constant subframe of 16 bits: 0
        out.append(frame + struct.pack(">H", _crc16(frame)))
    return b"".join(out)


def mp3_of_silence(size: int = 1_000_000) -> bytes:
    """Return a megabyte of MP3 at 8 kbit/s and 8 kHz: 17 minutes of silence."""
    frame = b"\xff\xe3\x18\xc4" + bytes(68)  # MPEG 2.5, layer III, mono: 72 bytes for 72 ms
    return frame * (size // len(frame))


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """Return the name of a kind of damage, and the `number`-th damaged input of a seed."""
    rng = random.Random(seed * 1_000_003 + number)
    if rng.random() < 0.05:
        return _random(rng)
    name, content = rng.choice(list(seeds().items()))
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(MUTATIONS)
        content = change(rng, content)
        done.append(change.__name__.strip("_"))
    return f"{name}: {', '.join(done)}", content


def _truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _behead(rng: random.Random, content: bytes) -> bytes:
    return content[rng.randrange(min(len(content), 200) + 1) :]


def _flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 60) if content else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_header_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 8) if content else 0):
        changed[rng.randrange(min(len(changed), 256))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _lie(rng: random.Random, content: bytes) -> bytes:
    """Write an extreme number of 1, 2, 4 or 8 bytes, in either byte order, into the header."""
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        width = rng.choice((1, 2, 4, 8))
        place = rng.randrange(max(1, min(len(changed), 300)))
        number = rng.choice(EXTREMES) & ((1 << 8 * width) - 1)
        changed[place : place + width] = number.to_bytes(width, rng.choice(("big", "little")))
    return bytes(changed)


def _blank(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    length = rng.randrange(1, 500)
    filling = rng.choice((b"\0", b"\xff", b"\x80"))
    return content[:start] + filling * length + content[start + length :]


def _insert(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.randbytes(rng.randrange(1, 300)) + content[start:]


def _remove(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.randrange(1, 300) :]


def _repeat(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    piece = content[start : start + rng.randrange(1, 2_000)]
    return content[:start] + piece * rng.randrange(2, 20) + content[start:]


def _splice(rng: random.Random, content: bytes) -> bytes:
    """Join the head of one file and the tail of another."""
    other = rng.choice(list(seeds().values()))
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_truncate, _behead, _flip_bits, _flip_header_bits, _flip_header_bits, _lie, _lie),
    *(_blank, _insert, _remove, _repeat, _splice),
)


def _random(rng: random.Random) -> tuple[str, bytes]:
    """Return noise, mostly after bytes that look like the start of a sound file."""
    heads = [b"", b"RIFF", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb\x90", b"\0\0\0\x20ftypM4A "]
    heads += (b"\x1a\x45\xdf\xa3", b"FORM", b"caff", b".snd", b"riff", b"\xff\xf1", b"#!AMR\n")
    head = rng.choice(heads)
    return f"noise behind {head!r}", head + rng.randbytes(rng.randrange(5_000))


def _utf8(number: int) -> bytes:
    """Encode a block number of FLAC, which looks like a code point in UTF-8."""
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(content: bytes, polynomial: int, bits: int) -> int:
    table = _table(polynomial, bits)
    mask = (1 << bits) - 1
    value = 0
    for byte in content:
        value = (value << 8 & mask) ^ table[value >> (bits - 8) ^ byte]
    return value


def _crc8(content: bytes) -> int:
    return _crc(content, 0x07, 8)


def _crc16(content: bytes) -> int:
    return _crc(content, 0x8005, 16)


@cache
def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return tuple(table)
