"""The API in process: the content of answers, and which requests are rejected, how and why."""

import asyncio
import io
import json
import threading
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from pipeline.serving import app
from pipeline.serving.admission import Admission
from pipeline.serving.bundle import read_reference
from pipeline.serving.classifier import Classifier
from pipeline.serving.forms import parse_form
from pipeline.serving.monitoring import Metrics
from pipeline.serving.prediction_log import PredictionLog
from pipeline.serving.schema import RejectedError
from pipeline.serving.settings import Settings
from tests import no_sound
from tests.bundle import LABELS, sound
from tests.no_sound import NO_SOUND, SOUND

FORM = "multipart/form-data; boundary=B"


def wav(wave: Any, rate: int = 22050, kind: str = "WAV") -> bytes:
    held = io.BytesIO()
    soundfile.write(held, wave, rate, format=kind)
    return held.getvalue()


Question = tuple[str, str, dict[str, Any]]
"""Method, path, and arguments for httpx."""


class Client:
    """The application in this process, called without a network."""

    def __init__(self, bundle: Path, registry: CollectorRegistry, **limits: float) -> None:
        settings = Settings(bundle=bundle, **limits)  # type: ignore[arg-type]
        self.classifier = Classifier.load(bundle)
        self.metrics = Metrics(read_reference(bundle), 100, registry)
        log = PredictionLog(None, self.metrics)
        self.app, self.served = app.make(self.classifier, settings, self.metrics, log)

    def ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        return asyncio.run(self.together([(method, path, what)]))[0]

    async def together(
        self, requests: list[tuple[str, str, dict[str, Any]]]
    ) -> list[httpx.Response]:
        transport = httpx.ASGITransport(self.served, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await asyncio.gather(*(client.request(m, p, **w) for m, p, w in requests))

    def classify(self, content: bytes, name: str = "clip.wav", **query: Any) -> httpx.Response:
        return self.ask("POST", "/classify", files={"file": (name, content)}, params=query)


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(scope="module")
def client(bundle: Path, registry: CollectorRegistry) -> Client:
    return Client(bundle, registry)


def small(bundle: Path, **limits: float) -> Client:
    return Client(bundle, CollectorRegistry(), **limits)


def rejected(answer: httpx.Response, status: int, about: str) -> None:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert about in answer.json()["error"]
    assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize("label", LABELS)
def test_a_clip_gets_its_label_and_all_probabilities(client: Client, label: str) -> None:
    answer = client.classify(wav(sound(label, 500, 44100, 5.0), 44100))
    assert answer.status_code == 200
    content = answer.json()
    assert content["label"] == label
    assert sorted(content["probabilities"]) == LABELS
    values = list(content["probabilities"].values())
    assert values == sorted(values, reverse=True)
    assert content["probability"] == values[0] == content["probabilities"][label]
    assert content["known"]
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert (content["seconds"], content["duration"]) == (4.0, 5.0)
    assert content["model"] == {"name": "sound-classifier", "version": "7"}
    assert content["windows"] is None
    assert content["picture"] is None


def test_a_sound_between_two_labels_is_not_known(bundle: Path, client: Client) -> None:
    threshold = Classifier.load(bundle).threshold
    assert client.ask("GET", "/model").json()["threshold"] == threshold
    known = set()
    for part in np.linspace(0, 1, 101):  # from a tone to a hiss, in steps small enough to doubt
        wave = part * sound("hiss", 3) + (1 - part) * sound("tone", 3)
        content = client.classify(wav(wave.astype(np.float32))).json()
        assert content["known"] == (content["probability"] >= threshold)
        known.add(content["known"])
    assert known == {True, False}


def test_a_clip_with_several_sounds_is_known_if_one_of_its_windows_is(bundle: Path) -> None:
    client = small(bundle)
    client.classifier.threshold = 0.9
    content = client.classify(wav(np.concatenate([sound(n, 5) for n in LABELS])), windows=True)
    assert content.json()["probability"] < 0.9
    assert max(window["probability"] for window in content.json()["windows"]) > 0.9
    assert content.json()["known"]


def test_a_long_recording_gets_a_timeline(client: Client) -> None:
    wave = np.concatenate([sound("tone", 1, seconds=8), sound("hiss", 2, seconds=8)])
    content = client.classify(wav(wave), windows=True).json()
    starts = [window["start"] for window in content["windows"]]
    assert starts == [0, 2, 4, 6, 8, 10, 12]
    assert all(window["end"] == window["start"] + 4 for window in content["windows"])
    labels = [window["label"] for window in content["windows"]]
    assert labels[:3] == ["tone"] * 3
    assert labels[-3:] == ["hiss"] * 3
    for label in LABELS:
        mean = np.mean([window["probabilities"][label] for window in content["windows"]])
        assert content["probabilities"][label] == pytest.approx(mean, abs=2e-6)
    assert (content["seconds"], content["duration"]) == (16.0, 16.0)


def test_sound_beyond_the_maximum_number_of_windows_is_ignored(bundle: Path) -> None:
    wave = np.concatenate([sound("tone", 1, seconds=8), sound("hiss", 2, seconds=8)])
    content = small(bundle, max_windows=2).classify(wav(wave), windows=True).json()
    assert len(content["windows"]) == 2
    assert (content["label"], content["seconds"], content["duration"]) == ("tone", 6.0, 16.0)


def test_the_picture_shows_the_features_that_the_model_used(client: Client) -> None:
    wave = sound("knocks", 9, seconds=6)
    picture = client.classify(wav(wave), picture=True).json()["picture"]
    spectrogram = picture["spectrogram"]
    assert (spectrogram["kind"], spectrogram["low"], spectrogram["high"]) == ("logmel", -80, 0)
    assert (spectrogram["bands"], spectrogram["frames"], spectrogram["seconds"]) == (64, 173, 4)
    seen = np.frombuffer(b64decode(spectrogram["values"]), np.uint8).reshape(64, 173)
    decoded, _ = soundfile.read(io.BytesIO(wav(wave)), dtype="float32")
    expected = client.classifier.extract(decoded[None, :88200])[0]
    np.testing.assert_allclose(seen / 255 * 80 - 80, expected, atol=0.16)
    assert len(picture["waveform"]) == 600
    assert min(low for low, _ in picture["waveform"]) == pytest.approx(decoded.min(), abs=1e-3)
    assert all(-1 <= low <= high <= 1 for low, high in picture["waveform"])


def test_in_a_batch_each_file_has_its_own_result_or_error(client: Client) -> None:
    files = [
        ("files", ("a.wav", wav(sound("tone", 3)))),
        ("files", ("../../etc/passwd", b"a note")),
        ("files", ("empty.wav", b"")),
        ("files", ("silent.wav", wav(np.zeros(22050)))),
        ("files", ("ö.flac", wav(sound("hiss", 3), kind="FLAC"))),
    ]
    answer = client.ask("POST", "/classify_batch", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["file"] for result in results] == [name for _, (name, _) in files]
    assert [result.get("label") for result in results] == ["tone", None, None, None, "hiss"]
    assert "not audio" in results[1]["error"]
    assert "empty" in results[2]["error"]
    assert "silent" in results[3]["error"]
    assert set(results[0]) == {
        "file", "label", "probability", "known", "probabilities", "seconds", "duration", "model",
        "windows",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("what", "status", "about"),
    [
        ({"files": {"clip": ("a.wav", b"x")}}, 400, "no field `file`"),
        ({"files": {"file": (None, "http://127.0.0.1/a.wav")}}, 400, "contains text"),
        ({"files": {"file": ("a.wav", b"")}}, 400, "empty"),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"y"))]}, 400, "several files"),
        ({"content": b""}, 400, "not a form"),
        ({"json": {"file": "x"}}, 400, "not a form"),
        ({"data": {"file": "x"}}, 400, "not a form"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "not a form"),
        ({"content": b"--B\r\n", "headers": {"content-type": FORM}}, 400, "damaged"),
        ({"content": b"\xff" * 99, "headers": {"content-type": FORM}}, 400, "damaged"),
        ({"files": [(str(i), ("a", b"x")) for i in range(25)]}, 413, "more than 24 parts"),
        ({"files": {"file": ("a.wav", b"a note, not a sound")}}, 415, "not audio"),
        ({"files": {"file": ("a.wav", wav(np.zeros(99999)))}}, 422, "silent"),
        ({"files": {"file": ("a", b"x")}, "params": {"windows": "many"}}, 422, "`windows`"),
    ],
)  # fmt: skip
def test_an_invalid_request_is_rejected_in_one_sentence(
    client: Client, what: dict[str, Any], status: int, about: str
) -> None:
    rejected(client.ask("POST", "/classify", **what), status, about)


