"""Draw a model's training and its results: data in, a matplotlib figure out."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import drawing
from pipeline.training.objective import BEST

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(history: pd.DataFrame) -> "Figure":
    """Draw loss and accuracy per epoch and mark the chosen epoch.

    Parameters
    ----------
    history : DataFrame
        The ``history`` of :class:`pipeline.training.fit.Fitted`.

    Returns
    -------
    Figure
    """
    picture = drawing.figure(9, 3.8)
    chosen = history["epoch"].iloc[int(history[BEST].to_numpy().argmin())]
    marker = "o" if len(history) < 3 else ""
    panels = picture.subplots(1, 2)
    for axes, column, title in zip(
        panels, ("log_loss", "accuracy"), ("Log loss", "Accuracy"), strict=True
    ):
        for name, style, colour in (
            (column, "-", drawing.TRAINING),
            (f"val_{column}", "--", drawing.VALIDATION),
        ):
            axes.plot(history["epoch"], history[name], marker=marker, ls=style, color=colour)
        axes.axvline(chosen, color=drawing.SOFT, linestyle=":")
        axes.set(title=title, xlabel="epoch")
        drawing.whole_numbers(axes.xaxis)
    panels[1].yaxis.set_major_formatter("{x:.0%}")
    picture.legend(
        panels[0].lines,
        ["training folds", "validation fold", f"chosen epoch: {chosen:.0f}"],
        loc="outside upper center",
        ncols=3,
    )
    return picture


def confusion(matrix: np.ndarray, labels: list[str], title: str) -> "Figure":
    """Draw a confusion matrix: the numbers are clips, the colours shares of the true class.

    Parameters
    ----------
    matrix : array, shape (classes, classes), int
        Rows are true classes, columns are predicted ones.
    labels : list of str
    title : str

    Returns
    -------
    Figure
    """
    side = 3.2 + 0.42 * len(labels)
    picture = drawing.figure(side + 0.8, side)
    axes = picture.subplots()
    axes.grid(visible=False)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    names = [drawing.readable(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), names)
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    for row, column in zip(*np.nonzero(matrix), strict=True):
        on_it = "black" if shares[row, column] > 0.55 else "white"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=on_it)
    picture.colorbar(image, label="share of the true class", shrink=0.8, format="{x:.0%}")
    return picture


def per_class(scores: pd.DataFrame) -> "Figure":
    """Draw precision and recall of each class, the class with the lowest F1 at the top.

    Parameters
    ----------
    scores : DataFrame
        From :func:`pipeline.evaluation.metrics.per_class`. A label without clips has no marks.

    Returns
    -------
    Figure
    """
    colours = np.array([drawing.colour(place) for place in range(len(scores))])
    order = scores["f1"].to_numpy().argsort(kind="stable")[::-1]
    scores, colours = scores.iloc[order], colours[order]
    picture = drawing.figure(drawing.HALF_WIDTH, 1.6 + 0.34 * len(scores))
    axes = picture.subplots()
    rows = np.arange(len(scores))
    precision = scores["precision"].where(scores["clips"] > 0)
    recall = scores["recall"].where(scores["clips"] > 0)
    axes.hlines(rows, precision, recall, color=drawing.LINE, lw=3, zorder=1)
    axes.scatter(precision, rows, 70, facecolors="none", edgecolors=colours, linewidths=2)
    axes.scatter(recall, rows, 42, color=colours, marker="D")
    axes.set_yticks(rows, [drawing.readable(label) for label in scores["label"]])
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(rows, [f"{r.recordings} / {r.clips}" for r in scores.itertuples()])
    counts.tick_params(length=0)
    counts.spines["right"].set_visible(False)
    counts.set_ylabel("recordings / clips", color=drawing.SOFT)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(scores) - 0.4), xlabel="precision and recall")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(visible=False, axis="y")
    # grey keys, because each mark has the colour of its class
    keys = [
        axes.plot([], [], "o", ms=8, mfc="none", mew=2, color=drawing.SOFT, label="precision")[0],
        axes.plot([], [], "D", ms=6, color=drawing.SOFT, label="recall")[0],
    ]
    picture.legend(handles=keys, loc="outside upper center", ncols=2)
    return picture


def reliability(bins: pd.DataFrame, title: str) -> "Figure":
    """Draw a reliability diagram: accuracy against confidence, and the clips per bin.

    Parameters
    ----------
    bins : DataFrame
        From :func:`pipeline.evaluation.metrics.reliability`.
    title : str

    Returns
    -------
    Figure
    """
    picture = drawing.figure(drawing.HALF_WIDTH, 5.2)
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], ls=":", color=drawing.SOFT, label="perfectly calibrated")
    upper.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color=drawing.LINE, lw=3)
    upper.plot(
        bins["confidence"], bins["accuracy"], "o-", color=drawing.TRAINING, label="this model"
    )
    upper.set(title=title, ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.03, 1.05))
    upper.yaxis.set_major_formatter("{x:.0%}")
    picture.legend(loc="outside upper center", ncols=2)
    lower.bar(bins["confidence"], bins["clips"], width=0.05, color=drawing.TRAINING)
    lower.set(xlabel="confidence (highest class probability)", ylabel="clips")
    lower.xaxis.set_major_formatter("{x:.0%}")
    drawing.whole_numbers(lower.yaxis)
    lower.grid(visible=False, axis="x")
    return picture


def abstention(trade_off: pd.DataFrame, title: str) -> "Figure":
    """Draw accuracy against coverage: the model abstains where its confidence is lowest.

    Parameters
    ----------
    trade_off : DataFrame
        From :func:`pipeline.training.calibration.trade_off`.
    title : str

    Returns
    -------
    Figure
    """
    picture = drawing.figure(drawing.HALF_WIDTH, 3.8)
    axes = picture.subplots()
    axes.plot(trade_off["coverage"], trade_off["accuracy"], ".-", color=drawing.TRAINING)
    axes.set(
        title=title, xlabel="coverage (share of clips that are classified)",
        ylabel="accuracy on these clips", xlim=(0, 1.02), ylim=(-0.03, 1.05),
    )  # fmt: skip
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    return picture


def comparison(
    published: dict[str, float], name: str, ours: tuple[float, float, float]
) -> "Figure":
    """Draw our accuracy with its interval among published ones, the best at the top.

    Parameters
    ----------
    published : dict
        Accuracy by method.
    name : str
        Name of our accuracy in the plot.
    ours : (low, accuracy, high)

    Returns
    -------
    Figure
    """
    low, accuracy, high = ours
    rows = sorted({**published, name: accuracy}.items(), key=lambda row: row[1])
    picture = drawing.figure(7, 1.0 + 0.34 * len(rows))
    axes = picture.subplots()
    for place, (who, value) in enumerate(rows):
        is_ours = who == name
        colour = drawing.VALIDATION if is_ours else drawing.TRAINING
        axes.plot(value, place, "D" if is_ours else "o", color=colour)
        if is_ours:
            axes.hlines(place, low, high, color=colour, lw=2)
        axes.annotate(
            f"{value:.1%}", (high if is_ours else value, place), xytext=(8, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [who for who, _ in rows])
    axes.set(xlabel="accuracy")
    axes.set_xlim(min(0.6, low - 0.05), 1.08)
    axes.set_xticks([tick for tick in np.arange(0, 1.01, 0.1) if tick >= axes.get_xlim()[0]])
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(visible=False, axis="y")
    return picture


def accuracies(scores: "pd.Series[float]", title: str) -> "Figure":
    """Draw accuracies as bars, the best at the top.

    Parameters
    ----------
    scores : Series
        Accuracy between 0 and 1, by name.
    title : str

    Returns
    -------
    Figure
    """
    ordered = scores.sort_values(ascending=False)
    picture, axes = drawing.bars([str(name) for name in ordered.index])
    drawn = axes.barh(range(len(ordered)), ordered, color=drawing.TRAINING)
    axes.bar_label(drawn, [f"{score:.1%}" for score in ordered], padding=4)
    axes.set(title=title, xlim=(0, 1.1), xlabel="accuracy")
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.xaxis.set_major_formatter("{x:.0%}")
    return picture
