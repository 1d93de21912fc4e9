"""Show and play augmented versions of a clip in a notebook.

After `dvc repro`, in the repository's root folder:

>>> from pipeline import params
>>> from pipeline.data import feature_store
>>> from pipeline.sound import audition
>>> clips = feature_store.read()
>>> augment = params.load().train.augment
>>> audition.show(clips.array, clips.index["label"], 0, clips.spec, augment)
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.params import AugmentParams
from pipeline.sound import augment
from pipeline.sound.features import FeatureSpec

Floats = NDArray[np.float32]

ITERATIONS = 32
"""Iterations of Griffin and Lim's algorithm; more make no audible difference."""


def show(
    clips: Floats,
    labels: Sequence[str],
    row: int,
    spec: FeatureSpec,
    params: AugmentParams | None,
    seed: int = 1,
    count: int = 3,
) -> None:
    """Display a clip and some augmented versions of it, each with a player.

    Parameters
    ----------
    clips : array, shape (clips, bands, frames), float32
        Features, not normalised. Other clips among them may be mixed in.
    labels : sequence of str
        Label of each clip.
    row : int
        Which clip to show.
    spec : FeatureSpec
        What the features were extracted with.
    params : AugmentParams, or None
        Section ``train.augment`` of ``params.yaml``. If it is null, only the unchanged clip is
        shown.
    seed : int
        Another seed gives other versions.
    count : int
        Number of versions.
    """
    from IPython.display import Audio, display

    versions = variants(clips, labels, row, spec, params, seed, count)
    display(draw(versions, spec))  # type: ignore[no-untyped-call]
    if spec.kind == "mfcc":
        return
    for title, features in versions:
        print(title)
        display(Audio(sound(features, spec), rate=spec.sample_rate))  # type: ignore[no-untyped-call]


def variants(
    clips: Floats,
    labels: Sequence[str],
    row: int,
    spec: FeatureSpec,
    params: AugmentParams | None,
    seed: int = 1,
    count: int = 3,
) -> list[tuple[str, Floats]]:
    """Make the versions that :func:`show` displays; the parameters are the same.

    Returns
    -------
    list of (str, array, shape (bands, frames), float32)
        First the unchanged clip, then the augmented versions. Titles give labels and their shares.
    """
    if params is None:
        return [(f"{np.asarray(labels)[row]}, unchanged: no augmentation", clips[row])]
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    rows = np.full(count, row)
    features, targets = augment.examples(
        clips, np.eye(len(names), dtype=np.float32)[codes], rows, spec, params,
        np.random.default_rng(seed),
    )  # fmt: skip
    titles = [
        " + ".join(f"{target[i]:.0%} {names[i]}" for i in np.argsort(-target) if target[i] > 0)
        for target in targets
    ]
    return [(f"{names[codes[row]]}, unchanged", clips[row]), *zip(titles, features, strict=True)]


def draw(versions: list[tuple[str, Floats]], spec: FeatureSpec) -> Figure:
    """Draw features side by side on the same scale.

    Parameters
    ----------
    versions : list of (str, array, shape (bands, frames), float32)
        Titles and features of at least one clip.
    spec : FeatureSpec

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(3.2 * len(versions), 2.8), layout="constrained")
    axes = figure.subplots(1, len(versions), sharey=True, squeeze=False)[0]
    low, high = (f([x for _, x in versions]) for f in (np.min, np.max))
    for axis, (title, features) in zip(axes, versions, strict=True):
        picture = axis.imshow(
            features, origin="lower", aspect="auto", vmin=low, vmax=high, cmap="magma",
            extent=(0, spec.seconds, 0, len(features)),
        )  # fmt: skip
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("seconds")
    axes[0].set_ylabel("coefficient" if spec.kind == "mfcc" else "band")
    figure.colorbar(picture, ax=axes, label="" if spec.kind == "mfcc" else "dB")
    return figure


def sound(features: Floats, spec: FeatureSpec) -> Floats:
    """Turn decibels back into a waveform; Griffin and Lim's algorithm estimates the phases.

    Parameters
    ----------
    features : array, shape (bands, frames), float32
        Features of kind 'logmel' or 'stft'.
    spec : FeatureSpec

    Returns
    -------
    array, shape (samples,), float32
        As long as a window.
    """
    import librosa

    power = 10.0 ** (features / 10)
    if spec.filterbank is not None:
        power = np.maximum(np.linalg.pinv(spec.filterbank) @ power, 0)
    waveform: Floats = librosa.griffinlim(
        np.sqrt(power), n_iter=ITERATIONS, hop_length=spec.hop_length, n_fft=spec.n_fft,
        length=spec.samples, random_state=0,
    )  # fmt: skip
    return waveform
