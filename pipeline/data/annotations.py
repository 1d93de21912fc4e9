"""Read labels for parts of recordings, and cut these parts out.

Two formats are read, both as text files beside the recording: label tracks that Audacity exports,
and selection tables of Raven. The content decides which it is, and other text files are notes.
"""

import codecs
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath

import pandas as pd
import soundfile
from tqdm.auto import tqdm

from pipeline import cpus, paths
from pipeline.errors import UserError
from pipeline.sound import decoding

PARTS = paths.DOWNLOADS / "parts"
"""Where parts are cut out before they are checked. Nothing is written beside the recordings."""

COLUMNS = ["source", "start", "end", "problem"]
"""Columns that a table of clips has in addition if there are parts: the recording's path, where the
part begins and ends in seconds, and why it cannot be used."""

ENDINGS = re.compile(r"(\.Table\.\d+)?\.selections$|[._]labels$", re.IGNORECASE)
"""What the name of an annotation file may have between the recording's name and ``.txt``."""

Row = tuple[str, list[str]]
"""Where a line stands, and its cells."""

RAVEN_TIMES = ("begin time (s)", "end time (s)")

RAVEN_LABELS = (
    *(
        "annotation",
        "annotations",
        "label",
        "labels",
        "species",
        "common name",
        "class",
        "category",
    ),
    *("tag", "call type", "sound type", "type", "sound", "name", "code"),
)
"""Names of annotation columns in the order in which they are looked for. Annotators choose them."""

RAVEN_OWN = re.compile(
    r"selection|view|channel|begin (file|path|date|clock time|hour)|end (file|path|clock time)"
    r"|.*\(.*\)|score|rank|occupancy|date.*|notes?|comments?",
)
"""Columns that do not hold labels: Raven's own, measurements, and remarks."""

NUMBER = re.compile(r"[+-]?\d{1,9}([.,]\d{0,12})?|[+-]?[.,]\d{1,12}", re.ASCII)

OVERLAP = 0.1
"""Share of a part that may overlap a part with another label. Hand-drawn edges rarely meet."""

LARGEST = 10_000_000
"""Bytes of a text file beyond which it is not looked into, if no sound file has its name."""

BEYOND = 0.1
"""Seconds that a part may end after its recording, because editors round."""


@dataclass(frozen=True)
class Part:
    """A labelled part of a recording.

    Attributes
    ----------
    where : str
        File and line that it stands in.
    start, end : float
        Seconds.
    label : str
        Empty if the annotator left it out.
    problem : str
        Why it cannot be used, in one sentence; or empty.
    """

    where: str
    start: float = 0.0
    end: float = 0.0
    label: str = ""
    problem: str = ""


