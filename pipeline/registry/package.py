"""Write a registered model as a serving bundle, which the service loads.

    python -m pipeline package [VERSION] [--examples | --no-examples]

The bundle is written only if LiteRT and Keras give the same predictions. The service's page offers
the bundle's example clips to anybody who can reach it. They are test clips, so by default a bundle
for a dataset of your own (``dataset.name: folder``) has none.
"""

import argparse
import contextlib
import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from pipeline import evidence, params, paths, tables
from pipeline.errors import UserError
from pipeline.registry import champions, names, served
from pipeline.serving import bundle, classifier, psi
from pipeline.serving.classifier import Classifier
from pipeline.sound import examples as example_clips
from pipeline.sound.examples import Example
from pipeline.sound.features import CHUNK, FeatureSpec, extract, normalise, windows
from pipeline.tracking import runs, store

if TYPE_CHECKING:
    import keras

    Floats = NDArray[np.float32]

TOLERANCE = 1e-5
"""Largest difference of a probability between LiteRT and Keras."""

PRIVATE = "folder"
"""The dataset whose clips are published only on request: people's own recordings."""

FREESOUND = ("esc10", "esc50", "urbansound8k")
"""Datasets whose recordings are named by their number at Freesound."""

CHANGES = f"converted to mono WAV, at most {example_clips.SECONDS:g} s"
"""Changes made to a clip to get an example; the licences require that they are stated."""


@dataclass(frozen=True, eq=False)
class TrainingFeatures:
    """Features and index that the version was trained and tested with, if this machine has them."""

    array: "Floats"
    index: pd.DataFrame


def main(
    wanted: str = champions.CHAMPION, publish: bool | None = None, expected: str | None = None
) -> str:
    """Write the bundle of a model version.

    Parameters
    ----------
    wanted : str
        An alias or a version number.
    publish : bool, optional
        Whether the bundle has example clips. If left out, it has them unless the dataset is
        :data:`PRIVATE`.
    expected : str, optional
        Name of the registered model that a deployment was started for.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        If there is no such version, if LiteRT and Keras differ, or if ``params.yaml`` names another
        registered model than the expected one.
    """
    settings = params.load()
    client = store.connect()
    name = names.configured(client, settings)
    if expected not in (None, name):
        raise UserError(
            f"{paths.PARAMS} names the registered model {name}, not {expected}: package a version"
            f" of {name}, or change dataset.name or register.name."
        )
    version = champions.find(client, name, wanted)
    with tempfile.TemporaryDirectory() as temporary:
        # the path of the model inside depends on how the version was registered
        fetched = Path(fetch(f"models:/{name}/{version.version}", Path(temporary)))
        model_folder = next((file.parent for file in fetched.rglob("MLmodel")), fetched)
        network = _load(model_folder / "data" / "model.keras")
        spec = FeatureSpec.load(model_folder / "extra_files" / paths.MODEL_SPEC.name)
        dataset = tables.read_json(model_folder / "extra_files" / paths.DATASET.name)
        predictions = _predictions(version, Path(temporary))
        examples = _examples(version, Path(temporary), spec)
    if publish is None:
        publish = dataset["name"] != PRIVATE
    features = find_training_features(version)
    described = card(client, version, dataset, spec)
    checked = write(
        paths.BUNDLE,
        network,
        spec,
        described,
        clips=test_windows(features, version) if features else example_windows(examples, spec),
        reference=reference(features, predictions, described["labels"]),
        examples=examples if publish else {},
    )
    size = sum(file.stat().st_size for file in paths.BUNDLE.rglob("*") if file.is_file())
    begin, end = served.packaged(client, version)
    shipped = f"{len(examples)} example clips" if publish else "no example clips"
    return f"{begin} -> {paths.BUNDLE}/, {size / 1e6:.1f} MB, {shipped}; {checked}{end}"


