"""The source bundle behind a real nginx: limits, rejections, readiness and the smoke test."""

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
    assert "serves sound-classifier version 7 and predicts as expected on 5 clips" in said


def test_nginx_lets_the_largest_allowed_file_through(address: str) -> None:
    most = Limits().max_bytes
    answer = httpx.post(f"{address}/classify", files={"file": bytes(most - 1000)}, timeout=60)
    assert answer.status_code == 415  # from the service: zeros are not sound


def test_nginx_rejects_a_larger_file_with_the_sentence_of_the_service(address: str) -> None:
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
    with pytest.raises(UserError, match=r"serves .*'7'.* instead of .*'8'"):
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


def test_a_port_that_another_program_uses_is_an_error(archive: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"port {port} is in use"),
            local.deployed(archive, port),
        ):
            pass
