"""The image, built and run: its content, and that it serves with little memory and CPU."""

import io
import json
import re
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bench.harness import free_port
from deploy import engine, smoke
from pipeline.errors import UserError
from tests.delivery.conftest import Clone, Image

pytestmark = pytest.mark.image


@contextmanager
def running(image: str) -> Iterator[tuple[str, str]]:
    """Run a container with the limits of a small machine; yield its id and its address."""
    port = free_port()
    container = engine.start(image, port)
    try:
        yield container, f"http://127.0.0.1:{port}"
    finally:
        engine.run("rm", "--force", container)


def inside(image: str, script: str) -> str:
    """Return what a shell script prints inside an image."""
    return engine.run("run", "--rm", "--network", "none", image, "sh", "-c", script)


def test_with_little_memory_and_cpu_it_predicts_as_the_bundle_and_stops_cleanly(
    image: Image, esc10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image.clone.folder)
    smoke.write()
    with running(image.name) as (container, address):
        assert "predicts as expected on 5 clips" in smoke.check(address)
        clips = sorted(esc10.rglob("*.ogg"))[::40]
        assert len(clips) >= 5
        for clip in clips:
            answer = httpx.post(
                f"{address}/classify", files={"file": clip.read_bytes()}, timeout=60
            )
            assert answer.status_code == 200, answer.text
        engine.run("stop", "--time", "30", container)
        state = json.loads(engine.run("container", "inspect", container))[0]["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_it_contains_every_decoder(image: Image, kind: str) -> None:
    code = (
        "import io, numpy, soundfile, av; b = io.BytesIO();"
        f"soundfile.write(b, numpy.random.rand(44100), 44100, format={kind!r});"
        "from pipeline.sound import decoding; print(decoding.load(b.getvalue(), 22050).shape[0])"
    )
    shown = engine.run("run", "--rm", "--network", "none", image.name, "python", "-c", code)
    assert abs(int(shown.splitlines()[-1]) - 22050) < 1500


def test_it_is_small(image: Image) -> None:
    # compressed, see test_rehearsal.py, which pushes it
    assert engine.inspect(image.name)["Size"] <= 450e6


def test_it_runs_without_root_compiler_and_installer(image: Image) -> None:
    assert inside(image.name, "id -u") == "1034"
    found = inside(image.name, "command -v gcc cc make git pip pip3 uv curl || true")
    assert found == ""
    with pytest.raises(UserError):
        inside(image.name, "python -m pip --version")
    assert inside(image.name, "find /app /srv -writable") == ""


def test_its_labels_name_the_commit_and_the_model(image: Image) -> None:
    config = engine.inspect(image.name)["Config"]
    commit = image.clone.ok("git", "rev-parse", "HEAD").strip()
    assert config["Labels"]["org.opencontainers.image.revision"] == commit
    assert config["Labels"]["model.version"] == "7"
    assert config["Labels"]["model.run_id"] == "0" * 32
    assert image.name == f"sound-classifier:sound-classifier-v7-{commit[:12]}"


def test_its_health_check_requests_readyz(image: Image) -> None:
    check = json.dumps(engine.inspect(image.name))
    assert "127.0.0.1:3000/readyz" in check


def test_every_package_is_in_the_lock_file_and_in_the_sbom(image: Image) -> None:
    lock = (image.clone.folder / "requirements-service.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock, re.MULTILINE))
    bill = json.loads((image.clone.folder / "build" / "sbom.cdx.json").read_text())
    python = {
        (re.sub(r"[-_.]+", "-", part["name"]).lower(), part["version"])
        for part in bill["components"]
        if part.get("purl", "").startswith("pkg:pypi/")
    }
    assert ("bentoml", dict(locked)["bentoml"]) in python
    assert python <= locked
    kinds = {part.get("purl", part["type"]).split("/")[0] for part in bill["components"]}
    assert kinds == {"machine-learning-model", "pkg:pypi", "pkg:deb"}


def test_two_builds_give_the_same_files(image: Image, base_image: str) -> None:
    """Compare names, modes, owners, links and contents, but not time stamps."""

    def content(name: str) -> dict[str, tuple[int, int, str, int]]:
        container = engine.run("create", name)
        held = {}
        for folder in ("/app", "/srv"):
            done = subprocess.run(
                [engine.find(), "cp", f"{container}:{folder}", "-"], capture_output=True, check=True
            )
            with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
                for member in tar:
                    file = tar.extractfile(member) if member.isfile() else None
                    checksum = zlib.crc32(file.read()) if file else 0
                    held[member.name] = (member.mode, member.uid, member.linkname, checksum)
        engine.run("rm", container)
        return held

    first = content(image.name)
    before = engine.inspect(image.name)["Id"]
    image.clone.ok("python", "-m", "deploy.image", "--base", base_image, "--no-cache")
    assert engine.inspect(image.name)["Id"] != before
    second = content(image.name)
    assert len(first) > 3000
    assert {k for k in first | second if first.get(k) != second.get(k)} == set()


def test_without_a_bundle_the_error_says_what_to_do(
    clone: Clone, container_engine: str, tmp_path: Path
) -> None:
    bundle = clone.folder / "bundle"
    bundle.rename(tmp_path / "bundle")
    try:
        done = clone.run("python", "-m", "deploy.image")
    finally:
        (tmp_path / "bundle").rename(bundle)
    assert done.returncode == 1
    assert done.stdout.startswith("image: error: bundle/card.json is missing: run `python")
    assert done.stdout.count("\n") == 1
