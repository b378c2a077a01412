"""Links to the source of inherited methods, which `sphinx.ext.viewcode` looks for in the class that is shown alone.

Before viewcode reads a page, the signature of an inherited method is given the module and the name under which it is
defined; afterwards it has its own again. The page also gets the anchor to which the link back from the source leads.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def _definition(module: str, fullname: str) -> tuple[str, str] | None:
    """Module and qualified name of the function behind a method or property of micropref."""
    value: Any = importlib.import_module(module)
    for part in fullname.split("."):
        value = inspect.getattr_static(value, part, None) if inspect.isclass(value) else getattr(value, part, None)
    if isinstance(value, property):
        value = value.fget
    value = inspect.unwrap(getattr(value, "__func__", value))
    own, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return (own, name) if inspect.isfunction(value) and own and name and own.startswith("micropref") else None


def point_to_definition(app: Sphinx, doctree: nodes.document) -> None:
    for signature in doctree.findall(addnodes.desc_signature):
        module, fullname = signature.get("module"), signature.get("fullname")
        if not module or not fullname or "." not in fullname:
            continue
        found = _definition(module, fullname)
        if found is not None:
            signature["shown"] = module, fullname
            signature["module"], signature["fullname"] = found
            # The link back names the module in which viewcode met the source first: this page's, or its own.
            anchors = (".".join(found), f"{module}.{found[1]}")
            signature["ids"] += [anchor for anchor in anchors if anchor not in signature["ids"]]


def restore(app: Sphinx, doctree: nodes.document) -> None:
    for signature in doctree.findall(addnodes.desc_signature):
        if "shown" in signature:
            signature["module"], signature["fullname"] = signature.attributes.pop("shown")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", point_to_definition, priority=400)
    app.connect("doctree-read", restore, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
