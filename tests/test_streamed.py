"""X by blocks of texts is X by the vectors of all texts, and each distinct text is embedded once."""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micropref import PreferenceModel, reward
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


ACTING = [{"interactions": True}, {"clauses": True}, {"length": True}, {"interactions": True, "clauses": True}]


def stated_table(n_rows: int) -> PreferenceTable:
    rng = np.random.default_rng(0)
    words = np.array(["tea", "long", "short", "no", "salt", "and", "please", "but", "list"])
    column = [" ".join(rng.choice(words, size=5)) for _ in range(4 * n_rows)]
    return PreferenceTable(
        column[:n_rows],
        [f"{text} a" for text in column[n_rows : 2 * n_rows]],
        [f"{text} b" for text in column[2 * n_rows : 3 * n_rows]],
        context=[text if i % 3 else "" for i, text in enumerate(column[3 * n_rows :])],
    )


@pytest.mark.parametrize("acting", ACTING, ids=str)
@pytest.mark.parametrize("context", [(), "auto"], ids=str)
def test_blocks_of_rows_in_which_contexts_act_are_all_rows(acting, context, monkeypatch):
    table = stated_table(50)
    whole = PairEncoder(SMALL, context=context, **acting)
    X = whole.fit_pairs(table)
    monkeypatch.setattr("micropref.embed._learned._BLOCK_ROWS", 7)
    blocks = PairEncoder(SMALL, context=context, **acting)
    np.testing.assert_allclose(blocks.fit_pairs(table), X, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.transform(table), X, rtol=1e-5, atol=1e-6)
    assert blocks.scale_ == whole.scale_
    first, second = (whole.encode_responses(table.prompt, of, table.context) for of in (table.chosen, table.rejected))
    np.testing.assert_allclose(X[:, whole.n_context_features_ :], first - second, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("acting", [{}, *ACTING], ids=str)
@pytest.mark.parametrize("parts", [(), ("prompt",), ("prompt", "context")], ids=str)
def test_x_is_an_array_of_its_own_and_no_part_of_a_wider_one(acting, parts):
    X = PairEncoder(SMALL, context="auto", **acting).fit_pairs(stated_table(9), parts=parts)
    assert X.base is None
    assert X.flags.c_contiguous
    assert X.dtype == np.float32


def test_a_model_is_fitted_to_x_as_it_was_allocated(monkeypatch):
    """No prompts that nothing reads, no copy and no view of a wider matrix."""
    monkeypatch.setattr(reward, "_DOUBLE_ENTRIES", 0)
    seen, right = [], reward.fit_first_stage
    monkeypatch.setattr(reward, "fit_first_stage", lambda *given: seen.append(given[-1][0]) or right(*given))
    table = replace(stated_table(40), context=None)
    for prompt_gate, n_columns in ((False, 12), (True, 24)):
        PreferenceModel.fit(table, encoder=SMALL, n_components=1, prompt_gate=prompt_gate)
        assert seen[-1].shape == (40, n_columns)
        assert seen[-1].base is None
        assert seen[-1].flags.c_contiguous


def test_memory_is_that_of_x_and_a_half(monkeypatch):
    """With the numbers of the texts, the vectors of a block and its sums."""
    for module, name in (("_vectors", "_BATCH_TEXTS"), ("_streamed", "_BLOCK_ROWS"), ("hashing", "_BLOCK_ROWS")):
        monkeypatch.setattr(f"micropref.embed.{module}.{name}", 64)
    n_rows = 2_000
    table = PreferenceTable(
        [f"q {i % 50}" for i in range(n_rows)], [f"yes {i}" for i in range(n_rows)], [f"no {i}" for i in range(n_rows)]
    )
    encoder = HashingEncoder(512, n_hashes=2**12)
    encoder.encode(["ready"])
    tracemalloc.start()
    X = PairEncoder(encoder, context="auto").fit_pairs(table, parts=())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    texts = sum(sys.getsizeof(text) for column in (table.chosen, table.rejected) for text in column)
    assert X.nbytes <= peak <= 1.5 * X.nbytes + texts
