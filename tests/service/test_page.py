"""The page in a real browser: what a visitor can do, and what the page shows.

Every test also checks that the page writes no message to the console, sends no request to another
host, and works under a content security policy stricter than the service's own.
"""

import io
import json
import re
import shutil
import wave
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from tests.service.conftest import Service

expect.set_options(timeout=30_000)  # the machine may be busy
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",  # beeps twice a second
    "--use-fake-ui-for-media-stream",  # and is allowed
]
POLICY = "default-src 'self'; media-src 'self' blob:; img-src 'self' data: blob:"
REFUSED = re.compile(
    r"Failed to load resource: (net::ERR_FAILED|the server responded with .* [45])"
)
RATE = 16000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


Visit = Callable[..., Page]
Values = NDArray[np.float64]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, server: Service) -> Iterator[Visit]:
    """Open the page in a fresh browser context; at the end, check for messages and requests."""
    home = urlsplit(server.url)
    pages: list[Page] = []
    requests: list[str] = []
    messages: list[str] = []

    def strict(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(
            response=answer, headers={**answer.headers, "content-security-policy": POLICY}
        )

    def note(message: ConsoleMessage) -> None:
        # the browser logs rejected requests by itself; that is no error of the page
        refused = ("/classify", "/model")
        if not (REFUSED.match(message.text) and urlsplit(message.location["url"]).path in refused):
            messages.append(f"{message.type}: {message.text}")

    def opened(
        script: str = "", before: Callable[[Page], Any] | None = None, **options: Any
    ) -> Page:
        options.setdefault("permissions", ["microphone"])
        context = browser.new_context(base_url=server.url, **options)
        page = context.new_page()
        pages.append(page)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", note)
        page.on("pageerror", lambda error: messages.append(f"uncaught: {error}"))
        page.route(lambda url: urlsplit(url).path == "/", strict)
        if script:
            page.add_init_script(script)
        if before:
            before(page)
        page.goto("/")
        if not before:
            examples = page.get_by_role("list", name="Or try an example")
            expect(examples.get_by_role("button")).not_to_have_count(0)
        return page

    yield opened
    for page in pages:
        page.context.close()
    elsewhere = [
        url
        for url in requests
        if not url.startswith(("blob:", "data:")) and urlsplit(url).netloc != home.netloc
    ]
    assert elsewhere == []
    assert messages == []


def clip(*pieces: tuple[float, float]) -> bytes:
    """Make a WAV of tones, one after the other: (Hz, seconds); 0 Hz is silence."""
    parts = [
        np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
        for hertz, seconds in pieces
    ]
    samples = (np.concatenate(parts) * 20000).astype("<i2")
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return held.getvalue()


def upload(page: Page, content: bytes, name: str = "clip.wav") -> None:
    page.get_by_label("Choose a file").set_input_files(
        {"name": name, "mimeType": "audio/wav", "buffer": content}
    )


def answered(page: Page) -> dict[str, Any]:
    """Wait for the answer and return its JSON download."""
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as JSON").click()
    answer = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert isinstance(answer, dict)
    return answer


def model(page: Page) -> dict[str, Any]:
    """Return the service's description of its model."""
    told = page.request.get("/model").json()
    assert isinstance(told, dict)
    return told


def spoken(label: str) -> str:
    return label.replace("_", " ").capitalize()


def share(probability: float) -> str:
    return "<0.1%" if probability < 0.0005 else f"{100 * probability:.1f}%"


def bars(page: Page) -> list[tuple[str, str]]:
    """Return the table of probabilities as (sound, number)."""
    table = page.get_by_role("table", name="Probability of each sound")
    rows = [row.inner_text().split("\t") for row in table.get_by_role("row").all()[1:]]
    return [(row[0].strip(), row[-1].strip()) for row in rows]


def wide(page: Page) -> int:
    """Return by how many pixels the page can be scrolled sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - screen.width"))


def colour(page: Page, selector: str) -> str:
    shown = page.locator(selector).first.evaluate("e => getComputedStyle(e).backgroundColor")
    return str(shown)


def test_an_uploaded_clip_is_answered(visit: Visit) -> None:
    page = visit()
    seconds = model(page)["features"]["seconds"]
    with page.expect_request("**/classify?*") as request:
        upload(page, clip((440, seconds / 2)), "my tone.wav")
    assert parse_qs(urlsplit(request.value.url).query) == {
        "picture": ["true"],
        "windows": ["false"],
    }
    answer = answered(page)

    label, probability = spoken(answer["label"]), share(answer["probability"])
    expect(page.get_by_role("heading", level=2, name=label)).to_contain_text(probability)
    expect(page.get_by_role("status")).to_contain_text("my tone.wav: ")
    name, version = answer["model"]["name"], answer["model"]["version"]
    expect(page.locator("#basis")).to_contain_text(f"{name}, version {version}")
    # innerText leaves out what waits behind "Show all" with many classes
    listed = [(spoken(name), share(p)) for name, p in answer["probabilities"].items()]
    assert bars(page) == listed[:10]
    expect(page.get_by_role("region", name=label)).to_be_visible()
    expect(page.get_by_role("slider", name="Windows of the clip")).to_be_hidden()


def test_the_answer_is_downloaded_as_json_under_the_clips_name(visit: Visit) -> None:
    page = visit()
    upload(page, clip((440, 1)), "a.b.wav")
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as JSON").click()
    assert download.value.suggested_filename == "a.b.json"
    answer = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert answer["file"] == "a.b.wav"
    assert answer["label"] == next(iter(answer["probabilities"]))
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert "picture" not in answer


def test_an_example_can_be_tried_and_a_label_has_the_same_colour_everywhere(visit: Visit) -> None:
    page = visit()
    labels = model(page)["labels"]
    chips = page.get_by_role("list", name="Or try an example").get_by_role("button")
    assert [spoken(label) for label in labels] == chips.all_inner_texts()
    chips.first.click()
    answer = answered(page)
    assert answer["file"] == f"{labels[0]}.wav"

    place = labels.index(answer["label"]) + 1
    assert (
        colour(page, f"#examples li:nth-child({place}) .swatch")
        == colour(page, "#answer .swatch")
        == colour(page, "#bars .track div")
    )


def test_the_clip_is_drawn_with_titles_and_units(visit: Visit) -> None:
    page = visit()
    seconds = model(page)["features"]["seconds"]
    upload(page, clip((440, seconds / 4), (0, seconds / 4)))
    answered(page)
    pairs = page.locator("#wave path").first.get_attribute("d")
    assert pairs is not None
    assert pairs.count("L") > 500
    picture = page.get_by_role("img", name="Spectrogram")
    expect(picture).to_have_attribute("aria-label", re.compile("padded with silence"))
    colours = picture.evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )
    assert colours > 20
    expect(page.locator("#time-title")).to_have_text("Time (seconds)")
    expect(page.locator(".frame-title")).to_have_text("Time (seconds)")
    expect(page.locator("#band-title")).to_have_text(re.compile(r"Frequency \(kHz\)|Coefficient"))
    assert page.locator("#time-axis span").count() >= 3
    assert page.locator("#band-axis span").count() >= 3


def test_the_player_plays_pauses_and_seeks(visit: Visit) -> None:
    page = visit()
    upload(page, clip((440, 3)))
    expect(page.locator("#time")).to_have_text("0:00.0 / 0:03.0")
    page.get_by_role("button", name="Play", exact=True).click()
    expect(page.locator("#time")).not_to_contain_text("0:00.0 /")
    page.get_by_role("button", name="Pause").click()
    page.locator("#wave").click()  # in its middle
    expect(page.locator("#time")).to_contain_text(re.compile(r"0:01\.[45] /"))


def test_a_recording_is_classified_and_can_be_played(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("timer")).to_have_text("0:00")
    expect(page.get_by_role("button", name="Stop and classify")).to_be_focused()
    expect(page.get_by_text("Stops automatically after 30 seconds")).to_be_visible()
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"0:0[1-9]"))
    page.get_by_role("button", name="Stop and classify").click()
    expect(page.get_by_role("button", name="Record")).to_be_focused()
    answer = answered(page)
    assert answer["file"] in {"recording.webm", "recording.mp4"}
    assert answer["duration"] == pytest.approx(1.2, abs=0.7)
    # its header has no length: that it can be sought in all the same is the page's doing
    place = page.get_by_role("slider", name="Position in the clip")
    place.press("End")
    expect(place).not_to_have_attribute("aria-valuenow", "0.0")
    at = float(place.get_attribute("aria-valuenow") or 0)
    assert at == pytest.approx(answer["duration"], abs=0.3)
    place.press("Home")
    expect(place).to_have_attribute("aria-valuenow", "0.0")


def test_a_recording_stops_automatically(visit: Visit) -> None:
    page = visit()
    page.clock.install()
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("timer")).to_be_visible()
    page.wait_for_timeout(1500)  # for a beep; what hurries on is only the page's clock
    page.clock.fast_forward(31_000)
    assert answered(page)["file"].startswith("recording.")


def test_a_cancelled_recording_is_not_sent(visit: Visit) -> None:
    page = visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = page.locator("#zone").bounding_box()
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("timer")).to_be_visible()
    assert page.locator("#zone").bounding_box() == before
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Record")).to_be_focused()
    page.wait_for_timeout(300)
    assert asked == []


REFUSE = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{}'))"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (REFUSE.format("NotAllowedError"), "The microphone is blocked"),
        (REFUSE.format("NotFoundError"), "No microphone was found"),
        (
            "Object.defineProperty(navigator, 'mediaDevices', { value: undefined })",
            "over https or from localhost",
        ),
    ],
    ids=["denied", "missing", "insecure"],
)
def test_an_unavailable_microphone_is_explained(visit: Visit, script: str, sentence: str) -> None:
    page = visit(script)
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("alert")).to_contain_text(sentence)


def test_a_rejected_file_shows_the_services_error_and_hides_the_old_answer(visit: Visit) -> None:
    page = visit()
    upload(page, clip((440, 1)))
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    with page.expect_response("**/classify?*") as response:
        upload(page, b"These are notes, and not a sound.\n" * 9, "notes.wav")
    said = response.value.json()["error"]
    expect(page.get_by_role("alert")).to_have_text(f"notes.wav: {said}")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.locator("#result")).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(visit: Visit) -> None:
    page = visit()
    most = int(model(page)["limits"]["bytes"])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # Playwright cannot upload a file this large, so the page gets a false size
    page.evaluate(
        f"Object.defineProperty(Blob.prototype, 'size', {{ get: () => {most + 1} }})",
    )
    upload(page, clip((440, 1)))
    expect(page.get_by_role("alert")).to_contain_text(f"larger than {most // 10**6} MB")
    assert asked == []


def test_the_user_can_try_again_when_the_service_is_busy(visit: Visit) -> None:
    page = visit()
    said = {"error": "The service is busy: try again in a moment."}
    page.route(
        "**/classify?*",
        lambda route: route.fulfill(status=503, headers={"Retry-After": "2"}, json=said),
        times=1,
    )
    upload(page, clip((440, 1)))
    expect(page.get_by_role("alert")).to_contain_text(f"{said['error']} Please wait 2 seconds.")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    expect(page.get_by_role("alert")).to_be_empty()


def test_an_unreachable_service_is_reported(visit: Visit) -> None:
    page = visit()
    page.route("**/classify?*", lambda route: route.abort(), times=1)
    upload(page, clip((440, 1)))
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_contain_text("Answered in")


def test_the_user_can_try_again_when_the_service_is_not_ready(visit: Visit) -> None:
    said = {"error": "The service is starting."}
    page = visit(
        before=lambda page: page.route(
            "**/model", lambda route: route.fulfill(status=503, json=said), times=1
        )
    )
    expect(page.get_by_role("alert")).to_contain_text(said["error"])
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("region", name="About the model")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_empty()


def test_an_unknown_sound_is_called_unknown_and_gets_its_closest_match(visit: Visit) -> None:
    page = visit()
    page.route("**/classify?*", lambda route: changed(route, ["known"], False))
    upload(page, clip((440, 1)))
    label = spoken(answered(page)["label"]).lower()
    heading = page.get_by_role("heading", level=2, name="Not one of the sounds I know.")
    expect(heading).to_contain_text(f"Closest match: {label}")
    expect(page.get_by_role("status")).to_contain_text(
        "not one of the sounds I know; closest match"
    )


def test_the_page_notices_that_a_new_model_was_deployed(visit: Visit) -> None:
    page = visit()
    version = model(page)["version"]
    page.route("**/classify?*", lambda route: changed(route, ["model", "version"], "4711"))
    page.route("**/model", lambda route: changed(route, ["version"], "4711"))
    upload(page, clip((440, 1)))
    card = page.get_by_role("region", name="About the model")
    expect(card).to_contain_text("version 4711")
    assert version != "4711"


def changed(route: Route, keys: list[str | int], value: Any) -> None:
    """Pass on the service's answer with one value changed."""
    answer = route.fetch()
    content = place = answer.json()
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    route.fulfill(response=answer, json=content)


def test_with_many_classes_only_the_most_probable_are_shown_at_first(visit: Visit) -> None:
    page = visit()
    many = {f"class_{i}": 1 / 2 ** (i + 1) for i in range(50)}
    page.route("**/classify?*", lambda route: changed(route, ["probabilities"], many))
    upload(page, clip((440, 1)))
    rows = page.locator("#bars tr:visible")
    expect(rows).to_have_count(10)
    page.get_by_role("button", name="Show all 50").click()
    expect(rows).to_have_count(50)


def test_labels_that_are_numbers_are_ranked_by_probability(visit: Visit) -> None:
    page = visit()
    ranked = {"siren": 0.5, "007": 0.3, "10": 0.15, "1": 0.05}
    page.route("**/classify?*", lambda route: changed(route, ["probabilities"], ranked))
    upload(page, clip((440, 1)))
    expect(page.locator("#bars tr")).to_have_count(4)
    assert [sound for sound, _ in bars(page)] == ["Siren", "007", "10", "1"]


@pytest.mark.parametrize(
    ("kind", "title"),
    [("mfcc", "Coefficient"), ("stft", "Frequency (kHz)"), ("logmel", "Frequency (kHz)")],
)
def test_every_kind_of_feature_is_drawn(visit: Visit, kind: str, title: str) -> None:
    page = visit()
    page.route(
        "**/classify?*", lambda route: changed(route, ["picture", "spectrogram", "kind"], kind)
    )
    upload(page, clip((440, 1)))
    expect(page.locator("#band-title")).to_have_text(title)
    places = page.locator("#band-axis span").evaluate_all(
        "marks => marks.map((mark) => parseFloat(mark.style.bottom))"
    )
    assert len(places) >= 3
    assert places == sorted(places)
    assert 0 <= places[0] < places[-1] <= 100


def test_a_new_file_cancels_the_previous_request(visit: Visit) -> None:
    page = visit()
    upload(page, clip((440, 30)), "first.wav")
    upload(page, clip((880, 1)), "second.wav")
    assert answered(page)["file"] == "second.wav"
    page.wait_for_timeout(500)
    expect(page.locator("#clip")).to_have_text("second.wav")


def test_a_long_recording_has_a_timeline(visit: Visit) -> None:
    page = visit()
    seconds = model(page)["features"]["seconds"]
    with page.expect_request("**/classify?*") as request:
        upload(page, clip((440, 2 * seconds), (1200, 2 * seconds)))
    assert "windows=true" in request.value.url
    answer = answered(page)
    windows = answer["windows"]
    assert len(windows) == 7

    timeline = page.get_by_role("slider", name="Windows of the clip")
    expect(timeline).to_be_visible()
    expect(page.locator("#strip div")).to_have_count(len(windows))
    last = windows[-1]
    said = f"{spoken(last['label']).lower()} {share(last['probability'])}"
    box = timeline.bounding_box()
    assert box is not None
    timeline.hover(position={"x": box["width"] - 5, "y": 8})
    expect(page.locator("#detail")).to_contain_text(said)
    expect(timeline).to_have_attribute("aria-valuetext", re.compile(re.escape(said)))

    timeline.click(position={"x": box["width"] - 5, "y": 8})
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    page.mouse.move(0, 0)
    timeline.press("Home")
    expect(timeline).to_have_attribute("aria-valuenow", "1")
    timeline.press("ArrowRight")
    expect(timeline).to_have_attribute("aria-valuenow", "2")
    place = page.get_by_role("slider", name="Position in the clip")
    expect(place).to_have_attribute("aria-valuenow", f"{windows[1]['start']:.1f}")

    page.get_by_text("Show the windows as a table").click()
    rows = page.get_by_role("region", name="Windows").get_by_role("row")
    expect(rows).to_have_count(len(windows) + 1)
    expect(rows.last).to_contain_text(spoken(last["label"]))


def test_silence_in_a_long_recording_is_a_gap(visit: Visit) -> None:
    page = visit()
    seconds = model(page)["features"]["seconds"]
    upload(page, clip((0, 3 * seconds), (440, seconds)))
    answer = answered(page)
    start = answer["windows"][0]["start"]
    assert start > seconds
    left = page.locator("#strip div").first.evaluate("e => parseFloat(e.style.left)")
    assert left == pytest.approx(100 * start / answer["duration"], abs=0.1)
    expect(page.locator("#seen")).to_contain_text(f"{start:g} to")


def test_a_file_can_be_dropped_anywhere_on_the_page(visit: Visit) -> None:
    page = visit()
    drop = """(content) => {
        const data = new DataTransfer();
        for (const [name, bytes] of content)
            data.items.add(new File([new Uint8Array(bytes)], name, { type: "audio/wav" }));
        document.body.dispatchEvent(new DragEvent("drop",
            { bubbles: true, cancelable: true, dataTransfer: data }));
    }"""
    tone = list(clip((440, 0.5)))
    page.evaluate(drop, [["dropped.wav", tone]])
    assert answered(page)["file"] == "dropped.wav"
    page.evaluate(drop, [["one.wav", tone], ["two.wav", tone]])
    expect(page.get_by_role("alert")).to_have_text("One file at a time, please.")


def test_the_model_is_described_with_its_accuracy_and_lineage(visit: Visit) -> None:
    page = visit()
    told = model(page)
    card = page.get_by_role("region", name="About the model")
    expect(card).to_contain_text(f"{told['name']}, version {told['version']}")
    for key in ("accuracy", "accuracy_low", "accuracy_high"):
        expect(card).to_contain_text(share(told["metrics"][key]))
    expect(card).to_contain_text("(95% confidence interval 80.0% to 97.0%)")
    expect(card).to_contain_text(told["dataset"]["title"])
    expect(card.get_by_role("link", name="API documentation")).to_have_attribute("href", "/docs")
    expect(card.get_by_role("region", name="Lineage")).to_be_hidden()
    card.get_by_text("Where this model comes from").click()
    rows = card.get_by_role("region", name="Lineage").get_by_role("row")
    expect(rows).to_have_count(len(told["lineage"]))


def test_examples_are_credited_where_their_licence_requires_it(visit: Visit) -> None:
    attribution = {
        "clip": "1-100032-A.ogg",
        "source": "https://freesound.org/s/100032/",
        "dataset": "ESC-10",
        "homepage": "https://github.com/karolpiczak/ESC-10",
        "license": "CC BY 3.0",
        "changes": "converted to mono WAV",
    }
    page = visit()
    expect(page.get_by_text("Credits for the examples")).to_be_hidden()
    label = spoken(model(page)["labels"][0])
    page.route(
        "**/model", lambda route: changed(route, ["examples", 0, "attribution"], attribution)
    )
    page.reload()
    page.get_by_text("Credits for the examples").click()
    credit = page.locator("#credit-list li")
    expect(credit).to_have_text(
        f"{label}: 1-100032-A.ogg from ESC-10, CC BY 3.0; converted to mono WAV."
    )
    link = credit.get_by_role("link", name="1-100032-A.ogg")
    expect(link).to_have_attribute("href", attribution["source"])


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_on_a_phone(visit: Visit, width: int) -> None:
    page = visit(viewport={"width": width, "height": 640}, has_touch=True, is_mobile=True)
    assert wide(page) == 0
    seconds = model(page)["features"]["seconds"]
    upload(
        page, clip((440, 3 * seconds)), "a_name_as_long_as_phones_like_to_give_them_20261121.wav"
    )
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    for summary in page.locator("summary:visible").all():
        summary.click()
    assert wide(page) == 0
    # WCAG 2.2, 2.5.8: nothing to hit is smaller than 24 pixels
    for target in page.locator("button:visible, label.button, summary:visible, a:visible").all():
        box = target.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24, target.inner_text()
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("timer")).to_be_visible()
    assert wide(page) == 0
    page.get_by_role("button", name="Cancel").click()


