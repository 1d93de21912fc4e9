"""What the notebooks measure and draw beyond what the stages leave: one look at the sounds.

Features, splits and networks are the pipeline's own; here they are only looked at.
"""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import cpus, drawing, paths
from pipeline.data.feature_store import Features, extract_files
from pipeline.evaluation import report
from pipeline.params import FeatureKind, FeatureParams
from pipeline.sound import decoding
from pipeline.sound.features import FeatureSpec, extract, make_spec, windows
from pipeline.training import search

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial

LOUDNESS_RATE = 22_050
"""Hz that clips are resampled to before their level is measured."""

FRAME = 1024
"""Samples of which a level is taken: 46 ms."""

QUIET = -60.0
"""dB below full scale; a frame below it counts as silent."""

MARKERS = "osD^vP"
"""Besides the colours, so that neighbours in the list of labels differ twice."""


# ---- measurements


def one_of_each(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Choose a random clip of every label, the same ones for the same seed."""
    return clips.groupby("label", sort=True).sample(1, random_state=seed).reset_index(drop=True)


def loudness(clips: pd.DataFrame) -> pd.DataFrame:
    """Measure how loud the clips are and how much of them is silence.

    Parameters
    ----------
    clips : DataFrame
        The clips table.

    Returns
    -------
    DataFrame
        A row a clip: ``path``, ``label``; ``peak`` and ``level`` (root mean square), both in dB
        below full scale; ``silence``, the share of frames below :data:`QUIET`.
    """

    def one(path: str) -> tuple[float, float, float]:
        waveform = decoding.load(paths.AUDIO / path, LOUDNESS_RATE)
        whole = max(1, waveform.size // FRAME) * FRAME
        frames = np.resize(waveform, whole).reshape(-1, FRAME)
        levels = _decibels(np.sqrt(np.square(frames).mean(axis=1)))
        level = _decibels(np.sqrt(np.square(waveform).mean(keepdims=True)))
        return (
            float(_decibels(np.abs(waveform).max(keepdims=True))[0]),
            float(level[0]),
            float((levels < QUIET).mean()),
        )

    with ThreadPoolExecutor(cpus.available()) as pool:
        found = list(pool.map(one, clips["path"]))
    return clips[["path", "label"]].assign(
        **dict(zip(("peak", "level", "silence"), zip(*found, strict=True), strict=True))
    )


def extracted(
    clips: pd.DataFrame, settings: FeatureParams, clip_seconds: float, kind: FeatureKind
) -> Features:
    """Extract features of another kind than the stage did, in memory.

    Parameters
    ----------
    clips : DataFrame
        The clips table.
    settings : FeatureParams
        But for its ``kind``.
    clip_seconds : float
        The dataset's nominal clip length.
    kind : {'logmel', 'mfcc', 'stft'}

    Returns
    -------
    Features
        As :func:`pipeline.data.feature_store.read` gives them.
    """
    spec = make_spec(settings.model_copy(update={"kind": kind}), clip_seconds)
    of_clips = list(extract_files([paths.AUDIO / path for path in clips["path"]], spec))
    counts = [len(windows) for windows in of_clips]
    index = clips.loc[clips.index.repeat(counts), ["path", "label", "fold", "recording"]]
    return Features(np.concatenate(of_clips), index.reset_index(drop=True), spec)


def positions(features: Features, seed: int) -> pd.DataFrame:
    """Lay windows out in two dimensions so that alike ones are near each other (t-SNE).

    Each window is described by the mean and the deviation of its bands over time.

    Parameters
    ----------
    features : Features
    seed : int

    Returns
    -------
    DataFrame
        The index of `features` with ``x`` and ``y``, whose size and direction mean nothing
        (van der Maaten and Hinton 2008).
    """
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    array = np.asarray(features.array)
    described = np.concatenate([array.mean(axis=2), array.std(axis=2)], axis=1)
    perplexity = min(30.0, (len(array) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    x, y = layout.fit_transform(StandardScaler().fit_transform(described)).T
    return features.index.assign(x=x, y=y)


# ---- pictures


def gallery(chosen: pd.DataFrame, settings: FeatureParams, clip_seconds: float) -> "Figure":
    """Draw clips as the features see them: waveform, STFT, mel spectrogram and MFCCs.

    Parameters
    ----------
    chosen : DataFrame
        Some rows of the clips table, one below the other.
    settings : FeatureParams
    clip_seconds : float
        The dataset's nominal clip length.

    Returns
    -------
    Figure
    """
    kinds: tuple[FeatureKind, ...] = ("stft", "logmel", "mfcc")
    specs = [make_spec(settings.model_copy(update={"kind": k}), clip_seconds) for k in kinds]
    titles = ("waveform", "STFT, kHz", "mel spectrogram, band", "MFCC, coefficient")
    picture = drawing.figure(15, 0.8 + 1.35 * len(chosen))
    panels = picture.subplots(len(chosen), 4, squeeze=False, sharex=True)
    named = zip(chosen["path"], chosen["label"], panels, strict=True)
    for row, (path, label, axes) in enumerate(named):
        waveform = windows(decoding.load(paths.AUDIO / path, settings.sample_rate), specs[0])[0]
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
    """Draw how many clips of every label are in the foreground and in the background.

    Parameters
    ----------
    clips : DataFrame
        The clips table; ``salience`` is 1, 2, or null where it is not known.
    labels : list of str

    Returns
    -------
    Figure
    """
    named = clips["salience"].map({1: "foreground", 2: "background"}).fillna("not known")
    counts = pd.crosstab(clips["label"], named).reindex(labels)
    picture, axes = _rows([drawing.readable(label) for label in labels])
    left = np.zeros(len(labels))
    looks = {"foreground": (1.0, ""), "background": (0.45, "///"), "not known": (1.0, "")}
    for name in (name for name in looks if name in counts):
        alpha, hatch = looks[name]
        bars = axes.barh(
            range(len(labels)), counts[name], left=left, alpha=alpha, hatch=hatch,
            edgecolor="white", color=[drawing.colour(place) for place in range(len(labels))],
        )  # fmt: skip
        axes.bar_label(
            bars, [f"{n}" if n else "" for n in counts[name]], label_type="center",
            color="white" if alpha == 1 else drawing.INK, fontweight="bold",
        )  # fmt: skip
        left = left + counts[name].to_numpy()
    hatched = ", hatched: background" if "background" in counts else ""
    unknown = "; salience is not known" if "foreground" not in counts else ""
    axes.set(title=f"clips by class{hatched}{unknown}", xlabel="clips")
    return picture


def levels(measured: pd.DataFrame, labels: list[str]) -> "Figure":
    """Draw level and silence of every clip, label by label.

    Parameters
    ----------
    measured : DataFrame
        As :func:`loudness` gives it.
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
    left.set(title="level (line: median)", xlabel="dB, root mean square; 0 is full scale")
    right.set(title=f"silence: frames below {QUIET:g} dB", xlabel="share of the clip")
    right.xaxis.set_major_formatter("{x:.0%}")
    return picture


def average_spectra(features: Features, labels: list[str]) -> "Figure":
    """Draw what is loud in every label: the mean of its log-mel bands and how far clips stray.

    Parameters
    ----------
    features : Features
        Of kind 'logmel'.
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
    picture.supxlabel("kHz")
    picture.supylabel("dB; 0 is the clip's peak")
    return picture


def sound_map(points: pd.DataFrame, labels: list[str]) -> "Figure":
    """Draw the clips as points, alike ones near each other.

    Parameters
    ----------
    points : DataFrame
        As :func:`positions` gives it.
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
    axes.set(xticks=[], yticks=[], title="clips by their features (t-SNE)")
    axes.spines[:].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.4)
    return picture


