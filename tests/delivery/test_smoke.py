"""The smoke test: what it writes, a bundle without examples, wrong services, damaged files."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import harness
from bench.harness import free_port
from deploy import smoke
from pipeline.errors import UserError
from pipeline.serving.bundle import CARD, EXAMPLES, checksums
from tests.delivery.conftest import ROOT

MODEL = {"name": "sound-classifier", "version": "7"}


class Service(BaseHTTPRequestHandler):
    """Is ready and has the right model, but returns a page instead of a prediction."""

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


def test_a_page_instead_of_a_prediction_is_an_error(address: str, folder: Path) -> None:
    with pytest.raises(UserError, match="returned an invalid response"):
        smoke.check(address, folder)


def test_a_missing_clip_is_named(address: str, folder: Path) -> None:
    (folder / "a.wav").unlink()
    with pytest.raises(UserError, match=r"a\.wav is missing: `make eb-bundle`"):
        smoke.check(address, folder)


def test_missing_or_damaged_expected_predictions_are_named(folder: Path) -> None:
    (folder / smoke.EXPECTED).write_text('{"model": ')
    with pytest.raises(
        UserError, match=r"expected\.json is damaged: write it again with `make eb-bundle`"
    ):
        smoke.check("127.0.0.1:1", folder)
    (folder / smoke.EXPECTED).unlink()
    with pytest.raises(UserError, match=r"expected\.json is missing: `make eb-bundle`"):
        smoke.check("127.0.0.1:1", folder)


@pytest.mark.parametrize("nobody", ["", "http://", "two words", "127.0.0.1"])
def test_an_address_without_a_service_gives_one_error_sentence(nobody: str, folder: Path) -> None:
    where = f"{nobody}:{free_port()}" if nobody == "127.0.0.1" else nobody
    with pytest.raises(UserError):
        smoke.check(where, folder, patience=0.5)


@pytest.fixture
def without_examples(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle without example clips, in the working directory."""
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "bundle"
    shutil.copytree(bundle, own)
    shutil.rmtree(own / EXAMPLES)
    card = json.loads((own / CARD).read_text())
    card |= {"examples": [], "checksums": checksums(own)}
    (own / CARD).write_text(json.dumps(card))
    return own


def test_a_bundle_without_examples_is_checked_with_generated_sounds(without_examples: Path) -> None:
    smoke.write()
    expected = json.loads((smoke.FOLDER / smoke.EXPECTED).read_text())
    assert set(expected["clips"]) == {"noise.flac", "sweep.wav"}
    environment = {
        "SOUND_BUNDLE": str(without_examples),
        "BENTOML_HOME": str(without_examples.parent / "home"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with harness.served(harness.bentoml_serve(harness.OURS), environment=environment) as running:
        address = f"127.0.0.1:{running.port}"
        assert smoke.check(address).endswith("predicts as expected on 2 clips")
        expected["clips"]["sweep.wav"]["probability"] -= 0.01
        (smoke.FOLDER / smoke.EXPECTED).write_text(json.dumps(expected))
        with pytest.raises(UserError, match=r"predicts .* for sweep\.wav instead of"):
            smoke.check(address)


def test_the_examples_of_a_bundle_are_checked_too(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(bundle)
    smoke.write()
    expected = json.loads((smoke.FOLDER / smoke.EXPECTED).read_text())
    examples = {clip.name for clip in (bundle / EXAMPLES).iterdir()}
    assert set(expected["clips"]) == {"noise.flac", "sweep.wav"} | examples
    assert examples
