"""The theory on lists, tables and tensors: the same numbers as on arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from micropref import MixtureBradleyTerry
from micropref.theory import (
    error_decomposition,
    estimate_irreducible_error,
    identifiability_report,
    irreducible_error_bounds,
    single_reward_test,
)


def as_pandas(values):
    return pd.DataFrame(values) if values.ndim == 2 else pd.Series(values)


KINDS = {
    "lists": np.ndarray.tolist,
    "pandas": as_pandas,
    "polars": lambda values: pl.DataFrame(values) if values.ndim == 2 else pl.Series(values),
    "arrow": lambda values: pa.Table.from_pandas(pd.DataFrame(values)) if values.ndim == 2 else pa.array(values),
    "torch": lambda values: torch.tensor(values, requires_grad=values.dtype.kind == "f"),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture(scope="module")
def world():
    """Rows of two opposed groups with weights, and a mixture fitted to them."""
    rng = np.random.default_rng(0)
    X, groups = rng.normal(size=(400, 2)), np.arange(400) // 5
    y = (X[:, 0] * np.where(groups % 2 == 0, -3, 3) + rng.logistic(size=400) > 0).astype(int)
    weight = rng.uniform(0.5, 2, size=400)
    weight[7] = 0.0
    return X, y, groups, weight


@kinds
def test_a_known_population(kind, world):
    rng = np.random.default_rng(1)
    probs, single, weight = rng.uniform(size=(12, 3)), rng.uniform(size=12), rng.uniform(size=12)
    weights, prompt = rng.dirichlet(np.ones(3), size=4)[np.arange(12) // 3], np.arange(12) // 3
    features, ids = rng.normal(size=(12, 2)), rng.integers(0, 5, size=(2, 12))
    assert irreducible_error_bounds(
        kind(weights), kind(probs), prompt=kind(prompt), sample_weight=kind(weight)
    ) == irreducible_error_bounds(weights, probs, prompt, weight)
    for given in ({"single_probs": single}, {"features": features}):
        tables = {name: kind(values) for name, values in given.items()}
        assert error_decomposition(kind(weights[0]), kind(probs), **tables) == error_decomposition(
            weights[0], probs, **given
        )
    expected = error_decomposition(weights, probs, responses=tuple(ids))
    assert error_decomposition(weights, probs, responses=(kind(ids[0]), kind(ids[1]))) == expected


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_ids_of_responses_in_a_table_of_two_columns(kind):
    """Two rows: what would be read across where a table were taken for a pair of columns."""
    ids = np.array([["a", "b"], ["a", "c"]], dtype=object)
    probs = [[0.9], [0.8]]
    found = error_decomposition([1.0], probs, responses=KINDS[kind](ids))
    assert found == error_decomposition([1.0], probs, responses=(ids[:, 0], ids[:, 1]))
    with pytest.raises(ValueError, match="responses: expected two columns of ids, first and second, got 1"):
        error_decomposition([1.0], probs, responses=KINDS[kind](ids[:, :1]))


@kinds
def test_ones_own_rows(kind, world):
    X, y, groups, weight = world
    mixture = MixtureBradleyTerry(2, random_state=0, n_init=1).fit(X, y, groups=groups, sample_weight=weight)
    expected = estimate_irreducible_error(mixture, X, y, groups, weight, n_bootstrap=20)
    tables = kind(X), kind(y), kind(groups), kind(weight)
    assert estimate_irreducible_error(mixture, *tables, n_bootstrap=20) == expected
    assert expected.group_information > 0.05


@kinds
def test_a_test_on_halves(kind, world):
    X, y, groups, weight = world
    estimator = MixtureBradleyTerry(2, random_state=0, n_init=1)
    expected = single_reward_test(estimator, X, y, groups, weight)
    found = single_reward_test(estimator, kind(X), kind(y), kind(groups), kind(weight))
    assert found.log_evidence == pytest.approx(expected.log_evidence, abs=1e-6)
    assert found.n_groups == expected.n_groups == 80


@kinds
def test_a_design(kind, world):
    X, _, groups, _ = world
    assert identifiability_report(kind(X), kind(groups), n_context_features=1) == identifiability_report(
        X, groups, n_context_features=1
    )


def test_a_mixture_fitted_to_a_table_is_not_warned_about_its_columns(world, recwarn):
    X, y, groups, _ = world
    table = pd.DataFrame(X, columns=["tone", "length"])
    mixture = MixtureBradleyTerry(2, random_state=0, n_init=1).fit(table, y, groups=groups)
    assert estimate_irreducible_error(mixture, table, y, groups, n_bootstrap=20).n_rows == 400
    assert single_reward_test(mixture, table, y, groups).n_groups == 80
    assert [str(one.message) for one in recwarn] == []