def test_everything_can_be_done_by_keyboard_and_focus_is_seen(visit: Visit) -> None:
    page = visit()
    seconds = model(page)["features"]["seconds"]

    content = clip((440, 3 * seconds))
    # not `expect_file_chooser`: the key may be pressed before the browser intercepts the dialog
    page.on(
        "filechooser",
        lambda chooser: chooser.set_files(
            {"name": "k.wav", "mimeType": "audio/wav", "buffer": content}
        ),
    )

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            found = page.evaluate(
                """() => {
                    const e = document.activeElement;
                    const seen = e.id === "file" ? e.nextElementSibling : e;
                    const style = getComputedStyle(seen);
                    return [e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || "",
                            style.outlineStyle, parseFloat(style.outlineWidth)];
                }"""
            )
            assert found[1] != "none", found
            assert found[2] >= 2, found
            if found[0].strip() == name:
                return
        pytest.fail(f"{name!r} is not reached")

    tab_to("Choose a file")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("k.wav: ")
    tab_to("Record")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop and classify")).to_be_focused()
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"0:0[1-9]"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    first = spoken(model(page)["labels"][0])
    tab_to(first)
    page.keyboard.press("Enter")
    expect(page.locator("#clip")).not_to_contain_text("recording")
    tab_to("Play")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause")).to_be_focused()
    page.keyboard.press("Space")
    tab_to("Position in the clip")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#wave")).not_to_have_attribute("aria-valuenow", "0.0")
    tab_to("Where this model comes from")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Lineage")).to_be_visible()
    tab_to("API documentation")


