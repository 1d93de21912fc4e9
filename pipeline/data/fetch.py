"""Archives: downloaded once, resumed when interrupted, unpacked without trusting them."""

import lzma
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import pooch
from tqdm.auto import tqdm

from pipeline.errors import UserError

TRIES = 5
"""Connections made before giving up; each goes on where the one before stopped."""

BACKOFF = 1.0
"""Seconds before the second try; doubled before each further one."""

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and to wait for the next byte."""

BLOCK = 1 << 15
"""Bytes written at a time, and so at most lost when a connection breaks off."""

_UNREADABLE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError),  # zipfile: unknown, encrypted, bad names
)


def fetch(url: str, checksum: str | None, folder: Path, file_name: str) -> Path:
    """Download a file, unless it is there already with the right checksum.

    Parameters
    ----------
    url : str
        ``http``, ``https`` or ``file`` address.
    checksum : str or None
        As pooch writes it, ``sha256:...`` or ``md5:...``; None: not checked.
    folder : Path
        Where downloads are kept. What an interrupted download has brought so far
        stays there as ``<file_name>.part``, and the next call goes on from it.
    file_name : str
        Name to give the file.

    Returns
    -------
    Path
        The complete file; for a ``file`` address, the file itself.

    Raises
    ------
    UserError
        When the address cannot be reached or answers with an error, the disk is full,
        or the content does not match `checksum`; then it is deleted, to be fetched anew.
    """
    if urlsplit(url).scheme == "file":
        path = Path(unquote(urlsplit(url).path))
        verify(path, checksum)
        return path

    part = folder / f"{file_name}.part"

    def download(address: str, target: str, _: object) -> None:
        _download(address, part)
        # pooch checks the target and deletes it whatever stops it, be it Ctrl-C: keep the part.
        Path(target).unlink()
        try:
            Path(target).hardlink_to(part)
        except OSError:  # a file system without hard links
            part.replace(target)

    pooch.get_logger().setLevel("ERROR")  # it advises to write the checksum into code
    try:
        path = pooch.retrieve(url, checksum, file_name, folder, downloader=download)
    except ValueError:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{file_name}, downloaded from {shown(url)}, does not match its checksum {checksum}"
            " and was deleted: run again to fetch it anew; if it fails again the file was"
            " changed there, so get a copy elsewhere and name it in dataset.source."
        ) from None
    except OSError as error:
        raise UserError(f"{folder} cannot take {file_name}: {error.strerror or error}.") from None
    part.unlink(missing_ok=True)
    return folder / Path(path).name


def verify(path: Path, checksum: str | None) -> None:
    """Hold a local file to its checksum.

    Parameters
    ----------
    path : Path
        The file.
    checksum : str or None
        As for :func:`fetch`.

    Raises
    ------
    UserError
        When the file is missing or does not match; it is left as it is.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: correct dataset.source.")
    if checksum is None:
        return
    algorithm, _, expected = checksum.rpartition(":")
    found = pooch.file_hash(str(path), alg=algorithm or "sha256")
    if found != expected.lower():
        raise UserError(
            f"{path} does not match dataset.sha256, its checksum is {found}: get the file anew or"
            " correct dataset.sha256."
        )


def shown(url: str) -> str:
    """Make an address fit to be printed: no user names, passwords and signatures.

    Parameters
    ----------
    url : str
        An address, or a path, which stays as it is.

    Returns
    -------
    str
    """
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _download(url: str, part: Path) -> None:
    """Bring `part` to the whole content of `url`, in several connections if need be."""
    from requests import exceptions

    for attempt in range(TRIES):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            return _go_on(url, part)
        except exceptions.HTTPError as error:
            why = str(error)
        except (exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.Timeout):
            why = "cannot be reached or breaks off"
        except exceptions.RequestException as error:
            raise UserError(f"{shown(url)} is not an address to download from: {error}.") from None
    kept = part.stat().st_size if part.exists() else 0
    raise UserError(
        f"{shown(url)} {why}, after {TRIES} tries; {kept} bytes are kept: check the network and"
        " run again to go on, or name a local copy in dataset.source."
    )


