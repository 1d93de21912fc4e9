"""Make, style and save figures, so that all pictures look alike."""

import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

CLASS_COLOURS = (
    "#2877bb", "#bd8b0b", "#8a1b5c", "#2da399", "#d86265",
    "#3b2eb1", "#607e01", "#bd4ddf", "#256c33", "#ba4293",
)  # fmt: skip
"""Colours of the labels, in the model's order. They are the web page's colours and can be told
apart by colour-blind people. They repeat after ten labels, so no plot relies on colour alone."""

TRAINING, VALIDATION = "#0072b2", "#d55e00"
"""Colours of Okabe and Ito's palette for the two sides of a split and for other pairs."""

INK, SOFT, LINE = "#17211f", "#55625f", "#d7dedb"
"""Colours of the text, of less important marks, and of the grid."""

HALF_WIDTH = 6.4
"""Width in inches of figures that stand side by side, so that their text has one size."""

LONGEST_LABEL = 24
"""Maximum length of a label in a plot, in characters."""

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
"""Fonts with the Chinese characters that matplotlib's own font lacks."""


def figure(width: float, height: float) -> "Figure":
    """Make an empty figure, in inches, that needs no display."""
    from matplotlib.figure import Figure

    _look()
    return Figure(figsize=(width, height), layout="constrained")


def bars(names: list[str]) -> tuple["Figure", "Axes"]:
    """Make an empty figure for horizontal bars, one row per name from the top down."""
    picture = figure(9, 1.2 + 0.36 * len(names))
    axes = picture.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    return picture, axes


def whole_numbers(axis: "Axis") -> None:
    """Put the ticks of an axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 5, 10), integer=True))


def save(picture: "Figure", path: Path) -> None:
    """Write a figure as PNG, without a date, so that the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=120, metadata={"Software": None})


def svg(picture: "Figure") -> str:
    """Return a figure as an SVG element with real text, in the colours of the page it goes into.

    Parameters
    ----------
    picture : Figure

    Returns
    -------
    str
        ``<svg>`` with a view box, at most as large as the figure. The colours of this module
        become the custom properties ``--ink``, ``--soft``, ``--line``, ``--training``,
        ``--validation`` and ``--class-0`` to ``--class-9``, so that the page can be light or
        dark.
    """
    import matplotlib as mpl

    drawn = io.StringIO()
    # without a fixed salt the ids would differ each time
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
        **{colour: f"class-{i}" for i, colour in enumerate(CLASS_COLOURS)},
    }
    for colour, name in properties.items():
        element = element.replace(colour, f"var(--{name})")
    return element


def colour(place: int) -> str:
    """Return the colour of the label at `place` in the model's list."""
    return CLASS_COLOURS[place % len(CLASS_COLOURS)]


def readable(label: object) -> str:
    """Return a label for a plot: spaces for underscores, shortened, and never read as a formula.

    Examples
    --------
    >>> readable("air_conditioner")
    'air conditioner'
    """
    text = str(label).replace("_", " ")
    if len(text) > LONGEST_LABEL:
        text = f"{text[: LONGEST_LABEL - 1]}…"
    return text.replace("$", r"\$")


@cache
def _look() -> None:
    """Set matplotlib's style the first time that a figure is made."""
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
            "axes.prop_cycle": cycler(color=CLASS_COLOURS),
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
