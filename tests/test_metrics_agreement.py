"""Agreement of heads: planted ones in another order, of other sizes, more or fewer of them."""

from __future__ import annotations

import doctest
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import micropref.metrics._agreement
from micropref.metrics import head_agreement


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_it_is_the_best_of_all_matchings(seed, n_heads, n_planted, with_rows):
    rng = np.random.default_rng(seed)
    coef, planted, X = (rng.normal(size=(n, 3)) for n in (n_heads, n_planted, 20))
    found = head_agreement(coef, planted, X if with_rows else None)
    a, b = (coef @ X.T, planted @ X.T) if with_rows else (coef, planted)
    cosine = np.array([[u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in b] for u in a])
    np.testing.assert_allclose(found.similarity, cosine, atol=1e-12)
    size = min(n_heads, n_planted)
    best = max(
        sum(cosine[i, j] for i, j in zip(rows, columns, strict=True))
        for rows in permutations(range(n_heads), size)
        for columns in permutations(range(n_planted), size)
    )
    assert found.cosines.sum() == pytest.approx(best)
    assert found.mean == pytest.approx(best / n_planted)
    matched = found.permutation >= 0
    assert matched.sum() == size
    assert len(set(found.permutation[matched])) == size
    np.testing.assert_allclose(found.cosines[matched], cosine[found.permutation[matched], np.flatnonzero(matched)])
    assert not found.cosines[~matched].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_planted_heads_are_found_in_any_order_and_size(seed):
    rng = np.random.default_rng(seed)
    planted = rng.normal(size=(4, 6))
    order = rng.permutation(4)
    coef = planted[order] * rng.uniform(0.01, 100, size=(4, 1))
    X = rng.normal(size=(30, 6))
    for rows in (None, X, X * rng.choice([-1, 1], size=(30, 1))):
        found = head_agreement(coef, planted, rows)
        np.testing.assert_allclose(found.cosines, 1.0)
        np.testing.assert_array_equal(order[found.permutation], np.arange(4))


def test_directions_in_which_pairs_do_not_differ_do_not_count():
    X = np.random.default_rng(0).normal(size=(50, 2)) * [1.0, 0.0]
    heads, planted = [[1.0, 5.0]], [[1.0, -5.0]]
    assert head_agreement(heads, planted, X).mean == pytest.approx(1.0)
    assert head_agreement(heads, planted).mean < -0.9


def test_extreme_sizes_and_zeros():
    assert head_agreement([[1e-200, 0.0]], [[1e200, 0.0]]).mean == 1.0
    assert head_agreement([[0.0, 0.0]], [[1.0, 0.0]]).mean == 0.0
    assert head_agreement([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]).permutation.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [[1.0]]), r"coef: expected a matrix .*got shape \(1,\)"),
        (([[1.0]], np.empty((0, 1))), r"planted_coef: expected .*got shape \(0, 1\)"),
        (([[1.0, np.nan]], [[1.0, 0.0]]), "coef: expected finite numbers, got nan in row 0, column 1"),
        (([[1.0, 2.0]], [[1.0]]), "planted_coef: expected 2 features, as coef has, got 1"),
        (([[1.0]], [[1.0]], [[1.0, 2.0]]), "X: expected 1 columns, without context, got 2"),
        (([[1.0]], [[1.0]], [[1.0], [np.inf]]), "X: expected finite numbers, got inf in row 1, column 0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        head_agreement(*arguments)


def test_examples_run():
    assert doctest.testmod(micropref.metrics._agreement) == (0, 2)
