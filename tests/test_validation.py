"""Weights and matrices: what they mean, and what their errors say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator

from micropref._rows.matrix import check_context_width, check_matrix
from micropref._rows.weights import check_sample_weight


class Estimator(BaseEstimator):
    pass


def fitted(n_features):
    estimator = Estimator()
    estimator.n_features_in_ = n_features
    return estimator


# ------------------------------------------------------------------------------------------------------------- weights


def test_weights_become_double_precision():
    for given_weights in ([1, 2], np.array([1, 2], dtype=np.float16), torch.tensor([1.0, 2.0])):
        weight = check_sample_weight(given_weights, 2)
        assert weight.dtype == np.float64
        assert weight.tolist() == [1, 2]
    assert check_sample_weight(3, 2).tolist() == [3, 3]
    assert check_sample_weight(None, 2) is None


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, 2.0], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        ([[1.0], [1.0], [1.0]], "1D array or scalar"),
        ([1.0, np.nan, np.nan], "NaN or infinity in row 1"),
        ([1.0, 1.0, np.inf], "NaN or infinity in row 2"),
        ([1.0, -1.0, -5.0], r"no negative number, got -1\.0 in row 1"),
        ([0.0, 0.0, 0.0], "zero in every row"),
        (0.0, "zero in every row"),
    ],
)
def test_bad_weights(weight, message):
    with pytest.raises(ValueError, match=message):
        check_sample_weight(weight, 3)


# ------------------------------------------------------------------------------------------------------------ matrices


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_matrices_keep_their_precision_and_are_not_copied(dtype, tmp_path):
    X = np.ones((3, 2), dtype=dtype)
    for reset in (True, False):
        assert np.shares_memory(check_matrix(fitted(2), X, reset=reset), X)
    tensor = torch.tensor(X, requires_grad=True)
    found = check_matrix(fitted(2), tensor, reset=False)
    assert found.data_ptr() == tensor.data_ptr()
    assert not found.requires_grad
    mapped = np.memmap(tmp_path / "x", dtype=dtype, mode="w+", shape=(3, 2))
    assert np.shares_memory(check_matrix(fitted(2), mapped, reset=True), mapped)


def test_other_numbers_become_double_precision():
    assert check_matrix(Estimator(), [[1, 2], [3, 4]], reset=True).dtype == np.float64
    assert check_matrix(Estimator(), torch.tensor([[1, 2]]), reset=True).dtype == torch.float64


def test_a_fit_on_a_tensor_learns_the_width_and_forgets_the_names():
    estimator = Estimator()
    check_matrix(estimator, pd.DataFrame({"a": [1.0], "b": [2.0]}), reset=True)
    assert estimator.feature_names_in_.tolist() == ["a", "b"]
    check_matrix(estimator, torch.ones(2, 3), reset=True)
    assert estimator.n_features_in_ == 3
    assert not hasattr(estimator, "feature_names_in_")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([1.0, 2.0], "Expected 2D array"),
        ([[[1.0, 2.0]]], "dim 3|3D"),
        ([[1.0, 2.0, 3.0]], "X has 3 features, but Estimator is expecting 2 features"),
        ([[1.0]], "X has 1 features, but Estimator is expecting 2 features"),
    ],
)
def test_bad_matrices(kind, X, message):
    with pytest.raises(ValueError, match=message):
        check_matrix(fitted(2), kind(X), reset=False)


@pytest.mark.parametrize(("shape", "reset"), [((0, 2), True), ((0, 2), False), ((2, 0), True)])
def test_empty_matrices(shape, reset):
    with pytest.raises(ValueError, match=r"0 (sample|feature)\(s\).*minimum of 1"):
        check_matrix(fitted(shape[1]), np.zeros(shape), reset=reset)
    with pytest.raises(ValueError, match="minimum of 1 row and 1 column"):
        check_matrix(fitted(shape[1]), torch.zeros(shape), reset=reset)


def test_strings_and_complex_numbers_are_no_features():
    with pytest.raises(ValueError, match="could not convert"):
        check_matrix(Estimator(), np.array([["a", "b"]]), reset=True)
    with pytest.raises(ValueError, match="Complex"):
        check_matrix(Estimator(), np.ones((2, 2), dtype=complex), reset=True)


@pytest.mark.parametrize(
    ("width", "columns", "message"),
    [
        (-1, 3, "at least 0, got -1"),
        (1.0, 3, "integer of at least 0, got 1.0"),
        (3, 3, r"one column for the difference, got n_context_features=3 and X with 3 feature\(s\)"),
        (4, 3, "one column for the difference"),
    ],
)
def test_bad_context_widths(width, columns, message):
    with pytest.raises(ValueError, match=message):
        check_context_width(width, columns)
