"""Draw a dataset for the notebooks: what the clips look like and how the classes differ."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import drawing, paths
from pipeline.data.feature_store import Features
from pipeline.evaluation.explore import QUIET
from pipeline.params import FeatureKind, FeatureParams
from pipeline.sound import decoding
from pipeline.sound.features import FeatureSpec, extract, make_spec, windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP"
"""Marks of the classes, so that neighbouring labels differ by more than their colour."""


def gallery(chosen: pd.DataFrame, settings: FeatureParams, clip_seconds: float) -> "Figure":
    """Draw each clip as a waveform, STFT, mel spectrogram and MFCCs.

    Parameters
    ----------
    chosen : DataFrame
        Rows of the clips table; each becomes one row of the figure.
    settings : FeatureParams
    clip_seconds : float
        The dataset's nominal clip length.

    Returns
    -------
    Figure
    """
    kinds: tuple[FeatureKind, ...] = ("stft", "logmel", "mfcc")
    specs = [make_spec(settings.model_copy(update={"kind": k}), clip_seconds) for k in kinds]
    titles = ("waveform", "STFT (kHz)", "mel spectrogram (band)", "MFCC (coefficient)")
    picture = drawing.figure(15, 0.8 + 1.35 * len(chosen))
    panels = picture.subplots(len(chosen), 4, squeeze=False, sharex=True)
    named = zip(chosen["path"], chosen["label"], panels, strict=True)
    for row, (path, label, axes) in enumerate(named):
        with decoding.muted():
            whole = decoding.load(paths.AUDIO / path, settings.sample_rate)
        waveform = windows(whole, specs[0])[0]
        seconds = np.arange(waveform.size) / settings.sample_rate
        axes[0].plot(seconds, waveform, lw=0.4, color=drawing.colour(row))
        axes[0].set_ylabel(drawing.readable(label), rotation=0, ha="right", va="center")
        axes[0].set_yticks([])
        for panel, spec in zip(axes[1:], specs, strict=True):
            _spectrogram(panel, extract(waveform, spec), spec)
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title)
    for panel in panels[-1]:
        panel.set_xlabel("seconds")
    return picture


def by_salience(clips: pd.DataFrame, labels: list[str]) -> "Figure":
    """Draw the number of clips per label, split into foreground and background.

    Parameters
    ----------
    clips : DataFrame
        The clips table; ``salience`` is 1, 2, or null if it is unknown.
    labels : list of str

    Returns
    -------
    Figure
    """
    named = clips["salience"].map({1: "foreground", 2: "background"}).fillna("unknown")
    counts = pd.crosstab(clips["label"], named).reindex(labels)
    picture, axes = drawing.bars([drawing.readable(label) for label in labels])
    left = np.zeros(len(labels))
    looks = {"foreground": (1.0, ""), "background": (0.45, "///"), "unknown": (1.0, "")}
    for name in (name for name in looks if name in counts):
        alpha, hatch = looks[name]
        bars = axes.barh(
            range(len(labels)), counts[name], left=left, alpha=alpha, hatch=hatch,
            edgecolor="white", color=[drawing.colour(place) for place in range(len(labels))],
        )  # fmt: skip
        axes.bar_label(
            bars, [f"{n}" if n else "" for n in counts[name]], label_type="center",
            color="white" if alpha == 1 else drawing.INK,
        )  # fmt: skip
        left = left + counts[name].to_numpy()
    hatched = " (hatched: background)" if "background" in counts else ""
    unknown = " (salience unknown)" if "foreground" not in counts else ""
    axes.set(title=f"Clips per class{hatched}{unknown}", xlabel="clips")
    return picture


def levels(measured: pd.DataFrame, labels: list[str]) -> "Figure":
    """Draw the level and the share of silence of each clip, one row per label.

    Parameters
    ----------
    measured : DataFrame
        From :func:`pipeline.evaluation.explore.loudness`.
    labels : list of str

    Returns
    -------
    Figure
    """
    picture = drawing.figure(13, 1.2 + 0.42 * len(labels))
    left, right = picture.subplots(1, 2, sharey=True)
    jitter = np.random.default_rng(0).uniform(-0.28, 0.28, len(measured))
    for place, label in enumerate(labels):
        rows = (measured["label"] == label).to_numpy()
        for axes, column in ((left, "level"), (right, "silence")):
            values = measured.loc[rows, column]
            axes.scatter(values, place + jitter[rows], 12, color=drawing.colour(place), alpha=0.6)
            axes.vlines(values.median(), place - 0.4, place + 0.4, color=drawing.INK, lw=2)
    left.set_yticks(range(len(labels)), [drawing.readable(label) for label in labels])
    left.invert_yaxis()
    left.set(title="Level (line: median)", xlabel="RMS level in dB (0 dB: full scale)")
    right.set(title=f"Silence (frames below {QUIET:g} dB)", xlabel="share of the clip")
    right.xaxis.set_major_formatter("{x:.0%}")
    return picture


def average_spectra(features: Features, labels: list[str]) -> "Figure":
    """Draw the average spectrum of each label, with one standard deviation between clips.

    Parameters
    ----------
    features : Features
        Features of kind 'logmel'.
    labels : list of str

    Returns
    -------
    Figure
    """
    columns = 5
    lines = -(-len(labels) // columns)
    picture = drawing.figure(15, 0.4 + 2.5 * lines)
    panels = picture.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    spectra = np.asarray(features.array).mean(axis=2)
    kilohertz = band_centres(features.spec) / 1000
    for place, (panel, label) in enumerate(zip(panels.flat, labels, strict=False)):
        of_label = spectra[(features.index["label"] == label).to_numpy()]
        mean, spread = of_label.mean(axis=0), of_label.std(axis=0)
        colour = drawing.colour(place)
        panel.fill_between(kilohertz, mean - spread, mean + spread, color=colour, alpha=0.22, lw=0)
        panel.plot(kilohertz, mean, color=colour, lw=2)
        panel.set(title=drawing.readable(label), xscale="log")
        panel.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        panel.minorticks_off()
    for panel in panels.flat[len(labels) :]:
        panel.set_visible(False)
    picture.supxlabel("frequency in kHz")
    picture.supylabel("dB relative to the clip's peak")
    return picture


def sound_map(points: pd.DataFrame, labels: list[str]) -> "Figure":
    """Draw the clips as points, similar ones near each other.

    Parameters
    ----------
    points : DataFrame
        From :func:`pipeline.evaluation.explore.positions`.
    labels : list of str

    Returns
    -------
    Figure
    """
    picture = drawing.figure(10.5, 7.5)
    axes = picture.subplots()
    for place, label in enumerate(labels):
        of_label = points[points["label"] == label]
        axes.scatter(
            of_label["x"], of_label["y"], 34, color=drawing.colour(place), alpha=0.85,
            marker=MARKERS[place % len(MARKERS)], edgecolors="white", linewidths=0.4,
            label=drawing.readable(label),
        )  # fmt: skip
    axes.set(xticks=[], yticks=[], title="Clips by similarity (t-SNE of their features)")
    axes.spines[:].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.4)
    return picture


def band_centres(spec: FeatureSpec) -> np.ndarray:
    """Return the centre frequencies of the mel bands in Hz: array, shape (n_mels,), float64."""
    from librosa import mel_frequencies

    edges = mel_frequencies(n_mels=(spec.n_mels or 0) + 2, fmin=spec.fmin, fmax=spec.fmax)
    return np.asarray(edges[1:-1])


def _spectrogram(axes: "Axes", values: np.ndarray, spec: FeatureSpec) -> None:
    if spec.kind == "mfcc":  # standardise each, or the first, the level, would hide the others
        values = values - values.mean(axis=1, keepdims=True)
        values = values / np.maximum(values.std(axis=1, keepdims=True), 1e-6)
    top = len(values) if spec.kind != "stft" else spec.sample_rate / 2000
    axes.imshow(
        values, origin="lower", aspect="auto", cmap="viridis", interpolation="nearest",
        extent=(0, spec.seconds, 0, top),
    )  # fmt: skip
    axes.grid(visible=False)
