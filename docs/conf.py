"""Sphinx: guides and chapters in Markdown, the reference from docstrings, the gallery from scripts that are run."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

# Processes that share the cores wait for each other's threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE / "figures")]

import home  # noqa: E402

import micropref  # noqa: E402

project = "micropref"
author = "The micropref developers"
copyright = "the micropref developers"
version = release = micropref.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "reference",
    "symbols",
    "inherited_source",
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "_ext",
    "_templates",
    "examples",
    "gallery/**/*.ipynb",
    "gallery/**/*.py",
    "gallery/**/*.md5",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# Links to files of the repository that are no pages, such as benchmark results.
suppress_warnings = ["myst.xref_missing", "config.cache"]
# Names between single backticks are code, and become links where they are public names.
default_role = "literal"
add_module_names = False
toc_object_entries_show_parents = "hide"

# Formulas are typeset by a MathJax that comes with the pages: one file, without fonts or another host.
_mathjax = importlib.util.find_spec("mathjax")
assert _mathjax is not None
assert _mathjax.origin is not None
mathjax_path = "tex-svg.js"
mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"enableMenu": False}}

html_theme = "pydata_sphinx_theme"
html_title = "micropref"
html_show_sourcelink = False
html_extra_path = ["extra"]  # play.html, as it is
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static", str(Path(_mathjax.origin).parent / "static/mathjax/es5/tex-svg.js")]
html_css_files = ["micropref.css"]
html_context = {"default_mode": "auto"}
# The first page, and pages without others beside them, need no list of these.
html_sidebars = {page: [] for page in ("index", "quickstart", "theory", "pictures")}
html_theme_options = {
    "logo": {"text": "micropref", "alt_text": "micropref"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": [], "guides": [], "project": []},
    "navbar_align": "left",
    "show_version_warning_banner": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"[/\\]plot_",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "download_all_examples": True,
    "show_memory": False,
    "capture_repr": (),
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
    "min_reported_time": 3,
    "write_computation_times": False,  # its page loads scripts from other hosts
    "backreferences_dir": "api/lessons",
    "doc_module": ("micropref",),
}


def setup(app: object) -> None:
    home.main(HERE / "figures")
