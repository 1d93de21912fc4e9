"""Tabulate a network's predictions, with one row per clip."""

import numpy as np
import pandas as pd


def by_clip(index: pd.DataFrame, probabilities: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Average the windows of every clip and name its most probable label.

    Parameters
    ----------
    index : DataFrame
        One row per window: ``path``, ``label``, ``fold``, ``recording``.
    probabilities : array, shape (windows, classes), float32
    labels : list of str
        In the order of the network's outputs.

    Returns
    -------
    DataFrame
        One row per clip: ``path``, ``label``, ``fold``, ``recording``, ``predicted``, and the
        probability of each label in a column ``p_<label>``.
    """
    columns = [f"p_{label}" for label in labels]
    windows = pd.DataFrame(probabilities, columns=columns, index=index.index)
    keys = ["path", "label", "fold", "recording"]
    clips = pd.concat([index[keys], windows], axis=1).groupby(keys, sort=True).mean().reset_index()
    most_probable = clips[columns].to_numpy().argmax(axis=1)
    clips.insert(len(keys), "predicted", [labels[i] for i in most_probable])
    return clips
