"""Hash the code that a result depends on, so that a kept result is used only while it is valid."""

import ast
import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder that holds the package."""

PLUMBING = (
    "pipeline",
    "pipeline.backend",
    "pipeline.cpus",
    "pipeline.data.preflight",
    "pipeline.errors",
    "pipeline.params",
    "pipeline.paths",
    "pipeline.stage",
    "pipeline.tracking",
    "pipeline.training.code_hash",
    "pipeline.training.workers",
)
"""Modules and suites that decide how work is started, checked and logged, but not its result."""


def of(module: str) -> str:
    """Return a hash of a module and of all modules of the package that it imports.

    Comments, docstrings and the layout of the code do not change it, nor does :data:`PLUMBING`.

    Parameters
    ----------
    module : str
        Dotted name.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    code = [f"{name}\n{_code(file)}" for name, file in sorted(closure(module).items())]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def closure(module: str) -> dict[str, Path]:
    """Find a module and all modules of the package that it imports, directly or indirectly.

    Imports inside functions count as well. :data:`PLUMBING` is left out.

    Parameters
    ----------
    module : str
        Dotted name.

    Returns
    -------
    dict
        Dotted name and file of each.

    Raises
    ------
    ModuleNotFoundError
        If there is no such module.
    """
    if _file(module) is None:
        raise ModuleNotFoundError(module)
    found: dict[str, Path] = {}
    waiting = {module}
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file is None or name in found or _is_plumbing(name):
            continue
        found[name] = file
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                waiting |= {alias.name for alias in node.names}
    return found


def _file(module: str) -> Path | None:
    """Return the file of a module of the package; None if the name is not such a module."""
    place = ROOT.joinpath(*module.split("."))
    if not place.is_relative_to(ROOT / "pipeline"):
        return None
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _is_plumbing(module: str) -> bool:
    suite = ".".join(module.split(".")[:2])
    return module in PLUMBING or suite in PLUMBING


def _code(file: Path) -> str:
    """Return the code of a file without comments and docstrings, in one layout."""
    return ast.unparse(_Undocumented().visit(ast.parse(file.read_text(encoding="utf-8"))))


class _Undocumented(ast.NodeTransformer):
    """Removes docstrings, also those of constants."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:  # the name that ast asks for
        return None if isinstance(node.value, ast.Constant) else node