@pytest.mark.parametrize("name", NO_SOUND)
@pytest.mark.parametrize("windows", [False, True])
def test_a_clip_without_sound_is_rejected_with_the_reason(
    client: Client, name: str, windows: bool
) -> None:
    wave, sentence = NO_SOUND[name]
    answer = client.classify(no_sound.wav(wave), windows=windows)
    assert (answer.status_code, answer.json()) == (422, {"error": sentence})


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_that_is_short_quiet_or_off_centre_is_classified(client: Client, name: str) -> None:
    assert client.classify(no_sound.wav(SOUND[name])).status_code == 200


def test_requests_beyond_the_limits_are_rejected(bundle: Path) -> None:
    client = small(bundle, max_bytes=100_000, max_seconds=2, max_files=2)
    rejected(client.classify(wav(sound("tone", 1, seconds=4))), 413, "larger than 0.1 MB")
    rejected(client.classify(wav(sound("tone", 1, 8000, 3), 8000)), 422, "longer than 2 seconds")
    assert client.classify(wav(sound("tone", 1, 8000, 2), 8000)).status_code == 200
    files = [("files", (str(i), b"x")) for i in range(3)]
    rejected(client.ask("POST", "/classify_batch", files=files), 413, "2 files")
    slow = small(bundle, max_decode_seconds=1e-9)
    rejected(slow.classify(wav(sound("tone", 1))), 422, "decode")


