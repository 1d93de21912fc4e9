"""What plots guarantee whatever the labels are; how they look has to be checked by eye."""

import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pipeline import drawing, stage
from pipeline.evaluation import plots, search_plots

ROOT = Path(__file__).parents[2]
ODD = ["$x_1$", "a$b", r"\$\frac{1$", "$$", "狗叫声", "{label}", "<b>&amp;", "x" * 300]


def scores(labels: list[str]) -> pd.DataFrame:
    values = np.linspace(0, 1, len(labels))
    return pd.DataFrame(
        {"label": labels, "precision": values, "recall": values, "f1": values}
    ).assign(clips=3, recordings=2)


def test_the_class_colours_are_those_of_the_page() -> None:
    css = (ROOT / "pipeline/serving/page/page.css").read_text()
    light = dict(re.findall(r"--class-(\d): (#\w+);", css[: css.index("@media")]))
    assert tuple(light[str(i)] for i in range(10)) == drawing.CLASS_COLOURS


def test_labels_that_look_like_formulas_or_are_in_chinese_are_drawn_without_a_warning(
    tmp_path: Path,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stage.quiet()  # every command calls it
        drawing.save(plots.per_class(scores(ODD)), tmp_path / "scores.png")
        drawing.save(plots.confusion(np.eye(8, dtype=int), ODD, "t"), tmp_path / "confusion.png")
        drawn = drawing.svg(plots.per_class(scores(ODD)))
    assert (tmp_path / "scores.png").stat().st_size > 0
    for label in ("$x 1$", "a$b", "$$", "狗叫声", "{label}"):
        assert f">{label}<" in drawn
    assert ">2 / 3<" in drawn


def test_the_same_picture_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "other.png"):
        drawing.save(plots.per_class(scores(["a", "b"])), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    one, other = (drawing.svg(plots.per_class(scores(["a", "b"]))) for _ in range(2))
    assert one == other


def test_an_svg_is_well_formed_and_takes_its_colours_from_the_page() -> None:
    drawn = drawing.svg(plots.per_class(scores(["a", "b"])))
    assert ElementTree.fromstring(drawn).get("viewBox")
    assert "var(--class-1)" in drawn
    assert not [
        c for c in (*drawing.CLASS_COLOURS, drawing.INK, drawing.SOFT, drawing.LINE) if c in drawn
    ]


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_search_is_drawn_too(rows: int, tmp_path: Path) -> None:
    trials = pd.DataFrame(
        {"trial": [0], "state": ["complete"], "val_log_loss": [1.0], "best_so_far": [1.0]}
    ).head(rows)
    drawn = drawing.svg(search_plots.history(trials))
    assert ("no search" in drawn) == (rows == 0)
