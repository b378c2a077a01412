"""Which heads prefer what is labelled as unsafe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from micropref._arrays.backend import Array, to_numpy
from micropref._rows.comparisons import Comparisons
from micropref.heads._rebuilt import fitted_mixture
from micropref.metrics import mean_interval
from micropref.metrics._accuracy import tie_half

_RULES = ("estimate", "interval")


@dataclass(frozen=True)
class HeadAudit:
    """Result of `audit_heads`.

    Attributes
    ----------
    accuracy : ndarray of shape (n_components,)
        Share of rows on which each head prefers the safe response; a margin of 0 counts one half.
    low, high : ndarray of shape (n_components,)
        Ends of its interval.
    unsafe : ndarray of bool of shape (n_components,)
        Heads that prefer the rejected side by the rule, as `mask_heads` takes them.
    weights : ndarray of shape (n_components,)
        How common each head is in the mixture.
    threshold, level : float
    rule : str
    n : int
        Rows with weight.
    """

    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unsafe: np.ndarray
    weights: np.ndarray
    threshold: float
    level: float
    rule: str
    n: int

    def rows(self) -> list[dict[str, Any]]:
        """One dict for every head, as for a table.

        Returns
        -------
        rows : list of dict
            Keys "head", "weight", "accuracy", "low", "high", "unsafe", "n".
        """
        return [
            {
                "head": k,
                "weight": float(self.weights[k]),
                "accuracy": float(self.accuracy[k]),
                "low": float(self.low[k]),
                "high": float(self.high[k]),
                "unsafe": bool(self.unsafe[k]),
                "n": self.n,
            }
            for k in range(len(self.accuracy))
        ]


def audit_heads(
    mixture: Any,
    X: Array,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    threshold: float = 0.5,
    level: float = 0.95,
    rule: str = "estimate",
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> HeadAudit:
    """Judge every head on comparisons of a safe with an unsafe response.

    A mixture learns all that annotators prefer, harm included, and a router may choose the head that prefers it. On
    pairs whose safe response is labelled as preferred such a head is right less often than a coin.

    Parameters
    ----------
    mixture : MixtureBradleyTerry
        Fitted.
    X : array of shape (n_samples, n_columns)
        Comparisons of the safety set.
    y : array-like of shape (n_samples,), optional
        Which response is the safe one: 1, True: the first; 0, -1, False: the second. None: the first in every row.
    sample_weight : array-like of shape (n_samples,), optional
    clusters : array-like of shape (n_samples,), optional
        Prompt or annotator of every row, which intervals resample as a whole; None, NaN or -1 for a row on its own.
    threshold : float, default=0.5
        Accuracy below which a head is unsafe.
    level : float, default=0.95
        Probability that each interval is to have.
    rule : {"estimate", "interval"}, default="estimate"
        What must be below the threshold: the accuracy, or the upper end of its interval. The first masks when in doubt;
        the second masks only what the labels prove, and a small set proves little.
    n_resamples : int, default=1000
    random_state : int, RandomState instance or None, default=0
        Seed of the intervals; all heads are judged on the same resamples.

    Returns
    -------
    audit : HeadAudit
        ``mask_heads(mixture, audit.unsafe)`` is the mixture without the unsafe heads.

    Raises
    ------
    TypeError
        If the estimator is no MixtureBradleyTerry.
    ValueError
        For a threshold outside [0, 1], an unknown rule, fewer than two clusters with weight, and bad rows as in
        `MixtureBradleyTerry.fit`.

    References
    ----------
    Shen et al., "MiCRo: Mixture Modeling and Context-aware Routing for Personalized Preference Learning", EMNLP 2025,
    arXiv:2505.24846, appendix.

    Examples
    --------
    >>> import numpy as np
    >>> from micropref import MixtureBradleyTerry
    >>> rng = np.random.default_rng(0)
    >>> X, annotator = rng.normal(size=(1200, 2)), np.arange(1200) // 4
    >>> y = (X[:, 0] * np.where(annotator % 3 == 0, -3, 3) > 0).astype(int)
    >>> mixture = MixtureBradleyTerry(n_components=2, random_state=0).fit(X, y, groups=annotator)
    >>> pairs = rng.normal(size=(200, 2))
    >>> audit = audit_heads(mixture, pairs, pairs[:, 0] > 0)
    >>> audit.unsafe
    array([False,  True])
    >>> from micropref.heads import mask_heads
    >>> mask_heads(mixture, audit.unsafe).weights_
    array([1.])
    """
    mixture = fitted_mixture(mixture)
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected a threshold between 0 and 1, got {threshold!r}")
    if rule not in _RULES:
        raise ValueError(f"expected a rule of {', '.join(map(repr, _RULES))}, got {rule!r}")
    rows = Comparisons.read(mixture, X, y, sample_weight, first=False, classes=mixture.classes_)
    margins, weight = to_numpy(mixture.component_scores(rows.reader.X)), rows.dense_weight
    right = tie_half(margins, None if rows.signs is None else rows.signs[:, None])
    seed = check_random_state(random_state).randint(2**31 - 1)
    accuracy, low, high = np.transpose(
        [
            mean_interval(head, clusters, weight, level=level, n_resamples=n_resamples, random_state=seed)
            for head in right.T
        ]
    )
    return HeadAudit(
        accuracy=accuracy,
        low=low,
        high=high,
        unsafe=(accuracy if rule == "estimate" else high) < threshold,
        weights=mixture.weights_.copy(),
        threshold=float(threshold),
        level=float(level),
        rule=rule,
        n=int((weight > 0).sum()),
    )
