"""How sure a model may be: temperature, calibration error, and when it had better not answer.

The temperature is fitted on the validation fold and put into the network's last layer, so that it
is in whatever is made of the network: the registered model, the LiteRT export, the service. The
threshold below which an answer is "none of these" comes from the validation fold too. That fold
has also chosen the epoch, so both are a little too hopeful; the test fold says how much.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    import keras

LAST_LAYER = "probabilities"
"""The dense layer with the softmax; all networks call it so."""

TINY = 1e-7
"""A probability below which none is counted, or its logarithm would be without end."""

RANGE = (0.05, 20.0)
"""Temperatures that are considered."""


def fit_temperature(probabilities: NDArray[np.floating], codes: NDArray[np.integer]) -> float:
    """Find the temperature at which probabilities of unseen clips have the least log loss.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), with
    one more clip of which nothing is known, as Platt did for his: a fold without a mistake would
    otherwise ask for certainty.

    Parameters
    ----------
    probabilities : (clips, classes)
        Of a softmax.
    codes : (clips,) int
        The true class of each.

    Returns
    -------
    float
        Above 1 for a network that is too sure; within :data:`RANGE`.
    """
    clips, classes = probabilities.shape
    targets = np.full((clips, classes), 1 / ((clips + 1) * classes))
    targets[np.arange(clips), codes] += clips / (clips + 1)

    def loss(log_temperature: float) -> float:
        scaled = _log_probabilities(probabilities, float(np.exp(log_temperature)))
        return float(-(targets * scaled).sum() / clips)

    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def soften(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Give the probabilities of a softmax at another temperature.

    Parameters
    ----------
    probabilities : (clips, classes)
    temperature : float
        Above 1 makes them more alike; its inverse undoes it.

    Returns
    -------
    (clips, classes) float64
    """
    return np.exp(_log_probabilities(probabilities, temperature))


def _log_probabilities(
    probabilities: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    logits = np.log(np.maximum(probabilities, TINY, dtype=np.float64)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def build_in(network: "keras.Model", temperature: float) -> None:
    """Divide the logits of a network by a temperature, for good.

    Parameters
    ----------
    network : keras.Model
        Its layer :data:`LAST_LAYER` is changed.
    temperature : float
    """
    layer = network.get_layer(LAST_LAYER)
    layer.set_weights([weights / np.float32(temperature) for weights in layer.get_weights()])


def calibration_error(bins: pd.DataFrame) -> float:
    """Mean distance between how sure and how often right (ECE; Naeini et al., AAAI 2015).

    Parameters
    ----------
    bins : DataFrame
        As :func:`pipeline.evaluation.metrics.reliability` makes it.

    Returns
    -------
    float
        Between 0 and 1; 0 for a model that knows itself. A few dozen clips give some hundredths
        by chance alone.
    """
    distance = (bins["accuracy"] - bins["confidence"]).abs()
    return float((distance * bins["clips"]).sum() / bins["clips"].sum())


def threshold(confidence: NDArray[np.floating], coverage: float) -> float:
    """Find the highest probability to ask for when so many clips are to get an answer.

    Parameters
    ----------
    confidence : (clips,)
        The highest probability of each clip of the validation fold, all of known labels.
    coverage : float
        Share of them that is to get an answer, at least.

    Returns
    -------
    float
        A clip is answered when its highest probability is not below it.
    """
    return float(np.quantile(confidence, 1 - coverage, method="lower"))


def trade_off(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> pd.DataFrame:
    """Tabulate what every threshold would cost and gain.

    Parameters
    ----------
    confidence : (clips,)
    right : (clips,) bool

    Returns
    -------
    DataFrame
        A row a threshold, rising: ``threshold``, ``coverage`` (share of clips that get an answer)
        and ``accuracy`` (of these answers).
    """
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, order.size + 1)
    table = pd.DataFrame(
        {
            "threshold": confidence[order],
            "coverage": answered / order.size,
            "accuracy": np.cumsum(right[order]) / answered,
        }
    )
    # clips that are equally sure are answered together
    return table.drop_duplicates("threshold", keep="last").iloc[::-1].reset_index(drop=True)
