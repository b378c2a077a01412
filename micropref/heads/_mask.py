"""A mixture without some of its heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import Array
from micropref._rows.comparisons import Comparisons
from micropref.heads._rebuilt import fitted_mixture, gate_of, mean_weights, rebuilt
from micropref.mixture import MixtureBradleyTerry


def mask_heads(
    mixture: Any, mask_or_indices: ArrayLike, X: Array | None = None, sample_weight: ArrayLike | None = None
) -> MixtureBradleyTerry:
    """A new mixture without these heads; the weights of the others are renormalised in every context.

    The rows of the masked heads are taken out of the gate's output. What is left is a softmax over the other heads,
    π_k(c) / Σ_{j kept} π_j(c): exactly the weights given that none of the masked heads applies.

    Parameters
    ----------
    mixture : MixtureBradleyTerry
        Fitted; it is not changed.
    mask_or_indices : array-like
        True for every head to take out, of shape (n_components,); or their indices, from 0.
    X : array of shape (n_samples, n_columns), optional
        Rows over which ``weights_`` is averaged anew. Without them it is the old one without the masked heads,
        renormalised: exact for static weights, and nearly so for weights that depend on a context. No prediction
        depends on it.
    sample_weight : array-like of shape (n_samples,), optional
        Weights of these rows.

    Returns
    -------
    masked : MixtureBradleyTerry
        With the kept heads in their old order and ``n_components`` their number. It can be saved, used by a router
        that is fitted anew, and learn on by `partial_fit`. ``objective_`` and ``n_iter_`` are of the fit that the heads
        came from; ``converged_`` is False, because no J was minimised without the masked heads.

    Raises
    ------
    TypeError
        If the estimator is no MixtureBradleyTerry.
    ValueError
        If no head would be left, or the mask or an index fits no head.

    Examples
    --------
    >>> import numpy as np
    >>> from micropref import MixtureBradleyTerry
    >>> X = np.random.default_rng(0).normal(size=(90, 2))
    >>> mixture = MixtureBradleyTerry(n_components=3, random_state=0).fit(X)
    >>> masked = mask_heads(mixture, [1])
    >>> masked.n_components, bool((masked.coef_ == mixture.coef_[[0, 2]]).all())
    (2, True)
    """
    mixture = fitted_mixture(mixture)
    kept = ~_as_mask(mask_or_indices, len(mixture.coef_))
    if not kept.any():
        raise ValueError(f"expected a mask that leaves at least one head, got one of all {len(kept)}")
    gate_parameters = gate_of(kept, mixture.gate_parameters_)
    masked = rebuilt(mixture, mixture.coef_[kept], gate_parameters, mixture.weights_[kept])
    if X is not None:
        masked.weights_ = mean_weights(masked, Comparisons.read(masked, X, sample_weight=sample_weight, first=False))
    return masked


def _as_mask(mask_or_indices: ArrayLike, n_heads: int) -> np.ndarray:
    given = np.asarray(mask_or_indices)
    if given.ndim == 1 and given.dtype == bool:
        if len(given) != n_heads:
            raise ValueError(f"expected a mask of {n_heads} entries, one for every head, got {len(given)}")
        return given
    if given.ndim == 1 and given.size == 0:
        return np.zeros(n_heads, dtype=bool)
    if given.ndim > 1 or given.dtype.kind not in "iu":
        raise ValueError(f"expected a mask of True and False, or indices, got {mask_or_indices!r}")
    given = np.atleast_1d(given)
    outside = given[(given < 0) | (given >= n_heads)]
    if len(outside):
        raise ValueError(f"expected heads from 0 to {n_heads - 1}, got {outside[0]}")
    mask = np.zeros(n_heads, dtype=bool)
    mask[given] = True
    return mask
