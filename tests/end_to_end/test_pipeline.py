import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
import psutil  # type: ignore[import-untyped]
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.__main__ import main

from .conftest import Repository

pytestmark = pytest.mark.filterwarnings("ignore")


def store(repository: Repository) -> MlflowClient:
    """A client of the store as it is now; MLflow would keep an open file that was replaced."""
    snapshot = Path(tempfile.mkdtemp(dir=repository.folder.parent)) / "mlflow.db"
    shutil.copy(repository.folder / "mlflow.db", snapshot)
    return MlflowClient(f"sqlite:///{snapshot}")


def runs(repository: Repository, stage: str) -> list[Run]:
    client = store(repository)
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`pipeline.stage` = '{stage}'")
    return sorted(found, key=lambda run: run.info.start_time)


def read_json(repository: Repository, name: str) -> Any:
    return json.loads((repository.folder / name).read_text())


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_a_first_repro_runs_every_stage_and_each_prints_its_closing_line(first_output: str) -> None:
    stages = ["download", "featurize", "tune", "train", "evaluate", "register"]
    assert stages_run(first_output) == stages
    for stage in stages:
        assert sum(line.startswith(f"{stage}: ") for line in first_output.splitlines()) == 1
    assert "foley-classifier version 1 registered, alias champion" in first_output


def test_libraries_print_nothing(first_output: str) -> None:
    for noise in ("oneDNN", "AVX", "alembic", "DeprecationWarning", "WARNING", "Warning:", "INFO"):
        assert noise not in first_output, first_output


def test_metrics_agree_with_the_predictions_on_the_test_fold(finished: Repository) -> None:
    metrics = read_json(finished, "reports/metrics.json")
    predictions = pd.read_csv(finished.folder / "reports/predictions.csv")
    clips = pd.read_csv(finished.folder / "data/clips.csv")
    assert set(predictions["path"]) == set(clips.loc[clips["fold"] == 1, "path"])
    right = predictions["label"] == predictions["predicted"]
    assert metrics["accuracy"] == pytest.approx(right.mean())
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]


def test_dvc_shows_metrics_and_plots(finished: Repository) -> None:
    shown = finished.ok("dvc metrics show")
    for word in ("accuracy", "macro_f1", "clips"):
        assert word in shown
    finished.ok("dvc plots show")
    page = (finished.folder / "dvc_plots/index.html").read_text()
    for axis in ("validation log loss", "recall on the test fold", "log loss"):
        assert axis in page


def test_the_training_run_carries_params_curves_model_data_and_lineage(
    finished: Repository,
) -> None:
    (run,) = runs(finished, "train")
    record = read_json(finished, "models/run.json")
    best = read_json(finished, "models/best_params.json")
    assert run.info.run_id == record["run_id"]
    assert run.info.status == "FINISHED"
    for key, value in best["params"].items():
        assert run.data.params[f"train.{key}"] == str(value)
    curve = store(finished).get_metric_history(run.info.run_id, "val_log_loss")
    assert [point.step for point in curve] == [1, 2, 3]
    assert (
        run.data.metrics["test_accuracy"] == read_json(finished, "reports/metrics.json")["accuracy"]
    )
    assert run.data.tags["lineage.git_dirty"] == "false"
    commit = finished.ok("git rev-parse HEAD").strip()
    assert run.data.tags["lineage.git_commit"] == commit
    lock = (finished.folder / "dvc.lock").read_text()
    for key in ("lineage.audio_md5", "lineage.clips_md5", "lineage.features_md5"):
        assert run.data.tags[key] in lock
    assert {i.tags[0].value for i in run.inputs.dataset_inputs} == {"training", "validation"}


