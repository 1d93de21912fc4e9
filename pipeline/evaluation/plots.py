"""The pictures of a run: data in, a figure out, one look and the same class colours everywhere."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import drawing
from pipeline.training.objective import BEST

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def learning_curves(history: pd.DataFrame, best: str) -> "Figure":
    """Loss and accuracy by epoch, with the chosen epoch marked.

    Parameters
    ----------
    history : DataFrame
        As :class:`pipeline.training.fit.Fitted` keeps it.
    best : str
        Column whose minimum chose the epoch.

    Returns
    -------
    Figure
    """
    picture = drawing.figure(9, 3.8)
    chosen = history["epoch"].iloc[int(history[best].to_numpy().argmin())]
    marker = "o" if len(history) < 3 else ""
    panels = picture.subplots(1, 2)
    for axes, column, title in zip(
        panels, ("log_loss", "accuracy"), ("Log loss", "Accuracy"), strict=True
    ):
        axes.plot(history["epoch"], history[column], marker=marker, color=drawing.TRAINING)
        axes.plot(
            history["epoch"],
            history[f"val_{column}"],
            marker=marker,
            ls="--",
            color=drawing.VALIDATION,
        )
        axes.axvline(chosen, color=drawing.SOFT, linestyle=":")
        axes.set(title=title, xlabel="epoch")
        _whole_numbers(axes.xaxis)
    panels[1].yaxis.set_major_formatter("{x:.0%}")
    picture.legend(
        panels[0].lines,
        ["training folds", "validation fold", f"chosen: epoch {chosen:.0f}"],
        loc="outside upper center",
        ncols=3,
    )
    return picture


def confusion(matrix: np.ndarray, labels: list[str], title: str) -> "Figure":
    """Confusion matrix: counts written, shares of the true class coloured.

    Parameters
    ----------
    matrix : (classes, classes) int
        Rows are true, columns predicted.
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
    axes.set(title=title, xlabel="predicted", ylabel="true")
    for row, column in zip(*np.nonzero(matrix), strict=True):
        on_it = "black" if shares[row, column] > 0.55 else "white"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=on_it)
    picture.colorbar(image, label="share of the true class", shrink=0.8, format="{x:.0%}")
    return picture


def per_class(scores: pd.DataFrame) -> "Figure":
    """Precision and recall of every class, the weakest on top.

    Parameters
    ----------
    scores : DataFrame
        In the order of the model's list; columns ``label``, ``precision``, ``recall``, ``f1``
        and ``clips``.

    Returns
    -------
    Figure
    """
    colours = np.array([drawing.colour(place) for place in range(len(scores))])
    order = scores["f1"].to_numpy().argsort(kind="stable")[::-1]
    scores, colours = scores.iloc[order], colours[order]
    picture = drawing.figure(drawing.HALF, 1.6 + 0.34 * len(scores))
    axes = picture.subplots()
    rows = np.arange(len(scores))
    axes.hlines(rows, scores["precision"], scores["recall"], color=drawing.LINE, lw=3, zorder=1)
    axes.scatter(scores["precision"], rows, 70, facecolors="none", edgecolors=colours, linewidths=2)
    axes.scatter(scores["recall"], rows, 42, color=colours, marker="D")
    axes.set_yticks(rows, [f"{drawing.readable(r.label)} ({r.clips})" for r in scores.itertuples()])
    axes.set(xlim=(-0.03, 1.03), xlabel="on the test fold (number of clips in brackets)")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(visible=False, axis="y")
    # keys of their own, for the marks have their classes' colours
    keys = [
        axes.plot([], [], "o", ms=8, mfc="none", mew=2, color=drawing.SOFT, label="precision")[0],
        axes.plot([], [], "D", ms=6, color=drawing.SOFT, label="recall")[0],
    ]
    picture.legend(handles=keys, loc="outside upper center", ncols=2)
    return picture


def reliability(bins: pd.DataFrame, title: str) -> "Figure":
    """How often the model is right when it is so sure: on the diagonal, it knows itself.

    Parameters
    ----------
    bins : DataFrame
        A row for each bin of the highest probability that holds clips: mean ``confidence``,
        ``accuracy`` and number of ``clips``.
    title : str

    Returns
    -------
    Figure
    """
    picture = drawing.figure(drawing.HALF, 5.2)
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], ls=":", color=drawing.SOFT, label="as sure as right")
    upper.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color=drawing.LINE, lw=3)
    upper.plot(
        bins["confidence"], bins["accuracy"], "o-", color=drawing.TRAINING, label="the model"
    )
    upper.set(title=title, ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.03, 1.05))
    upper.yaxis.set_major_formatter("{x:.0%}")
    picture.legend(loc="outside upper center", ncols=2)
    lower.bar(bins["confidence"], bins["clips"], width=0.05, color=drawing.TRAINING)
    lower.set(xlabel="highest probability", ylabel="clips")
    lower.xaxis.set_major_formatter("{x:.0%}")
    _whole_numbers(lower.yaxis)
    lower.grid(visible=False, axis="x")
    return picture


