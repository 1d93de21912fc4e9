import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import stage
from pipeline.errors import UserError


def test_a_users_mistake_is_one_sentence_and_a_status_without_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> str:
        raise UserError("params.yaml: train.epochs is 0.")

    with pytest.raises(SystemExit) as stopped:
        stage.run("train", main)
    assert stopped.value.code == "train: error: params.yaml: train.epochs is 0."
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_of_the_file_system_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    def in_the_way() -> str:
        (tmp_path / "data").mkdir()
        return ""

    def full() -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit) as stopped:
        stage.run("download", in_the_way)
    assert stopped.value.code == (
        f"download: error: {tmp_path / 'data'} cannot be used: file exists; move it away."
    )
    with pytest.raises(SystemExit, match="error: no space left on device; free some space"):
        stage.run("download", full)
    with pytest.raises(BrokenPipeError):  # not the fault of a user's file
        stage.run("download", lambda: (_ for _ in ()).throw(BrokenPipeError(errno.EPIPE, "x")))


def test_a_reader_that_has_seen_enough_ends_a_command_quietly() -> None:
    program = "from pipeline import stage; stage.run('x', lambda: str(print('line\\n' * 99999)))"
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -n 1', sys.executable, program],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("line\n", "")


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.run("train", main)


def test_the_closing_line_says_stage_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    stage.run("train", lambda: "3 epochs")
    assert capsys.readouterr().out.startswith("train: 3 epochs [0.0 s]")


def test_importing_keras_through_the_pipeline_prints_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.backend import keras; keras.ops.ones(3) + 1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
