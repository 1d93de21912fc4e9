"""Refuse settings that a later stage could not use, before the long work begins.

The stages that call this module do not depend on it: it changes none of their outputs. So they read
settings here that DVC does not count among their parameters.
"""

import pandas as pd

from pipeline.data import split
from pipeline.errors import UserError
from pipeline.params import Network, Params
from pipeline.sound.features import make_spec

SMALLEST: dict[Network, tuple[int, int]] = {"two_stream": (1, 6), "cnn": (1, 2), "fcn": (23, 78)}
"""Smallest numbers of bands and frames that a network can be built for. They stand here because
Keras takes seconds to import."""


def check(settings: Params, clips: pd.DataFrame, clip_seconds: float) -> None:
    """Refuse settings that do not suit each other or the clips.

    Parameters
    ----------
    settings : Params
    clips : DataFrame
        The usable clips, with ``fold``.
    clip_seconds : float
        The dataset's clip length in seconds.

    Raises
    ------
    UserError
        Names the key and what to do.
    """
    check_features(settings, clip_seconds)
    check_test_fold(settings, clips)


def check_features(settings: Params, clip_seconds: float) -> None:
    """Refuse settings of the features that do not work together, or not with the network.

    Parameters
    ----------
    settings : Params
    clip_seconds : float
        The dataset's clip length in seconds, or the longest that it may turn out to have.

    Raises
    ------
    UserError
        Names the key and what to do.
    """
    spec = make_spec(settings.features, clip_seconds)
    network = settings.train.network
    if settings.tune.trials and "network" in settings.tune.space:
        return  # the search may choose another one
    bands, frames = SMALLEST[network]
    if spec.shape[0] < bands or spec.shape[1] < frames:
        raise UserError(
            f"train.network is {network}, which needs at least {bands} bands x {frames} frames, but"
            f" the features have {spec.shape[0]} x {spec.shape[1]}: raise features.seconds or the"
            f" number of bands, or lower features.{spec.kind}.hop_length."
        )


def check_test_fold(settings: Params, clips: pd.DataFrame) -> None:
    """Refuse a test fold that the dataset does not have.

    Parameters
    ----------
    settings : Params
    clips : DataFrame
        With ``fold``.

    Raises
    ------
    UserError
        Names the key and the folds.
    """
    split.folds_with(clips, settings.split.test_fold)