def fetch(source: str, folder: Path) -> str:
    """Download artifacts.

    Raises
    ------
    UserError
        If the store does not have them.
    """
    try:
        return str(mlflow.artifacts.download_artifacts(source, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{source} cannot be downloaded from the store at {store.address()}"
            f" ({type(error).__name__}): restore the artifacts if they were moved or deleted."
        ) from error


def card(
    client: MlflowClient, version: ModelVersion, dataset: dict[str, Any], spec: FeatureSpec
) -> dict[str, Any]:
    """Describe the model for people; ``GET /model`` returns this description.

    Parameters
    ----------
    client : MlflowClient
    version : ModelVersion
    dataset : dict
        The dataset's card, as logged with the model.
    spec : FeatureSpec

    Returns
    -------
    dict
    """
    logged = client.get_run(version.run_id).data.metrics if version.run_id else {}
    metrics = runs.evaluation_metrics(logged)
    bands, frames = spec.shape
    lineage = {k: v for k, v in version.tags.items() if not k.startswith(runs.TEST_PREFIX)}
    return {
        "name": version.name,
        "version": str(version.version),
        "aliases": sorted(version.aliases),
        # the first paragraph; the rest is the model card
        "description": (version.description or "").partition("\n\n")[0],
        "labels": dataset["labels"],
        # a version made elsewhere has none, so every prediction counts as known
        "threshold": metrics.get("threshold", 0.0),
        "metrics": metrics,
        "dataset": {key: dataset.get(key) for key in ("name", "title", "license", "homepage")},
        "features": {**spec.to_dict(), "bands": bands, "frames": frames},
        "lineage": dict(sorted({"run_id": str(version.run_id), **lineage}.items())),
    }


def find_training_features(version: ModelVersion) -> TrainingFeatures | None:
    """Return the features that the version was trained with if this machine has them.

    Their hash shows whether they are the same.
    """
    wanted = version.tags.get("lineage.features_md5")
    try:
        with paths.FEATURES.open("rb") as file:
            digest = hashlib.file_digest(
                file, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
    except FileNotFoundError:
        return None
    if digest != wanted:
        return None
    index = tables.read(paths.FEATURE_INDEX)
    return TrainingFeatures(np.load(paths.FEATURES, mmap_mode="r"), index)


def test_windows(features: TrainingFeatures, version: ModelVersion) -> "Floats":
    """Select the features of the version's test fold.

    Returns
    -------
    array, shape (windows, bands, frames), float32
    """
    fold = int(version.tags["split.test_fold"])
    return np.asarray(features.array[np.flatnonzero(features.index["fold"] == fold)])


def example_windows(examples: Mapping[str, Example], spec: FeatureSpec) -> "Floats | None":
    """Extract the features of the examples.

    Returns
    -------
    array, shape (windows, bands, frames), float32
        None if there are no examples.
    """
    pieces = [piece for held in examples.values() for piece in windows(held.waveform, spec)]
    return np.stack([extract(piece, spec) for piece in pieces]) if pieces else None


def reference(
    features: TrainingFeatures | None, predictions: pd.DataFrame | None, labels: list[str]
) -> dict[str, Any]:
    """Compute the histograms that drift is measured against.

    Parameters
    ----------
    features : TrainingFeatures or None
        Gives the distribution of the sound's properties, from the first window of each clip.
    predictions : DataFrame or None
        Gives the distribution of confidences and labels, from the test clips.
    labels : list of str

    Returns
    -------
    dict
        Histograms by quantity; a quantity whose source is None is left out.
    """
    histograms: dict[str, Any] = {}
    if features is not None:
        rows = np.flatnonzero(features.index["window"] == 0)
        summaries = [classifier.summarise(features.array[row]) for row in rows]
        histograms |= {name: psi.histogram([s[name] for s in summaries]) for name in summaries[0]}
    if predictions is not None:
        confidences = predictions[[f"p_{label}" for label in labels]].max(axis=1)
        histograms["confidence"] = psi.histogram(confidences.tolist())
        histograms["label"] = psi.shares(predictions["predicted"], labels)
    return histograms


def write(
    folder: Path,
    network: "keras.Model",
    spec: FeatureSpec,
    described: dict[str, Any],
    *,
    clips: "Floats | None" = None,
    reference: Mapping[str, Any] | None = None,
    examples: Mapping[str, Example] | None = None,
) -> str:
    """Export a network, compare it with Keras, and write the bundle completely or not at all.

    Parameters
    ----------
    folder : Path
        It is replaced.
    network : keras.Model
    spec : FeatureSpec
    described : dict
        See :func:`card`.
    clips : array, shape (windows, bands, frames), float32, optional
        Features, not normalised, on which LiteRT and Keras are compared; noise if left out.
    reference : dict, optional
        See :func:`reference`.
    examples : dict, optional
        Clips to publish, by label.

    Returns
    -------
    str
        The compared windows, and the largest difference.

    Raises
    ------
    UserError
        If LiteRT and Keras differ.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=folder.parent) as temporary:
        new = Path(temporary) / "bundle"
        new.mkdir()
        export(network, new / bundle.MODEL)
        spec.save(new / bundle.SPEC)
        exported = Classifier((new / bundle.MODEL).read_bytes(), spec, described)
        checked = compare(network, exported, clips)
        examples = examples or {}
        file_names = example_clips.write(new / bundle.EXAMPLES, examples, spec.sample_rate)
        dataset = described.get("dataset", {})
        listed = [
            {"label": label, "file": file, "attribution": attribution(dataset, examples[label])}
            for label, file in file_names.items()
        ]
        tables.write_json(new / bundle.REFERENCE, reference or {})
        added = {"examples": listed, "checked": checked, "checksums": bundle.checksums(new)}
        tables.write_json(new / bundle.CARD, {**described, **added})
        if folder.exists():
            folder.rename(Path(temporary) / "before")
        new.rename(folder)
    return checked


def attribution(dataset: Mapping[str, Any], example: Example) -> dict[str, str] | None:
    """Return the credit that the licence of a clip requires.

    Parameters
    ----------
    dataset : dict
        ``name``, ``title``, ``license`` and ``homepage``.
    example : Example

    Returns
    -------
    dict
        The fields of :class:`pipeline.serving.schema.Attribution`; None if the licence is not one
        of Creative Commons that requires attribution (CC BY and its variants).
    """
    if not str(dataset.get("license")).startswith("CC BY"):
        return None
    on_freesound = dataset["name"] in FREESOUND and example.recording
    return {
        "clip": PurePosixPath(example.path).name,
        "source": f"https://freesound.org/s/{example.recording}/" if on_freesound else "",
        "dataset": dataset["title"],
        "homepage": dataset["homepage"],
        "license": dataset["license"],
        "changes": CHANGES,
    }


def export(network: "keras.Model", path: Path) -> None:
    """Write a network in LiteRT's format."""
    from pipeline.backend import silent

    # a reloaded model has to be called once before it can be exported
    network(np.zeros((1, *network.input_shape[1:]), np.float32))
    with silent(), contextlib.redirect_stdout(io.StringIO()):
        network.export(path, format="litert", verbose=False)


def compare(network: "keras.Model", exported: Classifier, clips: "Floats | None") -> str:
    """Compare the predictions of LiteRT and Keras.

    Returns
    -------
    str
        The compared windows, and the largest difference of a probability.

    Raises
    ------
    UserError
        If a window gets another label or a probability differs by more than 1e-5.
    """
    spec = exported.spec
    if clips is None:
        noise = np.random.default_rng(0).standard_normal((32, spec.samples), np.float32)
        clips = np.stack([extract(window, spec) for window in noise])
        on = f"{len(clips)} windows of noise, because this machine does not have the test clips"
    else:
        on = evidence.count(len(clips), "test window")
    largest = 0.0
    for first in range(0, len(clips), CHUNK):
        chunk = clips[first : first + CHUNK]
        expected = network.predict(normalise(chunk, spec)[..., None], verbose=0)
        answered = exported.infer(chunk)
        # unlike max(), it keeps NaN
        largest = float(np.maximum(largest, np.abs(expected - answered).max()))
        other = int((expected.argmax(axis=1) != answered.argmax(axis=1)).sum())
        if other or not largest <= TOLERANCE:
            raise UserError(
                f"the exported model differs from the registered one: {other} of {len(chunk)}"
                f" windows get another label, and a probability differs by {largest:.1e}. No bundle"
                " was written."
            )
    return f"LiteRT equals Keras on {on} (largest difference {largest:.0e})"


def _load(path: Path) -> "keras.Model":
    from pipeline.backend import keras

    return keras.saving.load_model(path)


def _predictions(version: ModelVersion, folder: Path) -> pd.DataFrame | None:
    """Download the predictions for the test clips from the training run."""
    if not version.run_id:
        return None
    try:
        file = fetch(f"runs:/{version.run_id}/{paths.PREDICTIONS.name}", folder)
    except UserError:
        return None  # a version made elsewhere has no evaluation of ours
    return tables.read(Path(file))


def _examples(version: ModelVersion, folder: Path, spec: FeatureSpec) -> dict[str, Example]:
    """Download the example clips from the training run."""
    if not version.run_id:
        return {}
    try:
        source = f"runs:/{version.run_id}/{paths.EXAMPLES.name}"
        return example_clips.load(Path(fetch(source, folder)), spec.sample_rate)
    except UserError:
        return {}  # a version made elsewhere has no evaluation of ours


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(options.version, options.examples, options.expect)
