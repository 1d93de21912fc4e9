"""How every picture looks: size, colours, fonts, and how one is saved."""

import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
