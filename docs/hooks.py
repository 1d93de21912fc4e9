"""What the site makes from the code when it is built, so that nothing is written down twice.

MkDocs calls these by their names: the tables of parameters and stages take the place of the
comments ``<!-- parameters -->``, ``<!-- stages -->`` and ``<!-- modules -->``, and references in
docstrings become links.
"""

import re
import sys
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).parents[1]
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>(~?)([\w.]+)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page asks for them."""
    for name, table in (("parameters", parameters), ("stages", stages), ("modules", modules)):
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Make links of Sphinx's roles, which the docstrings are written with."""

    def link(role: re.Match[str]) -> str:
        short, name = role.groups()
        shown = name.rsplit(".", 1)[-1] if short else name
        return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'

    return ROLE.sub(link, html)


def parameters() -> str:
    """Tabulate every key of ``params.yaml``, section by section, from its models."""
    sys.path.insert(0, str(ROOT))
    from ruamel.yaml import YAML

    from pipeline.params import Params

    shipped = YAML().load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    parts = []
    for field_name, field in Params.model_fields.items():
        name = field.alias or field_name
        model = field.annotation
        parts.append(f"## {name}\n\n{model.__doc__.strip()}\n")
        parts.append("| key | type | range | default | meaning |\n|---|---|---|---|---|")
        parts += rows(model, name, shipped[name])
        parts.append("")
    return "\n".join(parts)


def rows(model: Any, prefix: str, shipped: Any) -> list[str]:
    """Give a line of the table for each key under `prefix`."""
    lines = []
    for field_name, field in model.model_fields.items():
        key = field.alias or field_name
        name = f"{prefix}.{key}"
        nested = [
            one
            for one in (field.annotation, *get_args(field.annotation))
            if hasattr(one, "model_fields")
        ]
        if nested and nested[0] is field.annotation:
            lines += rows(field.annotation, name, shipped[key])
            continue
        meaning = field.description or comment(shipped, key)
        if not meaning:
            raise SystemExit(f"{name} has no description in pipeline/params.py")
        kind, extent = spoken(field.annotation)
        limits = [
            f"{sign} {getattr(limit, bound)}"
            for limit in field.metadata
            for bound, sign in SIGNS.items()
            if getattr(limit, bound, None) is not None
        ]
        default = shipped.get(key, "")
        shown = "" if hasattr(default, "items") or default == "" else f"`{written(default)}`"
        cells = (f"`{name}`", kind, ", ".join(limits) or extent, shown, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if nested:
            lines += rows(nested[0], name, default or {})
    return lines


def written(value: Any) -> str:
    """Write a value as YAML does."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def comment(section: Any, key: str) -> str:
    """Read the remark behind a key of ``params.yaml``."""
    found = section.ca.items.get(key) if hasattr(section, "ca") else None
    return str(found[2].value).split("\n")[0].strip("# ") if found and found[2] else ""


def spoken(annotation: Any) -> tuple[str, str]:
    """Name a type as people call it, and the values it leaves to choose from."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "choice", ", ".join(f"`{value}`" for value in inner)
    if hasattr(annotation, "model_fields"):
        return "section", ""
    if origin is dict:
        return "mapping", "`{low, high, log}` or `{choices}`"
    if origin is tuple:
        return "list", ""
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        names = [spoken(one)[0] for one in inner if one is not type(None)]
        return " or ".join([*dict.fromkeys(names), "null"][: len(inner)]), ""
    names = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}
    return names.get(annotation.__name__, annotation.__name__), ""


def stages() -> str:
    """Tabulate the stages of ``dvc.yaml``: command, what it reads, what it leaves."""
    from ruamel.yaml import YAML

    lines = []
    for file in ("dvc.yaml", "crossval/dvc.yaml"):
        for name, stage in (
            YAML(typ="safe").load((ROOT / file).read_text("utf-8"))["stages"].items()
        ):
            outs = [
                out if isinstance(out, str) else next(iter(out))
                for out in [*stage["outs"], *stage.get("metrics", [])]
            ]
            lines += [
                f"## {name}\n",
                f"{stage['desc'].capitalize()}. `{stage['cmd']}`\n",
                f"- parameters: {', '.join(f'`{key}`' for key in stage['params'])}",
                f"- leaves: {', '.join(f'`{out}`' for out in outs)}\n",
            ]
    return "\n".join(lines)


def modules() -> str:
    """Ask for the modules of the pipeline that no other page of the reference asks for."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    named = {name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)}
    files = (path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("pipeline/**/*.py"))
    known = (".".join(path.parts).removesuffix(".__init__") for path in files)
    return "\n\n".join(f"::: {name}" for name in sorted(set(known) - named - {"pipeline"}))
