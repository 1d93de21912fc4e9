"""Draw what a dataset contains and how evenly it is spread over labels and folds."""

from typing import TYPE_CHECKING

import pandas as pd

from pipeline import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def overview(clips: pd.DataFrame, title: str) -> "Figure":
    """Draw the clips by label and fold, their durations, salience and audio formats.

    Parameters
    ----------
    clips : DataFrame
        The clips table: ``label``, ``fold``, ``salience`` (null where unknown),
        ``seconds``, ``sample_rate`` in Hz, ``channels`` and ``subtype``.
    title : str
        Title of the picture.

    Returns
    -------
    Figure
    """
    counts = pd.crosstab(clips["label"], clips["fold"])
    hertz = clips["sample_rate"].value_counts().sort_index()
    formats = {
        "sample rate": hertz.rename(lambda rate: f"{rate / 1000:g} kHz"),
        "channels": clips["channels"].value_counts().sort_index(),
        "encoding": clips["subtype"].value_counts().sort_index(),
    }
    if clips["salience"].notna().any():
        named = clips["salience"].map({1: "foreground", 2: "background"}).fillna("unknown")
        formats["salience"] = named.value_counts()
    formats = {name: _common(values) for name, values in formats.items()}
    # Inches: 0.22 per bar and 0.7 more per chart; the histogram takes what is left.
    charts = [0.7 + 0.22 * len(values) for values in formats.values()]
    height = max(1.6 + 0.24 * len(counts), 0.5 + 2.2 + sum(charts))
    figure = drawing.figure(11, height)
    figure.suptitle(f"{title}: {len(clips)} clips")
    ratios = [height - 0.5 - sum(charts), *charts]
    grid = figure.add_gridspec(len(ratios), 2, width_ratios=(3, 2), height_ratios=ratios)
    _heat_map(figure.add_subplot(grid[:, 0]), counts)
    durations = figure.add_subplot(grid[0, 1])
    durations.hist(clips["seconds"], bins=40, color=drawing.TRAINING)
    durations.set(title="duration", xlabel="seconds", ylabel="clips")
    durations.set_xlim(left=0)
    for row, (name, values) in enumerate(formats.items(), start=1):
        _bars(figure.add_subplot(grid[row, 1]), values, name)
    return figure


def _common(counts: "pd.Series[int]", most: int = 10) -> "pd.Series[int]":
    """Count the rarest values together when there are more than `most`."""
    if len(counts) <= most:
        return counts
    common = counts.index.isin(counts.nlargest(most - 1).index)
    return pd.concat([counts[common], pd.Series({"others": counts[~common].sum()})])


def _heat_map(axes: "Axes", counts: pd.DataFrame) -> None:
    labels = [f"{drawing.readable(name)} ({row.sum()})" for name, row in counts.iterrows()]
    axes.grid(visible=False)
    axes.imshow(counts, cmap="cividis", aspect="auto", vmin=0)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(counts.shape[1]), [str(fold) for fold in counts.columns])
    axes.tick_params(length=0)
    axes.set(title="clips by label (number) and fold", xlabel="fold")
    middle = counts.to_numpy().max() / 2
    for row, column in ((r, c) for r in range(counts.shape[0]) for c in range(counts.shape[1])):
        count = counts.iat[row, column]  # noqa: PD009
        ink = "black" if count > middle else "white"
        axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=9)


def _bars(axes: "Axes", counts: "pd.Series[int]", title: str) -> None:
    bars = axes.barh([str(value) for value in counts.index], counts, color=drawing.TRAINING)
    axes.bar_label(bars, padding=3, fontsize=9)
    axes.grid(visible=False)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=9)
    axes.set(title=title)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
