"""Users of models saved by 0.1: those who are one by now are one, and it is said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micropref._rows.ids import user_id
from micropref._users.merging import merged_users


def silently(saved, evidence):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return merged_users(saved, evidence)


@pytest.mark.parametrize("saved", [[], [1, 2], [3, "ann", ("ann", 3), "12", 2**70, "012"], list(range(1000))])
def test_users_who_stay_apart_are_as_they_were(saved):
    evidence = np.random.default_rng(0).normal(size=(len(saved), 3)).astype(np.float32)
    users, values = silently(saved, evidence)
    assert users == [user_id(value) for value in saved]
    np.testing.assert_array_equal(values, evidence)


def test_votes_of_one_user_are_added():
    evidence = np.array([[0, -1], [0, -2], [-5, 0], [-3, 0], [-1, 0], [0, -4]], dtype=np.float32)
    with pytest.warns(UserWarning, match=r"the votes of 2 users \(12 and '12', '7' and 7\) known under") as caught:
        users, values = merged_users([12, "ann", "12", "7", "bob", 7], evidence)
    assert users == [12, "ann", 7, "bob"]
    np.testing.assert_array_equal(values, [[-4, 0], [0, -2], [0, -1], [-1, 0]])
    assert values.dtype == np.float32
    assert len(caught) == 1
    assert "left out" not in str(caught[0].message)


def test_ids_that_are_no_user_are_left_out():
    evidence = np.array([[0, -1], [0, -2], [-5, 0]])
    with pytest.warns(UserWarning, match=r"the votes of 2 ids \('-1', ''\) that no longer mean a user were left out"):
        users, values = merged_users(["-1", "ann", ""], evidence)
    assert users == ["ann"]
    np.testing.assert_array_equal(values, evidence[1:2])


def test_one_warning_names_a_few_of_many():
    saved = [*range(100), *map(str, range(100)), "-1"]
    with pytest.warns(UserWarning, match=r"100 users \(0 and '0', .*, …\).*1 id \('-1'\)") as caught:
        users, _ = merged_users(saved, np.zeros((201, 2)))
    assert len(caught) == 1
    assert len(str(caught[0].message)) < 300
    assert users == list(range(100))


@given(
    st.lists(st.one_of(st.integers(-3, 30), st.integers(-3, 30).map(str), st.text(max_size=2)), unique=True), st.data()
)
def test_differences_between_heads_are_sums(saved, data):
    evidence = np.array(
        [data.draw(st.lists(st.floats(-50, 0), min_size=3, max_size=3)) for _ in saved], dtype=float
    ).reshape(-1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        users, values = merged_users(saved, evidence)
    ids = [user_id(value) for value in saved]
    assert users == list(dict.fromkeys(one for one in ids if one is not None))
    for user, row in zip(users, values, strict=True):
        total = evidence[[one == user and type(one) is type(user) for one in ids]].sum(axis=0)
        np.testing.assert_allclose(row - row[0], total - total[0], atol=1e-9)
