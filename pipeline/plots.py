"""The pictures of a run: data in, a figure out, one look and the same class colours everywhere."""

import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

CLASSES = (
    "#2877bb", "#bd8b0b", "#8a1b5c", "#2da399", "#d86265",
    "#3b2eb1", "#607e01", "#bd4ddf", "#256c33", "#ba4293",
)  # fmt: skip
"""Of a label, by its place in the model's list; those of the page, which colour-blind people tell
apart. With more than ten labels they come again, so nothing is told by colour alone."""

TRAINING, VALIDATION = "#0072b2", "#d55e00"
"""Of Okabe and Ito's palette, for the two sides of a split and other pairs."""

INK, SOFT, LINE = "#17211f", "#55625f", "#d7dedb"
"""Text, what stands back behind it, and the grid."""

HALF = 6.4
"""Inches; of pictures that stand side by side, for then their letters are of one size."""

LONGEST = 24
"""Characters of a label that are shown."""

CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
"""Fonts that know the letters which matplotlib's own lacks."""


def figure(width: float, height: float) -> "Figure":
    """Make an empty figure that needs no screen; sizes in inches."""
    from matplotlib.figure import Figure

    _look()
    return Figure(figsize=(width, height), layout="constrained")


def save(picture: "Figure", path: Path) -> None:
    """Write as PNG, without the date, so that the same picture has the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=120, metadata={"Software": None})


def svg(picture: "Figure") -> str:
    """Draw as an SVG element for a page, whose text stays text, in the page's own colours.

    Parameters
    ----------
    picture : Figure

    Returns
    -------
    str
        ``<svg>`` with a view box, no larger than the figure. The colours of this module are the
        custom properties ``--ink``, ``--soft``, ``--line``, ``--training``, ``--validation`` and
        ``--class-0`` to ``--class-9``, so that the page can be light or dark.
    """
    import matplotlib as mpl

    drawn = io.StringIO()
    # a fixed salt, or the ids would be others every time
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pipeline"}):
        picture.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    element = drawn.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' height="[\d.]+pt"', "", element, count=1)
    element = re.sub(r' width="([\d.]+pt)"', r' style="max-width: \1"', element, count=1)
    properties = {
        INK: "ink",
        SOFT: "soft",
        LINE: "line",
        TRAINING: "training",
        VALIDATION: "validation",
        **{colour: f"class-{i}" for i, colour in enumerate(CLASSES)},
    }
    for colour, name in properties.items():
        element = element.replace(colour, f"var(--{name})")
    return element


def colour(place: int) -> str:
    """Colour of the label that is at `place` in the model's list."""
    return CLASSES[place % len(CLASSES)]


def readable(label: object) -> str:
    """Write a label as people read it: spaces for underscores, not too long, never a formula.

    Examples
    --------
    >>> readable("air_conditioner")
    'air conditioner'
    """
    text = str(label).replace("_", " ")
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}…"
    return text.replace("$", r"\$")


