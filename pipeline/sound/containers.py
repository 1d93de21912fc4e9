"""Find all the sound in a file, even if its header is wrong or several files were joined in it.

libsndfile reads an Ogg, FLAC or MP3 file only to the end of its first part, and a WAV file only as
far as the header says. Here a header is compared with the file. Where they differ, the decoder gets
a view of the file with a correct header or of one part of it; an ordinary file reaches the decoder
as it is.

Formats: RFC 3533 (Ogg), RFC 9639 (FLAC), ISO/IEC 11172-3 and 13818-3 (MP3), EBU Tech 3306 (RF64),
and the definitions of RIFF, AIFF, CAF, AU, and the Xing header.
"""

import io
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import IO, Any, cast

STRAY = 4096
"""Most bytes behind the sound that are ignored though they are neither a chunk nor a tag. They are
at most as many as those of the sound, too."""

_BLOCK = 1 << 16
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"<?xpacket")


class ContainerError(Exception):
    """The file contradicts itself. The message is one sentence without the file's path."""


class Spliced(io.RawIOBase):
    """A file to read, made of ranges of another file and of other bytes.

    Parameters
    ----------
    file : binary file
        It is not closed; its position changes.
    pieces : list of bytes or (int, int)
        Bytes, or where a range of `file` starts and ends.
    """

    def __init__(self, file: IO[bytes], pieces: list[bytes | tuple[int, int]]) -> None:
        self._file = file
        self._pieces = pieces
        lengths = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces]
        self._starts = [0, *accumulate(lengths)]
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; a damaged header cannot lead before the first byte."""
        self._at = max(0, offset + (0, self._at, self._starts[-1])[whence])
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Only the end of the file leaves a part of it empty."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and (read := self._read(len(view) - filled)):
            view[filled : filled + len(read)] = read
            filled += len(read)
        return filled

    def _read(self, most: int) -> bytes:
        """Read from the piece at the position."""
        if self._at >= self._starts[-1]:
            return b""
        number = bisect_right(self._starts, self._at) - 1
        piece, skip = self._pieces[number], self._at - self._starts[number]
        most = min(most, self._starts[number + 1] - self._at)
        if isinstance(piece, bytes):
            read = piece[skip : skip + most]
        else:
            self._file.seek(piece[0] + skip)
            read = self._file.read(most)
        self._at += len(read)
        return read


def _bytes(file: IO[bytes], start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _behind_tags(file: IO[bytes], at: int) -> int:
    """Find the end of the ID3 and APE tags that start at a position; of at most 100 tags."""
    for _ in range(100):
        head = _bytes(file, at, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            size = 0
            for byte in head[6:10]:  # seven bits each
                size = size << 7 | byte & 0x7F
            at += 10 + size
        elif head[:3] == b"TAG" and at:
            at += _TAG
        elif head[:8] == b"APETAGEX" and at and len(head) == 32:
            at += 32 + int.from_bytes(head[12:16], "little")
        else:
            break
    return at


def _view(file: IO[bytes], pieces: list[bytes | tuple[int, int]]) -> IO[bytes]:
    return cast("IO[bytes]", Spliced(file, pieces))


# --- Ogg ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Page:
    start: int
    end: int  # where the next page starts, or the file ends
    begins: bool  # it is the first page of a stream
    opus: bool  # of an Opus stream, if it is the first page
    position: int  # in samples, of the last packet that ends in the page; -1 if none does
    cut: bool  # it ends before its last byte


def ogg_start(file: IO[bytes]) -> int | None:
    """Find the first page of an Ogg file, behind any ID3 tags; None if it is no Ogg file.

    libsndfile skips these tags, too. Behind the hundredth, the file counts as Ogg unseen.
    """
    at = _behind_tags(file, 0)
    head = _bytes(file, at, 10)
    tag = head[:3] == b"ID3" and len(head) == 10
    return at if tag or head[:4] == b"OggS" else None


def ogg_parts(file: IO[bytes], start: int, in_time: Callable[[], None]) -> Iterator[IO[bytes]]:
    """Split an Ogg file into its chained parts; the last page of a part may be cut off.

    Parameters
    ----------
    file : binary file
    start : int
        As :func:`ogg_start` returns it.
    in_time : callable
        Called for every page, of which a hostile file has many; it raises an error to stop.

    Yields
    ------
    binary file
        Each part that has sound. The packets that are complete in a page that is cut off are put
        into a page of their own, since decoders ignore incomplete pages. A file that is one part
        with whole pages is yielded itself.
    """
    end = file.seek(0, io.SEEK_END)
    begin, alone, sound, rest = start, True, False, b""
    before, opus = 0, False
    last: _Page | None = None
    for page in _pages(file, start, end, in_time):
        if page.begins and last is not None and not last.begins:  # the next part
            if sound:
                alone = False
                yield _view(file, [(begin, last.start if last.cut else page.start), rest])
            begin, sound, before = page.start, False, 0
        opus = page.opus if page.begins else opus
        rest = _complete_packets(file, page, before, opus) if page.cut else b""
        sound |= page.position > 0 and (not page.cut or bool(rest))
        before = max(before, page.position)
        last = page
    if sound and last is not None and (begin > start or rest):
        yield _view(file, [(begin, last.start if last.cut else end), rest])
    elif alone:
        yield file


def _pages(file: IO[bytes], start: int, end: int, in_time: Callable[[], None]) -> Iterator[_Page]:
    at = start
    while at < end:
        in_time()
        head = _bytes(file, at, 27 + 255)
        count = head[26] if len(head) >= 27 else 255
        if head[:5] != b"OggS\0" or len(head) < 27 + count:
            at = _find_page(file, at + 1, end)
            continue
        size = 27 + count + sum(head[27 : 27 + count])
        following = at + size
        if following != end and _bytes(file, following, 4) != b"OggS":
            following = _find_page(file, at + 4, end)
        yield _Page(
            start=at,
            end=following,
            begins=bool(head[5] & 2),
            opus=head[27 + count :].startswith(b"OpusHead"),
            position=int.from_bytes(head[6:14], "little", signed=True),
            cut=following < at + size,
        )
        at = following


def _find_page(file: IO[bytes], at: int, end: int) -> int:
    """Find where the next page starts; the end of the file if there is none."""
    size = 512  # it is mostly near
    while block := _bytes(file, at, size):
        place = block.find(b"OggS")
        if place >= 0:
            return at + place
        at += max(1, len(block) - 3)
        size = _BLOCK
    return end


def _complete_packets(file: IO[bytes], page: _Page, before: int, opus: bool) -> bytes:
    """Make a page of the packets that are complete in a page that is cut off; empty if none is.

    `before` is the position at the end of the page before, in samples.
    """
    content = _bytes(file, page.start, page.end - page.start)
    count = content[26] if len(content) > 26 else 255
    if len(content) < 27 + count:
        return b""
    sizes, body = content[27 : 27 + count], content[27 + count :]
    ends = [0]  # of the complete packets, in bytes
    keep = total = 0
    for number, size in enumerate(sizes, start=1):
        total += size
        if total > len(body):
            break
        if size < 255:  # the packet's last segment
            keep = number
            ends.append(total)
    if not keep:
        return b""
    position = page.position  # too late now, but a Vorbis decoder counts the samples anyway
    if opus:
        position = before + (len(ends) - 1) * _opus_samples(body[ends[-2] : ends[-1]])
        position = min(position, 2**63 - 1)
    made = b"%b%b%b\0\0\0\0%c%b%b" % (
        *(content[:6], position.to_bytes(8, "little", signed=True), content[14:22]),
        *(keep, sizes[:keep], body[: ends[-1]]),
    )
    return made[:22] + _checksum(made) + made[26:]


def _opus_samples(packet: bytes) -> int:
    """Return the length of an Opus packet in samples at 48 kHz: RFC 6716, section 3.1."""
    if len(packet) < 2:
        return 0
    mode, frames = packet[0] >> 3, (1, 2, 2, packet[1] & 63)[packet[0] & 3]
    if mode < 12:
        return frames * (480, 960, 1920, 2880)[mode & 3]
    if mode < 16:
        return frames * (480, 960)[mode & 1]
    return frames * (120, 240, 480, 960)[mode & 3]


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _checksum(page: bytes) -> bytes:
    """Compute Ogg's CRC-32, which is zlib's with the bits of bytes and sum reversed."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2).to_bytes(4, "little")


