"""Make folders of recordings as people have them, and check what the first two stages do with them.

:func:`folders` is a hypothesis strategy. It starts with a plain folder, one sub-folder per label,
and adds a few kinds of mess. :func:`faults` makes a folder on the disk, runs ``download`` and
``featurize`` on it in this process, and returns everything that is wrong with the result. The user
must get either complete, consistent outputs or one sentence that says what to do.
"""

import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import paths, tables
from pipeline.data import feature_store, split
from pipeline.errors import UserError
from pipeline.stages import download, featurize
from tests.service import evil

PARAMS = Path(__file__).parents[1] / "params.yaml"

Draw = Callable[[st.SearchStrategy[Any]], Any]

WORDS = ("dog", "rain", "door bell", "siren")
ODD_LABELS = (
    *("0", "7", "007", "1", "1.0", "1e5", "0x10", "NA", "nan", "None", "null", "true", "no", "-"),
    *("=1+1", "@cmd", "#1", "a,b", 'say "hi"', "it's", "50 %", "$HOME", "<b>", "{x}", "[x]", "*"),
    *("🐕", "café", "cafe\u0301", "雨", "مطر", "long " * 40, " leading", "trailing ", "dog.wav"),
)
ODD_NAMES = (
    *(
        "a b",
        "a,b",
        'a"b',
        "a'b",
        "a;b",
        "🐕",
        "雨",
        "cafe\u0301",
        "NA",
        "007",
        "1.0",
        "=1+1",
        "-rf",
    ),
    *(
        "#1",
        "50%",
        "%41",
        "$HOME",
        "~",
        "a\\b",
        "C:\\x",
        "a:b",
        "<b>",
        "x.wav.",
        "a..b",
        "name" * 60,
    ),
    *(" leading", "trailing ", "new\nline", "carriage\rreturn", "tab\tstop", "bell\a", "caf\udce9"),
    *("\u202etxt", "\ufeffmark", "a&b=c", "!important", "(1)", "x?y", "x*y", "|", "--help", "\x7f"),
)
FORMS = {  # ending: libsndfile's format and subtypes
    ".wav": ("WAV", ("PCM_16", "PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
    ".flac": ("FLAC", ("PCM_16", "PCM_24")),
    ".ogg": ("OGG", ("VORBIS",)),
    ".opus": ("OGG", ("OPUS",)),
    ".mp3": ("MP3", ("MPEG_LAYER_III",)),
    ".aiff": ("AIFF", ("PCM_16", "PCM_24")),
    ".au": ("AU", ("PCM_16", "ULAW")),
    ".caf": ("CAF", ("PCM_16",)),
    ".w64": ("W64", ("PCM_16",)),
}
RATES = {  # Hz; the others take any
    ".mp3": (8_000, 16_000, 22_050, 44_100, 48_000),
    ".opus": (8_000, 16_000, 48_000),
}
ANY_RATE = (4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000)


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes
    ----------
    what : str
        What it is in words, which failures show.
    data : bytes
    seconds : float or None
        How long the sound is, if it is a whole sound.
    """

    what: str
    data: bytes
    seconds: float | None = None

    def __repr__(self) -> str:
        return f"<{self.what}, {len(self.data)} bytes>"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(repr(self))  # hypothesis would print the data


@dataclass
class Folder:
    """A folder of recordings that nobody prepared.

    Attributes
    ----------
    files : dict of str to Content
        By POSIX path; bytes that are not UTF-8 are lone surrogates.
    links : dict of str to str
        Symbolic links and where they point, relative to the folder that they are in.
    settings : dict of str to dict
        Changes to the sections ``dataset`` and ``features`` of ``params.yaml``.
    folder : dict
        Changes to ``dataset.folder``.
    mess : list of str
        The kinds of mess that were added.
    """

    files: dict[str, Content]
    settings: dict[str, dict[str, Any]]
    folder: dict[str, Any]
    links: dict[str, str] = field(default_factory=dict)
    mess: list[str] = field(default_factory=list)

    def clips(self) -> list[str]:
        """Return the paths of the files that are in the folder of a label."""
        return [path for path in self.files if "/" in path]

    def make(self, root: Path) -> None:
        """Write the folder; a name that this file system refuses is left out."""
        for path, content in self.files.items():
            target = root / path
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.data)
            except (OSError, UnicodeError):
                if sys.platform == "linux":
                    raise
        for path, target_of_link in self.links.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target_of_link)


# ---------------------------------------------------------------------------------- sounds


@cache
def sound(
    ending: str,
    subtype: str,
    rate: int,
    channels: int,
    seconds: float,
    number: int,
    level: float = 0.3,
    offset: float = 0.0,
) -> Content:
    """Return a file with noise; every `number` gives other noise."""
    noise = np.random.default_rng(number).normal(0, level, (round(seconds * rate), channels))
    wave = np.clip(noise + offset, -1, 1).astype(np.float32)
    data = evil.written(FORMS[ending][0], subtype, wave, rate)
    shape = f"{seconds:g} s, {rate} Hz, {channels} ch"
    what = f"{subtype} {shape}, noise {number} x {level:g} + {offset:g}"
    return Content(what, data, seconds)


def any_sound(draw: Draw, number: int, ending: str | None = None) -> tuple[str, Content]:
    """Draw an ending and a sound of that format."""
    ending = ending or draw(st.sampled_from(sorted(FORMS)))
    rate = draw(st.sampled_from(RATES.get(ending, ANY_RATE)))
    subtype = draw(st.sampled_from(FORMS[ending][1]))
    channels = draw(st.sampled_from((1, 1, 2) if ending == ".mp3" else (1, 1, 2, 3, 6)))
    seconds = draw(st.sampled_from((0.1, 0.25, 0.5, 1.0)))
    return ending, sound(ending, subtype, rate, channels, seconds, number)


def plain(number: int, seconds: float = 0.25) -> Content:
    """Return a small WAV file."""
    return sound(".wav", "PCM_16", 8_000, 1, seconds, number)


# ----------------------------------------------------------------------------------- mess
# Each function adds one kind of mess to a folder; `new` numbers its sounds.


def _new(folder: Folder) -> int:
    """Return a number for a sound that no file of the folder has yet."""
    return len(folder.files) + 1_000


def _label(draw: Draw, folder: Folder) -> str:
    return str(draw(st.sampled_from(sorted({path.split("/")[0] for path in folder.clips()}))))


def _clip(draw: Draw, folder: Folder) -> str:
    return str(draw(st.sampled_from(folder.clips())))


def _formats(draw: Draw, folder: Folder) -> None:
    for number, path in enumerate(folder.clips()):
        ending, content = any_sound(draw, number)
        del folder.files[path]
        folder.files[path.rpartition(".")[0] + ending] = content


def _endings(draw: Draw, folder: Folder) -> None:
    for ending in draw(
        st.lists(
            st.sampled_from(
                (".WAV", ".Wave", ".xyz", "", ".mp3", ".ogg", ".flac", ".raw", ".wav.bak", ".m4a")
            ),
            min_size=1,
            max_size=4,
        )
    ):
        folder.files[f"{_label(draw, folder)}/ending {_new(folder)}{ending}"] = plain(_new(folder))


def _nesting(draw: Draw, folder: Folder) -> None:
    below = draw(st.sampled_from(("2024/may/day 1", "a/b/c/d/e/f/g/h", "dog", "clips.wav", "NA")))
    for _ in range(draw(st.integers(1, 3))):
        new = _new(folder)
        folder.files[f"{_label(draw, folder)}/{below}/{new}.wav"] = plain(new)


def _links(draw: Draw, folder: Folder) -> None:
    label, clip = _label(draw, folder), _clip(draw, folder)
    kinds = {
        f"{label}/link to a clip.wav": "../" + clip,
        f"{label}/broken.wav": "nowhere.wav",
        f"{label}/circular": "..",
        f"{label}/itself.wav": "itself.wav",
        "linked label": clip.split("/")[0],
        f"{label}/to another label": "../" + clip.split("/")[0],
        f"{label}/link to a note.wav": "../clip list.txt",
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=3, unique=True))
    folder.links |= {path: kinds[path] for path in chosen}


def _hidden(draw: Draw, folder: Folder) -> None:
    label, new = _label(draw, folder), _new(folder)
    system = Content("system file", b"\0\0\0\1Bud1\0")
    kinds = {
        ".DS_Store": system,
        f"{label}/.DS_Store": system,
        f"{label}/Thumbs.db": system,
        f"{label}/desktop.ini": Content("note", b"[.ShellClassInfo]\r\n"),
        f"{label}/._1.wav": Content("AppleDouble", b"\0\5\x16\7\0\2\0\0Mac OS X        "),
        f"__MACOSX/{label}/._1.wav": Content("AppleDouble", b"\0\5\x16\7\0\2\0\0Mac OS X        "),
        f".trash/{new}.wav": plain(new),
        f"{label}/.hidden {new}.wav": plain(new),
        "lost+found/1": system,
        f"{label}/1.wav.part": Content("part of a download", plain(new).data[:100]),
        f"{label}/~$notes.docx": system,
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4, unique=True))
    folder.files |= {path: kinds[path] for path in chosen}


def _names(draw: Draw, folder: Folder) -> None:
    for name in draw(st.lists(st.sampled_from(ODD_NAMES), min_size=1, max_size=4, unique=True)):
        folder.files[f"{_label(draw, folder)}/{name}.wav"] = plain(_new(folder))


def _any_names(draw: Draw, folder: Folder) -> None:
    text = st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=20)
    usable = text.filter(lambda name: name.strip(".") != "")
    for name in draw(st.lists(usable, min_size=1, max_size=3, unique=True)):
        try:
            os.fsencode(name)  # half of a surrogate pair has no bytes
        except UnicodeEncodeError:
            continue
        folder.files[f"{_label(draw, folder)}/{name}.wav"] = plain(_new(folder))


def _odd_labels(draw: Draw, folder: Folder) -> None:
    odd = draw(st.lists(st.sampled_from(ODD_LABELS), min_size=1, max_size=3, unique=True))
    old = sorted({path.split("/")[0] for path in folder.clips()})
    renamed = dict(zip(old, odd, strict=False))
    for path in folder.clips():
        label, _, name = path.partition("/")
        if label in renamed:
            folder.files[f"{renamed[label]}/{name}"] = folder.files.pop(path)


def _imbalance(draw: Draw, folder: Folder) -> None:
    label = _label(draw, folder)
    for _ in range(draw(st.integers(10, 40))):
        new = _new(folder)
        folder.files[f"{label}/more-{new}.wav"] = plain(new, 0.1)


def _few(draw: Draw, folder: Folder) -> None:
    for number in range(draw(st.integers(1, 4))):
        folder.files[f"rare/{number}.wav"] = plain(_new(folder))


def _duplicates(draw: Draw, folder: Folder) -> None:
    for number in range(draw(st.integers(1, 4))):
        clip = _clip(draw, folder)
        label = draw(st.sampled_from((clip.split("/")[0], _label(draw, folder))))
        ending = Path(clip).suffix if len(Path(clip).suffix) < 6 else ".wav"
        folder.files[f"{label}/copy {number} of it{ending}"] = folder.files[clip]


def _damage(draw: Draw, folder: Folder) -> None:
    kinds = st.sampled_from(("not sound", "mutated", "cut", "good then garbage"))
    for _ in range(draw(st.integers(1, 3))):
        kind, new = draw(kinds), _new(folder)
        if kind == "not sound":
            name = draw(st.sampled_from(sorted(set(evil.not_sound()) - {"zip bomb"})))
            content = Content(name, evil.not_sound()[name])
        elif kind == "mutated":
            content = Content(*evil.mutated(7, draw(st.integers(0, 10_000))))
        else:
            whole = any_sound(draw, new)[1]
            size = draw(st.integers(1, len(whole.data)))
            rest = b"" if kind == "cut" else b"\xff\0" * 500
            content = Content(f"{whole.what}, {kind} at {size}", whole.data[:size] + rest)
        ending = draw(st.sampled_from((".wav", ".ogg", ".mp3", ".flac", ".m4a")))
        folder.files[f"{_label(draw, folder)}/damaged {new}{ending}"] = content


def _nothing_to_hear(draw: Draw, folder: Folder) -> None:
    for _ in range(draw(st.integers(1, 3))):
        new = _new(folder)
        seconds = draw(st.sampled_from((0.0, 1 / 8_000, 0.01, 0.05, 0.3, 1.0)))
        level, offset = draw(st.sampled_from(((0.0, 0.0), (0.0, 0.5), (1e-6, 0.0), (0.01, 0.9))))
        content = sound(".wav", "FLOAT", 8_000, 1, seconds, new, level, offset)
        folder.files[f"{_label(draw, folder)}/nothing {new}.wav"] = content
    if draw(st.booleans()):
        left = np.random.default_rng(_new(folder)).normal(0, 0.3, 4_000)
        both = np.stack([left, -left], axis=1).astype(np.float32)
        content = Content("opposite channels", evil.written("WAV", "FLOAT", both, 8_000), 0.5)
        folder.files[f"{_label(draw, folder)}/opposite.wav"] = content


def _chained(draw: Draw, folder: Folder) -> None:
    for ending, subtype in ((".ogg", "VORBIS"), (".opus", "OPUS")):
        one, two = (sound(ending, subtype, 16_000, 1, 0.3, n).data for n in range(2))
        folder.files[f"{_label(draw, folder)}/chained{ending}"] = Content("chained", one + two, 0.6)
    whole = bytearray(plain(_new(folder)).data)
    whole[40:44] = (32).to_bytes(4, "little")
    claims = Content("a data chunk that claims 2 ms", bytes(whole), 0.25)
    folder.files[f"{_label(draw, folder)}/claims 2 ms.wav"] = claims


def _beside(draw: Draw, folder: Folder) -> None:
    label, new = _label(draw, folder), _new(folder)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{label}/old.wav", plain(new).data)
    kinds = {
        "README.md": Content("note", b"# My sounds\n"),
        "clip list.txt": Content("note", b"one\ntwo\n"),
        f"{label}/notes.txt": Content("note", "Mikrofon in der Küche\n".encode("cp1252")),
        "backup.zip": Content("archive", packed.getvalue()),
        f"{label}/old.zip": Content("archive", packed.getvalue()),
        f"{label}/cover.jpg": Content("picture", b"\xff\xd8\xff\xe0" + bytes(200)),
        f"{label}/session.aup3": Content("Audacity project", b"SQLite format 3\0" + bytes(500)),
        "labels.csv": Content("table", b"path,label\n"),
        "clips.xlsx": Content("table", b"PK\3\4" + bytes(100)),
        f"{label}/clips.csv": Content("table", b"path,label\nx,y\n"),
        "loose.wav": plain(new),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=5, unique=True))
    folder.files |= {path: kinds[path] for path in chosen}


def _table(draw: Draw, folder: Folder) -> None:
    """Add ``clips.csv``, in the ways in which people and spreadsheets write it."""
    columns = draw(
        st.lists(
            st.sampled_from(("label", "fold", "recording", "salience", "note", "Label")),
            max_size=4,
            unique=True,
        )
    )
    rows = []
    listed = [path for path in folder.clips() if draw(st.integers(0, 9)) > 0]
    for number, path in enumerate(listed):
        cells = {
            "label": path.split("/")[0],
            "fold": str(number % 4 + 1),
            "recording": f"session {number // 2}",
            "salience": "1",
            "note": 'said "hello", twice',
            "Label": path.split("/")[0],
        }
        rows.append({"path": path} | {name: cells[name] for name in columns})
    strange = draw(
        st.sampled_from(("", "missing file", "twice", "out", "empty cells", "backslash"))
    )
    if strange == "missing file":
        rows.append({"path": "gone/1.wav"} | dict.fromkeys(columns, "1"))
    elif strange == "twice" and rows:
        rows.append(rows[0])
    elif strange == "out":
        rows.append({"path": "../outside.wav"} | dict.fromkeys(columns, "1"))
    elif strange == "empty cells" and rows:
        rows[0] |= dict.fromkeys(columns, "")
    elif strange == "backslash":
        rows = [row | {"path": row["path"].replace("/", "\\")} for row in rows]
    separator = draw(st.sampled_from((",", ",", ",", ";", "\t")))
    ends = draw(st.sampled_from(("\n", "\r\n")))
    code = draw(st.sampled_from(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252")))
    table = pd.DataFrame(rows, columns=["path", *columns])
    text = table.to_csv(index=False, sep=separator, lineterminator=ends, errors="surrogateescape")
    data = text.encode(code, "surrogateescape" if code.startswith("utf-8") else "replace")
    what = f"{len(rows)} rows, columns {columns}, {separator!r}, {code}, {strange}"
    folder.files["clips.csv"] = Content(what, data)


def _people(draw: Draw, folder: Folder) -> None:
    """Replace the clips by words that people say, in each of the ways in which names are made."""
    people = draw(st.integers(2, 6))
    way = draw(st.sampled_from(("{word}/{person}_{take}.wav", "{word}/{person}/{take}.wav",
                                "{word}/{word}_p{person}_{take}.wav")))  # fmt: skip
    files = {path: content for path, content in folder.files.items() if "/" not in path}
    for word in ("yes", "no", "stop"):
        for person in range(people):
            for take in range(draw(st.integers(1, 2))):
                path = way.format(word=word, person="abcdef"[person], take=take)
                files[path] = plain(len(files) + 500, 0.1)
    folder.files = files
    group = draw(st.sampled_from(("none", "setting", "pattern", "table")))
    if group == "setting":
        by_folder = way == "{word}/{person}/{take}.wav"
        folder.folder["group"] = "parent" if by_folder else r"(?P<speaker>[a-f])[_/]\d"
    elif group == "pattern":
        folder.folder["pattern"] = r"(?P<recording>[a-f])[_/]\d+\.wav"
    elif group == "table":
        person_of = {path: re.sub(r".*([a-f])[_/]\d+\.wav", r"\1", path) for path in folder.clips()}
        rows = [f"{path},{person}" for path, person in person_of.items()]
        folder.files["clips.csv"] = Content("people", "\n".join(["path,recording", *rows]).encode())


def _pattern(draw: Draw, folder: Folder) -> None:
    folder.folder["pattern"] = draw(
        st.sampled_from(
            (
                r"(?P<recording>.+?)(_\d+)?\.\w+$",
                r"(?P<recording>.+)",
                r"(?P<recording>[^/]+)$",
                r"clip-(?P<fold>\d)",
                r"(?P<recording>only this)",
                r"(?P<recording>x)?",
                r"(unnamed)",
                r"(?P<recording>[",
                "",
            )
        )
    )


def _annotations(draw: Draw, folder: Folder) -> None:
    """Add label files of Audacity and of Raven beside a clip."""
    clip = _clip(draw, folder)
    stem = clip.rpartition(".")[0]
    tracks = (
        "0.000000\t0.100000\tdog\n0.100000\t0.200000\train\n",
        "0.05\t0.05\tpoint\n\\\t100\t200\n",
        "0,000000\t0,100000\tdog\n",
        "not a label track\n",
        "",
        "0.2\t0.1\tbackwards\n5.0\t9.0\tbeyond the end\n-1\t0.1\tbefore\n",
    )
    raven = (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
        "Species\n1\tSpectrogram 1\t1\t0.0\t0.1\t0\t4000\tdog\n"
    )
    kinds = {
        f"{stem}.txt": draw(st.sampled_from(tracks)),
        f"{stem}.Table.1.selections.txt": raven,
        "Label Track.txt": tracks[0],
    }
    for path in draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=3, unique=True)):
        folder.files[path] = Content("annotations", kinds[path].encode())


def _long(draw: Draw, folder: Folder) -> None:
    new = _new(folder)
    folder.files[f"{_label(draw, folder)}/long {new}.wav"] = plain(new, 60.0)


def _settings(draw: Draw, folder: Folder) -> None:
    choices = {
        "kind": ("logmel", "mfcc", "stft"),
        "sample_rate": (8_000, 16_000, 22_050),
        "seconds": (None, 0.05, 0.5, 1.0, 3.0),
        "longer": ("cut", "split"),
    }
    folder.settings["features"] = {
        key: draw(st.sampled_from(values)) for key, values in choices.items()
    }
    folder.settings["dataset"]["max_rejected"] = draw(st.sampled_from((0.0, 0.05, 1.0)))


def _one_label(draw: Draw, folder: Folder) -> None:
    label = _label(draw, folder)
    folder.files = {path: c for path, c in folder.files.items() if path.startswith(label + "/")}


def _empty(draw: Draw, folder: Folder) -> None:
    folder.files = {"empty label/.keep": Content("nothing", b"")}


MESS = {function.__name__.strip("_"): function for function in (
    _people, _formats, _odd_labels, _imbalance, _few, _nesting, _endings, _names, _any_names,
    _damage, _nothing_to_hear, _chained, _duplicates, _long, _beside, _hidden, _annotations,
    _links, _table, _pattern, _settings,
)}  # fmt: skip
"""The kinds of mess, in the order in which they are added."""

HOPELESS = {"one_label": _one_label, "empty": _empty}
"""Kinds of mess after which nothing can be trained."""


@st.composite
def folders(draw: Draw, only: str | None = None) -> Folder:
    """Draw a folder of recordings: a plain one, to which a few kinds of mess are added.

    Parameters
    ----------
    only : str, optional
        The kind of mess to add; by default up to six kinds.
    """
    files, number = {}, 0
    for label in WORDS[: draw(st.integers(2, 4))]:
        for _ in range(draw(st.integers(3, 6))):
            files[f"{label}/clip-{number}.wav"] = plain(number)
            number += 1
    settings = {"dataset": {"max_rejected": 1.0}, "features": {}}
    folder = Folder(files, settings, {"folds": 3})
    if only is None:
        kinds = {draw(st.sampled_from(list(MESS))) for _ in range(draw(st.integers(0, 6)))}
        folder.mess = [kind for kind in MESS if kind in kinds]
        if draw(st.integers(0, 29)) == 29:
            folder.mess.append(draw(st.sampled_from(sorted(HOPELESS))))
    else:
        folder.mess = [only]
    for kind in folder.mess:
        (MESS | HOPELESS)[kind](draw, folder)
    return folder


# ------------------------------------------------------------------------------------ run


@dataclass
class Run:
    """What the two stages did.

    Attributes
    ----------
    lines : list of str
        Their closing lines.
    refusal : str or None
        The message of the UserError that stopped them.
    crash : str or None
        The traceback of any other exception.
    noise : str
        What was written to standard output and error, by native code too.
    outputs : dict of str to bytes
        Every output by its path.
    """

    lines: list[str] = field(default_factory=list)
    refusal: str | None = None
    crash: str | None = None
    noise: str = ""
    outputs: dict[str, bytes] = field(default_factory=dict)


def run(folder: Folder, work: Path) -> Run:
    """Run ``download`` and ``featurize`` in `work`, where ``sounds`` is the folder."""
    yaml = YAML(typ="safe")
    values = yaml.load(PARAMS.read_text(encoding="utf-8"))
    values["dataset"] |= {"name": "folder"} | folder.settings["dataset"]
    values["dataset"]["folder"] |= folder.folder
    values["features"] |= folder.settings["features"]
    done = Run()
    with _inside(work), _everything_written() as written:
        with paths.PARAMS.open("w", encoding="utf-8") as file:
            yaml.dump(values, file)
        try:
            done.lines += [download.main()]
            done.lines += [featurize.main()]
        except UserError as error:
            done.refusal = str(error)
        except Exception:
            done.crash = traceback.format_exc()
        made = [path for top in ("data", "features") for path in Path(top).rglob("*")]
        done.outputs = {
            str(path): path.read_bytes()
            for path in sorted(made)
            if path.is_file() and not path.is_relative_to(paths.DOWNLOADS)
        }
    done.noise = "".join(written)
    return done


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _everything_written() -> Iterator[list[str]]:
    """Collect what is written to the descriptors of standard output and error."""
    text: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    before = {number: os.dup(number) for number in (1, 2)}
    with tempfile.TemporaryFile() as file:
        for number in before:
            os.dup2(file.fileno(), number)
        try:
            yield text
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in before.items():
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            text.append(file.read().decode(errors="replace"))


# ---------------------------------------------------------------------------------- check


def faults(folder: Folder, work: Path, again: bool) -> tuple[Run, list[str]]:
    """Make the folder below `work`, run the stages on it, and list all that is wrong.

    Parameters
    ----------
    folder : Folder
    work : Path
        An empty folder.
    again : bool
        Whether to run the stages a second time, which must give the same bytes.

    Returns
    -------
    Run
        The first run.
    list of str
        The kind of each fault and a sentence; empty if the stages did as they should.
    """
    (work / "sounds").mkdir()
    folder.make(work / "sounds")
    before = _state(work / "sounds")
    first = run(folder, work)
    if first.crash:
        return first, [f"crash: {first.crash}"]
    found = [f"noise: {line}" for line in first.noise.splitlines() if _is_noise(line)]
    if _state(work / "sounds") != before:
        found.append("source: the folder has changed")
    if first.refusal is not None:
        found += _wrong_refusal(first.refusal, folder)
        found += _unfinished(first)
    else:
        with _inside(work):
            checks = (_wrong_inventory, _two_sides, _wrong_features, _wrong_labels, _wrong_lengths)
            found += [fault for check in checks for fault in check(folder)]
    if again:
        for top in ("data", "features"):
            shutil.rmtree(work / top, ignore_errors=True)
        second = run(folder, work)
        if (second.refusal, second.outputs) != (first.refusal, first.outputs):
            differ = [n for n in first.outputs if first.outputs[n] != second.outputs.get(n)]
            found.append(f"repeat: a second run differs: {differ} {second.refusal}")
    return first, found


def _state(root: Path) -> dict[str, tuple[Any, ...]]:
    """Describe every file and link below a folder: size, time of change, content, target."""
    found: dict[str, tuple[Any, ...]] = {}
    for here, folders_, files in os.walk(root):
        for name in (*folders_, *files):
            path = Path(here, name)
            if path.is_symlink():
                found[str(path)] = (str(path.readlink()),)
            elif path.is_file():
                state = path.stat()
                found[str(path)] = (state.st_size, state.st_mtime_ns, path.read_bytes())
            else:
                found[str(path)] = ()
    return found


def _is_noise(line: str) -> bool:
    """Whether a line comes from a decoder or a library and not from us."""
    return bool(line.strip()) and not re.match(r"(download|featurize): ", line)


def _wrong_refusal(message: str, folder: Folder) -> Iterator[str]:
    """Check that a message is one sentence that names a file, a label or a key, and a remedy."""
    said = f"message: {message!r}"
    if any(not letter.isprintable() for letter in message):
        yield f"{said} has characters that cannot be printed"
    if len(message) > 500:
        yield f"{said} has {len(message)} characters"
    if not message.endswith((".", "?")):
        yield f"{said} is no sentence"
    if not re.search(r"[:;] \w|, then | needs a ", message):
        yield f"{said} has no remedy"
    paths_ = (*folder.files, *folder.links, "../outside.wav")
    parts = {part for path in paths_ for part in (path, *path.split("/"))}
    ours = {"dataset.", "features.", "split.", "sounds", "data/", "features/"}
    names = {name.encode("ascii", "backslashreplace").decode() for name in parts} | parts | ours
    a_label = message.startswith("The label ")  # it may stand in an annotation file only
    if not a_label and not any(name in message for name in names if name):
        yield f"{said} names neither a file nor a key"
    if re.search(r"Traceback|Errno|<class|object at 0x|Exception", message):
        yield f"{said} has words of the interpreter"


def _unfinished(done: Run) -> Iterator[str]:
    """Check that a stage that refused left no output but the list of rejected files."""
    later = {str(path) for path in (paths.FEATURES, paths.FEATURE_INDEX, paths.FEATURE_SPEC)}
    if done.lines:
        yield from (
            f"unfinished: {name} is there after a refusal" for name in done.outputs if name in later
        )
    else:
        rejected = str(paths.REJECTED)
        yield from (
            f"unfinished: {name} is there after a refusal"
            for name in done.outputs
            if name != rejected
        )


def _wrong_inventory(folder: Folder) -> Iterator[str]:
    """Check that every file below the folder is used or listed, once."""
    clips, rejected = tables.read(paths.CLIPS), tables.read(paths.REJECTED)
    used, listed = list(clips["path"]), list(rejected["path"])
    if len(set(used)) < len(used) or len(set(listed)) < len(listed) or set(used) & set(listed):
        yield f"inventory: a file is listed twice: {used} {listed}"
    if rejected["reason"].isna().any() or (rejected["reason"] == "").any():
        yield "inventory: a rejected file has no reason"
    copies = {
        path.relative_to(paths.AUDIO).as_posix()
        for path in paths.AUDIO.rglob("*")
        if path.is_file()
    }
    if copies != set(used):
        yield f"inventory: data/audio has other files than the table: {copies ^ set(used)}"
    summary = tables.read_json(paths.SUMMARY)
    if (summary["clips"], summary["classes"]) != (len(used), clips["label"].nunique()):
        yield f"inventory: the summary does not count what is there: {summary}"
    if "files" not in summary:
        return
    parts_of = set(clips["source"].dropna()) if "source" in clips else set()
    named = set(used) | set(listed) | parts_of
    entries = list(_entries(paths.SOUNDS))
    for path in entries:
        below = any(name.startswith(path + "/") for name in named)  # a link to a folder, or parts
        if path not in named and not below and path != "clips.csv":
            yield f"inventory: {path} is neither used nor listed"
    if len(listed) != summary["rejected"] + summary["other_files"]:
        yield f"inventory: {len(listed)} files are listed: {summary}"
    links = "links" in folder.mess  # a link to a folder stands for the files in it
    if not links and summary["files"] != len(entries):
        yield f"inventory: {len(entries)} files are there: {summary}"


def _entries(root: Path) -> Iterator[str]:
    """Yield all files and links below a folder, as a table can hold their names."""
    for here, folders_, files in os.walk(root):
        links = [name for name in folders_ if Path(here, name).is_symlink()]
        for name in (*files, *links):
            path = Path(here, name).relative_to(root).as_posix()
            yield "".join(
                ascii(chr(ord(letter) & 0xFF if letter >= "\ud800" else ord(letter)))[1:-1]
                if letter < " " or "\ud800" <= letter <= "\udfff"
                else letter
                for letter in path
            )


def _two_sides(_: Folder) -> Iterator[str]:
    """Check that no recording, and no content, is in two folds."""
    clips = tables.read(paths.CLIPS)
    content = [
        hashlib.sha256((paths.AUDIO / path).read_bytes()).hexdigest() for path in clips["path"]
    ]
    for what, key in (("recording", clips["recording"]), ("content", pd.Series(content))):
        folds = clips.groupby(key)["fold"].nunique()
        for name in folds.index[folds > 1]:
            yield f"two sides: one {what} is in two folds: {list(clips['path'][key == name])}"
    for fold in clips["fold"].unique():
        try:
            split.by_fold(clips, int(fold))
        except UserError as error:
            yield f"two sides: fold {fold} cannot be the test fold: {error}"


def _wrong_features(_: Folder) -> Iterator[str]:
    """Check that the features are finite and that their index matches the clips."""
    made, clips = feature_store.read(), tables.read(paths.CLIPS)
    if not np.isfinite(made.array).all():
        bad = np.flatnonzero(~np.isfinite(made.array).all(axis=(1, 2)))
        yield f"features: not finite: {set(made.index['path'].iloc[bad])}"
    one = made.index[made.index["window"] == 0]
    columns = ["path", "label", "fold", "recording"]
    if not one[columns].reset_index(drop=True).equals(clips[columns]):
        yield "features: the index does not match the clips"
    windows = made.index.groupby("path")["window"]
    if not (windows.max() + 1 == windows.count()).all():
        yield "features: a window is missing"
    spec = made.spec
    most = np.ceil(clips["seconds"].to_numpy() / (spec.seconds)) + 1
    if (windows.count()[clips["path"]].to_numpy() > most).any():
        yield "features: a clip has more windows than it is long"


def _wrong_labels(folder: Folder) -> Iterator[str]:
    """Check that the labels come through as they were written."""
    clips, card = tables.read(paths.CLIPS), tables.read_json(paths.DATASET)
    if set(clips["label"]) != set(card["labels"]):
        yield f"labels: the card has other labels than the clips: {card['labels']}"
    if "clips.csv" in folder.files or "annotations" in folder.mess:
        return
    for path, label in zip(clips["path"], clips["label"], strict=True):
        if path.split("/")[0] != label:
            yield f"labels: {path} has the label {label!r}"


def _wrong_lengths(folder: Folder) -> Iterator[str]:
    """Check that a sound that is used is used whole."""
    clips = tables.read(paths.CLIPS)
    for path, seconds in zip(clips["path"], clips["seconds"], strict=True):
        expected = folder.files[path].seconds if path in folder.files else None
        if expected is not None and abs(seconds - expected) > 0.1:  # MP3 pads
            yield f"length: {path} is {expected:g} s long and used as {seconds:g} s"


def once(folder: Folder, again: bool = False) -> tuple[Run, list[str]]:
    """Return the :func:`faults` of a folder that is made in a temporary place."""
    work = Path(tempfile.mkdtemp(prefix="messy-"))
    try:
        return faults(folder, work, again)
    finally:
        shutil.rmtree(work)
