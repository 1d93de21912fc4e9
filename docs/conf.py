"""Configure the Sphinx build of this folder; run ``docs/generate.py`` before it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "Sound classification"
html_title = project
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["generated"]  # included by pages of the reference

default_role = "code"  # `name` in a docstring
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # two modules may have classes of the same name

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_param = False  # else the words of "array, shape (clips, ...)" become links
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["extra.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # the browser loads no excerpts from the disk
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f6b6b", "color-brand-content": "#0f6b6b"},
    "dark_css_variables": {"color-brand-primary": "#a6e6de", "color-brand-content": "#6fd3c8"},
}
