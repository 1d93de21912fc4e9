"""The report of a run, opened in a real browser like any file that one is sent."""

import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.errors import UserError
from pipeline.evaluation import report as report_command
from pipeline.tracking import store

from .conftest import Repository
from .servers import faulty_line

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def reported(finished: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A finished clone with its report."""
    clone = finished.copy(tmp_path_factory.mktemp("reported") / "clone")
    assert "reports/report.html" in clone.ok("python -m pipeline report")
    return clone


@pytest.fixture
def report(browser: Browser, reported: Repository, tmp_path: Path) -> Iterator[Page]:
    """The page, moved out of its repository; it may request nothing and log no message."""
    alone = Path(shutil.copy(reported.folder / "reports/report.html", tmp_path))
    page = browser.new_page()
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(alone.as_uri(), wait_until="load")
    yield page
    page.close()
    assert [url for url in requests if not url.startswith("data:")] == [alone.as_uri()]
    assert messages == []


def test_the_report_has_the_runs_figures_and_lineage(report: Page, reported: Repository) -> None:
    figures = json.loads((reported.folder / "reports/metrics.json").read_text())
    record = json.loads((reported.folder / "models/run.json").read_text())
    assert report.locator("#accuracy").inner_text() == f"{figures['accuracy']:.1%}"
    interval = f"{figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}"
    assert report.locator("#interval").inner_text() == interval
    text = report.locator("body").inner_text()
    for fact in (
        record["run_id"],
        record["tags"]["lineage.git_commit"],
        record["tags"]["dataset.sha256"],
        record["tags"]["model_sha256"],
        "version 1",
        "foley-classifier, champion",
        f"{figures['macro_f1']:.3f}",
    ):
        assert fact in text
    clips = pd.read_csv(reported.folder / "data/clips.csv")
    for side, folds in (("test", [1]), ("validation", [2]), ("training", [3])):
        row = report.locator("tr", has=report.get_by_role("cell", name=side, exact=True))
        assert row.locator("td").nth(2).inner_text() == str(clips["fold"].isin(folds).sum())


def test_the_report_shows_every_plot_and_names_every_class(
    report: Page, reported: Repository
) -> None:
    drawn = report.locator("figure svg")
    assert drawn.count() == 6
    for box in (drawn.nth(i).bounding_box() for i in range(6)):
        assert box is not None
        assert min(box["width"], box["height"]) > 200
    shown = " ".join(drawn.all_text_contents())
    for label in json.loads((reported.folder / "data/dataset.json").read_text())["labels"]:
        assert label.replace("_", " ") in shown


def test_the_most_confident_mistakes_can_be_played(report: Page, reported: Repository) -> None:
    predictions = pd.read_csv(reported.folder / "reports/predictions.csv")
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    sure = [row[f"p_{row['predicted']}"] for _, row in wrong.iterrows()]
    cards = report.locator("article")
    assert cards.count() == min(len(wrong), 12)
    assert f"{max(sure):.1%}" in cards.first.inner_text()
    lengths = report.evaluate(
        """() => Promise.all([...document.querySelectorAll("audio")].map((player) =>
            new Promise((known, broken) => {
                player.onloadedmetadata = () => known(player.duration);
                player.onerror = () => broken(player.error.message);
                player.load();
            })))"""
    )
    clips = pd.read_csv(reported.folder / "data/clips.csv").set_index("path")
    for card, length in zip(cards.all(), lengths, strict=True):
        path = card.locator("small").inner_text()
        assert length == pytest.approx(clips.loc[path, "seconds"], abs=0.15)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_a_phone_and_follows_its_colours(report: Page, scheme: str) -> None:
    report.set_viewport_size({"width": 360, "height": 740})
    report.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    assert report.evaluate("document.documentElement.scrollWidth") <= 360
    ground = report.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = report.evaluate("getComputedStyle(document.querySelector('figure text')).fill")
    light_ground, light_ink = (
        sum(map(int, re.findall(r"\d+", colour)[:3])) > 384 for colour in (ground, ink)
    )
    assert light_ground == (scheme == "light")
    assert light_ink == (scheme == "dark")


def test_the_report_is_logged_to_the_run(reported: Repository) -> None:
    client = MlflowClient(f"sqlite:///{reported.folder}/mlflow.db")
    run_id = json.loads((reported.folder / "models/run.json").read_text())["run_id"]
    for name in ("report.html", "abstention.png", "reliability.png", "search.png", "confusion.png"):
        assert name in {file.path for file in client.list_artifacts(run_id)}


def test_a_report_before_the_pipeline_has_run_says_what_to_do(fresh: Repository) -> None:
    done = fresh.run("python -m pipeline report")
    assert done.returncode == 1
    assert "dvc repro" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.fixture
def answering() -> Iterator[str]:
    """A server that answers every MLflow request with an empty record."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("passing", "fault"), [(0, "gone"), (1, "error")])
def test_a_report_is_written_although_the_store_fails(
    used: Repository, answering: str, monkeypatch: pytest.MonkeyPatch, passing: int, fault: str
) -> None:
    monkeypatch.chdir(used.folder)
    for name in store.RETRIES:
        monkeypatch.setenv(name, "0" if "RETRIES" in name else "1")
    with faulty_line(answering) as line:
        line.break_(fault, passing)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", line.url)
        expected = "reports/report.html is written but not logged to MLflow: the MLflow store at "
        with pytest.raises(UserError, match=expected + line.url):
            report_command.main()
    assert line.struck
    assert Path("reports/report.html").stat().st_size > 10_000
