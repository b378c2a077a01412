"""The page "Your data" lists the names that readers understand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from micropref.datasets._formats import FORMATS
from micropref.datasets._names import NAMES
from micropref.datasets._sources import Source

PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("role", NAMES)
def test_the_page_lists_the_names_of_every_role(role):
    (names,) = re.findall(rf"^\| `{role}`(?: \(to score\))? \| (.*) \|$", PAGE, flags=re.MULTILINE)
    assert re.split(r", |; as conversations also ", names) == list(NAMES[role])


def test_the_page_has_a_section_for_every_format():
    headings = " ".join(re.findall(r"^### (.*)$", PAGE, flags=re.MULTILINE)).lower().replace(" ", "-")
    for name in FORMATS:
        assert name in headings
    assert all(not one.fits(Source("nothing", "row", [])) for one in FORMATS.values())
