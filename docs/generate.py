"""Write the parts of the documentation that are made from code: ``python docs/generate.py``.

``docs/generated/`` gets the tables of parameters and stages, which pages of the reference include.
``docs/images/flow.svg`` is the diagram of the pipeline; it is in git, because the README shows it.
"""

import sys
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.params import Params  # noqa: E402 (found through the line above)

SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
TYPES = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}


def main() -> None:
    """Write all generated files."""
    files = {
        "generated/parameters.md": parameters(),
        "generated/stages.md": stages(),
        "images/flow.svg": flow(),
    }
    for name, text in files.items():
        file = ROOT / "docs" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")


def parameters() -> str:
    """Return a Markdown table for each section of ``params.yaml``, made from its models."""
    shipped = YAML().load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    lines = []
    for field_name, field in Params.model_fields.items():
        name = field.alias or field_name
        model: Any = field.annotation
        lines += [f"## {name}", "", model.__doc__.strip(), ""]
        lines += ["| key | type | range | default | meaning |", "|---|---|---|---|---|"]
        lines += [*rows(model, name, shipped[name]), ""]
    return "\n".join(lines)


def rows(model: Any, prefix: str, shipped: Any) -> Iterator[str]:
    """Yield the table row of each key under `prefix`, and of the keys nested in it."""
    for field_name, field in model.model_fields.items():
        key = field.alias or field_name
        name = f"{prefix}.{key}"
        choices = (field.annotation, *get_args(field.annotation))
        nested = next((one for one in choices if hasattr(one, "model_fields")), None)
        default = shipped.get(key, "")
        if nested is None or nested is not field.annotation:
            yield row(name, field, default, field.description or comment(shipped, key))
        if nested is not None:
            yield from rows(nested, name, default or {})


def row(name: str, field: Any, default: Any, meaning: str) -> str:
    """Return the table row of one key."""
    if not meaning:
        raise SystemExit(f"{name} has no description in pipeline/params.py")
    kind, values = describe(field.annotation)
    limits = [
        f"{sign} {getattr(limit, bound)}"
        for limit in field.metadata
        for bound, sign in SIGNS.items()
        if getattr(limit, bound, None) is not None
    ]
    shown = "" if hasattr(default, "items") or default == "" else f"`{as_yaml(default)}`"
    cells = (f"`{name}`", kind, ", ".join(limits) or values, shown, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_yaml(value: Any) -> str:
    """Return a value as YAML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def comment(section: Any, key: str) -> str:
    """Return the comment behind a key of ``params.yaml``, or an empty string."""
    found = section.ca.items.get(key) if hasattr(section, "ca") else None
    return str(found[2].value).split("\n")[0].strip("# ") if found and found[2] else ""


def describe(annotation: Any) -> tuple[str, str]:
    """Return the name of a type for readers, and the values that it allows."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "choice", ", ".join(f"`{value}`" for value in inner)
    if hasattr(annotation, "model_fields"):
        return "section", ""
    if origin is dict:
        return "mapping", "`{low, high, log}` or `{choices}`"
    if origin is tuple:
        return "list", ""
    if origin in (Union, UnionType):
        names = [describe(one)[0] for one in inner if one is not type(None)]
        return " or ".join([*dict.fromkeys(names), "null"][: len(inner)]), ""
    return TYPES.get(annotation.__name__, annotation.__name__), ""


def read_stages(file: str) -> dict[str, Any]:
    """Return the stages of a ``dvc.yaml``, by name."""
    content = YAML(typ="safe").load((ROOT / file).read_text(encoding="utf-8"))
    return dict(content["stages"])


def outputs(stage: Any) -> list[str]:
    """Return the paths that a stage writes."""
    listed = [*stage["outs"], *stage.get("metrics", [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in listed]


def stages() -> str:
    """Return a Markdown section for each stage: command, parameters and outputs."""
    lines = []
    for name, stage in (read_stages("dvc.yaml") | read_stages("crossval/dvc.yaml")).items():
        description = stage["desc"][0].upper() + stage["desc"][1:]
        lines += [
            f"## {name}",
            "",
            f"{description}. Command: `{stage['cmd']}`",
            "",
            f"- parameters: {', '.join(f'`{key}`' for key in stage['params'])}",
            f"- outputs: {', '.join(f'`{out}`' for out in outputs(stage))}",
            "",
        ]
    return "\n".join(lines)


# The lower rows of the diagram, which are not in dvc.yaml: where stages log, and what is served.
STORES = {
    "Optuna study": ["tune"],
    "MLflow runs": ["train", "evaluate"],
    "MLflow registry": ["register"],
}
SERVING = ("bundle", "web service", "image", "AWS")

WIDTH, HEIGHT, GAP = 136, 44, 28
STYLE = """
text { font: 15px system-ui, sans-serif; fill: #16302f; text-anchor: middle; }
rect { fill: #e3f2f1; stroke: #0f6b6b; stroke-width: 1.5; }
.page { fill: #fff; stroke: none; }
.store { fill: #fff4dd; stroke: #a66a00; }
path { fill: none; stroke: #0f6b6b; stroke-width: 1.5; marker-end: url(#tip); }
.log { stroke-dasharray: 5 4; }
#tip path { fill: #0f6b6b; stroke: none; marker-end: none; }
"""
TIP = """<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"
orient="auto-start-reverse"><path d="M0 0 8 4 0 8z"/></marker>"""


def flow() -> str:
    """Return the diagram of the pipeline as SVG, with the stages of ``dvc.yaml`` in order."""
    names = list(read_stages("dvc.yaml"))
    centre = {name: GAP + WIDTH // 2 + i * (WIDTH + GAP) for i, name in enumerate(names)}
    top, middle, bottom = 36, 136, 236
    half = HEIGHT // 2
    parts = [box(name, centre[name], top) for name in names]
    for left, right in pairwise(names):
        parts.append(arrow(centre[left] + WIDTH // 2, top, centre[right] - WIDTH // 2, top))
    for store, writers in STORES.items():
        column = sum(centre[stage] for stage in writers) // len(writers)
        parts.append(box(store, column, middle, "store"))
        for stage in writers:
            end = column + (centre[stage] - column) // 2
            parts.append(arrow(centre[stage], top + half, end, middle - half, "log"))
    columns = list(reversed(centre.values()))[: len(SERVING)]
    parts += [box(name, column, bottom) for name, column in zip(SERVING, columns, strict=True)]
    parts.append(arrow(columns[0], middle + half, columns[0], bottom - half))
    for right, left in pairwise(columns):
        parts.append(arrow(right - WIDTH // 2, bottom, left + WIDTH // 2, bottom))
    width, height = GAP + len(names) * (WIDTH + GAP), bottom + top
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
            f"<style>{STYLE}</style>",
            TIP,
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )


def box(name: str, x: int, y: int, kind: str = "stage") -> str:
    """Return a labelled box with its centre at `x`, `y`."""
    left, top = x - WIDTH // 2, y - HEIGHT // 2
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x}" y="{y + 5}">{escape(name)}</text>'
    )


def arrow(x1: int, y1: int, x2: int, y2: int, kind: str = "next") -> str:
    """Return an arrow between two points."""
    return f'<path class="{kind}" d="M{x1} {y1} {x2} {y2}"/>'


if __name__ == "__main__":
    main()