def test_a_screen_reader_finds_names_roles_and_status_messages(visit: Visit) -> None:
    page = visit()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("main")).to_have_count(1)
    # both are there, and empty, before there is news: only what changes in them is read out
    assert page.locator("[role=status]").inner_text() == ""
    assert page.locator("[role=alert]").inner_text() == ""
    upload(page, clip((440, 12)))
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
                "button, a, input, canvas, table, section, [role=slider], [role=region]")]
            .filter((e) => e.checkVisibility({ visibilityProperty: true }))
            .filter((e) => !(e.ariaLabel || e.innerText?.trim() || e.labels?.length
                || document.getElementById(e.getAttribute("aria-labelledby"))))
            .map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert nameless == []
    twice = page.evaluate(
        """() => [...document.querySelectorAll("[id]")].map((e) => e.id)
            .filter((id, i, all) => all.indexOf(id) !== i)"""
    )
    assert twice == []
    for slider in page.get_by_role("slider").all():
        for name in ("valuenow", "valuemin", "valuemax", "valuetext"):
            assert slider.get_attribute(f"aria-{name}"), name


def linear(colour: Values) -> Values:
    """Convert sRGB (0 to 1) to linear sRGB."""
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def luminance(colour: Values) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2)."""
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one: Values, other: Values) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def oklab(colour: Values) -> Values:
    """Convert linear sRGB to Oklab (Ottosson 2020)."""
    return LAB @ np.cbrt(CONES @ colour)


CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
SIGHT = {
    "all": np.eye(3),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritan": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""Matrices that simulate colour blindness (Machado, Oliveira and Fernandes 2009, severity 1)."""


