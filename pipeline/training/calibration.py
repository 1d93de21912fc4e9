"""Calibrate a network: its temperature, its calibration error, and when it should abstain.

The temperature is fitted on the validation fold and built into the network's last layer, so that
everything made from the network has it: the registered model, the LiteRT export, the service. The
threshold below which the model abstains comes from the validation fold too. That fold has also
chosen the epoch, so both are slightly optimistic; the test fold shows by how much.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    import keras

LAST_LAYER = "probabilities"
"""Name of the dense layer with the softmax, in all networks."""

TINY = 1e-7
"""Lowest probability that is used, because the logarithm of 0 is infinite."""

RANGE = (0.05, 20.0)
"""Lowest and highest temperature."""


def fit_temperature(probabilities: NDArray[np.floating], codes: NDArray[np.integer]) -> float:
    """Return the temperature that minimises the log loss on clips not used in training.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). As in
    Platt's method, one clip with unknown label is added to the fold: without it, a fold without
    mistakes would ask for a temperature of 0.

    Parameters
    ----------
    probabilities : array, shape (clips, classes), float
        From a softmax.
    codes : array, shape (clips,), int
        The true classes.

    Returns
    -------
    float
        Above 1 if the network is overconfident; within :data:`RANGE`.
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
    """Return the probabilities of a softmax at another temperature.

    Parameters
    ----------
    probabilities : array, shape (clips, classes), float
    temperature : float
        Above 1 makes the probabilities more equal. Its inverse undoes it.

    Returns
    -------
    array, shape (clips, classes), float64
    """
    return np.exp(_log_probabilities(probabilities, temperature))


def _log_probabilities(
    probabilities: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    logits = np.log(np.maximum(probabilities, TINY, dtype=np.float64)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def build_in(network: "keras.Model", temperature: float) -> None:
    """Divide the logits of a network by a temperature, permanently.

    Parameters
    ----------
    network : keras.Model
        Its layer :data:`LAST_LAYER` is changed.
    temperature : float
    """
    layer = network.get_layer(LAST_LAYER)
    layer.set_weights([weights / np.float32(temperature) for weights in layer.get_weights()])


def calibration_error(bins: pd.DataFrame) -> float:
    """Return the expected calibration error (ECE; Naeini et al., AAAI 2015).

    It is the mean distance between confidence and accuracy, weighted by clips.

    Parameters
    ----------
    bins : DataFrame
        From :func:`pipeline.evaluation.metrics.reliability`.

    Returns
    -------
    float
        Between 0 and 1; 0 for a perfectly calibrated model. With a few dozen clips, it is a few
        hundredths by chance alone.
    """
    distance = (bins["accuracy"] - bins["confidence"]).abs()
    return float((distance * bins["clips"]).sum() / bins["clips"].sum())


def threshold(confidence: NDArray[np.floating], coverage: float) -> float:
    """Return the highest threshold at which at least a given share of the clips gets a label.

    Parameters
    ----------
    confidence : array, shape (clips,), float
        The highest probability of each clip of the validation fold.
    coverage : float
        Smallest share of these clips that gets a label.

    Returns
    -------
    float
        A clip gets a label if its highest probability is at least this.
    """
    return float(np.quantile(confidence, 1 - coverage, method="lower"))


def trade_off(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> pd.DataFrame:
    """Tabulate coverage and accuracy at every threshold.

    Parameters
    ----------
    confidence : array, shape (clips,), float
    right : array, shape (clips,), bool

    Returns
    -------
    DataFrame
        One row per threshold, ascending: ``threshold``, ``coverage`` (share of the clips that get
        a label) and ``accuracy`` (share of these labels that are right).
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
    # clips with the same confidence pass or fail a threshold together
    return table.drop_duplicates("threshold", keep="last").iloc[::-1].reset_index(drop=True)
