"""Turn one uploaded clip into an answer: decode it, classify it, and record the prediction."""

import base64
import time
from typing import Any

import numpy as np

from pipeline.serving.classifier import Classifier, Prediction, envelope
from pipeline.serving.monitoring import Metrics
from pipeline.serving.prediction_log import PredictionLog
from pipeline.serving.schema import (
    POINTS,
    ModelName,
    Picture,
    RejectedError,
    Spectrogram,
    Window,
)
from pipeline.serving.settings import Settings
from pipeline.sound import decoding


class Inference:
    """Decode and classify clips, in worker threads.

    Parameters
    ----------
    classifier : Classifier
    settings : Settings
    metrics : Metrics
    log : PredictionLog
    """

    def __init__(
        self, classifier: Classifier, settings: Settings, metrics: Metrics, log: PredictionLog
    ) -> None:
        self.classifier = classifier
        self._settings = settings
        self._metrics = metrics
        self._log = log
        card = classifier.card
        self._model = ModelName(name=card["name"], version=str(card["version"]))

    def classify(
        self, content: bytes, until: float, *, windows: bool, picture: bool
    ) -> dict[str, Any]:
        """Classify one clip.

        Parameters
        ----------
        content : bytes
            An audio file.
        until : float
            When decoding has to end, on the clock ``time.monotonic``.
        windows, picture : bool
            Whether the answer includes them.

        Returns
        -------
        dict
            The fields of :class:`pipeline.serving.schema.Answer`.

        Raises
        ------
        RejectedError
            If the clip cannot be decoded, is longer than allowed, or holds no sound.
        """
        waveform, prediction = self._predict(content, until, windows=windows)
        duration = waveform.size / self.classifier.spec.sample_rate
        end = prediction.starts[-1] + self.classifier.spec.seconds
        answer = {
            **self._probabilities(prediction.probabilities),
            # if one sound follows another, the mean is less certain than each window by itself
            "known": self.classifier.knows(
                prediction.windows if windows else prediction.probabilities
            ),
            "seconds": round(float(min(duration, end)), 3),
            "duration": round(duration, 3),
            "model": self._model,
            "windows": self._windows(prediction, duration) if windows else None,
        }
        if picture:
            answer["picture"] = Picture(
                waveform=envelope(waveform, POINTS), spectrogram=self._spectrogram(prediction)
            )
        self._record(answer, prediction)
        return answer

    def _predict(
        self, content: bytes, until: float, *, windows: bool
    ) -> tuple[np.ndarray, Prediction]:
        settings, rate = self._settings, self.classifier.spec.sample_rate
        limits = decoding.Limits(settings.max_seconds, max(0.0, until - time.monotonic()))
        try:
            least = self.classifier.spec.min_seconds
            waveform = decoding.load(content, rate, limits=limits, min_seconds=least)
            prediction = self.classifier.predict(
                waveform, settings.max_windows, overlapping=windows
            )
        except decoding.SlowError as error:
            raise RejectedError(422, str(error), "slow") from None
        except decoding.LimitError as error:
            raise RejectedError(422, str(error), "length") from None
        except decoding.NoSoundError as error:
            raise RejectedError(422, str(error), "silence") from None
        except decoding.AudioError as error:
            raise RejectedError(415, str(error), "format") from None
        return waveform, prediction

    def _record(self, answer: dict[str, Any], prediction: Prediction) -> None:
        values = {
            "label": answer["label"],
            "confidence": answer["probability"],
            **{name: round(value, 4) for name, value in prediction.summary.items()},
            "duration": answer["duration"],
            "version": self._model.version,
        }
        self._metrics.prediction(values)
        self._log.write(values)

    def _probabilities(self, row: np.ndarray) -> dict[str, Any]:
        order = np.argsort(-row, kind="stable")
        labels = self.classifier.labels
        probabilities = {labels[i]: round(float(row[i]), 6) for i in order}
        label, probability = next(iter(probabilities.items()))
        return {"label": label, "probability": probability, "probabilities": probabilities}

    def _windows(self, prediction: Prediction, duration: float) -> list[Window]:
        seconds = self.classifier.spec.seconds
        return [
            Window(
                start=round(float(start), 3),
                end=round(float(min(start + seconds, max(duration, start))), 3),
                **self._probabilities(row),
            )
            for start, row in zip(prediction.starts, prediction.windows, strict=True)
        ]

    def _spectrogram(self, prediction: Prediction) -> Spectrogram:
        spec, features = self.classifier.spec, prediction.features
        if spec.kind == "mfcc":
            low, high = float(features.min()), float(features.max())
        else:
            low, high = -spec.top_db, 0.0
        scaled = (features - low) * (255 / max(high - low, 1e-9))
        content = scaled.round().clip(0, 255).astype(np.uint8).tobytes()
        return Spectrogram(
            bands=features.shape[0],
            frames=features.shape[1],
            kind=spec.kind,
            low=low,
            high=high,
            seconds=spec.seconds,
            values=base64.b64encode(content).decode("ascii"),
        )
