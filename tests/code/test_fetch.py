"""Downloads from a real server over a bad connection, and malicious archives."""

import hashlib
import io
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.data import archives, fetch
from pipeline.errors import UserError

CONTENT = bytes(range(256)) * 4096
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@dataclass
class Site:
    """A server and how it should behave."""

    url: str = ""
    content: bytes = CONTENT
    drops: list[int] = field(default_factory=list)  # bytes to send of the next answers
    ranges: bool = True
    status: int = 200
    asked: list[str | None] = field(default_factory=list)  # Range of every request


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        site.asked.append(wanted)
        if site.status != 200:
            self.send_error(site.status)
            return
        tag = f'"{hashlib.sha256(site.content).hexdigest()[:16]}"'
        start = int(wanted[6:-1]) if wanted and site.ranges else 0
        if self.headers.get("If-Range") not in (None, tag):
            start = 0
        if start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(site.content) - start))
        self.end_headers()
        end = start + site.drops.pop(0) if site.drops else None
        self.wfile.write(site.content[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up, which the tests are about."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(fetch, "BACKOFF", 0.0)
    site = Site()
    handler = type("ThisHandler", (Handler,), {"site": site})
    with Server(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}/sounds.zip"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join(10)


def test_an_interrupted_download_continues_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.drops = [300_000, 200_000]
    path = fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip")
    assert path == tmp_path / "a.zip"
    assert path.read_bytes() == CONTENT
    first, second = (int(str(wanted)[6:-1]) for wanted in site.asked[1:])
    assert 300_000 - fetch.BLOCK < first <= 300_000
    assert 500_000 - 2 * fetch.BLOCK < second <= 500_000
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_complete_file_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    for _ in range(2):
        fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip")
    assert len(site.asked) == 1


def test_a_connection_that_stays_bad_keeps_the_bytes_for_the_next_run(
    site: Site, tmp_path: Path
) -> None:
    site.drops = [2 * fetch.BLOCK] * fetch.TRIES
    kept = 2 * fetch.BLOCK * fetch.TRIES
    with pytest.raises(UserError, match=rf"{kept} bytes are kept"):
        fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip")
    assert not (tmp_path / "a.zip").exists()
    site.asked.clear()
    assert fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip").read_bytes() == CONTENT
    assert site.asked == [f"bytes={kept}-"]


def test_a_server_without_ranges_sends_everything_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.drops = False, [300_000]
    assert fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip").read_bytes() == CONTENT


def test_the_rest_of_another_version_is_not_appended(site: Site, tmp_path: Path) -> None:
    site.drops = [300_000] + [0] * fetch.TRIES
    with pytest.raises(UserError):
        fetch.fetch(site.url, None, tmp_path, "a.zip")
    site.content, site.drops = CONTENT[::-1], []
    assert fetch.fetch(site.url, None, tmp_path, "a.zip").read_bytes() == CONTENT[::-1]


def test_a_part_that_is_already_complete_is_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    assert fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip").read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_is_deleted(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"more")
    assert fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip").read_bytes() == CONTENT


def test_bytes_survive_an_interrupted_check(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pooch.core.hash_matches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip")
    site.asked.clear()
    fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip")
    assert site.asked == [f"bytes={len(CONTENT)}-"]


def test_a_wrong_checksum_is_refused_and_the_next_run_downloads_again(
    site: Site, tmp_path: Path
) -> None:
    site.content = b"not the dataset"
    with pytest.raises(UserError, match=r"a\.zip.*checksum.*deleted"):
        fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip")
    assert list(tmp_path.iterdir()) == []
    site.content = CONTENT
    assert fetch.fetch(site.url, CHECKSUM, tmp_path, "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, fetch.TRIES)])
def test_a_failed_request_names_the_status_and_hides_secrets(
    status: int, tries: int, site: Site, tmp_path: Path
) -> None:
    site.status = status
    address = site.url.replace("127.0.0.1", "me:pass@127.0.0.1") + "?signature=secret"
    with pytest.raises(UserError, match=str(status)) as refusal:
        fetch.fetch(address, None, tmp_path, "a.zip")
    assert "secret" not in str(refusal.value)
    assert "pass" not in str(refusal.value)
    assert len(site.asked) == tries


def test_an_unreachable_address_is_one_sentence(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be reached.*dataset\.source"):
        fetch.fetch("http://127.0.0.1:9/sounds.zip", None, tmp_path, "a.zip")
    with pytest.raises(UserError, match="not an address"):
        fetch.fetch("http://", None, tmp_path, "a.zip")


def test_a_download_that_does_not_fit_on_the_disk_is_not_started(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, free=len(CONTENT) - 1)
    with pytest.raises(UserError, match="make room"):
        fetch.fetch(site.url, None, tmp_path, "a.zip")


def test_a_file_address_is_the_file_itself_and_is_checked(tmp_path: Path) -> None:
    there = tmp_path / "with space.zip"
    there.write_bytes(CONTENT)
    assert fetch.fetch(there.as_uri(), CHECKSUM, tmp_path / "downloads", "a.zip") == there
    with pytest.raises(UserError, match="does not match"):
        fetch.fetch(there.as_uri(), f"sha256:{'0' * 64}", tmp_path, "a.zip")
    assert there.exists()
    with pytest.raises(UserError, match="missing"):
        fetch.fetch((tmp_path / "none").as_uri(), None, tmp_path, "a.zip")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def fill_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))


FILES = {"set/dog/a.wav": b"bark" * 1000, "set/cat/b.wav": b"meow" * 1000}


def make_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes] = FILES) -> Path:
    compression = {".gz": "gz", ".xz": "xz", ".bz2": "bz2"}.get(path.suffix, "")
    with tarfile.open(path, f"w:{compression}") as out:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


ARCHIVES: list[tuple[str, Callable[[Path], Path]]] = [
    ("a.zip", make_zip),
    ("a.tar", make_tar),
    ("a.tar.gz", make_tar),
    ("a.tar.xz", make_tar),
    ("a.tar.bz2", make_tar),
]


@pytest.mark.parametrize(("name", "make"), ARCHIVES)
def test_an_archive_is_unpacked_and_its_wrapping_folder_stepped_into(
    name: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    content = archives.unpack(make(tmp_path / name), tmp_path / "out")
    assert content == tmp_path / "out" / "set"
    assert (content / "dog/a.wav").read_bytes() == FILES["set/dog/a.wav"]


def test_an_archive_is_unpacked_once_until_it_changes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip")
    content = archives.unpack(archive, tmp_path / "out")
    (content / "mark").touch()
    assert (archives.unpack(archive, tmp_path / "out") / "mark").exists()
    make_zip(archive, {**FILES, "set/owl/c.wav": b"hoot"})
    content = archives.unpack(archive, tmp_path / "out")
    assert (content / "owl/c.wav").exists()
    assert not (content / "mark").exists()


def test_an_interrupted_unpacking_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
        if member.filename.endswith("b.wav"):
            raise KeyboardInterrupt
        return extract(self, member, path)

    archive, extract = make_zip(tmp_path / "a.zip"), zipfile.ZipFile.extract
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            archives.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    content = archives.unpack(archive, tmp_path / "out")
    assert (content / "cat/b.wav").read_bytes() == FILES["set/cat/b.wav"]


OUTSIDE = ["../evil.txt", "/evil.txt", "set/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(("kind", "make"), [("a.zip", make_zip), ("a.tar.gz", make_tar)])
def test_a_path_that_leads_out_of_the_folder_is_refused(
    name: str, kind: str, make: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path
) -> None:
    archive = make(tmp_path / kind, {**FILES, name: b"evil"})
    with pytest.raises(UserError, match=f"leads out.*|{re.escape(name)}"):
        archives.unpack(archive, tmp_path / "deep" / "out")
    assert [p.name for p in tmp_path.rglob("*evil*")] == []
    assert not (tmp_path / "deep" / "out").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../secret"),
        (tarfile.SYMTYPE, "set/dog/a.wav"),
        (tarfile.LNKTYPE, "../../secret"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, target: str, tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar")
    with tarfile.open(archive, "a") as out:
        member = tarfile.TarInfo("set/trap")
        member.type, member.linkname = kind, target
        out.addfile(member)
    with pytest.raises(UserError, match="set/trap is a link or a device"):
        archives.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as out:
        member = zipfile.ZipInfo("set/trap")
        member.external_attr = 0o120777 << 16
        out.writestr(member, "/etc/passwd")
    with pytest.raises(UserError, match="set/trap is a link"):
        archives.unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(("name", "make"), [("a.zip", make_zip), ("a.tar.gz", make_tar)])
def test_an_archive_larger_than_the_free_disk_is_refused(
    name: str,
    make: Callable[[Path, dict[str, bytes]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = make(tmp_path / name, {"set/zeros.wav": bytes(20_000_000)})
    fill_disk(monkeypatch, free=10_000_000)
    with pytest.raises(UserError, match=r"needs at least 0\.0 GB.*make room"):
        archives.unpack(archive, tmp_path / "out")


def test_a_damaged_archive_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "whole.zip").read_bytes()
    broken = bytearray(whole)
    broken[60] ^= 0xFF
    zipped = make_tar(tmp_path / "whole.tar.gz").read_bytes()
    for name, content in {
        "cut.zip": whole[: len(whole) // 2],
        "broken.zip": bytes(broken),
        "cut.tar.gz": zipped[: len(zipped) // 2],
        "text.zip": b"an error page, not an archive" * 100,
        "empty.zip": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be unpacked"):
            archives.unpack(tmp_path / name, tmp_path / "out")
        assert not list(tmp_path.glob("out*"))
