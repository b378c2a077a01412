"""Plain English: spelling, and phrases that readers stumbled over, each with what to write instead."""

from __future__ import annotations

import importlib
import inspect
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import codespell_lib
import pytest
from _docstrings import methods
from test_docs import reference_pages

ROOT = Path(__file__).parents[1]
PROSE = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs").glob("*.rst")),
]
CODE = [*sorted((ROOT / "micropref").rglob("*.py")), *sorted((ROOT / "docs").glob("[_ef]*/*.py"))]

INSTEAD = {
    r"\bis told no more\b|\btold nothing more\b": "uses no additional information",
    r"\banswered in one spirit\b|\bin one spirit\b": "from one point of view",
    r"\bgo(?:es)? on where\b|\bwent on where\b": "resumes where it stopped",
    r"\bcan be believed\b": "metrics and significance tests; or say which interval covers what",
    r"\b(?:must|that|votes|labels) counts? at once\b": "take effect immediately",
    r"\bfor being first\b": "introduces a position bias",
    r"\bshout(?:s|ed)? down\b": "overwhelm",
    r"\bhalf precision is stored\b": "stored in float16, computed in float32",
    r"\b(?:knows?|known) nothing of\b": "has no information about",
    r"\bwhat is not promised\b": "what is not guaranteed",
    r"\bfound [^,.;]{1,40}, wanted\b|\bwanted [^,.;]{1,40}, got\b": "expected ..., got ...",
    r"\b1 (?:heads|seeds|groups|rows|votes|users)\b": "the singular",
}
# On pages, where every sentence is read: riddles that comments of the code may keep.
INSTEAD_ON_PAGES = {
    **INSTEAD,
    r"\banew\b": "again; or rebuilt, recomputed",
    r"\bgo(?:es)? on (?:with|without)\b": "continues",
    r"\bone's own\b": "your own",
    r"\b(?:annotators|groups|pairs|users) held out\b": "held-out annotators",
    r"\b(?:is|are|was|were) told\b": "receives, is given",
    r"\bsays? (?:most|much|little|nothing) of\b": "says ... about",
    r"\bwhere there (?:is|are) (?:no|not|none|many|several)\b": "if there is no",
    r"\bis (?:the|a) \w+'s affair\b": "say what follows for the reader",
    r"(?<=[.:;]\s)What (?!is\b|are\b|does\b|do\b)[^?.|]{1,60} (?:is|are|was) (?:in|on|of|not|kept|sent)\b": "a noun",
    r"\bhave spoken\b|\bhas spoken\b|\bstill speaks\b": "dominates, decides",
}


def phrases(text: str, instead: dict[str, str] = INSTEAD) -> list[str]:
    """Lines with a phrase to avoid, each with what to write."""
    wrong = []
    for pattern, better in instead.items():
        for match in re.finditer(pattern.replace(" ", r"\s+(?:#\s+)?"), text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            wrong.append(f"line {line}: {' '.join(match[0].split())!r}; write: {better}")
    return wrong


def prose_of_code(path: Path) -> Iterator[str]:
    """Docstrings, comments and messages of a module."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                yield token.string


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_plain(path):
    instead = INSTEAD_ON_PAGES if path.parent == ROOT / "docs" else INSTEAD
    assert phrases(path.read_text(encoding="utf-8"), instead) == []


def test_first_sentences_of_the_reference_name_a_thing_or_an_action():
    """Not "What X found", which says neither."""
    wrong = []
    for package in reference_pages().packages():
        module = importlib.import_module(package)
        for name in reference_pages().public_names(package):
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            members = dict(methods(value)) if inspect.isclass(value) else {}
            for member, function in {"": value, **members}.items():
                first = (inspect.getdoc(function) or "").partition("\n")[0]
                if re.match(r"(?:What|Where|How|Who|Which)\b", first):
                    wrong.append(f"{package}.{name}.{member}: {first}")
    assert not wrong, "\n".join(wrong)


def test_docstrings_comments_and_messages_are_plain():
    wrong = [
        f"{path.relative_to(ROOT)}: {one}" for path in CODE for text in prose_of_code(path) for one in phrases(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "A rival that is told\nno more than ours.",
        "A run goes on where it was stopped.",
        "Figures that can be believed",
        "Half precision is stored, single computed.",
        "# prefer the first for being\n    # first",
        "1 heads",
    ],
)
def test_a_phrase_is_found_over_two_lines_as_well(text):
    assert len(phrases(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Tables.\nWhat files and texts take is in another table.",
        "The number that predicts annotators held out best.",
        "Where there are no groups, one head is fitted.",
        "The server goes on with the old model.",
        "An answer that says most of the user.",
    ],
)
def test_a_riddle_on_a_page_is_found(text):
    assert len(phrases(text, INSTEAD_ON_PAGES)) == 1
    assert phrases(text) == []


def test_plain_text_is_accepted():
    assert phrases("The rival uses no additional information. It has 11 heads and resumes where it stopped.") == []


def test_spelling(capfd, monkeypatch):
    """Words that are right here stand in setup.cfg."""
    monkeypatch.chdir(ROOT)
    pages = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
    misspelt = codespell_lib.main(*pages, "docs", "micropref", "benchmarks", ".ci")
    assert misspelt == 0, capfd.readouterr().out


def test_a_misspelt_word_is_found(tmp_path, capfd):
    page = tmp_path / "page.md"
    page.write_text("This is " + "t" + "eh answer.")
    assert codespell_lib.main(str(page)) != 0
    assert "the" in capfd.readouterr().out
