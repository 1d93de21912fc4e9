"""Drift, the metrics, and the log of predictions."""

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from pipeline.errors import UserError
from pipeline.serving import drift, monitoring, prediction_log
from pipeline.serving.classifier import summarise
from pipeline.serving.drift import report
from pipeline.serving.monitoring import Metrics
from pipeline.serving.prediction_log import PredictionLog
from pipeline.serving.psi import Drift, histogram, psi, shares, verdict

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


def test_psi_follows_its_formula() -> None:
    e, o = np.array([40, 60]), np.array([70, 30])
    e_share, o_share = (e + 0.5) / 101, (o + 0.5) / 101
    expected = float(((o_share - e_share) * np.log(o_share / e_share)).sum())
    assert psi(e.tolist(), o.tolist()) == pytest.approx(expected)
    assert psi([1, 2, 3], [1, 2, 3]) == 0
    assert psi([100, 0], [0, 100]) > 5


def test_bins_are_equally_full_and_contain_every_value() -> None:
    for seen in ([float(i) for i in range(95)], [1.0] * 95, [0.0, 1.0] * 40, [3.0]):
        held = histogram(seen)
        assert sum(held["counts"]) == len(seen)
        assert len(held["counts"]) == len(held["edges"]) + 1
        assert held["edges"] == sorted(set(held["edges"]))
    assert histogram([float(i) for i in range(100)])["counts"] == [10.0] * 10


def test_only_a_quantity_that_differs_from_the_reference_shows_drift() -> None:
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


def test_quantities_missing_from_the_reference_are_ignored() -> None:
    drift = Drift(REFERENCE, 10)
    drift.add({"label": "elephant", "novel": 3.0, "centroid": "text"})
    assert all(not any(counts) for counts in drift.counts.values())
    assert Drift({}, 10).psi() == {}


def test_metrics_report_drift_only_with_enough_predictions() -> None:
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


def log_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl*"))


def test_the_drift_report_reads_what_the_service_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = PredictionLog(tmp_path / "log", Metrics(REFERENCE, 200, CollectorRegistry()))
    for number in range(60):
        log.write(values(number, shift=6.0))
    (file,) = log_files(tmp_path / "log")
    assert file.name == f"predictions-{os.getpid()}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 60
    assert lines[3].items() >= values(3, shift=6.0).items()
    assert lines[0]["timestamp"].endswith("+00:00")

    (tmp_path / "reference.json").write_text(json.dumps(REFERENCE))
    line = drift.main([file], tmp_path)
    assert line == "60 predictions, large shift: centroid"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["quantity", "PSI", "by", "chance", "shift"]
    assert printed[1].split()[0] == "centroid"
    assert [row.split()[-1] for row in printed[1:]] == ["large", "stable", "stable"]


def test_a_full_log_file_is_renamed_and_the_oldest_is_deleted(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    log = PredictionLog(tmp_path, Metrics(REFERENCE, 9, registry), file_bytes=1_000)
    for number in range(100):
        log.write(values(number))
    files = log_files(tmp_path)
    assert len(files) == 1 + prediction_log.OLD_FILES
    assert all(file.stat().st_size <= 1_000 for file in files)
    newest_last = [files[0], *files[1:]][::-1]
    predictions, damaged = prediction_log.read(newest_last)
    assert damaged == 0
    assert predictions[-1].items() >= values(99).items()
    assert registry.get_sample_value("sound_log_failures_total") == 0


def test_a_log_that_cannot_be_opened_is_counted_reported_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    folder = tmp_path / "log"
    folder.write_text("a file where the folder should be")
    log = PredictionLog(folder, Metrics(REFERENCE, 9, registry))
    for number in range(3):
        log.write(values(number))
    assert registry.get_sample_value("sound_log_failures_total") == 3
    assert [record.message for record in caplog.records] == ["Predictions cannot be logged."]

    folder.unlink()
    log.write(values(3))
    assert registry.get_sample_value("sound_log_failures_total") == 3
    predictions, _ = prediction_log.read(log_files(folder))
    assert [held.items() >= values(3).items() for held in predictions] == [True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_counted_and_logging_goes_on_once_there_is_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = CollectorRegistry()
    log = PredictionLog(tmp_path, Metrics(REFERENCE, 9, registry))
    file = tmp_path / f"predictions-{os.getpid()}.jsonl"
    file.symlink_to("/dev/full")
    for number in range(3):
        log.write(values(number))
    assert registry.get_sample_value("sound_log_failures_total") == 3
    assert capsys.readouterr().err == ""

    file.unlink()
    log.write(values(3))
    assert registry.get_sample_value("sound_log_failures_total") == 3
    assert len(file.read_text().splitlines()) == 1


def test_a_value_that_is_not_json_does_not_break_a_prediction(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    log = PredictionLog(tmp_path, Metrics(REFERENCE, 9, registry))
    log.write({"label": object()})  # type: ignore[dict-item]
    assert registry.get_sample_value("sound_log_failures_total") == 1


@pytest.mark.parametrize(
    ("excess", "name"),
    [(-0.1, "stable"), (0.1, "stable"), (0.11, "moderate"), (0.25, "moderate"), (0.26, "large")],
)
def test_a_shift_has_the_usual_names(excess: float, name: str) -> None:
    assert verdict(excess) == name


def test_files_that_are_not_prediction_logs_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.log").write_text("\nnot JSON\n")
    with pytest.raises(UserError, match=r"bad.log is not a log of predictions \(line 1"):
        prediction_log.read([tmp_path / "bad.log"])
    (tmp_path / "bad.log").write_text("[1]")
    with pytest.raises(UserError, match="line 1"):
        prediction_log.read([tmp_path / "bad.log"])
    with pytest.raises(UserError, match="cannot be read"):
        prediction_log.read([tmp_path / "none.log"])
    with pytest.raises(UserError, match=r"reference.json is missing"):
        drift.main([], tmp_path)


def test_lines_cut_off_by_a_full_disk_are_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.dumps(values(3))
    (tmp_path / "a.log").write_bytes(f"{whole}\n{whole[:20]}{whole}\n{whole}\n".encode() + b"\xc3")
    (tmp_path / "reference.json").write_text(json.dumps(REFERENCE))
    line = drift.main([tmp_path / "a.log"], tmp_path)
    assert line.startswith("2 predictions, ")
    assert line.endswith("; 2 damaged lines skipped")
    assert capsys.readouterr().out


def test_the_report_gives_the_psi_expected_by_chance() -> None:
    rows = {
        name: chance for name, _, chance, _ in report(REFERENCE, [values(i) for i in range(50)])
    }
    assert rows["label"] == pytest.approx(1 / 100 + 1 / 50)
    assert rows["confidence"] == pytest.approx(9 * (1 / 100 + 1 / 50))


def test_a_summary_has_level_contrast_and_centroid() -> None:
    features = np.full((10, 20), -80, np.float32)
    assert summarise(features) == {"level": -80, "contrast": 0, "centroid": 0}
    features[7] = 0
    assert summarise(features)["centroid"] == 7
    assert summarise(features)["level"] == -72
