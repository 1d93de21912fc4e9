"""The bundle: it predicts what the registered model predicts, or it is not written."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import soundfile

from pipeline import paths, tables
from pipeline.data.feature_store import extract_files
from pipeline.errors import UserError
from pipeline.registry import champions, package
from pipeline.serving import routes
from pipeline.serving.classifier import Classifier, envelope, overlap
from pipeline.serving.settings import Settings
from pipeline.sound import decoding, examples
from pipeline.sound.decoding import NoSoundError
from pipeline.sound.features import FeatureSpec, normalise
from pipeline.tracking import store
from tests.bundle import LABELS, ROOT, Trained, sound


def test_litert_and_keras_give_the_same_probabilities(bundle: Path, trained: Trained) -> None:
    network: Any = trained.network
    expected = network.predict(normalise(trained.clips, trained.spec)[..., None], verbose=0)
    answered = Classifier.load(bundle).infer(trained.clips)
    np.testing.assert_allclose(answered, expected, atol=1e-5)
    np.testing.assert_allclose(answered.sum(axis=1), 1, atol=1e-5)
    assert [LABELS[i] for i in answered.argmax(axis=1)] == LABELS * 8


def test_the_service_and_the_featurize_stage_compute_the_same_features_to_the_bit(
    bundle: Path, tmp_path: Path
) -> None:
    classifier = Classifier.load(bundle)
    files = []
    for number, (rate, channels, subtype) in enumerate(
        [(22050, 1, "PCM_16"), (44100, 2, "PCM_24"), (8000, 1, "PCM_U8"), (96000, 2, "FLOAT")]
    ):
        files.append(tmp_path / f"{number}.wav")
        wave = sound(LABELS[number % 3], number, rate, 1.5 + number)
        soundfile.write(files[-1], np.stack([wave] * channels, axis=1), rate, subtype=subtype)
    limits = decoding.Limits(600, 10)
    for clip, expected in extract_files(files, classifier.spec):
        waveform = decoding.load(
            files[clip].read_bytes(), classifier.spec.sample_rate, limits=limits
        )
        found = classifier.predict(waveform, 120)
        np.testing.assert_array_equal(found.features, expected[0])


def test_no_bundle_is_written_if_litert_and_keras_differ(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = Classifier.infer
    described = {"labels": LABELS, "threshold": 0.0, "name": "x", "version": "1"}
    for wrong in (
        lambda self, clips: infer(self, clips) + 2e-5,
        lambda self, clips: infer(self, clips)[:, ::-1],
        lambda self, clips: infer(self, clips) * np.float32(np.nan),
    ):
        monkeypatch.setattr(Classifier, "infer", wrong)
        with pytest.raises(UserError, match="No bundle was written"):
            package.write(tmp_path / "bundle", trained.network, trained.spec, described)
        assert list(tmp_path.iterdir()) == []


def test_a_new_bundle_replaces_every_file_of_the_old_one(
    trained: Trained, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    (folder / "stray").write_text("of before")
    described = json.loads((folder / "card.json").read_text()) | {"version": "8"}
    checked = package.write(folder, trained.network, trained.spec, described)
    assert "noise, because this machine does not have the test clips" in checked
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json", "examples", "model.tflite", "reference.json", "spec.npz",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [folder]
    assert Classifier.load(folder).card["version"] == "8"


def test_any_label_gets_an_example_with_a_safe_file_name(trained: Trained, tmp_path: Path) -> None:
    labels = ["../../etc/x", "dog bark", "ok"]
    described = {"labels": labels, "threshold": 0.0, "name": "x", "version": "1"}
    clips = {label: examples.Example(sound("tone", 1)) for label in labels}
    package.write(tmp_path / "b", trained.network, trained.spec, described, examples=clips)
    listed = json.loads((tmp_path / "b" / "card.json").read_text())["examples"]
    named = {example["label"]: example["file"] for example in listed}
    assert list(named) == labels
    assert {path.name for path in (tmp_path / "b" / "examples").iterdir()} == set(named.values())
    assert named == {"../../etc/x": "0.wav", "dog bark": "1.wav", "ok": "ok.wav"}


@pytest.mark.parametrize("missing", ["card.json", "model.tflite", "spec.npz"])
def test_a_missing_or_damaged_file_of_a_bundle_is_reported_in_one_sentence(
    bundle: Path, tmp_path: Path, missing: str
) -> None:
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    (folder / missing).write_bytes(b"not what it should be")
    with pytest.raises(UserError, match=r"run `python -m pipeline package`"):
        Classifier.load(folder)
    (folder / missing).unlink()
    with pytest.raises(UserError, match="is missing"):
        Classifier.load(folder)


def test_windows_without_sound_are_rejected_and_left_out_of_a_timeline(bundle: Path) -> None:
    classifier = Classifier.load(bundle)
    rate = classifier.spec.sample_rate
    quiet = np.zeros(12 * rate, np.float32)
    click = quiet.copy()
    click[100] = 0.9
    for overlapping in (False, True):
        with pytest.raises(NoSoundError, match="silent"):
            classifier.predict(quiet, 120, overlapping=overlapping)
        for wave, reason in ((quiet + 0.3, "only a constant offset"), (click, "an impulse of")):
            with pytest.raises(NoSoundError, match=f"{reason}.* in its first"):
                classifier.predict(wave, 120, overlapping=overlapping)
    half = np.concatenate([quiet, sound("tone", 3, rate, 6.0)])
    found = classifier.predict(half, 120, overlapping=True)
    assert found.starts.tolist() == [10.0, 12.0, 14.0]
    assert LABELS[int(found.probabilities.argmax())] == "tone"


@pytest.mark.parametrize(
    ("seconds", "windows"), [(0.1, 1), (4.0, 1), (4.1, 2), (6.0, 2), (6.1, 3), (60.0, 5)]
)
def test_windows_overlap_by_half_and_cover_the_clip_up_to_their_number(
    bundle: Path, seconds: float, windows: int
) -> None:
    spec = FeatureSpec.load(bundle / "spec.npz")
    wave = np.arange(round(seconds * spec.sample_rate), dtype=np.float32)
    pieces = overlap(wave, spec, 5)
    assert [piece.size for piece in pieces] == [spec.samples] * windows
    hop = spec.samples // 2
    for number, piece in enumerate(pieces):
        kept = wave[number * hop : number * hop + spec.samples]
        np.testing.assert_array_equal(piece[: kept.size], kept)
        assert not piece[kept.size :].any()


def test_an_envelope_has_the_lowest_and_highest_sample_of_each_stretch() -> None:
    wave = np.array([0.5, -0.5, 0.25, 3.0, -4.0, 0.0], np.float32)
    assert envelope(wave, 3) == [(-0.5, 0.5), (0.25, 1.0), (-1.0, 0.0)]
    assert len(envelope(wave, 600)) == 6
    assert len(envelope(np.zeros(100_003, np.float32), 600)) == 600


def test_an_error_about_a_missing_version_lists_the_existing_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = store.connect()
    with pytest.raises(UserError, match="no model sounds: run `make run` first"):
        champions.find(client, "sounds", "champion")
    client.create_registered_model("birds-classifier")
    with pytest.raises(UserError, match=r"has no model sounds: .* It has birds-classifier: "):
        champions.find(client, "sounds", "champion")
    client.create_registered_model("sounds")
    client.create_model_version("sounds", source=str(tmp_path))
    with pytest.raises(UserError, match=r"no version with the alias champion .* versions are 1"):
        champions.find(client, "sounds", "champion")
    with pytest.raises(UserError, match="no version 5"):
        champions.find(client, "sounds", "5")
    assert champions.find(client, "sounds", "1").version in (1, "1")


def test_features_are_used_only_if_their_hash_is_that_of_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    version = SimpleNamespace(tags={"lineage.features_md5": "0" * 32})
    assert package.find_training_features(version) is None
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "features.npy").write_bytes(b"others")
    assert package.find_training_features(version) is None


Register = Callable[..., None]


@pytest.fixture
def register(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Return a function that registers the network as champion in a fresh working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    shutil.copy(ROOT / "tests" / "params.yaml", tmp_path)

    def registered(labels: list[str] = LABELS, **dataset: str) -> None:
        _write_outputs(trained, labels, dataset)
        _log_and_register(trained)

    return registered


def _write_outputs(trained: Trained, labels: list[str], dataset: dict[str, str]) -> None:
    """Write what the stages leave behind for the network; `labels` name its outputs."""
    for file in (paths.FEATURES, paths.MODEL_SPEC, paths.DATASET, paths.PREDICTIONS):
        file.parent.mkdir(parents=True, exist_ok=True)
    trained.spec.save(paths.MODEL_SPEC)
    card = {"name": "foley", "title": "Test", "license": "-", "homepage": "", **dataset}
    tables.write_json(paths.DATASET, {**card, "labels": labels})
    np.save(paths.FEATURES, trained.clips)
    rows = [f"{label}-{n}.wav,0,{label},{1 + n % 2},{n}" for n in range(8) for label in labels]
    paths.FEATURE_INDEX.write_text("\n".join(["path,window,label,fold,recording", *rows]) + "\n")
    probabilities = Classifier.infer(_keras_as_classifier(trained), trained.clips[:6])
    header = ["path", "label", "fold", "recording", "predicted", *(f"p_{x}" for x in labels)]
    lines = [",".join(header)]
    for number, row in enumerate(probabilities):
        label = labels[number % 3]
        name = f"{label}-{number // 3}.wav"
        lines.append(",".join([name, label, "1", "0", label, *map(str, row)]))
    paths.PREDICTIONS.write_text("\n".join(lines) + "\n")
    clips = {
        label: examples.Example(sound(kind, 72 + number), f"a/1-{number}-A.ogg", str(number))
        for number, (label, kind) in enumerate(zip(labels, LABELS, strict=True))
    }
    index = {
        label: {"file": file, "path": clips[label].path, "recording": clips[label].recording}
        for label, file in examples.write(paths.EXAMPLES, clips, 22050).items()
    }
    tables.write_json(paths.EXAMPLES / examples.INDEX, index)


def _log_and_register(trained: Trained) -> None:
    client = store.connect()
    mlflow.set_experiment("test")
    with mlflow.start_run() as run:
        mlflow.tensorflow.log_model(
            trained.network,
            name="model",
            extra_files=[str(paths.MODEL_SPEC), str(paths.DATASET)],
            pip_requirements=["keras"],
        )
        mlflow.log_artifact(str(paths.PREDICTIONS))
        mlflow.log_artifacts(str(paths.EXAMPLES), paths.EXAMPLES.name)
        mlflow.log_metrics({"test_accuracy": 0.9, "best_epoch": 3})
    client.create_registered_model("foley-classifier")
    client.create_model_version(
        "foley-classifier",
        source=f"runs:/{run.info.run_id}/model",
        run_id=run.info.run_id,
        description="made here",
        tags={
            "test_accuracy": "0.9",
            "split.test_fold": "1",
            "lineage.features_md5": hashlib.md5(paths.FEATURES.read_bytes()).hexdigest(),
        },
    )
    client.set_registered_model_alias("foley-classifier", "champion", "1")


def packaged(**options: Any) -> dict[str, Any]:
    """Package the champion; return the closing line, the card and the reference."""
    line = package.main(**options)
    held = {
        name: json.loads((paths.BUNDLE / f"{name}.json").read_text())
        for name in ("card", "reference")
    }
    return {**held, "line": line}


def _keras_as_classifier(trained: Trained) -> Any:
    network: Any = trained.network

    class Keras:
        spec = trained.spec

        def _interpreter(self) -> Any:
            class Interpreter:
                def set_tensor(self, _: int, window: Any) -> None:
                    self.window = window

                def invoke(self) -> None:
                    self.answer = network.predict(self.window, verbose=0)

                def get_tensor(self, _: int) -> Any:
                    return self.answer

            return Interpreter(), {"index": 0}, {"index": 0, "shape": [1, len(LABELS)]}

    return Keras()


def test_the_champion_of_a_registry_becomes_a_bundle(
    register: Register,
) -> None:
    register()
    made = packaged()
    assert (
        "foley-classifier version 1, the champion (the alias was set without `promote`) -> bundle/"
        in made["line"]
    )
    assert "LiteRT equals Keras on 12 test windows" in made["line"]
    card = made["card"]
    assert (card["name"], card["version"], card["aliases"]) == (
        "foley-classifier",
        "1",
        ["champion"],
    )
    assert card["labels"] == LABELS
    assert card["metrics"] == {"accuracy": 0.9}
    assert card["lineage"]["split.test_fold"] == "1"
    assert len(card["lineage"]["run_id"]) == 32
    assert "test_accuracy" not in card["lineage"]
    assert [example["label"] for example in card["examples"]] == LABELS
    assert "3 example clips" in made["line"]
    assert set(made["reference"]) == {"level", "contrast", "centroid", "confidence", "label"}
    assert sum(made["reference"]["level"]["counts"]) == 24
    assert made["reference"]["label"] == {"labels": LABELS, "counts": [2, 2, 2]}
    answered = Classifier.load(Path("bundle"))
    for label in LABELS:
        wave = decoding.load(Path("bundle/examples") / f"{label}.wav", 22050)
        assert LABELS[int(answered.predict(wave, 1).probabilities.argmax())] == label

    before = {p: p.read_bytes() for p in Path("bundle").rglob("*") if p.is_file()}
    packaged()
    assert {p: p.read_bytes() for p in Path("bundle").rglob("*") if p.is_file()} == before

    Path("features/features.npy").unlink()
    made = packaged()
    assert "LiteRT equals Keras on 3 test windows" in made["line"]  # those of the examples
    assert set(made["reference"]) == {"confidence", "label"}
    assert [example["label"] for example in made["card"]["examples"]] == LABELS


def test_own_recordings_are_published_only_on_request(register: Register) -> None:
    register(name="folder", license="as agreed with the owners of the recordings")
    made = packaged()
    assert made["card"]["examples"] == []
    assert list((paths.BUNDLE / "examples").iterdir()) == []
    assert "no example clips" in made["line"]

    listed = packaged(publish=True)["card"]["examples"]
    assert [example["label"] for example in listed] == LABELS
    assert packaged(publish=False)["card"]["examples"] == []


def test_examples_under_a_licence_that_requires_it_carry_an_attribution(
    register: Register,
) -> None:
    address = "https://github.com/karolpiczak/ESC-10"
    register(name="esc10", title="ESC-10", license="CC BY 3.0", homepage=address)
    card = packaged()["card"]
    assert card["examples"][2]["attribution"] == {
        "clip": "1-2-A.ogg",
        "source": "https://freesound.org/s/2/",
        "dataset": "ESC-10",
        "homepage": address,
        "license": "CC BY 3.0",
        "changes": "converted to mono WAV, at most 10 s",
    }
    described = routes.model_card(card, Settings())
    assert described.examples[2].attribution is not None
    assert described.examples[2].attribution.clip == "1-2-A.ogg"


@pytest.mark.parametrize(
    ("name", "licence", "source"),
    [
        ("esc50", "CC BY-NC 3.0", "https://freesound.org/s/17/"),
        ("folder", "CC BY 4.0", ""),  # its recordings need not be from Freesound
        ("foley", "generated by this project, no third-party rights", None),
    ],
)
def test_only_licences_that_require_it_give_an_attribution(
    name: str, licence: str, source: str | None
) -> None:
    dataset = {"name": name, "title": "T", "license": licence, "homepage": ""}
    example = examples.Example(sound("tone", 1), "audio/1-17-A.wav", "17")
    found = package.attribution(dataset, example)
    assert (found and found["source"]) == source


def test_labels_that_look_like_numbers_stay_text(register: Register) -> None:
    labels = ["0", "007", "9"]
    register(labels)
    made = packaged()
    assert made["card"]["labels"] == labels
    assert made["reference"]["label"] == {"labels": labels, "counts": [2, 2, 2]}
    assert [example["label"] for example in made["card"]["examples"]] == labels
    classifier = Classifier.load(paths.BUNDLE)
    answered = []
    for example in made["card"]["examples"]:
        wave = decoding.load(paths.BUNDLE / "examples" / example["file"], 22050)
        answered.append(labels[int(classifier.predict(wave, 1).probabilities.argmax())])
    assert answered == labels
