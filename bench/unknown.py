"""Measure how out-of-distribution sounds are handled: train on some classes, test on the others.

    python -m bench.unknown [--left-out 2]

It uses the dataset in ``data/`` and ``features/``, with ``train``, ``split`` and
``evaluate.coverage``. Each class is left out once, a few classes at a time. Temperature and
threshold come from the validation fold of the known classes, as always; sounds of unknown classes
are used for the measurement only.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from pipeline import params, paths, stage, tables
from pipeline.data import split
from pipeline.data.feature_store import Features
from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import metrics
from pipeline.params import Params
from pipeline.training import calibration, fit, predictions


def main(left_out: int) -> str:
    """Measure and print one row per round.

    Parameters
    ----------
    left_out : int
        Number of classes left out per round.

    Returns
    -------
    str
        The closing line.
    """
    settings = params.load()
    labels = tables.read_json(paths.DATASET)["labels"]
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
        f"{mean['rejected']:.0%} of the clips of unknown classes and {1 - mean['coverage']:.0%} of"
        f" the test clips of known classes are rejected; accuracy {mean['accuracy_answered']:.1%}"
        f" on the clips that are not rejected, {mean['accuracy']:.1%} on all; area under the ROC"
        f" curve {mean['auroc']:.3f}"
    )


def measure(
    featurized: Features, labels: list[str], unknown: list[str], settings: Params
) -> dict[str, float]:
    """Train without some classes and predict their clips.

    Returns
    -------
    dict
        ``accuracy``, ``coverage`` and ``accuracy_answered`` on test clips of known classes;
        ``rejected``, the share of clips of unknown classes below the threshold; ``auroc``, the
        chance that a known clip has a higher confidence than an unknown one.
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
        return predictions.by_clip(of, fit.predict(network, features, data.spec), known)

    codes = data.validation[1].argmax(axis=1)
    before = fit.predict(network, data.validation[0], data.spec)
    calibration.build_in(network, calibration.fit_temperature(before, codes))
    validation = predict(array[folds.validation], index.iloc[folds.validation])
    threshold = calibration.threshold(
        metrics.confidence(validation, known), settings.evaluate.coverage
    )
    test = predict(array[folds.test], index.iloc[folds.test])
    strange = predict(np.asarray(featurized.array[others]), featurized.index.iloc[others])
    of_known, of_unknown = (metrics.confidence(clips, known) for clips in (test, strange))
    return {
        "accuracy": float((test["label"] == test["predicted"]).mean()),
        **metrics.abstention_figures(test, known, threshold),
        "rejected": float((of_unknown < threshold).mean()),
        "auroc": float(
            roc_auc_score(
                np.repeat([1, 0], [of_known.size, of_unknown.size]),
                np.concatenate([of_known, of_unknown]),
            )
        ),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.unknown", description=__doc__)
    parser.add_argument("--left-out", type=int, default=2, help="classes left out per round")
    options = parser.parse_args()
    stage.run("unknown", lambda: main(options.left_out))
