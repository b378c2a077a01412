"""Sphinx: the guide and chapters in Markdown, the reference from docstrings, the gallery from scripts that are run."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

# Processes that share the cores wait for each other's threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import micropref

HERE = Path(__file__).parent
project = "micropref"
author = "The micropref developers"
copyright = "the micropref developers"
version = release = micropref.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# Links to files of the repository that are no pages, such as benchmark results.
suppress_warnings = ["myst.xref_missing", "config.cache"]

html_theme = "pydata_sphinx_theme"
html_title = "micropref"
html_show_sourcelink = False
html_extra_path = ["extra"]  # play.html, as it is
# Pages of their own need no list of the others beside them; the reference and the gallery do.
html_sidebars = {path.stem: [] for path in HERE.iterdir() if path.suffix in (".md", ".rst")}
html_theme_options = {"navigation_with_keys": False, "show_prev_next": True, "secondary_sidebar_items": ["page-toc"]}

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = True
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False

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
}

# Packages whose public names make up the reference, in the order of the pages.
REFERENCE = {
    "micropref": "Estimators, texts and data",
    "micropref.theory": "Theory",
    "micropref.plotting": "Displays",
    "micropref.baselines": "Rivals",
    "micropref.metrics": "Metrics",
    "micropref.heads": "Upkeep of heads",
    "micropref.selection": "Choosing the number of components",
    "micropref.bench": "Benchmark suites",
    "micropref.features": "Transformers of X",
    "micropref.datasets": "Data",
    "micropref.embed": "Encoders",
    "micropref.integrations": "Trainers",
    "micropref.serve": "A server",
    "micropref.kernels": "Kernels",
    "micropref.distributed": "Several processes",
}


def public_names(name: str) -> list[str]:
    """What a package offers: its ``__all__``, or what a module defines; a name has its page where users import it."""
    module = importlib.import_module(name)
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name]
    names = getattr(module, "__all__", [key for key in own if not key.startswith("_")])
    elsewhere = {"__version__", *(() if name == "micropref" else micropref.__all__)}
    return sorted(set(names) - elsewhere)


def write_reference(_: object) -> None:
    """One table per package from its ``__all__``, so that a new public name has its page by itself."""
    lines = ["API reference", "=============", ""]
    for name, title in REFERENCE.items():
        package = importlib.import_module(name)
        lines += [title, "-" * len(title), "", *(package.__doc__ or "").strip().splitlines(), ""]
        lines += [f".. currentmodule:: {name}", "", ".. autosummary::", "   :toctree: generated", ""]
        lines += [f"   {public}" for public in public_names(name)]
        lines.append("")
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    text = "\n".join(lines)
    page = folder / "index.rst"
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def setup(app: object) -> None:
    app.connect("config-inited", lambda app, config: write_reference(app))  # type: ignore[attr-defined]
    write_reference(app)
