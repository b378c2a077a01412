"""Every estimator at the ends of the range: an answer that is finite, or an error that says what is out of range."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from baseline_cases import rows
from sklearn.base import clone
from test_any_order import ESTIMATORS

# Factors of all features and of all weights.
FACTORS = [
    *((size, 1.0) for size in (1e-300, 1e-99, 1e-40, 1e40, 1e99, 1e300)),
    *((1.0, size) for size in (1e-300, 1e-99, 1e99, 1e300)),
    *((1e-99, 1e99), (1e99, 1e99), (1e99, 1e-99), (1e-99, 1e-99)),
]
REFUSED = "^expected|every difference is zero"


@pytest.mark.parametrize(("size", "weight"), FACTORS)
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name.startswith(("mixture", "one", "hier", "router"))])
def test_extremes_are_answered_or_refused(name, size, weight):
    X, y, annotator = rows(24)
    came = answered(ESTIMATORS[name], X * size, y, np.full(24, weight), annotator)
    assert came or not (1e-40 <= size <= 1e40 and weight == 1)


@pytest.mark.parametrize("name", ["one head", "UserRewards", "GroupRewards", "LowRankRewards", "HardMixture"])
def test_predictions_do_not_depend_on_the_unit_of_features(name):
    X, y, annotator = rows(24)
    expected = clone(ESTIMATORS[name]).set_params(alpha="auto").fit(X, y, groups=annotator).decision_function(X)
    for size in (2.0**-130, 2.0**130):
        model = clone(ESTIMATORS[name]).set_params(alpha="auto").fit(X * size, y, groups=annotator)
        np.testing.assert_allclose(model.decision_function(X * size), expected, rtol=1e-3, atol=1e-3)


def answered(estimator, X, y, weight, annotator) -> bool:
    """Whether a fit came, with finite answers; a failure for an error that does not say what is out of range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        try:
            model = clone(estimator).fit(X, y, weight, annotator)
        except ValueError as error:
            if not re.search(REFUSED, str(error)):
                raise
            return False
    assert np.isfinite(model.decision_function(X)).all()
    assert np.isfinite(model.predict_proba(X)).all()
    return True