def learning_curves(history: pd.DataFrame, best: str) -> "Figure":
    """Loss and accuracy by epoch, with the chosen epoch marked.

    Parameters
    ----------
    history : DataFrame
        As :class:`pipeline.fit.Fitted` keeps it.
    best : str
        Column whose minimum chose the epoch.

    Returns
    -------
    Figure
    """
    picture = figure(9, 3.8)
    chosen = history["epoch"].iloc[int(history[best].to_numpy().argmin())]
    marker = "o" if len(history) < 3 else ""
    panels = picture.subplots(1, 2)
    for axes, column, title in zip(
        panels, ("log_loss", "accuracy"), ("Log loss", "Accuracy"), strict=True
    ):
        axes.plot(history["epoch"], history[column], marker=marker, color=TRAINING)
        axes.plot(
            history["epoch"], history[f"val_{column}"], marker=marker, ls="--", color=VALIDATION
        )
        axes.axvline(chosen, color=SOFT, linestyle=":")
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
    picture = figure(side + 0.8, side)
    axes = picture.subplots()
    axes.grid(visible=False)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    names = [readable(label) for label in labels]
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
    colours = np.array([colour(place) for place in range(len(scores))])
    order = scores["f1"].to_numpy().argsort(kind="stable")[::-1]
    scores, colours = scores.iloc[order], colours[order]
    picture = figure(HALF, 1.6 + 0.34 * len(scores))
    axes = picture.subplots()
    rows = np.arange(len(scores))
    axes.hlines(rows, scores["precision"], scores["recall"], color=LINE, lw=3, zorder=1)
    axes.scatter(scores["precision"], rows, 70, facecolors="none", edgecolors=colours, linewidths=2)
    axes.scatter(scores["recall"], rows, 42, color=colours, marker="D")
    axes.set_yticks(rows, [f"{readable(r.label)} ({r.clips})" for r in scores.itertuples()])
    axes.set(xlim=(-0.03, 1.03), xlabel="on the test fold (number of clips in brackets)")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(visible=False, axis="y")
    # keys of their own, for the marks have their classes' colours
    keys = [
        axes.plot([], [], "o", ms=8, mfc="none", mew=2, color=SOFT, label="precision")[0],
        axes.plot([], [], "D", ms=6, color=SOFT, label="recall")[0],
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
    picture = figure(HALF, 5.2)
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], ls=":", color=SOFT, label="as sure as right")
    upper.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color=LINE, lw=3)
    upper.plot(bins["confidence"], bins["accuracy"], "o-", color=TRAINING, label="the model")
    upper.set(title=title, ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.03, 1.05))
    upper.yaxis.set_major_formatter("{x:.0%}")
    picture.legend(loc="outside upper center", ncols=2)
    lower.bar(bins["confidence"], bins["clips"], width=0.05, color=TRAINING)
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
    picture = figure(7, 1.0 + 0.34 * len(rows))
    axes = picture.subplots()
    for place, (who, value) in enumerate(rows):
        mine = who == name
        axes.plot(value, place, "D" if mine else "o", color=VALIDATION if mine else TRAINING)
        if mine:
            axes.hlines(place, low, high, color=VALIDATION, lw=2)
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
        As :func:`pipeline.tune.table` makes it; may have no rows.
    best : str
        Column that the search brings down.

    Returns
    -------
    Figure
    """
    picture = figure(HALF, 3.8)
    axes = picture.subplots()
    axes.set(title="Search", xlabel="trial", ylabel="validation log loss")
    if trials.empty:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no search: tune.trials is 0", ha="center", transform=axes.transAxes)
        return picture
    axes.plot(
        trials["trial"], trials["best_so_far"], color=VALIDATION, drawstyle="steps-post",
        label="best so far",
    )  # fmt: skip
    for name, marker in (("complete", "o"), ("pruned", "x")):
        rows = trials["state"] == name
        if rows.any():
            axes.scatter(
                trials.loc[rows, "trial"],
                trials.loc[rows, best],
                s=40,
                c=TRAINING,
                marker=marker,
                label=name,
            )
    failed = trials.loc[trials["state"] == "failed", "trial"]
    if len(failed):
        height = axes.get_xaxis_transform()  # of the picture: they have no loss
        axes.vlines(failed, 0, 1, TRAINING, "dotted", transform=height, label="failed")
    _whole_numbers(axes.xaxis)
    picture.legend(loc="outside upper center", ncols=4)
    return picture


def pareto(trials: pd.DataFrame, best: str) -> "Figure":
    """Draw what smaller networks cost: every complete trial's loss by its number of parameters.

    Parameters
    ----------
    trials : DataFrame
        As :func:`pipeline.tune.table` makes it of networks of several sizes.
    best : str
        Column that the search brings down.

    Returns
    -------
    Figure
    """
    from matplotlib.ticker import MaxNLocator

    trials = trials.dropna(subset="parameters").sort_values("parameters")
    front = trials[trials["pareto"].astype(bool)]
    picture = figure(HALF, 3.8)
    axes = picture.subplots()
    axes.plot(
        front["parameters"], front[best], color=VALIDATION, drawstyle="steps-post", zorder=1,
        label="Pareto front: none is both smaller and better",
    )  # fmt: skip
    axes.scatter(trials["parameters"], trials[best], 40, color=TRAINING, label="trial", zorder=2)
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
        As :func:`pipeline.calibration.trade_off` makes it.
    title : str

    Returns
    -------
    Figure
    """
    picture = figure(HALF, 3.8)
    axes = picture.subplots()
    axes.plot(trade_off["coverage"], trade_off["accuracy"], ".-", color=TRAINING)
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


@cache
def _look() -> None:
    """Set matplotlib up for our figures, the first time that one is made."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": SOFT,
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.prop_cycle": cycler(color=CLASSES),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 12,
            "font.family": ["DejaVu Sans", *(name for name in CHINESE if name in installed)],
            "font.size": 10.5,
            "grid.color": LINE,
            "legend.frameon": False,
            "legend.labelcolor": INK,
            "text.color": INK,
            "xtick.color": SOFT,
            "xtick.labelcolor": INK,
            "ytick.color": SOFT,
            "ytick.labelcolor": INK,
        }
    )
