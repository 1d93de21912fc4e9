"""Download each file once, resume after an interruption, and check the file."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pooch
from tqdm.auto import tqdm

from pipeline.errors import UserError

if TYPE_CHECKING:
    from requests import Response

TRIES = 5
"""Connections made before giving up. Each one continues where the one before stopped."""

BACKOFF = 1.0
"""Seconds before the second try; doubled before each further one."""

TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection, and for the next byte."""

BLOCK = 1 << 15
"""Bytes written at a time; at most this many are lost when a connection breaks."""


def fetch(url: str, checksum: str | None, folder: Path, file_name: str) -> Path:
    """Download a file, unless it is already there with the right checksum.

    Parameters
    ----------
    url : str
        ``http``, ``https`` or ``file`` address.
    checksum : str or None
        In pooch's form, ``sha256:...`` or ``md5:...``; None checks nothing.
    folder : Path
        Where downloads are kept. An interrupted download leaves what it has received as
        ``<file_name>.part``, and the next call continues from there.
    file_name : str
        Name to give the file.

    Returns
    -------
    Path
        The complete file; for a ``file`` address, the file itself.

    Raises
    ------
    UserError
        When the address cannot be reached or returns an error, when the disk is full, or when the
        content does not match `checksum`. In the last case the file is deleted.
    """
    if urlsplit(url).scheme == "file":
        path = Path(unquote(urlsplit(url).path))
        verify(path, checksum)
        return path

    part = folder / f"{file_name}.part"

    def download(address: str, target: str, _: object) -> None:
        _download(address, part)
        # pooch deletes the target if anything stops the check, even Ctrl-C: keep the part too.
        Path(target).unlink()
        try:
            Path(target).hardlink_to(part)
        except OSError:  # a file system without hard links
            part.replace(target)

    pooch.get_logger().setLevel("ERROR")  # it advises to write the checksum into the code
    try:
        path = pooch.retrieve(url, checksum, file_name, folder, downloader=download)
    except ValueError:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{file_name} from {printable(url)} does not match its checksum {checksum} and was"
            " deleted: run again to download it again; if the checksum is wrong again, the file has"
            " changed on the server, so set dataset.source to a copy from elsewhere."
        ) from None
    except OSError as error:
        raise UserError(
            f"{file_name} cannot be written to {folder} ({error.strerror or error}): check the disk"
            " and the permissions, then run again."
        ) from None
    part.unlink(missing_ok=True)
    return folder / Path(path).name


def verify(path: Path, checksum: str | None) -> None:
    """Check a local file against its checksum.

    Parameters
    ----------
    path : Path
        The file.
    checksum : str or None
        As for :func:`fetch`.

    Raises
    ------
    UserError
        When the file is missing or does not match. It is not changed.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: correct dataset.source.")
    if checksum is None:
        return
    algorithm, _, expected = checksum.rpartition(":")
    found = pooch.file_hash(str(path), alg=algorithm or "sha256")
    if found != expected.lower():
        raise UserError(
            f"{path} does not match dataset.sha256, its checksum is {found}: get the file again or"
            " correct dataset.sha256."
        )


def printable(url: str) -> str:
    """Return an address without user name, password and signature, so that it can be printed.

    Parameters
    ----------
    url : str
        An address, or a path, which is returned unchanged.

    Returns
    -------
    str
    """
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _download(url: str, part: Path) -> None:
    """Complete `part` to the whole content of `url`, with several connections if necessary."""
    import tenacity
    from requests import exceptions

    lost = (exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.Timeout)
    tries = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential(multiplier=BACKOFF),
        retry=tenacity.retry_if_exception_type((exceptions.HTTPError, *lost)),
        reraise=True,
    )
    try:
        return tries(_continue, url, part)
    except exceptions.HTTPError as error:
        why = str(error)
    except lost:
        why = "cannot be reached or the connection breaks"
    except exceptions.RequestException as error:
        raise UserError(
            f"{printable(url)} is not an address to download from ({error}): correct"
            " dataset.source."
        ) from None
    kept = part.stat().st_size if part.exists() else 0
    raise UserError(
        f"{printable(url)} {why}, after {TRIES} tries; {kept} bytes are kept: check the network and"
        " run again to continue, or set dataset.source to a local copy."
    )


def _continue(url: str, part: Path) -> None:
    """Request once the bytes that `part` lacks, or all of them if the server cannot resume.

    pooch and requests can only start again from the first byte.
    """
    import requests

    have = part.stat().st_size if part.exists() else 0
    # the server's tag of this version, so that the rest of another version is not appended
    mark = part.with_name(f"{part.name}.etag")
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark.exists():
            headers["If-Range"] = mark.read_text(encoding="ascii")
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            if response.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                raise requests.HTTPError("is shorter than what was kept, which is now deleted")
            mark.unlink(missing_ok=True)
            return
        _check_status(url, response)
        if response.status_code != requests.codes.partial_content:
            have = 0
        missing = int(response.headers.get("Content-Length", 0))
        _check_room(url, missing, part.parent)
        tag = response.headers.get("ETag", "")
        if tag.startswith('"') and tag.isascii():
            mark.write_text(tag, encoding="ascii")
        else:
            mark.unlink(missing_ok=True)
        total = have + missing if missing else None
        with (
            part.open("ab" if have else "wb") as file,
            _progress(part.stem, total, have) as bar,
        ):
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    mark.unlink(missing_ok=True)


def _check_status(url: str, response: "Response") -> None:
    """Raise HTTPError for a status that may pass, and UserError for any other failure."""
    import requests

    problem = f"returned {response.status_code} {response.reason}"
    if response.status_code == requests.codes.too_many_requests or response.status_code >= 500:
        raise requests.HTTPError(problem)
    if response.status_code >= 400:
        raise UserError(
            f"{printable(url)} {problem}: check the address, or set dataset.source to a local copy."
        )


def _check_room(url: str, missing: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise UserError(
            f"{printable(url)} needs {missing / 1e9:.1f} GB and only {free / 1e9:.1f} GB are free"
            f" for {folder}: make room on the disk, or set dataset.source to a local copy."
        )


def _progress(what: str, total: int | None, done: int) -> "tqdm[Any]":
    return tqdm(desc=what, total=total, initial=done, unit="B", unit_scale=True, disable=None)
