"""The very bundle behind a real nginx: limits, refusals, readiness and the smoke test."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.harness import free_port
from deploy import local, smoke, source_bundle
from pipeline.errors import UserError
from pipeline.serving.settings import Settings as Limits
from tests.delivery.conftest import Image

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def archive(image: Image) -> Path:
    image.clone.ok("python", "-m", "deploy.source_bundle")
    return image.clone.folder / source_bundle.FILE


@pytest.fixture(scope="module")
def address(archive: Path) -> Iterator[str]:
    with local.deployed(archive, free_port()) as url:
        yield url


def test_the_smoke_test_passes(address: str, image: Image) -> None:
    said = smoke.check(address, image.clone.folder / smoke.FOLDER)
    assert "serves version 7 and is right on 4 clips" in said


def test_a_file_as_large_as_allowed_comes_through_to_the_service(address: str) -> None:
    most = Limits().max_bytes
    answer = httpx.post(f"{address}/classify", files={"file": bytes(most - 1000)}, timeout=60)
    assert answer.status_code == 415  # the service's word: zeros are not sound


def test_one_that_is_larger_is_refused_by_nginx_in_the_words_of_the_service(address: str) -> None:
    answer = httpx.post(f"{address}/classify", files={"file": bytes(30_000_000)}, timeout=60)
    assert answer.status_code == 413
    assert answer.json() == {"error": "The request is larger than 20 MB."}
    assert answer.headers["server"] == "nginx"


def test_another_model_is_noticed(address: str, image: Image, tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    folder.mkdir()
    for file in (image.clone.folder / smoke.FOLDER).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    expected = folder / smoke.EXPECTED
    expected.write_text(expected.read_text().replace('"version": "7"', '"version": "8"'))
    with pytest.raises(UserError, match=r"serves .*'7'.*, and not .*'8'"):
        smoke.check(address, folder)


def test_a_container_that_does_not_become_ready_fails_the_deployment(
    archive: Path, tmp_path: Path
) -> None:
    local.unpack(archive, tmp_path / "source")
    held = {
        str(path.relative_to(tmp_path / "source")): path.read_text()
        for path in (tmp_path / "source").rglob("*")
        if path.is_file()
    }
    held[source_bundle.HOOK] = (
        held[source_bundle.HOOK].replace("seq 120", "seq 2").replace("readyz", "never")
    )
    source_bundle.write(tmp_path / "bundle.zip", held)
    with (
        pytest.raises(UserError, match=r"the hook 10_ready.sh failed: not ready"),
        local.deployed(tmp_path / "bundle.zip", free_port()),
    ):
        pass


def test_what_another_program_answers_is_not_taken_for_the_bundle(archive: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"), local.deployed(archive, port):
            pass