def rgb(text: str) -> Values:
    """Parse ``#rrggbb`` or ``rgb(r, g, b)``."""
    text = text.strip()
    if text.startswith("#"):
        return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.array([float(value) for value in re.findall(r"[\d.]+", text)[:3]]) / 255


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_have_enough_contrast_in_light_and_dark(visit: Visit, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    card, page_colour = rgb(colour(page, ".card")), rgb(colour(page, "body"))
    assert (luminance(page_colour) < 0.1) == (scheme == "dark")
    upload(page, clip((440, 12)))
    expect(page.get_by_role("status")).to_contain_text("Answered in")
    texts = page.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest("svg")
                && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
            .map((e) => {
                let under = e;
                const clear = (c) => c === "rgba(0, 0, 0, 0)";
                while (clear(getComputedStyle(under).backgroundColor)) under = under.parentElement;
                return [getComputedStyle(e).color, getComputedStyle(under).backgroundColor,
                        e.textContent.slice(0, 40)];
            })"""
    )
    assert len(texts) > 30
    for ink, ground, text in texts:
        assert contrast(rgb(ink), rgb(ground)) >= 4.5, (text, ink, ground)

    variable = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    for name in ("--edge", "--wave", "--accent", "--focus", "--live", "--bad"):
        assert contrast(rgb(page.evaluate(variable, name)), card) >= 3, name
    bad, ground = (rgb(page.evaluate(variable, name)) for name in ("--bad", "--bad-tint"))
    assert contrast(bad, ground) >= 4.5
    classes = [rgb(page.evaluate(variable, f"--class-{i}")) for i in range(10)]
    for i, mark in enumerate(classes):
        assert contrast(mark, card) >= 3, i
    for sight, matrix in SIGHT.items():
        seen = [oklab(np.clip(matrix @ linear(mark), 0, 1)) for mark in classes]
        for (i, one), (j, other) in combinations(enumerate(seen), 2):
            assert np.linalg.norm(one - other) > 0.07, (sight, i, j)


def test_nothing_moves_if_the_user_prefers_reduced_motion(visit: Visit) -> None:
    page = visit(reduced_motion="reduce")
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("timer")).to_be_visible()
    moving = page.evaluate("document.getAnimations().length")
    page.get_by_role("button", name="Cancel").click()
    assert moving == 0
