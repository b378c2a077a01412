"""Symbols in the prose of docstrings, such as w_k and d_iᵀ, are typeset like those of the formulas beside them."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from docutils import nodes
from reference import is_inside
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

# One letter, perhaps with a prime or a bar, an index, perhaps transposed.
_SYMBOL = re.compile(
    r"(?:(?<=ᵀ)|(?<![\\\w.]))([A-Za-zα-ωΑ-Ωℓ])(['⁰]?)(\u0304?)_(?:([A-Za-z0-9]{1,2}|[α-ω])|\{([^{}]+)\})(?:(ᵀ)|(?!\w))",
)
# A mean square, perhaps over what makes it a penalty.
_SQUARE = re.compile(r"(mean_ω\s+)?‖(\w+)‖²(\s+/\s+\(s²\s+Ω(?:_g)?\)|\s+/\s+t²)?")
_OPERATORS = {"Σ": r"\sum", "Π": r"\prod"}
_MEAN = r"\operatorname{mean}_\omega\, "
_MARKS = {"": "", "'": "'", "⁰": "^0"}
_FIXED = (
    *(nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.doctest_block),
    *(nodes.title, nodes.target, nodes.strong, addnodes.desc_signature),
)


class TypesetSymbols(SphinxTransform):
    """Replace symbols in the text of the reference by formulas."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        if not self.env.docname.startswith("api/"):
            return
        for text in list(self.document.findall(nodes.Text)):
            if (_SYMBOL.search(str(text)) or _SQUARE.search(str(text))) and not is_inside(text, _FIXED):
                text.parent.replace(text, typeset(str(text)))


def typeset(text: str) -> list[nodes.Node]:
    """Text and formulas that together stand for a text."""
    square = _SQUARE.search(text)
    if square is not None:
        formula = _square(*square.groups(default=""))
        return [*typeset(text[: square.start()]), nodes.math(formula, formula), *typeset(text[square.end() :])]
    pieces: list[nodes.Node] = []
    end = 0
    for match in _SYMBOL.finditer(text):
        pieces.append(nodes.Text(text[end : match.start()]))
        formula = tex(*match.groups(default=""), sums=_is_applied(text[match.end() :]))
        pieces.append(nodes.math(formula, formula))
        end = match.end()
    return [*pieces, nodes.Text(text[end:])]


def _greek(text: str) -> str:
    """Greek letters of a text as commands of TeX."""
    return re.sub("[α-ωΑ-Ω]", lambda match: _command(match[0]), text)


def _command(letter: str) -> str:
    name = unicodedata.name(letter).rpartition(" ")[2].replace("LAMDA", "LAMBDA")
    return f"\\{name.lower() if letter.islower() else name.capitalize()} ".replace("\\phi", "\\varphi")


def _square(mean: str, vector: str, divisor: str) -> str:
    below = " / t^2" if "t" in divisor else " / (s^2 \\Omega_g)" if "_g" in divisor else " / (s^2 \\Omega)"
    letter = re.sub(r"_(\w+)", r"_{\1}", _greek(vector))
    return rf"{'' if not mean else _MEAN}\lVert {letter} \rVert^2{below if divisor else ''}"


def _is_applied(rest: str) -> bool:
    """Whether a sum or a product over something follows."""
    return bool(re.match(r" (?:[^\x00-\x7f—–−]|\w_|\w\()", rest))


def tex(letter: str, mark: str, bar: str, short: str, long: str, transposed: str, *, sums: bool) -> str:
    """TeX of one symbol; Σ is a sum before another symbol, and else a matrix."""
    if sums and letter in _OPERATORS:
        base = _OPERATORS[letter]
    elif letter == "ℓ":
        base = r"\ell"
    elif letter.isascii():
        base = letter
    else:
        base = _greek(letter).strip()
    if bar:
        base = rf"\bar{{{base}}}"
    index = _greek(short or long).replace("∈", r"\in ").replace("≠", r"\ne ").replace("≤", r"\le ")
    above = r"^\top" if transposed else _MARKS[mark]
    return f"{base}_{{{index}}}{above}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(TypesetSymbols)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