def parse(text: str, file: str) -> list[Part] | None:
    """Read a label track of Audacity or a selection table of Raven.

    Parameters
    ----------
    text : str
    file : str
        Its name, for messages.

    Returns
    -------
    list of Part, or None
        Each part once, in the order of the file. None if it is neither of the two.

    Raises
    ------
    UserError
        When a selection table has no column with labels, or is about several sound files.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [
        (f"{file}, line {number}", line.split("\t"))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        return None
    names = [name.strip().casefold() for name in rows[0][1]]
    if set(RAVEN_TIMES) <= set(names):
        return _raven(names, rows[1:], file)
    # Audacity writes the frequencies of a selection in a second line, after a backslash.
    rows = [(where, cells) for where, cells in rows if cells[0].strip() != "\\"]
    good = sum(len(cells) > 2 and all(map(_is_number, cells[:2])) for _, cells in rows)
    if 2 * good <= len(rows):
        return None
    return _once(
        _part(where, cells[0], cells[1], " ".join(cells[2:])) for where, cells in _padded(rows, 3)
    )


def _raven(names: list[str], rows: list[Row], file: str) -> list[Part]:
    rows = list(_padded(rows, len(names)))
    column = _label_column(names, rows, file)
    if "begin file" in names:
        sounds = {cells[names.index("begin file")].strip() for _, cells in rows} - {""}
        if len(sounds) > 1:  # the times would be those in the sequence of these files
            raise UserError(
                f"{file} selects parts of {len(sounds)} sound files: save one selection table per"
                " sound file."
            )
    begin, end = (names.index(name) for name in RAVEN_TIMES)
    return _once(_part(where, cells[begin], cells[end], cells[column]) for where, cells in rows)


def _label_column(names: list[str], rows: list[Row], file: str) -> int:
    for name in RAVEN_LABELS:
        if name in names:
            return names.index(name)
    others = [
        place
        for place, name in enumerate(names)
        if not RAVEN_OWN.fullmatch(name)
        and any(cells[place].strip() and not _is_number(cells[place]) for _, cells in rows)
    ]
    if len(others) == 1:
        return others[0]
    if not rows:
        return 0  # nobody reads it
    raise UserError(
        f"{file} has no column that is known to hold labels: name the column with the labels"
        " Annotation."
    )


def _padded(rows: list[Row], columns: int) -> Iterator[Row]:
    return ((where, cells + [""] * (columns - len(cells))) for where, cells in rows)


def _is_number(cell: str) -> bool:
    return NUMBER.fullmatch(cell.strip()) is not None


def _part(where: str, start: str, end: str, label: str) -> Part:
    for cell in (start, end):
        if not _is_number(cell):
            problem = f"{where}: {cell.strip()[:40]!a} is not a time in seconds."
            return Part(where, problem=problem)
    first, last = (float(cell.strip().replace(",", ".")) for cell in (start, end))
    label = label.strip()
    problem = ""
    if first < 0:
        problem = f"{where}: the part begins before the recording."
    elif first == last:
        problem = f"{where}: the label marks a point in time and not a part, so give it a length."
    elif first > last:
        problem = f"{where}: the part ends at {last:g} s, before it begins at {first:g} s."
    elif not label:
        problem = f"{where}: the part has no label."
    elif not label.isprintable():
        label, problem = "", f"{where}: the label contains a character that cannot be printed."
    return Part(where, first, last, label, problem)


def _once(parts: Iterable[Part]) -> list[Part]:
    """Leave out repetitions: Raven writes a selection once for every view that shows it."""
    kept: dict[object, Part] = {}
    for part in parts:
        key = (part.start, part.end, part.label) if part.end else part.where
        kept.setdefault(key, part)
    return list(kept.values())


def without_contradictions(parts: Sequence[Part]) -> list[Part]:
    """Mark parts that overlap a part with another label, because they hold both sounds.

    Parameters
    ----------
    parts : sequence of Part
        Those of one recording.

    Returns
    -------
    list of Part
        In the same order.
    """
    usable = sorted((part for part in parts if not part.problem), key=lambda part: part.start)
    problems: dict[Part, str] = {}
    for place, one in enumerate(usable):
        for other in usable[place + 1 :]:
            if other.start >= one.end:
                break
            shared = min(one.end, other.end) - other.start
            shorter = min(one.end - one.start, other.end - other.start)
            if one.label != other.label and shared > OVERLAP * shorter:
                for part, by in ((one, other), (other, one)):
                    problems[part] = (
                        f"{part.where}: the part overlaps another one that has the label"
                        f" {by.label} ({by.where})."
                    )
    return [replace(part, problem=problems.get(part, part.problem)) for part in parts]


def files(root: Path, sounds: Iterable[str]) -> dict[str, dict[str, list[Part]]]:
    """Find and read the annotation files beside recordings.

    Parameters
    ----------
    root : Path
        The dataset's folder.
    sounds : iterable of str
        POSIX paths of the recordings, relative to `root`.

    Returns
    -------
    dict
        For each recording that has annotation files: their paths, relative to `root`, and parts.

    Raises
    ------
    UserError
        When a selection table cannot be read, or when a file could belong to two recordings.
    """
    owners = defaultdict(list)
    for sound in sounds:
        path = PurePosixPath(sound)
        owners[path.parent, path.stem].append(sound)
    found: dict[str, dict[str, list[Part]]] = defaultdict(dict)
    for folder in sorted({folder for folder, _ in owners}):
        for file in sorted((root / folder).glob("[!.]*")):
            stems = [s for s in (file.stem, ENDINGS.sub("", file.stem)) if (folder, s) in owners]
            if not stems or file.suffix.lower() != ".txt" or not file.is_file():
                continue
            name = (folder / file.name).as_posix()
            parts = parse(as_text(file.read_bytes()), name)
            if parts is None:
                if file.stem.lower().endswith(".selections"):
                    raise UserError(
                        f"{name} is not a selection table of Raven: its first line must name the"
                        " columns Begin Time (s) and End Time (s)."
                    )
                continue
            both = owners[folder, stems[0]]
            if len(both) > 1:
                raise UserError(
                    f"{name} could belong to {both[0]} or to {both[1]}: rename one of them."
                )
            found[both[0]][name] = parts
    return dict(found)


def is_annotation(file: Path) -> bool:
    """Whether a file is a label track or a selection table, whatever its name before ``.txt``."""
    if file.suffix.lower() != ".txt" or file.stat().st_size > LARGEST:
        return False
    try:
        return bool(parse(as_text(file.read_bytes()), file.name))
    except UserError:  # a selection table without labels
        return True


def unlabelled(clips: pd.DataFrame) -> str:
    """Warn of whole recordings in folders where others have annotations; empty if there are none.

    Parameters
    ----------
    clips : DataFrame
        ``path`` and ``label``, and ``source`` if there are parts.
    """
    if "source" not in clips:
        return ""
    parts = clips["source"].notna()
    places = {str(PurePosixPath(path).parent) for path in clips["source"].dropna()}
    whole = clips[~parts]
    beside = whole[whole["path"].map(lambda path: str(PurePosixPath(path).parent)).isin(places)]
    if beside.empty:
        return ""
    path, label = beside[["path", "label"]].iloc[0]
    more = f", and so {'does' if len(beside) == 2 else 'do'} {len(beside) - 1} more"
    return (
        f"{path} has no annotations, although recordings beside it do, and counts as a clip of"
        f" {label}{more if len(beside) > 1 else ''}: annotate it or move it away if that is wrong."
    )


def expand(table: pd.DataFrame, annotated: dict[str, dict[str, list[Part]]]) -> pd.DataFrame:
    """Put labelled parts in the place of the recordings that they belong to.

    Parameters
    ----------
    table : DataFrame
        One row per file: ``path``, ``label``, ``recording`` and ``fold``.
    annotated : dict
        As :func:`files` returns it.

    Returns
    -------
    DataFrame
        `table` itself if no recording has annotations. Otherwise with :data:`COLUMNS`, and one row
        per part instead of the recording. The path of a part is that of the recording, as a folder,
        and a FLAC file named after its start and end, which :func:`cut` makes.
    """
    if not annotated:
        return table
    parts = pd.DataFrame(
        [row for sound, of_sound in annotated.items() for row in _rows(sound, of_sound)],
        columns=["path", "label", *COLUMNS],
    ).astype({"path": "str", "label": "str", "source": "str", "problem": "str"})
    shared = table.drop(columns="label").rename(columns={"path": "source"})
    others = table[~table["path"].isin(annotated)]
    return pd.concat([others, parts.merge(shared, on="source")], ignore_index=True)


def _rows(sound: str, of_sound: dict[str, list[Part]]) -> Iterator[tuple[object, ...]]:
    parts = without_contradictions(_once(part for file in of_sound.values() for part in file))
    if not parts:
        problem = f"{', '.join(of_sound)} selects no part of the recording."
        yield sound, pd.NA, sound, pd.NA, pd.NA, problem
    used: set[str] = set()
    for part in parts:
        name = f"{part.start:09.3f}-{part.end:09.3f}"
        same = 1
        while (path := f"{sound}/{name}{f'_{same}' if same > 1 else ''}.flac") in used:
            same += 1
        used.add(path)
        label = pd.NA if part.problem else part.label
        yield path, label, sound, part.start, part.end, part.problem or pd.NA


def as_text(content: bytes) -> str:
    """Decode a text file: UTF-8, UTF-16 with a mark, or else Latin-1."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def file_of(root: Path, path: str) -> Path:
    """Return the file of a clip: a part that was cut out, or one in the dataset's folder."""
    part = PARTS / path
    return part if part.is_file() else root / path


