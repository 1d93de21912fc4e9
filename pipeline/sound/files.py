"""List the files below a folder, and tell sound files from others."""

import os
import re
import stat
from pathlib import Path

SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".mka"),
    *(".3gp", ".amr", ".wma", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
)
"""Suffixes of sound files. A file with another suffix, or none, counts if it begins like one."""

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".bak", ".old", "~")
"""Endings of backups and unfinished downloads, which may be another version of a clip."""

_BEGINNING = re.compile(
    rb"(RIFF|RIFX|RF64|BW64)....WAVE|FORM....AIF[FC]|fLaC|OggS|caff\0\1|\.snd\0\0|#!AMR|"
    rb"riff\x2e\x91\xcf\x11|....ftypM4A|ID3[\2-\4]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb]|"
    rb"\xff[\xf1\xf9][\x40-\xbf]",
    re.DOTALL,
)
"""The first bytes of sound files. The last two are MP3 and AAC without a header of the file."""


def below(root: Path, folder: str = ".") -> list[tuple[str, str | None]]:
    """List every file below a folder, and why it is not a sound file.

    Parameters
    ----------
    root : Path
        The dataset's folder.
    folder : str
        Folder inside `root` to look in.

    Returns
    -------
    list of (str, str or None)
        The POSIX path relative to `root`, and None for a sound file or a sentence for any other
        file. Sorted by path. Links to folders are followed once, but not inside hidden folders; a
        link that is not followed, and a folder that cannot be read, are listed like files.
    """
    found: list[tuple[Path, str | None]] = []
    seen: set[Path] = set()

    def unreadable(error: OSError) -> None:
        found.append((Path(error.filename), f"The folder cannot be read: {error.strerror}."))

    # A folder comes before the links to it, which may stand among the clips of another label.
    # Hidden folders are last, so that a link elsewhere is not taken for the second one.
    real, links, hidden = [root / folder], list[Path](), list[Path]()
    while waiting := real or links or hidden:
        place = waiting.pop(0)
        if place.resolve() in seen:  # a circular link, or a second link to the same folder
            found.append((place, "The link leads to a folder that is already read."))
            continue
        seen.add(place.resolve())
        _, folders, names = next(os.walk(place, onerror=unreadable), ("", [], []))
        found += [(place / name, _why_not(place / name, root)) for name in names]
        for inner in sorted(place / name for name in folders):
            if not inner.is_symlink():
                (hidden if _is_hidden(inner, root) else real).append(inner)
            elif _is_hidden(inner, root):
                found.append((inner, "The link is hidden."))
            else:
                links.append(inner)
    return sorted((path.relative_to(root).as_posix(), reason) for path, reason in found)


def sound_files(root: Path, folder: str = ".") -> list[str]:
    """List the sound files below a folder.

    Parameters
    ----------
    root, folder
        As for :func:`below`.

    Returns
    -------
    list of str
        POSIX paths relative to `root`, sorted. Hidden files are left out.
    """
    return [path for path, reason in below(root, folder) if reason is None]


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _why_not(path: Path, root: Path) -> str | None:
    """Say why a file is not a sound file; None if it is one."""
    if _is_hidden(path, root):
        return "The file is hidden."
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "This is not a regular file."
        return _why_no_sound(path)
    except OSError as error:
        if path.is_symlink():
            return "The link leads nowhere."
        return f"The file cannot be opened: {error.strerror}."


def _why_no_sound(path: Path) -> str | None:
    if path.suffix.lower() in SUFFIXES:
        return None
    if path.name.lower().endswith(UNFINISHED):
        return "The name is that of a backup or of an unfinished download."
    with path.open("rb") as file:
        return None if _BEGINNING.match(file.read(16)) else "This is not a sound file."
