"""The API reference in Sphinx: its pages are written first, and names in the text become links to them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import reference_pages
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode


def leave_out(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out what scikit-learn and Python define, but for the calls that users make on every estimator."""
    function = member.fget if isinstance(member, property) else member
    module = str(getattr(inspect.unwrap(function) if callable(function) else function, "__module__", "") or "")
    if name in ("get_params", "set_params", "fit_transform"):
        return None
    if what == "class" and not module.startswith("micropref"):
        return True
    return None


class Target(NamedTuple):
    page: str
    anchor: str
    kind: str


def _targets(app: Sphinx) -> dict[str, Target | None]:
    """Pages by full name and by every unique ending of it; None where an ending is not unique."""
    found: dict[str, Target | None] = {}
    domain: Any = app.env.get_domain("py")
    for full, entry in domain.objects.items():
        anchor = "" if entry.objtype == "module" else entry.node_id
        target = Target(entry.docname, anchor, entry.objtype)
        found[full] = target
        parts = full.split(".")
        for start in range(1, len(parts)):
            short = ".".join(parts[start:])
            if start == len(parts) - 1 and entry.objtype in ("method", "property", "attribute"):
                continue  # `fit` alone is the method of the class of the page, which `_meant` looks up
            same = short not in found or found[short] == target
            found[short] = target if same else None
    return found


_NAME = re.compile(r"(?:micropref\.)?[A-Za-z_][\w.]*")


def _meant(text: str, inside: str, targets: dict[str, Target | None]) -> Target | None:
    """The public name that a piece of code is: `fit`, `Class.fit`, `micropref.metrics`, `Class(n_components=1)`."""
    match = _NAME.fullmatch(text.split("(")[0])
    if match is None or (text.count("(") and not text.endswith(")")):
        return None
    name = match[0]
    found = targets.get(f"{inside}.{name}") or targets.get(name)
    if found is None and "." in name:
        # `micropref.pairs.make_pairs` is on the page of its short name, and a fitted attribute on that of its class.
        head, _, tail = name.rpartition(".")
        found = targets.get(tail if name.startswith("micropref.") else head)
    # `embed` and `theory` are commands, too.
    return None if found and found.kind == "module" and "." not in name else found


def link_names(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Make every name in code style a link to its page of the reference, in docstrings and on pages."""
    if not hasattr(app.env, "micropref_targets"):
        app.env.micropref_targets = _targets(app)  # type: ignore[attr-defined]
    targets = app.env.micropref_targets  # type: ignore[attr-defined]
    for node in list(doctree.findall(nodes.literal)):
        if is_inside(node, (nodes.reference, nodes.title, addnodes.desc_signature, nodes.caption)):
            continue
        target = _meant(node.astext(), _class_around(node), targets)
        if target is None or (target.page == page and target.kind in ("class", "function")):
            continue
        link = make_refnode(app.builder, page, target.page, target.anchor, node.deepcopy())
        node.replace_self(link)


def is_inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _class_around(node: nodes.Node) -> str:
    """Full name of the class in whose description a node stands, or an empty string."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, addnodes.desc) and node.get("objtype") in ("class", "exception"):
            return str(node[0]["ids"][0]) if node[0]["ids"] else ""
    return ""


def resolve_short_name(app: Sphinx, env: Any, node: addnodes.pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Names of a "See Also" section: `ContextRouter` on the page of a rival in another package."""
    if node.get("refdomain") != "py":
        return None
    target = _meant(node["reftarget"], "", _targets(app))
    return target and make_refnode(app.builder, node["refdoc"], target.page, target.anchor, content)


_CODE = re.compile(r"(``.*?``|`[^`]*`|:math:`[^`]*`)")
_FITTED = re.compile(r"(?<![\w.])([A-Za-z]\w*)_(?=[\s,;:)\]]|$)")


def keep_underscores(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Names of fitted attributes outside of code, as in "shape (n, n_features_in_)", are no references of reST."""
    formula = False
    for i, line in enumerate(lines):
        formula = line.strip().startswith(".. math::") or (formula and (not line.strip() or line[0] == " "))
        if formula or line.lstrip().startswith((">>>", "...")):
            continue
        pieces = _CODE.split(line)
        lines[i] = "".join(one if one.startswith(("`", ":")) else _FITTED.sub(r"\1\\_", one) for one in pieces)


def setup(app: Sphinx) -> dict[str, bool]:
    folder = Path(app.confdir) / "api"
    app.connect("config-inited", lambda app, config: reference_pages.write(folder))
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-docstring", keep_underscores, priority=900)
    app.connect("missing-reference", resolve_short_name)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
