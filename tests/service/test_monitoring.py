"""Drift, the log of predictions, and the report on it."""

import json
import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path

import bentoml
import numpy as np
import pytest
from bentoml._internal.monitoring import api as bentoml_monitors
from prometheus_client import CollectorRegistry

from pipeline.errors import UserError
from pipeline.serving import drift, monitoring
from pipeline.serving.classifier import summarise
from pipeline.serving.drift import report
from pipeline.serving.monitoring import (
    Drift,
    Metrics,
    PredictionLog,
    histogram,
    psi,
    shares,
)

LABELS = ["bark", "horn"]
REFERENCE = {
    "centroid": histogram([random.Random(i).gauss(20, 3) for i in range(500)]),
    "confidence": histogram([i / 100 for i in range(100)]),
    "label": shares(["bark"] * 50 + ["horn"] * 50, LABELS),
}


def values(number: int, shift: float = 0.0) -> dict[str, float | str]:
    rng = random.Random(10_000 + number)
    return {
        "centroid": rng.gauss(20, 3) + shift,
        "confidence": rng.random(),
        "label": LABELS[number % 2],
        "duration": 4.0,
    }


@pytest.fixture(autouse=True)
def _fresh_monitors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # BentoML sets up logging anew, which closes the handlers of all: TensorFlow's takes the
    # standard error, which is pytest's, with it
    monkeypatch.setattr(logging, "_handlerList", [])
    monkeypatch.setattr(logging, "_handlers", {})
    bentoml_monitors._MONITOR_INSTANCES.clear()
    yield
    bentoml_monitors._MONITOR_INSTANCES.clear()


def test_the_index_is_that_of_the_formula() -> None:
    e, o = np.array([40, 60]), np.array([70, 30])
    e_share, o_share = (e + 0.5) / 101, (o + 0.5) / 101
    expected = float(((o_share - e_share) * np.log(o_share / e_share)).sum())
    assert psi(e.tolist(), o.tolist()) == pytest.approx(expected)
    assert psi([1, 2, 3], [1, 2, 3]) == 0
    assert psi([100, 0], [0, 100]) > 5


def test_bins_are_equally_full_and_hold_every_value() -> None:
    for seen in ([float(i) for i in range(95)], [1.0] * 95, [0.0, 1.0] * 40, [3.0]):
        held = histogram(seen)
        assert sum(held["counts"]) == len(seen)
        assert len(held["counts"]) == len(held["edges"]) + 1
        assert held["edges"] == sorted(set(held["edges"]))
    assert histogram([float(i) for i in range(100)])["counts"] == [10.0] * 10


def test_what_is_like_the_reference_is_stable_and_what_is_not_is_noticed() -> None:
    like, unlike = Drift(REFERENCE, 500), Drift(REFERENCE, 500)
    for number in range(500):
        like.add(values(number))
        unlike.add(values(number, shift=4.0))
    assert all(index < 0.1 for index in like.psi().values())
    assert unlike.psi()["centroid"] > 0.5
    assert unlike.psi()["confidence"] < 0.1


def test_old_predictions_are_forgotten() -> None:
    drift = Drift(REFERENCE, 100)
    for number in range(300):
        drift.add(values(number, shift=9.0))
    for number in range(100):
        drift.add(values(number))
    fresh = Drift(REFERENCE, 100)
    for number in range(100):
        fresh.add(values(number))
    assert len(drift) == 100
    assert drift.counts == fresh.counts
    assert drift.since == pytest.approx(fresh.since, abs=60)
    assert math.isnan(Drift(REFERENCE, 5).since)


def test_what_the_reference_does_not_know_does_not_count() -> None:
    drift = Drift(REFERENCE, 10)
    drift.add({"label": "elephant", "novel": 3.0, "centroid": "text"})
    assert all(not any(counts) for counts in drift.counts.values())
    assert Drift({}, 10).psi() == {}