def bars(scores: "pd.Series[float]", title: str) -> "Figure":
    """Draw accuracies one below the other, the best on top.

    Parameters
    ----------
    scores : Series
        Between 0 and 1, by name.
    title : str

    Returns
    -------
    Figure
    """
    ordered = scores.sort_values()
    picture, axes = _rows([str(name) for name in ordered.index], up=True)
    drawn = axes.barh(range(len(ordered)), ordered, color=drawing.TRAINING)
    axes.bar_label(drawn, [f"{score:.1%}" for score in ordered], padding=4)
    axes.set(title=title, xlim=(0, 1.1), xlabel="accuracy")
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.xaxis.set_major_formatter("{x:.0%}")
    return picture


def search_pictures(study: "Study") -> dict[str, "Figure"]:
    """Let Optuna draw a search: its course, its trials as lines, and which parameters mattered.

    Parameters
    ----------
    study : optuna.Study

    Returns
    -------
    dict
        Figures by name; none where there are fewer than two complete trials, or where all are
        equally good, for then nothing can have mattered.
    """
    import matplotlib as mpl
    from matplotlib import pyplot
    from matplotlib.collections import LineCollection
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as drawings

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({search.outcome(trial)[0] for trial in complete}) < 2:
        return {}
    drawn = {}

    def loss(trial: "FrozenTrial") -> float:
        return search.outcome(trial)[0]

    # Optuna wants to be told which, where the number of parameters counts as well
    target = loss if len(study.directions) > 1 else None
    with mpl.rc_context(), warnings.catch_warnings():  # Optuna sets a style for good
        # that this is experimental, that low is good, that all trials had one value of a parameter
        warnings.simplefilter("ignore")
        for name, draw, height in (
            ("optimization_history", drawings.plot_optimization_history, 4.0),
            ("parallel_coordinate", drawings.plot_parallel_coordinate, 4.5),
            ("importances", drawings.plot_param_importances, 3.0),
        ):
            axes = draw(study, target=target, target_name="validation log loss")
            picture: Figure = axes.get_figure(root=True)  # type: ignore[assignment]
            picture.set_size_inches(11, height)
            picture.set_layout_engine("tight")  # or a saved one lacks its lowest words
            if name == "importances" and (legend := picture.axes[0].get_legend()):
                legend.remove()  # of one colour, in front of the bars
            for panel in picture.axes:
                panel.set_facecolor("white")
                for lines in panel.collections:
                    if isinstance(lines, LineCollection):  # in Optuna's blue the worst is white
                        lines.set_cmap("copper")
            pyplot.close(picture)
            drawn[name] = picture
    return drawn