def test_an_endless_body_without_a_length_is_rejected_at_the_limit(bundle: Path) -> None:
    client = small(bundle, max_bytes=100_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10**9:
            sent += 10_000
            yield bytes(10_000)

    answer = client.ask("POST", "/classify", content=endless(), headers={"content-type": FORM})
    rejected(answer, 413, "larger")
    assert sent < 1_000_000


def test_a_small_file_with_hours_of_sound_is_rejected_quickly(client: Client) -> None:
    held = io.BytesIO()
    with soundfile.SoundFile(held, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(100):
            file.write(np.zeros(8000 * 60, np.float32))
    assert len(held.getvalue()) < 1_000_000
    started = time.process_time()
    rejected(client.classify(held.getvalue()), 422, "longer than 180 seconds")
    assert time.process_time() - started < 5


def test_requests_beyond_the_capacity_get_503_with_retry_after(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "Admission", lambda settings: Admission(settings, wait=0.2))
    client = small(bundle, max_concurrent=1)
    leave = threading.Event()
    predict = client.classifier.predict

    def slow(*args: Any, **kwargs: Any) -> Any:
        leave.wait(1.0)
        return predict(*args, **kwargs)

    monkeypatch.setattr(client.classifier, "predict", slow)
    request = ("POST", "/classify", {"files": {"file": ("a", wav(sound("tone", 1)))}})

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        crowd = await client.together([request] * 10)
        leave.set()
        return crowd, await client.together([request] * 3)

    answers, later = asyncio.run(run())
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [503] * 9
    for answer in answers:
        if answer.status_code == 503:
            rejected(answer, 503, "busy")
            assert answer.headers["retry-after"] == "1"
    assert [answer.status_code for answer in later] == [200] * 3


def test_the_total_size_of_all_bodies_is_limited_and_released_afterwards(bundle: Path) -> None:
    client = small(bundle, max_bytes=100_000, max_concurrent=1)
    gate = asyncio.Event()

    async def run() -> tuple[httpx.Response, httpx.Response]:
        async def waiting() -> AsyncIterator[bytes]:
            yield bytes(90_000)
            await gate.wait()

        async def second() -> httpx.Response:
            await asyncio.sleep(0.1)
            headers = {"content-type": FORM}
            what = {"content": bytes(20_000), "headers": headers}
            (answer,) = await client.together([("POST", "/classify", what)])
            gate.set()
            return answer

        what = {"content": waiting(), "headers": {"content-type": FORM}}
        (first,), other = await asyncio.gather(
            client.together([("POST", "/classify", what)]), second()
        )
        return first, other

    first, other = asyncio.run(run())
    rejected(other, 503, "busy")
    rejected(first, 400, "damaged")
    again = client.ask("POST", "/classify", content=bytes(90_000), headers={"content-type": FORM})
    rejected(again, 400, "damaged")


def test_a_request_that_arrives_too_slowly_is_rejected(bundle: Path) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(100):
            await asyncio.sleep(0.05)
            yield b"x"

    client = small(bundle, max_arrival_seconds=0.2)
    answer = client.ask("POST", "/classify", content=drip(), headers={"content-type": FORM})
    rejected(answer, 408, "too long to arrive")


def test_an_internal_error_reveals_no_details(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = small(bundle)
    monkeypatch.setattr(client.classifier, "predict", lambda *_, **__: 1 / 0)
    rejected(client.classify(wav(sound("tone", 1))), 500, "failed to answer")


def test_unknown_paths_and_methods_get_an_error_in_json(client: Client) -> None:
    rejected(client.ask("GET", "/nothing"), 404, "nothing at this address")
    rejected(client.ask("GET", "/examples/../card.json"), 404, "nothing at this address")
    rejected(client.ask("GET", "/examples/%2e%2e%2fcard.json"), 404, "nothing at this address")
    rejected(client.ask("GET", "/page/nothing.js"), 404, "nothing at this address")
    answer = client.ask("GET", "/classify")
    rejected(answer, 405, "method")
    assert answer.headers["allow"] == "POST"


def test_the_model_is_described(client: Client) -> None:
    content = client.ask("GET", "/model").json()
    assert (content["name"], content["version"]) == ("sound-classifier", "7")
    assert content["labels"] == LABELS
    assert content["metrics"]["accuracy"] == 0.91
    assert content["limits"] == {
        "bytes": 20_000_000, "seconds": 180, "windows": 120, "files": 16,
        "arrival_seconds": 30, "decode_seconds": 10, "concurrent": 8,
    }  # fmt: skip
    assert [example["label"] for example in content["examples"]] == LABELS
    for example in content["examples"]:
        clip = client.ask("GET", example["url"])
        assert clip.headers["content-type"] == "audio/wav"
        assert client.classify(clip.content).json()["label"] == example["label"]


def test_the_page_and_swagger_load_everything_from_this_host(client: Client) -> None:
    page = client.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    docs = client.ask("GET", "/docs")
    assert "http://" not in docs.text
    assert "https://" not in docs.text
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-light-32x32.png"):
        assert f"/swagger/{asset}" in docs.text
        assert client.ask("GET", f"/swagger/{asset}").status_code == 200


def test_openapi_lists_every_endpoint_and_status(client: Client) -> None:
    schema = client.ask("GET", "/openapi.json").json()
    assert client.ask("GET", "/docs.json").json() == schema
    assert set(schema["paths"]) == {
        "/classify", "/classify_batch", "/model", "/examples/{name}",
        "/livez", "/readyz", "/metrics",
    }  # fmt: skip
    assert set(schema["paths"]["/classify"]["post"]["responses"]) == {
        "200", "400", "408", "413", "415", "422", "503",
    }  # fmt: skip
    assert "HTTPValidationError" not in json.dumps(schema)


def test_requests_are_counted_by_route_and_rejections_by_reason(bundle: Path) -> None:
    registry = CollectorRegistry()
    client = Client(bundle, registry)
    client.classify(wav(sound("tone", 1)))
    client.classify(b"a note")
    for number in range(5):
        client.ask("GET", f"/made-up-{number}")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("sound_requests_total", endpoint="/classify", status="200") == 1
    assert value("sound_requests_total", endpoint="/classify", status="415") == 1
    assert value("sound_requests_total", endpoint="other", status="404") == 5
    assert value("sound_rejected_total", reason="format") == 1
    assert value("sound_predictions_total", label="tone") == 1
    assert value("sound_confidence_count") == 1
    assert value("sound_request_seconds_count", endpoint="/classify") == 2


# ---- forms


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"B") -> bytearray:
    body = b"".join(b"--" + boundary + b"\r\n" + h + b"\r\n\r\n" + c + b"\r\n" for h, c in parts)
    return bytearray(body + b"--" + boundary + b"--\r\n")


FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"'


def test_file_names_of_older_clients_are_read() -> None:
    for name, expected in ((b"utf-8''%C3%B6.wav", "ö.wav"), (b"UTF-8'en'%ff", "\ufffd")):
        head = b'Content-Disposition: form-data; name="file"; filename*=' + name
        (part,) = parse_form(form((head, b"x")), FORM, 5)
        assert (part.name, part.filename, part.content) == ("file", expected, b"x")


@given(contents=st.lists(st.binary(max_size=300), max_size=5))
def test_a_form_round_trips(contents: list[bytes]) -> None:
    boundary = b"0123456789abcdef"
    body = form(*((FILE, content) for content in contents), boundary=boundary)
    parts = parse_form(body, f"multipart/form-data; boundary={boundary.decode()}", 5)
    assert [part.content for part in parts] == contents
    assert all((part.name, part.filename) == ("file", "a.wav") for part in parts)


@given(
    body=st.binary(max_size=300), boundary=st.text(st.characters(max_codepoint=255), max_size=70)
)
def test_a_damaged_form_raises_only_a_rejection(body: bytes, boundary: str) -> None:
    for content in (body, b"--B\r\n" + body, b"--B\r\n" + FILE + b"\r\n\r\n" + body + b"\r\n--B"):
        for kind in (FORM, f"multipart/form-data; boundary={boundary}", boundary):
            try:
                parse_form(bytearray(content), kind, 5)
            except RejectedError as rejection:
                assert rejection.status in (400, 413)  # noqa: PT017


def test_input_that_is_almost_a_boundary_does_not_slow_the_parser_down() -> None:
    started = time.process_time()
    for piece in (b"\r\n--", b"\r\n", b"-", b"\r\n--B-"):
        body = form((FILE, piece * (5_000_000 // len(piece))), boundary=b"BB")
        assert len(parse_form(body, "multipart/form-data; boundary=BB", 5)[0].content) > 4_900_000
    assert time.process_time() - started < 3
