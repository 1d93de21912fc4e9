"""Prediction without a server: files found, table written, and what a second run keeps."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.serving import predict
from pipeline.serving.classifier import Classifier
from pipeline.sound import decoding
from tests.no_sound import NO_SOUND, SOUND, wav
from tests.service import evil

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with three clips, one of them bad, and a note."""
    folder = tmp_path / "clips"
    (folder / "below").mkdir(parents=True)
    (folder / "b.flac").write_bytes(evil.seeds()["24.flac"])
    (folder / "below" / "a.wav").write_bytes(evil.seeds()["float.wav"])
    (folder / "bad.wav").write_bytes(evil.not_sound()["text"])
    (folder / "notes.txt").write_text("not asked for")
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_the_table_has_one_row_per_clip_sorted_by_path_and_errors_for_bad_clips(
    clips: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.csv"
    line = predict.main([str(clips)], out, bundle)
    rows = table(out)

    classifier = Classifier.load(bundle)
    names = ["b.flac", "bad.wav", "below/a.wav"]
    assert line == f"2 clips -> {out}, 1 failed"
    assert [row["path"] for row in rows] == [str(clips / name) for name in names]
    assert list(rows[0]) == [
        *("path", "label", "probability", "known"),
        *(f"p_{label}" for label in classifier.labels),
        *("seconds", "error", "bytes", "modified", "model"),
    ]
    for row in (rows[0], rows[2]):
        probabilities = {label: float(row[f"p_{label}"]) for label in classifier.labels}
        assert max(probabilities, key=lambda label: probabilities[label]) == row["label"]
        assert max(probabilities.values()) == float(row["probability"])
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        sure = float(row["probability"]) >= classifier.threshold
        assert row["known"] == ("yes" if sure else "no")
        assert float(row["seconds"]) == pytest.approx(0.3, abs=0.01)
        assert not row["error"]
    assert rows[1]["error"].endswith(".")
    assert rows[1]["label"] == rows[1]["probability"] == rows[1]["seconds"] == ""


def test_a_clip_without_sound_gets_the_same_reason_as_from_the_service(
    bundle: Path, tmp_path: Path
) -> None:
    for number, (wave, _) in enumerate(NO_SOUND.values()):
        (tmp_path / f"{number:02}.wav").write_bytes(wav(wave))
    (tmp_path / "sound.wav").write_bytes(wav(SOUND["tone"]))
    predict.main([str(tmp_path)], tmp_path / "out.csv", bundle)
    reasons = [row["error"] for row in table(tmp_path / "out.csv")]
    assert reasons == [*(sentence for _, sentence in NO_SOUND.values()), ""]


def test_a_long_clip_gets_the_same_probabilities_as_if_it_were_decoded_completely(
    bundle: Path, tmp_path: Path
) -> None:
    classifier = Classifier.load(bundle)
    for rate in (8_000, 22_050, 44_100, 48_000):
        content = evil.written("WAV", "FLOAT", evil.tone(9.0, rate), rate)
        clip = tmp_path / f"{rate}.wav"
        clip.write_bytes(content)
        wave = decoding.load(content, classifier.spec.sample_rate)
        whole = classifier.predict(wave, 1).probabilities
        row = predict.predict_file(clip, classifier)
        assert [row[f"p_{label}"] for label in classifier.labels] == [f"{p:.6f}" for p in whole]
        assert float(row["seconds"]) == pytest.approx(classifier.spec.seconds)


def test_two_runs_write_the_same_bytes_and_the_second_predicts_nothing(
    clips: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "predictions.csv"
    predict.main([str(clips)], out, bundle)
    first = out.read_bytes()
    asked: list[Path] = []
    predict_file = predict.predict_file

    def noted(file: Path, classifier: Classifier) -> predict.Row:
        asked.append(file)
        return predict_file(file, classifier)

    monkeypatch.setattr(predict, "predict_file", noted)
    assert "2 of them already in the table" in predict.main([str(clips)], out, bundle)
    assert out.read_bytes() == first
    assert asked == [clips / "bad.wav"]  # an error may have been put right


def test_a_changed_clip_is_predicted_again_and_a_deleted_one_is_removed_from_the_table(
    clips: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.csv"
    predict.main([str(clips)], out, bundle)
    (clips / "b.flac").write_bytes(evil.seeds()["8k.wav"])
    (clips / "below" / "a.wav").unlink()
    assert "already in the table" not in predict.main([str(clips)], out, bundle)
    rows = table(out)
    assert [Path(row["path"]).name for row in rows] == ["b.flac", "bad.wav"]
    assert rows[0]["bytes"] == str(len(evil.seeds()["8k.wav"]))


def test_another_model_predicts_everything_again(clips: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    predict.main([str(clips)], out, bundle)
    other = shutil.copytree(bundle, tmp_path / "other")
    card = (other / "card.json").read_text()
    (other / "card.json").write_text(card.replace('"version": "', '"version": "9'))
    assert "already in the table" not in predict.main([str(clips)], out, other)
    assert {row["model"].split()[-1][0] for row in table(out)} == {"9"}


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.99])
def test_a_table_cut_off_in_the_middle_of_a_row_is_completed(
    clips: Path, bundle: Path, tmp_path: Path, keep: float
) -> None:
    out = tmp_path / "predictions.csv"
    predict.main([str(clips)], out, bundle)
    whole = out.read_bytes()
    head = whole.index(b"\n") + 1
    out.write_bytes(whole[: head + int((len(whole) - head) * keep)])
    predict.main([str(clips)], out, bundle)
    assert out.read_bytes() == whole


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_continues_when_started_again(
    bundle: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    clip = evil.written("WAV", "PCM_16", evil.tone(4.0, 44_100), 44_100)
    for number in range(3_000):
        (folder / f"{number:04}.wav").write_bytes(clip)
    out = tmp_path / "predictions.csv"
    command = [
        *(sys.executable, "-m", "pipeline", "predict", str(folder)),
        *("--out", str(out), "--bundle", str(bundle)),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until = time.monotonic() + 300
    while time.monotonic() < until and not (out.exists() and out.read_bytes().count(b"\n") > 30):
        time.sleep(0.01)
    process.send_signal(stop)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in printed
    done = len(table(out)) - 1  # the last one may be cut
    assert 20 < done < 3_000

    for clip_ in sorted(folder.iterdir())[done // 2 + 100 :]:  # the rest would only take time
        clip_.unlink()
    left = len(list(folder.iterdir()))
    finished = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert f"{left} clips -> {out}, " in finished.stdout
    assert " of them already in the table" in finished.stdout
    assert [row["path"] for row in table(out)] == sorted(map(str, folder.iterdir()))


def test_each_clip_is_listed_once_however_often_it_is_named(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips)
    assert predict.find(["."]) == [Path("b.flac"), Path("bad.wav"), Path("below/a.wav")]
    assert predict.find(["**/*.wav", "bad.wav", "./below"]) == [
        Path("bad.wav"),
        Path("below/a.wav"),
    ]
    assert predict.find(["notes.txt"]) == [Path("notes.txt")]  # named, so it is meant
    (clips / "[1].wav").write_bytes(b"")
    assert predict.find(["[1].wav"]) == [Path("[1].wav")]


NAMES = {
    "Straße 🎵.wav": "Straße 🎵.wav", 'a,"b".wav': 'a,"b".wav', "a\nb\r.wav": "a\nb\r.wav",
    os.fsdecode(b"\xff\xfe.wav"): "\\xff\\xfe.wav", "007": "./007", "NA": "./NA", "1.0": "./1.0",
    "true": "./true", "=cmd": "./=cmd", "@x.wav": "./@x.wav", "-x.wav": "./-x.wav", " a ": "./ a ",
    "plain.wav": "plain.wav", "folder/007": "folder/007", "'.wav": "'.wav", '"': './"',
}  # fmt: skip


@pytest.mark.parametrize("names", [[name] for name in NAMES] + [list(NAMES)], ids=ascii)
def test_pandas_reads_the_name_of_any_file(
    names: list[str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(evil.seeds()["16.wav"])
    out = Path("predictions.csv")
    predict.main(names, out, bundle)
    assert sorted(pd.read_csv(out)["path"]) == sorted(NAMES[name] for name in names)
    assert f"{len(names)} of them already in the table" in predict.main(names, out, bundle)


def test_a_user_error_is_one_sentence_and_changes_no_file(
    clips: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.csv"
    empty = tmp_path / "empty"
    empty.mkdir()
    note = clips / "notes.txt"
    for patterns, table_, model, said in [
        (["none.wav"], out, bundle, "none.wav matches no file"),
        ([str(tmp_path / "*.mp3")], out, bundle, "matches no file"),
        ([str(empty)], out, bundle, "has no sound files"),
        ([str(clips)], note, bundle, "is not a table of predictions"),
        ([str(clips)], clips / "b.flac", bundle, "is not a table"),
        ([str(clips)], clips, bundle, "is not a regular file"),
        ([str(clips)], Path("/dev/full"), bundle, "is not a regular file"),
        ([str(clips)], note / "out.csv", bundle, "cannot be"),
        ([str(clips)], out, empty, "pipeline package"),
        ([str(note)], out, bundle, "no file could be read"),
    ]:
        with pytest.raises(UserError, match=said) as refusal:
            predict.main(patterns, table_, model)
        assert "\n" not in str(refusal.value)
    assert note.read_text() == "not asked for"
    assert (clips / "b.flac").read_bytes() == evil.seeds()["24.flac"]


def test_the_command_reports_what_it_did_or_why_it_failed(
    clips: Path, bundle: Path, tmp_path: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline", "predict", "--bundle", str(bundle), *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )

    out = str(tmp_path / "predictions.csv")
    good = run(str(clips), "--out", out)
    assert good.returncode == 0
    assert good.stdout.startswith(f"predict: 2 clips -> {out}, 1 failed [")
    bad = run("nothing-here", "--out", out)
    assert bad.returncode == 1
    assert bad.stderr.splitlines()[-1].startswith("predict: error: nothing-here matches no file")
    assert run().returncode == 2
