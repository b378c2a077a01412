"""Accuracy with ties for one half: its symmetry, and that the package spells it, and log σ, in one place each."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import micropref
from micropref.metrics._accuracy import tie_half

MARGINS = arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    array_shapes(max_dims=3),
    elements=st.sampled_from([-np.inf, -1e-7, -0.0, 0.0, 6e-8, 2.0, np.inf]),
)


@given(MARGINS, st.randoms(use_true_random=False))
def test_ties_count_one_half(margins, random):
    signs = np.array([random.choice([-1, 1]) for _ in range(margins.size)], dtype=np.int8).reshape(margins.shape)
    right = tie_half(margins, signs)
    assert right.dtype == np.float64
    for found, margin, sign in zip(right.ravel(), margins.ravel(), signs.ravel(), strict=True):
        assert found == (0.5 if margin == 0 else float((margin > 0) == (sign > 0)))
    np.testing.assert_array_equal(tie_half(-margins, -signs), right)
    np.testing.assert_array_equal(tie_half(margins, -signs), 1 - right)
    np.testing.assert_array_equal(tie_half(margins), tie_half(margins, np.ones_like(signs)))


def test_signs_broadcast_over_heads():
    right = tie_half(np.array([[1.0, -1.0], [0.0, 2.0]]), np.array([[1], [-1]]))
    assert right.tolist() == [[1.0, 0.0], [0.5, 0.0]]


PACKAGE = Path(micropref.__file__).parent
COMPILED = {"_numba.py", "_triton.py", "_torch_op.py"}  # which cannot call the others


@pytest.mark.parametrize(
    ("spelling", "homes"),
    [
        (r"0\.5 ?\* ?\([^()]* == 0", {"metrics/_accuracy.py"}),
        (r"\bwhere\([^()]* == 0(\.5)?, 0\.5,", set()),
        # The truth against which `micropref doctor` checks the kernels is written without them.
        (r"logaddexp\((0|0\.0|0\.), ", {"_installation/truth.py"}),
        (r"\b(log_expit|expit|logsigmoid)\b", set()),
        (r"log(1p)?\((1 ?\+ ?)?(np|xp)\.exp\(", {"kernels/_pointwise.py"}),
    ],
)
def test_one_spelling(spelling, homes):
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")
        if path.name not in COMPILED and re.search(spelling, path.read_text(encoding="utf-8"))
    }  # fmt: skip
    assert found == homes
