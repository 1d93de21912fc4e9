"""Unpack archives safely, even if they are damaged or malicious."""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from tqdm.auto import tqdm

from pipeline import paths
from pipeline.errors import UserError

UNREADABLE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError),  # zipfile: unknown, encrypted, bad names
)
"""Exceptions of the standard library for an archive that it cannot read."""


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar archive, unless it has already been unpacked there.

    Only files and folders below `folder` are accepted. `folder` does not exist until everything
    is unpacked.

    Parameters
    ----------
    archive : Path
        A zip, or a tar with any of Python's compressions.
    folder : Path
        Where to unpack. It is replaced if it holds the content of another archive.

    Returns
    -------
    Path
        The folder with the content: `folder`, or the only folder in it.

    Raises
    ------
    UserError
        When the archive is damaged, does not fit on the disk, or contains an absolute path, a path
        with ``..``, a link or a device.
    """
    state = archive.stat()
    origin = f"{archive.name} {state.st_size} {state.st_mtime_ns}\n"
    mark = folder.with_name(f"{folder.name}.origin")
    if folder.is_dir() and mark.is_file() and mark.read_text(encoding="utf-8") == origin:
        return _content(folder)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for old in (mark, unfinished, folder):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    unfinished.mkdir(parents=True)
    try:
        _extract(archive, unfinished)
    except Exception as error:
        shutil.rmtree(unfinished)
        if isinstance(error, UNREADABLE):
            why = " ".join(str(getattr(error, "strerror", None) or error).split())
            again = ", or delete it so that it is downloaded again"
            ours = archive.resolve().is_relative_to(paths.DOWNLOADS.resolve())
            raise UserError(
                f"{archive} cannot be unpacked ({why}): replace it{again if ours else ''}."
            ) from None
        raise
    unfinished.replace(folder)
    mark.write_text(origin, encoding="utf-8")
    return _content(folder)


def _content(folder: Path) -> Path:
    """Return the folder that an archive wraps around its content, or else `folder`."""
    inside = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    wrapped = len(inside) == 1 and inside[0].is_dir()
    return inside[0] if wrapped and any(p.is_dir() for p in inside[0].iterdir()) else folder


def _extract(archive: Path, folder: Path) -> None:
    with archive.open("rb") as file:
        if zipfile.is_zipfile(file):
            _extract_zip(archive, folder)
        else:
            file.seek(0)
            _extract_tar(archive, file, folder)


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            _check_member(archive, member.filename, plain)
        size = sum(member.file_size for member in members)
        _check_room(archive, size, shutil.disk_usage(folder).free)
        with _progress(archive, size) as bar:
            for member in members:
                zipped.extract(member, folder)
                bar.update(member.file_size)


def _extract_tar(archive: Path, file: IO[bytes], folder: Path) -> None:
    free, size = shutil.disk_usage(folder).free, 0
    with (
        _progress(archive, archive.stat().st_size) as bar,
        tarfile.open(fileobj=file, mode="r:*") as tarred,
    ):
        for member in tarred:
            _check_member(archive, member.name, member.isfile() or member.isdir())
            size += member.size
            _check_room(archive, size, free)
            tarred.extract(member, folder, filter="data")
            bar.update(file.tell() - bar.n)


def _check_member(archive: Path, name: str, plain: bool) -> None:
    # All links are refused: Python's filter, which allows harmless ones, has had holes.
    if not plain:
        raise UserError(
            f"{archive} is not safe to unpack, because {name} is a link or a device: get another"
            " archive."
        )
    path = PureWindowsPath(name)  # understands both kinds of slashes, and drive letters
    if path.anchor or ".." in path.parts:
        raise UserError(
            f"{archive} is not safe to unpack, because {name} leads out of the folder: get another"
            " archive."
        )


def _check_room(archive: Path, size: int, free: int) -> None:
    if size > free:
        raise UserError(
            f"{archive} needs at least {size / 1e9:.1f} GB and only {free / 1e9:.1f} GB are free:"
            " make room on the disk."
        )


def _progress(archive: Path, size: int) -> "tqdm[Any]":
    name = f"unpack {archive.name}"
    return tqdm(desc=name, total=size, unit="B", unit_scale=True, disable=None)
