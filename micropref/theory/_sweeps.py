"""How the terms of a single reward's error move with one property of a planted population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from micropref._estimator.dead_heads import candidate_fits
from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.mixture import MixtureBradleyTerry
from micropref.theory._bounds import IrreducibleErrorBounds, irreducible_error_bounds
from micropref.theory._decomposition import ErrorDecomposition, error_decomposition

_N_PROMPTS, _PAIRS_PER_PROMPT, _WIDTH, _N_JUDGED = 200, 10, 6, 2000
# Groups of a world, which is computed in some seconds, and of a fit, which takes minutes.
_MAX_GROUPS, _MAX_FITTED = 1000, 64
_DEFAULTS: dict[str, tuple[float, ...]] = {
    "diversity": (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    "n_groups": (1, 2, 3, 4, 6, 8),
    "pairs_per_group": (1, 2, 3, 5, 10, 20),
    "informativeness": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0),
}


@dataclass(frozen=True)
class ErrorSweep:
    """Terms and bounds of a planted population along one of its properties.

    Parameters
    ----------
    parameter : {"diversity", "n_groups", "pairs_per_group", "informativeness"}
        The property that varies.
    values : ndarray of shape (n_values,)
    terms : tuple of n_values ErrorDecomposition
        In nats.
    bounds : tuple of n_values IrreducibleErrorBounds, or None
        Where the weights are a function of the prompt; None for "pairs_per_group".
    """

    parameter: str
    values: np.ndarray
    terms: tuple[ErrorDecomposition, ...]
    bounds: tuple[IrreducibleErrorBounds, ...] | None


def sweep_error(
    parameter: str,
    values: Sequence[float] | None = None,
    *,
    n_components: int = 2,
    scale: float = 2.0,
    n_annotators: int = 400,
    random_state: int = 0,
) -> ErrorSweep:
    """Compute the terms of the error for planted populations that differ in one property.

    Heads have length `scale` and right angles between them (the 7th to 12th are opposites of the first). Prompts have
    pairs whose differences share a direction, so that their responses are not exchangeable. Three properties are
    exact, for the best linear single reward:

    - ``"diversity"``: the smallest weight ρ of any group, the others sharing the rest.
    - ``"n_groups"``: the number of groups, all of the same weight; `n_components` is not used.
    - ``"informativeness"``: how much prompts tell about the group, π(x) = softmax(s g(x)) with s the value: the
      hidden-group term is the group information that remains given the context.

    One is fitted: ``"pairs_per_group"``, the number of pairs m of each of `n_annotators` annotators. A mixture is
    fitted to them, and each of 2 000 new annotators is judged on the same one pair after m − 1 others. The group's
    weights are then Bayes' posterior under the true heads, so that `group_information` is what remains unknown after
    those pairs, and `misspecification` is the distance of the fitted mixture's own answer from that of the truth.

    Parameters
    ----------
    parameter : {"diversity", "n_groups", "pairs_per_group", "informativeness"}
    values : sequence of float, optional
        Values of the property; a usual range by default.
    n_components : int, default=2
        Number of groups.
    scale : float, default=2.0
        Length of the heads; differences have unit variance in each of 6 directions.
    n_annotators : int, default=400
        Annotators that are fitted to, for "pairs_per_group".
    random_state : int, default=0
        The same seed gives the same numbers.

    Returns
    -------
    sweep : ErrorSweep

    Raises
    ------
    ValueError
        For an unknown property or a value outside its range.

    Examples
    --------
    >>> from micropref.theory import sweep_error
    >>> sweep = sweep_error("diversity", [0.1, 0.5])
    >>> [round(terms.group_information, 2) for terms in sweep.terms]
    [0.05, 0.12]
    """
    if parameter not in _DEFAULTS:
        raise ValueError(f"parameter: expected one of {', '.join(map(repr, _DEFAULTS))}, got {parameter!r}")
    points = np.asarray(_DEFAULTS[parameter] if values is None else values, dtype=float)
    if points.ndim != 1 or not points.size or not np.isfinite(points).all():
        raise ValueError(f"values: expected a sequence of finite numbers, got {values!r}")
    most = _MAX_FITTED if parameter == "pairs_per_group" else _MAX_GROUPS
    asked = points.max() if parameter == "n_groups" else n_components
    if asked > most:
        raise ValueError(f"number of groups: expected at most {most} in a planted world, got {asked:g}")
    _check_range(parameter, points, n_components)
    if parameter == "pairs_per_group":
        fitted = [_after_pairs(int(m), n_components, scale, n_annotators, random_state) for m in points]
        return ErrorSweep(parameter, points, tuple(fitted), None)
    found = [_population(parameter, value, n_components, scale, random_state) for value in points]
    return ErrorSweep(parameter, points, tuple(terms for terms, _ in found), tuple(bounds for _, bounds in found))


def _check_range(parameter: str, points: np.ndarray, n_components: int) -> None:
    low, high, what = {
        "diversity": (0.0, 1.0 / n_components, f"between 0 and 1/n_components = {1 / n_components:.3g}"),
        "n_groups": (1, np.inf, "whole numbers of at least 1"),
        "pairs_per_group": (1, np.inf, "whole numbers of at least 1"),
        "informativeness": (0.0, np.inf, "not negative"),
    }[parameter]
    whole = parameter in ("n_groups", "pairs_per_group") and (points != np.round(points)).any()
    if whole or (points < low).any() or (points > high + 1e-12).any():
        raise ValueError(f"values of {parameter}: expected {what}, got {points.tolist()}")


def _heads(n: int, scale: float, random: np.random.RandomState) -> np.ndarray:
    """Directions at right angles while there are any, then their opposites, then any."""
    basis = np.linalg.qr(random.normal(size=(_WIDTH, _WIDTH)))[0]
    more = random.normal(size=(max(0, n - 2 * _WIDTH), _WIDTH))
    directions = np.vstack([basis, -basis, more / np.linalg.norm(more, axis=1, keepdims=True)])
    return scale * directions[:n]


def _population(
    parameter: str, value: float, n_components: int, scale: float, seed: int
) -> tuple[ErrorDecomposition, IrreducibleErrorBounds]:
    k = int(value) if parameter == "n_groups" else n_components
    random = np.random.RandomState(seed)
    common = random.normal(size=(_N_PROMPTS, 1, _WIDTH))
    own = random.normal(size=(_N_PROMPTS, _PAIRS_PER_PROMPT, _WIDTH))
    difference = ((common + own) / np.sqrt(2)).reshape(-1, _WIDTH)
    taste = random.normal(size=(_N_PROMPTS, k))
    heads = _heads(k, scale, random)
    weights = np.full((_N_PROMPTS, k), 1.0 / k)
    if parameter == "diversity" and k > 1:
        weights[:] = (1 - value) / (k - 1)
        weights[:, 0] = value
    elif parameter == "informativeness":
        weights = softmax(value * taste, axis=1)
    weights = np.repeat(weights, _PAIRS_PER_PROMPT, axis=0)
    probs = sigmoid(difference @ heads.T)
    prompt = np.repeat(np.arange(_N_PROMPTS), _PAIRS_PER_PROMPT)
    return error_decomposition(weights, probs, features=difference), irreducible_error_bounds(weights, probs, prompt)


def _after_pairs(m: int, k: int, scale: float, n_annotators: int, seed: int) -> ErrorDecomposition:
    random = np.random.RandomState(seed)
    heads = _heads(k, scale, random)
    judged_pair = random.normal(size=(_N_JUDGED, _WIDTH))  # the same for every m
    n = n_annotators + _N_JUDGED
    kind = random.randint(k, size=n)
    difference = random.normal(size=(n, m, _WIDTH))
    difference[n_annotators:, -1] = judged_pair
    margins = difference @ heads.T
    own = np.take_along_axis(margins, kind[:, None, None], axis=2)[..., 0]
    signs = np.where(random.uniform(size=own.shape) < sigmoid(own), 1.0, -1.0)
    train = slice(0, n_annotators)
    with candidate_fits():  # a head that so few pairs leave without weight is what the sweep is about
        mixture = MixtureBradleyTerry(k, alpha=1e-2, max_iter=1000, random_state=seed).fit(
            difference[train].reshape(-1, _WIDTH),
            signs[train].ravel(),
            groups=np.repeat(np.arange(n_annotators), m),
        )
    new, answers = difference[n_annotators:], signs[n_annotators:, : m - 1, None]

    def judged(coef: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = new[:, : m - 1] @ coef.T
        weights = softmax(np.log(prior) + log_sigmoid(answers * seen).sum(axis=1), axis=1)
        return weights, sigmoid(new[:, -1] @ coef.T)

    weights, probs = judged(heads, np.full(k, 1.0 / k))
    fitted_weights, fitted_probs = judged(mixture.coef_, mixture.weights_)
    return error_decomposition(weights, probs, single_probs=(fitted_weights * fitted_probs).sum(axis=1))
