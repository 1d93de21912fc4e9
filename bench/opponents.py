"""Serve a Keras model in two usual ways, to compare our service with.

``python -m bench.opponents PORT`` serves it as the tutorial project did: Flask's own server saves
the upload, loads the model for each request, and lets librosa read and transform the clip.
``bentoml serve bench.opponents:KerasService`` serves it as BentoML's tutorials do: it loads the
model once, with Keras and librosa. Both read ``models/`` and answer ``POST /classify`` as ours
does.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import ContentType
from numpy.typing import NDArray

from pipeline import paths
from pipeline.sound.features import FeatureSpec, normalise


def features(clip: Path, spec: FeatureSpec) -> NDArray[np.float32]:
    """Extract features with librosa; array, shape (1, bands, frames, 1), float32."""
    import librosa

    frames: dict[str, Any] = {"n_fft": spec.n_fft, "hop_length": spec.hop_length}
    mel = {"sr": spec.sample_rate, "n_mels": spec.n_mels, "fmin": spec.fmin, "fmax": spec.fmax}
    wave, _ = librosa.load(clip, sr=spec.sample_rate, duration=spec.seconds)
    wave = librosa.util.fix_length(wave, size=spec.samples)
    if spec.kind == "mfcc":
        cepstrum = librosa.feature.mfcc(y=wave, n_mfcc=spec.n_mfcc, **frames, **mel)
        orders = range(1, spec.derivatives + 1)
        values = [cepstrum, *(librosa.feature.delta(cepstrum, order=order) for order in orders)]
        return normalise(np.concatenate(values), spec)[None, ..., None]
    if spec.kind == "logmel":
        power = librosa.feature.melspectrogram(y=wave, **frames, **mel)
    else:
        power = np.abs(librosa.stft(wave, **frames)) ** 2
    return normalise(librosa.power_to_db(power, ref=np.max, top_db=spec.top_db), spec)[
        None, ..., None
    ]


def answer(network: Any, clip: Path, spec: FeatureSpec) -> dict[str, Any]:
    """Classify a clip; the class is a number, since names would not change the time."""
    probabilities = network.predict(features(clip, spec), verbose=0)[0]
    return {"class": int(probabilities.argmax()), "probabilities": probabilities.tolist()}


def flask_app() -> Any:
    """Make the Flask application."""
    from flask import Flask, request

    app = Flask("tutorial")

    @app.get("/")
    def page() -> str:
        return "ready"

    @app.post("/classify")
    def classify() -> dict[str, Any]:
        from pipeline.backend import keras

        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder, "clip")
            request.files["file"].save(clip)
            network = keras.saving.load_model(paths.MODEL)
            return answer(network, clip, FeatureSpec.load(paths.MODEL_SPEC))

    return app


@bentoml.service(name="keras_opponent", workers=1, traffic={"timeout": 300})
class KerasService:
    """Serve the model, loaded once, with features by librosa."""

    def __init__(self) -> None:
        from pipeline.backend import keras

        self.network = keras.saving.load_model(paths.MODEL)
        self.spec = FeatureSpec.load(paths.MODEL_SPEC)

    @bentoml.api  # type: ignore[untyped-decorator]
    def classify(self, file: Annotated[Path, ContentType("audio/*")]) -> dict[str, Any]:
        """Classify a clip."""
        return answer(self.network, file, self.spec)


if __name__ == "__main__":
    os.environ.setdefault("FLASK_ENV", "production")
    flask_app().run("127.0.0.1", int(sys.argv[1]), threaded=True)
