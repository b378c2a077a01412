"""After the pages are built: the reference has the text of every parameter, links lead somewhere, nothing is fetched.

python .ci/check_pages.py docs/_build/html
"""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs/_ext"), str(ROOT / "tests")]

import reference_pages  # noqa: E402
from _docstrings import methods  # noqa: E402

INLINE = {"a", "abbr", "b", "code", "em", "i", "span", "strong", "sub", "sup", "tt"}
# Elements and attributes whose files a browser loads by itself.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}


class Page(HTMLParser):
    """Text, anchors, links and loaded files of one page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self._silent = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("script", "style")
        if tag not in INLINE:
            self.pieces.append(" ")
        for key, value in attrs:
            if value is None:
                continue
            if key in ("id", "name"):
                self.anchors.add(value)
            if (tag, key) in LOADED and not (tag == "link" and _is_only_named(dict(attrs))):
                self.loaded.append(value)
            if (tag, key) in LOADED or (tag, key) == ("a", "href"):
                self.links.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")
        if tag not in INLINE:
            self.pieces.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def _is_only_named(attributes: dict[str, str | None]) -> bool:
    """Whether a <link> names another page, such as the next one, rather than loading a file."""
    return attributes.get("rel") in ("next", "prev", "index", "search", "canonical", "author", "copyright")


@cache
def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@cache
def pages(built: Path) -> list[Path]:
    """All pages, without the templates of the theme."""
    return sorted(path for path in built.rglob("*.html") if path.name != "webpack-macros.html")


def words(text: str) -> str:
    """Words of three letters or more, without formulas, which the page typesets."""
    text = re.sub(r"\\\(.*?\\\)|\\\[.*?\\\]", " ", text, flags=re.DOTALL)
    text = re.sub(r":math:`[^`]*`|:\w+:(?=`)|\b[A-Za-z]+_[α-ω]", " ", text)
    return " ".join(re.findall(r"[A-Za-z]{3,}", text)).lower()


def parameters(docstring: str) -> dict[str, str]:
    """Names and descriptions in the sections of a numpydoc docstring that list names."""
    found: dict[str, str] = {}
    listed = r"^(?:Parameters|Other Parameters|Attributes)\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)"
    for section in re.findall(listed, inspect.cleandoc(docstring), re.DOTALL | re.MULTILINE):
        for name, description in re.findall(
            r"^(\S[^:\n]*?)(?: : [^\n]*)?\n((?:    [^\n]*\n?|\n)*)", section, re.MULTILINE
        ):
            # Formulas between paragraphs are typeset, so that only the text before them is compared.
            found[name] = description.partition(".. math::")[0]
    return found


def missing_parameters(built: Path) -> list[str]:
    """Parameters of public classes, functions and methods whose description is not on their page."""
    wrong = []
    for package in reference_pages.packages():
        module = sys.modules.get(package) or __import__(package, fromlist=["x"])
        for name in reference_pages.public_names(package):
            full = reference_pages.home(package, name)
            path = built / f"api/generated/{full}.html"
            if not path.exists():
                wrong.append(f"{full} has no page")
                continue
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            text = words(read_page(path).text)
            members = {"": value, **(dict(methods(value)) if inspect.isclass(value) else {})}
            for member, function in members.items():
                if member and member not in read_page(path).text:
                    wrong.append(f"{full}.{member} is not on its page")
                wrong += [
                    f"{full}.{member}: the description of {parameter!r} is not on its page"
                    for parameter, description in parameters(inspect.getdoc(function) or "").items()
                    if words(description) not in text and not _has_own_entry(value, parameter)
                ]
    return wrong


def _has_own_entry(value: object, name: str) -> bool:
    """Whether an attribute is a property, whose own docstring stands on the page."""
    return inspect.isclass(value) and isinstance(inspect.getattr_static(value, name, None), property)


def dead_links(built: Path) -> list[str]:
    """Links to pages, files and headings that are not there."""
    wrong = []
    for path in pages(built):
        for link in read_page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            exists = target.exists()
            if exists and parts.fragment and target.suffix == ".html":
                exists = unquote(parts.fragment) in read_page(target).anchors
            if not exists:
                wrong.append(f"{path.relative_to(built)}: {link}")
    return wrong


def fetched(built: Path) -> list[str]:
    """Files of other hosts that a browser would load."""
    found = {
        f"{path.relative_to(built)} loads {url}"
        for path in pages(built)
        for url in read_page(path).loaded
        if urlsplit(url).netloc
    }
    for style in sorted(built.rglob("*.css")):
        text = style.read_text(encoding="utf-8")
        found |= {
            f"{style.relative_to(built)} loads {url}" for url in re.findall(r"url\([\"']?(https?:[^\"')]*)", text)
        }
    return sorted(found)


def without_mathjax(built: Path) -> list[str]:
    """Pages with formulas that do not load what typesets them."""
    formulas = re.compile(r'class="math ')
    return [
        f"{path.relative_to(built)} has formulas and no MathJax"
        for path in pages(built)
        if formulas.search(path.read_text(encoding="utf-8"))
        and not any("tex-svg.js" in url for url in read_page(path).loaded)
    ]


def main(built: Path) -> int:
    wrong = [*missing_parameters(built), *dead_links(built), *fetched(built), *without_mathjax(built)]
    n_pages = len(pages(built))
    print("\n".join(wrong) or f"{n_pages} pages: parameters, links and formulas are there, and nothing is fetched")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