# --- FLAC and MP3 ---------------------------------------------------------------------------------

_FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22")
"""The start of a FLAC file: its mark, and the head of the block that must come first."""

_MP3 = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]")
"""The start of an MP3 frame."""

_XING = re.compile(
    rb"\xff(?:"
    rb"[\xfa\xfb].(?:[\0-\xbf](?:..)?\0{32}|[\xc0-\xff](?:..)?\0{17})|"  # MPEG-1
    rb"[\xe2\xe3\xf2\xf3].(?:[\0-\xbf](?:..)?\0{17}|[\xc0-\xff](?:..)?\0{9})"  # MPEG-2
    rb")(?:Xing|Info)",
    re.DOTALL,
)
"""The start of an MP3 file whose first frame is a header: silence (stereo or mono, perhaps behind a
checksum of two bytes), and the header's mark."""

_TAG = 128
"""Bytes of an ID3 tag of the first version, which stands at the end of a file."""

_MPEG_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Bit rates of MP3 frames in kbit/s."""

_LONGEST = 64
"""More bytes than these patterns match."""


def parts(file: IO[bytes], in_time: Callable[[], None]) -> Iterator[IO[bytes]]:
    """Split a FLAC or MP3 file in which several files were joined; correct the size of others.

    Parameters
    ----------
    file : binary file
        Any file but Ogg.
    in_time : callable
        As for :func:`ogg_parts`.

    Returns
    -------
    iterator of binary files
        The parts. A file that is one part is returned itself.

    Raises
    ------
    ContainerError
        As :func:`with_true_size`.
    """
    start = _behind_tags(file, 0)
    head = _bytes(file, start, _LONGEST)
    if _FLAC.match(head):
        return _flac_parts(file, start, in_time)
    if _MP3.match(head):
        return _mp3_parts(file, start, in_time)
    return iter([with_true_size(file)])


def _flac_parts(file: IO[bytes], start: int, in_time: Callable[[], None]) -> Iterator[IO[bytes]]:
    begin, end = 0, file.seek(0, io.SEEK_END)
    for place in chain(_places(file, _FLAC, start + 1, in_time), [end]):
        yield _range(file, begin, place)
        begin = place


def _mp3_parts(file: IO[bytes], start: int, in_time: Callable[[], None]) -> Iterator[IO[bytes]]:
    """Split before each header, and where a header says that its part ends, if sound follows."""
    begin, end = 0, file.seek(0, io.SEEK_END)
    for place in chain(_places(file, _XING, start + 1, in_time), [end]):
        header = _XING.match(_bytes(file, start, _LONGEST))
        declared = _declared_bytes(file, start)
        # Programs that correct a header put theirs in front of it.
        if place < end and place - start < min(declared or STRAY, STRAY):
            continue
        rest = _behind_tags(file, start + declared) if declared else place
        if place - rest > STRAY and _MP3.match(_bytes(file, rest, 4)):
            yield _range(file, begin, rest)
            begin, header = rest, None
        last = None if header else _last_frame(file, begin, place, in_time)
        yield _longer(file, begin, last) if last else _range(file, begin, place)
        begin = start = place


class _Longer(Spliced):
    """A part of an MP3 file without a header, which claims to be longer than it is.

    The decoder estimates the length of the sound from the length of the file and the first frames,
    and would stop early if later frames are smaller.
    """

    def __init__(self, file: IO[bytes], begin: int, end: int) -> None:
        super().__init__(file, [(begin, end)])
        self._claimed = 40 * (end - begin) + _TAG  # no frame is 40 times as large as another

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, counted from the claimed end if `whence` says so."""
        if whence == io.SEEK_END:
            offset, whence = offset + self._claimed, io.SEEK_SET
        return super().seek(offset, whence)

    def _read(self, most: int) -> bytes:
        """Read as usual, and zeros where the decoder looks for a tag at the claimed end."""
        if not self._claimed - _TAG <= self._at < self._claimed:
            return super()._read(most)
        read = bytes(min(most, self._claimed - self._at))
        self._at += len(read)
        return read


