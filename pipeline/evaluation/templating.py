"""Fill the HTML templates of the pages that need no server."""

import re
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
STYLESHEET = Path(__file__).parents[1] / "serving" / "page" / "page.css"


def render(template: str, **facts: Any) -> str:
    """Fill a template; text from labels and file names is escaped.

    Parameters
    ----------
    template : str
        A file of the folder ``templates``.
    **facts
        The template's variables; a missing one is an error.

    Returns
    -------
    str
        HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.filters["readable"] = lambda label: str(label).replace("_", " ")
    templates.filters["percent"] = lambda share: f"{share:.1%}"
    templates.globals["schemes"] = schemes
    return templates.get_template(template).render(**facts)


def schemes() -> str:
    """Return the light and the dark colours of the web page, as CSS."""
    rules = re.findall(
        r"^:root \{.*?^\}|^@media \(prefers-color-scheme: dark\) \{.*?^\}",
        STYLESHEET.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    return "\n".join(rules)
