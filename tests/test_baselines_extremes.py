"""Extreme features, weights and parameters: an answer, or an error that says what is out of range; never NaN."""

from __future__ import annotations

import re
import warnings
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
from baseline_cases import RIVALS, C, each, rows
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

FLOATS = [
    (name, p)
    for name, rival in RIVALS.items()
    for p, v in rival.get_params(deep=False).items()
    if type(v) is float or (v == "auto" and p not in ("init", "refine"))
]


@cache
def fitted(name):
    X, y, annotator = rows()
    return clone(RIVALS[name]).fit(X, y, groups=annotator)


@pytest.mark.parametrize("value", [1e-300, 1e-31, 1e31, 1e300, np.inf, np.nan])
@pytest.mark.parametrize(("name", "parameter"), FLOATS)
def test_extreme_parameters_are_refused_by_name(name, parameter, value):
    X, y, annotator = rows()
    model = clone(RIVALS[name]).set_params(**{parameter: value})
    with pytest.raises(ValueError, match=rf"{parameter}: expected .*a number in .*1e\+30\].*, got"):
        model.fit(X, y, groups=annotator)
    if parameter not in RIVALS[name]._SHAPE:
        model = deepcopy(fitted(name)).set_params(**{parameter: value})
        with pytest.raises(ValueError, match=rf"{parameter}: expected .*a number in .*1e\+30\].*, got"):
            model.partial_fit(X, y)


def _finite_or_refused(model, X, y, weight, annotator, new, new_weight) -> None:
    """All that is learned and answered is finite, or an error says what is out of range."""
    users = np.array(["ann", "bob", None] * (len(new) // 3), dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            model.fit(X, y, weight, annotator).decision_function(new, annotator)
            model.partial_fit(new, y, sample_weight=new_weight, groups=users)
            found = [
                getattr(model, method)(new, groups=users)
                for method in ("predict_proba", "mixture_weights", "utility_variance", "hidden_context_share")
                if hasattr(model, method)
            ]
            if hasattr(model, "rewards"):
                found.append(model.rewards(new[:, model.n_context_features :], groups=users))
        except ValueError as error:
            if not re.search("^expected|every difference is zero", str(error)):
                raise
            return
    found += [value for name, value in vars(model).items() if name.endswith("_") and isinstance(value, np.ndarray)]
    assert all(np.isfinite(value).all() for value in found if np.asarray(value).dtype.kind == "f")


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        *((size, np.float64) for size in (1e-320, 1e-160, 1e-24, 1e10, 1e24, 1e40, 1e99, 1e160)),
        *((size, np.float32) for size in (1e-320, 1e-40, 1e-24, 1e10, 1e24, 1e37)),
    ],
)
@each
def test_extreme_features_are_answered_or_refused(name, size, dtype):
    X, y, annotator = rows(24)
    one, context = X.copy(), X.copy()
    one[5] *= size
    context[:, :C] *= size
    with np.errstate(under="ignore"):  # of making them single
        kinds = [part.astype(dtype) for part in (X, X * size, one, context)]
    plain, scaled, one, context = kinds
    for first, second in ((scaled, scaled), (plain, scaled), (scaled, plain), (one, one), (context, context)):
        with np.errstate(under="ignore"):
            _finite_or_refused(clone(RIVALS[name]), first, y, None, annotator, second, None)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1e-320, 1e-160, 1e-10, 1e28, 1e308])
@each
def test_extreme_weights_are_answered_or_refused(name, size, dtype):
    X, y, annotator = rows(24)
    X = X.astype(dtype)
    for extreme in (np.ones(24, bool), np.arange(24) == 2, annotator == 2):
        weight = np.where(extreme, size, 1.0)
        with np.errstate(under="ignore"):
            _finite_or_refused(clone(RIVALS[name]), X, y, weight, annotator, X, weight)
