"""Which annotator to ask which pair next, so that the heads are found soonest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, to_numpy
from micropref._engine.label_design import LabelDesign, LinearLabels
from micropref._engine.priors import HEAD_DEVIATION
from micropref._rows.arrays import as_rows
from micropref._rows.groups import check_groups
from micropref._rows.layout import root_mean_square_norms
from micropref._rows.pair_keys import askable_rows, owned_keys, pair_keys
from micropref.kernels._pointwise import sigmoid

__all__ = ["suggest_annotations"]

_TINY = np.finfo(np.float64).tiny


def suggest_annotations(
    mixture: Any,
    X: Array,
    groups: ArrayLike | None = None,
    n_queries: int = 1,
    *,
    labelled: tuple[Any, ...] | None = None,
    random_state: Any = 0,
) -> NDArray[np.intp]:
    r"""Choose which annotator should compare which pair next, so that the heads are found soonest.

    With r_uk the probability that annotator u has head k, given all answers so far, the answer to a pair d has the
    probability p = Σ_k r_uk σ(w_kᵀd), and says of the heads, by Laplace's approximation under the prior of
    ``alpha="auto"``,

    .. math::

        I(y_S; w_1, \dots, w_K) &= \tfrac12 \log \det(I + K_S), \\
        K_{ij} &= \frac{s^2}{\operatorname{mean} \lVert d \rVert^2}\, d_i^\top d_j \sum_k a_{ik} a_{jk}, \\
        a_{ik} &= \frac{r_{u(i)k}\, \sigma'(w_k^\top d_i)}{\sqrt{p_i (1 - p_i)}},

    s = 1.75. It is large where the annotator's head is known, so that the answer is about that head, where the answer
    is open, and where the pair differs in a direction in which that head has been asked little. Answers are chosen one
    after the other by what they add to those that are there and to those chosen before.

    Parameters
    ----------
    mixture : MixtureBradleyTerry or HierarchicalBradleyTerry
        Fitted on the answers so far.
    X : array of shape (n_samples, n_features)
        Pairs that could be asked, a row for every annotator who could be asked about it.
    groups : array-like of shape (n_samples,), optional
        The annotator of every row; one without answers, and none, has the weights of the mixture.
    n_queries : int, default=1
        Number of answers.
    labelled : tuple of X, y and groups, optional
        The answers so far, as in ``mixture.fit``; y may be None. Without any, all annotators are new, and the heads
        are taken to be known no better than before any answer.
    random_state : int, RandomState instance or None, default=0
        Seed of the choice among answers that are equally good.

    Returns
    -------
    rows : ndarray of int of shape (n_queries,)
        Positions in X, the first answer first. No annotator is asked a pair twice, nor one that they have answered.

    Raises
    ------
    ValueError
        If `n_queries` is not between 1 and the number of distinct rows without an answer, and for rows that are not
        like those of the fit.

    References
    ----------
    Chaloner and Verdinelli, "Bayesian Experimental Design: A Review", Statistical Science 10(3), 1995.

    Examples
    --------
    Ann and Bob have answered, and have different heads; Eve has not.

    >>> import numpy as np
    >>> from micropref import MixtureBradleyTerry
    >>> from micropref.heads import suggest_annotations
    >>> rng = np.random.default_rng(0)
    >>> D, annotators = rng.normal(size=(60, 2)), np.array(["ann", "bob"] * 30)
    >>> y = (D[:, 0] * np.where(annotators == "ann", 3, -3) > 0).astype(int)
    >>> heads = MixtureBradleyTerry(2, random_state=0).fit(D, y, groups=annotators)
    >>> pair = [[0.1, 1.0]]
    >>> row = suggest_annotations(heads, pair * 3, ["eve", "ann", "ann"], labelled=(D, y, annotators))
    >>> row.tolist() != [0]
    True
    """
    if isinstance(mixture, BaseEstimator) and not hasattr(mixture, "component_scores"):
        raise TypeError(
            f"mixture: expected a MixtureBradleyTerry or HierarchicalBradleyTerry, got a {type(mixture).__name__}"
        )
    check_is_fitted(mixture, "coef_")
    random = check_random_state(random_state)
    rows, answered = _Answers(mixture, X, None, groups), None
    if labelled is not None and len(_three(labelled)[0]):
        answered = _Answers(mixture, *labelled)
    keys, known = _keys(rows, answered)
    candidates = askable_rows(keys, n_queries, known)
    slopes, difference = rows.slopes(answered), rows.difference
    norm = root_mean_square_norms(difference, 0)[1]
    scale = HEAD_DEVIATION / (norm if norm > 0 else 1.0)
    design = LabelDesign(
        LinearLabels(slopes[candidates], scale * difference[candidates]),
        None if answered is None else LinearLabels(answered.slopes(answered), scale * answered.difference),
    )
    return np.asarray(candidates[design.choose(int(n_queries), random)])


class _Answers:
    """Rows that annotators have answered, or could answer."""

    def __init__(self, mixture: Any, X: Any, y: Any, groups: Any):
        self.mixture, self.X, self.y = mixture, as_rows(X), y
        self.margins = to_numpy(mixture.component_scores(self.X)).astype(np.float64)
        self.difference = to_numpy(self.X[:, mixture.n_context_features_ :]).astype(np.float64)
        self.groups = check_groups(groups, len(self.margins))

    @property
    def annotators(self) -> list[Any]:
        """The annotator of every row; None where there is none."""
        if self.groups is None:
            return [None] * len(self.margins)
        ids = [*self.groups.ids.tolist(), None]
        return [ids[place] for place in self.groups.index]

    def heads_of_annotators(self) -> dict[Any, NDArray[np.float64]]:
        """r_u of every annotator, by these answers."""
        if self.groups is None:
            return {}
        some = self.groups.index >= 0
        names = [name for name in self.annotators if name is not None]
        labels = None if self.y is None else np.asarray(to_numpy(self.y))[some]
        found = to_numpy(self.mixture.responsibilities(self.X[some], labels, names)).astype(np.float64)
        return dict(zip(self.groups.ids.tolist(), found, strict=True))

    def slopes(self, answered: _Answers | None) -> NDArray[np.float64]:
        """a_ik of every row, (n, K), by the answers so far."""
        weights = to_numpy(self.mixture.mixture_weights(self.X)).astype(np.float64)
        known = {} if answered is None else answered.heads_of_annotators()
        for row, name in enumerate(self.annotators):
            weights[row] = known.get(name, weights[row])
        first, second = sigmoid(self.margins), sigmoid(-self.margins)
        p, q = (weights * first).sum(axis=1), (weights * second).sum(axis=1)
        return np.asarray(weights * first * second / np.sqrt(np.maximum(p * q, _TINY))[:, None])


def _keys(rows: _Answers, answered: _Answers | None) -> tuple[NDArray[np.uint64], NDArray[np.uint64] | None]:
    """Keys of annotators with pairs."""
    both = [rows] if answered is None else [rows, answered]
    number: dict[Any, int] = {}
    keys = []
    for one in both:
        owners = np.array([number.setdefault(name, len(number)) for name in one.annotators], dtype=np.uint64)
        keys.append(owned_keys(owners, pair_keys(one.difference)))
    return keys[0], None if answered is None else keys[1]


def _three(labelled: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    if not isinstance(labelled, tuple | list) or len(labelled) != 3:
        raise ValueError(f"labelled: expected the three X, y and groups, got a {type(labelled).__name__}")
    X, y, groups = labelled
    return X, y, groups