def cut(root: Path, table: pd.DataFrame) -> dict[str, str]:
    """Cut the labelled parts of recordings out into :data:`PARTS`, in constant memory.

    Parameters
    ----------
    root : Path
        The dataset's folder.
    table : DataFrame
        As :func:`expand` returns it, with corrected labels.

    Returns
    -------
    dict
        Why parts cannot be used, by their paths: because of their line in the annotation file,
        because they are not in the recording, or because it cannot be decoded.
    """
    shutil.rmtree(PARTS, ignore_errors=True)
    if "source" not in table:
        return {}
    known = table.dropna(subset="problem")
    problems = dict(zip(known["path"], known["problem"], strict=True))
    usable = table["source"].notna() & table["label"].notna() & table["problem"].isna()
    recordings = list(table[usable].groupby("source"))
    with ThreadPool(cpus.available()) as pool:
        found = pool.imap(lambda one: _cut_recording(root, str(one[0]), one[1]), recordings)
        for more in tqdm(found, "cut", len(recordings), unit="recording", disable=None):
            problems |= more
    return problems


def _cut_recording(root: Path, source: str, parts: pd.DataFrame) -> dict[str, str]:
    """Write the parts of one recording; return why some of them cannot be written, by path."""
    file = root / source
    if not file.is_file():
        return dict.fromkeys(parts["path"], f"{source} is missing.")
    try:
        info = decoding.probe(file)
        problems, pieces = {}, []
        for path, start, end in zip(parts["path"], parts["start"], parts["end"], strict=True):
            if end > info.seconds + BEYOND or start >= info.seconds:
                problems[path] = (
                    f"The part from {start:g} s to {end:g} s is not in {source}, which is"
                    f" {info.seconds:.3f} s long."
                )
            else:
                first, last = (round(seconds * info.sample_rate) for seconds in (start, end))
                pieces.append((first, last, path))
        _write(file, info, sorted(pieces))
    except decoding.AudioError as error:
        return dict.fromkeys(parts["path"], f"{source}: {error}")
    except soundfile.SoundFileError:
        why = f"{source} cannot be cut: FLAC cannot hold its sample rate or number of channels."
        return dict.fromkeys(parts["path"], why)
    return problems


def _write(file: Path, info: decoding.AudioInfo, pieces: list[tuple[int, int, str]]) -> None:
    # FLAC cannot hold samples above full scale, as recorders with floating point write them.
    scale = 1 / max(1.0, info.peak)
    with ExitStack() as stack:
        writers: dict[str, soundfile.SoundFile] = {}
        begin = 0
        for block in decoding.channel_blocks(file):
            end = begin + len(block)
            for first, last, path in pieces:
                if first >= end:
                    break
                if last <= begin:
                    continue
                if path not in writers:
                    (PARTS / path).parent.mkdir(parents=True, exist_ok=True)
                    shape = {"samplerate": info.sample_rate, "channels": info.channels}
                    sound = soundfile.SoundFile(PARTS / path, "w", subtype="PCM_24", **shape)
                    writers[path] = stack.enter_context(sound)
                writers[path].write(block[max(0, first - begin) : last - begin] * scale)
                if last <= end:
                    writers[path].close()
            begin = end
