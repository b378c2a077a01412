"""X by blocks of texts is X by the vectors of all texts, and each distinct text is embedded once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micropref.datasets import PreferenceTable
from micropref.embed import EmbeddingStore, HashingEncoder, PairEncoder

SMALL = HashingEncoder(n_features=12, n_hashes=64)
WORDS = st.text("abc ", min_size=1, max_size=4).filter(str.strip)


class Counting:
    """An encoder that counts what it is asked for."""

    fingerprint = "counting"

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def encode(self, texts):
        self.asked.update(texts)
        return SMALL.encode(texts)


@st.composite
def tables(draw) -> PreferenceTable:
    pairs = draw(st.lists(st.tuples(WORDS, WORDS).filter(lambda one: one[0] != one[1]), min_size=1, max_size=8))
    n = len(pairs)
    few = st.lists(st.sampled_from(["", "q one", "q two"]), min_size=n, max_size=n)
    return PreferenceTable(draw(few), [one for one, _ in pairs], [other for _, other in pairs], context=draw(few))


@given(table=tables(), template=st.sampled_from(["{response}", "{prompt} {response}"]))
def test_x_is_that_of_single_responses_and_contexts(table, template):
    encoder = PairEncoder(SMALL, template=template, context="auto")
    X = encoder.fit_transform(table)
    np.testing.assert_array_equal(encoder.transform(table), X)
    np.testing.assert_array_equal(PairEncoder(SMALL, template=template, context="auto").fit(table).transform(table), X)
    first, second = (encoder.encode_responses(table.prompt, of) for of in (table.chosen, table.rejected))
    context = encoder.encode_context(table.prompt, table.context)
    np.testing.assert_allclose(X, np.hstack([context, first - second]), rtol=1e-4, atol=1e-5)
    swapped = replace(table, chosen=table.rejected, rejected=table.chosen)
    np.testing.assert_array_equal(encoder.transform(swapped)[:, 24:], -X[:, 24:])


@given(table=tables())
def test_each_distinct_text_is_embedded_once(table):
    encoder = Counting()
    pairs = PairEncoder(encoder, context="auto")
    X = pairs.fit_pairs(table, parts=())
    assert X.shape == (len(table), 12)
    texts = {text for column in (table.prompt, table.context, table.chosen, table.rejected) for text in column if text}
    assert encoder.asked == Counter(texts)
    assert set(pairs.scale_) == {"prompt", "context", "response"}
    np.testing.assert_array_equal(pairs.encode_pairs(table, parts=()), X)


@pytest.mark.parametrize("n_rows", [1, 1500])
def test_a_store_gives_the_same(tmp_path, n_rows):
    table = PreferenceTable(
        ["q"] * n_rows, [f"yes {i}" for i in range(n_rows)], [f"no {i // 2}" for i in range(n_rows)]
    )
    X = PairEncoder(SMALL, context="auto").fit_transform(table)
    stored = PairEncoder(SMALL, context="auto", store=EmbeddingStore(tmp_path / "store", SMALL, dtype="float32"))
    np.testing.assert_array_equal(stored.fit_transform(table), X)
    np.testing.assert_array_equal(stored.transform(table), X)