def _last_frame(file: IO[bytes], begin: int, end: int, in_time: Callable[[], None]) -> int | None:
    """Find the end of the last whole frame of a part of an MP3 file.

    Returns None if all frames have the same bit rate, or if there is much between or behind them
    that is neither a frame nor a tag.
    """
    at = last = _behind_tags(file, begin)
    rates = set()
    while at < end:
        in_time()
        head = _bytes(file, at, 4)
        if size := _frame_size(head):
            if at + size > end:  # it is cut off
                break
            rates.add(head[2] >> 4)
            at = last = at + size
        elif (after := _behind_tags(file, at)) > at:
            at = after
        else:
            break
    return last if len(rates) > 1 and end - at <= STRAY else None


def _frame_size(head: bytes) -> int:
    """Return the size of an MP3 frame in bytes, from its first four; 0 if it is none."""
    if not _MP3.match(head) or head[2] >> 2 & 3 == 3:
        return 0
    version = head[1] >> 3 & 3
    rate = (44_100, 48_000, 32_000)[head[2] >> 2 & 3] >> (2, 0, 1, 0)[version]
    kilobits = (_MPEG_1 if version == 3 else _MPEG_2)[head[2] >> 4]
    return (144_000 if version == 3 else 72_000) * kilobits // rate + (head[2] >> 1 & 1)


