"""A registered model as a serving bundle: what the service needs, and nothing of what trained it.

    python -m pipeline package [VERSION_OR_ALIAS]

The bundle is written only when LiteRT gives the same answers as Keras.
"""

import argparse
import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from pipeline import params, paths, tables
from pipeline.errors import UserError
from pipeline.registry import champions
from pipeline.serving import bundle, classifier, drift
from pipeline.serving.classifier import Classifier
from pipeline.sound.examples import load as load_examples
from pipeline.sound.examples import write as write_examples
from pipeline.sound.features import CHUNK, FeatureSpec, extract, normalise, windows
from pipeline.tracking import store

if TYPE_CHECKING:
    import keras

    Floats = NDArray[np.float32]

TOLERANCE = 1e-5
"""Largest difference of a probability between LiteRT and Keras."""


@dataclass(frozen=True, eq=False)
class Material:
    """Features, index and clips that the version was made from, where they are on this machine."""

    array: "Floats"
    index: pd.DataFrame


def main(wanted: str = champions.CHAMPION) -> str:
    """Make the bundle of a version.

    Parameters
    ----------
    wanted : str
        An alias, or the number of a version.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When there is no such version, or when its export does not answer as it does.
    """
    name = params.load().register_.name
    client = store.connect()
    version = champions.find(client, name, wanted)
    with tempfile.TemporaryDirectory() as temporary:
        # where in it the model is depends on how it was registered
        fetched = Path(fetch(f"models:/{name}/{version.version}", Path(temporary)))
        held = next((file.parent for file in fetched.rglob("MLmodel")), fetched)
        network = _load(held / "data" / "model.keras")
        spec = FeatureSpec.load(held / "extra_files" / paths.MODEL_SPEC.name)
        dataset = json.loads((held / "extra_files" / paths.DATASET.name).read_text("utf-8"))
        predictions = _predictions(version, Path(temporary))
        clips = _examples(version, Path(temporary), spec)
    material = find_material(version)
    described = card(client, version, dataset, spec)
    checked = write(
        paths.BUNDLE,
        network,
        spec,
        described,
        clips=example_windows(clips, spec) if material is None else test_windows(material, version),
        reference=reference(material, predictions, described["labels"]),
        examples=clips,
    )
    size = sum(file.stat().st_size for file in paths.BUNDLE.rglob("*") if file.is_file())
    return f"{name} version {version.version} -> {paths.BUNDLE}/, {size / 1e6:.1f} MB; {checked}"


def fetch(source: str, folder: Path) -> str:
    """Download artifacts.

    Raises
    ------
    UserError
        When the store does not have them.
    """
    try:
        return str(mlflow.artifacts.download_artifacts(source, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{source} cannot be had from the store at {store.address()}"
            f" ({type(error).__name__}): its artifacts were moved or deleted."
        ) from error


def card(
    client: MlflowClient, version: ModelVersion, dataset: dict[str, Any], spec: FeatureSpec
) -> dict[str, Any]:
    """Tell what the model is, for people: ``GET /model`` answers with it.

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
    figures = client.get_run(version.run_id).data.metrics if version.run_id else {}
    bands, frames = spec.shape
    lineage = {k: v for k, v in version.tags.items() if not k.startswith("test_")}
    return {
        "name": version.name,
        "version": str(version.version),
        "aliases": sorted(version.aliases),
        # its first paragraph; the rest is the model card
        "description": (version.description or "").partition("\n\n")[0],
        "labels": dataset["labels"],
        # without one, as of a version made elsewhere, everything is answered
        "threshold": figures.get("test_threshold", 0.0),
        "metrics": {
            key.removeprefix("test_"): value
            for key, value in sorted(figures.items())
            if key.startswith("test_")
        },
        "dataset": {key: dataset.get(key) for key in ("name", "title", "license", "homepage")},
        "features": {**spec.to_dict(), "bands": bands, "frames": frames},
        "lineage": dict(sorted({"run_id": str(version.run_id), **lineage}.items())),
    }


def find_material(version: ModelVersion) -> Material | None:
    """Find the features that the version was trained and tested with, known by their hash."""
    wanted = version.tags.get("lineage.features_md5")
    try:
        with paths.FEATURES.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
    except FileNotFoundError:
        return None
    if found != wanted:
        return None
    index = tables.read(paths.FEATURE_INDEX)
    return Material(np.load(paths.FEATURES, mmap_mode="r"), index)


def test_windows(material: Material, version: ModelVersion) -> "Floats":
    """Features of the fold that the version was tested on, shape (windows, bands, frames)."""
    fold = int(version.tags["split.test_fold"])
    return np.asarray(material.array[np.flatnonzero(material.index["fold"] == fold)])


def example_windows(clips: "Mapping[str, Floats]", spec: FeatureSpec) -> "Floats | None":
    """Features of the examples, of as many as there are; shape (windows, bands, frames)."""
    pieces = [piece for clip in clips.values() for piece in windows(clip, spec)]
    return np.stack([extract(piece, spec) for piece in pieces]) if pieces else None


def reference(
    material: Material | None, predictions: pd.DataFrame | None, labels: list[str]
) -> dict[str, Any]:
    """Histograms that drift is measured against.

    Parameters
    ----------
    material : Material or None
        What sound is like: the quantities of all clips, each by its first window.
    predictions : DataFrame or None
        What answers are like: confidences and labels on the test clips, which the model had
        not seen.
    labels : list of str

    Returns
    -------
    dict
        Without the quantities that nothing is known of.
    """
    held: dict[str, Any] = {}
    if material is not None:
        rows = np.flatnonzero(material.index["window"] == 0)
        summaries = [classifier.summarise(material.array[row]) for row in rows]
        held |= {name: drift.histogram([s[name] for s in summaries]) for name in summaries[0]}
    if predictions is not None:
        confidences = predictions[[f"p_{label}" for label in labels]].max(axis=1)
        held["confidence"] = drift.histogram(confidences.tolist())
        held["label"] = drift.shares(predictions["predicted"], labels)
    return held


def write(
    folder: Path,
    network: "keras.Model",
    spec: FeatureSpec,
    described: dict[str, Any],
    *,
    clips: "Floats | None" = None,
    reference: Mapping[str, Any] | None = None,
    examples: "Mapping[str, Floats] | None" = None,
) -> str:
    """Export a network, hold it against Keras, and write the bundle: whole or not at all.

    Parameters
    ----------
    folder : Path
        Is replaced.
    network : keras.Model
    spec : FeatureSpec
    described : dict
        See :func:`card`.
    clips : array, shape (windows, bands, frames), optional
        Features, not normalised, on which the export has to answer as Keras does; noise takes
        their place.
    reference : dict, optional
        See :func:`reference`.
    examples : dict, optional
        Waveforms by label; see :mod:`pipeline.sound.examples`.

    Returns
    -------
    str
        What was compared, and how far it differed.

    Raises
    ------
    UserError
        When LiteRT and Keras differ.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=folder.parent) as temporary:
        made = Path(temporary) / "bundle"
        made.mkdir()
        export(network, made / bundle.MODEL)
        spec.save(made / bundle.SPEC)
        exported = Classifier((made / bundle.MODEL).read_bytes(), spec, described)
        checked = compare(network, exported, clips)
        named = write_examples(made / bundle.EXAMPLES, examples or {}, spec.sample_rate)
        _write_json(made / bundle.REFERENCE, reference or {})
        held = {"examples": named, "checked": checked, "checksums": bundle.checksums(made)}
        _write_json(made / bundle.CARD, {**described, **held})
        if folder.exists():
            folder.rename(Path(temporary) / "before")
        made.rename(folder)
    return checked


