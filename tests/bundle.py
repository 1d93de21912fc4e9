"""Fixtures for the service's tests: a small trained network and its bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import params
from pipeline.sound.examples import Example
from pipeline.sound.features import FeatureSpec, extract, make_spec, statistics

if TYPE_CHECKING:
    from tests.conftest import Once

ROOT = Path(__file__).parents[1]
SECONDS = 4.0
LABELS = ["hiss", "knocks", "tone"]

Wave = NDArray[np.float32]


def sound(label: str, seed: int, rate: int = 22050, seconds: float = SECONDS) -> Wave:
    """Return one of three sounds, which a small network learns within seconds."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    if label == "hiss":
        wave = rng.standard_normal(time.size)
    elif label == "tone":
        wave = np.sin(2 * np.pi * rng.uniform(200, 2000) * time)
    else:
        after = (time + rng.uniform(0, 0.5)) % 0.5
        wave = np.sin(2 * np.pi * rng.uniform(80, 300) * after) * np.exp(-after / 0.02)
    quiet = rng.standard_normal(time.size) * 0.001
    loud = wave / np.abs(wave).max() * rng.uniform(0.1, 0.9)
    return np.asarray(loud + quiet, np.float32)


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, its spec, and features of clips that were not used in training."""

    network: Any
    spec: FeatureSpec
    clips: Wave  # features of windows


def train(folder: Path) -> None:
    """Train the pipeline's network for a moment and write it with its spec and other clips."""
    from pipeline.backend import keras
    from pipeline.sound.networks import cnn
    from pipeline.training.fit import network_input

    keras.utils.set_random_seed(1)
    spec = make_spec(params.load(ROOT / "tests" / "params.yaml").features, SECONDS)
    kinds = [i % len(LABELS) for i in range(96)]
    array = np.stack([extract(sound(LABELS[k], i), spec) for i, k in enumerate(kinds)])
    spec = spec.with_statistics(*statistics(array[:72]))
    network = cnn(spec.shape, len(LABELS), 0.1)
    network.compile(keras.optimizers.Adam(0.003), "categorical_crossentropy")
    targets = np.eye(len(LABELS), dtype=np.float32)[kinds]
    network.fit(network_input(array[:72], spec), targets[:72], epochs=12, batch_size=12, verbose=0)
    network.save(folder / "model.keras")
    spec.save(folder / "spec.npz")
    np.save(folder / "clips.npy", array[72:])


@pytest.fixture(scope="session")
def trained(once: "Once") -> Trained:
    """The network that :func:`train` makes."""
    from pipeline.backend import keras

    folder = once("trained", train)
    return Trained(
        keras.saving.load_model(folder / "model.keras"),
        FeatureSpec.load(folder / "spec.npz"),
        np.load(folder / "clips.npy"),
    )


@pytest.fixture(scope="session")
def bundle(trained: Trained, once: "Once") -> Path:
    """Write a complete bundle; tests must not change it."""
    return once("service", lambda folder: pack(trained, folder / "bundle")) / "bundle"


def pack(trained: Trained, folder: Path) -> None:
    """Write the bundle of a network as the registry does."""
    from pipeline.registry import package
    from pipeline.serving import classifier, psi

    summaries = [classifier.summarise(clip) for clip in trained.clips]
    reference = {
        name: psi.histogram([summary[name] for summary in summaries]) for name in summaries[0]
    }
    reference["confidence"] = psi.histogram(np.linspace(0.5, 1, 50).tolist())
    reference["label"] = psi.shares(LABELS * 8, LABELS)
    package.write(
        folder,
        trained.network,
        trained.spec,
        {
            "name": "sound-classifier",
            "version": "7",
            "aliases": ["champion"],
            "description": "cnn on test sounds: accuracy 91.0% (80.0% to 97.0%).",
            "labels": LABELS,
            "threshold": 0.5,
            "metrics": {
                "accuracy": 0.91,
                "accuracy_low": 0.8,
                "accuracy_high": 0.97,
                "accuracy_confidence": 0.95,
                "macro_f1": 0.9,
                "clips": 24,
            },
            "dataset": {"name": "test", "title": "Test sounds", "license": "-", "homepage": ""},
            "features": trained.spec.to_dict(),
            "lineage": {"run_id": "0" * 32, "lineage.git_commit": "unknown"},
        },
        clips=trained.clips,
        reference=reference,
        examples={label: Example(sound(label, 1000)) for label in LABELS},
    )
