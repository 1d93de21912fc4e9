"""The real process: ``bentoml serve``, and a bento with the bundle."""

import http.client
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import soundfile

from bench import harness
from pipeline.errors import UserError
from pipeline.serving.bundle import CARD, checksums
from pipeline.serving.classifier import Classifier, without_info_lines
from pipeline.serving.settings import PROCESS_ENVIRONMENT, Settings
from tests.bundle import LABELS, sound
from tests.service.conftest import ROOT, Service
from tests.service.test_api import wav

TRAINING = ("mlflow", "keras", "tensorflow", "librosa", "pandas", "dvc", "sklearn", "matplotlib")

PEEK = """
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in %r:
            raise ModuleNotFoundError(f"the service imports {name}")

sys.meta_path.insert(0, Refuse())
from pipeline.serving.service import SoundClassifier
SoundClassifier.inner()
from pipeline.serving import service
import asyncio, httpx
async def ask():
    transport = httpx.ASGITransport(service.application)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        clip = (await client.get("/examples/tone.wav")).content
        return (await client.post("/classify", files={"file": ("a", clip)})).json()
print(json.dumps({"answer": asyncio.run(ask()), "modules": sorted(sys.modules)}))
"""


def bentoml_command() -> str:
    return str(Path(sys.executable).with_name("bentoml"))


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BENTOML_", "SOUND_"))}
    return {**kept, "BENTOML_HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def test_a_clip_is_classified(server: Service) -> None:
    with httpx.Client(base_url=server.url) as client:
        for label in LABELS:
            clip = wav(sound(label, 2000, 48000, 3), 48000)
            answer = client.post("/classify", files={"file": ("a.wav", clip)})
            assert (answer.status_code, answer.json()["label"]) == (200, label)


def test_probes_metrics_and_errors_come_from_our_application_not_from_bentoml(
    server: Service,
) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.head("/readyz").status_code == 200
        client.post("/classify", files={"file": ("a.wav", wav(sound("tone", 1)))})
        client.post("/classify", files={"file": ("a.wav", b"a note")})
        client.get("/made-up")
        text = client.get("/metrics").text
        assert 'sound_predictions_total{label="tone"}' in text
        assert 'sound_rejected_total{reason="format"}' in text
        assert "made-up" not in text
        for path, status in (("/made-up", 404), ("/schema", 404), ("/assets/x", 404)):
            answer = client.get(path)
            assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert client.post("/livez").json().keys() == {"error"}
        assert client.get("/docs.json").json()["info"]["title"] == "sound-classifier"
        assert client.get("/").headers["content-type"].startswith("text/html")


def test_predictions_are_logged_to_the_folder_in_the_settings(server: Service) -> None:
    httpx.post(f"{server.url}/classify", files={"file": ("a.wav", wav(sound("hiss", 1)))})
    (file,) = server.log.glob("*.jsonl")
    last = json.loads(file.read_text().splitlines()[-1])
    assert last["label"] == "hiss"
    assert set(last) >= {"confidence", "level", "contrast", "centroid", "duration", "version"}


def test_an_upload_that_is_too_large_gets_an_answer_instead_of_a_broken_connection(
    server: Service,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    connection.request("POST", "/classify", bytes(40_000_000), headers)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"] == "The request is larger than 20 MB."


def test_the_service_runs_without_the_training_libraries(bundle: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEEK % (TRAINING,)],
        env=environment(tmp_path, SOUND_BUNDLE=str(bundle)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["answer"]["label"] == "tone"
    assert not {name.split(".")[0] for name in said["modules"]} & set(TRAINING)


@pytest.mark.parametrize("command", ["predict", "drift"])
def test_predict_and_drift_run_without_the_training_libraries(
    command: str, bundle: Path, tmp_path: Path
) -> None:
    refuse = PEEK.partition("from pipeline.serving.service")[0] % (TRAINING,)
    clip, log = tmp_path / "a.wav", tmp_path / "a.log"
    clip.write_bytes(wav(sound("tone", 1)))
    log.write_text('{"label": "tone", "confidence": 0.9}\n')
    given = {"predict": clip, "drift": log}[command]
    run = f"import sys; from pipeline.__main__ import main; main([{command!r}, *sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", f"{refuse}\n{run}", "--bundle", str(bundle), str(given)],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "INFO:" not in done.stderr  # LiteRT's note on how it computes


def test_notes_of_litert_are_dropped_but_its_errors_are_not(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with without_info_lines():
        os.write(2, b"INFO: a note\nERROR: a complaint\n")
    assert capfd.readouterr().err == "ERROR: a complaint\n"


def test_bentoml_takes_its_time_limit_from_the_settings(tmp_path: Path) -> None:
    code = (
        "from pipeline.serving.service import SoundClassifier as s;"
        " print(s.config['traffic']['timeout'])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, SOUND_MAX_DECODE_SECONDS="100"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert int(printed) == Settings(max_decode_seconds=100).request_seconds == 135


def test_the_supervising_process_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, pipeline.serving.service; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"numpy", "scipy", "soundfile", "fastapi", "ai_edge_litert"} & set(
        done.stdout.split()
    )


def start(port: int, home: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a service that is expected to exit with an error."""
    return subprocess.run(
        harness.bentoml_serve(harness.OURS)(port),
        env=environment(home, **settings),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


SEALED = b"sealed: "
"""Content that begins with this gets a correct checksum in the card."""


def spoilt(folder: Path, name: str, content: bytes | None) -> Path:
    """Damage a file of a bundle, or delete it."""
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
        if content.startswith(SEALED):
            card = json.loads((folder / CARD).read_text())
            (folder / CARD).write_text(json.dumps(card | {"checksums": checksums(folder)}))
    return folder


@pytest.mark.parametrize(
    ("settings", "file", "content", "sentence"),
    [
        (
            {"SOUND_BUNDLE": "nowhere"},
            None,
            None,
            "card.json is missing: run `python",
        ),
        ({"SOUND_MAX_FILES": "many"}, None, None, "SOUND_MAX_FILES is 'many', but must be a"),
        ({}, "model.tflite", b"damaged", "model.tflite is damaged"),
        ({}, "spec.npz", None, "spec.npz is missing"),
        ({}, "card.json", b"{", "card.json is damaged"),
        ({}, "card.json", b"{}", "card.json is from an earlier release"),
        ({"SOUND_MAX_BYTE": "9"}, None, None, "did you mean SOUND_MAX_BYTES?"),
        # the checksum is right, so only the worker notices; it must not be restarted for ever
        ({}, "model.tflite", SEALED + b"no model", "is not a bundle (The model is not a valid"),
    ],
)
def test_an_error_at_the_start_is_reported_in_one_sentence(
    settings: dict[str, str],
    file: str | None,
    content: bytes | None,
    sentence: str,
    bundle: Path,
    tmp_path: Path,
) -> None:
    if file:
        bundle = spoilt(shutil.copytree(bundle, tmp_path / "bundle"), file, content)
    done = start(harness.free_port(), tmp_path, **{"SOUND_BUNDLE": str(bundle), **settings})
    assert done.returncode == 1
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("serve: error: "))
    assert sentence in said
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_reported_in_one_sentence(
    server: Service, bundle: Path, tmp_path: Path
) -> None:
    done = start(server.port, tmp_path, SOUND_BUNDLE=str(bundle))
    assert done.returncode == 1
    assert done.stderr == (
        "serve: error: the address is already in use: stop the program that uses it, or choose"
        " another port.\n"
    )
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_model_that_gives_nan_is_rejected(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = np.full((1, len(LABELS)), np.nan, np.float32)
    monkeypatch.setattr(Classifier, "infer", lambda *_: answer)
    with pytest.raises(UserError, match="probabilities for silence are not finite numbers"):
        Classifier.load(bundle)


TIMERS = """
import asyncio, gc
from pipeline.serving import service

async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})

async def send(message):
    sent.append(message)

async def ask():
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": [],
             "query_string": b"", "scheme": "http", "server": None, "http_version": "1.1"}
    await app(scope, None, send)
    print(len(sent), sum(isinstance(thing, asyncio.TimerHandle) for thing in gc.get_objects()))

sent = []
app = service.SoundClassifier.to_asgi()  # as a worker has it
service._app = answer
asyncio.run(ask())
"""


def test_bentoml_keeps_no_timer_for_an_answered_request(bundle: Path, tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", TIMERS],
        env=environment(tmp_path, SOUND_BUNDLE=str(bundle)),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert printed.split() == ["2", "0"]


REMARKS = """
import sys
from pathlib import Path
from pipeline.sound import decoding
if "muted" in sys.argv:
    decoding.mute_decoders()
decoding.load(Path(sys.argv[1]), 22050)
print("Python still speaks", file=sys.stderr)
"""


def test_remarks_of_decoders_about_damaged_files_do_not_fill_the_log(
    server: Service, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.mp3", sound("hiss", 1), 22050)
    damaged = bytearray((tmp_path / "a.mp3").read_bytes())
    damaged[2000:2400] = bytes(400)
    (tmp_path / "a.mp3").write_bytes(damaged)

    def said(*how: str) -> str:
        command = [sys.executable, "-c", REMARKS, str(tmp_path / "a.mp3"), *how]
        return subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, check=True
        ).stderr

    assert "Illegal Audio-MPEG-Header" in said()
    assert said("muted") == "Python still speaks\n"
    worker = psutil.Process(server.pid).children()[0]
    assert Path(f"/proc/{worker.pid}/fd/2").resolve() == Path(os.devnull)


READ_ONLY = """
set -e
mount -t tmpfs -o size=1m tmpfs "$2"
for place in $(awk '$2 !~ "^/(proc|sys|dev)(/|$)" {print $2}' /proc/mounts | sort -u); do
    [ "$place" = "$1" ] || [ "$place" = "$2" ] || mount -o remount,ro,bind "$place" || true
done
! touch "$3" 2> /dev/null
! head -c 2000000 /dev/zero 2> /dev/null > "$2/full"  # not a byte is left
shift 3
exec "$@"
"""


@pytest.mark.skipif(
    sys.platform != "linux" or subprocess.call(["unshare", "-m", "true"], stderr=-3) != 0,
    reason="it takes the right to mount",
)
def test_the_service_runs_on_a_read_only_root_and_keeps_predicting_on_a_full_disk(
    bundle: Path, tmp_path: Path
) -> None:
    writable, log, elsewhere = tmp_path / "writable", tmp_path / "log", tmp_path / "elsewhere"
    for folder in (writable, log, elsewhere):
        folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(writable)]
    subprocess.run(mount, check=True)
    served = harness.bentoml_serve(harness.OURS)
    places = [str(writable), str(log), str(elsewhere / "file")]

    def command(port: int) -> list[str]:
        return ["unshare", "-m", "bash", "-c", READ_ONLY, "bash", *places, *served(port)]

    settings = {
        "SOUND_BUNDLE": str(bundle),
        "SOUND_PREDICTION_LOG": str(log),
        "BENTOML_HOME": str(writable / "bentoml"),
        "TMPDIR": str(writable),
        "HOME": "/nonexistent",
        "PYTHONPATH": str(ROOT),
    }
    try:
        with harness.served(command, environment=settings) as running:
            (filling := writable / "filling").touch()
            with pytest.raises(OSError, match="No space left"):
                filling.write_bytes(bytes(9_000_000))
            body = harness.upload(wav(sound("tone", 1)))
            for path in ("/model", "/openapi.json", "/examples/tone.wav", "/", "/docs", "/nothing"):
                assert harness.request(running.port, path).status in (200, 404)
            for _ in range(3):
                answer = harness.request(running.port, "/classify", body, harness.HEADERS)
                assert json.loads(answer.body)["label"] == "tone"
            metrics = harness.request(running.port, "/metrics").body.decode()
    finally:
        subprocess.run(["umount", "--lazy", str(writable)], check=True)
    assert 'sound_predictions_total{label="tone"} 3.0' in metrics
    assert "sound_log_failures_total 3.0" in metrics


def test_a_bento_of_the_service_serves_the_bundle(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "pipeline", source / "pipeline")
    shutil.copytree(bundle, source / "bundle")
    shutil.copytree(ROOT / "deploy", source / "deploy")
    for name in ("bentofile.yaml", "requirements-service.lock"):
        shutil.copy(ROOT / name, source)
    home = environment(tmp_path / "home")
    del home["PYTHONPATH"]
    built = subprocess.run(
        [bentoml_command(), "build", "--output", "tag"],
        env=home,
        cwd=source,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.split("__tag__:")[-1].split()[0]
    bento = next((tmp_path / "home" / "bentos" / "sound-classifier").glob("[!l]*"))
    held = {str(path.relative_to(bento / "src")) for path in (bento / "src").rglob("*.py")}
    assert "pipeline/serving/service.py" in held
    assert not held & {
        "pipeline/stages/train.py",
        "pipeline/registry/package.py",
        "pipeline/tracking/store.py",
    }
    assert (bento / "src" / "bundle" / "model.tflite").is_file()
    dockerfile = (bento / "env" / "docker" / "Dockerfile").read_text()
    for name, value in PROCESS_ENVIRONMENT.items():
        assert f"ENV {name}={value}\n" in dockerfile
    locked = (bento / "env" / "python" / "requirements.txt").read_text()
    assert "--hash=sha256:" in locked

    def command(port: int) -> list[str]:
        return [bentoml_command(), "serve", tag, "--host", "127.0.0.1", "--port", str(port)]

    without: dict[str, Any] = {"BENTOML_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    with harness.served(command, environment=without) as running:
        answer = harness.request(running.port, "/model")
        assert json.loads(answer.body)["version"] == "7"
        clip = harness.request(running.port, "/examples/tone.wav")
        assert clip.status == 200
