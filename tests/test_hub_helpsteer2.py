"""HelpSteer2: ratings of attributes as comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from hub_cases import ROWS, helpsteer2_rows
from hypothesis import given
from hypothesis import strategies as st

from micropref.datasets import (
    MalformedRowError,
    load_helpsteer2,
)
from micropref.datasets.hub.helpsteer2 import HELPSTEER2_CONTEXTS


def test_helpsteer2_chooses_the_higher_rating() -> None:
    rows = helpsteer2_rows("Ünïcode?", (4, 3, 2, 1, 0), (1, 3, 4, 2, 3))
    table = load_helpsteer2(rows).train
    assert table.extra["attribute"] == ["helpfulness", "coherence", "complexity", "verbosity"]
    assert [text.split()[0] for text in table.chosen] == ["First", "Second", "Second", "Second"]
    assert [text.split()[0] for text in table.rejected] == ["Second", "First", "First", "First"]
    assert table.extra["chosen_score"] == [4, 4, 2, 3]
    assert table.extra["rejected_score"] == [1, 2, 1, 0]
    assert table.context == [HELPSTEER2_CONTEXTS[name] for name in table.extra["attribute"]]
    assert table.extra["pair"] == ["train-0"] * 4
    assert table.weight is None
    assert load_helpsteer2(rows, weight_by_margin=True).train.weight.tolist() == [3, 2, 1, 3]


@given(
    first=st.tuples(*[st.integers(0, 4)] * 5),
    second=st.tuples(*[st.integers(0, 4)] * 5),
)
def test_helpsteer2_unanimous_pairs_are_removed(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    disputed = helpsteer2_rows("other", (4, 0, 0, 0, 0), (0, 4, 0, 0, 0))
    rows = helpsteer2_rows("this", first, second) + disputed
    kept = [name for name in load_helpsteer2(rows).train.prompt if name == "this"]
    signs = np.sign(np.subtract(first, second))
    assert len(kept) == (np.count_nonzero(signs) if {-1, 1} <= set(signs) else 0)
    everything = load_helpsteer2(rows, keep_unanimous=True).train
    assert everything.prompt.count("this") == np.count_nonzero(signs)


DISPUTED = ((4, 0, 1, 2, 2), (0, 4, 1, 2, 2))


@given(n_prompts=st.integers(4, 12), test_size=st.sampled_from([0.2, 0.5]), seed=st.integers(0, 9))
def test_helpsteer2_splits_by_prompt(n_prompts: int, test_size: float, seed: int) -> None:
    """Also where two pairs answer the same prompt, one of them in the published validation split."""
    rows = [row for i in range(n_prompts) for row in helpsteer2_rows(f"prompt {i % (n_prompts - 1)}", *DISPUTED)]
    validation = helpsteer2_rows("prompt 1", *DISPUTED) + helpsteer2_rows("prompt v", *DISPUTED)
    published = load_helpsteer2({"train": rows, "validation": validation})
    assert set(published.test.prompt) == {"prompt 1", "prompt v"}
    assert set(published.train.prompt) == {f"prompt {i}" for i in range(n_prompts - 1)} - {"prompt 1"}
    drawn = load_helpsteer2({"train": rows, "validation": validation}, test_size=test_size, random_state=seed)
    assert not set(drawn.train.prompt) & set(drawn.test.prompt)
    assert not set(drawn.train.extra["pair"]) & set(drawn.test.extra["pair"])
    assert len(drawn.train) + len(drawn.test) == 2 * (n_prompts + 2)
    assert len(set(drawn.test.prompt)) == round(test_size * n_prompts)
    again = load_helpsteer2({"train": rows, "validation": validation}, test_size=test_size, random_state=seed)
    assert again.test == drawn.test


def test_helpsteer2_prompts_of_several_turns() -> None:
    prompt = "c#<extra_id_1>Assistant\nA language.\n<extra_id_1>User\nMore, bitte"
    table = load_helpsteer2(helpsteer2_rows(prompt, *DISPUTED)).train
    assert table.prompt == ["user: c#\n\nassistant: A language.\n\nuser: More, bitte"] * 2
    assert load_helpsteer2(helpsteer2_rows("c#", *DISPUTED)).train.prompt == ["c#"] * 2


def test_helpsteer2_rows_without_a_partner() -> None:
    pair, other = helpsteer2_rows("one", *DISPUTED), helpsteer2_rows("two", *DISPUTED)
    for rows, number in (([pair[0], *other], 0), ([*pair, other[0]], 2), ([pair[0], *other, pair[1]], 0)):
        with pytest.raises(MalformedRowError, match=f"row {number}: expected a second response .*, got one only"):
            load_helpsteer2(rows)
    bad = {**pair[1], "verbosity": 5}
    with pytest.raises(MalformedRowError, match=r"row 1: expected a rating from 0 to 4.*got 5 in column 'verbosity'"):
        load_helpsteer2([pair[0], bad])
    # Twice the same prompt: without its second row, the first must not be paired with the third.
    with pytest.warns(UserWarning, match="2 of 4 rows are left out"):
        table = load_helpsteer2([pair[0], bad, *pair], skip_bad=True).train
    assert table.chosen == ["First to one", "Second to one"]
    assert table.n_rejected == 2
    with pytest.raises(MalformedRowError, match=r"row 0: expected a number.*got None in column 'complexity'"):
        load_helpsteer2([{**pair[0], "complexity": None}, pair[1]])
    same = [{**row, "response": "Same."} for row in pair]
    with pytest.raises(MalformedRowError, match=r"row 0: .*got the same text in both"):
        load_helpsteer2(same)


@pytest.mark.parametrize("test_size", [0, 1, -0.5, True, "0.2", float("nan")])
def test_sizes_of_a_test_that_are_none(test_size: object) -> None:
    with pytest.raises(ValueError, match="expected a test_size between 0 and 1, the share of the test, got"):
        load_helpsteer2(ROWS["load_helpsteer2"], test_size=test_size)  # type: ignore[arg-type]


def test_a_test_that_would_be_empty() -> None:
    with pytest.raises(ValueError, match=r"expected a test_size that leaves no side empty, got 0.2 of 1"):
        load_helpsteer2(ROWS["load_helpsteer2"], test_size=0.2)