def test_the_logged_model_predicts_what_the_evaluation_predicted(finished: Repository) -> None:
    from pipeline.sound.features import FeatureSpec
    from pipeline.training import fit

    mlflow.set_tracking_uri(f"sqlite:///{finished.folder}/mlflow.db")
    uri = "models:/foley-classifier@champion"
    assert mlflow.models.get_model_info(uri).signature is not None
    network = mlflow.tensorflow.load_model(uri)
    index = pd.read_csv(finished.folder / "features/index.csv")
    array = np.load(finished.folder / "features/features.npy")
    spec = FeatureSpec.load(finished.folder / "models/spec.npz")
    test = index["fold"] == 1
    probabilities = network.predict(fit.network_input(array[test], spec), verbose=0)
    stored = pd.read_csv(finished.folder / "reports/predictions.csv").set_index("path")
    expected = stored.loc[index.loc[test, "path"]].filter(regex="^p_")
    np.testing.assert_allclose(probabilities, expected.to_numpy(), atol=2e-6)


def test_a_stage_that_is_run_by_hand_does_not_change_dvcs_cache(used: Repository) -> None:
    before = (used.folder / "reports/metrics.json").read_text()
    used.ok("dvc checkout --relink dvc.yaml")  # the fixture's copy has no links, if DVC makes any
    used.set(evaluate__confidence=0.6)
    used.ok("python -m pipeline evaluate")
    assert (used.folder / "reports/metrics.json").read_text() != before
    kept = [path for path in (used.folder / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    assert len(kept) > 40
    for path in kept:
        digest = path.parent.name + path.name.removesuffix(".dir")
        assert hashlib.md5(path.read_bytes()).hexdigest() == digest  # DVC's own
    used.set(evaluate__confidence=0.95)
    used.ok("dvc repro")
    assert (used.folder / "reports/metrics.json").read_text() == before


def test_the_training_run_has_a_summary_of_the_network(
    finished: Repository, tmp_path: Path
) -> None:
    (run,) = runs(finished, "train")
    file = store(finished).download_artifacts(run.info.run_id, "model_summary.txt", str(tmp_path))
    summary = Path(file).read_text(encoding="utf-8")
    assert 'Model: "two_stream"' in summary
    # those that are trained and those that are not; the total has the optimiser's as well
    counted = re.findall(r"(?i:trainable) params: ([\d,]+)", summary)
    assert len(counted) == 2
    assert sum(int(n.replace(",", "")) for n in counted) == run.data.metrics["parameters"]


def test_trials_are_runs_nested_under_one_study_run_with_metrics_by_epoch(
    finished: Repository,
) -> None:
    (search,) = runs(finished, "tune")
    trials = runs(finished, "trial")
    assert len(trials) == 2
    for trial in trials:
        assert trial.data.tags["mlflow.parentRunId"] == search.info.run_id
        history = store(finished).get_metric_history(trial.info.run_id, "val_log_loss")
        assert [point.step for point in history] == [1, 2]
    assert search.info.run_id == read_json(finished, "models/best_params.json")["run_id"]


def test_the_first_version_is_champion_and_has_tags_and_a_description(finished: Repository) -> None:
    version = store(finished).get_model_version_by_alias("foley-classifier", "champion")
    (run,) = runs(finished, "train")
    assert version.run_id == run.info.run_id
    assert "accuracy" in version.description
    assert "first version" in version.tags["decision"]
    accuracy = read_json(finished, "reports/metrics.json")["accuracy"]
    assert float(version.tags["test_accuracy"]) == pytest.approx(accuracy, rel=1e-5)


def test_the_summary_names_accuracy_version_and_next_commands(
    finished: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.folder)
    main(["summary"])
    table = capsys.readouterr().out
    accuracy = read_json(finished, "reports/metrics.json")["accuracy"]
    for text in (f"{accuracy:.1%}", "version 1", "champion", "make ui", "dataset.name=esc10"):
        assert text in table


def test_a_second_repro_only_checks_the_registry(used: Repository) -> None:
    output = used.ok("dvc repro")
    assert stages_run(output) == ["register"]
    assert "version 1 is already registered" in output
    assert len(store(used).search_model_versions("name = 'foley-classifier'")) == 1


def test_a_training_parameter_reruns_tune_and_train_but_not_the_data(used: Repository) -> None:
    used.set(train__label_smoothing=0.2)
    output = used.ok("dvc repro")
    assert stages_run(output) == ["tune", "train", "evaluate", "register"]
    assert "version 2 registered, alias challenger" in output
    # and back: everything is restored from DVC's cache, and the registry is not fooled
    used.set(train__label_smoothing=0.1)
    output = used.ok("dvc repro")
    assert stages_run(output) == ["register"]
    assert "version 1 is already registered, alias champion" in output
    assert read_json(used, "models/run.json")["run_id"] == runs(used, "train")[0].info.run_id


def test_the_gate_promotes_what_is_better_on_the_same_clips(used: Repository) -> None:
    # An oracle as the candidate: the stage's answers, all put right.
    predictions = pd.read_csv(used.folder / "reports/predictions.csv")
    wrong = (predictions["label"] != predictions["predicted"]).sum()
    assert wrong >= 6, "the tiny network is expected to be bad"
    used.ok("git -c user.name=t -c user.email=t@e commit -q --allow-empty -m next")
    (used.folder / "reports/predictions.csv").unlink()  # a link into DVC's cache
    predictions.assign(predicted=predictions["label"]).to_csv(
        used.folder / "reports/predictions.csv", index=False
    )
    used.rename_model("another network")
    output = used.ok("python -m pipeline register")
    assert "version 2 registered, alias champion" in output
    version = store(used).get_model_version_by_alias("foley-classifier", "champion")
    assert "it is right on 100.0% of" in version.tags["decision"]
    assert "| **the candidate right**&emsp; |" in version.description


def test_a_registration_that_was_stopped_before_the_alias_is_completed(used: Repository) -> None:
    client = MlflowClient(f"sqlite:///{used.folder}/mlflow.db")
    client.delete_registered_model_alias("foley-classifier", "champion")
    client.delete_model_version_tag("foley-classifier", "1", "decision")
    assert "version 1 is already registered, alias champion" in used.ok("dvc repro")


def test_a_champion_of_another_test_fold_is_handled_as_on_incomparable_says(
    used: Repository,
) -> None:
    used.set(split__test_fold=2, tune__trials=0)
    assert "alias challenger" in used.ok("dvc repro")
    version = store(used).get_model_version("foley-classifier", "2")
    assert "version 1 was trained on 15 of the candidate's 15 test" in version.tags["decision"]
    used.set(split__test_fold=3, register__on_incomparable="fail")
    done = used.run("dvc repro")
    assert done.returncode != 0
    assert "set register.on_incomparable to keep or replace" in done.stdout
    assert "Traceback" not in done.stdout
    used.set(register__on_incomparable="replace")
    assert "version 3 registered, alias champion" in used.ok("dvc repro")


def test_the_run_is_logged_again_to_a_new_mlflow_store_without_training(used: Repository) -> None:
    (before,) = runs(used, "train")
    (used.folder / "mlflow.db").unlink()
    output = used.ok("dvc repro")
    assert stages_run(output) == ["register"]
    assert "version 1 registered, alias champion" in output
    (after,) = runs(used, "train")
    assert after.data.params == before.data.params
    assert after.data.metrics == before.data.metrics
    history = store(used).get_metric_history(after.info.run_id, "val_log_loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert after.data.tags["pipeline.restored_from"] == before.info.run_id
    used.ok("dvc repro")
    assert len(runs(used, "train")) == 1


def test_the_same_seed_gives_the_same_network(used: Repository) -> None:
    before = read_json(used, "models/run.json")["tags"]["model_sha256"]
    history = (used.folder / "reports/history.csv").read_bytes()
    output = used.ok("dvc repro --force --single-item train")
    assert stages_run(output) == ["train"]
    assert read_json(used, "models/run.json")["tags"]["model_sha256"] == before
    assert (used.folder / "reports/history.csv").read_bytes() == history


def test_a_search_killed_in_the_middle_runs_only_what_is_missing(used: Repository) -> None:
    used.set(tune__trials=4, tune__epochs=4)
    study_file = f"sqlite:///{used.folder}/optuna.db"
    known = set(optuna.get_all_study_names(study_file))
    with (used.folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            ["python", "-m", "pipeline", "tune"],
            cwd=used.folder,
            env=used.environment(),
            stdout=log,
            stderr=log,
        )
        finished_trials = 0
        deadline = time.monotonic() + 240
        while finished_trials < 1 and time.monotonic() < deadline:
            time.sleep(0.1)
            assert process.poll() is None, (used.folder / "killed.log").read_text()
            for name in set(optuna.get_all_study_names(study_file)) - known:
                trials = optuna.load_study(study_name=name, storage=study_file).trials
                finished_trials = sum(trial.state.is_finished() for trial in trials)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=120)
        assert not alive
    assert finished_trials >= 1
    output = used.ok("python -m pipeline tune")
    # a trial that had ended counts, even if the study does not know it yet
    (known_before,) = re.findall(r"(\d) already in the study", output)
    assert finished_trials <= int(known_before) < 4
    assert len(pd.read_csv(used.folder / "reports/trials.csv")) == 4
    assert not [run for run in runs(used, "trial") if run.info.status == "RUNNING"]
    assert len(runs(used, "tune")) == 2  # the finished clone's search and this one


def test_trials_are_added_to_a_study_that_is_asked_for_more(used: Repository) -> None:
    used.set(tune__trials=3)
    assert "1 trials run, 2 already in the study" in used.ok("python -m pipeline tune")


def test_without_a_search_training_takes_the_parameters_as_they_are(used: Repository) -> None:
    used.set(tune__trials=0)
    output = used.ok("dvc repro")
    assert "no search" in output
    assert "version 2 registered" in output or "version 1 is already registered" in output
    record = read_json(used, "models/run.json")
    assert record["tags"]["tune.trial"] == "none"
    assert record["params"]["train.learning_rate"] == 0.002
    used.ok("dvc plots show")


@pytest.mark.parametrize(
    ("stage", "change", "said"),
    [
        ("download", {"dataset.nme": "foley"}, "dataset.nme is not a known key"),
        ("download", {"dataset.name": "urbansound"}, "dataset.name is 'urbansound'"),
        ("download", {"dataset.source": "not/there"}, "not/there"),
        ("download", {"dataset.name": "folder"}, "sounds"),
        ("featurize", {"features.logmel.fmax": 40000.0}, "features.logmel.fmax"),
        ("tune", {"split.test_fold": 7}, "split.test_fold"),
        ("train", {"train.epochs": 0}, "train.epochs is 0"),
    ],
)
def test_a_users_mistake_ends_the_stage_with_one_sentence(
    used: Repository,
    stage: str,
    change: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    used.set_dotted(change)
    monkeypatch.chdir(used.folder)
    with pytest.raises(SystemExit) as ended:
        main([stage])
    line = str(ended.value.code)
    assert line.startswith(f"{stage}: error: ")
    assert said in line
    assert "\n" not in line
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_an_mlflow_server_that_is_not_there_is_one_sentence(used: Repository) -> None:
    done = used.run(
        "python -m pipeline register",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "http://127.0.0.1:9 does not answer" in done.stdout


def test_no_stage_writes_outside_its_outputs(finished: Repository) -> None:
    known = {"data", "features", "models", "reports", "mlruns", "mlflow.db", "optuna.db"}
    known |= {"dvc.lock", "dvc_plots"}
    status = finished.ok("git status --porcelain --ignored --untracked-files=normal")
    changed = {Path(line[3:]).parts[0] for line in status.splitlines()}
    assert changed - known <= {".dvc", "pipeline"}