def comparison(
    published: dict[str, float], name: str, ours: tuple[float, float, float]
) -> "Figure":
    """Draw an accuracy with its interval among published ones, the best on top.

    Parameters
    ----------
    published : dict
        Accuracy by who has published it.
    name : str
        Ours.
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
        mine = who == name
        axes.plot(
            value,
            place,
            "D" if mine else "o",
            color=drawing.VALIDATION if mine else drawing.TRAINING,
        )
        if mine:
            axes.hlines(place, low, high, color=drawing.VALIDATION, lw=2)
        axes.annotate(
            f"{value:.1%}", (high if mine else value, place), xytext=(8, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [who for who, _ in rows])
    axes.set(xlabel="accuracy")
    axes.set_xlim(min(0.6, low - 0.05), 1.08)
    axes.set_xticks([tick for tick in np.arange(0, 1.01, 0.1) if tick >= axes.get_xlim()[0]])
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(visible=False, axis="y")
    return picture


def search_history(trials: pd.DataFrame, best: str) -> "Figure":
    """Every trial's validation loss and the best one so far.

    Parameters
    ----------
    trials : DataFrame
        As :func:`pipeline.training.search.table` makes it; may have no rows.
    best : str
        Column that the search brings down.

    Returns
    -------
    Figure
    """
    picture = drawing.figure(drawing.HALF, 3.8)
    axes = picture.subplots()
    axes.set(title="Search", xlabel="trial", ylabel="validation log loss")
    if trials.empty:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no search: tune.trials is 0", ha="center", transform=axes.transAxes)
        return picture
    axes.plot(
        trials["trial"], trials["best_so_far"], color=drawing.VALIDATION, drawstyle="steps-post",
        label="best so far",
    )  # fmt: skip
    for name, marker in (("complete", "o"), ("pruned", "x")):
        rows = trials["state"] == name
        if rows.any():
            axes.scatter(
                trials.loc[rows, "trial"],
                trials.loc[rows, best],
                s=40,
                c=drawing.TRAINING,
                marker=marker,
                label=name,
            )
    failed = trials.loc[trials["state"] == "failed", "trial"]
    if len(failed):
        height = axes.get_xaxis_transform()  # of the picture: they have no loss
        axes.vlines(failed, 0, 1, drawing.TRAINING, "dotted", transform=height, label="failed")
    _whole_numbers(axes.xaxis)
    picture.legend(loc="outside upper center", ncols=4)
    return picture


def pareto(trials: pd.DataFrame, best: str) -> "Figure":
    """Draw what smaller networks cost: every complete trial's loss by its number of parameters.

    Parameters
    ----------
    trials : DataFrame
        As :func:`pipeline.training.search.table` makes it of networks of several sizes.
    best : str
        Column that the search brings down.

    Returns
    -------
    Figure
    """
    from matplotlib.ticker import MaxNLocator

    trials = trials.dropna(subset="parameters").sort_values("parameters")
    front = trials[trials["pareto"].astype(bool)]
    picture = drawing.figure(drawing.HALF, 3.8)
    axes = picture.subplots()
    axes.plot(
        front["parameters"], front[best], color=drawing.VALIDATION, drawstyle="steps-post",
        zorder=1,
        label="Pareto front: none is both smaller and better",
    )  # fmt: skip
    axes.scatter(
        trials["parameters"], trials[best], 40, color=drawing.TRAINING, label="trial", zorder=2
    )
    for row in front.itertuples():
        axes.annotate(
            f"trial {row.trial}", (row.parameters, getattr(row, best)), xytext=(6, 4),
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
    axes.set(title="Size against loss", xlabel="parameters", ylabel="validation log loss")
    axes.set_xlim(0, trials["parameters"].max() * 1.1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    picture.legend(loc="outside upper center", ncols=2)
    return picture


def abstention(trade_off: pd.DataFrame, title: str) -> "Figure":
    """Draw how often answers are right when the least sure ones are withheld.

    Parameters
    ----------
    trade_off : DataFrame
        As :func:`pipeline.training.calibration.trade_off` makes it.
    title : str

    Returns
    -------
    Figure
    """
    picture = drawing.figure(drawing.HALF, 3.8)
    axes = picture.subplots()
    axes.plot(trade_off["coverage"], trade_off["accuracy"], ".-", color=drawing.TRAINING)
    axes.set(
        title=title, xlabel="share of the clips that get an answer",
        ylabel="accuracy of these answers", xlim=(0, 1.02), ylim=(-0.03, 1.05),
    )  # fmt: skip
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    return picture


def _whole_numbers(axis: "Axis") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 5, 10), integer=True))


def search_pictures(found: pd.DataFrame) -> dict[str, "Figure"]:
    """Draw a search: its course, and size against loss where the networks were of several sizes.

    Parameters
    ----------
    found : DataFrame
        As :func:`table` makes it.

    Returns
    -------
    dict
        Figures by name.
    """
    drawn = {"search": search_history(found, BEST)}
    if "pareto" in found:
        drawn["pareto"] = pareto(found, BEST)
    return drawn