def _go_on(url: str, part: Path) -> None:
    """One connection: ask for what is missing, or for everything if that is not offered."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    # The server's mark of this version: the rest of another version must not be appended.
    mark = part.with_name(f"{part.name}.etag")
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark.exists():
            headers["If-Range"] = mark.read_text(encoding="ascii")
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                raise requests.HTTPError("holds less than was kept, which is now dropped")
            mark.unlink(missing_ok=True)
            return
        problem = f"answered {answer.status_code} {answer.reason}"
        if answer.status_code == requests.codes.too_many_requests or answer.status_code >= 500:
            raise requests.HTTPError(problem)  # passes, so it is tried again
        if answer.status_code >= 400:
            raise UserError(
                f"{shown(url)} {problem}: check the address, or name a local copy in"
                " dataset.source."
            )
        if answer.status_code != requests.codes.partial_content:
            have = 0
        missing = int(answer.headers.get("Content-Length", 0))
        free = shutil.disk_usage(part.parent).free
        if missing > free:
            raise UserError(
                f"{shown(url)} needs {missing / 1e9:.1f} GB and {part.parent} has"
                f" {free / 1e9:.1f} GB free: make room, or name a local copy in dataset.source."
            )
        tag = answer.headers.get("ETag", "")
        if tag.startswith('"') and tag.isascii():
            mark.write_text(tag, encoding="ascii")
        else:
            mark.unlink(missing_ok=True)
        with (
            part.open("ab" if have else "wb") as file,
            _progress(part.stem, have + missing if missing else None, have) as bar,
        ):
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    mark.unlink(missing_ok=True)


def _progress(what: str, total: int | None, done: int = 0) -> "tqdm[Any]":
    return tqdm(desc=what, total=total, initial=done, unit="B", unit_scale=True, disable=None)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar archive, unless it has been unpacked there already.

    Only files and folders that stay below `folder` are accepted, whatever the archive
    says; `folder` appears when everything is unpacked, and not before.

    Parameters
    ----------
    archive : Path
        A zip, or a tar with any of Python's compressions.
    folder : Path
        Where to; replaced if it was unpacked from something else.

    Returns
    -------
    Path
        The folder that holds the content: `folder`, or the only folder in it.

    Raises
    ------
    UserError
        When the archive is damaged, is larger than the free disk, or holds an absolute
        path, a path with ``..``, a link or a device.
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
        if isinstance(error, _UNREADABLE):
            why = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise UserError(
                f"{archive} cannot be unpacked ({why}): replace it, or delete it to have it"
                " downloaded anew."
            ) from None
        raise
    unfinished.replace(folder)
    mark.write_text(origin, encoding="utf-8")
    return _content(folder)


def _content(folder: Path) -> Path:
    """Step into a folder that an archive wraps around everything it holds."""
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
        with _progress(f"unpack {archive.name}", size) as bar:
            for member in members:
                zipped.extract(member, folder)
                bar.update(member.file_size)


def _extract_tar(archive: Path, file: IO[bytes], folder: Path) -> None:
    free, size = shutil.disk_usage(folder).free, 0
    with (
        _progress(f"unpack {archive.name}", archive.stat().st_size) as bar,
        tarfile.open(fileobj=file, mode="r:*") as tarred,
    ):
        for member in tarred:
            _check_member(archive, member.name, member.isfile() or member.isdir())
            size += member.size
            _check_room(archive, size, free)
            tarred.extract(member, folder, filter="data")
            bar.update(file.tell() - bar.n)


def _check_member(archive: Path, name: str, plain: bool) -> None:
    # Links, wherever they lead: Python's own filter for them has had holes.
    if not plain:
        raise UserError(f"{archive} is not safe to unpack: {name} is a link or a device.")
    path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    if path.anchor or ".." in path.parts:
        raise UserError(f"{archive} is not safe to unpack: {name} leads out of the folder.")


def _check_room(archive: Path, size: int, free: int) -> None:
    if size > free:
        raise UserError(
            f"{archive} unpacks to {size / 1e9:.1f} GB or more and {free / 1e9:.1f} GB are free:"
            " make room."
        )