def _declared_bytes(file: IO[bytes], start: int) -> int:
    """Return how many bytes an MP3 file has according to its header; 0 if that is not known."""
    head = _bytes(file, start, 2 * _LONGEST)
    match = _XING.match(head)
    if not match or len(head) < match.end() + 12:
        return 0
    flags, first, second = struct.unpack_from(">III", head, match.end())
    return int((second if flags & 1 else first) if flags & 2 else 0)


def _places(
    file: IO[bytes], pattern: re.Pattern[bytes], at: int, in_time: Callable[[], None]
) -> Iterator[int]:
    """Find where a pattern of fewer than `_LONGEST` bytes matches, from a position on."""
    found = -1
    while block := _bytes(file, at, _BLOCK):
        in_time()
        for match in pattern.finditer(block):
            if at + match.start() > found:
                found = at + match.start()
                yield found
        at += max(1, len(block) - _LONGEST) if len(block) == _BLOCK else len(block)


def _longer(file: IO[bytes], begin: int, end: int) -> IO[bytes]:
    return cast("IO[bytes]", _Longer(file, begin, end))


def _range(file: IO[bytes], begin: int, end: int) -> IO[bytes]:
    """Return a view of a part of a file; the file itself if the part is all of it."""
    whole = begin == 0 and end == file.seek(0, io.SEEK_END)
    return file if whole else _view(file, [(begin, end)])


# --- WAV and its relatives ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How a format writes its chunks: an identifier of four bytes, a size, and the content."""

    first: int  # where the first chunk starts
    form: str  # of the size, for `struct`
    align: int  # chunks start at multiples of it
    name: bytes  # of the chunk with the sound
    before: int  # bytes in that chunk before the sound


_RIFF = _Layout(12, "<I", 2, b"data", 0)
_AIFF = _Layout(12, ">I", 2, b"SSND", 8)
_LAYOUTS = {
    b"RIFFWAVE": _RIFF,
    b"RF64WAVE": _RIFF,
    b"BW64WAVE": _RIFF,
    b"RIFXWAVE": replace(_RIFF, form=">I"),
    b"FORMAIFF": _AIFF,
    b"FORMAIFC": _AIFF,
}
_CAF = _Layout(8, ">q", 1, b"data", 4)

_NO_CHUNK = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b"data", b"SSND")
"""Identifiers behind the sound that begin more sound."""

_TEXT = re.compile(rb"LIST|id3 |ID3 |bext|iXML|_PMX|cue |smpl|NAME|AUTH|ANNO|COMT|info|midi|strg")
"""Chunks that programs write behind the sound."""


@dataclass(frozen=True)
class _Sound:
    """Where the sound is and how long, according to the header, in bytes."""

    start: int
    size: int  # negative if unknown
    field: int  # where the size stands
    form: str  # how it stands there, for `struct`
    layout: _Layout | None  # None if the format has no chunks