def test_metrics_state_drift_only_when_there_is_enough() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(REFERENCE, 200, registry)
    for number in range(49):
        metrics.prediction(values(number, shift=6.0))
    name = ("sound_drift_psi", {"quantity": "centroid"})
    assert registry.get_sample_value(*name) is None
    metrics.prediction(values(49, shift=6.0))
    index = registry.get_sample_value(*name)
    assert index is not None
    assert index == pytest.approx(metrics.drift.psi()["centroid"])
    assert index > 0.5
    assert registry.get_sample_value("sound_drift_predictions") == 50
    content, media_type = monitoring.exposition(registry)
    assert b'sound_drift_psi{quantity="centroid"}' in content
    assert media_type.startswith("text/plain")


def test_every_prediction_is_a_line_of_the_log_and_the_report_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics(REFERENCE, 200, CollectorRegistry())
    log = PredictionLog(tmp_path / "log", metrics)
    for number in range(60):
        log.write(values(number, shift=6.0))
    files = list((tmp_path / "log").glob("*/data/*.log*"))
    assert len(files) == 1
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert len(lines) == 60
    assert lines[3].items() >= values(3, shift=6.0).items()
    assert "timestamp" in lines[0]

    (tmp_path / "reference.json").write_text(json.dumps(REFERENCE))
    line = drift.main(files, tmp_path)
    assert line == "60 predictions, changed: centroid"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["quantity", "PSI", "by", "chance", "verdict"]
    assert printed[1].split()[0] == "centroid"
    assert [row.split()[-1] for row in printed[1:]] == ["changed", "stable", "stable"]


@pytest.mark.parametrize("failure", ["monitor", "disk"])
def test_a_log_that_fails_is_counted_and_told_once(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    log = PredictionLog(tmp_path / "log", Metrics(REFERENCE, 9, registry))
    if failure == "disk":
        (tmp_path / "log").write_text("a file where the folder should be")
    else:
        monkeypatch.setattr(bentoml, "monitor", lambda *_, **__: 1 / 0)
    for number in range(3):
        log.write(values(number))
    assert registry.get_sample_value("sound_log_failures_total") == 3
    assert [record.message for record in caplog.records] == ["Predictions cannot be logged."]

    monkeypatch.undo()
    (tmp_path / "log").unlink(missing_ok=True)
    log.write(values(3))  # and once it can, it goes on
    assert registry.get_sample_value("sound_log_failures_total") == 3
    assert len(list((tmp_path / "log").glob("*/data/*.log"))) == 1


def test_logs_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.log").write_text("\nnot JSON\n")
    with pytest.raises(UserError, match=r"bad.log, line 1, is not a logged prediction"):
        drift.read_log([tmp_path / "bad.log"])
    (tmp_path / "bad.log").write_text("[1]")
    with pytest.raises(UserError, match="line 1"):
        drift.read_log([tmp_path / "bad.log"])
    with pytest.raises(UserError, match="cannot be read"):
        drift.read_log([tmp_path / "none.log"])
    with pytest.raises(UserError, match=r"reference.json is missing"):
        drift.main([], tmp_path)


def test_lines_that_a_full_disk_cut_off_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.dumps(values(3))
    (tmp_path / "a.log").write_bytes(f"{whole}\n{whole[:20]}{whole}\n{whole}\n".encode() + b"\xc3")
    (tmp_path / "reference.json").write_text(json.dumps(REFERENCE))
    line = drift.main([tmp_path / "a.log"], tmp_path)
    assert line.startswith("2 predictions, ")
    assert line.endswith("; 2 damaged lines left out")
    assert capsys.readouterr().out


def test_the_report_states_what_chance_would_give() -> None:
    rows = {
        name: chance for name, _, chance, _ in report(REFERENCE, [values(i) for i in range(50)])
    }
    assert rows["label"] == pytest.approx(1 / 100 + 1 / 50)
    assert rows["confidence"] == pytest.approx(9 * (1 / 100 + 1 / 50))


def test_a_summary_says_where_the_sound_is() -> None:
    features = np.full((10, 20), -80, np.float32)
    assert summarise(features) == {"level": -80, "contrast": 0, "centroid": 0}
    features[7] = 0
    assert summarise(features)["centroid"] == 7
    assert summarise(features)["level"] == -72
