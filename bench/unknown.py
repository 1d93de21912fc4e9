"""What the model says of sounds that belong to no class: train on some classes, show it the others.

    python -m bench.unknown [--left-out 2]

On the dataset that is in ``data/`` and ``features/``, with ``train``, ``split`` and
``evaluate.coverage``. The classes are left out a few at a time, each once. Temperature and
threshold come from the validation fold of the classes that are known, as always; the sounds that
are unknown are in nothing that is trained or set.
"""

import argparse
import json

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from pipeline import params, paths, stage
from pipeline.data import split
from pipeline.data.feature_store import Features
from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import metrics
from pipeline.params import Params
from pipeline.training import calibration, fit, predictions


def main(left_out: int) -> str:
    """Measure and print a row a round.

    Parameters
    ----------
    left_out : int
        Classes that are unknown at a time.

    Returns
    -------
    str
        The closing line.
    """
    settings = params.load()
    labels = json.loads(paths.DATASET.read_text(encoding="utf-8"))["labels"]
    featurized = read_features()
    rounds = [labels[first : first + left_out] for first in range(0, len(labels), left_out)]
    rows = []
    for unknown in rounds:
        rows.append(
            {"unknown": ", ".join(unknown), **measure(featurized, labels, unknown, settings)}
        )
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    mean = pd.DataFrame(rows).drop(columns="unknown").mean()
    return (
        f"of sounds of unknown classes {mean['rejected']:.0%} are called none of these, and of"
        f" test clips of known ones {1 - mean['coverage']:.0%}; accuracy of what is answered"
        f" {mean['accuracy_answered']:.1%} instead of {mean['accuracy']:.1%}; area under the"
        f" curve {mean['auroc']:.3f}"
    )


def measure(
    featurized: Features, labels: list[str], unknown: list[str], settings: Params
) -> dict[str, float]:
    """Train without some classes and ask about them.

    Returns
    -------
    dict
        On test clips of known classes ``accuracy``, ``coverage`` and ``accuracy_answered``;
        ``rejected``, the share of clips of unknown classes that get no answer; ``auroc``, the
        chance that a known clip has a higher probability than an unknown one.
    """
    known = [label for label in labels if label not in unknown]
    rows = np.flatnonzero(featurized.index["label"].isin(known))
    others = np.flatnonzero(featurized.index["label"].isin(unknown))
    index = featurized.index.iloc[rows].reset_index(drop=True)
    array = np.asarray(featurized.array[rows])
    folds = split.by_fold(index, settings.split.test_fold)
    data = fit.prepare(array, index, featurized.spec, folds, known)
    network = fit.fit(data, settings.train, f"without {', '.join(unknown)}").model

    def predict(features: np.ndarray, of: pd.DataFrame) -> pd.DataFrame:
        inputs = fit.network_input(features, data.spec)
        return predictions.by_clip(of, network.predict(inputs, batch_size=64, verbose=0), known)

    codes = data.validation[1].argmax(axis=1)
    before = network.predict(data.validation[0], batch_size=64, verbose=0)
    calibration.build_in(network, calibration.fit_temperature(before, codes))
    validation = predict(array[folds.validation], index.iloc[folds.validation])
    threshold = calibration.threshold(
        metrics.confidence(validation, known), settings.evaluate.coverage
    )
    test = predict(array[folds.test], index.iloc[folds.test])
    strange = predict(np.asarray(featurized.array[others]), featurized.index.iloc[others])
    heard, unheard = (metrics.confidence(clips, known) for clips in (test, strange))
    return {
        "accuracy": float((test["label"] == test["predicted"]).mean()),
        **metrics.answered(test, known, threshold),
        "rejected": float((unheard < threshold).mean()),
        "auroc": float(
            roc_auc_score(
                np.repeat([1, 0], [heard.size, unheard.size]), np.concatenate([heard, unheard])
            )
        ),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.unknown", description=__doc__)
    parser.add_argument("--left-out", type=int, default=2, help="classes at a time")
    options = parser.parse_args()
    stage.run("unknown", lambda: main(options.left_out))