def with_true_size(file: IO[bytes]) -> IO[bytes]:
    """Correct the size of the sound in the header of a WAV, RF64, AIFF, CAF or AU file.

    A program that writes while it records does not know the size yet, and writes 0 or the largest
    number. Then the sound lasts until the chunks with text at the end, or until the file ends.

    Parameters
    ----------
    file : binary file
        Any file.

    Returns
    -------
    binary file
        The file itself, or a view of it with the true size.

    Raises
    ------
    ContainerError
        When the header describes a part of the sound only.
    """
    sound = _sound(file)
    end = file.seek(0, io.SEEK_END)
    if sound is None or sound.start > end:
        return file
    there = end - sound.start
    if 0 <= sound.size <= there:
        behind = there - sound.size
        if behind <= min(STRAY, sound.size) or _described(file, sound, end):
            return file
        if sound.size:
            raise ContainerError(
                f"The header describes {sound.size:,} bytes of sound, but {behind:,} more bytes"
                " follow: save the recording again."
            )
    true = _end_of_sound(file, sound, end) - sound.start
    before = sound.layout.before if sound.layout else 0
    most = int.from_bytes(b"\xff" * struct.calcsize(sound.form)) >> sound.form[1].islower()
    size = struct.pack(sound.form, min(true + before, most))
    return _view(file, [(0, sound.field), size, (sound.field + len(size), sound.start + true)])


def _sound(file: IO[bytes]) -> _Sound | None:
    """Read the header; None if it is of another format or does not mention sound."""
    head = _bytes(file, 0, 12)
    if head[:4] == b".snd" and len(head) == 12:
        start, size = struct.unpack(">II", head[4:])
        return _Sound(start, size, 8, ">I", None)
    layout = _CAF if head[:4] == b"caff" else _LAYOUTS.get(head[:4] + head[8:])
    if layout is None:
        return None
    large = None
    for name, at, size in _chunks(file, layout.first, layout):
        if name == b"ds64":  # where RF64 keeps the sizes, in 64 bits
            large = at + 8
        elif name == layout.name and large:
            size = int.from_bytes(_bytes(file, large, 8), "little")  # noqa: PLW2901  # the true one
            return _Sound(at, size, large, "<Q", layout)
        elif name == layout.name:
            field = at - struct.calcsize(layout.form)
            return _Sound(at + layout.before, size - layout.before, field, layout.form, layout)
    return None


def _chunks(file: IO[bytes], at: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, where its content starts, and its size, up to nonsense."""
    length = 4 + struct.calcsize(layout.form)
    for _ in range(1_000):
        head = _bytes(file, at, length)
        if len(head) < length or not all(0x20 <= byte < 0x7F for byte in head[:4]):
            return
        (size,) = struct.unpack(layout.form, head[4:])
        yield head[:4], at + length, size
        if size < 0:
            return
        at += length + size
        at += -at % layout.align


def _described(file: IO[bytes], sound: _Sound, end: int) -> bool:
    """Whether everything behind the sound is chunks, tags or zeros."""
    at = sound.start + sound.size
    starts = {at, at + at % sound.layout.align} if sound.layout else {at}
    return any(_is_padding(file, _after_chunks(file, sound, start, end)) for start in starts)


def _after_chunks(file: IO[bytes], sound: _Sound, at: int, end: int) -> int:
    """Find where the chunks from a position on end."""
    if sound.layout:
        for name, start, size in _chunks(file, at, sound.layout):
            if size > end - start and _TEXT.match(name):  # the file is cut off in it
                return end
            if name in _NO_CHUNK or not 0 <= size <= end - start:
                break
            at = start + size
            at += at % sound.layout.align
    return at


def _is_padding(file: IO[bytes], at: int) -> bool:
    """Whether the rest of the file is a tag, zeros, or too short for a chunk."""
    block = _bytes(file, at, _BLOCK)
    if len(block) < 8 or block.startswith(_TAGS):
        return True
    while block:
        if block.count(0) < len(block):
            return False
        at += len(block)
        block = _bytes(file, at, _BLOCK)
    return True


def _end_of_sound(file: IO[bytes], sound: _Sound, end: int) -> int:
    """Find where chunks with text begin, if the file ends with them."""
    if sound.layout is None:
        return end
    length = 4 + struct.calcsize(sound.layout.form)
    start = max(sound.start, end - _BLOCK)
    tail = _bytes(file, start, end - start)
    ends = {len(tail)}  # where a chunk must end, so that only chunks follow
    for match in reversed(list(_TEXT.finditer(tail, 0, len(tail) - length))):
        at = match.start() + length
        (size,) = struct.unpack(sound.layout.form, tail[at - length + 4 : at])
        if not ends.isdisjoint({at + size, at + size + size % sound.layout.align}):
            ends.add(match.start())
    return start + min(ends)
