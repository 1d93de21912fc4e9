"""The smoke test against what does not answer, with files that are not whole."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.harness import free_port
from deploy import smoke
from pipeline.errors import UserError

MODEL = {"name": "sound-classifier", "version": "7"}


class Service(BaseHTTPRequestHandler):
    """Says that it is ready and which model it has, and is wrong in all else."""

    def do_GET(self) -> None:
        self._say(json.dumps(MODEL))

    def do_POST(self) -> None:
        self._say("<html>not what was asked for</html>")

    def _say(self, text: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(b"sound")
    answer = {"label": "tone", "probability": 1.0}
    expected = {"model": MODEL, "clips": {"a.wav": answer}}
    (tmp_path / smoke.EXPECTED).write_text(json.dumps(expected))
    return tmp_path


def test_a_page_instead_of_an_answer_is_no_answer(address: str, folder: Path) -> None:
    with pytest.raises(UserError, match="does not answer as it should"):
        smoke.check(address, folder)


def test_a_clip_that_is_gone_is_named(address: str, folder: Path) -> None:
    (folder / "a.wav").unlink()
    with pytest.raises(UserError, match=r"a\.wav is missing: `make eb-bundle`"):
        smoke.check(address, folder)


def test_answers_that_are_damaged_or_gone_are_named(folder: Path) -> None:
    (folder / smoke.EXPECTED).write_text('{"model": ')
    with pytest.raises(UserError, match=r"expected\.json is damaged: `make eb-bundle`"):
        smoke.check("127.0.0.1:1", folder)
    (folder / smoke.EXPECTED).unlink()
    with pytest.raises(UserError, match=r"expected\.json is missing: `make eb-bundle`"):
        smoke.check("127.0.0.1:1", folder)


@pytest.mark.parametrize("nobody", ["", "http://", "two words", "127.0.0.1"])
def test_an_address_at_which_nobody_is_is_an_error_in_one_sentence(
    nobody: str, folder: Path
) -> None:
    where = f"{nobody}:{free_port()}" if nobody == "127.0.0.1" else nobody
    with pytest.raises(UserError):
        smoke.check(where, folder, patience=0.5)