def players(clips: Iterable[tuple[str, str]]) -> str:
    """Make players for clips, with their sound inside.

    Parameters
    ----------
    clips : iterable of (path, caption)
        Paths as in the clips table.

    Returns
    -------
    str
        HTML, to be shown with ``IPython.display.HTML``.
    """
    style = "display:inline-block;width:270px;margin:0 12px 12px 0;vertical-align:top"
    figures = []
    for path, caption in clips:
        waveform = decoding.load(
            paths.AUDIO / path, report.PLAYED_RATE, max_seconds=report.PLAYED_SECONDS
        )
        figures.append(
            f'<figure style="{style}"><figcaption>{escape(caption.replace("_", " "))}<br>'
            f'<small>{escape(path)}</small></figcaption><audio controls preload="metadata"'
            f' style="width:100%" src="{report.player(waveform)}"></audio></figure>'
        )
    return "".join(figures)


def band_centres(spec: FeatureSpec) -> np.ndarray:
    """Frequency in the middle of every mel band: (n_mels,), in Hz."""
    from librosa import mel_frequencies

    edges = mel_frequencies(n_mels=(spec.n_mels or 0) + 2, fmin=spec.fmin, fmax=spec.fmax)
    return np.asarray(edges[1:-1])


def _decibels(amplitude: np.ndarray) -> np.ndarray:
    return np.asarray(20 * np.log10(np.maximum(amplitude, 1e-6)))


def _spectrogram(axes: "Axes", values: np.ndarray, spec: FeatureSpec) -> None:
    if spec.kind == "mfcc":  # each on its own scale, or the first one, the level, hides the others
        values = values - values.mean(axis=1, keepdims=True)
        values = values / np.maximum(values.std(axis=1, keepdims=True), 1e-6)
    top = len(values) if spec.kind != "stft" else spec.sample_rate / 2000
    axes.imshow(
        values, origin="lower", aspect="auto", cmap="viridis", interpolation="nearest",
        extent=(0, spec.seconds, 0, top),
    )  # fmt: skip
    axes.grid(visible=False)


def _rows(names: list[str], *, up: bool = False) -> tuple["Figure", "Axes"]:
    """Make a figure with a named row for each bar, from the top down or from the bottom up."""
    picture = drawing.figure(9, 1.2 + 0.36 * len(names))
    axes = picture.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    if not up:
        axes.invert_yaxis()
    return picture, axes
