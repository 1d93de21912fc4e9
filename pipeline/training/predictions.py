"""What a network says of clips, as a table with one row per clip."""

import numpy as np
import pandas as pd


def by_clip(index: pd.DataFrame, probabilities: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Average the windows of every clip and name the most probable label.

    Parameters
    ----------
    index : DataFrame
        A row a window: ``path``, ``label``, ``fold``, ``recording``.
    probabilities : (rows, classes)
    labels : list of str

    Returns
    -------
    DataFrame
        A row a clip: ``path``, ``label``, ``fold``, ``recording``, ``predicted``, and the
        probability of every label in a column ``p_<label>``.
    """
    columns = [f"p_{label}" for label in labels]
    windows = pd.DataFrame(probabilities, columns=columns, index=index.index)
    keys = ["path", "label", "fold", "recording"]
    clips = pd.concat([index[keys], windows], axis=1).groupby(keys, sort=True).mean().reset_index()
    most_probable = clips[columns].to_numpy().argmax(axis=1)
    clips.insert(len(keys), "predicted", [labels[i] for i in most_probable])
    return clips
