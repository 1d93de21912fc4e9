"""Read uploaded files from a multipart form (RFC 7578).

The parser is our own because the whole body is in memory, where the boundaries are found with
``bytes.find``. A streaming parser goes byte by byte through input that is almost a boundary, which
lets a single request keep a CPU busy.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header

from pipeline.serving.schema import RejectedError

HEADER_BYTES = 4096
"""Maximum size of the headers of one part, in bytes."""

EXTENDED = re.compile(rb""";\s*filename\*\s*=\s*"?utf-8'[^']*'([^;"\s]*)""", re.IGNORECASE)
"""A file name as in RFC 5987. Forms should not use it, but urllib3 before 2 does for ``ö.wav``."""


@dataclass(frozen=True)
class Part:
    """One part of a form.

    Attributes
    ----------
    name : str
        The form field.
    filename : str or None
        None if the part is not a file. It is never used as a path.
    content : bytes
    """

    name: str
    filename: str | None
    content: bytes


def parse_form(body: bytearray, content_type: str, most: int) -> list[Part]:
    """Split a multipart form into its parts.

    Parameters
    ----------
    body : bytearray
    content_type : str
        The request's header.
    most : int
        Maximum number of parts.

    Returns
    -------
    list of Part

    Raises
    ------
    RejectedError
        With status 400 if the form is damaged, 413 if it has too many parts.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind.lower() != b"multipart/form-data" or not boundary:
        raise RejectedError(
            400, "The request is not a form with a file (multipart/form-data).", "form"
        )
    mark = b"--" + boundary
    # the first boundary may stand at the very beginning, all others begin a line
    place = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    broken = RejectedError(400, "The form is damaged or incomplete.", "form")
    if place == 1:
        raise broken
    parts: list[Part] = []
    while True:
        after = place + len(mark)
        if body[after : after + 2] == b"--":
            return parts
        line = body.find(b"\r\n", after, after + 100)
        head = body.find(b"\r\n\r\n", line, line + HEADER_BYTES)
        end = body.find(b"\r\n" + mark, head + 2)
        if min(line, head, end) < 0 or body[after:line].strip():
            raise broken
        if len(parts) == most:
            raise RejectedError(413, f"The form has more than {most} parts.", "files")
        start = head + 4
        content = bytes(memoryview(body)[start : max(start, end)])
        parts.append(_part(bytes(body[line:head]), content))
        place = end + 2


def files_of(parts: list[Part], name: str) -> list[Part]:
    """Select the files of one form field.

    Parameters
    ----------
    parts : list of Part
    name : str
        The form field.

    Returns
    -------
    list of Part
        At least one.

    Raises
    ------
    RejectedError
        With status 400 if the field is missing, holds text, or holds one empty file.
    """
    named = [part for part in parts if part.name == name]
    if not named:
        raise RejectedError(400, f"The form has no field `{name}` with a file.", "form")
    files = [part for part in named if part.filename is not None]
    if len(files) < len(named):
        raise RejectedError(400, f"The field `{name}` contains text instead of a file.", "form")
    if len(files) == 1 and not files[0].content:
        raise RejectedError(400, "The file is empty.", "form")
    return files


def _part(head: bytes, content: bytes) -> Part:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value.strip())
            filename = options.get(b"filename")
            extended = EXTENDED.search(value)
            if filename is None and extended:
                filename = unquote_to_bytes(extended[1])
            return Part(
                name=options.get(b"name", b"").decode("utf-8", "replace"),
                filename=None if filename is None else filename.decode("utf-8", "replace"),
                content=content,
            )
    return Part("", None, content)
