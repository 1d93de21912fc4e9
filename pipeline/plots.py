"""The pictures: one function each, data in and a figure out, the same colours everywhere."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING, VALIDATION, MARK = "#0072B2", "#D55E00", "#555555"
"""Of Okabe and Ito's palette, which colour-blind people tell apart."""


def figure(width: float, height: float) -> "Figure":
    """Make an empty figure that needs no screen; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(picture: "Figure", path: Path) -> None:
    """Write as PNG, without the date, so that the same picture has the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=120, metadata={"Software": None})


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
    picture = figure(9, 3.6)
    chosen = history["epoch"].iloc[int(history[best].to_numpy().argmin())]
    for axes, column, title in zip(
        picture.subplots(1, 2), ("log_loss", "accuracy"), ("Log loss", "Accuracy"), strict=True
    ):
        axes.plot(history["epoch"], history[column], color=TRAINING, label="training folds")
        axes.plot(
            history["epoch"], history[f"val_{column}"], color=VALIDATION, label="validation fold"
        )
        axes.axvline(chosen, color=MARK, linestyle=":", label=f"chosen: epoch {chosen:.0f}")
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
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
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    names = [label.replace("_", " ") for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), names)
    axes.set(title=title, xlabel="predicted", ylabel="true")
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "black" if shares[row, column] > 0.55 else "white"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    picture.colorbar(image, label="share of the true class", shrink=0.8)
    return picture


def per_class(scores: pd.DataFrame) -> "Figure":
    """Precision and recall of every class, the weakest on top.

    Parameters
    ----------
    scores : DataFrame
        Columns ``label``, ``precision``, ``recall``, ``clips``.

    Returns
    -------
    Figure
    """
    ordered = scores.sort_values("f1", ascending=False)
    picture = figure(7, 1.4 + 0.34 * len(ordered))
    axes = picture.subplots()
    rows = np.arange(len(ordered))
    axes.hlines(rows, ordered["precision"], ordered["recall"], color="0.75", zorder=1)
    axes.scatter(ordered["precision"], rows, color=TRAINING, label="precision", zorder=2)
    axes.scatter(ordered["recall"], rows, color=VALIDATION, marker="D", label="recall", zorder=2)
    axes.set_yticks(
        rows, [f"{r.label} ({r.clips})".replace("_", " ") for r in ordered.itertuples()]
    )
    axes.set(xlim=(-0.03, 1.03), xlabel="on the test fold (number of clips in brackets)")
    axes.grid(alpha=0.3, axis="x")
    picture.legend(loc="outside upper center", ncols=2)
    return picture