def export(network: "keras.Model", path: Path) -> None:
    """Write a network in LiteRT's format."""
    from pipeline.backend import silent

    # a reloaded model has to be called once before it can be exported
    network(np.zeros((1, *network.input_shape[1:]), np.float32))
    with silent(), contextlib.redirect_stdout(io.StringIO()):
        network.export(path, format="litert", verbose=False)


def compare(network: "keras.Model", exported: Classifier, clips: "Floats | None") -> str:
    """Hold the export against Keras.

    Returns
    -------
    str
        On what, and how far the probabilities differed.

    Raises
    ------
    UserError
        When a clip gets another label or a probability differs by more than 1e-5.
    """
    spec = exported.spec
    if clips is None:
        noise = np.random.default_rng(0).standard_normal((32, spec.samples), np.float32)
        clips = np.stack([extract(window, spec) for window in noise])
        on = f"{len(clips)} windows of noise, for the test clips are not on this machine"
    else:
        on = f"{len(clips)} test windows"
    largest = 0.0
    for first in range(0, len(clips), CHUNK):
        chunk = clips[first : first + CHUNK]
        expected = network.predict(normalise(chunk, spec)[..., None], verbose=0)
        answered = exported.infer(chunk)
        # unlike max(), it keeps what is not a number
        largest = float(np.maximum(largest, np.abs(expected - answered).max()))
        other = int((expected.argmax(axis=1) != answered.argmax(axis=1)).sum())
        if other or not largest <= TOLERANCE:
            raise UserError(
                f"the exported model is not the registered one: {other} of {len(chunk)} windows"
                f" get another label and a probability differs by {largest:.1e}; no bundle is"
                " made of it."
            )
    return f"LiteRT equals Keras on {on} (largest difference {largest:.0e})"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _load(path: Path) -> "keras.Model":
    from pipeline.backend import keras

    return keras.saving.load_model(path)


def _predictions(version: ModelVersion, folder: Path) -> pd.DataFrame | None:
    """Fetch what the evaluation said of the test clips from the training run."""
    if not version.run_id:
        return None
    try:
        file = fetch(f"runs:/{version.run_id}/{paths.PREDICTIONS.name}", folder)
    except UserError:
        return None  # the version was made without our evaluation
    return tables.read(Path(file))


def _examples(version: ModelVersion, folder: Path, spec: FeatureSpec) -> "dict[str, Floats]":
    """Fetch the example clips from the training run."""
    if not version.run_id:
        return {}
    try:
        source = f"runs:/{version.run_id}/{paths.EXAMPLES.name}"
        return load_examples(Path(fetch(source, folder)), spec.sample_rate)
    except UserError:
        return {}  # the version was made without our evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline package``."""
    parser.add_argument(
        "version", nargs="?", default=champions.CHAMPION, help="a version's number or alias"
    )


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(options.version)
