"""P-values of several tests, adjusted so that they can be read one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import false_discovery_control

_METHODS = ("holm", "benjamini-hochberg", "bonferroni")


def adjust_p_values(p: ArrayLike, method: str = "holm") -> np.ndarray:
    r"""Adjust p-values for the number of tests.

    With p_(1) ≤ … ≤ p_(m) in ascending order,

    .. math::

        \begin{aligned}
        &\text{bonferroni} && \min\bigl(1,\; m\, p_{(i)}\bigr) \\
        &\text{holm} && \max_{j \le i}\; \min\bigl(1,\; (m - j + 1)\, p_{(j)}\bigr) \\
        &\text{benjamini-hochberg} && \min_{j \ge i}\; \min\bigl(1,\; m\, p_{(j)} / j\bigr)
        \end{aligned}

    The first two bound the probability of any false rejection under every dependence of the tests, Holm's with more
    power; the third bounds the expected share of false ones among rejections of independent or positively dependent
    tests.

    Parameters
    ----------
    p : array-like of shape (n_tests,)
        P-values in [0, 1].
    method : {"holm", "benjamini-hochberg", "bonferroni"}, default="holm"

    Returns
    -------
    adjusted : ndarray of shape (n_tests,)
        In the order of `p`, each at least as large as its p-value, and ordered as they are. Rejecting those of at most
        0.05 keeps the error at 0.05.

    Raises
    ------
    ValueError
        If there is no p-value, one is not in [0, 1], or the method is unknown.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979). Benjamini and
    Hochberg, "Controlling the false discovery rate", J. R. Statist. Soc. B 57 (1995).

    Examples
    --------
    >>> adjust_p_values([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"p: expected shape (n_tests,) with at least one p-value, got shape {values.shape}")
    strange = ~((values >= 0) & (values <= 1))
    if strange.any():
        row = int(strange.argmax())
        raise ValueError(f"p: expected p-values in [0, 1], got {values[row]} in place {row}")
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(map(repr, _METHODS))}, got {method!r}")
    if method == "bonferroni":
        return np.minimum(1.0, len(values) * values)
    if method == "benjamini-hochberg":
        return np.asarray(false_discovery_control(values, method="bh"))
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.arange(len(values), 0, -1) * values[order]))
    return adjusted
