"""Resampling and the blocks of a report."""

from __future__ import annotations

import numpy as np
import pytest

from micropref.bench._bootstrap import two_way_bootstrap
from micropref.bench._document import Grid, Heading, Image, Paragraph, as_html, as_markdown
from micropref.bench._words import counted
from micropref.metrics import paired_bootstrap


def test_the_luck_of_the_draw_is_in_the_tests():
    """Nothing to gain, but every draw of labels moves all rows together: five seeds of ten draws, 400 times."""
    rng = np.random.default_rng(0)
    seed, cluster = np.repeat(np.arange(5), 60), np.tile(np.arange(60), 5)
    p, alone = [], []
    for _ in range(400):
        luck = rng.normal(size=(10, 5))[:, seed]
        values = luck + rng.normal(size=60)[cluster] * 0.5 + rng.normal(size=(10, 300))
        kwargs = {"level": 0.95, "n_resamples": 300, "random_state": 1}
        found = two_way_bootstrap(values, cluster, seed, np.ones(300), **kwargs)
        p.append(found.p_value)
        assert found.difference == pytest.approx(values.mean())
        assert found.low <= found.difference <= found.high
        alone.append(paired_bootstrap(values.mean(axis=0), np.zeros(300), cluster, **kwargs).p_value)
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.1
    assert np.mean(np.array(alone) < 0.05) > 0.2


def test_two_ways_of_resampling_find_what_is_there():
    rng = np.random.default_rng(1)
    values = 0.3 + rng.normal(size=(10, 3))[:, np.repeat(np.arange(3), 50)] * 0.1 + rng.normal(size=(10, 150)) * 0.3
    seed, cluster, weight = np.repeat(np.arange(3), 50), np.tile(np.arange(50), 3), rng.uniform(0.5, 2, 150)
    found = two_way_bootstrap(values, cluster, seed, weight, level=0.95, n_resamples=500)
    assert found.difference == pytest.approx(np.average(values.mean(axis=0), weights=weight))
    assert found.low > 0.2
    assert found.p_value == pytest.approx(1 / 501)


def test_markdown_and_html_escape(tmp_path):
    (tmp_path / "a.png").write_bytes(b"png")
    blocks = [
        Heading(2, "a & b"),
        Paragraph("1 < 2"),
        Grid(["m", "x"], [["a|b", "<1>"], ["a & group"], ["c", "12.5"]], 1, "A caption."),
        Grid(["m"], [["a"]], 1),
        Image(tmp_path / "a.png", "alt"),
    ]
    text = as_markdown(blocks)
    assert text.splitlines()[6:11] == [
        "| m    |    x |",
        "| ---- | ---: |",
        "| a\\|b |  <1> |",
        "| **a & group** | |",
        "| c    | 12.5 |",
    ]
    assert "![alt](a.png)" in text
    page = as_html("t", blocks)
    assert "&lt;1&gt;" in page
    assert "1 &lt; 2" in page
    assert '<tr><th class="text" colspan="2">a &amp; group</th></tr>' in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [(0, "row", "0 rows"), (1, "row", "1 row"), (2, "new user", "2 new users"), (1, "new user", "1 new user")],
)
def test_numbers_with_their_nouns(n, noun, text):
    assert counted(n, noun) == text
    assert counted(n, noun, "mice") == (text if n == 1 else f"{n} mice")
